"""Find the cheapest change that brings a rack inside its budget.

Cheapest means the fewest watts taken from cards. The rules:

- A cap is a whole number of watts, never below the lowest that the card takes.
- Cards that are alike and hang on the same circuits get the same cap: a model that is spread over cards
  runs at the speed of the slowest, and a person wants to read one number. Only where a weak supply of one
  host would cost those of others a watt a card or more do they get their own.
- Of changes that take the same watts the one that touches the fewest kinds of cards wins, then the one that
  cuts no card deeper than it must.
- Where even the lowest caps leave a meter over, no cap helps; ``domain.budget_shortage`` says what does.

The search is exact as long as it ends within ``_STEPS`` trials, as it does for the racks of a home or lab.
Cut short, what it has found fits all the same, but may take a few watts more than necessary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf

from labctl.domain.budget import SLACK_W, Budget, Line, Meter, Rack, budget_of, read
from labctl.domain.budget_shortage import Shortage, listed, shortage, shortened
from labctl.domain.outcome import counted

_SUBSETS = 4  # groups up to which every choice of them is tried; 15 searches
_STEPS = 20_000


@dataclass(frozen=True, slots=True)
class CapTo:
    """Cards that are alike, and the cap in watts that they should get instead of what they draw now.

    ``cards`` are (host, card) pairs.
    """

    kind: str
    cards: tuple[tuple[str, str], ...]
    before_w: int
    watts: int

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that hold the cards, in order."""
        return tuple(dict.fromkeys(host for host, _ in self.cards))

    @property
    def text(self) -> str:
        """Say it: ``8 GPUs at 185 W (RTX 3090 in rig)``."""
        return f"{counted(len(self.cards), 'GPU')} at {self.watts} W ({self.kind} in {shortened(self.hosts)})"


@dataclass(frozen=True, slots=True)
class Change:
    """What to change so that a rack fits; empty when it does. ``taken_w`` is what cards lose in all."""

    caps: tuple[CapTo, ...] = ()
    shortages: tuple[Shortage, ...] = ()

    @property
    def taken_w(self) -> int:
        """Watts taken from cards."""
        return _taken(self.caps)

    @property
    def text(self) -> str:
        """Say all of it: ``cap 8 GPUs at 185 W (RTX 3090 in rig)``; empty when nothing has to change."""
        alike: dict[tuple[str, int], CapTo] = {}
        for cap in self.caps:
            first = alike.setdefault((cap.kind, cap.watts), cap)
            if first is not cap:
                alike[cap.kind, cap.watts] = replace(first, cards=(*first.cards, *cap.cards))
        parts = [f"cap {listed([cap.text for cap in alike.values()])}"] if self.caps else []
        return "; ".join([*parts, *(one.text for one in self.shortages)])

    def at(self, meter: Meter, budget: Budget) -> Change:
        """Return the part of the change that bears on one meter of the budget it was made for."""
        here = {
            (budget.bunches[index].host, card)
            for index, _ in meter.load
            for card in budget.bunches[index].cards
        }
        return Change(
            tuple(cap for cap in self.caps if here.intersection(cap.cards)),
            tuple(one for one in self.shortages if one.meter == meter),
        )


def cheapest_change(rack: Rack) -> Change:
    """Return the change that takes the fewest watts from cards and brings every meter that it can inside."""
    budget = budget_of(rack)
    over = [line.meter for line in _read_all(budget, budget.declared) if line.over_w]
    hopeless = [line for line in _read_all(budget, budget.lowest) if line.over_w]
    lost = [line.meter for line in hopeless]
    caps = _caps(budget, [meter for meter in over if meter not in lost])
    return Change(caps, tuple(shortage(rack, budget, line) for line in hopeless))


def _read_all(budget: Budget, caps: Sequence[int]) -> list[Line]:
    return [read(budget, meter, caps) for meter in budget.meters]


# --- caps ---


@dataclass(frozen=True, slots=True)
class _Group:
    """Bunches that get one cap: how many cards, and how many watts each of them can lose."""

    bunches: tuple[int, ...]
    cards: int
    range_w: int


@dataclass(frozen=True, slots=True)
class _Need:
    """Watts that must go at one meter, and what each group takes off there for each watt of its cap."""

    watts: float
    factors: tuple[float, ...]


def _caps(budget: Budget, meters: Sequence[Meter]) -> tuple[CapTo, ...]:
    together = [place for place, meter in enumerate(meters) if meter.kind == "circuit"]
    coarse = _solved(budget, meters, _groups(budget, meters, together))
    fine = _solved(budget, meters, _groups(budget, meters, range(len(meters))))
    cards = sum(len(cap.cards) for cap in coarse)
    # What whole watts cost is not worth two caps for one model.
    return fine if _taken(coarse) - _taken(fine) >= cards else coarse


def _taken(caps: Sequence[CapTo]) -> int:
    return sum((cap.before_w - cap.watts) * len(cap.cards) for cap in caps)


def _solved(budget: Budget, meters: Sequence[Meter], groups: Sequence[_Group]) -> tuple[CapTo, ...]:
    needs = [need for meter in meters for need in _needs(budget, meter, groups)]
    found = []
    for group, cut in zip(groups, _cheapest(groups, needs), strict=True):
        if cut:
            first = budget.bunches[group.bunches[0]]
            cards = tuple(
                (budget.bunches[place].host, card)
                for place in group.bunches
                for card in budget.bunches[place].cards
            )
            found.append(CapTo(first.kind, cards, first.watts, first.watts - cut))
    return tuple(found)


def _groups(budget: Budget, meters: Sequence[Meter], telling: Sequence[int]) -> list[_Group]:
    """Group bunches that are alike and weigh on the same of the ``telling`` meters, else of all."""
    weighs: dict[int, set[int]] = {}
    for number, meter in enumerate(meters):
        for place, _ in meter.load:
            weighs.setdefault(place, set()).add(number)
    alike: dict[tuple[object, ...], list[int]] = {}
    for place, bunch in enumerate(budget.bunches):
        if place in weighs and bunch.lowest_w < bunch.watts:
            touched = frozenset(weighs[place].intersection(telling) or weighs[place])
            alike.setdefault((bunch.kind, bunch.watts, bunch.lowest_w, bunch.spike, touched), []).append(
                place
            )
    return [
        _Group(
            bunches=tuple(places),
            cards=sum(len(budget.bunches[place].cards) for place in places),
            range_w=budget.bunches[places[0]].watts - budget.bunches[places[0]].lowest_w,
        )
        for places in alike.values()
    ]


def _needs(budget: Budget, meter: Meter, groups: Sequence[_Group]) -> Iterator[_Need]:
    line, load = read(budget, meter, budget.declared), dict(meter.load)

    def factors(*, spiking: bool) -> tuple[float, ...]:
        return tuple(
            sum(
                load.get(index, 0.0) * (budget.bunches[index].spike if spiking else 1.0)
                for index in group.bunches
            )
            for group in groups
        )

    if -line.headroom_w > SLACK_W:
        yield _Need(-line.headroom_w, factors(spiking=False))
    if -line.spike_headroom_w > SLACK_W:
        yield _Need(-line.spike_headroom_w, factors(spiking=True))


def _cheapest(groups: Sequence[_Group], needs: Sequence[_Need]) -> list[int]:
    """Return the watts that each group's cards lose; the needs can be met, or they would not be here."""
    cuts = [0] * len(groups)
    for members, shared in _parts(groups, needs):
        best: tuple[tuple[float, ...], tuple[int, ...], tuple[int, ...]] | None = None
        for chosen in _choices(members):
            picked = [groups[place] for place in chosen]
            found = _Search(picked, shared, chosen).run()
            if found is not None and (best is None or _key(picked, found) < best[0]):
                best = (_key(picked, found), chosen, found)
        if best is not None:
            for place, cut in zip(best[1], best[2], strict=True):
                cuts[place] = cut
    return cuts


def _parts(groups: Sequence[_Group], needs: Sequence[_Need]) -> list[tuple[list[int], list[_Need]]]:
    """Split what has nothing to do with each other: the groups by the needs that they share."""
    parts: list[tuple[list[int], list[_Need]]] = []
    for need in needs:
        members = [place for place in range(len(groups)) if need.factors[place]]
        joined, apart = [need], []
        for part in parts:
            if set(part[0]).intersection(members):
                members, joined = sorted({*members, *part[0]}), [*part[1], *joined]
            else:
                apart.append(part)
        parts = [*apart, (members, joined)]
    return parts


def _choices(members: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield which groups to try: every choice of a few, or all of many."""
    if len(members) > _SUBSETS:
        yield tuple(members)
        return
    for bits in range(1, 1 << len(members)):
        yield tuple(member for place, member in enumerate(members) if bits >> place & 1)


def _key(groups: Sequence[_Group], cuts: Sequence[int]) -> tuple[float, ...]:
    taken = sum(group.cards * cut for group, cut in zip(groups, cuts, strict=True))
    touched = sum(1 for cut in cuts if cut)
    deepest = max(cut / group.range_w for group, cut in zip(groups, cuts, strict=True))
    return (taken, touched, deepest)


class _Search:
    """Branch and bound over the cuts of a few groups, one group after the other."""

    def __init__(self, groups: Sequence[_Group], needs: Sequence[_Need], chosen: Sequence[int]) -> None:
        self._groups = groups
        self._factors = [[need.factors[place] for need in needs] for place in chosen]
        self._wanted = [need.watts for need in needs]
        self._best: tuple[int, ...] | None = None
        self._cost: float = inf
        self._left = _STEPS
        # For each group on: what all later ones can take off, and how much at best for each watt lost.
        self._reach = [self._over_later(place, "all") for place in range(len(groups))]
        self._rate = [self._over_later(place, "best") for place in range(len(groups))]

    def _over_later(self, place: int, how: str) -> list[float]:
        later = list(zip(self._groups, self._factors, strict=True))[place + 1 :]
        if how == "all":
            return [sum(f[n] * group.range_w for group, f in later) for n in range(len(self._wanted))]
        return [
            max((f[n] / group.cards for group, f in later), default=0.0) for n in range(len(self._wanted))
        ]

    def run(self) -> tuple[int, ...] | None:
        """Return the cuts that take the fewest watts, or None when these groups cannot do it."""
        self._descend(0, self._wanted, 0, ())
        return self._best

    def _descend(self, place: int, wanted: list[float], cost: float, cuts: tuple[int, ...]) -> None:
        group, factors = self._groups[place], self._factors[place]
        least = _least(factors, [w - reach for w, reach in zip(wanted, self._reach[place], strict=True)])
        most = _least(factors, [w if f else 0.0 for w, f in zip(wanted, factors, strict=True)])
        last = place == len(self._groups) - 1
        for cut in range(least, min(group.range_w, max(least, most)) + 1) if least <= group.range_w else ():
            self._left -= 1
            if self._left < 0 and self._best is not None:
                return
            left = [w - f * cut for w, f in zip(wanted, factors, strict=True)]
            so_far = cost + group.cards * cut
            if so_far + self._bound(place, left) >= self._cost:
                continue
            if last:
                self._best, self._cost = (*cuts, cut), so_far
                return
            self._descend(place + 1, left, so_far, (*cuts, cut))

    def _bound(self, place: int, left: Sequence[float]) -> float:
        """Return the watts that later groups must lose at least."""
        pairs = zip(left, self._rate[place], strict=True)
        return ceil(
            max((watts / rate for watts, rate in pairs if watts > SLACK_W and rate), default=0.0) - SLACK_W
        )


def _least(factors: Sequence[float], wanted: Sequence[float]) -> int:
    """Return the smallest whole cut that meets every need by itself; huge when no cut can."""
    cut = 0
    for factor, watts in zip(factors, wanted, strict=True):
        if watts > SLACK_W:
            cut = max(cut, ceil(watts / factor - SLACK_W) if factor else 10**9)
    return cut
