"""How much memory a chain of computations needs at its worst moment, when results are thrown away in time.

Engines place results of a graph in one buffer. A result lives from its step to the last step that reads it;
its place is then free for others. A new result takes the smallest free gap that holds it, or the end. So gaps
that are too small cost memory, and adding up what is alive is not enough: 2 + 3 + 2 with the middle one gone
has no room for 4. This plays that game with sizes alone, by the rules of ggml's allocator: inputs first, then
step by step, gaps by best fit (the last of equals), neighbouring gaps merged, and some steps written over
what they read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_ALIGNMENT = 32
_ENDLESS = 1 << 62


@dataclass(frozen=True, slots=True)
class Step:
    """A result of ``size`` bytes, computed from ``reads``, written over ``over`` if nobody else reads that.

    ``size`` 0 is a step whose result lies elsewhere (in the cache, say); a name that no step reads stays.
    """

    name: str
    size: int
    reads: tuple[str, ...] = ()
    over: str = ""


@dataclass(slots=True)
class _Gaps:
    """What is free: places and sizes by place; the last gap has no end."""

    free: list[tuple[int, int]] = field(default_factory=lambda: [(0, _ENDLESS)])
    peak: int = 0

    def take(self, size: int) -> int:
        """Occupy ``size`` bytes and return their place."""
        chosen = len(self.free) - 1
        for index, (_, length) in enumerate(self.free[:-1]):
            if length >= size and length <= self.free[chosen][1]:
                chosen = index
        place, length = self.free[chosen]
        if length == size:
            del self.free[chosen]
        else:
            self.free[chosen] = (place + size, length - size)
        self.peak = max(self.peak, place + size)
        return place

    def give(self, place: int, size: int) -> None:
        """Free ``size`` bytes at ``place``, and merge what then touches."""
        merged: list[tuple[int, int]] = []
        for start, length in sorted((*self.free, (place, size))):
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((start, length))
        self.free = merged


def peak(inputs: Sequence[Step], steps: Sequence[Step]) -> int:
    """Return the bytes that inputs and steps, one after another, need at most."""
    readers: dict[str, int] = {}
    for step in steps:
        for name in step.reads:
            readers[name] = readers.get(name, 0) + 1
    gaps = _Gaps()
    held: dict[str, tuple[int, int]] = {}
    for step in (*inputs, *steps):
        size = -(-step.size // _ALIGNMENT) * _ALIGNMENT
        old = held.get(step.over)
        if old is not None and readers.get(step.over) == 1 and old[1] == size:
            held[step.name] = held.pop(step.over)
        elif size:
            held[step.name] = (gaps.take(size), size)
        for name in step.reads:
            readers[name] -= 1
            if not readers[name] and name in held:
                gaps.give(*held.pop(name))
    return gaps.peak
