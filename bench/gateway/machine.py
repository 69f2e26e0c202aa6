"""Processes that are measured, and what they cost.

What is measured runs on one processor, and who asks and answers on another one, all of it scheduled ahead of
whatever else the machine does (SCHED_RR): otherwise latencies tell of the neighbours. Where that is not
permitted, it runs as anything else does, and the table says so. The kernel keeps 5 % of a processor from such
processes, which makes holes of 50 ms when one is saturated: so latency is only taken far below that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
ASKING, SERVING = CORES[0], CORES[-1]


def ahead_of_others() -> bool:
    """Return whether processes may be scheduled ahead of others here."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return False
    os.sched_setscheduler(0, *before)
    return True


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@dataclass(frozen=True)
class Place:
    """Where a process runs: on which processors, and whether ahead of others."""

    cores: tuple[int, ...]
    ahead: bool

    def enter(self) -> None:
        """Put this process there."""
        os.sched_setaffinity(0, self.cores)
        if self.ahead:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


class Running:
    """A command and all of its processes, in a session of its own."""

    def __init__(self, argv: Sequence[str], place: Place, log: Path, env: Mapping[str, str]) -> None:
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=place.enter,
                env=dict(env),
            )
        self._log = log

    def until_open(self, port: int, within_s: float) -> float:
        """Wait until it answers anything; return how many seconds that took.

        Raises:
            RuntimeError: it ended, or said nothing in time; with the end of what it said on its output.
        """
        began = time.monotonic()
        while time.monotonic() < began + within_s:
            if self._process.poll() is not None:
                break
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), within_s) as door,
            ):
                door.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                if door.recv(1):
                    return time.monotonic() - began
            time.sleep(0.02)
        self.stop()
        said = self._log.read_text(errors="replace")[-1500:]
        raise RuntimeError(f"{self._process.args!r} does not answer on port {port}:\n{said}")

    def pids(self) -> list[int]:
        """Return its processes."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if entry.name.isdigit() and os.getsid(int(entry.name)) == self._process.pid:
                    found.append(int(entry.name))
        return found

    def cpu_s(self) -> float:
        """Return the processor time of its processes."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def memory_mb(self) -> float:
        """Return the memory of its processes, each with what it shares."""
        return self._memory("VmRSS")

    def peak_mb(self) -> float:
        """Return the most that each of its processes ever had, added up."""
        return self._memory("VmHWM")

    def _memory(self, what: str) -> float:
        total = 0.0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024
        return total

    def hold_to(self, group: Path) -> None:
        """Put it into a control group."""
        for pid in self.pids():
            (group / "cgroup.procs").write_text(f"{pid}")

    def freeze(self) -> None:
        """Stop it until ``thaw``, so that it takes nothing from what is measured."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End all of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def busy_s() -> float:
    """Return the time that all processors together have not been idle, nor taken by another guest."""
    user, nice, system, _idle, _wait, irq, soft, _ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft) / TICKS
