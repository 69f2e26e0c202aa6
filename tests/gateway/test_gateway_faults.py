"""Upstreams that fail at each point, and clients that leave at each point."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from proxy_kit import CHAT, CHAT_PATH, STREAM, Truncated, request, run, site

from labctl.domain.gateway.table import Limits
from labctl.gateway.terms import Exchange, Failure

QUICK = Limits(head_s=0.4, body_s=0.4, idle_s=0.4, connect_s=2.0)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("hang-up", "reset", "up0 hung up before it answered"),
        ("half-head", "reset", "up0 hung up before it answered"),
        ("no-http", "bad", "what up0 said is no HTTP answer"),
    ],
)
def test_an_upstream_that_dies_before_an_answer_is_replaced_by_the_next(
    fault: str, kind: str, words: str
) -> None:
    async def test() -> None:
        async with site(doubles=2) as here:
            here.double.faults.append(fault)
            client = await here.client()
            answer = await client.post(CHAT_PATH, CHAT)
            assert answer.status == 200
            assert [(f.kind, f.text, f.sent) for f in here.desk.failures] == [(kind, words, False)]
            assert here.doubles[1].seen[0].body == CHAT

    run(test())


def test_a_status_that_another_may_do_better_counts_as_a_failure() -> None:
    async def test() -> None:
        async with site(doubles=2) as here:
            here.desk.target["again"] = frozenset({503})
            here.double.faults.append("status:503")
            client = await here.client()
            assert (await client.post(CHAT_PATH, CHAT)).status == 200
            assert here.desk.failures == [Failure("status", "up0 answered 503", 503)]
            here.double.faults.append("status:429")  # that one is the client's to see
            assert (await client.post(CHAT_PATH, CHAT)).status == 429

    run(test())


def test_an_upstream_where_nothing_listens_fails_at_once() -> None:
    async def test() -> None:
        async with site() as here:
            await here.double.stop()
            client = await here.client()
            answer = await client.post(CHAT_PATH, CHAT)
            assert answer.status == 502
            failure = here.desk.failures[0]
            assert (failure.kind, failure.text) == (
                "connect",
                "up0 refuses connections: nothing listens there",
            )

    run(test())


def test_an_upstream_that_says_nothing_in_time_is_late() -> None:
    async def test() -> None:
        async with site(QUICK) as here:
            here.desk.target["first_byte_s"] = 0.1
            here.double.faults.append("silent")
            client = await here.client()
            assert (await client.post(CHAT_PATH, CHAT)).status == 502
            assert here.desk.failures == [Failure("late", "up0 said nothing within 0.1 s")]
            await here.double.until(lambda: here.double.cancelled == 1)

    run(test())


def test_an_answer_that_takes_too_long_is_cut_and_the_client_sees_it() -> None:
    async def test() -> None:
        async with site(QUICK, pace_s=0.001) as here:
            here.desk.target["whole_s"] = 0.1
            here.double.faults.append("endless")
            client = await here.client()
            with pytest.raises(Truncated):
                await client.post(CHAT_PATH, STREAM)
            assert (await here.desk.ended_with(1)).how == "late"
            await here.double.until(lambda: here.double.cancelled == 1)

    run(test())


@pytest.mark.parametrize("fault", ["cut-after-head", "cut-between", "cut-in-chunk"])
def test_an_upstream_that_dies_under_way_leaves_an_answer_that_is_visibly_not_whole(fault: str) -> None:
    async def test() -> None:
        async with site(doubles=2) as here:
            here.double.faults.append(fault)
            client = await here.client()
            with pytest.raises(Truncated):
                await client.post(CHAT_PATH, STREAM)
            end = await here.desk.ended_with(1)
            assert (end.how, end.status) == ("cut", 200)
            assert here.doubles[1].seen == [], "nobody is asked twice after the first byte"

    run(test())


def test_a_body_of_known_length_that_breaks_off_is_visibly_not_whole() -> None:
    async def test() -> None:
        async with site() as here:
            here.double.raw.append([b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome of it"])
            client = await here.client()
            await client.say(request("POST", CHAT_PATH, CHAT))
            await client.head()
            assert await client.reader.readexactly(10) == b"some of it"
            await here.double.stop()
            assert await client.gone()
            assert (await here.desk.ended_with(1)).how == "cut"

    run(test())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    ],
    ids=["two answers", "too much", "two lengths", "bare line feeds", "a switch", "a large head"],
)
def test_an_answer_that_is_not_exactly_one_never_reaches_the_client(answer: bytes) -> None:
    async def test() -> None:
        async with site() as here:
            here.double.raw.append([answer])
            client = await here.client()
            assert (await client.post(CHAT_PATH, CHAT)).status == 502
            assert [failure.kind for failure in here.desk.failures] == ["bad"]
            assert (await client.post(CHAT_PATH, CHAT)).status == 200

    run(test())


def test_a_connection_that_the_upstream_closed_meanwhile_costs_nobody_a_request() -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            for count in range(1, 11):
                here.double.faults.append("close-quietly")
                assert (await client.post(CHAT_PATH, CHAT)).status == 200
                assert len(here.double.seen) == count
            assert here.desk.failures == []

    run(test())


def test_a_request_on_a_kept_connection_that_breaks_is_sent_once_more_and_no_more() -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            assert (await client.post(CHAT_PATH, CHAT)).status == 200
            here.double.faults.append("hang-up")
            assert (await client.post(CHAT_PATH, CHAT)).status == 200
            assert here.desk.failures == []
            here.double.faults.extend(["hang-up", "hang-up"])
            assert (await client.post(CHAT_PATH, CHAT)).status == 502
            assert [failure.kind for failure in here.desk.failures] == ["reset"]

    run(test())


def test_connections_to_a_host_that_goes_to_sleep_are_not_used_again() -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            assert (await client.post(CHAT_PATH, CHAT)).status == 200
            here.proxy.drop("other")
            assert (await client.post(CHAT_PATH, CHAT)).status == 200
            assert here.double.connections == 1
            here.proxy.drop("box")
            assert (await client.post(CHAT_PATH, CHAT)).status == 200
            assert here.double.connections == 2
            here.double.gate.clear()
            await client.say(request("POST", CHAT_PATH, CHAT))
            await here.double.until(lambda: len(here.double.seen) == 4)
            here.proxy.drop("box")  # what is under way goes on
            here.double.gate.set()
            assert (await client.answer()).status == 200
            assert (await client.post(CHAT_PATH, CHAT)).status == 200
            assert here.double.connections == 3

    run(test())


# --- clients that leave ---


@pytest.mark.parametrize("fault", ["silent", "head-only", "endless"])
@pytest.mark.parametrize("loops", ["uvloop", "asyncio"])
def test_a_client_that_leaves_ends_what_goes_on_upstream(fault: str, loops: str) -> None:
    async def test() -> None:
        async with site(pace_s=0.001) as here:
            here.double.faults.append(fault)
            client = await here.client()
            await client.say(request("POST", CHAT_PATH, STREAM))
            await here.double.until(lambda: len(here.double.seen) == 1)
            if fault != "silent":
                await client.head()
                if fault == "endless":
                    await client.chunk()
            client.cut()
            await here.double.until(lambda: here.double.cancelled == 1)
            end = await here.desk.ended_with(1)
            assert (end.how, end.bytes_out > 0, bool(end.tail)) == (
                "left",
                fault == "endless",
                fault == "endless",
            )

    run(test(), loops=loops)


def test_a_client_that_leaves_while_it_waits_is_noticed_with_its_connection_still_being_made() -> None:
    async def test() -> None:
        async with site() as here:
            here.desk.at_start = lambda exchange: None  # it waits, perhaps for a wake
            client = await here.client()
            await client.say(request("POST", CHAT_PATH, CHAT))
            await here.desk.until(lambda: len(here.desk.exchanges) == 1)
            client.cut()
            assert (await here.desk.ended_with(1)).how == "left"
            exchange = here.desk.exchanges[0]
            here.desk.send(exchange)  # what comes after the end does nothing
            exchange.say(b": hello\n\n")
            assert here.double.connections == 0

    run(test())


def test_a_client_that_does_not_read_holds_the_upstream_and_not_our_memory() -> None:
    async def test() -> None:
        async with site() as here:
            big = b"x" * 65536
            chunk = b"%x\r\n%b\r\n" % (len(big), big)
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            here.double.raw.append([head] + [chunk] * 1000 + [b"0\r\n\r\n"])  # 64 MB
            client = await here.client()
            client.writer.transport.pause_reading()
            await client.say(request("POST", CHAT_PATH, CHAT))
            await here.desk.until(lambda: len(here.desk.exchanges) == 1)
            (inside,) = here.proxy.clients
            while not inside.full:
                await asyncio.sleep(0)
            for _ in range(200):  # as much as would come
                await asyncio.sleep(0)
            waiting = inside.transport.get_write_buffer_size()
            assert waiting < 2 * 1024 * 1024
            client.writer.transport.resume_reading()
            answer = await client.answer()
            assert len(answer.body) == 1000 * len(big)

    run(test())


# --- to the byte ---

ANSWERS = {
    "length": b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"ok": "y"}',
    "chunks": b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"
    b"5;e=1\r\nab\r\nc\r\n0\r\nT: r\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 201 Created\r\n"
    b"Content-Length: 1\r\n\r\nx",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_arrives_to_the_byte_wherever_it_was_cut(name: str) -> None:
    async def test() -> None:
        raw = ANSWERS[name]
        expected = raw[raw.rindex(b"HTTP/1.1 ") :]
        async with site() as here:
            client = await here.client()
            for at in range(1, len(raw)):
                here.double.raw.append([raw[:at], raw[at:]])
                await client.say(request("POST", CHAT_PATH, CHAT))
                async with asyncio.timeout(5):
                    assert await client.reader.readexactly(len(expected)) == expected
            assert here.double.connections == 1
            assert here.desk.failures == []

    run(test())


def test_hop_by_hop_headers_end_at_the_gateway_in_both_directions() -> None:
    async def test() -> None:
        async with site() as here:
            here.double.raw.append(
                [
                    b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\n"
                    b"X-Hop: 1\r\n"
                    b"Proxy-Authenticate: Basic\r\nX-Stay: 2\r\nContent-Length: 2\r\n\r\nok"
                ]
            )
            client = await here.client()
            answer = await client.post(
                *(
                    CHAT_PATH,
                    CHAT,
                    "Connection: keep-alive, X-Mine",
                    "X-Mine: 1",
                    "Keep-Alive: 5",
                    "TE: trailers",
                ),
                *("Proxy-Authorization: Basic x", "Authorization: Bearer secret", "x-api-key: secret"),
                *("Accept-Encoding: gzip", "X-Other: 2"),
            )
            assert answer.headers == {"x-stay": "2", "content-length": "2"}
            names = {name.lower() for name, _ in here.double.seen[0].headers}
            assert names == {"host", "content-length", "x-other"}

    run(test())


def test_the_upstream_gets_its_own_key_and_never_the_clients() -> None:
    async def test() -> None:
        async with site(key="theirs") as here:
            here.desk.target["key"] = "theirs"
            client = await here.client()
            answer = await client.post(CHAT_PATH, CHAT, "Authorization: Bearer mine")
            assert answer.status == 200
            assert here.double.seen[0].header("authorization") == "Bearer theirs"
            assert here.double.seen[0].header("x-api-key") == "theirs"

    run(test())


def test_a_body_that_ends_with_its_connection_is_passed_on_and_the_client_told() -> None:
    async def test() -> None:
        async with site() as here:
            here.double.faults.append("to-the-end")
            client = await here.client()
            answer = await client.post(CHAT_PATH, STREAM)
            assert answer.headers["connection"] == "close"
            assert answer.body == b"".join(here.double.reply(here.double.seen[0]).pieces or [])
            assert (await here.desk.ended_with(1)).how == "served"

    run(test())


def test_http_1_0_gets_the_same_body_without_chunks_and_a_closed_connection() -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            await client.say(request("POST", CHAT_PATH, STREAM).replace(b"HTTP/1.1", b"HTTP/1.0"))
            answer = await client.answer()
            assert "transfer-encoding" not in answer.headers
            assert answer.body == b"".join(here.double.reply(here.double.seen[0]).pieces or [])

    run(test())


def test_head_is_answered_without_a_body_and_the_connection_goes_on() -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            for _ in range(2):
                await client.say(request("HEAD", "/v1/models"))
                answer = await client.answer("HEAD")
                assert (answer.status, int(answer.headers["content-length"]) > 0) == (200, True)

    run(test())


def test_a_bug_in_the_desk_is_an_answer_and_a_line_in_the_log() -> None:
    async def test() -> None:
        async with site() as here:
            trouble: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: trouble.append(context))

            def break_down(_: Exchange) -> None:
                raise ZeroDivisionError("a bug")

            here.desk.at_start = break_down
            client = await here.client()
            answer = await client.post(CHAT_PATH, CHAT)
            assert answer.status == 500
            assert b"the gateway has a bug" in answer.body
            assert b"ZeroDivision" not in answer.body
            assert [type(context["exception"]) for context in trouble] == [ZeroDivisionError]

    run(test())


def test_an_upstream_that_takes_no_connection_in_time_is_told_with_its_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        async with site(replace(QUICK, connect_s=0.05)) as here:
            loop = asyncio.get_running_loop()
            monkeypatch.setattr(here.proxy.pool(here.desk.upstreams[0]), "_loop", _Deaf(loop))
            client = await here.client()
            assert (await client.post(CHAT_PATH, CHAT)).status == 502
            assert here.desk.failures == [Failure("connect", "up0 took no connection within 0.05 s")]

    run(test())


class _Deaf:
    """A loop whose connections are never made, as to a host that drops all packets."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    async def create_connection(self, *_: object, **__: object) -> None:
        await asyncio.Event().wait()
