"""Know a process again: its number alone is not enough, since numbers are reused.

A process is what it was only if its start time and the machine's boot id are those that were recorded.
Signals go through a pidfd that was opened *before* that check, so the number can't change hands in between.
When in doubt it counts as gone, and nothing is signalled.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it was once seen; ``started`` counts clock ticks since the machine's boot."""

    pid: int
    started: int
    boot_id: str

    @classmethod
    def see(cls, pid: int) -> Process:
        """Return the identity of the process that has ``pid`` now.

        Raises:
            ProcessLookupError: there is none.
        """
        started = _start_time(pid)
        if started is None:
            raise ProcessLookupError(pid)
        return cls(pid, started, _BOOT_ID.read_text().strip())

    def is_alive(self) -> bool:
        """Return whether this very process still runs."""
        return _BOOT_ID.read_text().strip() == self.boot_id and _start_time(self.pid) == self.started

    def end(self, number: signal.Signals, *, within: float) -> bool:
        """Send a signal and wait up to ``within`` seconds; return whether the process is gone now."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.is_alive():
                return True
            signal.pidfd_send_signal(handle, number)
            return bool(select.select([handle], [], [], within)[0])
        except ProcessLookupError:
            return True
        finally:
            os.close(handle)


def wait_until(happened: Callable[[], bool], *, within: float, every: float = 0.02) -> bool:
    """Ask ``happened`` again and again for at most ``within`` seconds; return its last answer."""
    deadline = monotonic() + within
    while not happened():
        if monotonic() > deadline:
            return False
        sleep(every)
    return True


def command_name(pid: int) -> str:
    """Return the short name of a process, or an empty text when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def number_inside(pid: int) -> int | None:
    """Return the number that a process has in its own, innermost namespace; None when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = next((line for line in status.splitlines() if line.startswith("NSpid:")), "")
    return int(found.split()[-1]) if found else None


def _start_time(pid: int) -> int | None:
    """Return the start time of a process in ticks; None for one that is gone or only waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name stands in parentheses and may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
