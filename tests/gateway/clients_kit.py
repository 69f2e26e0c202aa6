"""A whole gateway in a thread: real proxy, desk, books and store, with upstream doubles behind it.

A test is the controller: it moves hosts in the store and sees who wishes for them.

    with assembled(tmp_path, rack) as site:
        httpx.get(site.url + "/v1/models", headers=site.auth)
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from upstream_double import Double

from labctl.adapters.store import open_store
from labctl.domain.budget import Rack as WattRack
from labctl.domain.gateway.table import Host, Key, Kind, Limits, Model, Served, Table, Upstream
from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.domain.sleep.terms import Wish
from labctl.gateway.assembly import Around, Gateway, assemble
from labctl.ports.store import Store

KEY = "sk-labctl-for-tests"
T = TypeVar("T")

# How to come to each mode from UNKNOWN.
PATHS: dict[Mode, tuple[Event, ...]] = {
    Mode.UNKNOWN: (),
    Mode.READY: (Event.SEEN, Event.PASSED),
    Mode.ASLEEP: (Event.DARK,),
}


def key(name: str = "tests", secret: str = KEY, **more: Any) -> Key:
    return Key(name, hashlib.sha256(secret.encode()).hexdigest(), **more)


@dataclass(frozen=True)
class Plan:
    """What a test wants: hosts with their first modes, and models by the hosts that serve them.

    Each host has one upstream, which is a double of its own; ``load_s`` is each model's.
    """

    hosts: dict[str, Mode]
    models: dict[str, tuple[str, ...]]
    keys: tuple[Key, ...] = (key(),)
    aliases: dict[str, tuple[str, ...]] | None = None
    limits: Limits = field(default_factory=Limits)
    kind: Kind = Kind.LLAMA_SERVER
    wait_s: float = 30.0
    passes: tuple[str, ...] = ("POST /completion", "GET /props")
    wakes: tuple[str, ...] = ("POST /completion",)


def table_of(plan: Plan, ports: dict[str, int], store: str) -> Table:
    upstreams = tuple(
        Upstream(name, name, plan.kind, "127.0.0.1", port, passes=plan.passes, wakes=plan.wakes)
        for name, port in ports.items()
    )
    return Table(
        rack="tests",
        listen="127.0.0.1",
        port=0,
        models=tuple(
            Model(name, "chat", plan.wait_s, aliases=(plan.aliases or {}).get(name, ()))
            for name in plan.models
        ),
        upstreams=upstreams,
        served=tuple(Served(name, host, name) for name, hosts in plan.models.items() for host in hosts),
        hosts=tuple(Host(name, wakeable=True, sleeps=True, boot_s=30.0) for name in plan.hosts),
        watts=WattRack(()),
        keys=plan.keys,
        limits=plan.limits,
        store=store,
    )


class Site:
    """A running gateway as a test sees it; everything is called in the test's thread."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.plan = plan
        self.folder = folder
        self.auth = {"Authorization": f"Bearer {KEY}"}
        self.doubles: dict[str, Double] = {}
        self.port = 0
        self.gateway: Gateway
        self._loop = uvloop.new_event_loop()
        path = folder / "store.db"
        self.store = open_store(path, create=True)
        self._path = path
        leading = self.store.lead("tests", over=None, now=time.time())
        assert leading is not None
        self._term = leading.term
        self.store.enlist(plan.hosts, now=time.time())
        for host, mode in plan.hosts.items():
            self.move(host, *PATHS[mode])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def move(self, host: str, *events: Event) -> None:
        """Do what the controller would."""
        for event in events:
            row = self.store.known(now=time.time()).hosts[host]
            self.store.move(
                host, event, f"because of {event}", version=row.version, term=self._term, now=time.time()
            )

    def wishes(self) -> list[Wish]:
        hosts = self.store.known(now=time.time()).hosts.values()
        return [wish for host in hosts for wish in host.wishes]

    def wished(self, count: int = 1) -> list[Wish]:
        """Return the wishes as soon as there are so many."""
        until(lambda: len(self.wishes()) == count)
        return self.wishes()

    def call(self, coroutine: Coroutine[Any, Any, T], within_s: float = 20.0) -> T:
        """Run something in the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(within_s)

    async def begin(self) -> None:
        for host in self.plan.hosts:
            self.doubles[host] = Double(models=tuple(self.plan.models))
            await self.doubles[host].start()
        table = table_of(self.plan, {name: one.port for name, one in self.doubles.items()}, str(self._path))
        log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._log = log
        self.gateway = assemble(table, self.folder, Around("gateway-tests", time.time, self._open, log))
        await self.gateway.start()
        self._server = await asyncio.get_running_loop().create_server(self.gateway.protocol, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def end(self) -> None:
        self._server.close()
        await self.gateway.close()
        for double in self.doubles.values():
            await double.stop()
        os.close(self._log)

    def _open(self) -> Store:
        return open_store(self._path, create=False)

    def run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.store.close()


def until(true: Callable[[], bool], within_s: float = 10.0) -> None:
    """Return as soon as something holds that no event tells of: what a store has, what a log says."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@contextlib.contextmanager
def assembled(folder: Path, plan: Plan) -> Iterator[Site]:
    """Yield a gateway that runs."""
    site = Site(folder, plan)
    thread = threading.Thread(target=site.run, name="gateway", daemon=True)
    thread.start()
    try:
        site.call(site.begin())
        yield site
        site.call(site.end())
    finally:
        site.stop()
        thread.join(10)
