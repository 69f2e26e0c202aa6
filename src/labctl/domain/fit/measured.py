"""What an engine really took, and how far off the estimate was.

An engine says what it allocated, device by device. What it says replaces the estimate of the same model in
the same use by the same build: weights, cache and compute buffers as measured; what no line tells of (the
driver's own context) stays as estimated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from labctl.domain.fit.terms import Estimate, Share


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


def total(estimate: Estimate) -> int:
    """Return the bytes that an estimate counts of all devices, of what can be measured."""
    return sum(share.total - share.overhead for share in estimate.shares)


def measured_total(measured: Measured) -> int:
    """Return the bytes that were measured."""
    return sum(size for parts in measured.shares.values() for size in parts.values())


def error_percent(estimate: Estimate, measured: Measured) -> float | None:
    """Return how far the estimate was above (+) or below (-) what was measured, in percent of that."""
    real = measured_total(measured)
    return None if real == 0 else (total(estimate) - real) * 100 / real


def corrected(estimate: Estimate, measured: Measured) -> Estimate:
    """Return the estimate with the parts that were measured as they were measured."""
    if not measured.shares:
        return estimate
    known = {share.device: share for share in estimate.shares}
    names = [*known, *(name for name in measured.shares if name not in known)]
    shares = []
    for name in names:
        share, parts = known.get(name, Share(name)), measured.shares.get(name)
        if parts is None:
            shares.append(share)
            continue
        shares.append(
            replace(
                share,
                weights=parts.get("weights", 0),
                cache=parts.get("cache", 0),
                compute=parts.get("compute", 0),
                # What the engine says is of the whole process: projector and draft are in it.
                projector=0,
                draft=0,
            )
        )
    note = f"as measured on {measured.host} at {measured.when}"
    return replace(estimate, shares=tuple(shares), notes=(*estimate.notes, note))
