"""``Books`` over a store: look and beat at each tick, take in what came back, and tell who waits.

A tick asks for one look, unless one is under way; each ``BEAT_S`` the look begins with a beat. While the
store cannot be used each look does, so that the first that gets through is noticed within a tick. Only a
look that could both write and read ends a trouble.

What is said of the store between two looks is believed at once: a lease that was refused shows the mode that
the store has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType

from labctl.domain.gateway.table import Table
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.terms import Known
from labctl.gateway.books.seats import Errand, Seats
from labctl.gateway.books.sight import Sight
from labctl.gateway.books.tally import Tally, Totals
from labctl.gateway.books.thread import Buried, Clerk, StoreThread, attempted
from labctl.gateway.books.vigils import HostWaiter, Vigils
from labctl.gateway.terms import HostNow, Refused, World
from labctl.ports.store import Store

LOOK_S = 1.0
"""How often the store is looked at,"""
QUICK_S = 0.2
"""and how often while somebody waits for a host."""
BEAT_S = 5.0
"""How often this instance says that it lives; the controller buries one that did not for 30 s."""
FROZEN_S = 15.0
"""After such a standstill the store is asked whether we are still known, before anybody is let in."""
STUCK_S = 4.0
"""A store that takes longer than this to answer cannot be used."""
CLOSE_S = 5.0
MOST_NOTES = 200
KIND = "gateway"


@dataclass(frozen=True, slots=True)
class Around:
    """What books need from outside.

    ``open_store`` is called in the store's thread, and again after each failure of it. ``instance`` is a name
    that no other process has or had. ``wall`` and ``mono`` are clocks (the store's and the loop's). ``nudge``
    tells the controller at once that a host is wished for; it never waits and never fails. ``clerk`` is who
    works on the store; None: a thread of its own.
    """

    open_store: Callable[[], Store]
    instance: str
    wall: Callable[[], float]
    mono: Callable[[], float]
    nudge: Callable[[str], None] = lambda host: None
    clerk: Clerk | None = None


@dataclass(frozen=True, slots=True)
class _Looked:
    """What a look brought: the hosts, or why they could not be read; and what came of the beat, if any."""

    known: Known | Exception
    beat: Exception | None
    began: float
    beaten: bool


class StoreBooks:
    """``Books`` of one process; everything is called in the event loop."""

    def __init__(self, table: Table, around: Around) -> None:
        """Begin nothing yet."""
        hosts = {host.name: host for host in table.hosts}
        self._around = around
        self._clerk = around.clerk or StoreThread(around.open_store, around.mono)
        self._sight = Sight(hosts)
        self._world = World(MappingProxyType(self._sight.never()), around.mono())
        errand = Errand(self._clerk, around.wall, around.mono, self._failed, self._buried, self._learnt)
        self._seats = Seats(hosts.values(), around.instance, errand)
        self._vigils = Vigils(errand, lambda: self._world, around.nudge)
        self._tally = Tally(self._clerk, around.wall)
        self._looking = False
        self._known_to_store = False
        self._beaten = self._ticked = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._first: asyncio.Future[None] | None = None
        self._closing = False
        # The hot path, without a call in between.
        self.enter, self.leave = self._seats.enter, self._seats.leave

    async def start(self) -> None:
        """Begin, and return after the first look, whatever came of it, or when it is late."""
        first = self._first = asyncio.get_running_loop().create_future()
        self._run()
        await asyncio.wait([first], timeout=STUCK_S)

    async def close(self) -> None:
        """Give back all leases, end all wishes, and leave the store; waits ``CLOSE_S`` at most."""
        if self._timer is not None:
            self._timer.cancel()
        self._closing = True
        gone = asyncio.get_running_loop().create_future()

        def left(came: Exception | None) -> None:
            if not gone.done():
                gone.set_result(None)

        name, wall = self._around.instance, self._around.wall
        self._vigils.close()
        self._seats.close()
        self._clerk.do(lambda store: store.retire(name, now=wall()), left)
        self._clerk.stop()
        await asyncio.wait([gone], timeout=CLOSE_S)

    @property
    def world(self) -> World:
        """Return what was last seen; never waits."""
        return self._world

    async def lease(self, host: str) -> Refused | None:
        """Take a lease and count a request in under it; see ``Books``."""
        return await self._seats.lease(host)

    def want(self, host: str, by: str, why: str, *, until: float) -> HostWaiter:
        """Wish that a host be awake, and wait for it; see ``Books``."""
        quiet = not self._vigils
        waiter = self._vigils.want(host, by, why, until)
        if quiet and self._timer is not None:
            self._again()  # from now on it is looked at more often
        return waiter

    def note(self, host: str, kind: str, text: str) -> None:
        """Write a line to the log that is kept; see ``Books``."""
        if self._world.trouble or self._clerk.waiting > MOST_NOTES:
            return
        now = self._around.wall()
        self._clerk.do(lambda store: store.happen(host, kind, text, now=now), _whatever)

    def count_tokens(self, totals: Totals) -> None:
        """Write the tokens that are new since the last time, by the hour; see ``tally``."""
        self._tally.note(totals)

    # -- ticks

    def _run(self) -> None:
        self.tick()
        self._again()

    def _again(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        pause_s = QUICK_S if self._vigils else LOOK_S
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._run)

    def tick(self) -> None:
        """Do what is due; called by a timer of the loop, and by tests."""
        now = self._around.mono()
        if now - self._ticked > FROZEN_S and self._known_to_store:
            self._seats.doubt(whether=True)
            self._beaten = float("-inf")
        self._ticked = now
        self._seats.sure_until = now + FROZEN_S
        since = self._clerk.busy_since
        if since is not None and now - since > STUCK_S:
            self._failed("the store does not answer")
        if not self._looking:  # before all else: without being known no lease is given
            self._look(beat=bool(self._world.trouble) or now - self._beaten >= BEAT_S)
        self._vigils.tick()
        self._seats.tick()

    def _look(self, *, beat: bool) -> None:
        self._looking = True
        name, around, register = self._around.instance, self._around, not self._known_to_store

        def work(store: Store) -> _Looked:
            began, now = around.mono(), around.wall()

            def say(store: Store) -> None:
                if register:
                    store.register(name, KIND, now=now)
                else:
                    store.beat(name, now=now)

            said = attempted(lambda: store, say) if beat or register else None
            known = attempted(lambda: store, lambda store: store.known(now=now))
            return _Looked(known, said, began, beat or register)

        self._clerk.do(work, self._looked)

    def _looked(self, came: _Looked | Exception) -> None:
        self._looking = False
        if self._closing:
            return
        if isinstance(came, Exception):
            self._failed(str(came))
        else:
            self._take_in(came)
        if self._first is not None and not self._first.done():
            self._first.set_result(None)

    def _take_in(self, came: _Looked) -> None:
        known, wrote = came.known, came.beaten and came.beat is None
        if isinstance(came.beat, Buried):
            self._buried()
        elif came.beat is not None:
            self._failed(str(came.beat))
        elif wrote:
            self._known_to_store, self._beaten = True, came.began
        if isinstance(known, Exception):
            self._failed(str(known))
            return
        self._saw(known, came.began)
        if wrote:
            self._seats.doubt(whether=False)
            if self._world.trouble:
                self._trouble("")
            self._seats.tidy()
        self._vigils.tick()
        self._seats.tick()

    # -- news

    def _saw(self, known: Known, began: float) -> None:
        before = self._world.hosts
        hosts = self._sight.look(known, self._around.wall())
        changed = {name: now for name, now in hosts.items() if before[name] is not now}
        shown = MappingProxyType(hosts) if changed else before
        self._world = World(shown, began, self._world.trouble, known.paused)
        if changed:
            self._seats.look(changed)
        self._vigils.look(known)
        if changed:
            self._vigils.tell(changed)

    def _learnt(self, host: str, mode: Mode, because: str) -> None:
        """Believe what the store said of a host besides a look."""
        world = self._world
        now = world.hosts[host]
        if now.mode is mode:
            return
        told: dict[str, HostNow] = {
            **world.hosts,
            host: replace(now, mode=mode, since=self._around.wall(), because=because),
        }
        self._world = World(MappingProxyType(told), world.at, world.trouble, world.paused)
        self._seats.look({host: told[host]})
        self._vigils.tell({host: told[host]})

    def _failed(self, text: str) -> None:
        """Take in that the store cannot be used."""
        self._trouble(text or "the store cannot be used")

    def _trouble(self, text: str) -> None:
        world = self._world
        if text == world.trouble:
            return
        self._world = World(world.hosts, world.at, text, world.paused)
        self._seats.trouble(text)
        self._vigils.tell()

    def _buried(self) -> None:
        """The store took us for dead: begin a new life, in which hosts with requests get leases again."""
        if self._known_to_store:
            self._known_to_store = False
            self._seats.lost()
            self.tick()


def _whatever(came: Exception | None) -> None:
    """Take no notice of how it went."""
