"""One request and its answer.

An answer goes to the client by one of three ways:

    raw        the upstream's bytes as they are, behind a head without hop-by-hop headers. The usual one.
    decoded    what the chunks contain, for a client of HTTP/1.0, which knows no chunks.
    events     behind a head of our own, when a stream was begun before anybody upstream was asked: the chunks
               of an event stream are passed on raw, one without chunks is put into ours, and anything else
               (an error's JSON) becomes one event.

Until the client has a byte from upstream, whatever goes wrong there is the desk's to judge (``failed``).
After that an answer can only be whole or visibly not: the connection ends without the body's end.

``_finish`` is the one place where an exchange is over; everything leads there once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from labctl.gateway.proxy import heads
from labctl.gateway.proxy.upstream import why_not
from labctl.gateway.terms import Answer, Ask, End, Failure, Target

if TYPE_CHECKING:
    from labctl.gateway.proxy.client import Client
    from labctl.gateway.proxy.upstream import Connection, Pool

_COLLECTED_BYTES = 64 * 1024


class Exchange:
    """See the module's text; ``terms.Exchange`` is what the desk knows of it."""

    __slots__ = (
        *("_collected", "_dialling", "_events", "_framed", "_passing", "_since", "_target", "_tunnel", "_up"),
        *("ask", "begun", "chunked", "client", "declared", "first_at", "life", "over"),
        *("proxy", "sent_at", "sent_rest", "sent_whole", "status", "tunnel_bytes"),
    )

    def __init__(self, client: Client, ask: Ask, declared: int) -> None:
        self.client = client
        self.proxy = client.proxy
        self.ask = ask
        self.declared = declared  # the length that the client said; -1 for chunks
        self.life: Any = None
        self.begun = False
        self.over = False
        self.status = 0
        self.sent_at = 0.0
        self.first_at = 0.0
        self.tunnel_bytes = 0
        self.sent_whole = not ask.rest
        self.sent_rest = False  # what was passed on as it came is not here any more
        self._target: Target | None = None
        self._up: Connection | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._since = 0.0
        self._events = False  # a stream that we began
        self._passing = False  # the client has bytes of the upstream's answer
        self._framed = True  # its end can be told from the connection's end
        self.chunked = False
        self._collected: bytearray | None = None  # what becomes one event
        self._tunnel = False

    # --- the desk's

    def answer(self, answer: Answer) -> None:
        """Answer by ourselves; in a stream that has begun this is an error event, and the stream's end."""
        if self.over:
            return
        up = self._drop()
        if self._passing:
            self._cut("cut", up)
            return
        client = self.client
        if self._events:
            self._write_event(answer.body)
            self._write_end()
        else:
            close = answer.close or self._must_close()
            client.transport.write(heads.answer_bytes(answer, method=self.ask.method, close=close))
        self.begun = True
        self.status = answer.status
        self._finish("answered", b"", len(answer.body))

    def begin_stream(self) -> None:
        """Begin an answer of status 200 that is an event stream, before anybody upstream was asked."""
        if self.over or self.begun:
            return
        self.begun = self._events = True
        self.status = 200
        head = heads.EVENT_STREAM
        if self.ask.version != "1.0":
            head += b"Transfer-Encoding: chunked\r\n"
        if self._must_close():
            head += b"Connection: close\r\n"
        self.client.transport.write(head + b"\r\n")

    def say(self, text: bytes) -> None:
        """Send whole events or comments of the stream that has begun, to a client that reads."""
        if self._events and not (self.over or self._passing or self.client.full):
            self._write(text)

    def forward(self, target: Target) -> None:
        """Send the request to an upstream, and its answer to the client."""
        if self.over or self._passing or self._up is not None or self._dialling is not None:
            return
        proxy = self.proxy
        self._target = target
        self._since = now = proxy.mono()
        pool = proxy.pool(target.upstream)
        # What cannot be sent twice gets a connection that nobody may just have hung up.
        connection = None if self.ask.rest or self.ask.upgrade else pool.take(now)
        if connection is None:
            self._dial(pool)
        else:
            self._send(connection, now)

    # --- the client's

    def left(self, exc: Exception | None) -> None:
        """Stop everything: the client went away."""
        if self._tunnel and exc is None:
            up = self._up
            self._up = None
            if up is not None:
                up.exchange = None
                up.transport.close()
            self._finish("served", b"", self.tunnel_bytes)
        elif not self.over:
            up = self._drop()
            self._finish("left", up.tail() if up else b"", up.body_bytes if up else 0)

    def pass_on(self, piece: bytes) -> None:
        """Pass on what of the body comes after what was read, or what comes through a tunnel."""
        up = self._up
        if up is None:
            return
        self.sent_rest = True
        up.transport.write(piece if self._tunnel or self.declared >= 0 else heads.chunk(piece))

    def passed_all(self) -> None:
        """Pass on that the body is complete."""
        self.sent_whole = True
        if self.declared < 0 and self._up is not None:
            self._up.transport.write(heads.CHUNK_END)

    def hold(self) -> None:
        """Take nothing more from upstream: the client doesn't read."""
        if self._up is not None:
            self._up.hold()

    def go_on(self) -> None:
        """Take more again."""
        if self._up is not None:
            self._up.go_on()

    def look(self, now: float) -> None:
        """End what takes too long."""
        target = self._target
        if target is None or self.over:
            return
        taken = now - self._since
        if taken > target.whole_s and self._passing:
            self._cut("late", self._drop())
        elif not self._passing and taken > min(target.first_byte_s, target.whole_s):
            self._fail("late", f"{target.upstream.name} said nothing within {target.first_byte_s:g} s")

    # --- the upstream connection's

    def headed(self, up: Connection, head: bytes, rest: bytes) -> bool:
        """Pass on the head of an answer and what came with it; False when this connection is done with."""
        target = self._target
        if target is None:
            return False
        status = up.status
        if status == 101:
            return self._switch(up, head, rest)
        if status in target.again:
            self._fail("status", f"{target.upstream.name} answered {status}", status)
            return False
        lower = head.lower()
        said = heads.telling(lower)
        self.chunked = b"transfer-encoding:" in said
        if self.chunked and not heads.sound_coding(lower, said):
            self._fail("bad", f"{target.upstream.name} framed its answer in a way that not all understand")
            return False
        self.status = status
        self._framed = self.chunked or b"content-length:" in said or up.done
        if up.done and not self.chunked:
            rest = up.within(rest, up.body_bytes)
        if self._events:
            self._join(up, lower, rest)
            return True
        decoded = self.chunked and self.ask.version == "1.0"
        if decoded or not self._framed or self.ask.upgrade:
            self.client.keep = False
        head = heads.relayed(head, said=said, close=self._must_close(), decoded=decoded)
        self.begun = self._passing = True
        up.raw = not decoded
        self.client.transport.write(head + rest if rest and not decoded else head)
        return True

    def decoded(self, pieces: list[bytes]) -> None:
        """Pass on pieces of a body that isn't passed on raw."""
        if self._collected is None:
            if pieces:
                self._passing = True
                self._write(b"".join(pieces))
        elif len(self._collected) < _COLLECTED_BYTES:
            self._collected += b"".join(pieces)

    def tunnelled(self, data: bytes) -> None:
        """Pass on what comes through a tunnel."""
        self.tunnel_bytes += len(data)
        self.client.transport.write(data)

    def served(self, tail: bytes, body_bytes: int) -> None:
        """Finish: the upstream's answer is whole."""
        self._up = None
        if self._events:
            if self._collected is not None:
                self._write_event(bytes(self._collected))
            if self._collected is not None or not self.chunked:
                self._write_end()
        self._finish("served", tail, body_bytes)

    def lost(self, up: Connection, exc: Exception | None) -> None:
        """Judge what it means that the upstream's connection is gone."""
        self._up = None
        if self._tunnel:
            self._finish("served" if exc is None else "cut", b"", self.tunnel_bytes)
        elif up.through:
            if exc is None and not self._framed:
                self.served(up.tail(), up.body_bytes)
            else:
                self._cut("cut", up)
        elif up.reused and not up.heard:
            # It hung up in the instant in which it was used: the request was hardly read. A new connection
            # is not one that was used before, so this happens once.
            self._dial(up.pool)
        else:
            name = up.pool.upstream.name
            self._fail("reset", f"{name} hung up before it answered" + (f" ({exc})" if exc else ""))

    def nonsense(self) -> None:
        """Judge an answer that is no HTTP, or more than one."""
        up = self._drop()
        if up is not None and up.through:
            self._cut("cut", up)
        elif up is not None:
            self._fail("bad", f"what {up.pool.upstream.name} said is no HTTP answer")

    def upstream_full(self) -> None:
        """Take nothing more from the client: the upstream doesn't read."""
        if self._tunnel or not self.sent_whole:
            self.client.hold()

    def upstream_ready(self) -> None:
        """Take more again."""
        if self._tunnel or not self.sent_whole:
            self.client.go_on()

    # --- its own

    def _dial(self, pool: Pool) -> None:
        self._dialling = self.proxy.loop.create_task(self._connect(pool))

    async def _connect(self, pool: Pool) -> None:
        within_s = self.proxy.limits.connect_s
        try:
            connection = await pool.dial(within_s)
        except OSError as error:
            self._dialling = None
            self._fail("connect", f"{pool.upstream.name} {why_not(error, within_s)}")
            return
        self._dialling = None
        if self.over:
            connection.cut()
        else:
            self._send(connection, self.proxy.mono())

    def _send(self, up: Connection, now: float) -> None:
        ask, target = self.ask, self._target
        if target is None:
            return
        body = ask.body if target.body is None else target.body
        if ask.upgrade:
            framing = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        elif not ask.rest:
            framing = b"Content-Length: %d\r\n" % len(body) if body or ask.method in heads.WITH_BODY else b""
        elif self.declared >= 0:
            framing = b"Content-Length: %d\r\n" % (self.declared - len(ask.body) + len(body))
        else:
            framing = b"Transfer-Encoding: chunked\r\n"
            body = heads.chunk(body)
        head = b"%b %b HTTP/1.1\r\n%b%b%b%b\r\n" % (
            ask.method.encode(),
            target.path.encode(),
            up.pool.host_line,
            heads.passed_on(ask) if ask.lines is None else ask.lines,
            heads.credentials(ask, target) if target.key else b"",
            framing,
        )
        self._up = up
        self.sent_at = now
        up.start(self, head, body)
        if self.client.full:
            up.hold()
        if ask.rest:
            self.client.flow()

    def _switch(self, up: Connection, head: bytes, rest: bytes) -> bool:
        if not self.ask.upgrade:
            self._drop()
            self._fail("bad", f"{up.pool.upstream.name} switched to another protocol unasked")
            return False
        self.status = 101
        self.begun = self._passing = self._tunnel = True
        self.first_at = self.proxy.mono()
        up.tunnel = True
        self.tunnel_bytes = len(rest)
        self.client.transport.write(head + rest)
        self.client.become_tunnel()
        return False

    def _join(self, up: Connection, lower: bytes, rest: bytes) -> None:
        """Let an answer go on in the stream that we began."""
        up.raw = False
        if up.status != 200 or b"\r\ncontent-type: text/event-stream" not in lower:
            self._collected = bytearray()
        elif self.chunked and self.ask.version != "1.0":
            up.raw = self._passing = True
            if rest:
                self.client.transport.write(rest)

    def _must_close(self) -> bool:
        """Return whether the client's connection ends with this answer, and see to it."""
        client = self.client
        if self.proxy.draining or not self.sent_whole:
            client.keep = False
        return not client.keep

    def _write(self, data: bytes) -> None:
        if self.ask.version != "1.0":
            data = heads.chunk(data)
        self.client.transport.write(data)

    def _write_event(self, body: bytes) -> None:
        name = b"event: error\n" if self.ask.path.endswith("/messages") else b""
        self._write(b"%bdata: %b\n\n" % (name, body.strip().replace(b"\r", b"").replace(b"\n", b"\ndata: ")))

    def _write_end(self) -> None:
        if self.ask.version != "1.0":
            self.client.transport.write(heads.CHUNK_END)

    def _drop(self) -> Connection | None:
        """Cut what goes on upstream, and return it."""
        if self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None
        up = self._up
        if up is not None:
            self._up = None
            up.cut()
        return up

    def _fail(self, kind: str, text: str, status: int = 0) -> None:
        self._drop()
        self._target = None
        if not self.over:
            self.client.stop_flow()
            self.proxy.failed(self, Failure(kind, text, status, self.sent_rest))

    def _cut(self, how: str, up: Connection | None = None) -> None:
        """End an answer that is not whole so that the client sees it."""
        if self._framed and self.ask.version != "1.0":
            self.client.transport.close()  # what came is delivered, and its end is missing
        else:
            self.client.transport.abort()
        self.client.keep = False
        self._finish(how, up.tail() if up else b"", up.body_bytes if up else 0)

    def _finish(self, how: str, tail: bytes, body_bytes: int) -> None:
        if self.over:
            return
        self.over = True
        self._target = None
        client = self.client
        now = self.proxy.mono()
        self.proxy.ended(
            self, End(how, self.status, self.sent_at, self.first_at, now, client.body_bytes, body_bytes, tail)
        )
        self.life = None  # it knows this exchange: nobody has to find out that both are garbage
        client.done(now)
