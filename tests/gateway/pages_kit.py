"""A small rack, and doubles of what pages lean on; they count whatever would wake, write or ask."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from labctl.domain.budget import Rack as WattRack
from labctl.domain.gateway.table import Host, Key, Kind, Model, Served, Table, Upstream
from labctl.domain.sleep.lifecycle import Mode
from labctl.gateway.pages import Around, OwnPages
from labctl.gateway.refusals import problem
from labctl.gateway.terms import Answer, Ask, HostNow, Record, Refused, World

PEOPLE = Key("people", "0" * 64, outside=True)
TABLE = Table(
    rack="home",
    listen="127.0.0.1",
    port=8080,
    models=(
        Model("qwen", "chat", 120.0, aliases=("coder", "org/Qwen 3"), context=32768),
        Model("embed", "embedding", 60.0),
        Model("cloudy", "chat", 60.0),
        Model("secret", "chat", 60.0, listed=False),
    ),
    upstreams=(
        Upstream("rig/llama", "rig", Kind.LLAMA_SWAP, "10.0.0.2", 8080),
        Upstream("box/vllm", "box", Kind.VLLM, "10.0.0.3", 8000),
        Upstream("cloud", "", Kind.OUTSIDE, "cloud.example", 443, tls=True),
    ),
    served=(
        Served("qwen", "rig/llama", "qwen", load_s=20.0),
        Served("qwen", "box/vllm", "Qwen/Qwen3"),
        Served("embed", "rig/llama", "embed-q8", load_s=5.0),
        Served("secret", "box/vllm", "s"),
        Served("cloudy", "cloud", "gpt"),
    ),
    hosts=(
        Host("rig", wakeable=True, sleeps=True, boot_s=90.0, watts=400.0),
        Host("box", wakeable=True, sleeps=True, boot_s=200.0, watts=900.0),
    ),
    watts=WattRack(circuits=(), hosts=()),
    keys=(PEOPLE,),
)
OPEN_TABLE = replace(TABLE, keys=())


def host(name: str, mode: Mode, **more: object) -> HostNow:
    return replace(HostNow(name, mode, 1_000.0, f"it is {mode}", 30.0), **more)  # type: ignore[arg-type]


def seen(*hosts: HostNow) -> dict[str, HostNow]:
    """Return these hosts, and all others of the table as nobody has seen them yet."""
    never = {
        one.name: HostNow(one.name, Mode.UNKNOWN, 0.0, "the store was not looked at yet", one.boot_s)
        for one in TABLE.hosts
    }
    return never | {host.name: host for host in hosts}


class FakeWaiter:
    def __init__(self, books: FakeBooks, name: str) -> None:
        self.books, self.name, self.left = books, name, False

    async def changed(self, within_s: float) -> HostNow:
        self.books.asked_for_changes.append(within_s)
        return await self.books.changes.get()

    def leave(self) -> None:
        if not self.left:
            self.left = True
            self.books.waiting[self.name] -= 1


@dataclass
class FakeBooks:
    """A world that a test sets, and a list of all that was wished."""

    hosts: Mapping[str, HostNow] = field(default_factory=lambda: seen())
    trouble: str = ""
    paused: str = ""
    wishes: list[tuple[str, str, str, float]] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)
    asked_for_changes: list[float] = field(default_factory=list)
    changes: asyncio.Queue[HostNow] = field(default_factory=asyncio.Queue)
    looks: int = 0

    @property
    def world(self) -> World:
        self.looks += 1
        return World(self.hosts, 50.0, self.trouble, self.paused)

    def want(self, host: str, by: str, why: str, *, until: float) -> FakeWaiter:
        self.wishes.append((host, by, why, until))
        self.waiting[host] = self.waiting.get(host, 0) + 1
        return FakeWaiter(self, host)

    def enter(self, host: str) -> bool:
        raise AssertionError("a page takes no lease")

    async def lease(self, host: str) -> Refused | None:
        raise AssertionError("a page takes no lease")

    def leave(self, host: str) -> None:
        raise AssertionError("a page takes no lease")

    def note(self, host: str, kind: str, text: str) -> None:
        raise AssertionError("a page writes nothing")


@dataclass
class FakeAccess:
    """Lets everybody in, until a test says otherwise."""

    wakes_left: int = 1_000
    requests_left: int = 1_000_000
    inside: int = 0
    entered: list[str] = field(default_factory=list)

    def who(self, ask: Ask) -> Key | Answer:
        return PEOPLE

    def enter(self, key: Key, model: str, now: float) -> Answer | None:
        if len(self.entered) >= self.requests_left:
            return problem(429, "too-many", "too many requests", retry_after_s=7)
        self.entered.append(model)
        self.inside += 1
        return None

    def leave(self, key: Key) -> None:
        self.inside -= 1

    def may_wake(self, key: Key, host: str, now: float) -> Answer | None:
        if not self.wakes_left:
            return problem(429, "too-many-wakes", "no wake is left", host=host, retry_after_s=60)
        self.wakes_left -= 1
        return None


@dataclass
class FakeMeters:
    woken: list[tuple[str, str, float, bool]] = field(default_factory=list)
    gauges: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def took(self, record: Record, tail: bytes) -> None:
        raise AssertionError("a page counts no request")

    def wake(self, host: str, key: str, seconds: float, *, came: bool) -> None:
        self.woken.append((host, key, seconds, came))

    def text(self, gauges: Mapping[str, Mapping[str, float]]) -> bytes:
        self.gauges = gauges
        return b"# counted\n"


@dataclass
class Site:
    """Pages and all that they lean on; ``now`` is both clocks."""

    table: Table = TABLE
    books: FakeBooks = field(default_factory=FakeBooks)
    access: FakeAccess = field(default_factory=FakeAccess)
    meters: FakeMeters = field(default_factory=FakeMeters)
    loaded: dict[str, tuple[str, ...]] = field(default_factory=dict)
    now: float = 60.0
    draining: bool = False
    wanted: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pages = OwnPages(
            self.table,
            Around(
                self.books,
                self.access,
                self.meters,
                lambda: self.now,
                lambda: self.now,
                lambda upstream: self.loaded.get(upstream, ()),
                lambda: self.draining,
                lambda: {"waiting": {'host="rig"': 2.0}},
                lambda: self.wanted,
            ),
        )

    def ask(
        self, method: str, path: str, body: bytes = b"", key: Key | None = PEOPLE, **headers: str
    ) -> Answer:
        """Ask as the desk does; ``headers`` are names with underscores."""
        named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
        ask = Ask(
            "1", method, path, path, "", "1.1", tuple(named.items()), named, "127.0.0.1", 0.0, body=body
        )
        assert self.pages.page(ask) is not None
        return self.pages.answer(ask, None if self.pages.open_to_all(ask) else key)

    def see(self, *hosts: HostNow) -> None:
        self.books.hosts = seen(*hosts)
