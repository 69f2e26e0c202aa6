"""Count the watts of a rack against what its power supplies and circuits can give.

Every place that has a limit is a *meter*: the output of a power supply, or a circuit at the wall.

- A load (a card, or the board with everything that is no card) hangs on the supplies that name it. One that
  several supplies name is shared equally between them, as supplies in parallel do; one that none names is
  shared by all supplies of its host. What is left when one of a redundant pair fails is not counted.
- A supply's output is the sum of its loads, and what it takes from the wall is that divided by its
  efficiency. It is over when its output exceeds its rating, or when a spike of milliseconds exceeds
  the rating times ``spike_tolerance`` (ATX 3 asks for 2; older units switch off at about 1.3).
- A circuit carries what its supplies take from the wall, and what the circuits fed by it carry. It is over
  when it would carry more than ``continuous_share`` of its rating for hours (a fuse warms up: electricians
  plan with 80 %), or more than ``spike_tolerance`` times the rating in a spike (a breaker of type B must
  not trip at once below 3 times: IEC 60898-1; a UPS may bear no more than its rating).
- Every card spikes at once. They do: the layers of a model start on all of its cards in the same instant.

Nothing declared means nothing checked: a host without supplies weighs on no meter. Watts that are not
declared count as zero, so whoever makes a ``Rack`` has to say which those were.

``Budget`` is the rack as a table of factors; ``domain.budget_change`` and ``domain.budget_states`` read the
same table, so the refusal of a plan and the decisions of a controller cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

BOARD = "board"
SLACK_W = 1e-6  # what rounding of floats may add up to

Kind = Literal["psu", "circuit"]


@dataclass(frozen=True, slots=True)
class Card:
    """A graphics card: ``watts`` is its cap, or what it draws uncapped.

    ``lowest_w`` is the lowest cap that it takes; None means that it takes none. ``spike`` is how many times
    ``watts`` it draws for milliseconds. ``beyond_w`` is what the board draws besides the chip that is capped.
    """

    name: str
    kind: str
    watts: int
    lowest_w: int | None = None
    spike: float = 1.0
    beyond_w: int = 0


@dataclass(frozen=True, slots=True)
class Supply:
    """A power supply; ``feeds`` are names of cards of its host and ``BOARD``."""

    name: str
    rated_w: int
    efficiency: float
    spike_tolerance: float = 1.0
    circuit: str | None = None
    feeds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Host:
    """A machine; ``base_w`` is what everything but its cards draws under load."""

    name: str
    base_w: int
    cards: tuple[Card, ...] = ()
    supplies: tuple[Supply, ...] = ()


@dataclass(frozen=True, slots=True)
class Circuit:
    """A fused circuit; ``upstream`` is the circuit that feeds it."""

    name: str
    volts: int
    amps: float
    continuous_share: float = 0.8
    upstream: str | None = None
    spike_tolerance: float = 1.0


@dataclass(frozen=True, slots=True)
class Rack:
    """Everything that draws watts, and everything that gives them."""

    hosts: tuple[Host, ...]
    circuits: tuple[Circuit, ...] = ()


@dataclass(frozen=True, slots=True)
class Bunch:
    """Cards of one host that are alike: one model, one cap. They are always capped alike.

    ``lowest_w`` equals ``watts`` where a cap cannot lower them.
    """

    host: str
    kind: str
    cards: tuple[str, ...]
    watts: int
    lowest_w: int
    spike: float


@dataclass(frozen=True, slots=True)
class Meter:
    """A place with a limit, and what each part of the rack adds there.

    ``base`` holds watts by host. ``load`` holds, for each bunch by its index, the watts that are added here
    for each watt of the cap of one of its cards. ``limit_w`` is for hours and ``peak_w`` for milliseconds;
    the texts say where they come from. ``efficiency`` leads from here to the wall.
    """

    kind: Kind
    host: str
    name: str
    limit_w: float
    peak_w: float
    limit_text: str
    peak_text: str
    efficiency: float
    base: tuple[tuple[str, float], ...]
    load: tuple[tuple[int, float], ...]

    @property
    def title(self) -> str:
        """Name it as a person would: ``psu0 of rig``, ``circuit office``."""
        return f"{self.name} of {self.host}" if self.kind == "psu" else f"circuit {self.name}"


@dataclass(frozen=True, slots=True)
class Budget:
    """A rack as a table: its bunches, and the meters in the order of the rack file, supplies first."""

    bunches: tuple[Bunch, ...]
    meters: tuple[Meter, ...]

    @property
    def declared(self) -> tuple[int, ...]:
        """The declared cap of each bunch, in watts a card."""
        return tuple(bunch.watts for bunch in self.bunches)

    @property
    def lowest(self) -> tuple[int, ...]:
        """The lowest cap of each bunch, in watts a card."""
        return tuple(bunch.lowest_w for bunch in self.bunches)


@dataclass(frozen=True, slots=True)
class Line:
    """One meter, read with everything awake, under load and spiking; all in watts.

    All but ``steady_w`` are counted where the limit is: at the output of a supply, at the wall for a circuit.
    ``steady_w`` is always at the wall. ``headroom_w`` is negative where it is over.
    """

    meter: Meter
    output_w: float
    spike_w: float

    @property
    def steady_w(self) -> float:
        """What is drawn from the wall for hours."""
        return self.output_w / self.meter.efficiency

    @property
    def limit_w(self) -> float:
        """What may be drawn here for hours."""
        return self.meter.limit_w

    @property
    def peak_w(self) -> float:
        """What may be drawn here for milliseconds."""
        return self.meter.peak_w

    @property
    def headroom_w(self) -> float:
        """What could be added for hours."""
        return self.limit_w - self.output_w

    @property
    def spike_headroom_w(self) -> float:
        """What a spike could be higher."""
        return self.peak_w - self.spike_w

    @property
    def over_w(self) -> int:
        """By how much it is over, in whole watts rounded up; 0 when it is not."""
        return max(0, ceil(max(-self.headroom_w, -self.spike_headroom_w) - SLACK_W))

    @property
    def because(self) -> str:
        """What is too much here, as a sentence without its subject; empty when nothing is."""
        does = "give" if self.meter.kind == "psu" else "carry"
        parts = []
        if -self.headroom_w > SLACK_W:
            parts.append(_excess(f"has to {does}", self.output_w, self.limit_w, self.meter.limit_text))
        if -self.spike_headroom_w > SLACK_W:
            spike = _excess(f"has to {does} up to", self.spike_w, self.peak_w, self.meter.peak_text)
            parts.append(f"{spike}, when all cards on it spike")
        return "; ".join(parts)


def _excess(does: str, watts: float, limit: float, text: str) -> str:
    # Rounded up from the limit, so that the three numbers agree with each other and with ``over_w``.
    more, bound = ceil(watts - limit - SLACK_W), round(limit, 1)
    return f"{does} {_number(bound + more)} W, {more} W more than {_number(bound)} W ({text})"


def _number(watts: float) -> str:
    return f"{watts:.1f}".removesuffix(".0")


@dataclass(frozen=True, slots=True)
class Report:
    """What every meter of a rack shows with everything awake, under load and spiking."""

    lines: tuple[Line, ...]

    @property
    def over(self) -> tuple[Line, ...]:
        """The lines that are over their limit."""
        return tuple(line for line in self.lines if line.over_w)

    @property
    def fits(self) -> bool:
        """Whether nothing is over its limit."""
        return not self.over

    @property
    def supplies(self) -> tuple[Line, ...]:
        """The lines of power supplies."""
        return tuple(line for line in self.lines if line.meter.kind == "psu")

    @property
    def circuits(self) -> tuple[Line, ...]:
        """The lines of circuits."""
        return tuple(line for line in self.lines if line.meter.kind == "circuit")


def report(rack: Rack) -> Report:
    """Read every meter of a rack with all of it awake, under load and spiking at once."""
    budget = budget_of(rack)
    return Report(tuple(read(budget, meter, budget.declared) for meter in budget.meters))


def worsened(before: Report, after: Report) -> tuple[Line, ...]:
    """Return the lines that are over their limit and bear more than before; both are of the same meters."""
    return tuple(
        now
        for was, now in zip(before.lines, after.lines, strict=True)
        if now.over_w and (now.output_w > was.output_w + SLACK_W or now.spike_w > was.spike_w + SLACK_W)
    )


def read(budget: Budget, meter: Meter, caps: Sequence[int]) -> Line:
    """Read one meter with everything awake, under load and spiking, each bunch at its cap in watts."""
    base = sum(watts for _, watts in meter.base)
    steady = sum(factor * caps[index] for index, factor in meter.load)
    spike = sum(factor * caps[index] * budget.bunches[index].spike for index, factor in meter.load)
    return Line(meter, base + steady, base + spike)


def budget_of(rack: Rack) -> Budget:
    """Return the table of factors that a rack comes down to."""
    bunches: list[Bunch] = []
    taps: list[_Tap] = []
    for host in rack.hosts:
        own = list(enumerate(_bunches(host), start=len(bunches)))
        bunches += [bunch for _, bunch in own]
        taps += [_tap(host, supply, own) for supply in host.supplies]
    meters = [*map(_supply_meter, taps), *_circuit_meters(rack, taps)]
    return Budget(tuple(bunches), tuple(meters))


def _bunches(host: Host) -> Iterator[Bunch]:
    alike: dict[tuple[str, int, int, float], list[str]] = {}
    for card in host.cards:
        lowest = card.watts if card.lowest_w is None else min(card.lowest_w, card.watts)
        alike.setdefault((card.kind, card.watts, lowest, card.spike), []).append(card.name)
    for (kind, watts, lowest, spike), names in alike.items():
        yield Bunch(host.name, kind, tuple(names), watts, lowest, spike)


def fed_by(host: Host, load: str) -> tuple[Supply, ...]:
    """Return the supplies that share a load equally: those that name it, or all when none does."""
    return tuple(supply for supply in host.supplies if load in supply.feeds) or host.supplies


def share(host: Host, supply: Supply, load: str) -> float:
    """Return which part of a load a supply bears, from 0 to 1."""
    bearers = fed_by(host, load)
    return 1 / len(bearers) if supply in bearers else 0.0


def base_share(host: Host, supply: Supply) -> float:
    """Return how many watts a supply bears that no cap changes."""
    boards = sum(card.beyond_w * share(host, supply, card.name) for card in host.cards)
    return host.base_w * share(host, supply, BOARD) + boards


def chain(upstream: Mapping[str, str | None], name: str | None) -> tuple[str, ...]:
    """Return a circuit and all those that feed it, the innermost first; a circle is walked once.

    ``upstream`` holds for each circuit the one that feeds it.
    """
    found: list[str] = []
    while name is not None and name in upstream and name not in found:
        found.append(name)
        name = upstream[name]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Tap:
    """What a supply bears at its output: base watts, and a factor for each bunch of its host."""

    host: str
    supply: Supply
    base_w: float
    load: tuple[tuple[int, float], ...]


def _tap(host: Host, supply: Supply, bunches: Sequence[tuple[int, Bunch]]) -> _Tap:
    borne = ((place, sum(share(host, supply, card) for card in bunch.cards)) for place, bunch in bunches)
    load = tuple((place, factor) for place, factor in borne if factor)
    return _Tap(host.name, supply, base_share(host, supply), load)


def _supply_meter(tap: _Tap) -> Meter:
    supply = tap.supply
    return Meter(
        kind="psu",
        host=tap.host,
        name=supply.name,
        limit_w=supply.rated_w,
        peak_w=supply.rated_w * supply.spike_tolerance,
        limit_text="its rating",
        peak_text=f"{supply.spike_tolerance:g} x its rating, for milliseconds",
        efficiency=supply.efficiency,
        base=((tap.host, tap.base_w),),
        load=tap.load,
    )


def _circuit_meters(rack: Rack, taps: Sequence[_Tap]) -> Iterator[Meter]:
    upstream = {circuit.name: circuit.upstream for circuit in rack.circuits}
    base: dict[str, dict[str, float]] = {name: {} for name in upstream}
    load: dict[str, dict[int, float]] = {name: {} for name in upstream}
    for tap in taps:
        for name in chain(upstream, tap.supply.circuit):
            drawn = tap.base_w / tap.supply.efficiency
            base[name][tap.host] = base[name].get(tap.host, 0.0) + drawn
            for place, factor in tap.load:
                load[name][place] = load[name].get(place, 0.0) + factor / tap.supply.efficiency
    for circuit in rack.circuits:
        rating = f"{circuit.volts} V x {circuit.amps:g} A"
        yield Meter(
            kind="circuit",
            host="",
            name=circuit.name,
            limit_w=circuit.volts * circuit.amps * circuit.continuous_share,
            peak_w=circuit.volts * circuit.amps * circuit.spike_tolerance,
            limit_text=f"{circuit.continuous_share * 100:g} % of {rating}",
            peak_text=f"{circuit.spike_tolerance:g} x {rating}, for milliseconds",
            efficiency=1.0,
            base=tuple(base[circuit.name].items()),
            load=tuple(load[circuit.name].items()),
        )
