"""NVIDIA GPUs through NVML, by the binding that travels with the agent.

The binding is loaded only where the driver's library is, since reading it costs a fifth of a second. A value
that a card does not have (a cap on a laptop or a GB10, memory of its own on a unified one) is null; a value
that should be there and could not be read is null with its reason under ``errors``. A lost card stays in the
list under its index, so that nobody takes it for removed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .host import ROOT, text
from .sections import Finding

_NVIDIA = "0x10de"
_DISPLAY = "0x03"
_LIBRARY = "libnvidia-ml.so.1"


def nvidia(root: Path = ROOT) -> dict[str, Any]:
    """Return the NVIDIA driver and GPUs of this host.

    Raises:
        Finding: there are cards and no working driver.
    """
    cards = _cards(root)
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        if cards:
            raise Finding(
                f"NVIDIA card at {', '.join(cards)}, but the driver's library {_LIBRARY} is not installed"
            ) from None
        return {"driver": None, "nvml": None, "cuda": None, "gpus": []}
    return _by_nvml(cards)


def _cards(root: Path) -> list[str]:
    """Return the PCI addresses of NVIDIA display controllers."""
    folder = root / "sys/bus/pci/devices"
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(
        path.name
        for path in found
        if text(path / "vendor") == _NVIDIA and (text(path / "class") or "").startswith(_DISPLAY)
    )


def _by_nvml(cards: list[str]) -> dict[str, Any]:
    import pynvml

    try:
        pynvml.nvmlInit()
        return _answers(pynvml)
    except pynvml.NVMLError as error:
        if isinstance(error, pynvml.NVMLError_DriverNotLoaded) and not cards:
            return {"driver": None, "nvml": None, "cuda": None, "gpus": []}
        raise Finding(f"NVML does not work: {error}", _remedy(pynvml, error)) from None


def _answers(pynvml: Any) -> dict[str, Any]:
    cuda = _Values().read("cuda", pynvml.nvmlSystemGetCudaDriverVersion)
    return {
        "driver": _word(pynvml.nvmlSystemGetDriverVersion()),
        "nvml": _word(pynvml.nvmlSystemGetNVMLVersion()),
        "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        "gpus": [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())],
    }


def _remedy(pynvml: Any, error: Exception) -> str:
    if isinstance(error, pynvml.NVMLError_LibRmVersionMismatch):
        return "the driver was updated under a running kernel module: reboot the host"
    if isinstance(error, pynvml.NVMLError_DriverNotLoaded):
        return "the kernel module is not loaded: look at dmesg; after a kernel update, reboot"
    return ""


class _Values:
    """Values of one card, each read on its own; ``errors`` are those that failed though the card has them."""

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}

    def read(self, name: str, call: Callable[..., Any], *args: Any) -> Any:
        """Return what the call gives, or null where the card has no such value or would not tell."""
        import pynvml

        try:
            return call(*args)
        except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
            return None
        except pynvml.NVMLError as error:
            self.errors[name] = str(error)
            return None


def _gpu(pynvml: Any, index: int) -> dict[str, Any]:
    values = _Values()
    card = values.read("card", pynvml.nvmlDeviceGetHandleByIndex, index)
    if card is None:
        return {"index": index, "uuid": None, "errors": values.errors}
    pci = values.read("pci", pynvml.nvmlDeviceGetPciInfo, card)
    memory = values.read("memory", pynvml.nvmlDeviceGetMemoryInfo, card)
    limits = values.read("cap_range", pynvml.nvmlDeviceGetPowerManagementLimitConstraints, card)
    load = values.read("busy_percent", pynvml.nvmlDeviceGetUtilizationRates, card)
    default = values.read("cap_default_w", pynvml.nvmlDeviceGetPowerManagementDefaultLimit, card)
    return {
        "index": index,
        "uuid": _word(values.read("uuid", pynvml.nvmlDeviceGetUUID, card)),
        "name": _word(values.read("name", pynvml.nvmlDeviceGetName, card)),
        "pci": _word(pci.busId).lower() if pci else None,
        "vram_mib": memory.total >> 20 if memory else None,
        "vram_used_mib": memory.used >> 20 if memory else None,
        "busy_percent": load.gpu if load else None,
        "temperature_c": values.read(
            "temperature_c", pynvml.nvmlDeviceGetTemperature, card, pynvml.NVML_TEMPERATURE_GPU
        ),
        "power_w": _watts(values.read("power_w", pynvml.nvmlDeviceGetPowerUsage, card)),
        "cap_w": _watts(values.read("cap_w", pynvml.nvmlDeviceGetPowerManagementLimit, card)),
        "cap_default_w": _watts(default),
        "cap_min_w": _watts(limits[0]) if limits else None,
        "cap_max_w": _watts(limits[1]) if limits else None,
        "errors": values.errors,
    }


def _word(value: Any) -> Any:
    """Return text as text; older bindings give bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else round(milliwatts / 1000, 1)
