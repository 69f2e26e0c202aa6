"""Streams that begin before anybody upstream was asked, websockets, slow clients, and how a gateway ends."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest
from proxy_kit import (
    CHAT,
    CHAT_PATH,
    STREAM,
    Site,
    Truncated,
    Wire,
    certificate,
    request,
    run,
    site,
    upstream,
)
from upstream_double import Double, frame, read_frame

from labctl.domain.gateway.table import Kind, Limits
from labctl.gateway.refusals import problem
from labctl.gateway.terms import Exchange

QUICK = Limits(head_s=0.4, body_s=0.4, idle_s=0.4, drain_s=5.0)


def waits_first(here: Site) -> None:
    """Let every request begin its stream with two comments."""

    def begin(exchange: Exchange) -> None:
        exchange.begin_stream()
        assert exchange.begun
        exchange.say(b": waking, 9 s left\n\n")
        exchange.say(b": waking, 4 s left\n\n")
        here.desk.send(exchange)

    here.desk.at_start = begin


COMMENTS = b": waking, 9 s left\n\n: waking, 4 s left\n\n"


@pytest.mark.parametrize("fault", ["none", "to-the-end", "close"])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_stream_that_began_early_goes_on_with_the_upstreams_events(fault: str, version: bytes) -> None:
    async def test() -> None:
        async with site() as here:
            waits_first(here)
            here.double.faults.append(fault)
            client = await here.client()
            await client.say(request("POST", CHAT_PATH, STREAM).replace(b"HTTP/1.1", b"HTTP/" + version))
            answer = await client.answer()
            assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
            assert answer.body == COMMENTS + b"".join(here.double.reply(here.double.seen[0]).pieces or [])
            end = await here.desk.ended_with(1)
            assert (end.how, end.status) == ("served", 200)
            assert end.tail.endswith(b"data: [DONE]\n\n")
            if version == b"1.1":
                assert (await client.post(CHAT_PATH, STREAM)).status == 200, "the connection goes on"

    run(test())


def test_an_error_of_the_upstream_becomes_an_event_of_the_stream_that_began() -> None:
    async def test() -> None:
        async with site() as here:
            waits_first(here)
            here.double.faults.append("status:500")
            client = await here.client()
            answer = await client.post(CHAT_PATH, STREAM)
            assert answer.body.startswith(COMMENTS + b"data: {")
            event = json.loads(answer.body[len(COMMENTS) :].removeprefix(b"data: "))
            assert event["error"]["message"] == "this is a status:500"
            assert (await here.desk.ended_with(1)).status == 500

    run(test())


@pytest.mark.parametrize(("path", "name"), [(CHAT_PATH, b""), ("/v1/messages", b"event: error\n")])
def test_a_refusal_in_a_stream_that_began_is_its_last_event(path: str, name: bytes) -> None:
    async def test() -> None:
        async with site() as here:
            no = problem(503, "wake-failed", "box did not wake", host="box")

            def begin(exchange: Exchange) -> None:
                exchange.begin_stream()
                exchange.say(b": waking\n\n")
                exchange.answer(no)
                exchange.say(b": too late\n\n")
                exchange.answer(no)

            here.desk.at_start = begin
            client = await here.client()
            answer = await client.post(path, STREAM)
            assert answer.body == b": waking\n\n" + name + b"data: " + no.body + b"\n\n"
            end = await here.desk.ended_with(1)
            assert (end.how, end.status) == ("answered", 503)
            assert (await client.post(path, STREAM)).status == 200

    run(test())


def test_the_next_upstream_is_asked_while_the_stream_has_comments_only() -> None:
    async def test() -> None:
        async with site(doubles=2) as here:
            waits_first(here)
            here.double.faults.append("hang-up")
            client = await here.client()
            answer = await client.post(CHAT_PATH, STREAM)
            assert answer.body.endswith(b"data: [DONE]\n\n")
            assert len(here.doubles[1].seen) == 1

    run(test())


@pytest.mark.parametrize("fault", ["cut-between", "cut-in-chunk"])
def test_a_stream_that_began_early_and_breaks_is_visibly_not_whole(fault: str) -> None:
    async def test() -> None:
        async with site() as here:
            waits_first(here)
            here.double.faults.append(fault)
            client = await here.client()
            with pytest.raises(Truncated):
                await client.post(CHAT_PATH, STREAM)
            assert (await here.desk.ended_with(1)).how == "cut"

    run(test())


def test_the_tail_is_the_beginning_and_the_last_of_the_body_without_its_chunks() -> None:
    async def test() -> None:
        async with site() as here:
            body = b"".join(b"data: %06d\n\n" % number for number in range(3000))
            chunks = [b"%x\r\n%b\r\n" % (14, body[at : at + 14]) for at in range(0, len(body), 14)]
            here.double.raw.append(
                [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"".join(chunks), b"0\r\n\r\n"]
            )
            client = await here.client()
            assert (await client.post(CHAT_PATH, STREAM)).body == body
            end = await here.desk.ended_with(1)
            assert end.bytes_out == len(body)
            assert 5120 <= len(end.tail) <= 16384
            assert body.startswith(end.tail[:1024]) and body.endswith(end.tail[-4096:])

    run(test())


# --- websockets and other protocols ---

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: AAAA",
    "Sec-WebSocket-Version: 13",
)


@pytest.mark.parametrize("loops", ["uvloop", "asyncio"])
def test_a_websocket_passes_frames_both_ways_and_counts_as_one_request(loops: str) -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            first = frame(1, b"sent ahead", mask=b"abcd")
            await client.say(request("GET", "/v1/realtime?model=tiny", None, *UPGRADE) + first)
            assert (await client.head())[0] == 101
            assert await read_frame(client.reader.readexactly) == (1, b"sent ahead")
            for size in (0, 125, 200, 70_000):
                await client.say(frame(2, b"x" * size, mask=b"abcd"))
                assert await read_frame(client.reader.readexactly) == (2, b"x" * size)
            assert here.desk.asked[0].upgrade and not here.desk.ends
            await client.say(frame(8, b"", mask=b"abcd"))
            assert await read_frame(client.reader.readexactly) == (8, b"")
            assert await client.gone()
            end = await here.desk.ended_with(1)
            assert (end.how, end.status) == ("served", 101)
            assert end.bytes_in > 70_000 and end.bytes_out > 70_000

    run(test(), loops=loops)


def test_a_websocket_ends_upstream_when_its_client_goes() -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            await client.say(request("GET", "/v1/realtime?model=tiny", None, *UPGRADE))
            assert (await client.head())[0] == 101
            client.writer.close()
            assert (await here.desk.ended_with(1)).how == "served"
            await here.double.until(lambda: not here.double.open)

    run(test())


def test_a_websocket_that_the_upstream_refuses_is_an_answer_as_any_other() -> None:
    async def test() -> None:
        async with site() as here:
            here.double.raw.append([b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"])
            client = await here.client()
            answer = await client.get("/v1/realtime?model=tiny", *UPGRADE)
            assert (answer.status, answer.body, answer.headers["connection"]) == (403, b"no", "close")
            assert await client.gone()

    run(test())


@pytest.mark.parametrize("body", [CHAT, None], ids=["with a body", "without"])
def test_an_offer_of_http_2_is_passed_over(body: bytes | None) -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            offer = (
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                "HTTP2-Settings: AAMAAABkAAQAAP__",
            )
            method, path = ("POST", CHAT_PATH) if body else ("GET", "/v1/models")
            for _ in range(2):
                await client.say(request(method, path, body, *offer))
                assert (await client.answer()).status == 200
            assert [seen.body for seen in here.double.seen] == [body or b""] * 2
            assert here.double.seen[0].header("upgrade") is None

    run(test())


def test_a_websocket_with_a_body_is_refused() -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            await client.say(request("GET", "/v1/realtime", b"abc", *UPGRADE))
            answer = await client.answer()
            assert answer.status == 400
            assert b"a websocket begins with a GET without a body" in answer.body

    run(test())


# --- slow and many ---


def test_half_heads_and_stalled_bodies_go_while_others_are_served() -> None:
    """600 clients that never finish: each is told, and let go; a healthy one never waits for them."""

    async def test() -> None:
        async with site(replace(QUICK, head_s=0.3, body_s=0.3)) as here:
            slow: list[Wire] = []
            for number in range(600):
                client = await here.client()
                raw = request("POST", CHAT_PATH, CHAT)
                await client.say(raw[:30] if number < 500 else raw[:-5])
                slow.append(client)
            healthy = await here.client()
            took: list[float] = []
            gone = asyncio.gather(*(client.end() for client in slow))
            while not gone.done():
                began = time.perf_counter()
                assert (await healthy.post(CHAT_PATH, CHAT)).status == 200
                took.append(time.perf_counter() - began)
            said, served = gone.result(), len(took)
            assert all(b"HTTP/1.1 408 " in words for words in said)
            assert b"no whole head came within 0.3 s" in said[0]
            assert b"nothing of the body came for 0.3 s" in said[-1]
            assert served > 10 and sorted(took)[int(0.99 * served)] < 0.5, sorted(took)[-5:]
            assert here.desk.ends and len(here.desk.exchanges) == served

    run(test())


def test_a_head_that_drips_is_not_given_more_time_for_each_byte() -> None:
    async def test() -> None:
        async with site(replace(QUICK, head_s=0.2)) as here:
            client = await here.client()
            raw = request("POST", CHAT_PATH, CHAT)
            with pytest.raises((ConnectionError, AssertionError)):
                for byte in raw:
                    await client.say(bytes([byte]))
                    await asyncio.sleep(0.02)
                    assert not client.reader.at_eof()
            assert here.desk.asked == []

    run(test())


def test_an_upload_that_stalls_is_told_and_its_upstream_cut() -> None:
    async def test() -> None:
        async with site(QUICK) as here:
            client = await here.client()
            await client.say(request("POST", "/flow", b"x" * 1000)[:-500])
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (408, "close")
            end = await here.desk.ended_with(1)
            assert (end.how, end.status) == ("answered", 408)
            await here.double.until(lambda: here.double.cancelled == 1)

    run(test())


def test_a_connection_that_is_idle_is_closed_without_a_word() -> None:
    async def test() -> None:
        async with site(replace(QUICK, idle_s=0.2)) as here:
            client = await here.client()
            assert (await client.post(CHAT_PATH, CHAT)).status == 200
            assert await client.end() == b""

    run(test())


def test_more_clients_than_allowed_are_told_so() -> None:
    async def test() -> None:
        async with site(Limits(clients=2)) as here:
            first, second = await here.client(), await here.client()
            assert (await first.post(CHAT_PATH, CHAT)).status == 200
            assert (await second.post(CHAT_PATH, CHAT)).status == 200
            third = await here.client()
            answer = await third.answer()
            assert answer.status == 503
            assert b"2 connections are open already" in answer.body
            storm = [await here.client() for _ in range(40)]
            ends = await asyncio.gather(*(one.end() for one in storm), return_exceptions=True)
            assert any(isinstance(end, ConnectionError) or not end for end in ends), "not all are told"
            assert any(isinstance(end, bytes) and b" 503 " in end for end in ends)
            assert (await first.post(CHAT_PATH, CHAT)).status == 200

    run(test())


# --- the end ---


def test_a_drain_lets_answers_finish_and_idle_clients_go() -> None:
    async def test() -> None:
        async with site() as here:
            idle, busy, asking = await here.client(), await here.client(), await here.client()
            assert (await idle.post(CHAT_PATH, CHAT)).status == 200
            await asking.say(request("POST", CHAT_PATH, CHAT)[:40])
            here.double.gate.clear()
            await busy.say(request("POST", CHAT_PATH, STREAM))
            await here.double.until(lambda: len(here.double.seen) == 2)
            draining = asyncio.ensure_future(here.proxy.drain())
            assert await idle.gone()
            assert not draining.done()
            here.double.gate.set()
            answer = await busy.answer()
            assert answer.headers["connection"] == "close"
            assert answer.body.endswith(b"data: [DONE]\n\n")
            await asking.say(request("POST", CHAT_PATH, CHAT)[40:])
            answer = await asking.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            late = await here.client()  # accepted a moment before the listener closed
            assert (await late.post(CHAT_PATH, CHAT)).headers["connection"] == "close"
            await draining

    run(test())


def test_a_drain_that_takes_too_long_cuts_what_is_left() -> None:
    async def test() -> None:
        async with site(replace(QUICK, drain_s=0.1)) as here:
            here.double.faults.append("silent")
            client = await here.client()
            await client.say(request("POST", CHAT_PATH, CHAT))
            await here.double.until(lambda: len(here.double.seen) == 1)
            await here.proxy.drain()
            assert await client.gone()
            assert (await here.desk.ended_with(1)).how == "left"

    run(test())


# --- TLS outside ---


def test_an_upstream_outside_is_asked_by_tls_and_its_certificate_checked(tmp_path: Path) -> None:
    for name in ("good", "other"):
        certificate(tmp_path, name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "good.pem", tmp_path / "good.key")

    async def test() -> None:
        async with Double(tls=context, key="cloud") as cloud:
            outside = {"kind": Kind.OUTSIDE, "address": "localhost", "host": "", "tls": True}
            trusted = upstream(cloud.port, "cloud", ca_file="good.pem", **outside)
            strange = upstream(cloud.port, "strange", ca_file="other.pem", **outside)
            async with site(folder=tmp_path, more=(trusted, strange)) as here:
                here.desk.target["key"] = "cloud"
                client = await here.client()
                here.desk.at_start = lambda exchange: here.desk.send(exchange, 1)
                for _ in range(2):
                    answer = await client.post(CHAT_PATH, STREAM, "Authorization: Bearer mine")
                    assert answer.body.endswith(b"data: [DONE]\n\n")
                assert cloud.connections == 1
                assert cloud.seen[0].header("host") == f"localhost:{cloud.port}"
                assert cloud.seen[0].header("authorization") == "Bearer cloud"
                assert cloud.seen[0].header("x-api-key") is None
                here.desk.at_start = lambda exchange: here.desk.send(exchange, 2)
                assert (await client.post(CHAT_PATH, CHAT)).status == 502
                (failure,) = here.desk.failures
                assert failure.kind == "connect"
                assert failure.text.startswith("strange shows a certificate that does not hold: ")

    run(test())
