"""A client's connection: what the transport, the round and the exchange tell it."""

from __future__ import annotations

import asyncio

from labctl.gateway.proxy import bodies, heads, sockets
from labctl.gateway.proxy.exchange import Exchange
from labctl.gateway.proxy.incoming import Incoming
from labctl.gateway.proxy.known import Known
from labctl.gateway.proxy.outbox import Line
from labctl.gateway.proxy.watch import Watched
from labctl.gateway.proxy.wire import BODY, BUSY, HEAD, LINGER, TUNNEL
from labctl.gateway.refusals import problem
from labctl.gateway.terms import Answer, Ask, Reading

WHOLE = Reading.WHOLE  # looked up once: that takes longer than it should
_AHEAD_BYTES = 64 * 1024
_LINGER_BYTES = 4 * 1024 * 1024
_TOLD = 16


class Client(Incoming):
    """One connection of a client."""

    __slots__ = ("_bucket",)

    _bucket: set[Watched]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a first request."""
        proxy = self.proxy
        self.transport = Line(transport, proxy.outbox)  # type: ignore[arg-type]
        peer = transport.get_extra_info("peername")
        self._name = str(peer[0]) if peer else ""
        self._bucket = proxy.round.add(self)
        self._deadline = proxy.loop.time() + proxy.limits.head_s
        proxy.clients.add(self)
        over = len(proxy.clients) - proxy.limits.clients
        if over > max(_TOLD, proxy.limits.clients // 4):
            self.transport.abort()  # who is told stays for a moment, and upstreams need descriptors as well
        elif over > 0:
            self.refuse(503, "too-many-clients", f"{proxy.limits.clients} connections are open already")

    def data_received(self, data: bytes) -> None:
        """Take what comes, each byte in the phase that it belongs to."""
        phase = self._phase
        if phase is HEAD or phase is BODY:
            if phase is BODY or self.full or self._known is None or not self._take_known(self._known, data):
                self._take(data)
        elif phase is BUSY:
            self._pending += data
            if len(self._pending) > _AHEAD_BYTES:
                self.hold()
        elif phase is TUNNEL:
            self.body_bytes += len(data)
            if self.exchange is not None:
                self.exchange.pass_on(data)
        else:
            self._silent += len(data)
            if self._silent > _LINGER_BYTES:
                self.transport.abort()

    def pause_writing(self) -> None:
        """Let the upstream wait, since the client doesn't read."""
        self.full = True
        if self.exchange is not None:
            self.exchange.hold()

    def resume_writing(self) -> None:
        """Let the upstream go on."""
        self.full = False
        if self.exchange is not None:
            self.exchange.go_on()
        elif self._phase is HEAD and not self._taking:
            self._take_pending()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop what was done for it."""
        self._phase = LINGER
        self._bucket.discard(self)
        exchange = self.exchange
        if exchange is not None:
            exchange.left(exc)
        self._release()
        self.proxy.gone(self)
        del self._parser  # each holds the other: nobody has to find out that both are garbage

    # --- told by the round

    def look(self, now: float) -> None:
        """End what takes too long."""
        if self.exchange is not None:
            self.exchange.look(now)
        if self._paused and sockets.peer_has_left(self.transport):
            self.transport.abort()
            return
        phase = self._phase
        if now < self._deadline or phase is BUSY or phase is TUNNEL:
            return
        if phase is HEAD and not self._head_bytes:
            self._close()
        elif phase is HEAD:
            self.refuse(408, "too-slow", f"no whole head came within {self.proxy.limits.head_s:g} s")
            self._close()
        elif phase is LINGER:
            self.transport.abort()
        elif not self._paused:
            self._stalled()

    def _stalled(self) -> None:
        limits = self.proxy.limits
        if self._deadline < self._body_from + limits.body_s + self.body_bytes / limits.body_rate:
            words = f"nothing of the body came for {limits.body_s:g} s"
        else:
            words = f"the body came more slowly than {limits.body_rate:g} bytes a second"
        exchange = self.exchange
        if exchange is None:
            self.refuse(408, "too-slow", words)
            self._close()
        elif exchange.begun:
            self.transport.abort()
        else:
            exchange.answer(problem(408, "too-slow", words))

    # --- told by the exchange

    def done(self, now: float) -> None:
        """Go on to the next request, or hang up: the answer was given."""
        self.exchange = None
        self._flowing = False
        self._release()
        if self._phase is LINGER or self.transport.is_closing():
            self._phase = LINGER
            self._deadline = now + self.proxy.limits.idle_s
        elif self._phase is BODY:
            self._linger()
        elif not self.keep or self._phase is TUNNEL:
            self._close()
        else:
            self._begin()
            self._deadline = now + self.proxy.limits.idle_s
            if self._pending and not self._taking:
                self._take_pending()

    def flow(self) -> None:
        """Let the rest of the body go to the upstream that was found."""
        exchange = self.exchange
        if exchange is None:
            return
        self._flowing = True
        if self._expects and not self._complete:
            self._expects = False
            self.transport.write(heads.CONTINUE)
        self.go_on()
        self._pass_on()
        if self._complete and self._flowing:
            exchange.passed_all()

    def stop_flow(self) -> None:
        """Keep the rest of the body back: that upstream failed."""
        self._flowing = False
        if self._phase is BODY:
            self.hold()

    def drain(self) -> None:
        """Hang up as soon as nothing is under way."""
        self.keep = False
        if self._phase is HEAD and not self._head_bytes:
            self._close()

    def become_tunnel(self) -> None:
        """Pass on bytes from now, whatever they are."""
        self._phase = TUNNEL
        data, self._pending = self._pending, b""
        if data:
            self.data_received(data)
        self.go_on()

    # --- its own

    def _take_pending(self) -> None:
        """Go on with what came ahead of its turn."""
        data, self._pending = self._pending, b""
        self.go_on()
        self._take(data)

    def _take_known(self, last: Known, data: bytes) -> bool:
        """Take a request, or its head alone, whose head is the last one's; False: it has to be read."""
        at, length = last.found(data)
        more = len(data) - at
        if self._head_bytes or not at or not length or more not in (0, length):
            return False
        proxy = self.proxy
        self._head_bytes = at
        self._headed = self._unparsed = True
        self.body_bytes = 0
        self._left = self._declared = length
        ask = self._ask = Ask(
            proxy.next_id(),
            last.method,
            last.target,
            last.path,
            last.query,
            "1.1",
            last.headers,
            last.named,
            self._name,
            proxy.mono(),
        )
        if last.lines is None:
            last.lines = heads.passed_on(ask)
        ask.lines = last.lines
        reading = proxy.head(ask)
        if reading is WHOLE and more and length <= proxy.limits.json_bytes:
            self._take_whole(ask, data[at:])
            return True
        self._read_on(reading, length, more=more > 0)
        if more:
            self._take(data[at:])
        elif self._phase is BODY:
            self._wait_for_body()
        return True

    def _take_whole(self, ask: Ask, body: bytes) -> None:
        """Begin with a request that is here to its last byte, and nothing after it."""
        self._awaited = True
        if not self._hold_bytes(len(body)):
            return
        self._complete = self._taking = True
        self._left = 0
        self.body_bytes = len(body)
        try:
            ask.model, ask.stream, body = bodies.peek(body)
        except bodies.Unreadable as error:
            self.refuse(400, "bad-body", str(error))
        else:
            self._start(body)
        self._taking = False

    def _start(self, body: bytes, *, rest: bool = False) -> None:
        ask = self._ask
        ask.body = body
        ask.rest = rest
        self._awaited = False
        exchange = self.exchange = Exchange(self, ask, self._declared)
        if not rest:
            self._phase = BUSY
        self.proxy.start(exchange)
        if rest and self.exchange is exchange and not self._flowing:
            self.hold()

    def _reply(self, answer: Answer) -> None:
        """Give an answer for which no exchange was begun."""
        unread = not self._complete
        if unread or answer.close or self.proxy.draining:
            self.keep = False
        method = self._ask.method if self._headed else ""
        self.transport.write(heads.answer_bytes(answer, method=method, close=not self.keep))
        if unread:
            self._linger()
        elif self.keep:
            self._begin()
            self._deadline = self.proxy.loop.time() + self.proxy.limits.idle_s
        else:
            self._close()
