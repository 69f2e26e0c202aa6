"""Wait for somebody who serves: for a lease, a slot, a host.

One round, again and again until a place is found or a reason:

1. Rank who could serve. None left: the last resort, or the reasons why not.
2. The best is awake with a slot free: take slot and lease. No lease: the store said why; next round.
3. Time is up: the last resort, or refuse, with what was waited for.
4. Whoever is awake and full: wait in the lines of all of them. Whichever moves on first serves. One that has
   room is none of those: it did not answer a moment ago, and nobody would call up who waits there.
5. The best has to come: wish for it, if the key may wake it. The wish ends when the search does, after the
   lease was taken, so that nobody puts the host to sleep between them.
6. Sleep until a slot is granted, the host has changed, there is something to say to the client, or a while is
   over.

A host that was waited for and failed is left out with its reason, and the next one is woken. A wake counts
for the key of whoever wishes for it first in this process; others only join.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from labctl.domain.gateway import waiting
from labctl.domain.gateway.picking import Ease, Option
from labctl.domain.gateway.table import Key, Waiting
from labctl.gateway.desk import presenting, reasons
from labctl.gateway.desk.choosing import Ranked
from labctl.gateway.desk.lanes import Lane, Place, Way
from labctl.gateway.desk.lives import Life
from labctl.gateway.terms import Answer, HostNow, Waiter

if TYPE_CHECKING:
    from labctl.gateway.desk.front import FrontDesk


class Search:
    """One request's wait; ``run`` is its task."""

    __slots__ = (
        "_began",
        "_counted",
        "_deadline",
        "_desk",
        "_first",
        "_granted",
        "_key",
        "_life",
        "_lines",
        "_pulse",
        "_said_at",
        "_style",
        "_waiter",
        "_way",
        "_wished",
        "_wished_at",
        "_woke_s",
    )

    def __init__(self, desk: FrontDesk, life: Life, way: Way, key: Key) -> None:
        named = life.exchange.ask.named
        self._desk, self._life, self._way, self._key = desk, life, way, key
        self._began = self._wished_at = desk.mono()
        self._deadline = life.since + waiting.patience_s(named, way.wait_s)
        self._style = waiting.way_of(named, way.model, key)
        self._said_at = self._woke_s = 0.0
        self._lines: list[Lane] = []
        self._granted: Lane | None = None
        self._pulse: asyncio.Future[None] | None = None
        self._waiter: Waiter | None = None
        self._wished: HostNow | None = None
        self._first = self._counted = False

    def granted(self, lane: Lane) -> None:
        """Have a slot, by whoever left it; it is no longer waited for elsewhere."""
        self._granted = lane
        self._leave_lines(but=lane)
        if self._pulse is not None and not self._pulse.done():
            self._pulse.set_result(None)

    async def run(self) -> None:
        """Search, and say what came of it."""
        life = self._life
        try:
            found = await self._search()
        except Exception as error:
            self._desk.broke(error)
            found = reasons.our_bug()
        finally:
            life.queued_s += self._desk.mono() - self._began - self._woke_s
            life.woke_s += self._woke_s
            self._let_go()
        life.task = None
        try:
            if isinstance(found, Answer):
                self._desk.answer(life, found)
            else:
                self._desk.send(life, found)
        except Exception as error:  # else it would wait for ever, with its slot and its lease
            self._desk.broke(error)
            self._desk.answer(life, reasons.our_bug())

    async def _search(self) -> Place | Answer:
        while True:
            if (place := await self._slot()) is not None:
                return place
            ranked = self._ranked()
            if not ranked:
                return await self._last_resort() or reasons.none_left(self._life, self._way)
            option, best = ranked[0]
            if option.ease <= Ease.AWAKE:
                self._woke(best.lane.host, came=True)  # from here on it waits for a slot
            if option.ease <= Ease.AWAKE and option.free:
                best.lane.slots.enter()
                if await self._lease(best):
                    return best
                continue
            if self._desk.mono() >= self._deadline:
                return await self._last_resort() or self._too_late(option, best)
            self._line_up([place for other, place in ranked if other.ease <= Ease.AWAKE and not other.free])
            if option.ease > Ease.AWAKE and self._wish(option, best) and self._style is Waiting.REFUSE:
                return self._desk.hold(self._key, self._way, best, option.seconds)
            if self._life.out is None or best not in self._life.out:
                await self._rest(option, best)

    # --- slots and leases

    async def _slot(self) -> Place | None:
        """Return the place whose slot was granted, if its lease is to be had."""
        lane = self._granted
        if lane is None:
            return None
        place = next(place for place in self._way.places if place.lane is lane)
        self._granted = None
        return place if await self._lease(place) else None

    async def _lease(self, place: Place) -> bool:
        """Take the lease that belongs to a slot; without it the slot is given back."""
        lane = place.lane
        if not lane.host:
            return True
        try:
            refused = await self._desk.books.lease(lane.host)
        except BaseException:
            lane.free()
            raise
        if refused is None:
            self._woke(lane.host, came=True)
            return True
        lane.free()
        if refused.mode is None:
            self._life.leave_out(place, reasons.store_unusable(lane.host, refused.because))
        return False

    def _line_up(self, places: list[Place]) -> None:
        """Wait in the lines of all of them."""
        wanted = [place.lane for place in places]
        for lane in self._lines:
            if lane not in wanted:
                lane.slots.give_up(self._key.name, self)
        self._lines = [lane for lane in self._lines if lane in wanted]
        for place in places:
            if place.lane not in self._lines:
                if place.lane.slots.line_up(self._key.name, self):
                    self._lines.append(place.lane)
                else:
                    self._life.leave_out(place, reasons.line_full(place.lane, self._key.name))

    def _leave_lines(self, but: Lane | None = None) -> None:
        for lane in self._lines:
            if lane is not but:
                lane.slots.give_up(self._key.name, self)
        self._lines = []

    async def _last_resort(self) -> Place | None:
        """Return a place outside of the rack, if this key may use one and one has a slot."""
        if not self._key.outside:
            return None
        out = self._life.out or {}
        for place in self._way.last:
            if place not in out and place.lane.slots.free():
                place.lane.slots.enter()
                return place
        return None

    # --- hosts

    def _ranked(self) -> Ranked:
        """Return who could serve, without a host that was waited for in vain."""
        while True:
            ranked = self._desk.choosing.ranked(self._life, self._way)
            wished = self._wished
            if wished is None or (no := self._desk.choosing.in_vain(wished)) is None:
                return ranked
            self._woke(wished.name, came=False)
            for _, place in ranked:
                if place.lane.host == wished.name:
                    self._life.leave_out(place, no)
            self._unwish()

    def _wish(self, option: Option, place: Place) -> bool:
        """Wish for a host and wait for it, or leave its place out."""
        host, desk = self._desk.choosing.now(place.lane.host), self._desk
        if self._wished is not None and self._wished.name == host.name:
            return True
        if self._wished is not None:
            self._woke(self._wished.name, came=False)  # it takes too long
        self._unwish()
        no = self._may_not(host, option)
        if no is not None:
            self._life.leave_out(place, no)
            return False
        what = self._way.id or self._life.path.partition("?")[0]
        until = desk.wall() + max(0.0, self._deadline - desk.mono())
        by, why = f"gateway {self._key.name}", f"{what} was asked for"
        self._waiter = desk.books.want(host.name, by, why, until=until)
        self._first = not desk.wanted.get(host.name)
        desk.wanted[host.name] = desk.wanted.get(host.name, 0) + 1
        self._wished, self._wished_at, self._counted = host, desk.mono(), False
        return True

    def _may_not(self, host: HostNow, option: Option) -> Answer | None:
        world = self._desk.books.world
        if world.trouble:
            return reasons.store_unusable(host.name, world.trouble)
        if not self._life.wakes:
            return reasons.does_not_wake(host)
        if option.ease is Ease.WAKING:
            return None  # others woke it, or it comes by itself
        if host.refused or world.paused:
            return reasons.must_not_wake(host, world.paused)
        if self._desk.wanted.get(host.name):
            return None  # others in this process wish for it already
        return self._desk.access.may_wake(self._key, host.name, self._desk.mono())

    def _unwish(self) -> None:
        if self._waiter is not None and self._wished is not None:
            self._waiter.leave()
            self._desk.unwanted(self._wished.name)
        self._waiter = self._wished = None

    def _woke(self, host: str, *, came: bool) -> None:
        """Count the wake that was waited for, when it ends; once."""
        if self._counted or self._wished is None or self._wished.name != host:
            return
        self._counted = True
        seconds = self._desk.mono() - self._wished_at
        self._woke_s += seconds
        if self._first:
            self._desk.meters.wake(host, self._key.name, seconds, came=came)

    # --- time

    async def _rest(self, option: Option, best: Place) -> None:
        """Sleep until something may have changed, and tell the client how far it is."""
        desk, limits = self._desk, self._desk.limits
        speaks = self._life.exchange.ask.stream and self._style in (Waiting.COMMENTS, Waiting.LOADING)
        ends = min(self._deadline, desk.mono() + limits.say_every_s)
        if speaks:
            after = self._said_at + limits.say_every_s if self._said_at else self._began + limits.say_after_s
            ends = min(ends, after)
        if self._granted is None:
            await self._sleep(max(0.0, ends - desk.mono()))
        if speaks and self._granted is None and after <= desk.mono() < self._deadline:
            self._say(option, best)

    async def _sleep(self, seconds: float) -> None:
        if self._waiter is not None and not self._lines:
            await self._waiter.changed(seconds)
            return
        self._pulse = asyncio.get_running_loop().create_future()
        waits: set[asyncio.Future[Any]] = {self._pulse}
        if self._waiter is not None:
            waits.add(asyncio.ensure_future(self._waiter.changed(seconds)))
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
            self._pulse = None

    def _say(self, option: Option, best: Place) -> None:
        exchange, desk = self._life.exchange, self._desk
        self._said_at = desk.mono()
        self._life.spoke = True
        if not exchange.begun:
            exchange.begin_stream()
        text = self._standing(option, best)
        exchange.say(presenting.line(exchange.ask, self._style, text, desk.wall()))

    def _standing(self, option: Option, best: Place) -> str:
        """Return how far the wait is, as a client reads it."""
        lane = best.lane
        if option.ease <= Ease.AWAKE:
            return waiting.of_line(lane.upstream.name, lane.slots.ahead(self._key.name, self))
        host = self._desk.choosing.now(lane.host)
        left = host.left_s if option.ease is Ease.WAKING else host.comes_s
        return waiting.of_host(host.name, host.mode, left)

    def _too_late(self, option: Option, best: Place) -> Answer:
        self._woke(best.lane.host, came=False)
        trouble = self._desk.books.world.trouble
        if trouble and best.lane.host:
            return reasons.store_unusable(best.lane.host, trouble)
        standing = self._standing(option, best)
        waited = self._desk.mono() - self._life.since
        return reasons.too_late(best.lane, standing, waited, option)

    def _let_go(self) -> None:
        self._leave_lines()
        self._unwish()
        if self._granted is not None:
            self._granted.free()
            self._granted = None
