"""Stores that cannot be used, the thread that touches them, and any order of events."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from books_kit import NOW, Clock, Site, host, site_at, table_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event as sqlalchemy_event

from labctl.domain.sleep.lifecycle import ADMITS, Event, Mode
from labctl.gateway.books import Around, StoreBooks
from labctl.gateway.books.seats import LINGER_S
from labctl.gateway.books.thread import Buried, Denied, Failed, StoreThread
from labctl.gateway.terms import Refused
from labctl.ports.store import Lease, StaleError, Store, StoreError

# --- faults ---


@contextmanager
def locked(site: Site, path: Path) -> Iterator[str]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield "it is locked by another program"


@contextmanager
def gone(site: Site, path: Path) -> Iterator[str]:
    path.rename(path.with_name("away"))
    yield "the file is gone"
    path.with_name("away").rename(path)


@contextmanager
def full(site: Site, path: Path) -> Iterator[str]:
    pages = {"most": 1}

    def limited(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages['most']}")

    engine = site.clerk_store._database.engine
    sqlalchemy_event.listen(engine, "connect", limited)
    site.clerk_store.close()
    with pytest.raises(StoreError):
        for _ in range(1000):
            site.clerk_store.happen("gpu1", "test", "x" * 900, now=NOW)
    yield "there is no space left for it"
    pages["most"] = 100_000
    site.clerk_store.close()


@contextmanager
def damaged(site: Site, path: Path) -> Iterator[str]:
    kept = path.with_name("kept")
    site.store.close()
    site.clerk_store.close()
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    shutil.copy(path, kept)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:200] + b"\xff" * (size - 200))
    yield ""
    site.clerk_store.close()
    kept.replace(path)


Fault = Callable[[Site, Path], Any]
HOSTS = {"gpu1": Mode.READY, "gpu2": Mode.READY, "nas": Mode.READY, "off": Mode.ASLEEP}


@pytest.mark.parametrize("fault", [locked, gone, damaged], ids=lambda fault: fault.__name__)
def test_a_store_that_cannot_be_used_refuses_all_but_what_is_safe_and_recovers_in_a_tick(
    tmp_path: Path, fault: Fault
) -> None:
    async def story(site: Site) -> None:
        site.books.tick()
        site.clerk.rounds()
        assert await site.books.lease("gpu1") is None
        with fault(site, tmp_path / "store.db") as says:
            site.books.want("off", "gateway ann", "m", until=NOW + 600)
            site.clerk.rounds()
            assert says in site.books.world.trouble
            refused = await site.books.lease("gpu2")
            assert refused == Refused(None, site.books.world.trouble)
            assert not site.books.enter("gpu2")
            assert await site.books.lease("off") == refused
            for _ in range(20):
                assert site.books.enter("gpu1")  # its lease is ours
                assert site.books.enter("nas")  # it never sleeps
                assert await site.books.lease("nas") is None
                site.pass_s(1.0)
                assert says in site.books.world.trouble
            site.books.note("gpu1", "wake", "is dropped")
            assert site.clerk.waiting == 0
        site.pass_s(1.0)
        assert site.books.world.trouble == ""
        assert [site.leases(name) for name in HOSTS] == [1, 0, 1, 0]
        assert len(site.row("off").wishes) == 1
        assert await site.books.lease("gpu2") is None

    site = site_at(tmp_path, HOSTS, host("gpu1"), host("gpu2"), host("nas", sleeps=False), host("off"))
    asyncio.run(story(site))


def test_a_full_store_gives_no_lease_and_says_why(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        site.books.tick()
        site.clerk.rounds()
        with full(site, tmp_path / "store.db") as says:
            waiter = site.books.want("off", "gateway ann", "m" * 5000, until=NOW + 600)
            site.clerk.rounds()
            assert says in site.books.world.trouble
            refused = await site.books.lease("gpu1")
            assert refused is not None and says in refused.because
        site.pass_s(1.0)
        assert site.books.world.trouble == ""
        assert await site.books.lease("gpu1") is None
        assert len(site.row("off").wishes) == 1
        waiter.leave()

    asyncio.run(story(site_at(tmp_path, {"gpu1": Mode.READY, "off": Mode.ASLEEP})))


def test_a_store_that_is_read_only_still_shows_modes(folder_of_nobody: Path) -> None:
    async def story(site: Site) -> None:
        path = folder_of_nobody / "store.db"
        site.books.tick()
        site.clerk.rounds()
        with as_nobody(folder_of_nobody, site):
            path.chmod(0o400)
            site.pass_s(1.0)
            refused = await site.books.lease("gpu1")
            assert refused is not None and "it cannot be written" in refused.because
            path.chmod(0o600)
            site.pass_s(1.0)
            assert site.books.world.trouble == ""
            assert await site.books.lease("gpu1") is None
            site.clerk_store.close()

    asyncio.run(story(site_at(folder_of_nobody)))


@pytest.fixture
def folder_of_nobody() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="labctl-books-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def as_nobody(folder: Path, site: Site) -> Iterator[None]:
    """Let root feel what a file's mode says; others feel it anyway."""
    site.store.close()
    site.clerk_store.close()
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.iterdir()):
        os.chown(path, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_leases_that_were_given_while_the_store_failed_are_given_back(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        site.books.tick()
        site.clerk.rounds()
        take = site.clerk_store.take_lease

        def breaks(instance: str, name: str, *, now: float) -> Lease | Mode:
            take(instance, name, now=now)
            raise StoreError("the connection broke during a commit")

        site.clerk_store.take_lease = breaks  # type: ignore[method-assign]
        refused = await site.books.lease("gpu1")
        assert refused == Refused(None, "the connection broke during a commit")
        assert site.leases() == 1
        site.clerk_store.take_lease = take  # type: ignore[method-assign]
        site.pass_s(1.0)
        assert site.books.world.trouble == ""
        assert site.leases() == 0
        assert await site.books.lease("gpu2") is None
        site.pass_s(1.0)
        assert (site.leases("gpu1"), site.leases("gpu2")) == (0, 1)

    asyncio.run(story(site_at(tmp_path, {"gpu1": Mode.READY, "gpu2": Mode.READY})))


def test_a_fault_of_ours_is_a_trouble_and_no_silence(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        site.books.tick()
        site.clerk.rounds()

        def known(*, now: float) -> Any:
            raise TypeError("not a number")

        site.clerk_store.known = known  # type: ignore[method-assign]
        site.pass_s(1.0)
        assert site.books.world.trouble == "this is a bug in labctl: TypeError: not a number"
        del site.clerk_store.known
        site.pass_s(1.0)
        assert site.books.world.trouble == ""

    asyncio.run(story(site_at(tmp_path)))


# --- the thread ---


def test_the_thread_works_in_order_and_tells_in_order(tmp_path: Path) -> None:
    heard: list[tuple[object, str]] = []
    opened: list[str] = []

    def open_store() -> Store:
        opened.append(threading.current_thread().name)
        if len(opened) == 1:
            raise StoreError("there is none", hint="the controller makes it")
        return site_at(tmp_path).store

    def fails(error: Exception) -> Callable[[Store], object]:
        def work(store: Store) -> object:
            raise error

        return work

    async def run() -> None:
        clerk = StoreThread(open_store, time.monotonic)
        over = asyncio.get_running_loop().create_future()

        def hears(came: object) -> None:
            heard.append((came, threading.current_thread().name))

        for work in (
            lambda store: "never done",
            lambda store: threading.current_thread().name,
            fails(StaleError("gateway was taken for dead")),
            fails(StoreError("it is locked", hint="find it with: fuser")),
            fails(KeyError("x")),
        ):
            clerk.do(work, hears)
        clerk.do(lambda store: None, over.set_result)
        await asyncio.wait_for(over, 10)
        clerk.stop()

    asyncio.run(run())
    assert opened == ["store", "store"]
    kinds = [type(came) for came, _ in heard]
    assert kinds == [Failed, str, Buried, Failed, Failed]
    assert [str(came) for came, _ in heard] == [
        "there is none (the controller makes it)",
        "store",
        "gateway was taken for dead",
        "it is locked (find it with: fuser)",
        "this is a bug in labctl: KeyError: 'x'",
    ]
    assert {name for _, name in heard} == {"MainThread"}


def test_what_only_concerns_a_host_is_no_trouble_of_the_store(tmp_path: Path) -> None:
    from labctl.gateway.books.thread import attempted

    site = site_at(tmp_path)

    def work(store: Store) -> None:
        store.hold("nobody", "why", "ann", until=NOW, now=NOW)

    came = attempted(lambda: site.store, work)
    assert isinstance(came, Denied) and "the store does not know it" in str(came)


def test_books_with_a_thread_of_their_own_serve_and_end(tmp_path: Path) -> None:
    site = site_at(tmp_path)
    path = tmp_path / "store.db"

    async def run() -> None:
        from labctl.adapters.store import open_store

        loop = asyncio.get_running_loop()
        around = Around(lambda: open_store(path, create=False), "gw", time.time, loop.time)
        books = StoreBooks(table_of(host()), around)
        await books.start()
        assert books.world.hosts["gpu1"].mode is Mode.READY
        assert await books.lease("gpu1") is None
        assert site.leases() == 1
        books.leave("gpu1")
        await books.close()
        assert site.leases() == 0
        assert site.store.instances() == []

    asyncio.run(run())
    for thread in threading.enumerate():
        if thread.name == "store":
            thread.join(10)
            assert not thread.is_alive()


def test_without_a_store_the_start_is_not_held_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labctl.gateway.books.books.LOOK_S", 0.01)

    async def run() -> None:
        from labctl.adapters.store import open_store

        path = tmp_path / "store.db"
        clock = Clock()
        around = Around(lambda: open_store(path, create=False), "gw", clock.wall, clock.mono)
        books = StoreBooks(table_of(host(), host("nas", sleeps=False)), around)
        await books.start()
        assert "there is none" in books.world.trouble
        refused = await books.lease("gpu1")
        assert refused is not None and refused.mode is None
        assert await books.lease("nas") is None
        bring_store(tmp_path)
        while books.world.trouble:
            await asyncio.sleep(0.01)
        assert await books.lease("gpu1") is None
        await books.close()

    asyncio.run(run())


def bring_store(folder: Path) -> None:
    site = site_at(folder, {"gpu1": Mode.READY, "nas": Mode.READY})
    site.store.close()
    site.clerk_store.close()


# --- any order of events ---

DEEDS = st.lists(
    st.sampled_from(
        [
            *("enter", "lease", "lease", "leave", "leave", "cancel", "work", "work", "work", "time"),
            *("long", "quiet", "order", "refused", "lost", "seen", "bury", "fail", "mend", "hear"),
        ]
    ),
    max_size=40,
)


class Anything:
    """One host, one gateway; every deed may come at any time. ``inside`` are the requests that are in."""

    def __init__(self, site: Site) -> None:
        self.site, self.inside = site, 0
        self.waiting: list[asyncio.Task[Refused | None]] = []
        self.broken = False
        self.lawless = False
        """Whether a lease was taken from us: then requests may be in without one for a while."""

    async def do(self, deed: str) -> None:
        site = self.site
        if deed == "enter":
            self.inside += site.books.enter("gpu1")
        elif deed == "lease":
            self.waiting.append(asyncio.create_task(site.books.lease("gpu1")))
        elif deed == "leave" and self.inside:
            self.inside -= 1
            site.books.leave("gpu1")
        elif deed == "cancel" and self.waiting:
            self.waiting[0].cancel()
        elif deed == "work":
            site.clerk.round()
        elif deed in ("time", "long"):
            site.clock.passed += 1.0 if deed == "time" else LINGER_S + 1
            site.books.tick()
        elif deed == "hear":
            await asyncio.sleep(0)
        elif deed in ("fail", "mend"):
            self.broken = deed == "fail"
        else:
            self._others(deed)
        await asyncio.sleep(0)
        self._count()

    def _others(self, deed: str) -> None:
        """The controller does something, if the rules let it."""
        site, mode = self.site, self.site.row().mode
        events = {
            "quiet": {Mode.READY: Event.WENT_QUIET},
            "refused": {Mode.SUSPENDING: Event.REFUSED},
            "lost": {Mode.READY: Event.LOST, Mode.DRAINING: Event.LOST},
            "seen": {Mode.UNKNOWN: Event.SEEN, Mode.VERIFYING: Event.PASSED},
        }
        if deed == "bury":
            for one in site.store.instances():
                site.store.bury(one.name, one.beat, now=site.clock.wall())
                self.lawless = True
        elif deed == "order":
            if mode is Mode.DRAINING:
                site.order()
        elif mode in events.get(deed, {}):
            try:
                site.move(events[deed][mode])
            except StaleError:
                return

    def _count(self) -> None:
        for task in [one for one in self.waiting if one.done()]:
            self.waiting.remove(task)
            if not task.cancelled() and task.result() is None:
                self.inside += 1

    def check(self) -> None:
        row = self.site.row()
        assert self.inside >= 0
        if not self.lawless and self.inside:
            assert row.claims.leases == 1, "a request is in without a lease"
            assert row.mode is not Mode.SUSPENDING, "it is put to sleep under a request"
        assert row.claims.leases <= 1 or self.broken


@settings(max_examples=60)
@given(deeds=DEEDS)
def test_in_any_order_a_request_that_is_in_has_a_lease(deeds: list[str]) -> None:
    async def story(site: Site) -> None:
        anything = Anything(site)
        real = site.clerk_store

        def opened() -> Store:
            if anything.broken:
                raise StoreError("it is locked")
            return real

        site.clerk._open = opened
        site.clerk.lag = True
        site.books.tick()
        site.clerk.rounds()
        for deed in deeds:
            await anything.do(deed)
            anything.check()
        # In the end all is given back, whatever came before.
        anything.broken = False
        for task in anything.waiting:
            task.cancel()
        await asyncio.gather(*anything.waiting, return_exceptions=True)
        anything._count()
        while anything.inside:
            await anything.do("leave")
        for _ in range(12):
            site.pass_s(1.0)
        assert site.leases() == 0
        assert site.books.world.trouble == ""
        site.clerk.lag = False
        refused = await site.books.lease("gpu1")
        assert (refused is None) is (site.row().mode in ADMITS)

    with tempfile.TemporaryDirectory(prefix="labctl-any-") as name:
        site = site_at(Path(name))
        try:
            asyncio.run(story(site))
        finally:
            site.store.close()
            site.clerk_store.close()
