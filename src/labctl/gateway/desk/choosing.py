"""Choose an upstream from the world as it was last seen.

The world may be a second old. Where it is wrong nobody is harmed: a lease is given or refused by the store
itself, and the world shows at once what it said then. While the store cannot be used, a host that never
sleeps counts as awake, and any other as it was seen last: the books know whose lease is held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from labctl.domain.budget import budget_of
from labctl.domain.gateway.picking import EASE, Ease, Option, has_room, line_s, ordered
from labctl.domain.gateway.sticky import Sticky, marks_of
from labctl.domain.gateway.table import Table
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.waking import COLD_TIMES
from labctl.gateway.desk import reasons
from labctl.gateway.desk.lanes import Place, Way
from labctl.gateway.desk.lives import Life
from labctl.gateway.desk.running import Running
from labctl.gateway.terms import Answer, Books, HostNow

Ranked = list[tuple[Option, Place]]


class Choosing:
    """Ranks the places of a way; ``mono`` is the loop's clock, ``wall`` seconds since 1970."""

    def __init__(
        self,
        table: Table,
        books: Books,
        running: Running,
        mono: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._hosts = {host.name: host for host in table.hosts}
        self._budget = budget_of(table.watts)
        self._books = books
        self._running = running
        self._mono = mono
        self._wall = wall
        self.sticky = Sticky()

    def now(self, name: str) -> HostNow:
        """Return a host as it is known now."""
        world = self._books.world
        known = world.hosts[name]
        if world.trouble and not self._hosts[name].sleeps:
            return replace(known, mode=Mode.READY)
        return known

    def in_vain(self, wished: HostNow) -> Answer | None:
        """Return why a host will not come, if it was ``wished`` when it was wished for; None: it may."""
        now = self.now(wished.name)
        if now.mode is Mode.FAILED and (wished.mode is not Mode.FAILED or wished.since != now.since):
            return reasons.wake_failed(now)
        if now.refused and EASE[now.mode] > Ease.WAKING:
            return reasons.must_not_wake(now, "")
        return None

    def ranked(self, life: Life, way: Way) -> Ranked:
        """Return who could serve a request, best first, without those that were left out."""
        key, out, now, places = life.key, life.out, self._mono(), way.places
        if out is not None:
            places = tuple(place for place in places if place not in out)
        if way.outside and (key is None or not key.outside):
            places = tuple(place for place in places if place.lane.host)
        if len(places) == 1:
            return [(self._option(0, places[0], "", now, alone=True), places[0])]
        last = self.sticky.last(self.marks(life, way))
        options = [self._option(at, place, last, now, alone=False) for at, place in enumerate(places)]
        return [(option, places[option.at]) for option in ordered(options)]

    def marks(self, life: Life, way: Way) -> Sequence[int]:
        """Return the marks of a request's conversation, which are looked for once."""
        if life.marks is None:
            ask = life.exchange.ask
            life.marks = marks_of(way.id, ask.named, ask.body) if way.id else ()
        return life.marks

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
        late = ease is Ease.WAKING and self._wall() - host.since > COLD_TIMES * host.comes_s
        return Option(at, ease, free, comes + place.loads_s, watts, fits=fits, avoided=avoided, late=late)
