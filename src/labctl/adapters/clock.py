"""The only reader of the clock.

Everything that depends on time takes a ``ports.Clock``, so that tests decide what time it is. Deadlines use
``monotonic``, which never jumps; only names and records that a person reads use ``now``.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


def wall_s() -> float:
    """Return seconds since 1970: the time of day without an object for it."""
    return time.time()


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Return the wall clock time, in UTC and aware of it."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; never goes back."""
        return time.monotonic()


class SleeplessClock(SystemClock):
    """The same, for whoever must know how long this machine itself was asleep."""

    def monotonic(self) -> float:
        """Return seconds since boot, sleep included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
