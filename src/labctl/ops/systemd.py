"""Units: write the file, let systemd know, enable, and start or restart exactly once.

All of it is one command, in an order that a cut cannot spoil. Before a unit's file changes, a note below /run
says that a restart is owed, and it goes only after the restart; so a run that was cut in between restarts
next time, and a reboot, which starts the new file anyway, clears the note. A unit that does not run is
started, one that runs is restarted once when its file changed, never both. One that fails within a moment of
its start fails the operation, with its status and journal in the output.

A masked or linked unit file is somebody's decision and is refused. Drop-ins (``NAME.service.d/``) are never
touched; if one changed, systemd itself says that it must reload, and then it is reloaded and restarted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pyinfra.context import host

from labctl.ops import diff
from labctl.ops.command import Commands, Script, content_on_stdin, operation
from labctl.ops.facts_systemd import NOTES, Unit, UnitInfo
from labctl.ops.files import Wanted, attribute_notes, full_unit_name

# A simple service counts as started before it has run a single instruction, so its first moments are watched.
WATCH_S = 0.3
DIRECTORY = "/etc/systemd/system"


@dataclass(frozen=True, slots=True)
class _Goal:
    """What shall hold; None leaves it to others."""

    unit: str
    enabled: bool | None
    running: bool | None
    timeout_s: int
    watch_s: float


@operation
def unit(
    unit: str,
    content: str,
    *,
    enabled: bool | None = True,
    running: bool | None = True,
    watch_s: float = WATCH_S,
    timeout_s: int = 300,
) -> Commands:
    """Have this unit file in /etc/systemd/system, and the unit enabled and running as said.

    ``unit`` is a name with or without ``.service``. None for ``enabled`` or ``running`` leaves that to
    others, as for the service behind a timer. For ``watch_s`` seconds after its start the unit is looked
    after, in case it dies; 0 where something later looks.
    """
    goal = _Goal(full_unit_name(unit), enabled, running, timeout_s, watch_s)
    wanted = Wanted(f"{DIRECTORY}/{goal.unit}", content.encode())
    against = wanted.question().against
    seen: UnitInfo = host.get_fact(Unit, unit=goal.unit, path=wanted.dest, against=against)
    yield from _commands(goal, seen, wanted)


@operation
def service(
    unit: str, *, enabled: bool | None = True, running: bool | None = True, timeout_s: int = 300
) -> Commands:
    """Have a unit that some package brought enabled and running as said; None leaves it as it is.

    Restarts it if an interrupted run owes it a restart (see ``restarts`` of ``files.put``).
    """
    goal = _Goal(full_unit_name(unit), enabled, running, timeout_s, WATCH_S)
    seen: UnitInfo = host.get_fact(Unit, unit=goal.unit)
    yield from _commands(goal, seen, None)


@operation
def restart(unit: str, *, timeout_s: int = 300) -> Commands:
    """Restart a unit, whatever it does now; meant for ``_if=other.did_change``."""
    full = full_unit_name(unit)
    words = ("if-needed", "", "restart", f"{WATCH_S}", f"{NOTES}/{full}", "")
    yield Script("unit", full, *words, timeout_s=timeout_s)


@operation
def reload(unit: str, *, timeout_s: int = 300) -> Commands:
    """Have a unit read its configuration again, by a restart if it knows no other way; for ``_if=``."""
    full = full_unit_name(unit)
    words = ("if-needed", "", "reload-or-restart", f"{WATCH_S}", f"{NOTES}/{full}", "")
    yield Script("unit", full, *words, timeout_s=timeout_s)


@operation
def daemon_reload() -> Commands:
    """Have systemd read all unit files again; meant for ``_if=`` after a drop-in changed."""
    yield Script("daemon-reload")


def _commands(goal: _Goal, seen: UnitInfo, wanted: Wanted | None) -> Iterator[Script]:
    """Yield the one command that leads from what was seen to the goal, if any is needed; show the diff."""
    changed = wanted is not None and (seen.file.kind != "file" or seen.file.sha256 != wanted.sha256)
    write = wanted is not None and _shown(wanted, seen, changed=changed)
    act = _act(goal, seen, changed=changed)
    enable = _enable(goal, seen, changed=changed)
    needs_reload = write or seen.needs_reload or (seen.stale and bool(act))
    if not (needs_reload or enable or act):
        return
    words = [goal.unit, "reload" if needs_reload else "", enable, act]
    words.append(f"{goal.watch_s:g}" if act and act != "stop" and goal.watch_s else "")
    words.append(f"{NOTES}/{goal.unit}" if act in ("start", "restart") else "")
    if write and wanted is not None:
        target = (wanted.dest, wanted.mode, f"{wanted.user}:{wanted.group}")
        stdin = content_on_stdin(wanted.content)
        yield Script("unit", *words, *target, stdin=stdin, timeout_s=goal.timeout_s)
    else:
        yield Script("unit", *words, "", timeout_s=goal.timeout_s)


def _shown(wanted: Wanted, seen: UnitInfo, *, changed: bool) -> bool:
    """Show what would become of the unit's file; return whether anything would."""
    info = seen.file
    notes = attribute_notes(info, wanted.mode, wanted.user, wanted.group) if info.kind == "file" else []
    if not changed and not notes:
        return False
    old: bytes | int | None = None
    if info.kind == "link":
        notes.append(f"is a symbolic link to {info.target}; applying this will be refused")
    elif info.kind == "file":
        old = wanted.content if not changed else info.size if info.content is None else info.content
    diff.show(wanted.dest, old, wanted.content, notes=notes)
    return True


def _act(goal: _Goal, seen: UnitInfo, *, changed: bool) -> str:
    if goal.running is None:
        # Nobody asked for this unit to run, but somebody asked for its restart.
        return "restart" if seen.stale and seen.is_running else ""
    if not goal.running:
        return "stop" if seen.is_running else ""
    if not seen.is_running:
        return "start"
    return "restart" if changed or seen.stale else ""


def _enable(goal: _Goal, seen: UnitInfo, *, changed: bool) -> str:
    if goal.enabled is None:
        return ""
    if not goal.enabled:
        return "disable" if seen.enabled.startswith("enabled") else ""
    if changed and seen.file.kind == "file":
        # Its [Install] section may name other targets now; the old links must go.
        return "reenable"
    return "" if seen.is_enabled and not changed else "enable"
