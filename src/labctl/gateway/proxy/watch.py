"""One clock for all deadlines: a round that looks at everybody once in a period.

A timer for each connection would cost more than the requests: they begin and end thousands of times a second,
and their deadlines are moved with each byte. So a deadline is a number on the connection that nobody is told
of, and the round compares it with the time: a bucket of connections at each tick, all of them in a period.
A deadline is noticed at most one period late.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

BUCKETS = 8


class Watched(Protocol):
    """Something with deadlines."""

    def look(self, now: float) -> None:
        """Do what is due."""
        ...


class Round:
    """Looks at all of its members, an eighth at a time."""

    __slots__ = ("_buckets", "_loop", "_next", "_step", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, period_s: float) -> None:
        self._loop = loop
        self._buckets: tuple[set[Watched], ...] = tuple(set() for _ in range(BUCKETS))
        self._next = 0
        self._step = period_s / BUCKETS
        self._timer = loop.call_later(self._step, self._tick)

    def add(self, member: Watched) -> set[Watched]:
        """Take a new member; it leaves by ``discard`` from the set that is returned."""
        bucket = min(self._buckets, key=len)
        bucket.add(member)
        return bucket

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._step, self._tick)
        bucket = self._buckets[self._next]
        self._next = (self._next + 1) % BUCKETS
        now = self._loop.time()
        for member in tuple(bucket):
            member.look(now)
