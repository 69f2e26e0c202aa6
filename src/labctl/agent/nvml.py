"""The way to NVIDIA's library, for all that asks it: what is wrong has a name, what is missing is null.

The binding is loaded only where the driver's library is, since reading it costs time. An error of the library
as a whole is a finding with a code that programs can go by. An error of one value is null: without a word
where the card has no such value (a GB10 has no power cap), else with the reason. A card that is lost is not
asked any further: each question could take seconds.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .host import text
from .sections import Finding

LIBRARY = "libnvidia-ml.so.1"
LOST = "gpu-lost"
_NVIDIA = "0x10de"
_DISPLAY = "0x03"
_NOT_SUPPORTED, _LIBRARY_NOT_FOUND, _FUNCTION_NOT_FOUND, _GPU_IS_LOST = 3, 12, 13, 15
_ABSENT = (_NOT_SUPPORTED, _FUNCTION_NOT_FOUND)

_REBOOT = "the driver was updated under a running kernel module: reboot the host"
_CODES: dict[int, tuple[str, str]] = {
    4: ("no-permission", "this needs root, or access to /dev/nvidia*"),
    8: ("gpu-power-cable", "connect the card's power cables"),
    9: (
        "driver-not-loaded",
        "the kernel module is not loaded: look at dmesg; after a kernel update, reboot",
    ),
    10: ("hang", "a driver may hang: look at dmesg, then reboot the host"),
    12: ("driver-missing", "install the driver: labctl apply, or on a vendor's own image its updates"),
    15: (LOST, "the card fell off the bus: look for Xid 79 in dmesg; check power and riser, then reboot"),
    16: ("gpu-reset-required", "reboot the host, or reset the card"),
    17: ("blocked", "a container or a device policy keeps /dev/nvidia* away: look at DeviceAllow="),
    18: ("driver-mismatch", _REBOOT),
}


class Card:
    """A card as the host's PCI bus shows it, which costs nothing and wakes nobody."""

    def __init__(self, path: Path) -> None:
        self.pci = path.name
        driver = path / "driver"
        self.driver = driver.resolve().name if driver.exists() else None
        self.asleep = text(path / "power/runtime_status") == "suspended"


def cards(root: Path) -> list[Card]:
    """Return the NVIDIA display controllers of this host that are not given away to a virtual machine."""
    folder = root / "sys/bus/pci/devices"
    found = [
        Card(path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if text(path / "vendor") == _NVIDIA and (text(path / "class") or "").startswith(_DISPLAY)
    ]
    return sorted((card for card in found if card.driver != "vfio-pci"), key=lambda card: card.pci)


def is_installed() -> bool:
    """Return whether the driver's library is here; it is loaded then."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def missing(found: list[Card]) -> Finding:
    """Return the finding for cards without the driver's library."""
    code, hint = _CODES[_LIBRARY_NOT_FOUND]
    where = ", ".join(card.pci for card in found)
    return Finding(f"NVIDIA card at {where}, but the driver's library {LIBRARY} is not installed", hint, code)


def opened() -> Any:
    """Return the binding, with the library initialised.

    Raises:
        Finding: the library does not work.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        code, hint = _CODES.get(error.value, ("nvml-error", ""))
        raise Finding(f"NVML does not work: {error}", hint, code) from None
    return pynvml


def count(pynvml: Any) -> int:
    """Return how many cards the driver has.

    Raises:
        Finding: it does not say.
    """
    try:
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError as error:
        what = f"NVML does not say how many cards there are: {error}"
        raise Finding(what, hint_of(code_of(error)), code_of(error)) from None


def code_of(error: Any) -> str:
    """Return the name of an NVML error, or "nvml-error"."""
    return _CODES.get(error.value, ("nvml-error", ""))[0]


def hint_of(code: str) -> str:
    """Return what to do about an error of that name."""
    return next((hint for known, hint in _CODES.values() if known == code), "")


class Values:
    """Values of one card, each read on its own; ``errors`` are those that failed though the card has them.

    ``code`` is the name of what is wrong with the card as a whole, if something is.
    """

    def __init__(self, pynvml: Any) -> None:
        self.pynvml = pynvml
        self.errors: dict[str, str] = {}
        self.code: str | None = None

    def read(self, name: str, call: Callable[..., Any], *args: Any) -> Any:
        """Return what the call gives, or null where the card has no such value or would not tell."""
        if self.code == LOST:
            return None
        try:
            return call(*args)
        except self.pynvml.NVMLError as error:
            if error.value not in _ABSENT:
                self.errors[name] = str(error)
                if name == "card" or error.value == _GPU_IS_LOST:
                    self.code = code_of(error)
            return None


def word(value: Any) -> Any:
    """Return text as text; older bindings give bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def watts(milliwatts: int | None) -> float | None:
    """Return watts, to one decimal."""
    return None if milliwatts is None else round(milliwatts / 1000, 1)
