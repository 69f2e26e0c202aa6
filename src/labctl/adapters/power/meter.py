"""What watts say of a host: that it works, that it does not, or neither.

A sleeping or switched-off machine draws a few watts for its network card, memory and board; an idle one with
graphics cards draws tens. Between lies what could be either, and that stays unclear: a wrong "off" may cost
somebody's work, a wrong "on" only keeps a host from being believed asleep. How much "a few" is grows with the
machine, since what a small box draws at work is what a large one draws asleep.
"""

from __future__ import annotations

from dataclasses import dataclass

from labctl.ports.power import Power

_OF_BASE = 0.1
_LEAST_W, _MOST_W = 2.0, 10.0
_WITH_CARDS_W, _WITHOUT_W = 100.0, 20.0
_CLEARLY = 2.5


@dataclass(frozen=True, slots=True)
class Meter:
    """Watts at the plug: no more than ``off_w`` is off or asleep, and at least ``on_w`` is at work."""

    off_w: float
    on_w: float

    def says(self, watts: float) -> Power:
        """Return what a draw means."""
        if watts <= self.off_w:
            return "off"
        return "on" if watts >= self.on_w else "unclear"


def meter_for(base_w: float | None, *, cards: bool) -> Meter:
    """Return the bounds for a host of so many watts without its cards, under load; None: not known."""
    base = base_w if base_w is not None else (_WITH_CARDS_W if cards else _WITHOUT_W)
    off_w = min(max(base * _OF_BASE, _LEAST_W), _MOST_W)
    return Meter(off_w, off_w * _CLEARLY)
