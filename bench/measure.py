"""Run one command and say what it cost: wall time, processor time, memory.

The command runs in a control group of its own, so that its processor time includes every process it leaves
behind (ssh masters that went to the background). Wall time ends when the command ends. Memory is asked for
in runs that are not timed: reading it costs time. ``VmHWM`` is the kernel's own peak of a process since its
exec, so reading it now and then misses nothing but the last moments.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from labctl.lab.cgroups import Groups

POLL_S = 0.01


@dataclass(frozen=True)
class Command:
    """What to run. ``cleanup`` ends what it left in the background; that is paid for but not waited for."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    cleanup: Callable[[], None] = lambda: None


@dataclass
class Peak:
    """Memory of the command's processes in MiB: the largest peak by role, and the peak of all together."""

    by_role: dict[str, float] = field(default_factory=dict)
    workers: int = 0
    together: float = 0.0


@dataclass
class Cost:
    """What a run cost: seconds, and memory if watched. ``foreign``: the machine's share that others took."""

    wall_s: float
    client_cpu_s: float
    host_cpu_s: float
    foreign: float
    status: int
    output: str
    peak: Peak | None = None


def cpu_s(group: Path) -> float:
    """Return the processor time of a control group and all below it."""
    for line in (group / "cpu.stat").read_text().splitlines():
        if line.startswith("usage_usec "):
            return int(line.split()[1]) / 1e6
    raise ValueError(f"{group}/cpu.stat has no usage_usec")


def busy_s() -> float:
    """Return the time that all processors together have not been idle, nor taken by another guest."""
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


class Meter:
    """Measures commands beside a set of hosts, whose control groups are given."""

    def __init__(self, name: str) -> None:
        self.groups = Groups.below_mine(name)
        self.client = self.groups.create("client")[0]

    def close(self) -> None:
        """Remove the control group."""
        self.groups.sweep()

    def run(self, command: Command, hosts: list[Path], *, watch: bool = False, limit_s: float = 900) -> Cost:
        """Run ``command`` to its end; raise ``subprocess.TimeoutExpired`` after ``limit_s`` seconds."""

        def enter() -> None:
            (self.client / "cgroup.procs").write_text("0")

        before = (busy_s(), cpu_s(self.client), sum(map(cpu_s, hosts)))
        started = time.perf_counter()
        with subprocess.Popen(
            command.argv,
            cwd=command.cwd,
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=enter,
        ) as process:
            watcher = _Watcher(self.client, process.pid) if watch else None
            try:
                output, _ = process.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                self.groups.kill("client")
                raise
        wall = time.perf_counter() - started
        busy = busy_s() - before[0]
        client, served = cpu_s(self.client) - before[1], sum(map(cpu_s, hosts)) - before[2]
        foreign = max(0.0, busy - client - served) / (wall * (os.cpu_count() or 1))
        peak = watcher.stop() if watcher else None
        command.cleanup()
        self._empty()
        client = cpu_s(self.client) - before[1]
        return Cost(wall, client, served, foreign, process.returncode, output, peak)

    def _empty(self) -> None:
        deadline = time.monotonic() + 10
        while (self.client / "cgroup.procs").read_text().strip():
            if time.monotonic() > deadline:
                raise RuntimeError(f"something is still running in {self.client}")
            time.sleep(0.02)


class _Watcher:
    """Reads the memory of every process in a control group until stopped."""

    def __init__(self, group: Path, first: int) -> None:
        self._group, self._first = group, first
        self._workers: set[str] = set()
        self._peak = Peak()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> Peak:
        self._stop.set()
        self._thread.join()
        self._peak.workers = len(self._workers)
        return self._peak

    def _watch(self) -> None:
        while not self._stop.wait(POLL_S):
            total = 0.0
            for pid in (self._group / "cgroup.procs").read_text().split():
                try:
                    total += self._look(Path("/proc") / pid)
                except (OSError, ProcessLookupError, KeyError):
                    continue  # it has just ended
            self._peak.together = max(self._peak.together, total)

    def _look(self, process: Path) -> float:
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        words = (process / "cmdline").read_bytes()
        role = "main" if process.name == str(self._first) else _role(words)
        if role == "worker":
            self._workers.add(process.name)
        mib = int(status["VmHWM"].split()[0]) / 1024
        self._peak.by_role[role] = max(self._peak.by_role.get(role, 0.0), mib)
        shared_out = (process / "smaps_rollup").read_text().split("\nPss:", 1)[1]
        return int(shared_out.split()[0]) / 1024


def _role(cmdline: bytes) -> str:
    if b"labctl.provision.worker" in cmdline:
        return "worker"
    return "ssh" if cmdline.startswith(b"ssh") else "child"
