"""The power budget of a rack file: what is declared, as ``domain.budget`` counts it.

A card counts with its cap, else with its watts at full load. Where no real lowest cap is known (a card that
is not in the table may be tried with any cap), a proposal never goes below half of full load, where cards
refuse or crawl.

``refusals`` names each power supply and each circuit that is over, with its line. A rack over budget can
still be loaded, since ``labctl power`` has to show it; whatever changes hosts asks ``refusals`` first. All
hosts of the rack count, also those that a run is limited to leave alone: the fuse does not know of limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil

from labctl.domain import budget
from labctl.domain.budget_change import Change, cheapest_change
from labctl.domain.problem import Problem
from labctl.inventory import profiles
from labctl.inventory.accelerators import Gpu
from labctl.inventory.hosts import Host
from labctl.inventory.loader import LoadedRack
from labctl.inventory.power import Psu
from labctl.inventory.rack import Rack

_REAL_MINIMUM = 0.1  # of full load; a lowest cap below that says only that nobody knows it
_PROPOSED_MINIMUM = 0.5
# amdgpu caps the chip of these cards; memory and fans come on top. A 7900 XT of 315 W has a cap of 265 W.
_CAP_IS_THE_CHIPS = ("RDNA2", "RDNA3", "RDNA4")
_BEYOND_THE_CHIP = 0.16


def rack_budget(rack: Rack) -> budget.Report:
    """Return what every power supply and circuit has to bear with the whole rack under load."""
    return budget.report(power_of(rack))


def power_of(rack: Rack) -> budget.Rack:
    """Return the rack as a thing that draws watts."""
    return budget.Rack(
        hosts=tuple(_host(host) for host in rack.hosts),
        circuits=tuple(
            budget.Circuit(
                one.name, one.volts, one.amps, one.continuous_share, one.upstream, one.spike_tolerance
            )
            for one in rack.circuits
        ),
    )


def with_cap(rack: Rack, cards: Mapping[str, Sequence[Gpu]], watts: int) -> budget.Rack:
    """Return the rack as it draws with another cap on some cards of each named host, in watts a card."""
    power = power_of(rack)
    hosts = []
    for host, drawn in zip(rack.hosts, power.hosts, strict=True):
        chosen = cards.get(host.name, ())
        pairs = zip(host.gpus, drawn.cards, strict=True)
        now = tuple(_card(host, _capped(gpu, watts)) if gpu in chosen else card for gpu, card in pairs)
        hosts.append(replace(drawn, cards=now))
    return replace(power, hosts=tuple(hosts))


def _capped(gpu: Gpu, watts: int) -> Gpu:
    # Which reason is all the same to what is drawn; a cap has to have one.
    return gpu.model_copy(update={"cap_w": watts, "cap_reason": "efficiency"})


def _host(host: Host) -> budget.Host:
    names = {ref: _name(gpu) for gpu in host.gpus for ref in (gpu.slot, gpu.uuid, gpu.pci) if ref}
    return budget.Host(
        name=host.name,
        base_w=host.base_w or 0,
        cards=tuple(_card(host, gpu) for gpu in host.gpus),
        supplies=tuple(_supply(psu, names) for psu in host.psus),
    )


def _name(gpu: Gpu) -> str:
    """Return the one name of a card that is fed under several."""
    return gpu.slot or gpu.uuid or gpu.pci or gpu.model


def _card(host: Host, gpu: Gpu) -> budget.Card:
    profile = profiles.of(gpu)
    lowest = profile.cap_min_w
    if lowest is not None and lowest < profile.tdp_w * _REAL_MINIMUM:
        lowest = ceil(profile.tdp_w * _PROPOSED_MINIMUM)
    watts, capped = profiles.draw_w(host, gpu), profiles.cap_of(host, gpu) is not None
    chip_only = profile.cap_max_w is not None and profile.architecture in _CAP_IS_THE_CHIPS
    beyond = ceil(profile.tdp_w * _BEYOND_THE_CHIP) if chip_only else 0
    if not capped:
        watts -= beyond  # the whole board draws its watts at full load, and a cap would be of the chip
    return budget.Card(_name(gpu), profile.name, watts, lowest, profile.spike, beyond)


def _supply(psu: Psu, names: dict[str, str]) -> budget.Supply:
    return budget.Supply(
        name=psu.name,
        rated_w=psu.watts,
        efficiency=psu.efficiency,
        spike_tolerance=psu.spike_tolerance,
        circuit=psu.circuit,
        feeds=tuple(names.get(ref, ref) for ref in psu.feeds),
    )


def uncounted(rack: Rack) -> tuple[str, ...]:
    """Return what the budget can't know, as sentences: watts that nobody declared, hosts on no supply."""
    notes = []
    without = [host.name for host in rack.hosts if not host.psus]
    if without and len(without) < len(rack.hosts):
        notes.append(f"not counted, since no Psu is declared: {', '.join(without)}")
    unknown = [host.name for host in rack.hosts if host.psus and host.base_w is None]
    if unknown:
        notes.append(f"counted as 0 W besides the cards, since base_w is not declared: {', '.join(unknown)}")
    loose = [f"{psu.name} of {host.name}" for host in rack.hosts for psu in host.psus if psu.circuit is None]
    if loose and rack.circuits:
        notes.append(f"on no circuit: {', '.join(loose)}")
    return tuple(notes)


def refusals(loaded: LoadedRack) -> list[Problem]:
    """Return a problem, with the cheapest change, for each power supply and circuit that is over."""
    over = rack_budget(loaded.rack).over
    if not over:
        return []
    power = power_of(loaded.rack)
    change, table = cheapest_change(power), budget.budget_of(power)
    return [_problem(loaded, line, change.at(line.meter, table)) for line in over]


def _problem(loaded: LoadedRack, line: budget.Line, change: Change) -> Problem:
    rack, meter = loaded.rack, line.meter
    hint = f"cheapest change that fits: {change.text}" if not change.shortages else change.text
    if meter.kind == "circuit":
        place = next(n for n, circuit in enumerate(rack.circuits) if circuit.name == meter.name)
        file, number = loaded.place(("circuits", place))
        return Problem(f"circuit {meter.name} {line.because}", hint, file, number, "", f"circuits[{place}]")
    index = next(n for n, host in enumerate(rack.hosts) if host.name == meter.host)
    place = next(n for n, psu in enumerate(rack.hosts[index].psus) if psu.name == meter.name)
    file, number = loaded.place(("hosts", index, "psus", place))
    return Problem(f"{meter.name} {line.because}", hint, file, number, meter.host, f"psus[{place}]")
