"""What to change so that models fit together, with numbers that were tried.

Each change is tried by estimating anew, the gentlest first: a cache of eight bits instead of sixteen, a
shorter context (the longest that fits, in steps of 1024 tokens), fewer users at a time, one model less. All
that help are offered, each by itself; the context is the only one that is searched for. Nothing is proposed
that was not seen to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from labctl.domain.fit.terms import Device, Estimate, Use
from labctl.domain.fit.together import gib, judge, pools

STEP = 1024
_WIDE = ("f32", "f16", "bf16", "fp16", "auto")
_NARROW = "q8_0"
_OFFERED = 3


@dataclass(frozen=True, slots=True)
class Part:
    """One of the models that are loaded together: how it is used, and how to estimate another use of it.

    ``options`` are the engine's words for what may be changed: ``context``, ``users`` and ``cache``, as far
    as it has them, and in ``narrow`` the type of a cache of eight bits. ``use`` None: it cannot be changed,
    only left out. ``slots`` is by how much the engine's option for the context counts more than one sequence.
    """

    name: str
    estimate: Estimate
    use: Use | None = None
    again: Callable[[Use], Estimate] | None = None
    options: tuple[tuple[str, str], ...] = ()
    slots: int = 1

    def option(self, name: str) -> str:
        """Return the engine's word for an option, "" where it has none."""
        return dict(self.options).get(name, "")


def cures(parts: Sequence[Part], devices: Sequence[Device]) -> str:
    """Return the changes that make the parts fit, "a; or b"; a sentence where none does.

    The devices are such that the parts do not fit them.
    """
    found = list(_found(parts, devices))[:_OFFERED]
    if found:
        return "; or ".join(found)
    running = [part.estimate for part in parts]
    lacks = max((pool.taken(running) - pool.usable for pool in pools(devices) if pool.known), default=0)
    if lacks <= 0:  # memory is free, and an engine would not start all the same
        return "no shorter context or smaller cache changes that: see its options"
    if len(parts) > 1:
        return f"{gib(lacks)} GiB too much for any one change: keep fewer of them loaded together"
    return f"no shorter context saves {gib(lacks)} GiB: a smaller quantisation, or more memory"


def _found(parts: Sequence[Part], devices: Sequence[Device]) -> Iterator[str]:
    for place, part in enumerate(parts):
        others = [other.estimate for other in (*parts[:place], *parts[place + 1 :])]
        yield from _of_one(part, others, devices)
    if len(parts) > 1:
        yield from _left_out(parts, devices)


def _fits(running: Sequence[Estimate], devices: Sequence[Device]) -> bool:
    return judge(running, devices).fits is True


def _of_one(part: Part, others: Sequence[Estimate], devices: Sequence[Device]) -> Iterator[str]:
    """Yield the changes of one model that make all fit."""
    use, again = part.use, part.again
    if use is None or again is None:
        return

    def fits(changed: Use) -> bool:
        return _fits([*others, again(changed)], devices)

    word = part.option("cache")
    narrow = part.option("narrow") or _NARROW
    if word and use.cache_k in _WIDE and fits(replace(use, cache_k=narrow, cache_v=narrow)):
        yield f"{word} for {part.name}"
    if word := part.option("context"):
        longest = _longest(use.context, lambda tokens: fits(replace(use, context=tokens)))
        if longest:
            yield f"{word}={longest * part.slots} for {part.name}"
    if word := part.option("users"):
        fewer = range(use.sequences - 1, 0, -1)
        users = next((count for count in fewer if fits(replace(use, sequences=count))), 0)
        if users:
            yield f"{word}={users} for {part.name}"


def _longest(now: int, fits: Callable[[int], bool]) -> int:
    """Return the longest context below ``now``, a multiple of ``STEP``, that fits; 0 where none does."""
    low, high = 0, (now - 1) // STEP
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * STEP) else (low, middle - 1)
    return low * STEP


def _left_out(parts: Sequence[Part], devices: Sequence[Device]) -> Iterator[str]:
    """Yield the models without which the rest fits, the smallest first."""
    by_size = sorted(parts, key=lambda part: sum(share.total for share in part.estimate.shares))
    for part in by_size:
        if _fits([other.estimate for other in parts if other is not part], devices):
            yield f"not {part.name} at the same time"
            return
