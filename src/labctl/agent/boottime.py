"""Time as a host that sleeps has it, and how a sleep shows in it.

CLOCK_BOOTTIME goes on while the machine sleeps, CLOCK_MONOTONIC stands still; neither can be set. An order's
life is counted on the first, so that one which was given before a sleep is dead after it. That the two drift
apart is one of two proofs that the machine slept; the other is the kernel's own count.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from .host import number, text
from .vitals import clocks

_STATS = "sys/power/suspend_stats/success"
_GAP_S = 0.5


def now_s() -> float:
    """Return seconds since boot, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id(root: Path) -> str:
    """Return the kernel's name of this boot, "" where it does not tell."""
    return text(root / "proc/sys/kernel/random/boot_id") or ""


class Slept(NamedTuple):
    """How much this machine has slept since its boot: by the clocks, and how often by the kernel's count."""

    gap_s: float
    times: int

    def more_than(self, before: Slept) -> bool:
        """Return whether it slept since ``before``."""
        return self.gap_s - before.gap_s >= _GAP_S or self.times > before.times


def slept(root: Path) -> Slept:
    """Return how much this machine has slept; a kernel without a count counts as 0."""
    now = clocks()
    return Slept(now.boot - now.awake, number(root / _STATS) or 0)


def runs(pid: int) -> bool:
    """Return whether a process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
