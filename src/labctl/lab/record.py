"""What a running lab has made outside of itself, written down *before* it is made.

The record lets any later command finish what a killed lab could not: it names the two processes (by number
and start time), the control groups and the uplink. A lab is up as long as its daemon holds the lock beside
the record; the kernel lets go of a lock when its holder dies, however it died.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from labctl.domain.problem import LabctlError
from labctl.lab.cgroups import Groups
from labctl.lab.commands import attempt
from labctl.lab.processes import Process

_RECORD, _LOCK = "daemon.json", "lock"


@dataclass(frozen=True, slots=True)
class Record:
    """The traces of one running lab; ``sandbox`` is None until it is started."""

    daemon: Process
    groups: Groups
    uplink: str
    trees: dict[str, str]
    sandbox: Process | None = None

    def write(self, home: Path) -> None:
        """Write the record, wholly or not at all."""
        plain = asdict(self) | {"groups": [str(path) for path in self.groups.all()]}
        partial = home / f".{_RECORD}"
        with partial.open("w") as file:
            json.dump(plain, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(home / _RECORD)

    @classmethod
    def read(cls, home: Path) -> Record:
        """Return the record of the lab in ``home``.

        Raises:
            LabctlError: there is none.
        """
        try:
            plain: dict[str, Any] = json.loads((home / _RECORD).read_text())
        except FileNotFoundError:
            raise LabctlError(f"the lab {home.name!r} is not up", hint="labctl lab up") from None
        groups = [Path(path) for path in plain["groups"]]
        return cls(
            daemon=Process(**plain["daemon"]),
            groups=Groups(groups[0], groups[1] if len(groups) > 1 else None),
            uplink=plain["uplink"],
            trees=plain["trees"],
            sandbox=Process(**plain["sandbox"]) if plain["sandbox"] else None,
        )

    def with_sandbox(self, sandbox: Process) -> Record:
        """Return the record with the sandbox's first process in it."""
        return replace(self, sandbox=sandbox)

    def sweep(self, home: Path) -> tuple[str, ...]:
        """End what is left of the lab and remove its traces; return what would not go."""
        left: list[str] = []
        for process in (self.daemon, self.sandbox):
            is_me = process is not None and process.pid == os.getpid()
            if process and not is_me and not process.end(signal.SIGKILL, within=10):
                left.append(f"process {process.pid}")
        self.groups.kill()
        left.extend(str(group) for group in self.groups.sweep())
        if Path("/sys/class/net", self.uplink).exists():
            attempt("ip", "link", "delete", self.uplink)
        if not left:
            (home / "control").unlink(missing_ok=True)
            (home / _RECORD).unlink(missing_ok=True)
        return tuple(left)


def take_lock(home: Path) -> IO[str] | None:
    """Become the only daemon of the lab in ``home``; None if another is."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = (home / _LOCK).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def is_locked(home: Path) -> bool:
    """Return whether some process works on the lab in ``home`` right now."""
    lock = take_lock(home)
    if lock is not None:
        lock.close()
    return lock is None


def is_up(home: Path) -> bool:
    """Return whether the lab in ``home`` has a daemon that lives."""
    return (home / _RECORD).exists() and Record.read(home).daemon.is_alive()


def sweep_leftovers(home: Path) -> tuple[str, ...]:
    """Remove what a killed lab in ``home`` left; return what would not go. Leaves a lab that is up alone."""
    lock = take_lock(home)
    if lock is None:
        return ()
    with lock:
        return Record.read(home).sweep(home) if (home / _RECORD).exists() else ()
