"""Several processes on one port: does each one more bring what the first one brought?

That needs more processors than most machines have that run this. So each process is held to a small share of
one by the quota of a control group of its own, and several fit on that one; what they have in common (the
port, the store) is what could keep them from growing. They are compared by the processor time that they had.
The quota binds only processes that are scheduled as any other, so these are not ahead of others.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.gateway.machine import SERVING, Place, Running, free_port
from bench.gateway.peers import Prepare
from bench.gateway.report import OURS
from bench.gateway.rounds import CONNECTIONS, Bench, Contestant

QUOTA = 0.15
PERIOD_US = 20_000
_NAME = "labctl-bench-shared"


def measure(bench: Bench, prepare: Prepare, seconds: float, counts: tuple[int, ...] = (1, 2, 4)) -> None:
    """Measure so many processes on one port, one count after the other."""
    for count in counts:
        port, started = free_port(), []
        print(f"{count} on one port", file=sys.stderr, flush=True)
        try:
            with _groups(count) as groups:
                for number in range(count):
                    start = prepare(bench.around, port)
                    log = bench.around.work / f"shared-{count}-{number}.log"
                    place = Place((SERVING,), ahead=False)
                    started.append(Running(start.argv, place, log, start.env))
                    started[-1].until_open(port, start.within_s)
                bench.ports["shared"] = port
                one = Contestant("shared", prepare)
                connections = f"{CONNECTIONS * count}"
                bench.ask(one, "closed", "small", "1.0", connections)  # what is only made when it is needed
                for running, group in zip(started, groups, strict=True):
                    running.hold_to(group)
                time.sleep(0.5)
                before, began = [running.cpu_s() for running in started], time.monotonic()
                told = bench.ask(one, "closed", "small", f"{seconds}", connections)
                spent = [running.cpu_s() - was for running, was in zip(started, before, strict=True)]
                told |= {
                    "processes": count,
                    "quota": QUOTA,
                    "least": min(spent) / (sum(spent) or 1.0),
                    "cores": sum(spent) / (time.monotonic() - began),
                }
                bench.records.append({"who": OURS, "what": "shared", **told})
                for running in started:
                    running.stop()
        except OSError as error:
            bench.missing["several processes on one port"] = f"no quota can be set: {error}"
        finally:
            for running in started:
                running.stop()


@contextlib.contextmanager
def _groups(count: int) -> Iterator[list[Path]]:
    """Make control groups with a quota, in whichever hierarchy has the processor's controller."""
    first = Path("/sys/fs/cgroup/cpu")
    top = (first if first.is_dir() else Path("/sys/fs/cgroup")) / f"{_NAME}-{os.getpid()}"
    made: list[Path] = []
    try:
        for number in range(count):
            group = top.with_name(f"{top.name}-{number}")
            group.mkdir()
            made.append(group)
            quota = int(QUOTA * PERIOD_US)
            if first.is_dir():
                (group / "cpu.cfs_period_us").write_text(f"{PERIOD_US}")
                (group / "cpu.cfs_quota_us").write_text(f"{quota}")
            else:
                (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        yield made
    finally:
        for group in made:
            _remove(group)


def _remove(group: Path) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.02)  # its last process is still on its way out
