"""Circuits and power supplies: does every cable end somewhere?

Whether the watts suffice is not decided here: that is the budget's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from labctl.inventory.checks.finding import Finding, Where, each_host, missing, twice
from labctl.inventory.hosts import Host
from labctl.inventory.rack import Rack

_BOARD = "board"


def circuits(rack: Rack) -> Iterator[Finding]:
    """Yield circuits that nothing feeds, and circles of circuits that feed each other, each once."""
    upstream = {circuit.name: circuit.upstream for circuit in rack.circuits}
    index = {circuit.name: place for place, circuit in reversed(list(enumerate(rack.circuits)))}
    for place, circuit in enumerate(rack.circuits):
        if circuit.upstream is not None and circuit.upstream not in upstream:
            others = [name for name in upstream if name != circuit.name]
            yield missing(("circuits", place, "upstream"), "circuit", circuit.upstream, others)
    done: set[str] = set()
    for start in upstream:
        trail: dict[str, None] = {}
        name: str | None = start
        while name is not None and name in upstream and name not in done and name not in trail:
            trail[name] = None
            name = upstream[name]
        if name is not None and name in trail:
            yield _circle([*list(trail)[list(trail).index(name) :], name], index[name])
        done.update(trail)


def _circle(names: list[str], place: int) -> Finding:
    path: Where = ("circuits", place, "upstream")
    if len(names) == 2:
        return Finding(path, "a circuit cannot feed itself", "remove it, or name the circuit behind it")
    told = ", ".join(f"{other} feeds {one}" for one, other in pairwise(names))
    return Finding(path, f"these circuits feed each other: {told}", "remove `upstream` of the outermost one")


def supplies(rack: Rack) -> Iterator[Finding]:
    """Yield power supplies of one name, plugs and cables that lead nowhere, and what gets no power."""
    names = [circuit.name for circuit in rack.circuits]
    for at, host in each_host(rack):
        yield from twice(
            ((*at, "psus", index, "name"), psu.name, "another power supply of this host")
            for index, psu in enumerate(host.psus)
        )
        for index, psu in enumerate(host.psus):
            if psu.circuit is not None and psu.circuit not in names:
                yield missing((*at, "psus", index, "circuit"), "circuit", psu.circuit, names)
        yield from _cables(at, host)
        yield from _unfed(at, host)


def _cables(at: Where, host: Host) -> Iterator[Finding]:
    cards = {name: index for index, gpu in enumerate(host.gpus) for name in gpu.refs}
    known = [*cards, _BOARD]
    for index, psu in enumerate(host.psus):
        seen: dict[int | str, str] = {}
        for place, fed in enumerate(psu.feeds):
            path = (*at, "psus", index, "feeds", place)
            if fed not in known:
                yield missing(path, "card of this host", fed, known)
                continue
            end = cards.get(fed, fed)
            if end in seen:
                same = "" if seen[end] == fed else f" as {seen[end]!r}"
                yield Finding(path, f"{fed!r} is fed by this power supply already{same}", "name it once")
            seen[end] = fed


def _unfed(at: Where, host: Host) -> Iterator[Finding]:
    fed = {name for psu in host.psus for name in psu.feeds}
    if not host.psus or (len(host.psus) == 1 and not fed):
        return  # nothing declared, or one unit that feeds everything
    for index, gpu in enumerate(host.gpus):
        if not fed.intersection(gpu.refs):
            yield Finding(
                (*at, "gpus", index),
                f"no power supply feeds {gpu.refs[0]}",
                "name it in `feeds` of the Psu that its cables come from",
            )
    if _BOARD not in fed:
        yield Finding((*at, "psus"), "no power supply feeds the board", 'add "board" to `feeds` of one Psu')
