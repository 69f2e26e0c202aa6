"""A whole gateway in a thread of its own, for clients that block, with a double behind each host.

with gateway_of(tmp_path, Plan({"box": Mode.READY}, {"tiny": ("box",)})) as site:
    httpx.get(f"{site.url}/v1/models", headers=site.auth)
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from assembled_kit import SECRET, Rack, assembled, table_for, upstream
from upstream_double import Double, doubles

from labctl.domain.gateway.table import Key, Limits, Model, Served
from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.domain.sleep.terms import Wish

T = TypeVar("T")


def key(name: str = "tests", secret: str = SECRET, **more: Any) -> Key:
    return Key(name, hashlib.sha256(secret.encode()).hexdigest(), **more)


@dataclass(frozen=True)
class Plan:
    """Hosts with their first modes, each with one upstream, and models by the hosts that serve them."""

    hosts: Mapping[str, Mode]
    models: Mapping[str, tuple[str, ...]]
    keys: tuple[Key, ...] = (key(),)
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    passes: tuple[str, ...] = ("POST /completion", "GET /props")


class Site:
    """A running gateway as a test sees it; everything is called in the test's thread."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.auth = {"Authorization": f"Bearer {SECRET}"}
        self.doubles: dict[str, Double] = {}
        self.rack: Rack
        self.began = threading.Event()
        self._over = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._broke: Exception | None = None

    @property
    def port(self) -> int:
        return self.rack.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, coroutine: Coroutine[Any, Any, T], within_s: float = 20.0) -> T:
        """Run something in the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(within_s)

    def move(self, host: str, *events: Event) -> None:
        """Do what the controller would."""

        async def moved() -> None:
            self.rack.move(host, *events)

        self.call(moved())

    def wishes(self) -> list[Wish]:
        async def found() -> list[Wish]:
            hosts = self.rack.store.known(now=time.time()).hosts.values()
            return [wish for host in hosts for wish in host.wishes]

        return self.call(found())

    def wished(self, count: int = 1) -> list[Wish]:
        """Return the wishes as soon as there are so many."""
        until(lambda: len(self.wishes()) == count)
        return self.wishes()

    def begin(self) -> None:
        self._thread.start()
        self.began.wait(20)
        if self._broke is not None:
            raise self._broke

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except Exception as broke:
            self._broke = broke
            self.began.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        plan = self.plan
        async with doubles(len(plan.hosts), models=tuple(plan.models)) as made:
            self.doubles = dict(zip(plan.hosts, made, strict=True))
            passes = {"passes": plan.passes, "wakes": plan.passes[:1]}
            table = table_for(
                *(upstream(double, host, host, **passes) for host, double in self.doubles.items()),
                folder=self.folder,
                models=tuple(
                    Model(name, "chat", 30.0, aliases=plan.aliases.get(name, ())) for name in plan.models
                ),
                served=tuple(Served(name, host, name) for name, at in plan.models.items() for host in at),
                keys=plan.keys,
                limits=plan.limits,
            )
            async with assembled(self.folder, table, **plan.hosts) as self.rack:
                self.began.set()
                await self._over.wait()


def until(true: Callable[[], bool], within_s: float = 10.0) -> None:
    """Return as soon as something holds that no event tells of: what a store has, what a log says."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@contextlib.contextmanager
def gateway_of(folder: Path, plan: Plan) -> Iterator[Site]:
    """Yield a gateway that runs."""
    site = Site(folder, plan)
    site.begin()
    try:
        yield site
    finally:
        site.end()
