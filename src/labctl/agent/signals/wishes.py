"""What people ask for on the host itself: files that hold it awake, and checks of their own.

A hold is a file in ``/run/labctl/holds`` (until the next boot) or ``/etc/labctl/holds`` (for good). Its first
line is the reason. A line ``until 2026-12-01T08:00`` (local time, or with an offset, or seconds since 1970)
ends it by itself; one that is not understood ends nothing.

A check is an executable in a folder of the administrator's. Ending with 0 it says quiet, with anything else
busy, and its first line of output is the reason. It runs as the agent's unprivileged user. Who may write the
file or its folder decides what runs here, so both must be root's, and nobody else's to write. One that would
become somebody else (setuid) is not run: it could not be ended when its time is over.
"""

from __future__ import annotations

import datetime
import os
import stat
import time
from pathlib import Path

from . import children
from .terms import Host, Reading, Signal, Unreadable, Verdict, listed, plain, read, shown

HOLDS = ("run/labctl/holds", "etc/labctl/holds")
_CHECK_FOR_S = 5.0
_CHECKS_MAX = 20
_LEFTOVERS = ("~", ".bak", ".dpkg-old", ".dpkg-new", ".dpkg-dist", ".rpmsave", ".rpmnew", ".swp")


class Holds(Signal):
    """A file keeps the host awake."""

    name = "holds"

    def __init__(self, host: Host) -> None:
        self._root = host.root

    def look(self) -> Verdict:
        """Return busy where there is a hold that has not ended."""
        for folder in HOLDS:
            for name in listed(self._root / folder) or ():
                if name.startswith("."):
                    continue
                lines = (self._content(self._root / folder / name)).splitlines()
                ends = next((_moment(line[6:]) for line in lines if line.startswith("until ")), None)
                if ends is not None and ends <= time.time():
                    continue
                reason = next((line for line in lines if line.strip() and not line.startswith("until ")), "")
                return Verdict(True, plain(f"/{folder}/{name}" + (f": {reason}" if reason else "")))
        return Verdict(False, "no file holds it awake")

    @staticmethod
    def _content(path: Path) -> str:
        try:
            return read(path) or ""
        except Unreadable:
            return ""  # what it says nobody knows; that it is there is enough


def _moment(words: str) -> float | None:
    """Return the moment that is meant, in seconds since 1970, or None where none can be read."""
    text = words.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


class Checks(Signal):
    """An executable of the administrator's says that the host is in use."""

    name = "checks"
    deadline_s = _CHECK_FOR_S * 2 + 5

    def __init__(self, host: Host, folder: str) -> None:
        self._host = host
        self._folder = host.root / folder.lstrip("/")

    def look(self) -> Verdict:
        """Return busy where a check says so; one that cannot be run or does not end says nothing."""
        names = listed(self._folder)
        if names is None:
            return Verdict(False, "there is no check")
        _require_roots(self._folder)
        silent = ""
        until = time.monotonic() + self.deadline_s - 1
        checks = [path for name in names if (path := self._folder / name) and self._is_one(path)]
        if len(checks) > _CHECKS_MAX:
            raise Unreadable(f"{shown(self._folder)} has more than {_CHECKS_MAX} checks")
        for path in checks:
            reading = self._run(path, min(_CHECK_FOR_S, until - time.monotonic()))
            if reading.busy:
                return Verdict(True, reading.because)
            silent = silent or (reading.because if reading.busy is None else "")
        if silent:
            raise Unreadable(silent)
        return Verdict(False, "no check objects" if checks else "there is no check")

    @staticmethod
    def _is_one(path: Path) -> bool:
        if path.name.startswith(".") or path.name.endswith(_LEFTOVERS):
            return False
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise Unreadable(f"{shown(path)} cannot be looked at: {error.strerror}") from None
        return stat.S_ISREG(mode) and bool(mode & 0o111)

    def _run(self, path: Path, limit_s: float) -> Reading:
        try:
            _require_roots(path)
            user = self._host.agent_uid if os.geteuid() == 0 else None
            done = children.run([str(path)], max(0.1, limit_s), user=user)
        except Unreadable as error:
            return Reading(path.name, None, str(error))
        first = next((line for line in done.output.splitlines() if line.strip()), "")
        said = first or f"it ended with {done.status}"
        return Reading(path.name, done.status != 0, plain(f"{path.name}: {said}"))


def _require_roots(path: Path) -> None:
    status = path.stat()
    if status.st_uid != 0 or status.st_mode & 0o022:
        raise Unreadable(f"{shown(path)} is not run: it must be root's, and no group's or other's to write")
    if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise Unreadable(f"{shown(path)} is not run: it would run as another user (chmod ug-s)")
