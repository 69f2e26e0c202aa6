"""Bring an installed NVIDIA driver to work now: load it, keep it loaded, let sleep and containers know of it.

Each operation asks when it is applied, because what it needs may have come by an earlier one of the same run.
What needs a reboot is noted for the deploy ``restart`` and is then no change of the next run; what the driver
cannot do yet waits silently for it. Units that a distribution does not ship are left out, not missed.
"""

from __future__ import annotations

import hashlib

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.facts import FactBase
from pyinfra.context import host
from typing_extensions import override

from labctl.ops import apt
from labctl.ops.command import Commands, Script, operation
from labctl.ops.facts_gpu import NVIDIA, Machine, MachineInfo
from labctl.ops.facts_reboot import NOTES
from labctl.ops.facts_systemd import NOTES as STALE
from labctl.ops.facts_systemd import Unit, UnitInfo, Units
from labctl.ops.reboot import host_reasons

OTHER_KERNEL = "the NVIDIA driver is made for another kernel, which the next boot starts"
NOUVEAU = "the kernel's own driver holds the NVIDIA cards until the next boot"


class Offered(FactBase[tuple[str, ...]]):
    """The places from which apt would take a package, as its lists name them."""

    @override
    def command(self, package: str) -> StringCommand:
        """Return the command; it never fails."""
        script = 'apt-cache madison "$1" 2>/dev/null || true'
        return StringCommand("sh", "-c", QuoteString(script), "labctl-offered", QuoteString(package))

    @override
    @staticmethod
    def default() -> tuple[str, ...]:
        """Return that nobody offers it."""
        return ()

    @override
    def process(self, output: list[str]) -> tuple[str, ...]:
        """Read lines of the form "name | version | place"."""
        return tuple(line.split("|")[2].strip() for line in output if line.count("|") == 2)


class Room(FactBase[tuple[str, int]]):
    """The type of the file system where a path lies or will lie, and how many bytes are free there."""

    @override
    def command(self, path: str) -> StringCommand:
        """Return the command: it climbs to what exists already."""
        script = (
            'path=$1; while [ ! -e "$path" ]; do path=${path%/*}; [ -n "$path" ] || path=/; done\n'
            'df --output=fstype,avail -B1 -- "$path" 2>/dev/null | tail -n 1'
        )
        return StringCommand("sh", "-c", QuoteString(script), "labctl-room", QuoteString(path))

    @override
    @staticmethod
    def default() -> tuple[str, int]:
        """Return that nothing is known."""
        return ("", 0)

    @override
    def process(self, output: list[str]) -> tuple[str, int]:
        """Read type and bytes."""
        kind, _, free = output[0].strip().partition(" ")
        return kind, int(free)


@operation
def headers(newest: tuple[str, ...]) -> Commands:
    """Have headers of the running kernel, to build modules for, else ``newest``: a kernel that has them.

    Archives keep the headers of their newest kernels only, and a host may run an older one.
    """
    machine: MachineInfo = host.get_fact(Machine)
    if machine.container or machine.headers or not newest:
        return
    exact = f"linux-headers-{machine.kernel}"
    names = (exact,) if host.get_fact(Offered, package=exact) else newest
    yield apt.install_script(names)


@operation
def loaded() -> Commands:
    """Have the driver's kernel module loaded, or a note that only a reboot can do it."""
    machine: MachineInfo = host.get_fact(Machine)
    if machine.container or machine.nvidia_answers or not machine.cards(NVIDIA):
        return
    reasons = host_reasons()
    if not machine.nouveau:
        if OTHER_KERNEL not in reasons:
            yield Script("nvidia-load", NOTES, _note(OTHER_KERNEL), OTHER_KERNEL)
    elif NOUVEAU not in reasons:
        yield Script("reboot-note", NOTES, _note(NOUVEAU), NOUVEAU)


def _note(reason: str) -> str:
    return hashlib.sha256(reason.encode()).hexdigest()[:16]


@operation
def enabled(units: tuple[str, ...]) -> Commands:
    """Have those of ``units`` enabled that the installed driver brings; the others are no matter."""
    seen: tuple[UnitInfo, ...] = host.get_fact(Units, units=units)
    off = [
        unit for unit, info in zip(units, seen, strict=False) if info.load == "loaded" and not info.is_enabled
    ]
    if off:
        yield Script("enable", *off)


@operation
def persistent(unit: str) -> Commands:
    """Have the daemon that keeps the driver loaded running as its drop-in says, where a driver answers."""
    machine: MachineInfo = host.get_fact(Machine)
    info: UnitInfo = host.get_fact(Unit, unit=unit)
    if machine.nvidia_answers and info.load == "loaded" and (info.stale or not info.is_running):
        # A daemon that was pulled in by a device has no other start; a restart starts as well.
        yield Script("unit", unit, "if-needed", "", "restart", "0.3", f"{STALE}/{unit}", "", timeout_s=120)


@operation
def described_to_containers(spec: str, unit: str) -> Commands:
    """Have the cards described to container engines (CDI) in ``spec``, which ``unit`` keeps up to date."""
    machine: MachineInfo = host.get_fact(Machine)
    info: UnitInfo = host.get_fact(Unit, unit=unit)
    if machine.nvidia_answers and not host.get_fact(Exists, path=spec):
        yield Script("nvidia-cdi", spec, unit if info.load == "loaded" else "")


class Exists(FactBase[bool]):
    """Whether a path exists."""

    @override
    def command(self, path: str) -> StringCommand:
        """Return the command."""
        return StringCommand(
            "sh", "-c", QuoteString('[ ! -e "$1" ] || echo yes'), "labctl-exists", QuoteString(path)
        )

    @override
    @staticmethod
    def default() -> bool:
        """Return that it does not."""
        return False

    @override
    def process(self, output: list[str]) -> bool:
        """Read the answer."""
        return output == ["yes"]
