"""A histogram in plain numbers: where a value falls is counted, and what all of them add up to."""

from __future__ import annotations

from bisect import bisect_left

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
"""Bounds for what takes from milliseconds (a small embedding) to minutes (a wake, a long answer)."""

PACES = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0, 250.0, 500.0, 1000.0)
"""Bounds for tokens in a second."""


class Histogram:
    """Values by ``bounds``; ``counts`` has one for each bound, of values up to it and above the one before.

    The last of ``counts`` is for values above all bounds.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value
