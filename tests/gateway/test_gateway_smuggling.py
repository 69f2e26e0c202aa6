"""No bytes of a client make an upstream see a request that the client is not told about.

Everything here runs without sockets: the real Client, Exchange and Connection stand between a transport that
collects answers and a recording upstream, which reads as strictly as RFC 9112 allows and answers each request
with its number. What is compared are those numbers, the requests, and the answers that the client can read.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httptools
import pytest
from proxy_kit import FakeDesk, run, upstream

from labctl.domain.budget import Rack
from labctl.domain.gateway.table import Limits, Table
from labctl.gateway.proxy import Proxy
from labctl.gateway.proxy.client import Client
from labctl.gateway.proxy.upstream import Connection, Pool

LIMITS = Limits(head_bytes=4096, headers=40, json_bytes=4096, upload_bytes=8192, form_bytes=2048)


class Memory(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self, hears: Any = None) -> None:
        super().__init__()
        self.sent = bytearray()
        self.closed = False
        self.cut = False
        self.hears = hears

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 1) if name == "peername" else self

    def setsockopt(self, *_: object) -> None: ...
    def getsockopt(self, *_: object) -> bytes:
        return b"\1"

    def write(self, data: Any) -> None:
        if not self.closed:
            self.sent += data
            if self.hears is not None:
                self.hears(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.cut = True


TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = re.compile(rb"([A-Z]+) (/[!-~]*|\*) HTTP/1\.1")
HEADER = re.compile(rb"(" + TOKEN + rb"): ?([\t -~\x80-\xff]*)")


@dataclass
class Recorder:
    """Reads requests; whatever it would have to guess is an AssertionError."""

    seen: list[tuple[bytes, bytes, dict[bytes, bytes], bytes]] = field(default_factory=list)
    buffer: bytes = b""

    def hear(self, data: bytes) -> None:
        self.buffer += data
        while self.buffer and self._one():
            pass

    def _one(self) -> bool:
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        assert b"\n" not in head.replace(b"\r\n", b"") and b"\0" not in head
        line, *lines = head.split(b"\r\n")
        match = REQUEST_LINE.fullmatch(line)
        assert match, line
        headers: dict[bytes, bytes] = {}
        for each in lines:
            header = HEADER.fullmatch(each)
            assert header, each
            name = header[1].lower()
            assert name not in headers or name not in (b"host", b"content-length", b"transfer-encoding"), name
            headers[name] = header[2].strip()
        assert headers[b"host"] == b"127.0.0.1:1", "the upstream's own name, and no other"
        assert not {b"connection", b"upgrade", b"te", b"trailer", b"expect", b"keep-alive"} & set(headers)
        if b"transfer-encoding" in headers:
            assert b"content-length" not in headers and headers[b"transfer-encoding"] == b"chunked"
            body, rest = self._chunks(rest)
            if body is None:
                return False
        else:
            size = headers.get(b"content-length", b"0")
            assert size.isdigit()
            if len(rest) < int(size):
                return False
            body, rest = rest[: int(size)], rest[int(size) :]
        self.seen.append((match[1], match[2], headers, body))
        self.buffer = rest
        return True

    def _chunks(self, rest: bytes) -> tuple[bytes | None, bytes]:
        body = b""
        while True:
            line, end, after = rest.partition(b"\r\n")
            if not end:
                return None, b""
            assert re.fullmatch(rb"[0-9a-f]{1,8}", line), line
            size = int(line, 16)
            if len(after) < size + 2:
                return None, b""
            assert after[size : size + 2] == b"\r\n"
            body, rest = body + after[:size], after[size + 2 :]
            if not size:
                return body, rest


@dataclass
class Outcome:
    numbers: list[int]  # of the upstream's answers, as the client read them
    refusals: list[int]  # statuses of ours
    recorder: Recorder
    desk: FakeDesk


class MemoryPool(Pool):
    """Connects to a recorder."""

    recorder = Recorder()
    made: list[Connection]

    async def dial(self, within_s: float) -> Connection:
        connection = Connection(self)
        connection.connection_made(Memory(self.recorder.hear))
        self.made.append(connection)
        return connection


class Rig:
    """The proxy without its sockets; each ``talk`` is a new client."""

    def __init__(self) -> None:
        self.desk = FakeDesk([upstream(1)])
        table = Table("rack", "", 0, (), tuple(self.desk.upstreams), (), (), Rack(()), limits=LIMITS)
        self.proxy = Proxy(self.desk, table, Path("/"))
        self.pool = MemoryPool(self.proxy.loop, self.desk.upstreams[0], None, self.proxy.outbox)
        self.proxy._pools[self.desk.upstreams[0].name] = self.pool

    def close(self) -> None:
        self.proxy.close()


def answers(sent: bytes) -> list[tuple[int, int, bytes]]:
    """Return status, number (0: ours) and body of each answer that a client reads; all bytes are used up."""
    found = []
    while sent:
        head, end, sent = sent.partition(b"\r\n\r\n")
        assert end, "half a head"
        status = int(head[9:12])
        if status == 100:
            continue
        headers = {}
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b": ")
            headers[name.lower()] = value
        size = int(headers[b"content-length"])
        assert len(sent) >= size, "half a body"
        found.append((status, int(headers.get(b"x-number", b"0")), sent[:size]))
        sent = sent[size:]
    return found


async def talk(rig: Rig, pieces: list[bytes]) -> Outcome:
    """Say the pieces as one client does, answering each request upstream as soon as it is whole."""
    recorder = rig.pool.recorder = Recorder()
    rig.pool.made = []
    rig.desk.exchanges.clear()
    client = Client(rig.proxy)
    transport = Memory()
    client.connection_made(transport)
    answered = 0
    for piece in pieces:
        if transport.closed:
            break
        client.data_received(piece)
        while (exchange := client.exchange) is not None:
            if exchange._dialling is not None:
                await exchange._dialling
            rig.proxy.outbox.send()
            if answered == len(recorder.seen):
                break  # it waits for more of its body
            answered += 1
            (serving,) = [each for each in rig.pool.made if each.exchange is not None]
            serving.data_received(
                b"HTTP/1.1 200 OK\r\nX-Number: %d\r\nContent-Length: 2\r\n\r\nok" % answered
            )
    rig.proxy.outbox.send()
    assert answered == len(recorder.seen), "a request without an exchange"
    transport.closed = True
    client.connection_lost(None)
    rig.pool.drop()
    told = answers(bytes(transport.sent))
    numbers = [number for _, number, _ in told if number]
    return Outcome(numbers, [status for status, number, _ in told if not number], recorder, rig.desk)


def check(outcome: Outcome) -> None:
    """The promise; see the module's text."""
    seen = outcome.recorder.seen
    assert outcome.numbers == list(range(1, len(seen) + 1))
    assert all(400 <= status < 600 for status in outcome.refusals)
    assert len(outcome.refusals) <= 1, "a refusal ends the connection"
    exchanges = outcome.desk.exchanges
    whole = [each.ask for each in exchanges][: len(seen)]
    for ask, (method, target, _, body) in zip(whole, seen, strict=True):
        assert (ask.method.encode(), ask.target.encode()) == (method, target)
        if not ask.rest and ask.path not in ("/flow", "/v1/audio/transcriptions"):
            assert ask.body == body


POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\n"
JSON = b'{"model":"m"}'
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: g\r\n\r\n"

# What a proxy and a server could read in two ways, and how many requests of it an upstream may see.
CORPUS = {
    "length and chunks": (
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        0,
    ),
    "chunks and length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + HIDDEN,
        0,
    ),
    "two lengths": (POST + b"Content-Length: 0\r\nContent-Length: 36\r\n\r\n" + HIDDEN, 0),
    "two equal lengths": (POST + b"Content-Length: 13\r\nContent-Length: 13\r\n\r\n" + JSON, 0),
    "a list of lengths": (POST + b"Content-Length: 13, 13\r\n\r\n" + JSON, 0),
    "a signed length": (POST + b"Content-Length: +13\r\n\r\n" + JSON, 0),
    "an unknown coding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN, 0),
    "a coding before chunks": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 0),
    "two codings": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN,
        0,
    ),
    "a space before the colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 0),
    "a folded header": (POST + b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 0),
    "bare line feeds": (POST.replace(b"\r\n", b"\n") + b"\n" + HIDDEN, 0),
    "a carriage return in a value": (POST + b"X: a\rContent-Length: 36\r\n\r\n" + HIDDEN, 0),
    "a NUL in a value": (POST + b"X: a\0b\r\nContent-Length: 0\r\n\r\n" + HIDDEN, 0),
    "a chunk's size with a sign": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n" + HIDDEN,
        0,
    ),
    "a chunk longer than its size": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX\r\n0\r\n\r\n" + HIDDEN,
        0,
    ),
    "chunks in HTTP/1.0": (
        POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        0,
    ),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: g\r\nHost: h\r\n\r\n" + HIDDEN, 0),
    "no host": (b"GET / HTTP/1.1\r\n\r\n" + HIDDEN, 0),
    "another protocol's line": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN, 0),
    "a tunnel": (b"CONNECT box:22 HTTP/1.1\r\nHost: g\r\n\r\n" + HIDDEN, 0),
    "a length of a body that never was": (POST + b"Content-Length: 500\r\n\r\n" + HIDDEN, 0),
    "an upgrade with a body": (
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 13\r\n\r\n" + JSON + HIDDEN,
        2,
    ),
    "headers that the connection names": (
        POST + b"Connection: content-length, host\r\nContent-Length: 13\r\n\r\n" + JSON + HIDDEN,
        2,
    ),
    "a request behind a request": (POST + b"Content-Length: 13\r\n\r\n" + JSON + HIDDEN, 2),
    "a request in a body": (POST + b"Content-Length: 2\r\n\r\n{}" + HIDDEN, 2),
    "chunks with extensions and trailers": (
        POST + b"Transfer-Encoding: chunked\r\n\r\nd;a=b\r\n" + JSON + b"\r\n0\r\nX: 9\r\n\r\n" + HIDDEN,
        2,
    ),
    "a length behind the chunks": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n\r\n" + HIDDEN,
        0,
    ),
    "an upload with empty lines": (
        b"POST /flow HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"8\r\n0\r\n\r\n0\r\n\r\n5\r\n\r\n\r\n0\r\n0\r\n\r\n" + HIDDEN,
        2,
    ),
}


@pytest.mark.parametrize("name", CORPUS)
def test_what_can_be_read_in_two_ways_is_refused_or_read_in_one(name: str) -> None:
    async def test() -> None:
        rig = Rig()
        raw, expected = CORPUS[name]
        outcomes = []
        for pieces in ([raw], [raw[at : at + 1] for at in range(len(raw))]):
            outcomes.append(outcome := await talk(rig, pieces))
            check(outcome)
            assert len(outcome.recorder.seen) == expected
        assert outcomes[0].refusals == outcomes[1].refusals
        if not expected and name != "a length of a body that never was":
            assert len(outcomes[0].refusals) == 1
        rig.close()

    run(test(), loops="asyncio")


def test_an_upload_with_empty_lines_arrives_as_it_was_sent() -> None:
    async def test() -> None:
        rig = Rig()
        raw, _ = CORPUS["an upload with empty lines"]
        for at in range(len(raw)):
            outcome = await talk(rig, [raw[:at], raw[at:]])
            check(outcome)
            assert [body for *_, body in outcome.recorder.seen] == [b"0\r\n\r\n0\r\n\r\n\r\n0", b""]
        rig.close()

    run(test(), loops="asyncio")


def test_a_head_that_is_nearly_the_last_one_again_says_what_it_says_alone() -> None:
    """A head that came before is known again; one byte of difference, and it is read anew."""

    async def test() -> None:
        rig = Rig()
        good = POST + b"A: b\r\nContent-Length: 13\r\nC: d\r\n\r\n" + JSON
        for at in range(len(good) - len(JSON)):
            for byte in (b"9", b"x", b" ", b"\n", b"\0", b""):
                other = good[:at] + byte + good[at + 1 :]
                check(alone := await talk(rig, [other]))
                check(after := await talk(rig, [good, good, other]))
                assert after.recorder.seen[2:] == alone.recorder.seen, other
                assert after.refusals == alone.refusals, other
        rig.close()

    run(test(), loops="asyncio")


GOOD = [
    HIDDEN,
    POST + b"Content-Length: 13\r\n\r\n" + JSON,
    POST + b"Transfer-Encoding: chunked\r\n\r\n6\r\n" + JSON[:6] + b"\r\n7\r\n" + JSON[6:] + b"\r\n0\r\n\r\n",
    b"POST /flow HTTP/1.1\r\nHost: g\r\nContent-Length: 20\r\n\r\n0123456789\r\n\r\n012345",
    b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: g\r\nContent-Type: multipart/form-data; boundary=xx\r\n"
    b'Content-Length: 106\r\n\r\n--xx\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--xx\r\nContent-Disposition: form-data; name="f"\r\n',
]
PIECES = [
    *(
        b"\r\n",
        b"\r",
        b"\n",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b"0",
        b"-1",
        b"+",
        b"\r\n\r\n",
        b"\x0b",
        b"\xff",
    ),
    *(b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    *(
        b"Connection: close\r\n",
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
        b"Host: x\r\n",
        b"HTTP/1.0",
        b"chunked",
    ),
    *(b"Expect: 100-continue\r\n", HIDDEN, b"Upgrade: websocket\r\n", b"Transfer-Encoding:\x0bchunked\r\n"),
]


REQUESTS = [raw for raw, _ in CORPUS.values()] + GOOD * 6


def mutated(chance: random.Random, everything: list[bytes], most: int) -> list[bytes]:
    """Return some messages with a few things wrong, cut into pieces anywhere."""
    raw = bytearray(b"".join(chance.choices(everything, k=chance.randint(1, most))))
    for _ in range(chance.randint(0, 3)):
        at = chance.randrange(len(raw) + 1)
        change = chance.randrange(4)
        if change == 0:
            raw[at:at] = chance.choice(PIECES)
        elif change == 1:
            del raw[at : at + chance.randint(1, 4)]
        elif change == 2 and at < len(raw):
            raw[at] = chance.randrange(256)
        else:
            start = chance.randrange(len(raw) + 1)
            raw[at:at] = raw[start : start + chance.randint(1, 40)]
    cuts = sorted(chance.randrange(len(raw) + 1) for _ in range(chance.choice((0, 0, 1, 3))))
    edges = [0, *cuts, len(raw)]
    return [bytes(raw[a:b]) for a, b in pairwise(edges) if b > a]


@pytest.mark.parametrize("seed", range(4))
def test_an_upstream_sees_exactly_the_requests_that_the_client_is_told_about(seed: int) -> None:
    """10,000 mutations, 2,500 for each seed."""

    async def test() -> None:
        rig = Rig()
        chance = random.Random(seed)
        seen = refused = 0
        for number in range(2500):
            pieces = mutated(chance, REQUESTS, 3)
            try:
                outcome = await talk(rig, pieces)
                check(outcome)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, mutation {number}: {pieces}") from error
            seen += len(outcome.recorder.seen)
            refused += len(outcome.refusals)
        assert rig.proxy.held == 0
        assert seen > 1000 and refused > 1000, "both ways were taken often"
        rig.close()

    run(test(), loops="asyncio")


# --- the other direction ---

ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n" + JSON,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ndata: \r\n3;x=y\r\nhi\n\r\n0\r\nT: r\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 404 Not Found\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nno",
]
NEXT = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"


class Reader:
    """Counts the answers that a client reads."""

    def __init__(self) -> None:
        self.whole = 0
        self.parser = httptools.HttpResponseParser(self)

    def on_message_complete(self) -> None:
        self.whole += 1


async def hear(rig: Rig, pieces: list[bytes]) -> tuple[Memory, Client, str]:
    """Let the upstream answer one request by the pieces and its end; return how that ended."""
    rig.pool.recorder = Recorder()
    rig.pool.made = []
    rig.desk.exchanges.clear()
    rig.desk.ends.clear()
    client = Client(rig.proxy)
    transport = Memory()
    client.connection_made(transport)
    client.data_received(POST + b"Content-Length: 13\r\n\r\n" + JSON)
    exchange = client.exchange
    assert exchange is not None and exchange._dialling is not None
    await exchange._dialling
    (serving,) = rig.pool.made
    for piece in pieces:
        if not serving.transport.is_closing():
            serving.data_received(piece)
    if not rig.desk.ends:
        serving.connection_lost(None)
    rig.proxy.outbox.send()
    (end,) = rig.desk.ends
    return transport, client, end.how


@pytest.mark.parametrize("seed", range(2))
def test_an_answer_is_whole_or_visibly_not_and_never_runs_into_the_next(seed: int) -> None:
    """5,000 mutations of answers, 2,500 for each seed."""

    async def test() -> None:
        rig = Rig()
        chance = random.Random(seed)
        hows: set[str] = set()
        for number in range(2500):
            pieces = mutated(chance, ANSWERS, 1)
            transport, client, how = await hear(rig, pieces)
            hows.add(how)
            first = bytes(transport.sent)
            reader = Reader()
            try:
                with contextlib.suppress(httptools.HttpParserUpgrade):
                    reader.parser.feed_data(first)
                ended = transport.closed and not transport.cut and b"\r\nConnection: close\r\n" in first
                if how == "cut":
                    assert transport.closed and (transport.cut or reader.whole == 0)
                else:
                    assert reader.whole == 1 or (how == "served" and ended)
                if not transport.closed:
                    client.data_received(POST + b"Content-Length: 13\r\n\r\n" + JSON)
                    exchange = client.exchange
                    assert exchange is not None
                    if exchange._dialling is not None:
                        await exchange._dialling
                    (serving,) = [each for each in rig.pool.made if each.exchange is not None]
                    serving.data_received(NEXT)
                    rig.proxy.outbox.send()
                    assert transport.sent[len(first) :] == NEXT
            except (AssertionError, httptools.HttpParserError) as error:
                raise AssertionError(f"seed {seed}, mutation {number}, {how}: {pieces} {first!r}") from error
            client.connection_lost(None)
            rig.pool.drop()
        assert hows == {"served", "cut", "answered"}
        rig.close()

    run(test(), loops="asyncio")
