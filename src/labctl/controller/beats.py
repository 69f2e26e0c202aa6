"""Who still lives, by watching whether a number changes.

Each instance and each leader counts up a beat in the store. Whoever watches judges by its own monotonic
clock: one whose beat did not change for ``LAPSE_S`` of *watched* time is dead. Time in which nobody looked
(we were frozen, or our machine slept) does not count: others on the same machine slept too, and get the
whole span again. So clocks never need to agree, and a jump of the wall clock buries nobody.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

LAPSE_S = 30.0
UNWATCHED_S = 15.0
"""A longer gap between two looks starts every count anew, unless looks are meant to lie as far apart."""

_LATE = 1.5
"""How much later than meant a look may come."""


class Beats:
    """Watches the beats of any number of names; it is meant to look every ``every_s``."""

    def __init__(self, lapse_s: float = LAPSE_S, *, every_s: float = 0.0) -> None:
        self._lapse_s, self._unwatched_s = lapse_s, max(UNWATCHED_S, _LATE * every_s)
        self._since: dict[str, tuple[Hashable, float]] = {}
        self._looked: float | None = None

    def dead(self, beats: Mapping[str, Hashable], now: float) -> tuple[str, ...]:
        """Take in the beats as they are at ``now`` (mono), and return the names that are dead."""
        if self._looked is None or now - self._looked > self._unwatched_s:
            self._since.clear()
        self._looked = now
        kept: dict[str, tuple[Hashable, float]] = {}
        for name, beat in beats.items():
            last = self._since.get(name)
            kept[name] = last if last is not None and last[0] == beat else (beat, now)
        self._since = kept
        return tuple(name for name, (_, since) in kept.items() if now - since >= self._lapse_s)
