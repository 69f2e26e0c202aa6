"""Requests through the books of two gateways against a controller that suspends whenever it may."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable

import hammer
import pytest

from labctl.adapters.store import open_store
from labctl.domain.budget import Rack
from labctl.domain.gateway.table import Host, Table
from labctl.domain.sleep.lifecycle import Mode
from labctl.gateway.books import Around, StoreBooks, seats
from labctl.ports.store import Store

CLOSED = 8
SERVED = 101
HOSTS = hammer.HOSTS[:4]
PATIENCE_S = 120
TABLE = Table("desk", "", 0, (), (), (), tuple(Host(name, True, True, 60.0) for name in HOSTS), Rack(()))


async def ask(
    books: StoreBooks, choose: random.Random, over: asyncio.Event, spans: list[hammer.Span]
) -> None:
    """Have requests one after the other, each on some host, for a moment."""
    while not over.is_set():
        host = choose.choice(HOSTS)
        if not books.enter(host) and await books.lease(host) is not None:
            await asyncio.sleep(0)
            continue
        began = time.monotonic()
        await asyncio.sleep(choose.choice((0, 0, 0.002)))
        spans.append(hammer.Span("leased", host, began, time.monotonic()))
        books.leave(host)
        await asyncio.sleep(choose.uniform(0, 0.02))


async def gateways(opened: Callable[[], Store]) -> list[hammer.Span]:
    loop, spans, over = asyncio.get_running_loop(), list[hammer.Span](), asyncio.Event()
    both = [StoreBooks(TABLE, Around(opened, f"gw{n}", time.time, loop.time)) for n in range(2)]
    for books in both:
        await books.start()

    async def tick() -> None:
        """Go on until hosts were closed several times, as far as we saw it, and many requests served."""
        seen, closed = dict.fromkeys(HOSTS, True), 0
        async with asyncio.timeout(PATIENCE_S):
            while closed < CLOSED or len(spans) < SERVED:
                for books in both:
                    books.tick()
                await asyncio.sleep(0.002)
                for name, now in both[0].world.hosts.items():
                    closed += seen[name] and now.mode is Mode.SUSPENDING
                    seen[name] = now.mode is not Mode.SUSPENDING
        over.set()

    asked = [ask(books, random.Random(n), over, spans) for n, books in enumerate(both * 2)]
    await asyncio.gather(tick(), *asked)
    for books in both:
        await books.close()
    return spans


def test_no_host_is_closed_under_a_request(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats, "LINGER_S", 0.0)
    hammer.prepared(address)
    suspender = hammer._started([hammer.sys.executable, hammer.__file__, "-", address, "controller"])
    try:
        spans = asyncio.run(gateways(lambda: open_store(address, create=False)))
        said = suspender.communicate(timeout=120)[0]
    finally:
        suspender.kill()
        suspender.wait()
    assert suspender.returncode == 0
    closed = [hammer.Span(*fields) for fields in json.loads(said)]
    assert len(spans) >= SERVED
    assert hammer.violations([*spans, *closed]) == []
    store = open_store(address, create=False)
    assert store.instances() == []
    assert {row.claims.leases for row in store.known(now=0.0).hosts.values()} == {0}
    store.close()


KILLS = 4


async def steadily(books: StoreBooks, over: asyncio.Event) -> tuple[int, int]:
    """Have requests come and go while one is always in; return how many came, and how many were refused."""
    await asyncio.gather(*(books.lease(name) for name in HOSTS))
    came = refused = 0
    while not over.is_set():
        for name in HOSTS:
            came += 1
            if books.enter(name):
                books.leave(name)
            else:
                refused += 1
        refused += bool(books.world.trouble)
        await asyncio.sleep(0.001)
    return came, refused


def test_a_controller_that_is_killed_again_and_again_costs_no_request(address: str) -> None:
    hammer.prepared(address)
    store = open_store(address, create=False)

    async def kills(over: asyncio.Event) -> None:
        """Kill controllers in the middle of their work."""
        loop = asyncio.get_running_loop()
        try:
            for _ in range(KILLS):
                until = store.happenings(most=1)[-1].id + 20
                argv = [hammer.sys.executable, hammer.__file__, "-", address, "controller"]
                controller = hammer._started(argv)
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        while store.happenings(most=1)[-1].id < until:
                            await asyncio.sleep(0.01)
                finally:
                    controller.kill()
                    await loop.run_in_executor(None, controller.communicate)
        finally:
            over.set()

    async def run() -> tuple[int, int]:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        books = StoreBooks(
            TABLE, Around(lambda: open_store(address, create=False), "gw", time.time, loop.time)
        )
        await books.start()
        counted, _ = await asyncio.gather(steadily(books, over), kills(over))
        await books.close()
        return counted

    came, refused = asyncio.run(run())
    store.close()
    assert came > 100
    assert refused == 0
