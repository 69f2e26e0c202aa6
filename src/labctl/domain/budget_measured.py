"""What every supply and circuit bears now, by the watts that cards say they draw.

A card that tells its watts counts with them, one that sleeps, or whose host does, with nothing, and one that
does not tell with anything between nothing and its watts in the budget. So each meter is read twice:
``least_w`` is drawn for certain, ``most_w`` is what it may be. The rest of a host has no meter of its own:
its declared base watts count in both as long as it may be on, and ``base_w`` says how much that is.

Spikes of milliseconds are not measured by anything here, so nothing is said of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .budget import BOARD, Host, Meter, Rack, Supply, budget_of, chain, share


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a host draws: watts by card, None where a card does not tell; ``on`` False: it sleeps."""

    cards: Mapping[str, float | None]
    on: bool = True


@dataclass(frozen=True, slots=True)
class Reading:
    """A meter now, in watts counted where its limit is.

    ``silent`` are the cards that did not tell; ``hosts`` all hosts that hang on it, asleep or not.
    """

    meter: Meter
    least_w: float
    most_w: float
    base_w: float
    silent: tuple[str, ...]
    hosts: tuple[str, ...]


def readings(rack: Rack, drawn: Mapping[str, Drawn]) -> tuple[Reading, ...]:
    """Return every meter of a rack, supplies first; a host that is not in ``drawn`` may be on, untold."""
    return tuple(_reading(rack, meter, drawn) for meter in budget_of(rack).meters)


def _reading(rack: Rack, meter: Meter, drawn: Mapping[str, Drawn]) -> Reading:
    taps = tuple(_taps(rack, meter))
    on = [(host, supply, factor) for host, supply, factor in taps if drawn.get(host.name, Drawn({})).on]
    base = sum(host.base_w * share(host, supply, BOARD) * factor for host, supply, factor in on)
    told, rest = 0.0, 0.0
    silent: dict[str, None] = {}
    for host, supply, factor in on:
        cards = drawn.get(host.name, Drawn({})).cards
        for card in host.cards:
            part, watts = share(host, supply, card.name) * factor, cards.get(card.name)
            if watts is not None:
                told += part * watts
            elif part:
                rest += part * (card.watts + card.beyond_w)
                silent[f"{card.name} of {host.name}"] = None
    return Reading(
        meter,
        least_w=base + told,
        most_w=base + told + rest,
        base_w=base,
        silent=tuple(silent),
        hosts=tuple(dict.fromkeys(host.name for host, _, _ in taps)),
    )


def _taps(rack: Rack, meter: Meter) -> Iterator[tuple[Host, Supply, float]]:
    """Yield the supplies that a meter bears, each with its host, and what a watt of it is there."""
    upstream = {circuit.name: circuit.upstream for circuit in rack.circuits}
    for host in rack.hosts:
        for supply in host.supplies:
            if meter.kind == "psu" and (host.name, supply.name) == (meter.host, meter.name):
                yield host, supply, 1.0
            elif meter.kind == "circuit" and meter.name in chain(upstream, supply.circuit):
                yield host, supply, 1 / supply.efficiency
