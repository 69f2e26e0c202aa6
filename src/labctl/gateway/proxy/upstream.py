"""Connections to upstreams, and the pool of those that wait for a next request.

A connection carries one exchange at a time. What comes back is read by the parser (where does the answer end,
is it HTTP at all) and passed on as it came: the bytes between head and end are the upstream's own.

A pool gives the connection that was used last, since a server closes the one that was idle longest first.
``IDLE_S`` is below the 5 s after which the servers of our engines (uvicorn, cpp-httplib) hang up. The one
that does so all the same, in the instant in which it is used, is noticed by the exchange, which tries anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from typing import TYPE_CHECKING

import httptools

from labctl.domain.gateway.table import Upstream
from labctl.gateway.proxy import sockets
from labctl.gateway.proxy.outbox import Line, Outbox

if TYPE_CHECKING:
    from labctl.gateway.proxy.exchange import Exchange

IDLE_S = 4.0
IDLE_AT_MOST = 128
HEAD_BYTES = 64 * 1024
BEGIN_BYTES = 1024
TAIL_BYTES = 4 * 1024
_KEPT_BYTES = 2 * TAIL_BYTES


class Connection(asyncio.Protocol):
    """One connection to an upstream."""

    __slots__ = (
        *("_head", "_interim", "_kept", "_parser", "_tail"),
        *("body_bytes", "done", "exchange", "extra", "full", "generation", "headed", "idle_since", "keep"),
        *("patient", "paused", "pieces", "pool", "raw", "reused", "status", "through", "transport", "tunnel"),
    )

    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.generation = pool.generation
        self._parser = httptools.HttpResponseParser(self)
        self.exchange: Exchange | None = None
        self.idle_since = 0.0
        self.reused = False
        self.full = False
        self.paused = False
        self.patient = False
        self.tunnel = False
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headed = False  # the head of the answer is complete
        self.through = False  # ... and was passed on
        self.done = False
        self.extra = False  # something came after the answer's end
        self.keep = False
        self.raw = True  # its body is passed on as it comes
        self.pieces: list[bytes] = []  # of the body, where it isn't passed on raw
        self.body_bytes = 0
        self._head = b""
        self._interim = 0
        self._tail: list[bytes] = []
        self._kept = 0

    # --- asked by the exchange

    def start(self, exchange: Exchange, request: bytes, body: bytes) -> None:
        """Send a request; ``body`` is what of it was read, as it goes on the wire."""
        self.exchange = exchange
        if len(body) > sockets.LARGE or exchange.ask.rest:
            self.patient = True
            sockets.be_patient(self.transport, sockets.PATIENT_S)
            self.transport.write(request)
            self.transport.write(body)
        else:
            self.transport.write(request + body)

    def cut(self) -> None:
        """End it at once, and tell nobody."""
        self.exchange = None
        self.transport.abort()

    def hold(self) -> None:
        """Read no more for now, since the client doesn't."""
        if not self.paused:
            self.paused = True
            self.transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if self.paused:
            self.paused = False
            self.transport.resume_reading()

    @property
    def heard(self) -> bool:
        """Return whether anything of an answer came."""
        return bool(self._head or self._interim or self.headed)

    def within(self, data: bytes, size: int) -> bytes:
        """Return what of the data belongs to an answer of which so many bytes came with it, the last ones.

        What follows is nobody's: the client would take it for the beginning of its next answer.
        """
        if len(data) > size:
            self.keep = False
        return data[:size]

    def tail(self) -> bytes:
        """Return the beginning of the answer's body, and at least the last ``TAIL_BYTES`` of it."""
        return b"".join(self._tail)

    # --- told by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self.transport = Line(transport, self.pool.outbox)  # type: ignore[arg-type]
        sockets.tune_upstream(transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what comes."""
        exchange = self.exchange
        if exchange is None:  # nobody asked for anything
            self.transport.abort()
            return
        if self.tunnel:
            exchange.tunnelled(data)
            return
        before = self.body_bytes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # status 101, which the exchange judges by its head
        except httptools.HttpParserError:
            self.extra = True
        if self.extra:
            exchange.nonsense()
            return
        if self.through:
            if self.raw:
                if self.done and not exchange.chunked:
                    data = self.within(data, self.body_bytes - before)
                exchange.client.transport.write(data)
            else:
                exchange.decoded(self.pieces)
                self.pieces = []
        elif not self._take_head(exchange, data):
            return
        if self.body_bytes and not exchange.first_at:
            exchange.first_at = exchange.proxy.mono()
        if self.done:
            self._finish(exchange)

    def pause_writing(self) -> None:
        """Hold the client that uploads."""
        self.full = True
        if self.exchange is not None:
            self.exchange.upstream_full()

    def resume_writing(self) -> None:
        """Let it go on."""
        self.full = False
        if self.exchange is not None:
            self.exchange.upstream_ready()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the exchange that it serves, or leave the pool."""
        exchange = self.exchange
        self.exchange = None
        if exchange is not None:
            exchange.lost(self, exc)
        else:
            self.pool.forget(self)
        del self._parser  # each holds the other: nobody has to find out that both are garbage

    # --- told by the parser

    def on_message_begin(self) -> None:
        """Notice a second answer to one request."""
        if self.done:
            self.extra = True

    def on_headers_complete(self) -> None:
        """Note the status; the bytes are the exchange's."""
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            self._interim += 1
            return
        self.status = status
        self.headed = True
        self.keep = self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        """Count, and keep the last for who wants to know the use of tokens."""
        self.body_bytes += len(piece)
        if not self.raw or not self.through:
            self.pieces.append(piece)
        self._tail.append(piece)
        self._kept += len(piece)
        if self._kept > _KEPT_BYTES:
            whole = b"".join(self._tail)
            self._tail = [whole[:BEGIN_BYTES], whole[-TAIL_BYTES:]]
            self._kept = BEGIN_BYTES + TAIL_BYTES

    def on_message_complete(self) -> None:
        """Note the end."""
        if self.headed:
            self.done = True

    # ---

    def _take_head(self, exchange: Exchange, data: bytes) -> bool:
        """Pass the head on with what of the body came with it; False when there is nothing more to do."""
        if self._head:
            data = self._head + data
        if not self.headed:
            self._head = data
            if len(data) > HEAD_BYTES:
                exchange.nonsense()
            return False
        for _ in range(self._interim):  # 100, 103: between us and the upstream
            data = data[data.index(b"\r\n\r\n") + 4 :]
        if not data.startswith(b"HTTP/1."):  # the parser skips empty lines, which others don't
            exchange.nonsense()
            return False
        self._head = b""
        if self.patient and not self.tunnel:
            self.patient = False
            sockets.be_patient(self.transport, sockets.SILENT_S)
            if self.transport.get_write_buffer_size():
                self.keep = False  # it may never read the rest, or take it for the next request
        cut = data.index(b"\r\n\r\n") + 4
        if exchange.ask.method == "HEAD":  # the parser cannot know that no body comes
            self.done = True
            self.keep = False
            self.body_bytes = 0
        self.through = True
        if not exchange.headed(self, data[:cut], data[cut:]):
            return False
        if not self.raw:
            exchange.decoded(self.pieces)
        self.pieces = []
        return True

    def _finish(self, exchange: Exchange) -> None:
        self.exchange = None
        tail, body_bytes = self.tail(), self.body_bytes
        if self.keep and exchange.sent_whole:
            self._reset()
            self.go_on()
            self.pool.give(self, exchange.proxy.mono())
        else:
            self.transport.close()
        exchange.served(tail, body_bytes)


class Pool:
    """The connections to one upstream that wait for a request, and how new ones are made."""

    __slots__ = ("_idle", "_loop", "_tls", "generation", "host_line", "outbox", "upstream")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        upstream: Upstream,
        tls: ssl.SSLContext | None,
        outbox: Outbox,
    ) -> None:
        self._loop = loop
        self.outbox = outbox
        self._tls = tls
        self._idle: deque[Connection] = deque()
        self.upstream = upstream
        self.generation = 0
        name = f"[{upstream.address}]" if ":" in upstream.address else upstream.address
        port = "" if upstream.port == (443 if upstream.tls else 80) else f":{upstream.port}"
        self.host_line = f"Host: {name}{port}\r\n".encode()

    def take(self, now: float) -> Connection | None:
        """Return a connection that waits, if there is one that may still be open."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if now - connection.idle_since < IDLE_S and not connection.transport.is_closing():
                return connection
            connection.transport.close()
        return None

    async def dial(self, within_s: float) -> Connection:
        """Return a new connection.

        Raises:
            OSError: there is none; TimeoutError is one of them, and so are failures of TLS.
        """
        upstream = self.upstream
        async with asyncio.timeout(within_s):
            _, connection = await self._loop.create_connection(
                lambda: Connection(self),
                upstream.address,
                upstream.port,
                ssl=self._tls,
                server_hostname=upstream.address if self._tls else None,
            )
        return connection

    def give(self, connection: Connection, now: float) -> None:
        """Take back a connection whose answer is whole."""
        if connection.generation != self.generation or len(self._idle) >= IDLE_AT_MOST:
            connection.transport.close()
            return
        connection.reused = True
        connection.idle_since = now
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """Let go of a connection that is closed."""
        if connection.reused:
            with contextlib.suppress(ValueError):
                self._idle.remove(connection)

    def sweep(self, now: float) -> None:
        """Close those that waited too long; they stand in the order in which they came."""
        idle = self._idle
        while idle and now - idle[0].idle_since >= IDLE_S:
            idle.popleft().transport.close()

    def drop(self) -> None:
        """Close all that wait, and let no connection of now wait again: its host is going to sleep."""
        self.generation += 1
        while self._idle:
            self._idle.pop().transport.close()


def why_not(error: OSError, within_s: float) -> str:
    """Return in words why there is no connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"shows a certificate that does not hold: {error.verify_message}"
    if isinstance(error, ConnectionRefusedError):
        return "refuses connections: nothing listens there"
    if isinstance(error, TimeoutError):
        return f"took no connection within {within_s:g} s"
    return f"cannot be reached: {error.strerror or error}"
