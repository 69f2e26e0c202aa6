"""A proxy in the loop of the test, with a desk that does as it is told, and a client that reads strictly."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvloop
from upstream_double import Double

from labctl.domain.budget import Rack
from labctl.domain.gateway.table import Kind, Limits, Table, Upstream
from labctl.gateway.proxy import Proxy
from labctl.gateway.proxy.sockets import tune_listener
from labctl.gateway.refusals import problem
from labctl.gateway.terms import Answer, Ask, End, Exchange, Failure, Reading, Target

READINGS = {"/v1/audio/transcriptions": Reading.FORM, "/flow": Reading.FLOW, "/v1/realtime": Reading.NONE}


def run(test: Coroutine[Any, Any, None], *, loops: str = "uvloop") -> None:
    """Run a test in a loop of its own; nothing takes longer than half a minute."""
    factory = uvloop.new_event_loop if loops == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(test, 30))


@dataclass(eq=False)
class FakeDesk:
    """Forwards everything to ``upstreams[0]``, and what failed to the next; all is written down."""

    upstreams: list[Upstream] = field(default_factory=list)
    asked: list[Ask] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    unreads: list[tuple[Ask, Answer]] = field(default_factory=list)
    refuse: Answer | None = None
    at_start: Callable[[Exchange], object] | None = None
    at_failure: Callable[[Exchange, Failure], object] | None = None
    target: dict[str, Any] = field(default_factory=dict)
    readings: dict[str, Reading] = field(default_factory=lambda: dict(READINGS))

    def __post_init__(self) -> None:
        self.changed = asyncio.Event()

    def head(self, ask: Ask) -> Reading | Answer:
        self.asked.append(ask)
        self.changed.set()
        if self.refuse is not None:
            return self.refuse
        return self.readings.get(ask.path, Reading.WHOLE if ask.method == "POST" else Reading.NONE)

    def unread(self, ask: Ask, answer: Answer) -> None:
        self.unreads.append((ask, answer))
        self.changed.set()

    def start(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.changed.set()
        if self.at_start is not None:
            self.at_start(exchange)
        else:
            self.send(exchange)

    def send(self, exchange: Exchange, at: int = 0, **more: Any) -> None:
        exchange.life = at
        exchange.forward(Target(self.upstreams[at], exchange.ask.target, **{**self.target, **more}))

    def failed(self, exchange: Exchange, failure: Failure) -> None:
        self.failures.append(failure)
        self.changed.set()
        if self.at_failure is not None:
            self.at_failure(exchange, failure)
        elif exchange.life + 1 < len(self.upstreams) and not failure.sent:
            self.send(exchange, exchange.life + 1)
        else:
            exchange.answer(problem(502, "upstream-failed", failure.text))

    def ended(self, exchange: Exchange, end: End) -> None:
        self.ends.append(end)
        self.changed.set()

    async def until(self, true: Callable[[], bool], within_s: float = 10.0) -> None:
        try:
            async with asyncio.timeout(within_s):
                while not true():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {within_s} s: {self.ends} {self.failures}") from None

    async def ended_with(self, count: int = 1) -> End:
        """Return the last end as soon as there are so many."""
        await self.until(lambda: len(self.ends) >= count)
        return self.ends[-1]


@dataclass(eq=False)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes


class Truncated(Exception):
    """An answer that the client can see is not whole."""


class Wire:
    """A client that says exactly what it is told, and reads answers strictly."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def post(self, path: str, body: bytes, *headers: str) -> Response:
        await self.say(request("POST", path, body, *headers))
        return await self.answer()

    async def get(self, path: str, *headers: str) -> Response:
        await self.say(request("GET", path, None, *headers))
        return await self.answer()

    async def head(self) -> tuple[int, dict[str, str], bytes]:
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise Truncated(error.partial) from None
        lines = raw[:-4].decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", lines[0])
        assert match, lines[0]
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            assert name.lower() not in headers, f"{name} stands twice"
            headers[name.lower()] = value.strip()
        return int(match[1]), headers, raw

    async def chunk(self) -> bytes:
        try:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
        except asyncio.IncompleteReadError as error:
            raise Truncated(error.partial) from None
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def answer(self, method: str = "POST") -> Response:
        status, headers, raw = await self.head()
        if method == "HEAD" or status in (204, 304, 101):
            return Response(status, headers, b"", raw)
        if headers.get("transfer-encoding") == "chunked":
            assert "content-length" not in headers
            pieces = []
            while piece := await self.chunk():
                pieces.append(piece)
            return Response(status, headers, b"".join(pieces), raw)
        if "content-length" in headers:
            try:
                body = await self.reader.readexactly(int(headers["content-length"]))
            except asyncio.IncompleteReadError as error:
                raise Truncated(error.partial) from None
        else:
            assert headers.get("connection") == "close"
            body = await self.reader.read(-1)
        return Response(status, headers, body, raw)

    async def end(self) -> bytes:
        """Return what comes until the gateway hangs up."""
        async with asyncio.timeout(10):
            return await self.reader.read(-1)

    async def gone(self) -> bool:
        """Wait until the gateway hung up, by whatever way."""
        try:
            return await self.end() == b""
        except ConnectionError:
            return True

    def cut(self) -> None:
        self.writer.transport.abort()


def request(method: str, path: str, body: bytes | None = None, *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


CHAT = b'{"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}'
STREAM = b'{"model": "tiny", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
CHAT_PATH = "/v1/chat/completions"


def upstream(port: int, name: str = "one", **more: Any) -> Upstream:
    return replace(Upstream(name, "box", Kind.LLAMA_SERVER, "127.0.0.1", port), **more)


@dataclass(eq=False)
class Site:
    """A proxy that listens, its desk, and the doubles behind it."""

    proxy: Proxy
    desk: FakeDesk
    doubles: list[Double]
    port: int
    wires: list[Wire] = field(default_factory=list)

    @property
    def double(self) -> Double:
        return self.doubles[0]

    async def client(self, trust: ssl.SSLContext | None = None) -> Wire:
        name = "localhost" if trust else None
        streams = await asyncio.open_connection("127.0.0.1", self.port, ssl=trust, server_hostname=name)
        self.wires.append(Wire(*streams))
        return self.wires[-1]

    def hang_up(self) -> None:
        for wire in self.wires:
            wire.cut()


@asynccontextmanager
async def site(
    limits: Limits | None = None,
    *,
    doubles: int = 1,
    folder: Path = Path("/"),
    more: tuple[Upstream, ...] = (),
    tls: ssl.SSLContext | None = None,
    **double: Any,
) -> AsyncIterator[Site]:
    """Start everything, and see at the end that nothing is left over."""
    behind = [Double(**double) for _ in range(doubles)]
    for each in behind:
        await each.start()
    upstreams = [upstream(each.port, f"up{at}") for at, each in enumerate(behind)] + list(more)
    desk = FakeDesk(upstreams)
    table = Table("rack", "127.0.0.1", 0, (), tuple(upstreams), (), (), Rack(()), limits=limits or Limits())
    proxy = Proxy(desk, table, folder)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(proxy.protocol, "127.0.0.1", 0, backlog=2048, ssl=tls)
    tune_listener(server.sockets[0])
    trouble: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: trouble.append(context))
    here = Site(proxy, desk, behind, server.sockets[0].getsockname()[1])
    try:
        yield here
        here.hang_up()
        while proxy.clients:
            await asyncio.sleep(0)
        assert len(desk.ends) == len(desk.exchanges), "each exchange ends once"
        assert proxy.held == 0
        assert trouble == []
    finally:
        here.hang_up()
        server.close()
        proxy.close()
        for each in behind:
            await each.stop()


def certificate(folder: Path, name: str) -> None:
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
        env={"PATH": os.environ["PATH"]},
    )
