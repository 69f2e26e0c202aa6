"""Clients and upstreams that mean harm, and get no more than their own connection."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest
from proxy_kit import CHAT, CHAT_PATH, request, run, site

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
