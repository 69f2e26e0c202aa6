"""A small rack, doubles of what the desk leans on, and a loop whose clock jumps when nothing is to do."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from labctl.domain.budget import Rack as WattRack
from labctl.domain.gateway.table import Host, Key, Kind, Model, Served, Table, Upstream
from labctl.domain.sleep.lifecycle import ADMITS, Mode
from labctl.gateway.desk import FrontDesk, Parts
from labctl.gateway.refusals import problem
from labctl.gateway.terms import Answer, Ask, End, Failure, HostNow, Reading, Record, Refused, Target, World

ANNA = Key("anna", "a" * 64)
BERT = Key("bert", "b" * 64)
ROOT = Key("root", "c" * 64, outside=True)
KEYS = {b"anna": ANNA, b"bert": BERT, b"root": ROOT}


class _Ahead(selectors.BaseSelector):
    """Selects as the real one; where it would wait, the clock jumps instead."""

    def __init__(self) -> None:
        self.real = selectors.DefaultSelector()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        found = self.real.select(0)
        if not found and timeout is None:
            raise RuntimeError("everybody waits for ever")
        if not found and timeout is not None:
            self.now += max(0.0, timeout)
        return found

    def register(self, *args: Any) -> Any:
        return self.real.register(*args)

    def unregister(self, *args: Any) -> Any:
        return self.real.unregister(*args)

    def get_map(self) -> Any:
        return self.real.get_map()

    def close(self) -> None:
        self.real.close()


class AheadLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._ahead = _Ahead()
        super().__init__(self._ahead)

    def time(self) -> float:
        return self._ahead.now


def ahead(story: Coroutine[Any, Any, None]) -> None:
    """Run a story in a loop whose clock jumps; bugs that the loop hears of are the test's."""
    broken: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=AheadLoop) as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: broken.append(context))
        runner.run(story)
    assert broken == []


def model(id: str = "qwen", wait_s: float = 120.0, **more: Any) -> Model:
    return Model(id, "chat", wait_s, **more)


def upstream(name: str, host: str | None = None, **more: Any) -> Upstream:
    more.setdefault("kind", Kind.LLAMA_SERVER)
    return Upstream(name, name if host is None else host, address="127.0.0.1", port=1, **more)


def table(
    models: tuple[Model, ...] = (model(),),
    upstreams: tuple[Upstream, ...] = (upstream("rig"),),
    served: tuple[Served, ...] | None = None,
    **more: Any,
) -> Table:
    """Return a table in which all upstreams serve the first model, and all hosts sleep."""
    if served is None:
        served = tuple(Served(models[0].id, one.name, models[0].id) for one in upstreams)
    names = dict.fromkeys(one.host for one in upstreams if one.host)
    hosts = tuple(Host(name, True, True, 90.0, 300.0) for name in names)
    more.setdefault("hosts", hosts)
    more.setdefault("watts", WattRack(()))
    return Table("home", "127.0.0.1", 1, models, upstreams, served, keys=tuple(KEYS.values()), **more)


class FakeWaiter:
    def __init__(self, books: FakeBooks, host: str) -> None:
        self.books, self.host, self.gone = books, host, False
        self.bell = asyncio.Event()

    async def changed(self, within_s: float) -> HostNow:
        try:
            async with asyncio.timeout(within_s):
                await self.bell.wait()
        except TimeoutError:
            pass
        self.bell.clear()
        return self.books.hosts[self.host]

    def leave(self) -> None:
        if not self.gone:
            self.gone = True
            self.books.waiters.remove(self)


@dataclass
class FakeBooks:
    """A world that a test sets. Leases are held of hosts in ``held``; ``inside`` is who was counted in."""

    wall: Callable[[], float]
    hosts: dict[str, HostNow] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    inside: dict[str, int] = field(default_factory=dict)
    waiters: list[FakeWaiter] = field(default_factory=list)
    wishes: list[tuple[str, str, str, float]] = field(default_factory=list)
    trouble: str = ""
    paused: str = ""
    asked: int = 0
    lease_s: float = 0.0

    @property
    def world(self) -> World:
        return World(self.hosts, 0.0, self.trouble, self.paused)

    def is_now(self, name: str, mode: Mode, because: str = "", **more: Any) -> None:
        before = self.hosts.get(name) or HostNow(name, mode, 0.0, "", 60.0)
        since = max(self.wall(), before.since + 0.001)
        now = replace(before, mode=mode, because=because or f"it is {mode}", since=since, **more)
        self.hosts[name] = now
        if mode not in ADMITS:
            self.held.discard(name)
        for waiter in self.waiters:
            if waiter.host == name:
                waiter.bell.set()

    def enter(self, host: str) -> bool:
        if host not in self.held:
            return False
        self.inside[host] = self.inside.get(host, 0) + 1
        return True

    async def lease(self, host: str) -> Refused | None:
        self.asked += 1
        await asyncio.sleep(self.lease_s)
        if self.trouble:
            return Refused(None, self.trouble)
        if self.hosts[host].mode not in ADMITS:
            return Refused(self.hosts[host].mode, "")
        self.held.add(host)
        self.enter(host)
        return None

    def leave(self, host: str) -> None:
        self.inside[host] -= 1
        assert self.inside[host] >= 0

    def want(self, host: str, by: str, why: str, *, until: float) -> FakeWaiter:
        self.wishes.append((host, by, why, until))
        self.waiters.append(FakeWaiter(self, host))
        return self.waiters[-1]

    def note(self, host: str, kind: str, text: str) -> None:
        raise AssertionError("the desk leaves notes to access")


@dataclass
class FakeAccess:
    """Knows three keys; ``refuses`` is what it says to whoever enters, ``wakes_left`` counts wakes down."""

    inside: dict[str, int] = field(default_factory=dict)
    refuses: Answer | None = None
    wakes_left: int = 1000
    woken: list[tuple[str, str]] = field(default_factory=list)

    def who(self, ask: Ask) -> Key | Answer:
        key = KEYS.get(ask.named.get(b"authorization", b"").removeprefix(b"Bearer "))
        return key or problem(401, "unknown-key", "the key that was shown is not known here")

    def enter(self, key: Key, model: str, now: float) -> Answer | None:
        if self.refuses is not None:
            return self.refuses
        self.inside[key.name] = self.inside.get(key.name, 0) + 1
        return None

    def leave(self, key: Key) -> None:
        self.inside[key.name] -= 1
        assert self.inside[key.name] >= 0

    def may_wake(self, key: Key, host: str, now: float) -> Answer | None:
        if not self.wakes_left:
            return problem(
                429, "too-many-wakes", f"{host} is asleep, and {key.name} has woken enough", host=host
            )
        self.wakes_left -= 1
        self.woken.append((key.name, host))
        return None


@dataclass
class FakeMeters:
    records: list[Record] = field(default_factory=list)
    wakes: list[tuple[str, str, float, bool]] = field(default_factory=list)

    def took(self, record: Record, tail: bytes) -> None:
        self.records.append(record)

    def wake(self, host: str, key: str, seconds: float, *, came: bool) -> None:
        self.wakes.append((host, key, seconds, came))

    def text(self, gauges: Mapping[str, Mapping[str, float]]) -> bytes:
        return b""


class FakePages:
    """Has two pages, one of them open to all."""

    def page(self, ask: Ask) -> Reading | None:
        return Reading.NONE if ask.path in ("/health", "/metrics") else None

    def open_to_all(self, ask: Ask) -> bool:
        return ask.path == "/health"

    def answer(self, ask: Ask, key: Key | None) -> Answer:
        return Answer(200, f"for {key.name if key else 'anybody'}".encode(), "text/plain")


class FakeExchange:
    """What the proxy would do, as far as the desk can tell; ``targets`` is where it was sent."""

    def __init__(self, office: Office, ask: Ask) -> None:
        self.office, self.ask = office, ask
        self.life: Any = None
        self.begun = False
        self.said: list[bytes] = []
        self.targets: list[Target] = []
        self.answered: Answer | None = None
        self.over = False

    def answer(self, answer: Answer) -> None:
        assert not self.over
        self.answered = answer
        self.end("answered", answer.status)

    def begin_stream(self) -> None:
        assert not self.begun and not self.over
        self.begun = True

    def say(self, text: bytes) -> None:
        assert self.begun and not self.over
        self.said.append(text)

    def forward(self, target: Target) -> None:
        assert not self.over
        self.targets.append(target)

    def fail(self, kind: str, text: str = "it is gone", status: int = 0, *, sent: bool = False) -> None:
        self.office.desk.failed(self, Failure(kind, text, status, sent))

    def end(self, how: str = "served", status: int = 200, seconds: float = 2.0) -> None:
        self.over = True
        now = self.office.desk.mono()
        self.office.desk.ended(self, End(how, status, now - seconds, now, now, 10, 20))

    @property
    def at(self) -> str:
        """Where it was sent last."""
        return self.targets[-1].upstream.name if self.targets else ""


class Office:
    """The desk among its doubles; made in a running loop."""

    def __init__(self, table: Table, **modes: Mode) -> None:
        loop = asyncio.get_running_loop()

        def wall() -> float:
            return 1e6 + loop.time()

        self.books, self.access, self.meters = FakeBooks(wall), FakeAccess(), FakeMeters()
        for host in table.hosts:
            self.books.is_now(host.name, modes.get(host.name, Mode.READY))
        parts = Parts(
            self.access,
            self.books,
            self.meters,
            FakePages(),
            {"cloud": "sk-cloud"},
            wall,
            loop.time,
        )
        self.desk = FrontDesk(table, parts)
        self.table = table

    def ask(
        self, path: str = "/v1/chat/completions", model: str = "qwen", key: str = "anna", **more: Any
    ) -> Ask:
        named = {b"authorization": b"Bearer " + key.encode(), **more.pop("named", {})}
        target = path
        path, _, query = path.partition("?")
        method = more.pop("method", "POST")
        body = more.pop("body", b'{"model":"%b"}' % model.encode())
        now = self.desk.mono()
        return Ask(
            "r1", method, target, path, query, "1.1", tuple(named.items()), named, "127.0.0.1", now,
            body=body, model=model, **more,
        )  # fmt: skip

    def send(self, *args: Any, **more: Any) -> FakeExchange:
        """Send a request, and leave it to the desk."""
        exchange = FakeExchange(self, self.ask(*args, **more))
        said = self.desk.head(exchange.ask)
        assert isinstance(said, Reading), said
        self.desk.start(exchange)
        return exchange

    def idle(self) -> bool:
        """Return whether nothing is held any more, for nobody."""
        counts = [*self.books.inside.values(), *self.access.inside.values(), *self.desk.wanted.values()]
        slots = [lane.slots.running + lane.slots.waiting for lane in self.desk.lanes.values()]
        return not any(counts) and not any(slots) and not self.books.waiters


async def settle() -> None:
    """Let everything run that can run now."""
    for _ in range(20):
        await asyncio.sleep(0)
