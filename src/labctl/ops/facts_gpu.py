"""What the choice of a GPU driver depends on, asked in one command that never fails and changes nothing.

What a host does not answer is not known, and None says so: a host without UEFI has no Secure Boot to ask for,
a container sees its machine's kernel but cannot load a module into it. Versions are taken where they are made
(the loaded module, the module on disk for the running kernel, the library that programs load), because the
three differ exactly when a driver was replaced under a running one.

The loaded module's version comes from the kernel's own file for it; ``/proc/driver/nvidia/version`` serves
where that file is missing, and says which flavour runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.facts import FactBase
from typing_extensions import override

from labctl.ops.command import text

NVIDIA = "10de"
AMD = "1002"


@dataclass(frozen=True, slots=True)
class PciDevice:
    """A graphics card on the bus: its address, and vendor and device as four hexadecimal digits."""

    address: str
    vendor: str
    device: str


@dataclass(frozen=True, slots=True)
class MachineInfo:
    """A host as the choice of a driver sees it; "" and None mean that it did not say.

    ``arch`` is Debian's word (amd64, arm64). ``container``: the kernel's modules belong to the machine
    around it. ``secure_boot`` is None without UEFI; ``key_enrolled``: the firmware knows the key by which
    DKMS signs. ``pci`` holds the graphics cards and accelerators only. ``nvidia_answers``: a driver serves
    the cards; ``nvidia_mismatch``: it refused the library; ``nouveau``: the kernel's own driver (nouveau,
    nova) is there. ``gfx`` are AMD's targets that the kernel's compute driver serves, such as "gfx1100".
    ``dkms`` are its lines about modules, ``headers`` whether those of the running kernel are there,
    ``reboot_for`` packages that asked for a reboot.
    """

    os_id: str = ""
    os_version: str = ""
    codename: str = ""
    kernel: str = ""
    arch: str = ""
    container: bool = False
    uefi: bool = False
    secure_boot: bool | None = None
    pci: tuple[PciDevice, ...] = ()
    nvidia_loaded: str | None = None
    nvidia_flavour: str | None = None
    nvidia_on_disk: str | None = None
    nvidia_library: str | None = None
    nvidia_mismatch: bool = False
    nvidia_answers: bool = False
    nouveau: bool = False
    key_enrolled: bool = False
    kfd: bool = False
    gfx: tuple[str, ...] = ()
    dkms: tuple[str, ...] = ()
    headers: bool = False
    reboot_required: bool = False
    reboot_for: tuple[str, ...] = ()

    @property
    def mismatch(self) -> str | None:
        """What of the NVIDIA driver does not fit together until the next boot, as a sentence, or None."""
        loaded, disk, library = self.nvidia_loaded, self.nvidia_on_disk, self.nvidia_library
        if loaded and disk and loaded != disk:
            return f"the NVIDIA kernel module {loaded} is loaded and {disk} is installed"
        if loaded and library and loaded != library and not disk:
            return f"the NVIDIA kernel module {loaded} is loaded and the library is {library}"
        if self.nvidia_mismatch:
            return (
                f"the loaded NVIDIA kernel module does not fit the library {library or 'that is installed'}"
            )
        return None

    @property
    def misfit(self) -> str | None:
        """What of the installed NVIDIA driver does not fit together, so that no boot mends it, or None."""
        loaded, disk, library = self.nvidia_loaded, self.nvidia_on_disk, self.nvidia_library
        if disk and library and disk == loaded and disk != library:
            return f"the NVIDIA kernel module {disk} and the library {library} are installed side by side"
        return None

    def cards(self, vendor: str) -> tuple[PciDevice, ...]:
        """Return the cards of a vendor, such as ``NVIDIA``."""
        return tuple(card for card in self.pci if card.vendor == vendor)


class Machine(FactBase[MachineInfo]):
    """What a host says of itself, as a ``MachineInfo``."""

    @override
    @staticmethod
    def default() -> MachineInfo:
        """Return a host of which nothing is known."""
        return MachineInfo()

    @override
    def command(self) -> StringCommand:
        """Return the one command that asks."""
        return StringCommand("sh", "-c", QuoteString(text("machine")), "labctl-machine")

    @override
    def process(self, output: list[str]) -> MachineInfo:
        """Read "key value" lines; an unknown key is left out, a repeated one adds to a list."""
        said: dict[str, list[str]] = {}
        for line in output:
            key, _, value = line.partition(" ")
            said.setdefault(key, []).append(value.strip())
        return _machine(said)


def gfx_target(version: str) -> str:
    """Return the LLVM target for the kernel's number: 110501 is gfx1151, 90010 is gfx90a."""
    number = int(version)
    major, minor, stepping = number // 10000, number // 100 % 100, number % 100
    return f"gfx{major}{minor:x}{stepping:x}"


def _machine(said: dict[str, list[str]]) -> MachineInfo:
    def one(key: str) -> str:
        return said.get(key, [""])[0]

    secure = one("secure_boot")
    return MachineInfo(
        os_id=one("os_id"),
        os_version=one("os_version"),
        codename=one("codename"),
        kernel=one("kernel"),
        arch={"x86_64": "amd64", "aarch64": "arm64"}.get(one("arch"), one("arch")),
        container=bool(one("container")),
        uefi=one("uefi") == "yes",
        secure_boot={"1": True, "0": False}.get(secure),
        pci=tuple(card for value in said.get("pci", []) if (card := _card(value))),
        nvidia_loaded=one("nvidia_loaded") or one("nvidia_running") or None,
        nvidia_flavour=one("nvidia_flavour") or None,
        nvidia_on_disk=one("nvidia_on_disk") or None,
        nvidia_library=one("nvidia_library") or None,
        nvidia_mismatch=one("nvidia_mismatch") == "yes",
        nvidia_answers=bool(one("nvidia_answers") or one("nvidia_loaded")),
        nouveau=bool(one("nouveau")),
        key_enrolled=one("key_enrolled") == "yes",
        kfd=one("kfd") == "yes",
        gfx=tuple(gfx_target(value) for value in said.get("gfx", []) if value.isdigit()),
        dkms=tuple(said.get("dkms", [])),
        headers=one("headers") == "yes",
        reboot_required=one("reboot_required") == "yes",
        reboot_for=tuple(said.get("reboot_for", [])),
    )


def _card(value: str) -> PciDevice | None:
    match = re.fullmatch(
        r"([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) 0x([0-9a-f]{4}) 0x([0-9a-f]{4})", value
    )
    return PciDevice(*match.groups()) if match else None
