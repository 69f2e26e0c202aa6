"""A store with hosts, books over it, and clocks that a test turns.

``Rounds`` does the store's work when it is told to, one piece after the other, so that a test says what
happens between asking and hearing. What the event loop hears comes at once and in order, as from the thread.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from labctl.adapters.store import SqlStore, store_at
from labctl.adapters.store.sqlite import SqliteFile
from labctl.domain.budget import Rack as WattRack
from labctl.domain.gateway.table import Host, Table
from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.domain.sleep.terms import How, Order
from labctl.gateway.books import Around, StoreBooks
from labctl.gateway.books.thread import attempted
from labctl.ports.store import Store

NOW = 1_800_000_000.0
T = TypeVar("T")

# How to come to each mode from UNKNOWN.
PATHS: dict[Mode, tuple[Event, ...]] = {
    Mode.UNKNOWN: (),
    Mode.VERIFYING: (Event.SEEN,),
    Mode.READY: (Event.SEEN, Event.PASSED),
    Mode.DRAINING: (Event.SEEN, Event.PASSED, Event.WENT_QUIET),
    Mode.SUSPENDING: (Event.SEEN, Event.PASSED, Event.WENT_QUIET, Event.ORDERED),
    Mode.ASLEEP: (Event.DARK,),
    Mode.WAKING: (Event.WISHED,),
    Mode.FAILED: (Event.SEEN, Event.BROKEN),
}


class Unflushed(SqliteFile):
    """A store that does not wait for the disk: nobody takes the power away here."""

    def begin(self, *, write: bool, sure: bool) -> dict[str, Any]:
        return super().begin(write=write, sure=False)


class Rounds:
    """A ``Clerk`` that works when it is told to; ``lag`` holds work back."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open = open_store
        self.asked: deque[Callable[[], None]] = deque()
        self.busy_since: float | None = None
        self.lag = False

    def do(self, work: Callable[[Store], T], done: Callable[[T | Exception], None]) -> None:
        self.asked.append(lambda: done(attempted(self._open, work)))
        if not self.lag:
            asyncio.get_running_loop().call_soon(self.round)

    @property
    def waiting(self) -> int:
        return len(self.asked)

    def round(self) -> None:
        """Do one piece of work."""
        if self.asked:
            self.asked.popleft()()

    def rounds(self) -> None:
        """Do all that was asked for, and all that is asked for meanwhile."""
        while self.asked:
            self.round()

    def stop(self) -> None:
        """Go on: others look at the store."""


@dataclass
class Clock:
    """Both clocks; they advance alike, but for what the wall clock was set by."""

    passed: float = 0.0
    set_by: float = 0.0

    def wall(self) -> float:
        return NOW + self.passed + self.set_by

    def mono(self) -> float:
        return 1000.0 + self.passed


def table_of(*hosts: Host) -> Table:
    return Table("desk", "127.0.0.1", 8080, (), (), (), hosts, WattRack(()))


def host(name: str = "gpu1", *, sleeps: bool = True, wakeable: bool = True) -> Host:
    return Host(name, wakeable, sleeps, boot_s=90.0)


@dataclass
class Site:
    """Books of one gateway, the store as others see it, and what was nudged."""

    store: SqlStore
    books: StoreBooks
    clerk: Rounds
    clock: Clock
    clerk_store: SqlStore
    """The store as the books have it."""
    nudged: list[str] = field(default_factory=list)

    def pass_s(self, seconds: float) -> None:
        """Let time pass, tick, and have all work done."""
        self.clock.passed += seconds
        self.books.tick()
        self.clerk.rounds()

    def row(self, name: str = "gpu1") -> Any:
        return self.store.known(now=self.clock.wall()).hosts[name]

    def leases(self, name: str = "gpu1") -> int:
        return int(self.row(name).claims.leases)

    def move(self, event: Event, name: str = "gpu1", because: str = "of a test") -> None:
        """Move a host as the leader does."""
        leading, row = self.store.leading(), self.row(name)
        assert leading is not None
        self.store.move(name, event, because, version=row.version, term=leading.term, now=self.clock.wall())

    def order(self, name: str = "gpu1") -> bool:
        """Order a draining host to sleep; return whether admission closed."""
        leading, row = self.store.leading(), self.row(name)
        assert leading is not None
        order = Order("f" * 32, How.SUSPEND, self.clock.wall(), 120.0)
        verdict = self.store.order(
            name, order, "idle", version=row.version, term=leading.term, now=self.clock.wall()
        )
        return bool(verdict)


@cache
def empty_store() -> bytes:
    """Return the file of an empty store: to make its tables takes longer than most tests."""
    with tempfile.TemporaryDirectory(prefix="labctl-books-") as name:
        path = Path(name) / "store.db"
        store_at(Unflushed(path), create=True).close()
        return path.read_bytes()


def bring(store: Store, name: str, mode: Mode) -> None:
    """Have a host in a mode."""
    leading = store.leading() or store.lead("one", over=None, now=NOW)
    assert leading is not None
    store.enlist([name], now=NOW)
    for event in PATHS[mode]:
        version = store.known(now=NOW).hosts[name].version
        if event is Event.ORDERED:
            order = Order("f" * 32, How.SUSPEND, NOW, 120.0)
            store.order(name, order, "idle", version=version, term=leading.term, now=NOW)
        else:
            store.move(name, event, "of a test", version=version, term=leading.term, now=NOW)


def site_at(folder: Path, modes: dict[str, Mode] | None = None, *hosts: Host, name: str = "gateway") -> Site:
    """Return a gateway over a new store whose hosts are in these modes; it has not looked yet."""
    path = folder / "store.db"
    path.write_bytes(empty_store())
    store = store_at(Unflushed(path, busy_s=0.02), create=False)
    modes = {"gpu1": Mode.READY} if modes is None else modes
    for one, mode in modes.items():
        bring(store, one, mode)
    return site_on(store, path, *(hosts or map(host, modes)), name=name)


def site_on(store: SqlStore, path: Path, *hosts: Host, name: str = "gateway") -> Site:
    """Return one more gateway on a store."""
    clock, nudged = Clock(), list[str]()
    own = store_at(Unflushed(path, busy_s=0.02), create=False)
    clerk = Rounds(lambda: own)
    around = Around(lambda: own, name, clock.wall, clock.mono, nudged.append, clerk)
    return Site(store, StoreBooks(table_of(*hosts), around), clerk, clock, own, nudged)
