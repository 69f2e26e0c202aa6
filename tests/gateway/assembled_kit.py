"""A whole gateway in the test's own loop: real proxy, books over a store in a file, access, meters and pages.

Upstreams are doubles on loopback; a test plays the controller by moving hosts in the store.

    async with assembled(folder, models...) as rack:
        await rack.post("/v1/chat/completions", {"model": "qwen"})
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from books_kit import NOW, Unflushed, bring
from upstream_double import Double

from labctl.adapters.store import SqlStore, store_at
from labctl.domain.budget import Rack as WattRack
from labctl.domain.gateway.table import Host, Key, Kind, Limits, Model, Served, Table, Upstream
from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.gateway.assembly import Around, Gateway, assemble

SECRET = "sk-labctl-test"
OWNER = Key("owner", sha256(SECRET.encode()).hexdigest())


def upstream(double: Double, host: str = "rig", name: str = "", **more: Any) -> Upstream:
    kind = more.pop("kind", Kind.LLAMA_SERVER)
    return Upstream(name or f"{host}/llama", host, kind, "127.0.0.1", double.port, **more)


def table_for(*upstreams: Upstream, folder: Path, **more: Any) -> Table:
    """Return a table in which every upstream serves `qwen`, and every host sleeps."""
    hosts = dict.fromkeys(one.host for one in upstreams if one.host)
    more.setdefault("models", (Model("qwen", "chat", 30.0),))
    more.setdefault("served", tuple(Served("qwen", one.name, "qwen") for one in upstreams))
    more.setdefault("hosts", tuple(Host(name, True, True, 60.0) for name in hosts))
    more.setdefault("keys", (OWNER,))
    more.setdefault("watts", WattRack(()))
    more.setdefault("limits", Limits(say_after_s=0.05, say_every_s=0.05, drain_s=5.0))
    return Table("home", "127.0.0.1", 0, upstreams=upstreams, store=str(folder / "store.db"), **more)


@dataclass
class Reply:
    """What came back; ``body`` is without chunks."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Rack:
    """A gateway that serves on ``port``, the store as its controller sees it, and the log's file."""

    gateway: Gateway
    port: int
    store: SqlStore
    log: Path
    server: asyncio.Server
    _lines: list[dict[str, Any]] = field(default_factory=list)

    def move(self, host: str, *events: Event) -> None:
        """Move a host as the leader does."""
        leading = self.store.leading()
        assert leading is not None
        for event in events:
            version = self.store.known(now=NOW).hosts[host].version
            self.store.move(host, event, "of a test", version=version, term=leading.term, now=NOW)

    def claims(self, host: str = "rig") -> tuple[int, int]:
        """Return how many leases and wishes the store has of a host."""
        row = self.store.known(now=time.time()).hosts[host]
        return row.claims.leases, row.claims.wishes

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is true."""
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0.005)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, method: str, path: str, body: bytes = b"", *headers: str) -> Reply:
        """Send one request on a connection of its own, and read the whole answer."""
        reader, writer = await self.connect()
        try:
            writer.write(request(method, path, body, *headers, "Connection: close"))
            return read(await reader.read())
        finally:
            writer.close()

    async def post(self, path: str, value: Any, *headers: str) -> Reply:
        return await self.ask("POST", path, json.dumps(value).encode(), *headers)

    async def lines(self, count: int) -> list[dict[str, Any]]:
        """Return the lines of the log, as soon as there are so many."""
        await self.until(lambda: self.log.read_bytes().count(b"\n") >= count)
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {SECRET}", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def read(raw: bytes) -> Reply:
    """Read one answer; one whose body is not whole is an error."""
    head, gap, rest = raw.partition(b"\r\n\r\n")
    assert gap, raw
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    headers = {name.lower(): value for name, value in pairs}
    if headers.get("transfer-encoding") == "chunked":
        rest = _unchunked(rest)
    elif "content-length" in headers:
        assert len(rest) == int(headers["content-length"])
    return Reply(int(status.split(" ")[1]), headers, rest)


def _unchunked(rest: bytes) -> bytes:
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        many = int(size, 16)
        if not many:
            assert rest == b"\r\n"
            return body
        body, end, rest = body + rest[:many], rest[many : many + 2], rest[many + 2 :]
        assert end == b"\r\n"


@contextlib.asynccontextmanager
async def assembled(folder: Path, table: Table, **modes: Mode) -> AsyncIterator[Rack]:
    """Yield a gateway of a table, whose hosts are in these modes (READY where none is said)."""
    path = folder / "store.db"
    fresh = not path.exists()
    store = store_at(Unflushed(path), create=fresh)
    for host in table.hosts if fresh else ():
        bring(store, host.name, modes.get(host.name, Mode.READY))
    log = folder / "log"
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    opens = Around(
        f"gateway {os.urandom(4).hex()}", time.time, lambda: store_at(Unflushed(path), create=False), fd
    )
    gateway = assemble(table, folder, opens)
    await gateway.start()
    server = await asyncio.get_running_loop().create_server(
        gateway.protocol, "127.0.0.1", 0, ssl=gateway.tls, backlog=1024
    )
    try:
        yield Rack(gateway, server.sockets[0].getsockname()[1], store, log, server)
    finally:
        server.close()
        await gateway.close()
        store.close()
        os.close(fd)
