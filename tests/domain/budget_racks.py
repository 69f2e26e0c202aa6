"""Random racks for the budget's tests, and watts counted a second time, in another way, to judge by."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from labctl.domain.budget import BOARD, Card, Circuit, Host, Rack, Supply
from labctl.domain.budget_states import Phase

_CARDS = (
    ("RTX 3090", 100, 350, 1.7),
    ("RTX 5090", 400, 575, 1.5),
    ("L4", 40, 72, 1.3),
    ("GB10", None, 140, 1.2),
)


def random_rack(dice: Random) -> Rack:
    """Return a rack of 1 to 4 hosts; often each of them may run, but not all of them at once."""
    names = ["house", "office", "strip"][: dice.randint(1, 3)]
    hosts = tuple(_host(dice, f"host{n}", names) for n in range(dice.choice((1, 2, 3, 3, 4))))
    circuits: list[Circuit] = []
    for name in names:
        volts = dice.choice((120, 230))
        upstream = dice.choice((None, *(one.name for one in circuits)))
        spikes = [sum(c.watts * c.spike for c in host.cards) + host.base_w for host in hosts]
        watts = max(max(spikes) * dice.uniform(0.9, 1.6), sum(spikes) * dice.uniform(0.3, 0.9)) / 0.85
        circuits.append(
            Circuit(
                name,
                volts,
                round(watts / volts, 1),
                dice.choice((0.8, 1.0)),
                upstream,
                dice.choice((1.0, 1.0, 3.0)),
            )
        )
    return Rack(hosts, tuple(circuits))


def _host(dice: Random, name: str, circuits: list[str]) -> Host:
    cards: list[Card] = []
    for _ in range(dice.choice((0, 1, 1, 2))):
        kind, lowest, full, spike = dice.choice(_CARDS)
        watts = full if lowest is None else dice.randint((lowest + full) // 2, full)
        for _ in range(dice.randint(1, 4)):
            cards.append(Card(f"slot{len(cards)}", kind, watts, lowest, spike))
    base = dice.randint(20, 300)
    loads = {BOARD: base, **{card.name: card.watts for card in cards}}
    feeds: list[list[str]] = [[] for _ in range(dice.choice((1, 1, 2)))]
    for load in loads:
        for fed in dice.sample(feeds, dice.choice((1, 1, len(feeds)))):
            fed.append(load)
    supplies = tuple(
        Supply(
            f"psu{n}",
            int(sum(loads[load] for load in fed) * dice.uniform(0.95, 2)) + 1,
            dice.choice((0.8, 0.88, 0.94)),
            dice.choice((1.3, 1.7, 2.0)),
            dice.choice((*circuits, *circuits, *circuits, None)),
            tuple(fed) if len(feeds) > 1 else (),
        )
        for n, fed in enumerate(feeds)
    )
    return Host(name, base, tuple(cards), supplies)


def excess(rack: Rack, phases: Mapping[str, Phase], caps: Mapping[tuple[str, str], float]) -> str:
    """Return where a rack is over a limit in a state, from scratch: load by load, up to the wall; else "".

    ``caps`` holds the watts of each (host, card). It shares nothing with labctl but the rack itself.
    """
    circuits = {circuit.name: circuit for circuit in rack.circuits}
    at_circuits = {name: [0.0, 0.0] for name in circuits}
    for host in rack.hosts:
        if phases[host.name] is Phase.ASLEEP:
            continue
        outputs = {supply.name: [0.0, 0.0] for supply in host.supplies}
        loads = [(BOARD, host.base_w, 1.0), *((c.name, caps[host.name, c.name], c.spike) for c in host.cards)]
        for load, watts, spike in loads:
            naming = [supply for supply in host.supplies if load in supply.feeds] or list(host.supplies)
            for supply in naming:
                outputs[supply.name][0] += watts / len(naming)
                peak = watts * (spike if phases[host.name] is Phase.RAMPING else 1)
                outputs[supply.name][1] += peak / len(naming)
        for supply in host.supplies:
            steady, peak = outputs[supply.name]
            if steady > supply.rated_w + 1e-3 or peak > supply.rated_w * supply.spike_tolerance + 1e-3:
                return f"{supply.name} of {host.name} gives {steady:.1f} W, {peak:.1f} W in a spike"
            fed_by = supply.circuit
            while fed_by is not None:
                at_circuits[fed_by][0] += steady / supply.efficiency
                at_circuits[fed_by][1] += peak / supply.efficiency
                fed_by = circuits[fed_by].upstream
    for name, (steady, peak) in at_circuits.items():
        rating = circuits[name].volts * circuits[name].amps
        peak_w = rating * circuits[name].spike_tolerance
        if steady > rating * circuits[name].continuous_share + 1e-3 or peak > peak_w + 1e-3:
            return f"circuit {name} carries {steady:.1f} W, {peak:.1f} W in a spike"
    return ""
