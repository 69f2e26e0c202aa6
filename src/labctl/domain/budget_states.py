"""Decide who may be awake, ramp and draw how much, so that no limit is exceeded at any moment.

A host is in one of four phases, and each meter adds up what they draw:

==========  ==============================  ============================================================
phase       draws                           why
==========  ==============================  ============================================================
asleep      nothing                         confirmed dark; its few watts are lost in the rounding of others
ramping     its spike                       it wakes or loads a model: its cards start in the same instant
awake       base watts and its caps         under load, since a request may come at any time
leaving     base watts and its caps         told to sleep, and nobody has seen it dark yet
==========  ==============================  ============================================================

A host that no phase is known of counts as awake. Two sums are compared with each meter's limits: what is
drawn for hours, and the same with the spikes of all that ramp. So several hosts may ramp together only
where there is room for all of their spikes.

Caps are those *in force*, never those wished for, and whoever keeps the state errs to the high side: a cap
that goes down counts in its old height until the card has read back the new one, a cap that goes up counts
from the moment in which it is ordered. For cards that are alike it is the highest of them. A sleeping card
hears no order and wakes with the cap that is declared, so that is what it is counted with when it ramps.

Who steps down: when watts are short, the hosts of the lowest priority give first, down to the lowest caps of
their cards; hosts of equal priority give alike. Hosts that ramp or leave are not asked. ``next_step`` says
one step at a time: caps down, then ramp, and up again only when what is gone is seen to be gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import floor, inf
from typing import Literal

from labctl.domain.budget import SLACK_W, Budget, Meter


class Phase(StrEnum):
    """What a host does with watts."""

    ASLEEP = "asleep"
    RAMPING = "ramping"
    AWAKE = "awake"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a rack: the phase of each host, and the cap in force of each bunch in watts."""

    phases: Mapping[str, Phase]
    caps: tuple[float, ...]

    def phase(self, host: str) -> Phase:
        """Return the phase of a host; one that nothing is known of counts as awake."""
        return self.phases.get(host, Phase.AWAKE)

    def entering(self, host: str, phase: Phase) -> State:
        """Return the state with one host in another phase."""
        return replace(self, phases={**self.phases, host: phase})


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, and the sentence that says why."""

    ok: bool
    because: str


@dataclass(frozen=True, slots=True)
class Caps:
    """The cap of each bunch in watts a card, and whether every limit is held with them."""

    watts: tuple[int, ...]
    fits: bool
    because: str


@dataclass(frozen=True, slots=True)
class Step:
    """The one thing to do next: caps to set, by the index of their bunch, or a host that may ramp."""

    do: Literal["lower", "raise", "ramp", "nothing"]
    because: str
    caps: Mapping[int, int]
    host: str = ""


def draws(phase: Phase) -> bool:
    """Return whether a host in that phase has to be counted."""
    return phase is not Phase.ASLEEP


def spikes(phase: Phase) -> bool:
    """Return whether a host in that phase has to be counted with the spikes of its cards."""
    return phase is Phase.RAMPING


def whole(watts: float) -> int:
    """Return a cap in whole watts: never more than was given."""
    return floor(watts + SLACK_W)


def read(budget: Budget, meter: Meter, state: State) -> tuple[float, float]:
    """Return the watts at a meter in a state: for hours, and with the spikes of those that ramp."""
    steady = sum(watts for host, watts in meter.base if draws(state.phase(host)))
    peak = steady
    for index, factor in meter.load:
        bunch = budget.bunches[index]
        phase = state.phase(bunch.host)
        if draws(phase):
            watts = factor * state.caps[index]
            steady += watts
            peak += watts * bunch.spike if spikes(phase) else watts
    return steady, peak


def over(budget: Budget, state: State, meters: Iterable[Meter] | None = None) -> str:
    """Return what is too much in a state, as a sentence; empty when every limit is held."""
    for meter in budget.meters if meters is None else meters:
        steady, peak = read(budget, meter, state)
        if steady > meter.limit_w + SLACK_W:
            return f"{meter.title} would bear {steady:.0f} W of {meter.limit_w:.0f} W for hours"
        if peak > meter.peak_w + SLACK_W:
            ramping = [host for host, _ in meter.base if spikes(state.phase(host))]
            return (
                f"{meter.title} would bear {peak:.0f} W of {meter.peak_w:.0f} W"
                f" while {', '.join(ramping)} ramps up"
            )
    return ""


def waking(budget: Budget, state: State, host: str) -> State:
    """Return the state in which a host ramps: with declared caps if it was asleep, else as they are."""
    ramping = state.entering(host, Phase.RAMPING)
    if state.phase(host) is not Phase.ASLEEP:
        return ramping
    caps = tuple(
        bunch.watts if bunch.host == host else cap
        for bunch, cap in zip(budget.bunches, state.caps, strict=True)
    )
    return replace(ramping, caps=caps)


def may_wake(budget: Budget, state: State, host: str) -> Verdict:
    """Decide whether a host may ramp now: a sleeping one wake, or one that is awake load a model."""
    if state.phase(host) is Phase.LEAVING:
        return Verdict(False, f"{host} was told to sleep; whether it does is not known yet")
    because = over(budget, waking(budget, state, host))
    return Verdict(False, because) if because else Verdict(True, "every limit is held with its full spike")


def may_set(budget: Budget, state: State, caps: Sequence[int]) -> Verdict:
    """Decide whether these caps may be in force now, one for each bunch."""
    because = over(budget, replace(state, caps=tuple(caps)))
    return Verdict(False, because) if because else Verdict(True, "every limit is held with these caps")


def caps_for(budget: Budget, state: State, priorities: Mapping[str, int]) -> Caps:
    """Return the highest caps that the awake hosts of a state may have, those of high priority first.

    All others keep what they have. A host that has no priority has 0. Where no caps fit, the lowest ones are
    returned, and why they do not.
    """
    return _caps(budget, state, priorities, _awake(budget, state))


def _awake(budget: Budget, state: State) -> list[int]:
    """Return the bunches whose cards can be told another cap."""
    return [place for place, bunch in enumerate(budget.bunches) if state.phase(bunch.host) is Phase.AWAKE]


def _caps(budget: Budget, state: State, priorities: Mapping[str, int], asked: Sequence[int]) -> Caps:
    watts = list(state.caps)
    levels: dict[int, list[int]] = {}
    for place in asked:
        watts[place] = budget.bunches[place].lowest_w
        levels.setdefault(priorities.get(budget.bunches[place].host, 0), []).append(place)
    because = over(budget, replace(state, caps=tuple(watts)))
    if because:
        return Caps(tuple(whole(cap) for cap in watts), False, f"even with the lowest caps {because}")
    for priority in sorted(levels, reverse=True):
        _fill(budget, state, watts, levels[priority])
    return Caps(tuple(whole(cap) for cap in watts), True, "every limit is held")


def _fill(budget: Budget, state: State, watts: list[float], members: Sequence[int]) -> None:
    """Raise these bunches together, by equal parts of their ranges, each until a limit holds it."""
    ranges = {place: budget.bunches[place].watts - budget.bunches[place].lowest_w for place in members}
    part, rising = 0.0, {place for place in members if ranges[place]}
    while rising:
        step, tight = 1.0 - part, None
        for meter in budget.meters:
            room = _room(budget, meter, replace(state, caps=tuple(watts)), {p: ranges[p] for p in rising})
            if room < step:
                step, tight = room, meter
        part += step
        for place in rising:
            watts[place] = budget.bunches[place].lowest_w + part * ranges[place]
        rising -= {place for place, _ in tight.load} if tight is not None else rising
    for place in members:
        watts[place] = whole(watts[place])


def _room(budget: Budget, meter: Meter, state: State, ranges: Mapping[int, int]) -> float:
    """Return by which part of their ranges bunches can be raised until the meter is at a limit."""
    slope = peak_slope = 0.0
    for place, factor in meter.load:
        if place in ranges:
            bunch = budget.bunches[place]
            slope += factor * ranges[place]
            peak_slope += factor * ranges[place] * (bunch.spike if spikes(state.phase(bunch.host)) else 1.0)
    if not slope:
        return inf
    steady, peak = read(budget, meter, state)
    return max(0.0, min((meter.limit_w - steady) / slope, (meter.peak_w - peak) / peak_slope))


def next_step(budget: Budget, state: State, wishes: Sequence[str], priorities: Mapping[str, int]) -> Step:
    """Return the next step towards what is wished: hosts that should ramp, the first of them first.

    A sleeping host is to wake and one that is awake to load a model. A step that lowers caps is done when the
    cards have read them back; only then ask again. A wish that no caps can fulfil now does not stand in the
    way of the next one.
    """
    reasons = []
    for host in (host for host in wishes if state.phase(host) in (Phase.ASLEEP, Phase.AWAKE)):
        then = waking(budget, state, host)
        planned = _caps(budget, then, priorities, _awake(budget, state))
        if not planned.fits:
            reasons.append(f"{host} has to wait: {planned.because}")
            continue
        lower = _changes(state, planned.watts, down=True)
        if lower:
            return Step("lower", f"to make room for {host}", lower)
        verdict = may_wake(budget, state, host)
        if verdict.ok:
            return Step("ramp", verdict.because, {}, host)
        reasons.append(f"{host} has to wait: {verdict.because}")
    wanted = caps_for(budget, state, priorities)
    lower = _changes(state, wanted.watts, down=True)
    if lower:
        return Step("lower", "others go first" if wanted.fits else wanted.because, lower)
    higher = _changes(state, wanted.watts, down=False)
    if higher and wanted.fits:
        return Step("raise", "there is room again", higher)
    return Step("nothing", "; ".join(reasons) or "everything is as it may be", {})


def _changes(state: State, wanted: Sequence[int], *, down: bool) -> dict[int, int]:
    """Return by bunch the caps that differ from those in force, in one direction only."""
    pairs = enumerate(zip(state.caps, wanted, strict=True))
    return {place: new for place, (old, new) in pairs if (new < old if down else new > old)}
