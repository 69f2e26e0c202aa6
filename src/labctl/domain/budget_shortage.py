"""Say what to do about a meter that no cap can bring inside its limit.

It is over even with every card at its lowest cap, so load has to leave it. For a circuit the smallest host
is named that is enough to move: enough by itself, else together with lower caps for those that stay; where
no single one is, the biggest ones until it fits. If the rack has a circuit with room for them, it is named
too. For a supply the rating is named that would be enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from labctl.domain.budget import SLACK_W, Budget, Line, Meter, Rack, chain, read

_NAMED = 6


@dataclass(frozen=True, slots=True)
class Shortage:
    """A meter that no cap can bring inside its limit, and what would.

    ``short_w`` is by how much it is over with every card at its lowest cap, ``base_w`` what it bears that is
    no card, ``needed_w`` the rating that would be enough for a supply. ``move`` names the hosts that have to
    go to another circuit, ``to`` a circuit of this rack that has room for them ("" if none has);
    ``then_cap`` says that those which stay need lower caps, too.
    """

    meter: Meter
    short_w: int
    base_w: float
    needed_w: int
    move: tuple[str, ...] = ()
    to: str = ""
    then_cap: bool = False

    @property
    def text(self) -> str:
        """Say why no cap helps, and what does."""
        if self.base_w > self.meter.limit_w:
            more = ceil(self.base_w - self.meter.limit_w - SLACK_W)
            why = f"what is no card takes {self.base_w:.0f} W there, {more} W more than its limit"
        elif self.meter.load:
            why = f"with every card at its lowest cap it is still {self.short_w} W over"
        else:
            why = f"no card hangs on it, and it is {self.short_w} W over"
        return f"no cap can fit {self.meter.title}: {why}; {self._way_out}"

    @property
    def _way_out(self) -> str:
        if self.meter.kind == "psu":
            return f"hang something of it on another power supply, or use one of {self.needed_w} W"
        if not self.move:
            return "spread its power supplies over more circuits, or take load away"
        then = ", then cap the cards that stay" if self.then_cap else ""
        return (
            f"move {shortened(self.move)} to {f'circuit {self.to}' if self.to else 'another circuit'}{then}"
        )


def listed(words: Iterable[str]) -> str:
    """Write words as a person would: ``a``, ``a and b``, ``a, b and c``."""
    *front, last = words
    return f"{', '.join(front)} and {last}" if front else last


def shortened(words: Sequence[str]) -> str:
    """Write words as ``listed`` does, only the first few where there are many."""
    most = _NAMED if len(words) > _NAMED + 1 else len(words)
    return listed([*words[:most], *([f"{len(words) - most} more"] if most < len(words) else [])])


def shortage(rack: Rack, budget: Budget, lowest: Line) -> Shortage:
    """Return what is missing at a meter, given its line with every card at its lowest cap."""
    meter = lowest.meter
    needed = ceil(max(lowest.output_w, lowest.spike_w * meter.limit_w / meter.peak_w) - SLACK_W)
    base = sum(watts for _, watts in meter.base)
    if meter.kind == "psu":
        return Shortage(meter, lowest.over_w, base, needed)
    move, then_cap = _to_move(budget, meter)
    to = _room_for(rack, budget, meter, move) if move else ""
    return Shortage(meter, lowest.over_w, base, needed, move, to, then_cap)


@dataclass(frozen=True, slots=True)
class _Part:
    """What one host draws at a meter, in watts: for hours, and in a spike."""

    host: str
    steady: float
    spike: float


def _part(budget: Budget, meter: Meter, host: str, caps: Sequence[int]) -> _Part:
    base = sum(watts for name, watts in meter.base if name == host)
    own = [(index, factor) for index, factor in meter.load if budget.bunches[index].host == host]
    steady = sum(factor * caps[index] for index, factor in own)
    spike = sum(factor * caps[index] * budget.bunches[index].spike for index, factor in own)
    return _Part(host, base + steady, base + spike)


def _fits_without(line: Line, parts: Sequence[_Part]) -> bool:
    steady = line.output_w - sum(part.steady for part in parts)
    spike = line.spike_w - sum(part.spike for part in parts)
    return steady <= line.limit_w + SLACK_W and spike <= line.peak_w + SLACK_W


def _to_move(budget: Budget, meter: Meter) -> tuple[tuple[str, ...], bool]:
    """Return the hosts that have to go, none if all would have to, and whether the others need lower caps."""
    hosts = [host for host, _ in meter.base]
    if len(hosts) < 2:
        return (), False
    parts: list[_Part] = []
    for caps, then_cap in ((budget.declared, False), (budget.lowest, True)):
        line = read(budget, meter, caps)
        parts = sorted((_part(budget, meter, host, caps) for host in hosts), key=lambda part: part.steady)
        enough = next((part.host for part in parts if _fits_without(line, [part])), None)
        if enough is not None:
            return (enough,), then_cap
    moved: list[_Part] = []
    line = read(budget, meter, budget.lowest)
    while not _fits_without(line, moved):
        moved.append(parts.pop())
    return (tuple(part.host for part in moved), True) if parts else ((), False)


def _room_for(rack: Rack, budget: Budget, meter: Meter, hosts: Sequence[str]) -> str:
    """Return a circuit that can take those hosts besides what it and the circuits that feed it carry."""
    upstream = {circuit.name: circuit.upstream for circuit in rack.circuits}
    lines = {one.name: read(budget, one, budget.declared) for one in budget.meters if one.kind == "circuit"}
    parts = [_part(budget, meter, host, budget.declared) for host in hosts]
    steady, spike = sum(part.steady for part in parts), sum(part.spike for part in parts)
    already = chain(upstream, meter.name)
    for name in upstream:
        way = chain(upstream, name)
        new = [lines[one] for one in way if one not in already]
        room = all(line.headroom_w >= steady and line.spike_headroom_w >= spike for line in new)
        if meter.name not in way and room and not lines[name].over_w:
            return name
    return ""
