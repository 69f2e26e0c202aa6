"""The life of a request, over doubles of all that the desk leans on, in a loop whose clock jumps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import pytest
from desk_kit import FakeExchange, Office, ahead, model, settle, table, upstream
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.domain.budget import Card, Circuit, Supply
from labctl.domain.budget import Host as WattHost
from labctl.domain.budget import Rack as WattRack
from labctl.domain.gateway.table import Host, Kind, Served, Table, Waiting
from labctl.domain.sleep.lifecycle import Mode
from labctl.gateway.refusals import problem
from labctl.gateway.terms import Answer, Reading

TWO = table(upstreams=(upstream("rig"), upstream("box")))


def story(told: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    @wraps(told)
    def test() -> None:
        async def run() -> None:
            await told()

        ahead(run())

    # pytest must not take the story's signature for its own.
    del test.__wrapped__  # type: ignore[attr-defined]
    return test


def said(exchange: FakeExchange) -> tuple[int, str, Any]:
    """Return status and code of a refusal, and its document."""
    assert exchange.answered is not None, "it was not answered"
    document = json.loads(exchange.answered.body)
    return exchange.answered.status, document["type"].rpartition(":")[2], document


# --- the short way


@story
async def test_a_request_for_an_awake_host_with_a_lease_is_on_its_way_at_once() -> None:
    office = Office(table())
    office.books.held.add("rig")
    tasks = asyncio.all_tasks()
    exchange = office.send()
    assert exchange.at == "rig"
    assert asyncio.all_tasks() == tasks
    assert office.books.inside == {"rig": 1} and office.access.inside == {"anna": 1}
    exchange.end()
    assert office.idle()
    (record,) = office.meters.records
    assert (record.key, record.model, record.upstream, record.host) == ("anna", "qwen", "rig", "rig")
    assert (record.status, record.how, record.tries, record.seconds, record.at) == (
        200,
        "served",
        1,
        0,
        1001000,
    )


@story
async def test_the_first_request_for_a_host_takes_the_lease() -> None:
    office = Office(table())
    first, second = office.send(), office.send()
    assert first.at == second.at == ""
    await settle()
    assert first.at == second.at == "rig"
    third = office.send()
    assert third.at == "rig" and office.books.asked == 2
    for exchange in (first, second, third):
        exchange.end()
    assert office.idle() and office.access.woken == []


@story
async def test_a_request_is_sent_as_it_came_and_by_the_upstreams_own_key() -> None:
    cloud = upstream("cloud", "", kind=Kind.OUTSIDE, tls=True, base_path="/api")
    office = Office(table(upstreams=(cloud,)))
    exchange = office.send("/v1/chat/completions?beta=1", key="root")
    (target,) = exchange.targets
    assert (target.path, target.key, target.body) == ("/api/v1/chat/completions?beta=1", "sk-cloud", None)
    assert target.upstream is cloud and target.again == frozenset()


@story
async def test_what_an_upstream_may_answer_is_only_retried_where_others_are_left() -> None:
    office = Office(TWO)
    office.books.held |= {"rig", "box"}
    exchange = office.send()
    assert exchange.targets[0].again == {503}
    exchange.fail("status", status=503)
    assert exchange.at == "box" and exchange.targets[1].again == frozenset()


@story
async def test_an_answer_that_is_not_streamed_may_take_as_long_for_its_first_byte_as_for_all_of_it() -> None:
    office = Office(table(served=(Served("qwen", "rig", "qwen", first_byte_s=30.0, whole_s=900.0),)))
    office.books.held.add("rig")
    assert office.send(stream=True).targets[0].first_byte_s == 30.0
    assert office.send(stream=False).targets[0].first_byte_s == 900.0


# --- heads


@story
async def test_heads_say_how_a_body_is_read() -> None:
    office = Office(table(upstreams=(upstream("rig", passes=("POST /completion", "GET /props")),)))

    def reads(
        path: str, method: str = "POST", kind: str = "application/json", **more: Any
    ) -> Reading | Answer:
        return office.desk.head(
            office.ask(path, method=method, named={b"content-type": kind.encode()}, **more)
        )

    form = "multipart/form-data; boundary=x"
    assert reads("/v1/chat/completions") is Reading.WHOLE
    assert reads("/v1/chat/completions", kind=form) is Reading.WHOLE, "nobody takes a form there"
    assert reads("/v1/audio/transcriptions", kind=form) is Reading.FORM
    assert reads("/v1/audio/speech") is Reading.WHOLE
    assert reads("/v1/images/edits", kind=form) is Reading.FORM
    assert reads("/hosts/rig/completion") is Reading.FLOW
    assert reads("/hosts/rig/props", "GET") is Reading.NONE
    assert reads("/v1/realtime?model=qwen", "GET", upgrade=True) is Reading.NONE
    assert reads("/health", "GET") is Reading.NONE


@pytest.mark.parametrize(
    ("ask", "status", "code"),
    [
        ({"key": "nobody"}, 401, "unknown-key"),
        ({"path": "/v1/nothing"}, 404, "no-such-path"),
        ({"path": "/v1/chat/completions", "method": "GET"}, 405, "wrong-method"),
        ({"path": "/v1/audio/speech", "method": "PUT"}, 405, "wrong-method"),
        ({"path": "/v1/audio/../secrets"}, 404, "no-such-path"),
        ({"path": "/v1/audio/%2e%2e/secrets"}, 404, "no-such-path"),
        ({"path": "/v1/chat/completions", "upgrade": True, "method": "GET"}, 404, "no-such-path"),
        ({"path": "/metrics", "method": "GET", "key": "nobody"}, 401, "unknown-key"),
    ],
)
def test_what_is_refused_by_its_head_is_refused_before_its_body(
    ask: dict[str, Any], status: int, code: str
) -> None:
    async def run() -> None:
        office = Office(table())
        answer = office.desk.head(office.ask(**ask))
        assert isinstance(answer, Answer)
        assert answer.status == status
        assert json.loads(answer.body)["error"]["code"] == code
        if status == 405:
            assert ("Allow", "POST, OPTIONS") in answer.headers
        (record,) = office.meters.records
        assert (record.how, record.code, record.status) == ("refused", code, status)
        assert office.idle()

    ahead(run())


@story
async def test_an_address_names_one_model() -> None:
    office = Office(table())
    for query, code in (
        ("model=qwen&model=other", "bad-request"),
        ("model=qwen&%6dodel=", "bad-request"),
        ("&".join(["a=1"] * 1000), "bad-request"),
        ("model=", "no-model"),
    ):
        exchange = office.send(f"/v1/realtime?{query}", "", method="GET", upgrade=True, body=b"")
        assert exchange.answered is not None and exchange.answered.status == 400
        assert json.loads(exchange.answered.body)["error"]["code"] == code
    assert office.idle()


@story
async def test_our_own_pages_are_answered_for_whoever_may_read_them() -> None:
    office = Office(table())
    for path, key, body in [("/health", "nobody", b"for anybody"), ("/metrics", "anna", b"for anna")]:
        exchange = office.send(path, key=key, method="GET")
        assert exchange.answered is not None and exchange.answered.body == body
    assert office.idle() and [record.how for record in office.meters.records] == ["answered", "answered"]


# --- refusals


@story
async def test_a_model_that_nobody_serves_is_refused_with_what_is_meant() -> None:
    office = Office(table())
    status, code, document = said(office.send(model="qwem"))
    assert (status, code) == (404, "no-such-model")
    assert document["detail"] == "no model is called 'qwem' here"
    assert document["hint"] == "did you mean qwen? GET /v1/models lists all of them"
    status, code, document = said(office.send(model=""))
    assert (status, code) == (400, "no-model")
    assert office.idle()


@story
async def test_what_access_refuses_is_refused_and_holds_nothing() -> None:
    office = Office(table())
    office.access.refuses = problem(429, "too-many-requests", "slowly", retry_after_s=3.2)
    exchange = office.send()
    assert said(exchange)[:2] == (429, "too-many-requests")
    assert exchange.answered is not None and exchange.answered.headers == (("Retry-After", "4"),)
    assert office.idle() and office.books.inside == {}
    assert office.meters.records[0].code == "too-many-requests"


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (
            {"refused": "it is quarantined: gpu0 is gone"},
            "must-not-wake",
            "rig is asleep and must not be woken: it",
        ),
        (
            {"trouble": "database is locked"},
            "store-unusable",
            "nothing new is sent to rig: database is locked",
        ),
        ({"paused": "moving house"}, "must-not-wake", "the rack is paused: moving house"),
    ],
)
def test_a_host_that_must_not_be_woken_is_refused_with_its_reason(
    change: dict[str, str], code: str, words: str
) -> None:
    async def run() -> None:
        office = Office(table(), rig=Mode.ASLEEP)
        if refused := change.pop("refused", ""):
            office.books.is_now("rig", Mode.ASLEEP, refused=refused)
        for name, value in change.items():
            setattr(office.books, name, value)
        exchange = office.send()
        await settle()
        status, seen, document = said(exchange)
        assert (status, seen, document["host"]) == (503, code, "rig")
        assert words in document["detail"] and document["hint"]
        assert office.idle() and office.books.wishes == []

    ahead(run())


# --- waking


@story
async def test_any_number_of_requests_make_one_wake_and_are_served_when_it_is_over() -> None:
    office = Office(table(), rig=Mode.ASLEEP)
    exchanges = [office.send() for _ in range(500)]
    await settle()
    assert office.access.woken == [("anna", "rig")]
    assert {wish[:3] for wish in office.books.wishes} == {("rig", "gateway anna", "qwen was asked for")}
    assert {wish[3] for wish in office.books.wishes} == {1e6 + 1000 + 120}
    await asyncio.sleep(40)
    office.books.is_now("rig", Mode.WAKING)
    await asyncio.sleep(20)
    office.books.is_now("rig", Mode.READY)
    await settle()
    assert {exchange.at for exchange in exchanges} == {"rig"}
    assert office.books.waiters == [] and office.books.inside == {"rig": 500}
    for exchange in exchanges:
        exchange.end()
    assert office.idle()
    assert office.meters.wakes == [("rig", "anna", 60.0, True)]
    assert {(record.woke_s, record.queued_s) for record in office.meters.records} == {(60.0, 0.0)}


@story
async def test_who_waits_for_a_host_and_then_for_a_slot_has_both_in_its_record() -> None:
    office = Office(table(upstreams=(upstream("rig", slots=1),)), rig=Mode.ASLEEP)
    first, second = office.send(), office.send()
    await asyncio.sleep(60)
    office.books.is_now("rig", Mode.READY)
    await settle()
    served, waits = (first, second) if first.at else (second, first)
    assert (served.at, waits.at) == ("rig", "")
    await asyncio.sleep(10)
    served.end()
    await settle()
    waits.end()
    records = [(record.woke_s, record.queued_s) for record in office.meters.records]
    assert records == [(60.0, 0.0), (60.0, 10.0)]
    assert office.idle() and office.meters.wakes == [("rig", "anna", 60.0, True)]


@story
async def test_a_client_that_leaves_waits_no_more_and_the_last_one_ends_the_wish() -> None:
    office = Office(table(), rig=Mode.ASLEEP)
    first, second = office.send(), office.send(key="bert")
    await settle()
    assert len(office.books.waiters) == 2
    first.end("left", 0)
    await settle()
    assert len(office.books.waiters) == 1
    second.end("left", 0)
    await settle()
    assert office.idle()
    office.books.is_now("rig", Mode.READY)
    await settle()
    assert first.targets == second.targets == []


@story
async def test_a_host_that_fails_to_wake_is_refused_with_its_reason_long_before_the_deadline() -> None:
    office = Office(table(), rig=Mode.ASLEEP)
    exchange = office.send()
    await asyncio.sleep(1)
    office.books.is_now("rig", Mode.WAKING)
    await asyncio.sleep(30)
    office.books.is_now("rig", Mode.FAILED, "rig did not come up after 9 rounds, the last 20 s ago")
    await settle()
    status, code, document = said(exchange)
    assert (status, code, document["host"]) == (503, "wake-failed", "rig")
    assert document["detail"] == "rig did not come up: rig did not come up after 9 rounds, the last 20 s ago"
    assert "labctl explain rig" in document["hint"]
    assert office.idle() and office.meters.wakes == [("rig", "anna", 31.0, False)]


@story
async def test_a_host_that_had_failed_before_is_tried_again() -> None:
    office = Office(table(), rig=Mode.FAILED)
    exchange = office.send()
    await asyncio.sleep(10)
    assert exchange.answered is None and len(office.books.waiters) == 1
    office.books.is_now("rig", Mode.WAKING)
    await asyncio.sleep(10)
    office.books.is_now("rig", Mode.READY)
    await settle()
    assert exchange.at == "rig"


@story
async def test_when_a_wake_fails_the_next_host_is_woken() -> None:
    office = Office(TWO, rig=Mode.ASLEEP, box=Mode.ASLEEP)
    exchange = office.send()
    await settle()
    assert [wish[0] for wish in office.books.wishes] == ["rig"]
    office.books.is_now("rig", Mode.FAILED, "nothing was heard of it")
    await settle()
    assert [wish[0] for wish in office.books.wishes] == ["rig", "box"]
    assert [waiter.host for waiter in office.books.waiters] == ["box"]
    office.books.is_now("box", Mode.READY)
    await settle()
    assert exchange.at == "box"
    exchange.end()
    assert office.idle() and office.access.woken == [("anna", "rig"), ("anna", "box")]


@story
async def test_when_a_wake_takes_far_longer_than_usual_the_next_host_is_woken() -> None:
    office = Office(TWO, rig=Mode.ASLEEP, box=Mode.ASLEEP)
    office.books.hosts["rig"] = replace(office.books.hosts["rig"], comes_s=10.0)
    exchange = office.send()
    await settle()
    office.books.is_now("rig", Mode.WAKING)
    await asyncio.sleep(29)
    assert [waiter.host for waiter in office.books.waiters] == ["rig"]
    await asyncio.sleep(8)
    assert [waiter.host for waiter in office.books.waiters] == ["box"]
    assert office.meters.wakes == [("rig", "anna", 35.0, False)]
    office.books.is_now("box", Mode.WAKING)
    later = office.send()
    await settle()
    assert [waiter.host for waiter in office.books.waiters] == ["box", "box"]
    office.books.is_now("rig", Mode.READY)  # it came after all, and sooner
    office.books.is_now("box", Mode.VERIFYING)
    await settle()
    assert (exchange.at, later.at) == ("rig", "rig")
    exchange.end()
    later.end()
    assert office.idle()


@story
async def test_a_host_that_is_late_is_waited_for_where_nobody_else_can_serve() -> None:
    office = Office(table(), rig=Mode.WAKING)
    office.books.hosts["rig"] = replace(office.books.hosts["rig"], comes_s=10.0)
    exchange = office.send()
    await asyncio.sleep(119)
    assert exchange.answered is None and [waiter.host for waiter in office.books.waiters] == ["rig"]
    await asyncio.sleep(2)
    assert said(exchange)[:2] == (503, "not-awake-in-time")


@story
async def test_a_host_that_is_paused_while_it_is_waited_for_is_waited_for_no_more() -> None:
    office = Office(table(), rig=Mode.ASLEEP)
    exchange = office.send()
    await asyncio.sleep(5)
    office.books.is_now("rig", Mode.ASLEEP, refused="it is paused: new fans")
    await settle()
    status, code, document = said(exchange)
    assert (status, code) == (503, "must-not-wake")
    assert document["detail"] == "rig is asleep and must not be woken: it is paused: new fans"
    assert office.idle()


@story
async def test_a_host_that_nothing_wakes_is_waited_for_while_it_comes_by_itself() -> None:
    office = Office(table())
    office.books.is_now("rig", Mode.VERIFYING, refused="nothing wakes it")
    exchange = office.send()
    await asyncio.sleep(20)
    assert exchange.answered is None and office.access.woken == []
    office.books.is_now("rig", Mode.READY)
    await settle()
    assert exchange.at == "rig"
    office.books.is_now("rig", Mode.UNKNOWN)
    other = office.send()
    await settle()
    assert said(other)[:2] == (503, "must-not-wake")


@story
async def test_a_store_that_goes_while_a_host_is_waited_for_may_come_back_until_the_deadline() -> None:
    office = Office(table(), rig=Mode.ASLEEP)
    waits, gives_up = office.send(), office.send(named={b"prefer": b"wait=20"})
    await asyncio.sleep(5)
    office.books.trouble = "database is locked"
    await asyncio.sleep(16)
    assert said(gives_up)[:2] == (503, "store-unusable")
    office.books.trouble = ""
    office.books.is_now("rig", Mode.READY)
    await settle()
    assert waits.at == "rig"


@story
async def test_a_request_that_waited_too_long_is_told_what_for() -> None:
    office = Office(table(), rig=Mode.ASLEEP)
    exchange = office.send()
    await asyncio.sleep(100)
    office.books.is_now("rig", Mode.VERIFYING, left_s=15.0)
    await asyncio.sleep(19)
    assert exchange.answered is None
    await asyncio.sleep(2)
    status, code, document = said(exchange)
    assert (status, code) == (503, "not-awake-in-time")
    assert document["detail"] == "waited 2 min: rig is up, and is being checked, about 15 s left"
    assert exchange.answered is not None and exchange.answered.headers == (("Retry-After", "15"),)
    assert office.idle()


@story
async def test_a_client_can_make_its_own_wait_shorter() -> None:
    office = Office(table(), rig=Mode.ASLEEP)
    exchange = office.send(named={b"prefer": b"wait=7"})
    longer = office.send(named={b"prefer": b"respond-async, wait=9000"})
    await asyncio.sleep(8)
    assert said(exchange)[:2] == (503, "not-awake-in-time") and longer.answered is None
    await asyncio.sleep(115)
    assert said(longer)[:2] == (503, "not-awake-in-time")


@story
async def test_a_key_without_wakes_left_wakes_nobody_but_waits_with_others() -> None:
    office = Office(table(), rig=Mode.ASLEEP)
    office.access.wakes_left = 1
    other = office.send(key="bert")
    await settle()
    joins = office.send()
    await settle()
    assert joins.answered is None and office.access.woken == [("bert", "rig")]
    other.end("left", 0)
    joins.end("left", 0)
    await settle()
    exchange = office.send()
    await settle()
    assert said(exchange)[:2] == (429, "too-many-wakes")
    office.books.is_now("rig", Mode.WAKING)  # by somebody else
    late = office.send()
    await settle()
    assert late.answered is None


# --- how a wait is presented


@story
async def test_a_stream_hears_comments_after_a_while_and_then_every_few_seconds() -> None:
    office = Office(table(), rig=Mode.ASLEEP)
    exchange, silent = office.send(stream=True), office.send()
    await asyncio.sleep(1.9)
    assert not exchange.begun
    await asyncio.sleep(0.2)
    assert exchange.begun
    assert exchange.said == [b": rig is asleep, and is being woken, about 60 s left\n\n"]
    office.books.is_now("rig", Mode.WAKING, left_s=50.0)
    await asyncio.sleep(5)
    assert exchange.said[1:] == [b": rig is waking, about 50 s left\n\n"]
    await asyncio.sleep(50)
    assert 10 <= len(exchange.said) <= 13
    office.books.is_now("rig", Mode.READY)
    await settle()
    assert exchange.at == silent.at == "rig"
    assert not silent.begun


@story
async def test_loading_state_is_sent_as_deltas_of_reasoning() -> None:
    office = Office(table((model(waiting=Waiting.LOADING),)), rig=Mode.WAKING)
    office.books.is_now("rig", Mode.WAKING, left_s=30.0)
    chat, other = office.send(stream=True), office.send("/v1/completions", stream=True)
    await asyncio.sleep(3)
    assert chat.said[0].startswith(b"data: ") and chat.said[0].endswith(b"\n\n")
    chunk = json.loads(chat.said[0].removeprefix(b"data: "))
    assert chunk["object"] == "chat.completion.chunk" and chunk["model"] == "qwen"
    assert chunk["choices"][0]["delta"]["reasoning_content"] == "rig is waking, about 30 s left\n"
    assert other.said == [b": rig is waking, about 30 s left\n\n"]


@story
async def test_who_would_rather_come_again_is_told_when_and_the_host_wakes_all_the_same() -> None:
    office = Office(table(), rig=Mode.ASLEEP)
    named = {b"labctl-waiting": b"refuse"}
    exchange, again = office.send(named=named), office.send(named=named)
    await settle()
    for one in (exchange, again):
        status, code, document = said(one)
        assert (status, code) == (503, "waking")
        assert document["detail"] == "rig is being woken, which usually takes 60 s"
        assert one.answered is not None and one.answered.headers == (("Retry-After", "60"),)
    assert len(office.books.waiters) == 1 and office.access.woken == [("anna", "rig")]
    await asyncio.sleep(30)
    office.books.is_now("rig", Mode.READY)
    await settle()
    assert office.idle()
    third = office.send(named=named)
    await settle()
    assert third.at == "rig"


@story
async def test_a_host_that_fails_after_its_clients_were_sent_away_is_not_wished_for_any_more() -> None:
    office = Office(table(), rig=Mode.ASLEEP)
    office.send(named={b"labctl-waiting": b"refuse"})
    await settle()
    assert len(office.books.waiters) == 1
    office.books.is_now("rig", Mode.FAILED)
    await settle()
    assert office.idle()


@story
async def test_the_clients_wish_goes_before_the_models_and_that_before_the_keys() -> None:
    office = Office(table((model(waiting=Waiting.SILENT),)), rig=Mode.ASLEEP)
    silent = office.send(stream=True)
    speaking = office.send(stream=True, named={b"labctl-waiting": b" Comments"})
    await asyncio.sleep(8)
    assert not silent.begun and speaking.begun


@story
async def test_a_stream_hears_that_its_model_is_loaded_until_its_answer_comes() -> None:
    swap = upstream("rig", kind=Kind.LLAMA_SWAP)
    office = Office(table(upstreams=(swap,), served=(Served("qwen", "rig", "qwen", load_s=20.0),)))
    office.books.held.add("rig")
    slow, quick, silent = office.send(stream=True), office.send(stream=True), office.send()
    assert slow.at == "rig"
    await asyncio.sleep(1)
    quick.begun = True  # the upstream answers
    await asyncio.sleep(7)
    assert slow.said == [
        b": rig loads qwen, up to 18 s left\n\n",
        b": rig loads qwen, up to 13 s left\n\n",
    ]
    assert quick.said == [] and not silent.begun
    for exchange in (slow, quick, silent):
        exchange.end()
    await settle()
    assert office.idle() and len(asyncio.all_tasks()) == 1
    again = office.send(stream=True)
    await asyncio.sleep(30)
    assert not again.begun  # it is loaded now


@story
async def test_who_failed_while_it_loaded_is_followed_by_the_next_in_the_same_stream() -> None:
    ups = (upstream("rig", kind=Kind.LLAMA_SWAP), upstream("box"))
    served = (Served("qwen", "rig", "qwen", load_s=20.0), Served("qwen", "box", "qwen"))
    office = Office(table(upstreams=ups, served=served), box=Mode.ASLEEP)
    office.desk.lanes["rig"].asked_at = 1e9
    exchange = office.send(stream=True)
    await asyncio.sleep(3)
    exchange.fail("status", status=503)
    await settle()
    assert exchange.said == [b": rig loads qwen, up to 18 s left\n\n"]
    assert [waiter.host for waiter in office.books.waiters] == ["box"]
    office.books.is_now("box", Mode.READY)
    await settle()
    assert exchange.at == "box"
    exchange.end()
    assert office.idle()


# --- slots


@story
async def test_slots_are_shared_fairly_between_keys() -> None:
    office = Office(table(upstreams=(upstream("rig", slots=2),)))
    greedy = [office.send(key="anna") for _ in range(10)]
    await settle()
    modest = office.send(key="bert")
    await settle()
    assert [bool(exchange.at) for exchange in greedy] == [True] * 2 + [False] * 8 and not modest.at
    greedy[0].end()
    await settle()
    assert greedy[2].at and not modest.at  # anna's first of the line was there before
    greedy[1].end()
    await settle()
    assert modest.at == "rig" and not greedy[3].at
    for exchange in (*greedy, modest):
        await settle()
        exchange.end()
    assert office.idle()


@story
async def test_a_request_waits_in_the_line_of_all_who_are_awake_and_takes_the_first_slot() -> None:
    office = Office(table(upstreams=(upstream("rig", slots=1), upstream("box", slots=1))))
    first, second = office.send(), office.send()
    await settle()
    assert {first.at, second.at} == {"rig", "box"}
    third = office.send(stream=True)
    await asyncio.sleep(3)
    assert third.said == [b": rig is busy, you are next\n\n"]
    second.end()
    await settle()
    assert third.at == second.at
    first.end()
    third.end()
    assert office.idle()
    assert office.meters.records[-1].queued_s == 3.0


@story
async def test_a_line_has_an_end() -> None:
    office = Office(table(upstreams=(upstream("rig", slots=1, queue=1),)))
    exchanges = [office.send() for _ in range(3)]
    await settle()
    status, code, document = said(exchanges[2])
    assert (status, code) == (503, "line-full")
    assert document["detail"] == "rig is busy, and 1 requests of the key anna wait already"


@story
async def test_who_waits_too_long_for_a_slot_is_told_so() -> None:
    office = Office(table(upstreams=(upstream("rig", slots=1),)))
    exchanges = [office.send() for _ in range(2)]
    await asyncio.sleep(121)
    status, code, document = said(exchanges[1])
    assert (status, code, document["detail"]) == (503, "too-busy", "waited 2 min: rig is busy, you are next")
    exchanges[0].end()
    assert office.idle()


@story
async def test_a_slot_that_was_granted_to_a_client_that_left_goes_to_the_next() -> None:
    office = Office(table(upstreams=(upstream("rig", slots=1),)))
    first, second, third = (office.send() for _ in range(3))
    await settle()
    first.end()  # the slot is second's now,
    second.end("left", 0)  # who leaves before it runs
    await settle()
    assert third.at == "rig" and second.targets == []
    third.end()
    assert office.idle()


# --- failing over


@pytest.mark.parametrize("kind", ["connect", "status"])
def test_who_did_not_take_a_request_is_followed_by_somebody_else(kind: str) -> None:
    async def run() -> None:
        office = Office(TWO)
        exchange = office.send()
        await settle()
        exchange.fail(kind)
        await settle()
        assert [target.upstream.name for target in exchange.targets] == ["rig", "box"]
        exchange.end()
        assert office.idle() and office.meters.records[0].tries == 2

    ahead(run())


@pytest.mark.parametrize(
    ("kind", "sent", "status", "code"),
    [
        ("late", False, 504, "upstream-late"),
        ("reset", False, 502, "upstream-hung-up"),
        ("bad", False, 502, "upstream-broken"),
        ("status", True, 502, "upstream-failed"),
    ],
)
def test_what_may_have_begun_elsewhere_is_not_sent_again(
    kind: str, sent: bool, status: int, code: str
) -> None:
    async def run() -> None:
        office = Office(TWO)
        exchange = office.send()
        await settle()
        exchange.fail(kind, "no byte within 600 s", sent=sent)
        seen = said(exchange)
        assert seen[:2] == (status, code) and len(exchange.targets) == 1
        assert seen[2]["detail"] == "rig did not answer: no byte within 600 s"
        assert office.idle()

    ahead(run())


@story
async def test_each_upstream_is_asked_once_and_all_reasons_are_told() -> None:
    office = Office(TWO)
    exchange = office.send()
    await settle()
    exchange.fail("connect", "connection refused")
    await settle()
    exchange.fail("status", "it answered 503", 503)
    await settle()
    status, code, document = said(exchange)
    assert (status, code) == (503, "upstream-unreachable")
    assert document["detail"] == "rig did not answer: connection refused; box did not answer: it answered 503"
    assert office.idle()


@story
async def test_who_did_not_answer_is_avoided_for_a_while_where_others_are() -> None:
    office = Office(TWO)
    exchange = office.send()
    await settle()
    exchange.fail("connect")
    await settle()
    other = office.send()
    await settle()
    assert exchange.at == other.at == "box"
    await asyncio.sleep(5.1)
    office.desk.choosing.sticky.__init__()  # type: ignore[misc]
    assert office.send().at == "rig"


@story
async def test_the_next_host_is_woken_when_the_one_that_is_awake_does_not_answer() -> None:
    office = Office(TWO, box=Mode.ASLEEP)
    exchange = office.send(stream=True)
    await settle()
    assert exchange.at == "rig"
    exchange.fail("connect")
    await asyncio.sleep(3)
    assert [waiter.host for waiter in office.books.waiters] == ["box"] and exchange.begun
    office.books.is_now("box", Mode.READY)
    await settle()
    assert exchange.at == "box"


# --- who is chosen


def _rack(limit_a: float) -> WattRack:
    def host(name: str) -> WattHost:
        return WattHost(name, 100, (Card("gpu0", "k", 400),), (Supply("psu0", 1000, 1.0, circuit="wall"),))

    return WattRack((host("rig"), host("box"), host("nas")), (Circuit("wall", 100, limit_a, 1.0),))


CHEAP = {
    "hosts": (Host("rig", True, True, 90.0, 500.0), Host("box", True, True, 90.0, 200.0)),
    "upstreams": (upstream("rig"), upstream("box")),
}


@pytest.mark.parametrize(
    ("modes", "change", "first"),
    [
        ({}, {}, "rig"),
        ({"rig": Mode.ASLEEP}, {}, "box"),
        ({"rig": Mode.ASLEEP, "box": Mode.WAKING}, {}, "box"),
        ({"rig": Mode.ASLEEP, "box": Mode.ASLEEP}, {}, "rig"),
        ({"rig": Mode.ASLEEP, "box": Mode.ASLEEP}, CHEAP, "box"),  # fewer watts
        ({"rig": Mode.ASLEEP, "box": Mode.ASLEEP}, {"comes": {"box": 20.0}}, "box"),  # sooner
        ({"rig": Mode.UNKNOWN, "box": Mode.ASLEEP}, {}, "box"),
        ({"rig": Mode.FAILED, "box": Mode.ASLEEP}, {}, "box"),
        ({"rig": Mode.DRAINING, "box": Mode.ASLEEP}, {}, "rig"),
    ],
)
def test_the_nearest_host_is_chosen(modes: dict[str, Mode], change: dict[str, Any], first: str) -> None:
    async def run() -> None:
        comes = dict(change).pop("comes", {})
        office = Office(
            table(
                **{
                    name: value
                    for name, value in ({"upstreams": TWO.upstreams} | change).items()
                    if name != "comes"
                }
            ),
            **modes,
        )
        for name, seconds in comes.items():
            office.books.hosts[name] = replace(office.books.hosts[name], comes_s=seconds)
        exchange = office.send()
        await settle()
        assert (exchange.at or office.books.wishes[0][0]) == first

    ahead(run())


@story
async def test_a_wake_that_the_budget_has_no_room_for_comes_last() -> None:
    # Each host draws 500 W; the wall gives 1000 W. nas is awake, and takes half of it.
    models = (model(), model("other"))
    ups = (upstream("rig"), upstream("box"), upstream("nas"))
    served = (Served("qwen", "rig", "qwen"), Served("qwen", "box", "qwen"), Served("other", "nas", "other"))
    tight = table(models, ups, served, watts=_rack(10.0))
    office = Office(tight, rig=Mode.ASLEEP, box=Mode.ASLEEP)
    office.books.is_now("nas", Mode.READY)
    assert office.desk.choosing.fits("rig")
    office.books.is_now("rig", Mode.WAKING)
    assert not office.desk.choosing.fits("box")


@story
async def test_the_host_that_has_the_model_loaded_is_preferred() -> None:
    swap = {"kind": Kind.LLAMA_SWAP}
    ups = (upstream("rig", **swap), upstream("box", **swap))
    served = tuple(Served("qwen", name, "qwen", load_s=30.0) for name in ("rig", "box"))
    office = Office(table(upstreams=ups, served=served))
    office.books.held |= {"rig", "box"}
    for lane in office.desk.lanes.values():
        lane.asked_at = office.desk.mono() + 1e9  # nobody is asked what it has loaded
    office.desk.lanes["box"].served("qwen", 2.0)
    exchange = office.send()
    assert exchange.at == "box"
    exchange.end()
    assert office.desk.loaded("box") == {"qwen"} and office.desk.loaded("rig") == frozenset()


@story
async def test_a_conversation_stays_where_its_cache_is_unless_that_one_has_far_more_to_do() -> None:
    office = Office(TWO)
    office.books.held |= {"rig", "box"}
    talk = b'{"messages":[' + b"x" * 600
    office.send(body=b"y" * 300)  # rig has one more to do, so box is next
    first = office.send(body=talk)
    assert first.at == "box"
    first.end()
    office.send(), office.send()
    assert office.send(body=talk + b" and more").at == "box"
    named = {b"x-session-id": b"s1"}
    assert {office.send(named=named).at for _ in range(3)} == {office.send(named=named).at}
    busy = [office.send(body=talk).at for _ in range(20)]
    assert set(busy) == {"rig", "box"}
    counts = [lane.slots.running for lane in office.desk.lanes.values()]
    assert abs(counts[0] - counts[1]) <= 5


CLOUD = upstream("cloud", "", kind=Kind.OUTSIDE, tls=True)
WITH_CLOUD = table(
    (model(last_resort=("cloud",)),),
    (upstream("rig"), CLOUD),
    served=(Served("qwen", "rig", "qwen"), Served("qwen", "cloud", "big/qwen")),
)


@story
async def test_the_last_resort_is_asked_when_no_host_can_serve_and_the_key_may_go_outside() -> None:
    office = Office(WITH_CLOUD, rig=Mode.ASLEEP)
    exchange, inside = office.send(key="root"), office.send(key="anna")
    await settle()
    assert exchange.at == inside.at == ""
    office.books.is_now("rig", Mode.FAILED, "it is gone")
    await settle()
    assert exchange.at == "cloud" and said(inside)[:2] == (503, "wake-failed")
    assert json.loads(exchange.targets[0].body or b"") == {"model": "big/qwen"}
    exchange.fail("status", "it answered 503", 503)
    await settle()
    status, _, document = said(exchange)
    assert status == 503
    assert document["detail"] == "rig did not come up: it is gone; cloud did not answer: it answered 503"
    assert office.idle()


@story
async def test_the_last_resort_is_asked_when_the_time_to_wait_is_over() -> None:
    office = Office(WITH_CLOUD, rig=Mode.ASLEEP)
    exchange = office.send(key="root", named={b"prefer": b"wait=5"})
    await asyncio.sleep(6)
    assert exchange.at == "cloud" and office.books.waiters == []


@story
async def test_a_model_that_is_served_outside_alone_is_for_keys_that_may_go_there() -> None:
    office = Office(table(upstreams=(CLOUD,)))
    assert office.send(key="root").at == "cloud"
    exchange = office.send(key="anna")
    await settle()
    assert said(exchange)[:2] == (503, "nobody-serves")


# --- the store


@story
async def test_without_the_store_hosts_that_we_hold_or_that_never_sleep_are_served_on() -> None:
    hosts = (Host("rig", True, True, 90.0), Host("nas", False, False, 0.0))
    served = (Served("qwen", "rig", "qwen"), Served("small", "nas", "small"))
    office = Office(table((model(), model("small")), (upstream("rig"), upstream("nas")), served, hosts=hosts))
    office.books.is_now("nas", Mode.READY)
    office.books.held |= {"rig", "nas"}
    office.books.trouble = "disk I/O error"
    assert office.send().at == "rig" and office.send(model="small").at == "nas"
    office.books.held.discard("rig")
    exchange = office.send()
    await settle()
    status, code, document = said(exchange)
    assert (status, code) == (503, "store-unusable")
    assert "disk I/O error" in document["detail"] and "goes on by itself" in document["hint"]
    assert exchange.answered is not None and exchange.answered.headers == (("Retry-After", "5"),)


# --- other names, other doors


@story
async def test_an_alias_is_asked_for_by_the_name_that_the_upstream_knows() -> None:
    served = (Served("qwen", "rig", "Qwen3-8B-Q4"),)
    office = Office(table((model(aliases=("coder",)),), served=served))
    office.books.held.add("rig")
    exchange = office.send(model="coder", body=b'{"model":"coder","temperature":0.10,"n":1e2}')
    assert exchange.targets[0].body == b'{"model":"Qwen3-8B-Q4","temperature":0.10,"n":1e2}'
    form = (
        b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n\r\n'
        b'\r\nContent-Disposition: form-data; name="model"\r\n\r\ncoder\r\n'
        b'--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\ncoder\r\n--xyz\r\n'
    )
    named = {b"content-type": b'multipart/form-data; boundary="xyz"'}
    exchange = office.send("/v1/audio/transcriptions", "coder", body=form, named=named, rest=True)
    head, _, tail = form.rpartition(b"coder")
    assert exchange.targets[0].body == head + b"Qwen3-8B-Q4" + tail
    exchange = office.send("/v1/realtime?model=coder&x=a%20b", "", method="GET", upgrade=True, body=b"")
    assert (exchange.targets[0].path, exchange.targets[0].body) == (
        "/v1/realtime?model=Qwen3-8B-Q4&x=a+b",
        None,
    )
    assert office.meters.records == []
    exchange.end()
    assert office.meters.records[0].model == "qwen"


THROUGH = table(
    upstreams=(
        upstream("rig/swap", "rig", passes=("GET /running", "POST /completion"), wakes=("POST /completion",)),
        upstream("rig/llama", "rig", passes=("POST /slots/*",)),
        upstream("box", passes=()),
    )
)


@story
async def test_an_upstreams_own_paths_are_let_through_as_far_as_the_inventory_says() -> None:
    office = Office(THROUGH)
    office.books.held.add("rig")
    exchange = office.send("/hosts/rig/completion?x=1", rest=True)
    assert (exchange.at, exchange.targets[0].path, exchange.targets[0].body) == (
        "rig/swap",
        "/completion?x=1",
        None,
    )
    assert office.send("/hosts/rig/slots/0?action=save").at == "rig/llama"
    for path, status, code in [
        ("/hosts/rig/props", 403, "not-let-through"),
        ("/hosts/rig/slots/../completion", 403, "not-let-through"),
        ("/hosts/rig/slots/%2e%2e/completion", 403, "not-let-through"),
        ("/hosts/rig", 403, "not-let-through"),
        ("/hosts/box/completion", 403, "not-let-through"),
        ("/hosts/nobody/completion", 404, "no-such-host"),
        ("/hosts/", 404, "no-such-host"),
    ]:
        seen = said(office.send(path))
        assert seen[:2] == (status, code), path
        assert seen[2]["hint"]


@story
async def test_who_only_looks_keeps_no_host_from_going_to_sleep() -> None:
    office = Office(THROUGH, rig=Mode.DRAINING)
    office.books.held.add("rig")
    looks = office.send("/hosts/rig/running", method="GET")
    await settle()
    assert said(looks)[2]["detail"] == "rig is draining, and this path does not wake it"
    assert looks.targets == [] and office.idle()
    asks = office.send("/hosts/rig/completion")
    await settle()
    assert asks.at == "rig/swap"


@story
async def test_below_hosts_only_what_the_inventory_says_wakes() -> None:
    office = Office(THROUGH, rig=Mode.ASLEEP)
    looks = office.send("/hosts/rig/running", method="GET")
    await settle()
    status, code, document = said(looks)
    assert (status, code) == (503, "asleep") and document[
        "detail"
    ] == "rig is asleep, and this path does not wake it"
    assert office.books.wishes == [] and office.access.woken == []
    office.books.is_now("rig", Mode.WAKING)
    looks = office.send("/hosts/rig/running", method="GET")
    await settle()
    assert said(looks)[2]["detail"] == "rig is waking, and this path does not wake it"
    assert office.books.wishes == []
    office.books.is_now("rig", Mode.ASLEEP)
    asks = office.send("/hosts/rig/completion")
    await settle()
    assert office.books.wishes[0][:3] == ("rig", "gateway anna", "/completion was asked for")
    assert asks.answered is None


# --- nothing is ever lost


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "end", "leave", "fail", "late", "mode", "wait", "run", "trouble"]),
        st.integers(0, 7),
    ),
    max_size=40,
)


def _acted(office: Office, live: list[FakeExchange], act: str, which: int) -> None:
    exchange = live[which % len(live)] if live else None
    if act == "send":
        live.append(office.send(key=("anna", "bert", "root")[which % 3], stream=which > 4))
    elif act == "mode":
        mode = (Mode.READY, Mode.ASLEEP, Mode.WAKING, Mode.FAILED)[which // 2]
        office.books.is_now(("rig", "box")[which % 2], mode)
    elif act == "trouble":
        office.books.trouble = "gone" if which > 4 else ""
    elif exchange is None or exchange.over:
        return
    elif act == "leave":
        exchange.end("left", 0)
    elif act == "end" and exchange.life.place is not None:
        exchange.end()
    elif act in ("fail", "late") and exchange.life.place is not None:
        exchange.fail("late" if act == "late" else "connect")


def _leased(office: Office, live: list[FakeExchange]) -> None:
    """Whatever is upstream is counted under a lease of its host, and nothing else is."""
    for name in ("rig", "box"):
        upstream = [one for one in live if not one.over and one.life.place is not None and one.at == name]
        assert office.books.inside.get(name, 0) >= len(upstream)


@settings(max_examples=150, deadline=None)
@given(ACTS)
def test_whatever_happens_each_request_ends_once_and_nothing_stays_held(acts: list[tuple[str, int]]) -> None:
    ups = (upstream("rig", slots=2, queue=3), upstream("box", slots=1), CLOUD)
    served = tuple(Served("qwen", one.name, "qwen") for one in ups)
    rack: Table = table((model(last_resort=("cloud",)),), ups, served)

    async def run() -> None:
        office, live = Office(rack, box=Mode.ASLEEP), list[FakeExchange]()
        for act, which in acts:
            if act == "wait":
                await asyncio.sleep(which * 10)
            elif act == "run":
                await settle()
            else:
                _acted(office, live, act, which)
            _leased(office, live)
        for exchange in live:
            if not exchange.over:
                exchange.end("left", 0)
        await settle()
        await office.desk.close()
        assert office.idle()
        assert len(office.meters.records) == len(live)

    ahead(run())
