"""How much a key may still ask.

Requests are paced by a bucket of one minute: it is full at first, each request takes one out, and it fills
again evenly. So a key may spend its whole minute at once, comes to ``per_minute`` in the long run, and in any
window of T seconds to ``per_minute * (1 + T / 60)`` at most. A bucket is one number, the time at which it is
full again, which any reading of the clock may be held against: nothing has to tick.

Wakes are few and each costs a cycle of a machine, so they are counted exactly: no window of an hour, wherever
it begins, has more of them than the key may wake.

A refusal spends nothing and says after how many seconds the same would be granted. Times are in seconds of
one clock that never goes back.
"""

from __future__ import annotations

from collections.abc import Iterable

MINUTE_S = 60.0
HOUR_S = 3600.0
# What adding up intervals may be off by.
_SLACK_S = 1e-6


def full_after_one(full_at: float, now: float, every_s: float) -> float:
    """Return when a bucket is full again once one more was taken out; it gains one each ``every_s``."""
    return (full_at if full_at > now else now) + every_s


def wait_for_one(full_at: float, now: float) -> float:
    """Return how long a bucket that would be full at ``full_at`` is overdrawn; 0 where it is not."""
    over = full_at - now - MINUTE_S
    return over if over > _SLACK_S else 0.0


def wait_for_wake(woken_at: Iterable[float], now: float, per_hour: int) -> float:
    """Return after how many seconds a wake more is granted: 0 for now.

    ``woken_at`` are the key's wakes so far, oldest first; ``per_hour`` is how many it may have, at least 1.
    """
    within = [at for at in woken_at if now - at < HOUR_S]
    if len(within) < per_hour:
        return 0.0
    return within[len(within) - per_hour] + HOUR_S - now
