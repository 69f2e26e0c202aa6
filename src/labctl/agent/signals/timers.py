"""What is due soon: systemd's timers and cron's tables; and what they started and has not ended.

systemd alone knows when a timer elapses, and ``systemctl`` asks it. What it said holds until the first timer
is due or a unit file came or went, but a minute at most, so that a look costs no process in the usual case.

The system's tables of cron can be read by everybody, the users' by root alone. Those are asked of the agent's
own verb ``signals --crontabs`` through sudo, which gives their times and no command, and only when their
folder has changed (each new table does that, and cron itself goes by it) or an hour has passed.
"""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from . import children, cron, processes
from .cron import Job
from .terms import AGENT_PATH, Host, Signal, Unreadable, Verdict, lasting, listed, plain, read, shown

SPOOL = "var/spool/cron/crontabs"
_SPOOLS = (SPOOL, "var/spool/cron")  # Debian's, and Fedora's
_CRON_UNITS = ("cron.service", "crond.service", "cronie.service")
_LIST = ("/usr/bin/systemctl", "list-timers", "--all", "--output=json", "--no-pager")
_ASK_ROOT = ("/usr/bin/sudo", "-n", AGENT_PATH, "signals", "--crontabs")
_UNIT_FOLDERS = ("etc/systemd/system", "run/systemd/system", "run/systemd/transient", "run/systemd/generator")
_HOLDS_FOR_S = 60.0
_TABLES_HOLD_FOR_S = 3600.0
_LIST_FOR_S = 5.0
_NEVER = (0, 2**64 - 1, None)


class Timer(NamedTuple):
    """A timer: when it elapses next (seconds since 1970, None: never), and what it starts."""

    unit: str
    next: float | None
    starts: str


Runner = Callable[[tuple[str, ...], float], children.Done]


class Timers(Signal):
    """A systemd timer or a job of cron is due soon, or at work."""

    name = "timers"
    deadline_s = 12.0

    def __init__(
        self, host: Host, within_s: float, ignored: tuple[str, ...], run: Runner = children.run
    ) -> None:
        self._root = host.root
        self._within_s = within_s
        self._ignored = frozenset(ignored)
        self._run = run
        self._timers: tuple[float, tuple[Timer, ...]] = (0.0, ())
        self._units: tuple[float, ...] = ()
        self._tables = Tables(host.root, run)

    def look(self) -> Verdict:
        """Return busy where something is due soon or at work."""
        now = time.time()
        timers = [timer for timer in self._asked(now) if timer.unit not in self._ignored]
        for timer in timers:
            if timer.next is not None and timer.next - now <= self._within_s:
                return Verdict(True, plain(f"{timer.unit} is due in {lasting(max(0.0, timer.next - now))}"))
        for timer in timers:
            if timer.starts.endswith(".service") and processes.runs(self._root, timer.starts):
                return Verdict(True, plain(f"{timer.starts}, which {timer.unit} starts, is at work"))
        for unit in _CRON_UNITS:
            if len(processes.members(self._root, f"system.slice/{unit}") or ()) > 1:
                return Verdict(True, "a job of cron is at work")
        jobs = [job for job in self._tables.jobs() if job.source not in self._ignored]
        due = cron.next_due(jobs, datetime.datetime.fromtimestamp(now), self._within_s)  # noqa: DTZ006
        if due is not None:
            return Verdict(True, plain(f"a job of {due[0].source} is due in {lasting(due[1])}"))
        return Verdict(False, f"nothing is due within {lasting(self._within_s)}")

    def _asked(self, now: float) -> tuple[Timer, ...]:
        """Return all timers, from what systemd said last where that still holds."""
        at, known = self._timers
        times = [timer.next for timer in known if timer.next is not None and timer.next > at]
        units = tuple(_changed(self._root / folder) or 0.0 for folder in _UNIT_FOLDERS)
        if not at or not at <= now < min([at + _HOLDS_FOR_S, *times]) or units != self._units:
            done = self._run(_LIST, _LIST_FOR_S)
            if done.status:
                raise Unreadable("systemctl does not list the timers")
            known = timers_of(done.output)
            self._timers, self._units = (now, known), units
        return known


def timers_of(listing: str) -> tuple[Timer, ...]:
    """Return the timers of a listing of systemctl's.

    Raises:
        Unreadable: it is not understood.
    """
    try:
        return tuple(
            Timer(
                str(one["unit"]),
                None if one["next"] in _NEVER else float(one["next"]) / 1e6,
                str(one.get("activates") or ""),
            )
            for one in json.loads(listing)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Unreadable("what systemctl says of the timers is not understood") from None


class Tables:
    """The lines of all tables of cron; the users' are asked of root, and remembered."""

    def __init__(self, root: Path, run: Runner) -> None:
        self._root = root
        self._run = run
        self._users: tuple[float, float, tuple[Job, ...]] | None = None

    def jobs(self) -> list[Job]:
        """Return all lines.

        Raises:
            Unreadable: a table cannot be read.
        """
        return [*system_jobs(self._root), *self._users_jobs()]

    def _users_jobs(self) -> tuple[Job, ...]:
        changed = self._spool_changed()
        if changed is None:
            return ()
        now = time.monotonic()
        if self._users is None or self._users[0] != changed or now - self._users[1] > _TABLES_HOLD_FOR_S:
            self._users = (changed, now, self._asked())
        return self._users[2]

    def _spool_changed(self) -> float | None:
        changes = (_changed(self._root / folder) for folder in _SPOOLS)
        return next((change for change in changes if change is not None), None)

    def _asked(self) -> tuple[Job, ...]:
        if os.geteuid() == 0:
            return tuple(user_jobs(self._root))
        done = self._run(_ASK_ROOT, _LIST_FOR_S)
        if done.status:
            raise Unreadable("the users' crontabs cannot be read: sudo does not let the agent")
        try:
            return tuple(
                Job(str(one["source"]), str(one["fields"])) for one in json.loads(done.output)["jobs"]
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Unreadable("the users' crontabs are not understood") from None


def _changed(folder: Path) -> float | None:
    """Return when something in a folder came or went, None where it is not there."""
    try:
        return folder.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreadable(f"{shown(folder)} cannot be looked at: {error.strerror}") from None


def system_jobs(root: Path) -> list[Job]:
    """Return the lines of the system's tables.

    Raises:
        Unreadable: one cannot be read.
    """
    found = cron.jobs(read(root / "etc/crontab") or "", "/etc/crontab", has_user=True, root=root)
    for name in listed(root / "etc/cron.d") or ():
        # Debian's cron passes over names with other letters, so backups of packages are no tables.
        if name.replace("-", "").replace("_", "").isalnum():
            text = read(root / "etc/cron.d" / name) or ""
            found += cron.jobs(text, f"/etc/cron.d/{name}", has_user=True, root=root)
    return found


def user_jobs(root: Path) -> list[Job]:
    """Return the lines of the users' tables, which only root may read.

    Raises:
        Unreadable: one cannot be read.
    """
    found = []
    for folder in _SPOOLS:
        for name in listed(root / folder) or ():
            path = root / folder / name
            if not name.startswith((".", "tmp.")) and path.is_file():
                text = read(path) or ""
                found += cron.jobs(text, f"{name}'s crontab", has_user=False, root=root)
    return found


def users_document(root: Path) -> dict[str, Any]:
    """Return the answer of ``signals --crontabs``."""
    return {"format": 1, "jobs": [job._asdict() for job in user_jobs(root)]}
