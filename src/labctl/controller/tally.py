"""Count what became of hosts since this process began, for metrics; nothing is decided by it.

A move is counted where it is committed, and a wake when its host has passed the gate. A controller that
starts anew counts from nothing: whoever takes differences must see to it, as Prometheus does.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass

from labctl.controller.answers import Counts
from labctl.domain.sleep.lifecycle import Event

WAKES_S = (5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1200.0)
"""Bounds for how long wakes take: from a suspended mini PC to a server that boots from a cold disk."""


@dataclass(slots=True)
class _Host:
    moves: Counter[str]
    wakes: list[int]
    wakes_s: float = 0.0


class Tally:
    """The counts of one process; may be used by many threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._hosts: dict[str, _Host] = defaultdict(lambda: _Host(Counter(), [0] * (len(WAKES_S) + 1)))

    def moved(self, host: str, event: Event) -> None:
        """Count a move that was committed."""
        with self._guard:
            self._hosts[host].moves[event.value] += 1

    def came_up(self, host: str, seconds: float) -> None:
        """Count a wake that took so long, from its first packet to the gate passed."""
        with self._guard:
            one = self._hosts[host]
            one.wakes[bisect_left(WAKES_S, seconds)] += 1
            one.wakes_s += seconds

    def of(self, host: str) -> Counts:
        """Return a host's counts until now."""
        with self._guard:
            one = self._hosts[host]
            return Counts(dict(one.moves), WAKES_S, tuple(one.wakes), one.wakes_s)
