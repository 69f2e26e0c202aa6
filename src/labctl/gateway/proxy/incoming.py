"""Requests as they come in: where one ends, what it asks, and how much of it is kept.

Where a request ends is known before the parser (llhttp, strict) sees what comes after it: a head ends with
its first empty line, a body of known length after so many bytes, and chunks end at an empty line too. The
parser is fed exactly to such a point, so that of requests that were sent ahead (pipelining) the second is not
looked at before the first is answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httptools

from labctl.gateway.proxy import bodies, heads
from labctl.gateway.proxy.known import Known, known
from labctl.gateway.proxy.wire import BODY, BUSY, HEAD, Wire
from labctl.gateway.refusals import problem
from labctl.gateway.terms import Answer, Ask, Reading

if TYPE_CHECKING:
    from labctl.gateway.proxy.exchange import Exchange
    from labctl.gateway.proxy.proxy import Proxy

_END = b"\r\n\r\n"


class Incoming(Wire):
    """The side of a client's connection that reads; ``client.Client`` is the whole."""

    __slots__ = (
        *(
            "_ask",
            "_awaited",
            "_complete",
            "_declared",
            "_ending",
            "_expects",
            "_flowing",
            "_form",
            "_head_bytes",
        ),
        *("_headed", "_headers", "_known", "_left", "_limit", "_parser", "_pending", "_pieces", "_reading"),
        *("_silent", "_taking", "_unparsed", "_url", "exchange"),
    )

    _ask: Ask
    _form: bodies.Form

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(proxy)
        self.exchange: Exchange | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._pending = b""  # came ahead of its turn
        self._taking = False
        self._reading = Reading.NONE
        self._expects = False  # the client waits for 100 before it sends the body
        self._declared = 0  # the body's length, -1 for chunks
        self._left = 0  # how much of it is to come
        self._limit = 0
        self._silent = 0  # bytes of chunks that brought no body
        self._known: Known | None = None  # the last head
        self._flowing = False  # pieces go straight on to an upstream
        self._begin()

    def _begin(self) -> None:
        """Be ready for a next request."""
        self._phase = HEAD
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._headed = False
        self._awaited = False  # the desk waits for the body
        self._complete = False
        self._unparsed = False  # the parser has not seen the head, and shall not see its body
        self._head_bytes = 0
        self._ending = b""  # the last bytes that were fed, where an empty line could have begun
        self._pieces: list[bytes | bytearray] = []  # of the body

    # --- told by the parser

    def on_url(self, url: bytes) -> None:
        """Keep the target of the request line, which may come in pieces."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; those behind a body's chunks come here too, and are forgotten."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Note it; what it means is judged when the parser has returned."""
        self._headed = True
        # Not later: without a body the message ends in the same call, and the parser forgets it.
        self.keep = self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body."""
        self.body_bytes += len(piece)
        if self._reading is not Reading.NONE:
            bodies.keep(self._pieces, piece)

    def on_message_complete(self) -> None:
        """Note it."""
        self._complete = True

    # --- its own: heads

    def _take(self, data: bytes) -> None:
        self._taking = True
        while data:
            phase = self._phase
            if phase is HEAD and not self.full:
                data = self._take_head(data)
            elif phase is BODY:
                data = self._take_body(data)
            elif phase is HEAD or phase is BUSY:
                self._pending = data
                if phase is HEAD:  # answers to what it asks next would pile up here: it doesn't read them
                    self.hold()
                break
            else:  # it is lingering, or a tunnel
                self._taking = False
                self.data_received(data)
                return
        self._taking = False
        if self._phase is BODY:
            self._wait_for_body()

    def _take_head(self, data: bytes) -> bytes:
        """Feed a head until its empty line; return what comes after it."""
        ending = self._ending
        found = (ending + data).find(_END) if ending else data.find(_END)
        if found < 0:
            piece, rest = data, b""
        else:
            cut = found + len(_END) - len(ending)
            piece, rest = data[:cut], data[cut:]
        limits = self.proxy.limits
        if not self._head_bytes:
            self._deadline = self.proxy.loop.time() + limits.head_s
        self._head_bytes += len(piece)
        if self._head_bytes > limits.head_bytes:
            self.refuse(431, "head-too-large", f"the head is larger than {limits.head_bytes} bytes")
            return b""
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            pass  # the head is complete, and what comes next is not this parser's
        except httptools.HttpParserError as error:
            self.refuse(400, "bad-request", f"the request is no HTTP/1.1: {error}")
            return b""
        if self._headed:
            whole = self._head_bytes == len(piece)
            self._head_done(more=bool(rest))
            if whole and self.keep and self._phase is not HEAD:
                self._known = known(piece, self._ask)
        else:
            self._ending = b"" if found >= 0 else (ending + piece)[-3:]
        return rest

    def _head_done(self, *, more: bool) -> None:
        """Ask the desk what to do with it; ``more``: some of its body is here already."""
        try:
            length = self._read_head()
            if length is None:
                self._read_anew()
                length = self._read_head() or 0
        except heads.Unfit as unfit:
            self.refuse(unfit.status, unfit.code, str(unfit))
            return
        self._read_on(self.proxy.head(self._ask), length, more=more)

    def _read_on(self, reading: Reading | Answer, length: int, *, more: bool) -> None:
        """Do as the desk says; ``more``: some of the body is here already."""
        if isinstance(reading, Answer):
            self._reply(reading)
            return
        self._awaited = True
        try:
            self._begin_body(reading, length, more=more)
        except bodies.Unreadable as error:
            self.refuse(400, "bad-body", str(error))

    def _read_head(self) -> int | None:
        """Make an ``Ask`` of a head, and return its body's length; None: it asks for another protocol.

        Raises:
            Unfit: it is refused.
        """
        parser, proxy = self._parser, self.proxy
        headers, self._headers = self._headers, []
        if len(headers) > proxy.limits.headers:
            raise heads.Unfit(431, "head-too-large", f"the head has more than {proxy.limits.headers} headers")
        method = heads.METHODS.get(parser.get_method())
        if method is None:
            raise heads.Unfit(501, "unknown-method", "this method is not known here")
        version = parser.get_http_version()
        named = heads.first_of_each(headers)
        heads.check_version(version, named)
        target = heads.target_of(self._url, method)
        length = heads.body_length(named, version)
        upgrade = b"upgrade" in named and parser.should_upgrade()
        if upgrade and named[b"upgrade"].lower() != b"websocket":
            self._headers = headers
            return None
        if upgrade and (length or method != "GET"):
            raise heads.Unfit(400, "bad-request", "a websocket begins with a GET without a body")
        expects = named.get(b"expect")
        if expects is not None and expects.lower() != b"100-continue":
            raise heads.Unfit(417, "unknown-expectation", "the only Expect known here is 100-continue")
        self._expects = expects is not None and version == "1.1"
        self.keep = version == "1.1" and not upgrade and self.keep
        path, _, query = target.partition("?")
        self.body_bytes = 0
        self._left = self._declared = length
        self._ask = Ask(
            *(proxy.next_id(), method, target, path, query, version, headers, named),
            *(self._name, proxy.mono(), upgrade),
        )
        return length

    def _read_anew(self) -> None:
        """Read the head once more, without its wish for another protocol, which nobody here speaks."""
        method, version = self._parser.get_method().decode(), self._parser.get_http_version()
        head = heads.without_upgrade(method, self._url, self._headers, version)
        self._begin()
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(head)

    # --- its own: bodies

    def _begin_body(self, reading: Reading, length: int, *, more: bool) -> None:
        limits = self.proxy.limits
        self._reading = reading
        if self._complete:
            self._start(b"")
            return
        if reading is Reading.FORM:
            boundary = bodies.boundary_of(self._ask.named.get(b"content-type", b""))
            if boundary:
                self._form = bodies.Form(boundary)
            else:
                self._reading = reading = Reading.WHOLE
        streams = reading in (Reading.FORM, Reading.FLOW)
        self._limit = limits.upload_bytes if streams else limits.json_bytes
        if length > self._limit:
            words = f"the body is larger than {self._limit} bytes"
            self.refuse(413, "too-large", words)
            return
        # It is counted as it comes: what somebody announces and never sends must not keep others out.
        if reading is Reading.WHOLE and self.proxy.held + length > limits.held_bytes:
            self._too_many_bodies()
            return
        self._phase = BODY
        self._body_from = self.proxy.loop.time()
        self._silent = 0
        self._ending = b""
        if reading is Reading.FLOW:
            self._start(b"", rest=True)
        elif self._expects and not more:
            self._expects = False
            self.transport.write(heads.CONTINUE)

    def _take_body(self, data: bytes) -> bytes:
        """Feed a body until its end; return what comes after it."""
        rest = b""
        try:
            if self._left >= 0:
                if len(data) > self._left:
                    data, rest = data[: self._left], data[self._left :]
                self._left -= len(data)
                if self._unparsed:
                    self.on_body(data)
                    self._complete = not self._left
                else:
                    self._parser.feed_data(data)
                self._took(len(data))
            else:
                rest = self._take_chunks(data)
        except httptools.HttpParserError as error:
            self._fail_body(400, "bad-request", f"the body's chunks are none: {error}")
        except bodies.Unreadable as error:
            self._fail_body(400, "bad-body", str(error))
        self._pass_on()
        return rest

    def _pass_on(self) -> None:
        """Pass on what came now, where it goes straight on: in one, since chunks may be small."""
        exchange = self.exchange
        if not self._flowing or not self._pieces or exchange is None:
            return
        pieces, self._pieces = self._pieces, []
        piece = bodies.joined(pieces)
        if self._reading is Reading.FORM:
            try:
                self._form.watch(piece)
            except bodies.Unreadable as error:
                self._fail_body(400, "bad-body", str(error))
                return
        exchange.pass_on(piece)

    def _take_chunks(self, data: bytes) -> bytes:
        """Feed chunks up to each empty line, since the last of them is the body's end."""
        view, at, ending = memoryview(data), 0, self._ending
        while at < len(data) and self._phase is BODY and not self._complete:
            found = (ending + data[:3]).find(_END) - len(ending) if ending and not at else -4
            if found < -3:
                found = data.find(_END, max(0, at - 3))
                end = found + len(_END) if found >= 0 else len(data)
            else:
                end = found + len(_END)
            before = self.body_bytes
            self._parser.feed_data(view[at:end])
            self._silent = 0 if self.body_bytes > before else self._silent + end - at
            at = end
            if self._silent > self.proxy.limits.head_bytes:
                self._fail_body(431, "head-too-large", "what stands between the body's chunks is too large")
            else:
                self._took(self.body_bytes - before)
        self._ending = (ending + data)[-3:] if len(data) < 3 else data[-3:]
        return data[at:]

    def _took(self, size: int) -> None:
        """Go on after some of the body was read."""
        exchange, reading = self.exchange, self._reading
        if self.body_bytes > self._limit:
            self._fail_body(413, "too-large", f"the body is larger than {self._limit} bytes")
        elif reading is Reading.WHOLE:
            if self._hold_bytes(size):
                self._read_whole()
        elif exchange is not None:
            if self._complete:
                self._phase = BUSY
                self._pass_on()
                if self._flowing:
                    exchange.passed_all()
        elif reading is Reading.FORM:
            if self._hold_bytes(size):
                self._read_form()
        elif self._complete:
            self._start(b"")

    def _read_whole(self) -> None:
        if not self._complete:
            return
        pieces, self._pieces = self._pieces, []
        body = bodies.joined(pieces)
        ask = self._ask
        if body:
            ask.model, ask.stream, body = bodies.peek(body)
        self._start(body)

    def _read_form(self) -> None:
        pieces, self._pieces = self._pieces, []
        model = self._form.feed(b"".join(pieces))
        if model is not None or self._complete:
            self._ask.model = model or ""
            body = self._form.read
            if self._complete:
                del self._form  # it has all of it once more
            self._start(body, rest=not self._complete)
        elif self.body_bytes > (limit := self.proxy.limits.form_bytes):
            words = f"the form's field `model` does not stand in its first {limit} bytes"
            self.refuse(413, "too-large", words, hint="put the field `model` before the file")

    def _fail_body(self, status: int, code: str, detail: str) -> None:
        """Refuse a body, whatever is done with it already."""
        exchange = self.exchange
        if exchange is None:
            self.refuse(status, code, detail)
        elif exchange.begun:
            self.transport.abort()
        else:
            exchange.answer(problem(status, code, detail))

    def _count(self, answer: Answer, code: str) -> None:
        if self._awaited:
            self._awaited = False
            self.proxy.unread(self._ask, answer)
        else:
            super()._count(answer, code)

    def _linger(self) -> None:
        """Hang up: at once where all of the request was read, for then nothing comes that would reset it."""
        if self._complete:
            self._close()
        else:
            super()._linger()

    # --- the whole connection's

    def _start(self, body: bytes, *, rest: bool = False) -> None:
        """Begin the exchange; ``rest``: more of the body comes while it runs."""
        raise NotImplementedError

    def _reply(self, answer: Answer) -> None:
        """Give an answer for which no exchange was begun."""
        raise NotImplementedError
