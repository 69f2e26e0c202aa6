"""What an engine really took, and how far off the estimate was.

An engine says what it allocated, part by part and device by device (``BUFFERS``), where its build and its
verbosity print that; a driver knows what each process holds of a card as a whole (``PROCESS``, its own
context included). Either takes the place of the estimate of the same model in the same use by the same
build. Where only the whole is known, the difference to the parts as estimated is shown as overhead, or taken
off what was estimated for computing and caching. What an engine does not tell stays as it was estimated.

The error is that of what was measured: on the devices that it tells of, with the context only where that was
measured, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from labctl.domain.fit.terms import Estimate, Share

BUFFERS = ("weights", "cache", "compute")
PROCESS = "process"


@dataclass(frozen=True, slots=True)
class Measured:
    """What was read of a running engine: bytes by device and part. ``when`` is a date with time.

    ``load_s`` is how long it took from start to ready, ``loaded_bytes`` what was read from the disk then.
    """

    when: str
    host: str
    model: str
    shares: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    load_s: float | None = None
    loaded_bytes: int | None = None

    @property
    def bytes_s(self) -> int | None:
        """Return the rate of loading in bytes per second, where it is known."""
        if not self.load_s or not self.loaded_bytes:
            return None
        return int(self.loaded_bytes / self.load_s)


def _comparable(share: Share, parts: Mapping[str, int]) -> int:
    if PROCESS in parts:
        return share.total
    said: int = sum(getattr(share, name) for name in BUFFERS if name in parts)
    return said + (share.draft if "weights" in parts else 0)


def compared(estimate: Estimate, measured: Measured) -> tuple[int, int]:
    """Return what was estimated and what was measured of the same things, in bytes."""
    known = {share.device: share for share in estimate.shares}
    guess = sum(_comparable(known.get(name, Share(name)), parts) for name, parts in measured.shares.items())
    return guess, sum(size for parts in measured.shares.values() for size in parts.values())


def error_percent(estimate: Estimate, measured: Measured) -> float | None:
    """Return how far the estimate was above (+) or below (-) what was measured, in percent of that."""
    guess, real = compared(estimate, measured)
    return None if real == 0 else (guess - real) * 100 / real


def corrected(estimate: Estimate, measured: Measured) -> Estimate:
    """Return the estimate with what was measured as it was measured."""
    if not measured.shares:
        return estimate
    known = {share.device: share for share in estimate.shares}
    names = [*known, *(name for name in measured.shares if name not in known)]
    shares = (_fixed(known.get(name, Share(name)), measured.shares.get(name)) for name in names)
    note = f"as measured on {measured.host} at {measured.when}"
    return replace(estimate, shares=tuple(shares), notes=(*estimate.notes, note))


def _fixed(share: Share, parts: Mapping[str, int] | None) -> Share:
    if parts is None:
        return share
    if PROCESS in parts:
        if parts[PROCESS] < share.weights:  # it was still loading when it was asked
            return share
        more = parts[PROCESS] - share.total
        if share.overhead + more >= 0:
            return replace(share, overhead=share.overhead + more)
        less = -(share.overhead + more)  # more than there is of overhead: the buffers are smaller
        compute = max(0, share.compute - less)
        cache = max(0, share.cache - max(0, less - share.compute))
        return replace(share, overhead=0, compute=compute, cache=cache)
    # What the engine says is of the whole process: a draft is in it, a projector's weights are never said. A
    # part of which it says nothing is as it was estimated: silence is no proof that it takes nothing.
    return replace(share, **{name: parts.get(name, getattr(share, name)) for name in BUFFERS}, draft=0)
