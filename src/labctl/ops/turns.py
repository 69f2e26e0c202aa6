"""Whose turn it is to reboot: one host at a time on each circuit, and none after one that stayed away.

Machines draw most while they start, and a bad driver should take down one machine, not all of them. So a host
waits until it has the turn of every circuit that feeds it; hosts without a known circuit share one. All hosts
of a run with reboots are in one process, which is why this can live in its memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from gevent.lock import BoundedSemaphore

from labctl.domain.budget import chain
from labctl.inventory import Host, Rack

UNKNOWN = "unknown"


@dataclass(slots=True)
class _Turn:
    free: BoundedSemaphore = field(default_factory=BoundedSemaphore)
    stayed_away: str = ""


class Turns:
    """The turns of all circuits of a rack."""

    def __init__(self) -> None:
        """Begin with every circuit free."""
        self._turns: defaultdict[str, _Turn] = defaultdict(_Turn)

    @contextmanager
    def turn(self, circuits: tuple[str, ...]) -> Iterator[str]:
        """Wait for the turn of all circuits; yield the host that stayed away on one of them, or ""."""
        with ExitStack() as held:
            # In one order for everybody, so that two hosts never wait for each other.
            turns = [self._turns[name] for name in sorted(circuits)]
            for turn in turns:
                held.enter_context(turn.free)
            yield next((turn.stayed_away for turn in turns if turn.stayed_away), "")

    def stayed_away(self, host: str, circuits: tuple[str, ...]) -> None:
        """Remember that ``host`` did not come back, so that nobody behind it on its circuits reboots."""
        for name in circuits:
            self._turns[name].stayed_away = host


def circuits_of(rack: Rack, host: Host) -> tuple[str, ...]:
    """Return the circuits that feed a host, those upstream included, sorted; never empty."""
    upstream = {circuit.name: circuit.upstream for circuit in rack.circuits}
    found = {name for psu in host.psus for name in chain(upstream, psu.circuit)}
    return tuple(sorted(found)) or (UNKNOWN,)
