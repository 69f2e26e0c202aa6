"""The usual: requests in, answers out, to the byte."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from proxy_kit import CHAT, CHAT_PATH, STREAM, certificate, request, run, site


@pytest.mark.parametrize("loops", ["uvloop", "asyncio"])
def test_a_request_reaches_the_upstream_and_its_answer_the_client(loops: str) -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            answer = await client.post(CHAT_PATH, CHAT, "Content-Type: application/json", "X-Mine: a")
            assert answer.status == 200
            assert answer.body == here.double.reply(here.double.seen[0]).body
            seen = here.double.seen[0]
            assert (seen.method, seen.target, seen.body) == ("POST", CHAT_PATH, CHAT)
            assert seen.header("x-mine") == "a"
            ask = here.desk.asked[0]
            assert (ask.model, ask.stream, ask.client) == ("tiny", False, "127.0.0.1")
            end = await here.desk.ended_with(1)
            assert (end.how, end.status, end.bytes_in) == ("served", 200, len(CHAT))
            assert end.tail == answer.body
            assert 0 < end.sent_at <= end.first_at <= end.ended_at

    run(test(), loops=loops)


def test_a_stream_comes_chunk_by_chunk_and_one_connection_serves_many_requests() -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            for _ in range(3):
                answer = await client.post(CHAT_PATH, STREAM)
                assert answer.headers["content-type"] == "text/event-stream"
                assert answer.body == b"".join(here.double.reply(here.double.seen[0]).pieces or [])
                assert (await client.post(CHAT_PATH, CHAT)).status == 200
            assert here.double.connections == 1
            assert all(ask.stream for ask in here.desk.asked[::2])

    run(test())


def test_requests_that_are_sent_ahead_are_answered_in_turn() -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            await client.say(request("POST", CHAT_PATH, CHAT) * 20 + request("GET", "/v1/models"))
            for _ in range(21):
                assert (await client.answer()).status == 200
            assert [seen.method for seen in here.double.seen] == ["POST"] * 20 + ["GET"]

    run(test())


def test_what_is_sent_far_ahead_waits_outside_of_our_memory() -> None:
    async def test() -> None:
        async with site() as here:
            here.double.gate.clear()
            client = await here.client()
            asked = request("POST", CHAT_PATH, CHAT)
            count = 8_000_000 // len(asked)
            sending = asyncio.ensure_future(client.say(asked * count))
            await here.double.until(lambda: len(here.double.seen) == 1)
            (inside,) = here.proxy.clients
            while not inside._paused:
                await asyncio.sleep(0)
            assert len(inside._pending) < 1_000_000
            here.double.gate.set()
            for _ in range(50):
                assert (await client.answer()).status == 200
            sending.cancel()

    run(test())


def test_a_connection_by_tls_serves_and_refuses_as_any_other(tmp_path: Path) -> None:
    certificate(tmp_path, "own")
    server, trust = (
        ssl.create_default_context(p) for p in (ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH)
    )
    server.load_cert_chain(tmp_path / "own.pem", tmp_path / "own.key")
    trust.load_verify_locations(tmp_path / "own.pem")

    async def test() -> None:
        async with site(tls=server) as here:
            client = await here.client(trust)
            for _ in range(2):
                answer = await client.post(CHAT_PATH, STREAM)
                assert answer.body.endswith(b"data: [DONE]\n\n")
            await client.say(request("POST", "/flow", b"x" * 1_000_000))
            assert (await client.answer()).status == 404
            assert here.double.seen[-1].body == b"x" * 1_000_000
            assert (await client.post(CHAT_PATH, b"no json")).status == 400
            assert await client.gone()
            leaving = await here.client(trust)
            here.double.faults.append("endless")
            await leaving.say(request("POST", CHAT_PATH, STREAM))
            await leaving.head()
            leaving.cut()
            await here.double.until(lambda: here.double.cancelled == 1)

    run(test())
