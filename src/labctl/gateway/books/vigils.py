"""Wishes: one for each host, however many wait for it.

A wish lives in the store as long as the most patient of those who waited when it was made; it is made anew
when that is nearly over and somebody still waits, or when somebody took it back. It ends with the last who
waits. Should this process die, it ends by itself. How long somebody waits is counted by the monotonic clock,
and told to the store in its own: a wall clock that is set (a small board does when it has found the time)
ends nobody's wish before its time.

Who waits is told of changes, one after the other and none twice; nobody misses the one that came between two
calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from labctl.domain.sleep.lifecycle import ADMITS
from labctl.domain.sleep.terms import Known, Wish
from labctl.gateway.books.seats import Errand
from labctl.gateway.books.thread import Denied
from labctl.gateway.terms import HostNow, World
from labctl.ports.store import Store

RENEW_S = 10.0
"""So long before its end a wish is made anew."""
SLACK_S = 1.0
"""What a wall clock that is slowly set right makes of a time is no reason for another wish."""


class HostWaiter:
    """See ``Waiter``."""

    __slots__ = ("_future", "_said", "_vigil", "until")

    def __init__(self, vigil: Vigil, until: float) -> None:
        """Wait; ``until`` is mono."""
        self._vigil: Vigil | None = vigil
        self.until = until
        self._said = vigil.news()
        self._future: asyncio.Future[None] | None = None

    async def changed(self, within_s: float) -> HostNow:
        """Return the host as soon as something of it changed; see ``Waiter``."""
        vigil = self._vigil
        if vigil is None:
            raise RuntimeError("who has left is told nothing")
        if vigil.news() == self._said:
            loop = asyncio.get_running_loop()
            future = self._future = loop.create_future()
            late = loop.call_later(within_s, self.wake)
            try:
                await future
            finally:
                late.cancel()
                # Who was cancelled comes here late: then it may be the next wait's already.
                if self._future is future:
                    self._future = None
        self._said = vigil.news()
        return vigil.now()

    def wake(self) -> None:
        """Have it look again."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def leave(self) -> None:
        """Wait no more; see ``Waiter``."""
        vigil, self._vigil = self._vigil, None
        if vigil is not None:
            self.wake()
            vigil.left(self)


class Vigil:
    """All who wait for one host, and their wish."""

    def __init__(self, host: str, errand: Errand, world: Callable[[], World], nudge: Callable[[str], None]):
        self.host = host
        self._errand, self._world, self._nudge = errand, world, nudge
        self._waiters: set[HostWaiter] = set()
        self._wish: Wish | None = None
        self._wishing = False
        self._denied = False
        self._by, self._why = "", ""
        self._told = self.news()

    def join(self, by: str, why: str, until: float) -> HostWaiter:
        """Return a waiter; the first of them says who wants it and why. ``until`` is a wall time."""
        waiter = HostWaiter(self, self._errand.mono() + until - self._errand.wall())
        if not self._waiters:
            self._by, self._why, self._denied = by, why, False
        self._waiters.add(waiter)
        self.keep()
        return waiter

    def left(self, waiter: HostWaiter) -> None:
        """Take in that somebody waits no more."""
        self._waiters.discard(waiter)
        if not self._waiters and self._wish is not None:
            wish, self._wish = self._wish, None
            self._end(wish)

    def close(self) -> None:
        """Let all go who wait."""
        for waiter in tuple(self._waiters):
            waiter.leave()

    @property
    def over(self) -> bool:
        """Return whether nobody waits, and nothing of it is on its way to the store."""
        return not self._waiters and not self._wishing

    def now(self) -> HostNow:
        """Return the host."""
        return self._world().hosts[self.host]

    def news(self) -> tuple[object, ...]:
        """Return what counts as a change."""
        world = self._world()
        now = world.hosts[self.host]
        return now.mode, now.because, now.refused, world.trouble

    def look(self, known: Known) -> None:
        """Take in what the store has: somebody may have taken the wish back."""
        row, wish = known.hosts.get(self.host), self._wish
        if row is None or wish is None or row.mode in ADMITS:
            return
        if all(one.id != wish.id for one in row.wishes):
            self._wish = None

    def tell(self) -> None:
        """Have all who wait look again, if there is news for them."""
        news = self.news()
        if news != self._told:
            self._told = news
            for waiter in tuple(self._waiters):
                waiter.wake()

    def keep(self) -> None:
        """Have a wish in the store for as long as somebody waits."""
        if not self._waiters or self._wishing or self._denied or self._world().trouble:
            return
        now = self._errand.wall()
        until = now + max(waiter.until for waiter in self._waiters) - self._errand.mono()
        wish = self._wish
        if until <= now or (wish is not None and wish.until > min(until - SLACK_S, now + RENEW_S)):
            return
        if wish is None and self.now().mode in ADMITS:
            return  # it came, and the controller ended the wish
        self._wishing = True
        wanted = Wish(0, self.host, self._by, self._why, now, until)

        def work(store: Store) -> Wish:
            return store.wish(wanted, now=now)

        self._errand.clerk.do(work, self._wished)

    def _wished(self, came: Wish | Exception) -> None:
        self._wishing = False
        if isinstance(came, Denied):
            self._denied = True  # HostNow.refused says why
        elif isinstance(came, Exception):
            self._errand.failed(str(came))
        else:
            old, self._wish = self._wish, came
            self._nudge(self.host)
            if old is not None:
                self._end(old)
            if not self._waiters:
                self._wish = None
                self._end(came)

    def _end(self, wish: Wish) -> None:
        wall = self._errand.wall
        self._errand.clerk.do(lambda store: store.end_wish(wish.id, now=wall()), self._ended)

    def _ended(self, came: Exception | None) -> None:
        if isinstance(came, Exception):
            self._errand.failed(str(came))  # it ends by itself


class Vigils:
    """All hosts that somebody waits for."""

    def __init__(self, errand: Errand, world: Callable[[], World], nudge: Callable[[str], None]) -> None:
        self._errand, self._world, self._nudge = errand, world, nudge
        self._vigils: dict[str, Vigil] = {}

    def __bool__(self) -> bool:
        return bool(self._vigils)

    def want(self, host: str, by: str, why: str, until: float) -> HostWaiter:
        """Wish for a host, and wait for it; see ``Books``."""
        vigil = self._vigils.get(host)
        if vigil is None:
            vigil = self._vigils[host] = Vigil(host, self._errand, self._world, self._nudge)
        return vigil.join(by, why, until)

    def look(self, known: Known) -> None:
        """Take in what the store has."""
        for vigil in self._vigils.values():
            vigil.look(known)

    def tick(self) -> None:
        """Keep wishes, and forget who is not waited for."""
        for host, vigil in tuple(self._vigils.items()):
            if vigil.over:
                del self._vigils[host]
            else:
                vigil.keep()

    def tell(self, hosts: Mapping[str, object] | None = None) -> None:
        """Have who waits look again, for these hosts or (None) for all."""
        for host, vigil in self._vigils.items():
            if hosts is None or host in hosts:
                vigil.tell()

    def close(self) -> None:
        """End all wishes; who still waits is told of nothing any more."""
        for vigil in self._vigils.values():
            vigil.close()
