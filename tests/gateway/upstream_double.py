"""A double of an OpenAI-compatible server, for tests: it answers as one, remembers all, and fails on demand.

It speaks HTTP/1.1 on loopback by its own small and strict reader, so that what reached it is known to the
byte: a request that two servers could read in two ways is not answered but kept in ``odd``.

    async with Double() as double:              # in the loop of the test
        ... double.port ... double.seen[-1].json["model"] ...

    with in_thread() as double:                 # in a loop of its own, for clients that block
        ...

What it does next is told by ``faults`` (one for each request to come, in order), or by the request's header
``x-double`` (the same words). Nothing in it waits for a clock, besides ``pace_s`` where a test sets it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import ssl
import struct
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from enum import StrEnum
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

WORDS = ("The", " rack", " is", " awake", ",", " naïve", " 机", ".")
SPEECH = bytes(range(256)) * 64
VECTOR = (0.25, -0.5, 1.0)


class Fault(StrEnum):
    """What goes wrong with one request; ``status:503`` answers that status (any number)."""

    NONE = "none"
    HANG_UP = "hang-up"  # before any byte of an answer
    HALF_HEAD = "half-head"  # in the midst of the head
    NO_HTTP = "no-http"  # what it says is no HTTP
    SILENT = "silent"  # it reads, and never answers
    HEAD_ONLY = "head-only"  # the head, and then nothing
    CUT_AFTER_HEAD = "cut-after-head"
    CUT_BETWEEN = "cut-between"  # after some whole chunks
    CUT_IN_CHUNK = "cut-in-chunk"
    ENDLESS = "endless"  # a stream that ends only when its client goes
    TO_THE_END = "to-the-end"  # the body is ended by the connection's end
    CLOSE = "close"  # a whole answer with Connection: close
    CLOSE_QUIETLY = "close-quietly"  # a whole answer, and it hangs up without a word


@dataclass(slots=True)
class Seen:
    """One request as it came: ``raw`` is its head and its body as they stood on the wire."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    connection: int
    raw: bytearray
    body: bytes = b""
    cancelled: bool = False
    answered: bool = False

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """Return the only header of a name; two of them are an error."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        if len(values) > 1:
            raise AssertionError(f"{name} came {len(values)} times: {values}")
        return values[0] if values else None


class Odd(Exception):
    """What came can be read in more than one way, or in none."""


class _Connection(asyncio.Protocol):
    """Reads request after request and answers each in turn."""

    def __init__(self, double: Double) -> None:
        self.double = double
        self.number = 0
        self.buffer = bytearray()
        self.more = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()
        self.now: Seen | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self.double.connections += 1
        self.number = self.double.connections
        self.double.open.add(self)
        self.task = asyncio.ensure_future(self.serve())
        self.double.tell()

    def data_received(self, data: bytes) -> None:
        self.double.bytes_in += len(data)
        self.buffer += data
        self.more.set()

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.double.open.discard(self)
        if self.now is not None and not self.now.answered:
            self.now.cancelled = True
            self.double.cancelled += 1
        if self.buffer and self.now is None:
            self.double.unread.append(bytes(self.buffer))
        self.task.cancel()
        self.double.tell()

    # --- reading

    async def _until(self, size: int) -> None:
        while len(self.buffer) < size:
            self.more.clear()
            await self.more.wait()

    async def take(self, size: int) -> bytes:
        await self._until(size)
        taken = bytes(self.buffer[:size])
        del self.buffer[:size]
        return taken

    async def line(self) -> bytes:
        while (at := self.buffer.find(b"\r\n")) < 0:
            await self._until(len(self.buffer) + 1)
        return await self.take(at + 2)

    async def request(self) -> Seen:
        while (at := self.buffer.find(b"\r\n\r\n")) < 0:
            await self._until(len(self.buffer) + 1)
        head = await self.take(at + 4)
        lines = head[:-4].split(b"\r\n")
        words = lines[0].split(b" ")
        if (
            len(words) != 3
            or words[2] not in (b"HTTP/1.1", b"HTTP/1.0")
            or b"\n" in head.replace(b"\r\n", b"")
        ):
            raise Odd(head)
        headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon or not name or name.strip() != name or b" " in name or b"\0" in line:
                raise Odd(head)
            headers.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1")))
        seen = Seen(words[0].decode(), words[1].decode("latin-1"), headers, self.number, bytearray(head))
        self.now = seen
        self.double.seen.append(seen)
        self.double.tell()
        await self._body(seen)
        return seen

    async def _body(self, seen: Seen) -> None:
        lengths = [value for name, value in seen.headers if name.lower() == "content-length"]
        codings = [value for name, value in seen.headers if name.lower() == "transfer-encoding"]
        if len(lengths) + len(codings) > 1 or codings not in ([], ["chunked"]):
            raise Odd(bytes(seen.raw))
        if lengths:
            if not lengths[0].isascii() or not lengths[0].isdigit():
                raise Odd(bytes(seen.raw))
            await self._keep(seen, int(lengths[0]))
        elif codings:
            body = bytearray()
            while True:
                size = await self.line()
                seen.raw += size
                many = int(size.strip(), 16)
                if many == 0:
                    seen.raw += await self.line()
                    break
                piece = await self.take(many + 2)
                if piece[-2:] != b"\r\n":
                    raise Odd(bytes(seen.raw))
                seen.raw += piece
                body += piece[:-2]
            seen.body = bytes(body)

    async def _keep(self, seen: Seen, size: int) -> None:
        got = 0
        body = bytearray()
        while got < size:
            await self._until(1)
            piece = await self.take(min(size - got, len(self.buffer)))
            got += len(piece)
            body += piece
            seen.raw += piece
        seen.body = bytes(body)

    # --- answering

    async def serve(self) -> None:
        try:
            while True:
                seen = await self.request()
                keep = await self.double.answer(self, seen)
                seen.answered = True
                self.now = None
                self.double.tell()
                if not keep:
                    break
        except (Odd, ValueError, UnicodeDecodeError):
            self.double.odd.append(bytes(self.now.raw if self.now else self.buffer))
            self.now = None
            self.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.transport.close()

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    async def send(self, data: bytes) -> None:
        await self.room.wait()
        self.transport.write(data)
        await asyncio.sleep(self.double.pace_s)

    def cut(self) -> None:
        """Hang up; what was written before is still sent."""
        assert self.now is not None
        self.now.answered = True
        self.transport.close()


@dataclass(slots=True)
class Reply:
    """What is answered: a body, or the pieces of a stream."""

    status: int = 200
    content_type: str = "application/json"
    body: bytes = b""
    pieces: list[bytes] | None = None


def of_json(value: object, status: int = 200) -> Reply:
    return Reply(status, body=json.dumps(value, ensure_ascii=False).encode())


def of_events(events: list[tuple[str, object]]) -> Reply:
    pieces = []
    for name, value in events:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        pieces.append(((f"event: {name}\n" if name else "") + f"data: {text}\n\n").encode())
    return Reply(content_type="text/event-stream", pieces=pieces)


@dataclass(eq=False)
class Double:
    """See the module's text.

    ``raw`` answers exist to the byte: each is what one request to come is answered with, in pieces that are
    sent one by one; the connection is kept. ``running`` is what GET /running and /api/ps tell as loaded.
    ``gate`` holds every answer until it is set again (``double.gate.clear()``).
    """

    words: tuple[str, ...] = WORDS
    models: tuple[str, ...] = ("tiny",)
    running: tuple[str, ...] = ()
    key: str = ""
    pace_s: float = 0.0
    tls: ssl.SSLContext | None = None
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    odd: list[bytes] = field(default_factory=list)
    unread: list[bytes] = field(default_factory=list)
    faults: deque[str] = field(default_factory=deque)
    raw: deque[list[bytes]] = field(default_factory=deque)
    connections: int = 0
    cancelled: int = 0
    bytes_in: int = 0

    def __post_init__(self) -> None:
        self.open: set[_Connection] = set()
        self.server: asyncio.Server | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self._changed = asyncio.Event()

    # --- its life

    async def start(self, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", port, ssl=self.tls, backlog=1024
        )
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more and hang up on everybody; ``start(port)`` comes back on the same port."""
        if self.server is not None:
            self.server.close()
            self.server = None
        tasks = [connection.task for connection in self.open]
        for connection in list(self.open):
            connection.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Double:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def tell(self) -> None:
        self._changed.set()

    async def until(self, true: Callable[[], bool], within_s: float = 10.0) -> None:
        """Return as soon as what is said of the double holds; AssertionError where it never does."""
        try:
            async with asyncio.timeout(within_s):
                while not true():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"not within {within_s} s: {len(self.seen)} seen, {self.cancelled} cancelled"
            ) from None

    # --- what it answers

    async def answer(self, to: _Connection, seen: Seen) -> bool:
        """Answer one request; return whether the connection is kept."""
        fault = seen.header("x-double") or (self.faults.popleft() if self.faults else Fault.NONE)
        await self.gate.wait()
        if fault == Fault.HANG_UP:
            to.cut()
            return False
        if fault == Fault.SILENT:
            await asyncio.Event().wait()
        if fault == Fault.HALF_HEAD:
            to.write(b"HTTP/1.1 200 OK\r\nContent-Ty")
            to.cut()
            return False
        if fault == Fault.NO_HTTP:
            to.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            to.cut()
            return False
        if self.raw:
            for piece in self.raw.popleft():
                await to.send(piece)
            return True
        if (seen.header("upgrade") or "").lower() == "websocket":
            await self._websocket(to, seen)
            return False
        if fault.startswith("status:"):
            return await self._send(to, seen, of_json(_error(f"this is a {fault}"), int(fault[7:])), fault)
        return await self._send(to, seen, self.reply(seen), fault)

    async def _send(self, to: _Connection, seen: Seen, reply: Reply, fault: str) -> bool:
        head = f"HTTP/1.1 {reply.status} X\r\nContent-Type: {reply.content_type}\r\nX-Double: {to.number}\r\n"
        if fault in (Fault.CLOSE, Fault.TO_THE_END):
            head += "Connection: close\r\n"
        ends = fault in (Fault.CLOSE, Fault.TO_THE_END, Fault.CLOSE_QUIETLY)
        pieces = reply.pieces
        if pieces is None and fault not in (Fault.NONE, Fault.CLOSE, Fault.CLOSE_QUIETLY):
            pieces = [reply.body[at : at + 16] for at in range(0, len(reply.body), 16)]
        if pieces is None or seen.method == "HEAD":
            body = b"" if seen.method == "HEAD" else reply.body
            await to.send(head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(reply.body), body))
            return not ends
        if fault == Fault.TO_THE_END:
            await to.send(head.encode() + b"\r\n")
            for piece in pieces:
                await to.send(piece)
            return False
        await to.send(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        if fault == Fault.CUT_AFTER_HEAD:
            to.cut()
            return False
        if fault == Fault.HEAD_ONLY:
            await asyncio.Event().wait()
        for at, piece in enumerate(_repeated(pieces, fault)):
            if at == 2 and fault in (Fault.CUT_BETWEEN, Fault.CUT_IN_CHUNK):
                if fault == Fault.CUT_IN_CHUNK:
                    to.write(b"%x\r\n%b" % (len(piece), piece[:-3]))
                to.cut()
                return False
            await to.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await to.send(b"0\r\n\r\n")
        return not ends

    def reply(self, seen: Seen) -> Reply:
        """Return the answer of a server that is well."""
        if self.key and seen.header("authorization") != f"Bearer {self.key}":
            return of_json(_error("wrong key"), 401)
        asked = ANSWERS.get((seen.method.replace("HEAD", "GET"), seen.path))
        if asked is None:
            return of_json(_error(f"nothing at {seen.path}"), 404)
        return asked(self, seen)

    async def _websocket(self, to: _Connection, seen: Seen) -> None:
        """Echo each frame until a close frame came."""
        key = seen.header("sec-websocket-key") or ""
        digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        accept = base64.b64encode(digest).decode()
        to.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        while True:
            kind, payload = await read_frame(to.take)
            to.write(frame(kind, payload))
            if kind == 8:
                return


def _repeated(pieces: list[bytes], fault: str) -> Iterator[bytes]:
    yield from pieces
    while fault == Fault.ENDLESS:
        yield from pieces


def frame(kind: int, payload: bytes, *, mask: bytes = b"") -> bytes:
    """Return one whole websocket frame; a client's is masked (4 bytes)."""
    bit = 0x80 if mask else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | kind, bit | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | kind, bit | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | kind, bit | 127, size)
    if mask:
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return head + mask + payload


async def read_frame(take: Callable[[int], Any]) -> tuple[int, bytes]:
    """Return the kind and the payload of the next frame; ``take`` reads exactly so many bytes."""
    first, second = await take(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", await take(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await take(8))
    mask = await take(4) if second & 0x80 else b""
    payload = await take(size)
    if mask:
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return first & 0x0F, payload


# --- the answers ------------------------------------------------------------------------------------------


def _error(text: str) -> dict[str, object]:
    return {"error": {"message": text, "type": "invalid_request_error", "code": None, "param": None}}


def _usage(double: Double, seen: Seen) -> dict[str, object]:
    return {
        "prompt_tokens": 7,
        "completion_tokens": len(double.words),
        "total_tokens": 7 + len(double.words),
        "prompt_tokens_details": {"cached_tokens": 3},
    }


def _asked_tool(body: dict[str, Any]) -> dict[str, Any] | None:
    tools = body.get("tools") or []
    return tools[0]["function"] if tools else None


ARGUMENTS = '{"city": "Zürich"}'


def _chat(double: Double, seen: Seen) -> Reply:
    body = seen.json
    same = {"id": "chatcmpl-1", "created": 1764374400, "model": body.get("model")}
    tool = _asked_tool(body)
    if body.get("stream"):
        return _chat_events(double, seen, same, tool)
    message: dict[str, object] = {"role": "assistant", "content": "".join(double.words)}
    if tool is not None:
        call = {
            "id": "call_1",
            "type": "function",
            "function": {"name": tool["name"], "arguments": ARGUMENTS},
        }
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if tool else "stop"}
    return of_json({**same, "object": "chat.completion", "choices": [choice], "usage": _usage(double, seen)})


def _chat_events(double: Double, seen: Seen, same: dict[str, object], tool: dict[str, Any] | None) -> Reply:
    deltas: list[dict[str, object]] = [{"role": "assistant", "content": ""}]
    if tool is None:
        deltas += [{"content": word} for word in double.words]
    else:
        call = {"index": 0, "id": "call_1", "type": "function"}
        deltas.append({"tool_calls": [{**call, "function": {"name": tool["name"], "arguments": ""}}]})
        deltas += [
            {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}
            for part in (ARGUMENTS[:7], ARGUMENTS[7:])
        ]
    chunk = {**same, "object": "chat.completion.chunk"}
    events: list[tuple[str, object]] = [
        ("", {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}) for delta in deltas
    ]
    reason = "stop" if tool is None else "tool_calls"
    events.append(("", {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
    if (seen.json.get("stream_options") or {}).get("include_usage"):
        events.append(("", {**chunk, "choices": [], "usage": _usage(double, seen)}))
    events.append(("", "[DONE]"))
    return of_events(events)


def _completions(double: Double, seen: Seen) -> Reply:
    body = seen.json
    same = {"id": "cmpl-1", "object": "text_completion", "created": 1764374400, "model": body.get("model")}
    if body.get("stream"):
        events: list[tuple[str, object]] = [
            ("", {**same, "choices": [{"index": 0, "text": word, "finish_reason": None}]})
            for word in double.words
        ]
        events.append(("", {**same, "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}))
        return of_events([*events, ("", "[DONE]")])
    choice = {"index": 0, "text": "".join(double.words), "finish_reason": "stop", "logprobs": None}
    return of_json({**same, "choices": [choice], "usage": _usage(double, seen)})


def _embeddings(double: Double, seen: Seen) -> Reply:
    body = seen.json
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    vector: object = list(VECTOR)
    if body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack(f"<{len(VECTOR)}f", *VECTOR)).decode()
    data = [{"object": "embedding", "index": at, "embedding": vector} for at in range(len(inputs))]
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    return of_json({"object": "list", "data": data, "model": body.get("model"), "usage": usage})


def _rerank(double: Double, seen: Seen) -> Reply:
    body = seen.json
    results = [
        {"index": at, "relevance_score": 1.0 / (at + 1)} for at in range(len(body.get("documents", [])))
    ]
    return of_json({"model": body.get("model"), "results": results, "usage": {"total_tokens": 9}})


def form_of(seen: Seen) -> dict[str, bytes]:
    """Return the fields of a multipart body; a file's name stands under ``NAME.filename``."""
    head = f"Content-Type: {seen.header('content-type')}\r\n\r\n".encode()
    fields: dict[str, bytes] = {}
    for part in BytesParser(policy=HTTP).parsebytes(head + seen.body).iter_parts():  # type: ignore[attr-defined]
        name = part.get_param("name", header="content-disposition")
        fields[name] = part.get_payload(decode=True)
        if part.get_filename():
            fields[f"{name}.filename"] = part.get_filename().encode()
    return fields


def _transcribed(double: Double, seen: Seen) -> Reply:
    fields = form_of(seen)
    digest = hashlib.sha256(fields["file"]).hexdigest()
    return of_json({"text": f"{len(fields['file'])} bytes of {fields['file.filename'].decode()}: {digest}"})


def _speech(double: Double, seen: Seen) -> Reply:
    return Reply(content_type="audio/wav", body=SPEECH)


def _images(double: Double, seen: Seen) -> Reply:
    return of_json({"created": 1764374400, "data": [{"b64_json": base64.b64encode(SPEECH[:64]).decode()}]})


def _responses(double: Double, seen: Seen) -> Reply:
    body = seen.json
    text = "".join(double.words)
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {
        "type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]
    }  # fmt: skip
    usage = {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens": len(double.words),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 7 + len(double.words),
    }
    whole = {
        "id": "resp_1", "object": "response", "created_at": 1764374400, "status": "completed",
        "model": body.get("model"), "output": [message], "parallel_tool_calls": True, "tool_choice": "auto",
        "tools": [], "usage": usage,
    }  # fmt: skip
    if not body.get("stream"):
        return of_json(whole)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[tuple[str, dict[str, object]]] = [("response.created", {"response": begun})]
    events += [("response.output_text.delta", {**where, "delta": word}) for word in double.words]
    events.append(("response.output_text.done", {**where, "text": text}))
    events.append(("response.completed", {"response": whole}))
    return of_events(
        [(name, {"type": name, "sequence_number": at, **value}) for at, (name, value) in enumerate(events)]
    )


def _messages(double: Double, seen: Seen) -> Reply:
    body = seen.json
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": body.get("model"),
        "content": [{"type": "text", "text": "".join(double.words)}], "stop_reason": "end_turn",
        "stop_sequence": None, "usage": {"input_tokens": 7, "output_tokens": len(double.words)},
    }  # fmt: skip
    if not body.get("stream"):
        return of_json(message)
    usage = {"input_tokens": 7, "output_tokens": 1}
    begun = {**message, "content": [], "stop_reason": None, "usage": usage}
    events: list[tuple[str, dict[str, object]]] = [
        ("message_start", {"message": begun}),
        ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
    ]
    events += [
        ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": word}})
        for word in double.words
    ]
    events += [
        ("content_block_stop", {"index": 0}),
        (
            "message_delta",
            {
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": len(double.words)},
            },
        ),
        ("message_stop", {}),
    ]
    return of_events([(name, {"type": name, **value}) for name, value in events])


def _llama_completion(double: Double, seen: Seen) -> Reply:
    timings = {"prompt_n": 7, "predicted_n": len(double.words), "cache_n": 3}
    return of_json({"content": "".join(double.words), "stop": True, "timings": timings})


def _models(double: Double, seen: Seen) -> Reply:
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "double"} for name in double.models]
    return of_json({"object": "list", "data": data})


ANSWERS: dict[tuple[str, str], Callable[[Double, Seen], Reply]] = {
    ("POST", "/v1/chat/completions"): _chat,
    ("POST", "/v1/completions"): _completions,
    ("POST", "/v1/embeddings"): _embeddings,
    ("POST", "/v1/rerank"): _rerank,
    ("POST", "/rerank"): _rerank,
    ("POST", "/v1/reranking"): _rerank,
    ("POST", "/v1/audio/transcriptions"): _transcribed,
    ("POST", "/v1/audio/translations"): _transcribed,
    ("POST", "/v1/audio/speech"): _speech,
    ("POST", "/v1/images/generations"): _images,
    ("POST", "/v1/images/edits"): _images,
    ("POST", "/v1/responses"): _responses,
    ("POST", "/v1/messages"): _messages,
    ("POST", "/v1/messages/count_tokens"): lambda double, seen: of_json({"input_tokens": 7}),
    ("POST", "/completion"): _llama_completion,
    ("POST", "/tokenize"): lambda double, seen: of_json({"tokens": [1, 2, 3]}),
    ("GET", "/v1/models"): _models,
    ("GET", "/health"): lambda double, seen: of_json({"status": "ok"}),
    ("GET", "/props"): lambda double, seen: of_json({"total_slots": 4}),
    ("GET", "/slots"): lambda double, seen: of_json([]),
    ("GET", "/running"): lambda double, seen: of_json(
        {"running": [{"model": name, "state": "ready"} for name in double.running]}
    ),
    ("GET", "/api/ps"): lambda double, seen: of_json(
        {"models": [{"name": name, "model": name} for name in double.running]}
    ),
}


# --- in a thread ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def in_thread(**how: Any) -> Iterator[Double]:
    """Yield a double that runs in a thread of its own, for tests whose clients block."""
    ready: list[Double] = []
    began = threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def run() -> None:
        async with Double(**how) as double:
            ready.append(double)
            began.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    began.wait(10)
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()


@contextlib.asynccontextmanager
async def doubles(count: int, **how: Any) -> AsyncIterator[list[Double]]:
    """Yield several of them."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Double(**how)) for _ in range(count)]


def query_of(seen: Seen) -> dict[str, list[str]]:
    """Return a request's query."""
    return parse_qs(urlsplit(seen.target).query)
