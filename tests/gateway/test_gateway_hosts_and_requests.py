"""Requests against hosts: what happens where a line, a wake, a clock or a body is not as anybody meant it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from books_kit import NOW, Site, site_at
from desk_kit import Office, ahead, settle, table, upstream

from labctl.domain.gateway.slots import Slots
from labctl.domain.gateway.table import Served
from labctl.domain.sleep.lifecycle import Mode
from labctl.gateway.books.books import FROZEN_S

TWO = table(upstreams=(upstream("rig"), upstream("box")))


def told(site: Site, story: Callable[[Site], Awaitable[None]]) -> None:
    """Run a story after the first look."""

    async def run() -> None:
        site.books.tick()
        site.clerk.rounds()
        await story(site)

    asyncio.run(run())


def test_nobody_stands_in_line_where_there_is_room() -> None:
    """One who did not answer is avoided: it has room, and nobody would ever call up who waits there."""

    async def run() -> None:
        office = Office(TWO, box=Mode.ASLEEP)
        first = office.send()
        await settle()
        first.fail("connect")
        second = office.send()
        await settle()
        assert office.desk.lanes["rig"].slots.waiting == 0
        await asyncio.sleep(6)  # it is not avoided any more
        third = office.send()
        await settle()
        assert second.at == third.at == "rig"
        for one in (first, second, third):
            one.end("left" if one is first else "served")
        await settle()
        assert office.idle()

    ahead(run())


def test_whoever_fills_a_line_fills_his_own() -> None:
    slots: Slots[int] = Slots(1, 3)
    slots.enter()
    assert [slots.line_up("greedy", number) for number in range(5)] == [True] * 3 + [False] * 2
    assert slots.line_up("modest", 9)
    assert [slots.leave(), slots.leave()] == [0, 9]


def test_who_looks_away_and_waits_again_is_still_told_the_time(tmp_path: Path) -> None:
    """A search that leaves its lines waits for its host alone: the wait before must not undo the next."""

    async def story(site: Site) -> None:
        waiter = site.books.want("gpu1", "gateway ann", "m", until=NOW + 600)
        before = asyncio.ensure_future(waiter.changed(60))
        await asyncio.sleep(0)
        before.cancel()
        async with asyncio.timeout(5):
            await waiter.changed(0.01)
        waiter.leave()

    told(site_at(tmp_path, {"gpu1": Mode.ASLEEP}), story)


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_clock_that_is_set_ends_no_wish_of_who_waits(tmp_path: Path, jump_s: float) -> None:
    async def story(site: Site) -> None:
        waiter = site.books.want("gpu1", "gateway ann", "m", until=NOW + 600)
        site.clerk.rounds()
        site.clock.set_by += jump_s
        site.pass_s(1.0)
        site.pass_s(1.0)
        (wish,) = site.row().wishes
        assert wish.until > site.clock.wall()
        waiter.leave()
        site.clerk.rounds()
        assert site.row().wishes == ()

    told(site_at(tmp_path, {"gpu1": Mode.ASLEEP}), story)


def test_the_time_for_a_wake_is_never_taken_from_that_for_a_line_twice() -> None:
    async def run() -> None:
        office = Office(TWO, rig=Mode.ASLEEP, box=Mode.ASLEEP)
        exchange = office.send()
        await asyncio.sleep(40)
        office.books.is_now("rig", Mode.READY)
        await settle()
        exchange.fail("connect")
        await asyncio.sleep(10)
        office.books.is_now("box", Mode.READY)
        await settle()
        exchange.end()
        (record,) = office.meters.records
        assert (record.woke_s, record.queued_s) == (50.0, 0.0)

    ahead(run())


def test_a_wake_that_failed_counts_once_however_many_upstreams_the_host_has() -> None:
    async def run() -> None:
        office = Office(table(upstreams=(upstream("a", "rig"), upstream("b", "rig"))), rig=Mode.ASLEEP)
        exchange = office.send()
        await asyncio.sleep(30)
        office.books.is_now("rig", Mode.FAILED)
        await settle()
        assert exchange.answered is not None
        assert office.meters.wakes == [("rig", "anna", 30.0, False)]
        assert office.meters.records[0].woke_s == 30.0

    ahead(run())


def test_a_process_that_stood_still_lets_nobody_in_before_it_ticks(tmp_path: Path) -> None:
    """After a standstill what came meanwhile is read first, and timers run after that."""

    async def story(site: Site) -> None:
        assert await site.books.lease("gpu1") is None
        site.books.leave("gpu1")
        site.store.bury("gateway", site.store.instances()[0].beat, now=site.clock.wall())
        site.clock.passed += FROZEN_S + 20
        assert not site.books.enter("gpu1")
        task = asyncio.create_task(site.books.lease("gpu1"))
        await asyncio.sleep(0)
        assert not task.done()
        site.pass_s(0.0)
        assert await task is None
        assert site.leases() == 1

    told(site_at(tmp_path), story)


def test_a_lease_is_kept_while_the_store_cannot_take_it_back(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        assert await site.books.lease("gpu1") is None
        site.books.leave("gpu1")
        away = (tmp_path / "store.db").rename(tmp_path / "away.db")
        site.pass_s(1.0)
        assert site.books.world.trouble
        for _ in range(20):
            site.pass_s(1.0)
        assert site.books.enter("gpu1"), "it is awake, and nobody can have put it to sleep"
        site.books.leave("gpu1")
        away.rename(tmp_path / "store.db")
        site.pass_s(1.0)
        site.pass_s(3.0)
        site.pass_s(1.0)
        assert (site.books.world.trouble, site.leases()) == ("", 0)

    told(site_at(tmp_path), story)


def test_a_body_that_cannot_be_rewritten_holds_no_slot_and_no_lease() -> None:
    async def run() -> None:
        served = (Served("qwen", "rig", "qwen-by-another-name"),)
        office = Office(table(served=served), rig=Mode.ASLEEP)
        exchange = office.send(body=b'{"model":"qwen","\xff":1}')
        await settle()
        office.books.is_now("rig", Mode.READY)
        await settle()
        assert exchange.answered is not None and exchange.answered.status == 400
        assert office.idle()

    ahead(run())


def test_paths_that_a_client_invents_are_not_kept() -> None:
    async def run() -> None:
        office = Office(table())
        for number in range(50):
            exchange = office.send(f"/v1/audio/{number}")
            await settle()
            assert exchange.at == "rig"
            exchange.end()
        (place,) = office.desk._ways["qwen"].places
        assert len(place._targets) <= 1

    ahead(run())


def test_a_websocket_with_endless_parameters_is_a_bad_request_and_no_bug() -> None:
    async def run() -> None:
        office = Office(table())
        query = "&".join(["a=1"] * 60)
        exchange = office.send(f"/v1/realtime?{query}", method="GET", upgrade=True, body=b"", model="")
        assert exchange.answered is not None and exchange.answered.status == 400

    ahead(run())


def test_a_request_that_cannot_be_sent_is_told_and_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        broken: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: broken.append(context))
        office = Office(table(), rig=Mode.ASLEEP)
        exchange = office.send()
        await settle()
        monkeypatch.setattr(exchange, "forward", None)
        office.books.is_now("rig", Mode.READY)
        await settle()
        assert exchange.answered is not None and exchange.answered.status == 500
        assert office.idle() and len(broken) == 1

    ahead(run())
