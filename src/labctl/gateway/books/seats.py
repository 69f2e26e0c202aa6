"""Leases: one for each host and process, counted here: of many requests only the first asks the store.

A seat is *open* while a request may be counted in without asking anybody: we hold a lease, and the host's
mode still admits. A lease is kept for a while after the last request; it is given back by a piece of work
that the store gets before any later one to take it again.

When unsure: a lease that the store may have given while it failed is given back when it works again. A lease
that it took from us (we were frozen, and taken for dead) is gone for everybody at once, and taken again for
hosts with requests. After a long standstill of this process nothing is open until the store has said that we
are still known; each request looks itself whether there was one, since what came meanwhile is read before any
timer runs.

While the store cannot be used, what is open stays open: whoever would put the host to sleep cannot either,
and the host itself looks before it sleeps. So are hosts that are never put to sleep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf

from labctl.domain.gateway.table import Host
from labctl.domain.sleep.lifecycle import ADMITS, Mode
from labctl.gateway.books.thread import Buried, Clerk
from labctl.gateway.terms import HostNow, Refused
from labctl.ports.store import Lease, Store

LINGER_S = 2.0
"""How long a lease is kept after the last request, so that one after the other takes it once."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What leases and wishes are made with.

    ``failed`` hears why the store could not be used, ``buried`` that it took us for dead, and ``learnt`` in
    which mode it found a host, and why.
    """

    clerk: Clerk
    wall: Callable[[], float]
    mono: Callable[[], float]
    failed: Callable[[str], None]
    buried: Callable[[], None]
    learnt: Callable[[str, Mode, str], None]


class _Seat:
    """A host as far as leases go; ``mode`` is None until the store was looked at."""

    __slots__ = ("count", "host", "idle_at", "lease", "mode", "open", "sleeps", "takers", "taking")

    def __init__(self, host: Host) -> None:
        self.host, self.sleeps = host.name, host.sleeps
        self.mode: Mode | None = None
        self.lease: Lease | None = None
        self.taking = False
        self.open = False
        self.count = 0
        self.idle_at = 0.0
        self.takers: list[asyncio.Future[Refused | None]] = []


class Seats:
    """All leases of this process."""

    def __init__(self, hosts: Iterable[Host], instance: str, errand: Errand) -> None:
        self._errand, self._instance, self._mono = errand, instance, errand.mono
        self._seats = {host.name: _Seat(host) for host in hosts}
        self._trouble = ""
        self._doubt = False
        self.sure_until = inf
        """Until when (mono) leases are relied on without another tick."""
        self.untidy = False
        """Whether the store may have leases of ours that we do not know of."""

    # -- requests

    def enter(self, host: str) -> bool:
        """Count a request in where its host is open; see ``Books``."""
        seat = self._seats.get(host)
        if seat is None or not seat.open or self._mono() > self.sure_until:
            return False
        seat.count += 1
        return True

    async def lease(self, host: str) -> Refused | None:
        """Count a request in, with a new lease where there is none; see ``Books``."""
        seat = self._seats.get(host)
        if seat is None:
            return Refused(Mode.UNKNOWN, f"the gateway's table has no host {host}")
        if self._mono() > self.sure_until:
            self.doubt(whether=True)  # until the tick that is late has looked
        while not seat.open:
            refused = self._refused(seat) or await self._taken(seat)
            if refused is not None:
                return refused
        # Only now: whoever was cancelled while waiting is not counted.
        seat.count += 1
        return None

    def leave(self, host: str) -> None:
        """Count a request out; see ``Books``."""
        seat = self._seats[host]
        if not seat.count:
            raise RuntimeError(f"host {host}: more requests left than came")
        seat.count -= 1
        if not seat.count:
            seat.idle_at = self._errand.mono()

    def _refused(self, seat: _Seat) -> Refused | None:
        """Return why nobody need ask the store, or None."""
        if self._trouble:
            return Refused(None, self._trouble)
        if seat.lease is not None and seat.mode is not None and seat.mode not in ADMITS:
            return Refused(seat.mode, f"it is {seat.mode}")
        return None

    async def _taken(self, seat: _Seat) -> Refused | None:
        """Wait until the store has said whether we have a lease; any number wait for one answer."""
        taker: asyncio.Future[Refused | None] = asyncio.get_running_loop().create_future()
        seat.takers.append(taker)
        self._take(seat)
        try:
            return await taker
        finally:
            with suppress(ValueError):
                seat.takers.remove(taker)

    # -- the store

    def _take(self, seat: _Seat) -> None:
        if seat.taking or seat.lease is not None:
            return
        seat.taking = True
        host, wall = seat.host, self._errand.wall

        def work(store: Store) -> Lease | Mode:
            return store.take_lease(self._instance, host, now=wall())

        self._errand.clerk.do(work, lambda came: self._took(seat, came))

    def _took(self, seat: _Seat, came: Lease | Mode | Exception) -> None:
        seat.taking = False
        if isinstance(came, Lease):
            seat.lease, seat.idle_at = came, self._errand.mono()
            self._errand.learnt(seat.host, Mode.READY, "a request came")
            self._judge(seat)
        elif isinstance(came, Mode):
            self._errand.learnt(seat.host, came, f"it is {came}")
            _tell(seat, Refused(came, f"it is {came}"))
        elif isinstance(came, Buried):
            self._errand.buried()  # whoever waits gets a lease of the next life
        else:
            self.untidy = True
            self._errand.failed(str(came))
            _tell(seat, Refused(None, str(came)))

    def _give_back(self, seat: _Seat, lease: Lease) -> None:
        seat.lease = None
        self._judge(seat)
        wall = self._errand.wall
        self._errand.clerk.do(lambda store: store.release(lease, now=wall()), self._gave_back)

    def _gave_back(self, came: Exception | None) -> None:
        if isinstance(came, Exception):
            self.untidy = True
            self._errand.failed(str(came))

    def tidy(self) -> None:
        """Have the store forget leases that we do not know of, now that it works again."""
        if not self.untidy or any(seat.taking for seat in self._seats.values()):
            return
        self.untidy = False
        kept = tuple(seat.lease for seat in self._seats.values() if seat.lease is not None)
        self._errand.clerk.do(lambda store: store.keep_leases(self._instance, kept), self._gave_back)

    # -- news

    def look(self, hosts: Mapping[str, HostNow]) -> None:
        """Take in the modes that the store has."""
        for name, now in hosts.items():
            seat = self._seats[name]
            if seat.mode is not now.mode:
                seat.mode = now.mode
                self._judge(seat)

    def trouble(self, text: str) -> None:
        """Take in why the store cannot be used; empty: it can."""
        if text == self._trouble:
            return
        self._trouble = text
        for seat in self._seats.values():
            self._judge(seat)
            if text:
                _tell(seat, Refused(None, text))

    def doubt(self, *, whether: bool) -> None:
        """Rely on no lease, since this process stood still for long; or (not) rely on them again."""
        if whether is not self._doubt:
            self._doubt = whether
            for seat in self._seats.values():
                self._judge(seat)

    def lost(self) -> None:
        """Take in that the store took all leases from us."""
        for seat in self._seats.values():
            seat.lease = None
            self._judge(seat)

    def close(self) -> None:
        """Let nobody in any more."""
        self._doubt = True
        for seat in self._seats.values():
            seat.lease, seat.sleeps = None, True
            self._judge(seat)
        self.trouble("the gateway is about to end")

    def tick(self) -> None:
        """Give back what nobody uses, and take for whoever is in or waits without a lease."""
        now = self._errand.mono()
        for seat in self._seats.values():
            lease = seat.lease
            if lease is not None:
                # While the store cannot take it back, it is what the host is served on by.
                if not seat.count and now - seat.idle_at >= LINGER_S and not self._trouble:
                    self._give_back(seat, lease)
            elif not self._trouble and (seat.takers or (seat.count and seat.mode in ADMITS)):
                self._take(seat)

    def _judge(self, seat: _Seat) -> None:
        """Open or close a seat after whatever happened to it, and tell who waits for that."""
        sure = seat.lease is not None and not self._doubt
        never = bool(self._trouble) and not seat.sleeps
        seat.open = (sure and seat.mode in ADMITS) or (never and (seat.mode is None or seat.mode in ADMITS))
        if not seat.takers:
            return
        if seat.open:
            _tell(seat, None)
        elif sure and seat.mode is not None:
            _tell(seat, Refused(seat.mode, f"it is {seat.mode}"))


def _tell(seat: _Seat, word: Refused | None) -> None:
    takers, seat.takers = seat.takers, []
    for taker in takers:
        if not taker.done():
            taker.set_result(word)
