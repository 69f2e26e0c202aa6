"""Clients and upstreams that mean harm, and get no more than their own connection."""

from __future__ import annotations

import asyncio
import socket

from proxy_kit import request, run, site

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
