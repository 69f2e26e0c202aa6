"""Times of the week: whether one is on, when it began, and when the next begins.

A window is said in the rack's own time, so it follows summer time: "8-18" lasts ten hours on the clock on the
wall on every day. One that runs past midnight belongs to the day on which it begins. A time that the clock
skips in spring begins when the clock has jumped over it, and one that it shows twice in autumn begins at the
first and ends at the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labctl.domain.sleep.terms import Window


@dataclass(frozen=True, slots=True)
class Span:
    """A window on one day, in wall seconds since 1970; ``text`` is how a person writes it."""

    start: float
    end: float
    text: str


def current(windows: Sequence[Window], zone: str, wall: float) -> Span | None:
    """Return the window that is on at a wall time, the one that ends last; None when none is."""
    raise NotImplementedError


def upcoming(windows: Sequence[Window], zone: str, wall: float) -> Span | None:
    """Return the next window that begins after a wall time; None when there are none."""
    raise NotImplementedError
