"""Clients and upstreams that mean harm, and get no more than their own connection."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest
from proxy_kit import CHAT, CHAT_PATH, Wire, request, run, site, upstream

from labctl.domain.gateway.table import Limits
from labctl.gateway.proxy.client import Client
from labctl.gateway.terms import Answer, Reading

# --- clients that take more than they give ---


def test_a_client_that_asks_ahead_and_reads_nothing_fills_no_memory() -> None:
    """Answers of our own are larger than what asks for them, and some need no key."""

    async def test() -> None:
        async with site() as here:
            here.desk.readings["/"] = Reading.NONE
            here.desk.at_start = lambda exchange: exchange.answer(Answer(200, b"x" * 10_000, "text/html"))
            loop = asyncio.get_running_loop()
            with socket.create_connection(("127.0.0.1", here.port)) as sock:
                sock.setblocking(False)
                many = 4000
                sends = asyncio.ensure_future(loop.sock_sendall(sock, request("GET", "/") * many))
                await here.desk.until(lambda: any(client.full for client in here.proxy.clients))
                await asyncio.wait([sends], timeout=0.2)
                (client,) = here.proxy.clients
                assert client.transport.get_write_buffer_size() < 200_000
                assert len(here.desk.asked) < many / 2
                # It is no refusal: whoever reads gets all of them.
                left = many * len(b"x" * 10_000)
                while left > 0:
                    left -= (await loop.sock_recv(sock, 1 << 20)).count(b"x")
                await sends
                assert len(here.desk.ends) == many

    run(test())


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 400000"])
def test_a_body_in_very_many_pieces_takes_about_the_memory_that_it_is_counted_for(framing: str) -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            await client.say(f"POST {CHAT_PATH} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode())
            await here.desk.until(lambda: bool(here.desk.asked))
            (ours,) = here.proxy.clients
            piece = b"2\r\n  \r\n" if "chunked" in framing else b"  "
            for _ in range(100_000):
                ours.data_received(piece)  # as many reads, which loopback would put together
            assert ours.body_bytes == here.proxy.held == 200_000
            assert isinstance(ours, Client)
            assert sum(map(sys.getsizeof, ours._pieces)) + sys.getsizeof(ours._pieces) < 1_000_000
            rest = CHAT.ljust(200_000)
            await client.say(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest) if "chunked" in framing else rest)
            assert (await client.answer()).status == 200
            assert here.double.seen[-1].body == b" " * 200_000 + rest

    run(test())


def test_bodies_that_are_announced_and_never_sent_keep_nobody_out() -> None:
    async def test() -> None:
        async with site(Limits(json_bytes=1000, held_bytes=1000)) as here:
            for _ in range(3):
                await (await here.client()).say(request("POST", CHAT_PATH, b"x" * 1000)[:-999])
            await here.desk.until(lambda: len(here.desk.asked) == 3)
            assert (await (await here.client()).post(CHAT_PATH, CHAT)).status == 200

    run(test())


@pytest.mark.parametrize("flows", [True, False])
def test_an_upload_whose_form_has_a_second_model_further_on_never_arrives_whole(flows: bool) -> None:
    """A key that may ask for `tiny` alone would get what the second one says, where servers take the last."""
    first = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n--b'
    file = (
        b'\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * 50_000 + b"\r\n--b"
    )
    second = b'\r\nContent-Disposition: form-data; name="model"\r\n\r\nlarge\r\n--b--\r\n'

    async def test() -> None:
        async with site() as here:
            raw = request(
                *("POST", "/v1/audio/transcriptions", first + file + second),
                "Content-Type: multipart/form-data; boundary=b",
            )
            client = await here.client()
            cut = len(raw) - len(second) - len(file) // 2
            await client.say(raw[:cut])
            await here.desk.until(lambda: bool(here.desk.exchanges))
            if flows:
                await here.double.until(lambda: here.double.bytes_in > len(first))
            else:
                (ours,) = here.proxy.clients
                ours.data_received(raw[cut:])
            await client.say(raw[cut:] if flows else b"")
            answer = await client.answer()
            assert answer.status == 400 and b"more than one field `model`" in answer.body
            assert b"large" not in b"".join(bytes(seen.raw) for seen in here.double.seen)

    run(test())


async def passes(client: Wire, ours: Client, seconds: float) -> None:
    """Let time pass since a body's beginning, and one byte of it come then."""
    before = ours.body_bytes
    ours._body_from -= seconds
    await client.say(b"x")
    while ours.body_bytes == before:
        await asyncio.sleep(0)
    ours.look(asyncio.get_running_loop().time())


@pytest.mark.parametrize("path", [CHAT_PATH, "/flow"])
def test_a_body_that_drips_is_not_given_more_time_for_each_byte(path: str) -> None:
    """By default: 10 s, and one more for each KiB that came."""

    async def test() -> None:
        async with site() as here:
            client = await here.client()
            raw = request("POST", path, b" " * 10_000)
            await client.say(raw[: -10_000 + 5 * 1024])
            await here.desk.until(lambda: bool(here.desk.asked))
            (ours,) = here.proxy.clients
            assert isinstance(ours, Client)
            while ours.body_bytes < 5 * 1024:
                await asyncio.sleep(0)
            await passes(client, ours, 14)
            await passes(client, ours, 0.5)
            assert ours.body_bytes == 5 * 1024 + 2, "slow, and quick enough"
            await passes(client, ours, 0.6)
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (408, "close")
            assert b"more slowly than 1024 bytes a second" in answer.body

    run(test())


def test_a_body_that_we_hold_back_has_all_the_time() -> None:
    async def test() -> None:
        async with site() as here:
            here.desk.at_start = lambda exchange: None
            client = await here.client()
            await client.say(request("POST", "/flow", b"x" * 100)[:-90])
            await here.desk.until(lambda: bool(here.desk.exchanges))
            (ours,) = here.proxy.clients
            assert isinstance(ours, Client) and ours._paused
            ours._body_from -= 1000
            ours._paused_at -= 1000
            ours.look(asyncio.get_running_loop().time())
            here.desk.send(here.desk.exchanges[0])
            await here.double.until(lambda: bool(here.double.seen))
            ours.look(asyncio.get_running_loop().time())
            await client.say(b"x" * 90)
            assert (await client.answer()).status == 404, "the double's: it knows no such path"

    run(test())


@pytest.mark.parametrize(
    "lines",
    [
        ("Connection: keep-alive", "Connection: X-Mine, content-type"),
        ("Connection: Upgrade, HTTP2-Settings, x-mine", "Upgrade: h2c", "HTTP2-Settings: AA"),
        ("Connection: Content-Type,\tX-MINE",),
    ],
)
def test_what_any_connection_header_names_ends_here(lines: tuple[str, ...]) -> None:
    async def test() -> None:
        async with site() as here:
            client = await here.client()
            mine = ("X-Mine: 1", "X-Yours: 2", "Content-Type: application/json")
            assert (await client.post(CHAT_PATH, CHAT, *lines, *mine)).status == 200
            names = [name.lower() for name, _ in here.double.seen[-1].headers]
            assert sorted(names) == ["content-length", "content-type", "host", "x-yours"]

    run(test())


# --- upstreams that mean harm ---

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "raw", "passed"),
    [
        ("GET", [HEAD + b"{}" + b"\r\n"], HEAD + b"{}"),
        ("GET", [HEAD, b"{", b"}\r\n\r\n"], HEAD + b"{}"),
        ("GET", [HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"{}\r\n"], HEAD + b"{}"),
        ("HEAD", [HEAD + b"{}"], HEAD),
        ("GET", [b"HTTP/1.1 204 No\r\n\r\n\r\n"], b"HTTP/1.1 204 No\r\n\r\n"),
    ],
)
def test_what_comes_behind_an_answer_is_not_taken_for_the_next_one(
    method: str, raw: list[bytes], passed: bytes
) -> None:
    async def test() -> None:
        async with site() as here:
            here.double.raw.append(raw)
            client = await here.client()
            await client.say(request(method, "/v1/models"))
            got = await client.reader.readexactly(len(passed))
            assert (await client.get("/v1/models")).status == 200
            assert got == passed

    run(test())


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n" + HEAD + b"{}",
        b"HTTP/1.1 100 Continue\r\n\r\n\r\n" + HEAD + b"{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early\r\n\r\n" * 4000,
    ],
)
def test_an_answer_that_others_read_in_another_way_is_none(raw: bytes) -> None:
    async def test() -> None:
        async with site() as here:
            here.double.raw.append([raw])
            client = await here.client()
            assert (await client.get("/v1/models")).status == 502
            assert [failure.kind for failure in here.desk.failures] == ["bad"]
            assert (await client.get("/v1/models")).status == 200

    run(test())


def test_an_upstream_that_answers_before_it_has_read_all_is_not_sent_another_request_behind_it() -> None:
    """It might take the rest of the body for a request of its own, and the next client get that answer."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        connections.append(writer)
        writer.write(HEAD.replace(b"200 OK", b"413 No") + b"{}")
        await writer.drain()
        await asyncio.Event().wait()

    connections: list[asyncio.StreamWriter] = []

    async def test() -> None:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0, limit=1024)
        async with site(more=(upstream(server.sockets[0].getsockname()[1], "hasty"),)) as here:
            here.desk.at_start = lambda exchange: here.desk.send(exchange, 1)
            client = await here.client()
            body = b'{"model": "tiny", "x": "%b"}' % (b"x" * 20_000_000)
            assert (await client.post(CHAT_PATH, body)).status == 413
            assert (await client.post(CHAT_PATH, CHAT)).status == 413
            assert len(connections) == 2
            server.close()
        for one in connections:
            one.transport.abort()

    run(test())
