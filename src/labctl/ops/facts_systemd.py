"""A unit's state in one command: its file, whether a restart is still owed, and one ``systemctl show``.

``show`` answers for any name, also for units that do not exist, with one D-Bus round trip; the file is looked
at first, by the same shell. Where systemd does not run (a chroot), the unit counts as unknown and stopped.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

from pyinfra.api.facts import FactBase
from typing_extensions import override

from labctl.ops.facts import Look, PathInfo, look_command, parse_look

NOTES = "/run/labctl/restart"
_SHOW = "LoadState,UnitFileState,ActiveState,SubState,NeedDaemonReload"
# In these states `systemctl enable` has nothing to do: there is no [Install], or another unit brings it.
_ENABLED = {"enabled", "static", "alias", "generated", "transient", "indirect"}
_RUNNING = {"active", "activating", "reloading", "refreshing"}


@dataclass(frozen=True, slots=True)
class UnitInfo:
    """A unit as systemd sees it. ``stale``: its file changed and it was not restarted since."""

    file: PathInfo = field(default_factory=PathInfo)
    stale: bool = False
    load: str = "not-found"
    enabled: str = ""
    active: str = "inactive"
    sub: str = "dead"
    needs_reload: bool = False

    @property
    def is_enabled(self) -> bool:
        """Whether it starts at boot, or cannot be asked to."""
        return self.enabled in _ENABLED

    @property
    def is_running(self) -> bool:
        """Whether it runs or is on its way; one that keeps failing does not."""
        return self.active in _RUNNING and self.sub != "auto-restart"


class Units(FactBase[tuple[UnitInfo, ...]]):
    """Whether each of some units is there and enabled, in their order; asked in one command."""

    @override
    @staticmethod
    def default() -> tuple[UnitInfo, ...]:
        """Return that nobody knows."""
        return ()

    @override
    def command(self, units: tuple[str, ...]) -> str:
        """Return the command for these units."""
        return (
            f"LC_ALL=C systemctl show -p LoadState,UnitFileState -- {shlex.join(units)} 2>/dev/null || true"
        )

    @override
    def process(self, output: list[str]) -> tuple[UnitInfo, ...]:
        """Read KEY=VALUE lines, of which each unit has one of each kind."""
        said = [line.partition("=") for line in output]
        loads = [value for key, _, value in said if key == "LoadState"]
        enabled = [value for key, _, value in said if key == "UnitFileState"]
        return tuple(UnitInfo(load=load, enabled=state) for load, state in zip(loads, enabled, strict=True))


class Unit(FactBase[UnitInfo]):
    """The state of one unit and, with ``path``, of its file (looked at as ``Look`` says)."""

    @override
    @staticmethod
    def default() -> UnitInfo:
        """Return a unit that does not exist."""
        return UnitInfo()

    def command(self, unit: str, path: str = "", against: str = "") -> str:
        """Return the command for this unit."""
        look = look_command([Look(path, against)]) if path else "echo absent"
        note = shlex.quote(f"{NOTES}/{unit}")
        return (
            f"{look}\nif [ -e {note} ]; then echo stale; else echo fresh; fi\n"
            f"LC_ALL=C systemctl show -p {_SHOW} -- {shlex.quote(unit)} 2>/dev/null || true"
        )

    @override
    def process(self, output: list[str]) -> UnitInfo:
        """Read the file's line, the note's line, then KEY=VALUE lines."""
        said = dict(line.split("=", 1) for line in output[2:] if "=" in line)
        return UnitInfo(
            parse_look(output[0]),
            output[1:2] == ["stale"],
            said.get("LoadState", "not-found"),
            said.get("UnitFileState", ""),
            said.get("ActiveState", "inactive"),
            said.get("SubState", "dead"),
            said.get("NeedDaemonReload") == "yes",
        )
