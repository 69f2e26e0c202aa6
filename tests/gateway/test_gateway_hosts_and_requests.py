"""Requests against hosts: what happens where a line, a wake, a clock or a body is not as anybody meant it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from assembled_kit import OWNER, SECRET, Rack, Reply, assembled, read, table_for
from assembled_kit import upstream as serves
from books_kit import NOW, Site, site_at
from desk_kit import Office, ahead, settle, table, upstream
from upstream_double import Double

from labctl.domain.gateway.slots import Slots
from labctl.domain.gateway.table import Key, Model, Served
from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.gateway.books.books import FROZEN_S

TWO = table(upstreams=(upstream("rig"), upstream("box")))


def told(site: Site, story: Callable[[Site], Awaitable[None]]) -> None:
    """Run a story after the first look."""

    async def run() -> None:
        site.books.tick()
        site.clerk.rounds()
        await story(site)

    asyncio.run(run())


# --- lines


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


# --- waiting


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


STUCK = {
    Mode.UNKNOWN: "is looked for, about 60 s left",
    Mode.SUSPENDING: "is just going to sleep, and is woken then, about 60 s left",
    Mode.ASLEEP: "is asleep, and is being woken, about 60 s left",
    Mode.WAKING: "is waking",
    Mode.VERIFYING: "is up, and is being checked",
    Mode.FAILED: "did not come up, and is tried again, about 60 s left",
}


@pytest.mark.parametrize("mode", STUCK)
def test_a_host_that_stays_as_it_is_is_told_when_the_time_is_over(mode: Mode) -> None:
    async def run() -> None:
        office = Office(table(), rig=mode)
        exchange = office.send()
        await asyncio.sleep(119)
        assert exchange.answered is None
        await asyncio.sleep(2)
        assert exchange.answered is not None
        problem = json.loads(exchange.answered.body)
        assert (problem["status"], problem["host"]) == (503, "rig")
        assert problem["detail"] == f"waited 2 min: rig {STUCK[mode]}"
        assert problem["hint"].endswith("; `labctl explain rig` says what it waits for")
        assert office.idle()

    ahead(run())


# --- leases


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


# --- the whole gateway


CHAT = "/v1/chat/completions"
QWEN = json.dumps({"model": "qwen"}).encode()
UPGRADE = (
    *("Upgrade: websocket", "Connection: Upgrade"),
    *("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13"),
)
NOBODY = "Authorization: Bearer of nobody"
NO_WAKERS = [
    *(("GET", path, b"", (), 200) for path in ("/", "/health", "/metrics", "/v1/models", "/v1/models/qwen")),
    *((method, CHAT, b"", (), 405) for method in ("GET", "HEAD", "PUT")),
    ("OPTIONS", CHAT, b"", (), 200),
    ("GET", "/hosts/rig/props", b"", (), 503),
    *((method, "/hosts/rig/completion", b"", (), 403) for method in ("GET", "HEAD", "DELETE")),
    ("OPTIONS", "/hosts/rig/completion", b"", (), 200),
    ("POST", "/hosts/rig/tokenize", QWEN, (), 503),
    ("POST", "/hosts/rig/../rig/completion", QWEN, (), 403),
    ("POST", "/hosts/rig/%63ompletion", QWEN, (), 403),
    ("POST", "/hosts/rig//completion", QWEN, (), 403),
    ("POST", "/hosts/rig/shutdown", QWEN, (), 403),
    ("POST", CHAT, QWEN, (NOBODY,), 401),
    ("POST", "/labctl/v1/prewake", QWEN, (NOBODY,), 401),
    ("GET", "/v1/realtime?model=qwen", b"", (NOBODY, *UPGRADE), 401),
    ("GET", "/v1/realtime?model=qwen", b"", (), 404),
    ("POST", CHAT, QWEN, ("Authorization: Bearer seldom",), 429),
    ("POST", CHAT, QWEN, ("Authorization: Bearer other",), 403),
    ("POST", "/labctl/v1/prewake", QWEN, ("Authorization: Bearer other",), 403),
    ("POST", "/labctl/v1/prewake", b'{"host":"rig"}', ("Authorization: Bearer other",), 403),
    ("POST", CHAT, QWEN, ("Authorization: Bearer quiet",), 403),
    ("POST", "/labctl/v1/prewake", QWEN, ("Authorization: Bearer quiet",), 403),
    ("POST", "/hosts/rig/completion", QWEN, ("Authorization: Bearer quiet",), 403),
    ("POST", CHAT, QWEN, ("Prefer: wait=0",), 503),
    ("POST", CHAT, QWEN[:-1], (), 400),
    ("POST", "/v1/chat/completions/", QWEN, (), 404),
    ("POST", "/v1/audio/../chat/completions", QWEN, (), 404),
]


async def sent(rack: Rack, method: str, path: str, body: bytes, *headers: str) -> Reply:
    """Send a request with the owner's key, unless its headers show another."""
    shows = () if any("Authorization" in one for one in headers) else (f"Authorization: Bearer {SECRET}",)
    length = (f"Content-Length: {len(body)}", "Content-Type: application/json") if body else ()
    lines = (f"{method} {path} HTTP/1.1", "Host: gateway", *shows, *headers, *length, "Connection: close")
    reader, writer = await rack.connect()
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        raw = await reader.read()
        return read(raw) if method != "HEAD" else Reply(int(raw.split(b" ")[1]), {}, b"")
    finally:
        writer.close()


def test_who_must_not_wake_a_host_wishes_for_none(tmp_path: Path) -> None:
    def key(name: str, **more: Any) -> Key:
        return Key(name, sha256(name.encode()).hexdigest(), **more)

    keys = (
        OWNER,
        key("seldom", per_minute=1),
        key("other", models=("other",)),
        key("quiet", wakes_per_hour=0),
    )

    async def run() -> None:
        async with Double() as double:
            rules = ("POST /completion", "POST /tokenize", "GET /props")
            rig = serves(double, passes=rules, wakes=rules[:1])
            box = serves(double, "box")
            models = (Model("qwen", "chat", 5.0), Model("other", "chat", 5.0))
            served = (Served("qwen", rig.name, "qwen"), Served("other", box.name, "other"))
            table = table_for(rig, box, folder=tmp_path, keys=keys, models=models, served=served)
            async with assembled(tmp_path, table, rig=Mode.ASLEEP, box=Mode.ASLEEP) as rack:
                asked = await sent(rack, "POST", "/hosts/rig/tokenize", QWEN, "Authorization: Bearer seldom")
                assert asked.status == 503
                for method, path, body, headers, status in NO_WAKERS:
                    reply = await sent(rack, method, path, body, *headers)
                    assert reply.status == status, (method, path, headers, reply)
                kinds = {one.kind for one in rack.store.happenings(most=1000)}
                assert not kinds & {"wish", "woken"}, kinds
                assert (rack.claims("rig"), rack.claims("box")) == ((0, 0), (0, 0))
                assert double.seen == []

    asyncio.run(run())


def test_five_hundred_at_once_are_one_wake_and_each_is_served_once(tmp_path: Path) -> None:
    async def run() -> None:
        async with Double() as double:
            table = table_for(serves(double), folder=tmp_path)
            async with assembled(tmp_path, table, rig=Mode.ASLEEP) as rack:
                asks = [asyncio.create_task(rack.ask("POST", CHAT, QWEN)) for _ in range(500)]
                waiting = re.compile(rb"\nlabctl_gateway_waiting_for_host\{.*\} 500\n")
                async with asyncio.timeout(30):
                    while not waiting.search((await rack.ask("GET", "/metrics")).body):
                        await asyncio.sleep(0.05)
                rack.move("rig", Event.WISHED, Event.SEEN, Event.PASSED)
                replies = await asyncio.gather(*asks)
                assert {reply.status for reply in replies} == {200}
                assert len(double.seen) == 500
                kinds = [one.kind for one in rack.store.happenings(host="rig", most=1000)]
                assert (kinds.count("wish"), kinds.count("woken")) == (1, 1)
                await rack.until(lambda: rack.claims()[1] == 0)

    asyncio.run(run())
