"""Choose an upstream from the world as it was last seen.

The world may be a second old. Where it is wrong nobody is harmed: a lease is given or refused by the store
itself, and the world shows at once what it said then. While the store cannot be used, a host that never
sleeps counts as awake, and any other as it was seen last: the books know whose lease is held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from labctl.domain.budget import budget_of
from labctl.domain.gateway.picking import EASE, Ease, Option, has_room, line_s, ordered
from labctl.domain.gateway.sticky import Sticky
from labctl.domain.gateway.table import Table
from labctl.domain.sleep.lifecycle import Mode
from labctl.gateway.desk.lanes import Place, Way
from labctl.gateway.desk.lives import Life
from labctl.gateway.desk.running import Running
from labctl.gateway.terms import Books, HostNow

Ranked = list[tuple[Option, Place]]


class Choosing:
    """Ranks the places of a way; ``mono`` is the loop's clock."""

    def __init__(self, table: Table, books: Books, running: Running, mono: Callable[[], float]) -> None:
        self._hosts = {host.name: host for host in table.hosts}
        self._budget = budget_of(table.watts)
        self._books = books
        self._running = running
        self._mono = mono
        self.sticky = Sticky()

    def now(self, name: str) -> HostNow:
        """Return a host as it is known now."""
        world = self._books.world
        known = world.hosts[name]
        if world.trouble and not self._hosts[name].sleeps:
            return replace(known, mode=Mode.READY)
        return known

    def ranked(self, life: Life, way: Way) -> Ranked:
        """Return who could serve a request, best first, without those that were left out."""
        key, out, now = life.key, life.out, self._mono()
        places = [
            (at, place)
            for at, place in enumerate(way.places)
            if (out is None or place not in out) and (place.lane.host or (key is not None and key.outside))
        ]
        if len(places) == 1:
            return [(self._option(0, places[0][1], "", now, alone=True), places[0][1])]
        ask = life.exchange.ask
        last = self.sticky.last(way.id, ask.named, ask.body) if way.id else ""
        found = {
            option.at: option for option in (self._option(*one, last, now, alone=False) for one in places)
        }
        by_place = dict(places)
        return [(option, by_place[option.at]) for option in ordered(list(found.values()))]

    def fits(self, host: str) -> bool:
        """Return whether the power budget has room for a host's wake now."""
        if not self._budget.meters:
            return True
        modes: Mapping[str, Mode] = {name: self.now(name).mode for name in self._hosts}
        return has_room(self._budget, modes, host)

    def _option(self, at: int, place: Place, last: str, now: float, *, alone: bool) -> Option:
        lane = place.lane
        slots, avoided = lane.slots, now < lane.avoid_until
        free = slots.free()
        line = 0.0 if free else line_s(slots.waiting, slots.limit, lane.usual_s)
        sticks = bool(last) and last == lane.upstream.name
        if not lane.host:
            return Option(at, Ease.AWAKE, free, line, 0.0, slots.running, sticks, avoided=avoided)
        host = self.now(lane.host)
        ease = EASE[host.mode]
        if ease is Ease.AWAKE:
            if not place.loads_s or place.asked_as in lane.loaded:
                ease = Ease.LOADED
            if place.loads_s and not alone:
                self._running.look(lane, now)
            return Option(at, ease, free, line, 0.0, slots.running, sticks, avoided=avoided)
        comes = host.left_s or host.comes_s if ease is Ease.WAKING else host.comes_s
        fits = alone or ease is not Ease.ASLEEP or self.fits(lane.host)
        watts = self._hosts[lane.host].watts
        return Option(at, ease, free, comes + place.loads_s, watts, fits=fits, avoided=avoided)
