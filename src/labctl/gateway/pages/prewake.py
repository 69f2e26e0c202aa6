"""Wake a host in advance: POST /labctl/v1/prewake.

It is answered at once with an estimate. The host is wished for until it is ready, until it turns out that it
does not come, or until the time is over that a request for the model would have waited. However often one is
asked, there is one wish for a host.

It counts as a request of its key, and as a wake of its key where nobody had asked for that host before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from labctl.domain.budget import budget_of
from labctl.domain.gateway.picking import EASE, Option, has_room, ordered
from labctl.domain.gateway.table import Host, Key, Model, Table
from labctl.domain.sleep.lifecycle import ADMITS, Mode
from labctl.gateway.refusals import problem
from labctl.gateway.terms import Access, Answer, Ask, Books, HostNow, Meters, Waiter

from .documents import Prewake, Prewaken, State
from .lists import may_ask_for
from .outlook import ON_THE_WAY, Outlook, Prospect, host_expected_s, host_state

MOST_BYTES = 16 * 1024
WAIT_S = 300.0
"""How long a host is wished for that no model says more about."""


@dataclass(frozen=True, slots=True)
class Around:
    """The parts of ``pages.Around`` that this needs."""

    books: Books
    access: Access
    meters: Meters
    wall: Callable[[], float]
    mono: Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was asked for: a host, for how long at most, in which words, and what loading its model takes."""

    host: Host
    wait_s: float
    why: str
    model: str
    load_s: float


class Prewaker:
    """Answers prewakes, and waits for the hosts."""

    def __init__(self, table: Table, outlook: Outlook, around: Around) -> None:
        """Begin nothing."""
        self._outlook = outlook
        self._around = around
        self._budget = budget_of(table.watts)
        self._places = {upstream.name: at for at, upstream in enumerate(table.upstreams)}
        self._waits = {model.id: model.wait_s for model in table.models}
        self._waiting: dict[str, asyncio.Task[None]] = {}

    def answer(self, ask: Ask, key: Key) -> Answer:
        """Wake, and say how long it will take."""
        asked = _asked(ask)
        if isinstance(asked, Answer):
            return asked
        wanted = self._model(asked.model, key) if asked.model else self._host(asked.host, key)
        if not isinstance(wanted, _Wanted):
            return wanted
        model = asked.model and self._outlook.models[asked.model].id
        if refusal := self._around.access.enter(key, model, self._around.mono()):
            return refusal
        try:
            return self._wake(wanted, key)
        finally:
            self._around.access.leave(key)

    def close(self) -> None:
        """Wait for no host any more."""
        for task in self._waiting.values():
            task.cancel()

    # --- whom

    def _model(self, name: str, key: Key) -> _Wanted | Answer:
        model = self._outlook.models.get(name)
        if model is None:
            hint = "GET /v1/models lists those that there are"
            return problem(404, "no-such-model", "Nobody here serves a model of that name", hint=hint)
        if not may_ask_for(key, model.id):
            return problem(403, "not-your-model", f"The key {key.name} may not ask for {model.id}")
        best = self._best(model)
        if best is None:
            return _said(Prewaken("", model.id, State.OUTSIDE, 0.0, "no host of this rack serves it"), 200)
        host = self._outlook.hosts[best.upstream.host]
        why = f"{model.id} was asked for in advance"
        return _Wanted(host, model.wait_s, why, model.id, best.served.load_s)

    def _best(self, model: Model) -> Prospect | None:
        """Return whom a request would go to, or wake."""
        seen = self._around.books.world.hosts
        modes = {name: now.mode for name, now in seen.items()}
        prospects = {self._places[p.upstream.name]: p for p in self._outlook.prospects(model)}
        options = []
        for at, prospect in prospects.items():
            host = self._outlook.hosts.get(prospect.upstream.host)
            if host is None:
                continue
            mode = modes.get(host.name, Mode.UNKNOWN)
            options.append(
                Option(
                    at,
                    EASE[mode],
                    seconds=prospect.expected_s or 0.0,
                    watts=host.watts,
                    last=prospect.state is State.READY,
                    fits=has_room(self._budget, modes, host.name),
                    avoided=prospect.expected_s is None,
                )
            )
        best = ordered(options)
        return prospects[best[0].at] if best else None

    def _host(self, name: str, key: Key) -> _Wanted | Answer:
        host = self._outlook.hosts.get(name)
        if host is None:
            hint = "GET /labctl/v1/status lists those that there are"
            return problem(404, "no-such-host", "No host of that name serves models here", hint=hint)
        models = self._outlook.models_at(name)
        if key.models and not any(may_ask_for(key, model) for model in models):
            return problem(403, "not-your-host", f"The key {key.name} may ask for no model of {name}")
        wait_s = max((self._waits[model] for model in models), default=WAIT_S)
        return _Wanted(host, wait_s, f"{name} was asked for in advance", "", 0.0)

    # --- and how

    def _wake(self, wanted: _Wanted, key: Key) -> Answer:
        around, name = self._around, wanted.host.name
        world = around.books.world
        now = world.hosts.get(name)
        if now is not None and now.mode in ADMITS:
            return _said(self._told(wanted, now, now.because), 200)
        if world.trouble:
            detail = f"The store can't be used, so nobody can be woken: {world.trouble}"
            return problem(503, "store-unusable", detail, host=name, retry_after_s=5)
        refused = now.refused if now else "" if wanted.host.wakeable else "nothing wakes it"
        if refused:
            hint = f"labctl explain {name}"
            return problem(503, "cannot-wake", f"{name} can't be woken: {refused}", host=name, hint=hint)
        first = name not in self._waiting and not (now and now.mode in ON_THE_WAY)
        if first and (refusal := around.access.may_wake(key, name, around.mono())):
            return refusal
        self._hold(wanted, key, first=first)
        return _said(self._told(wanted, now, f"{name} is being woken"), 202)

    def _told(self, wanted: _Wanted, now: HostNow | None, because: str) -> Prewaken:
        expected_s = host_expected_s(wanted.host, now)
        state = host_state(now)
        if wanted.model:
            told = self._outlook.model_now(self._outlook.models[wanted.model])
            is_loaded = wanted.host.name in told.loaded
            if state is State.READY and not is_loaded:
                state = State.AWAKE
            if expected_s is not None and not is_loaded:
                expected_s += wanted.load_s
        if state not in (State.READY, State.AWAKE):
            state = State.WAKING
        return Prewaken(wanted.host.name, wanted.model, state, expected_s, because)

    def _hold(self, wanted: _Wanted, key: Key, *, first: bool) -> None:
        """Wait for the host; whoever waited for it before us is released, once we do."""
        around, name = self._around, wanted.host.name
        until = around.wall() + wanted.wait_s
        waiter = around.books.want(name, f"gateway {key.name}", wanted.why, until=until)
        before = self._waiting.get(name)
        task = asyncio.get_running_loop().create_task(self._wait(waiter, wanted, key, first=first))
        self._waiting[name] = task
        if before is not None:
            before.cancel()
        # Not in a `finally` of the task: one that is cancelled before its first step runs none.
        task.add_done_callback(lambda done: self._over(name, done, waiter))

    def _over(self, name: str, done: asyncio.Task[None], waiter: Waiter) -> None:
        waiter.leave()
        if self._waiting.get(name) is done:
            del self._waiting[name]

    async def _wait(self, waiter: Waiter, wanted: _Wanted, key: Key, *, first: bool) -> None:
        around, name = self._around, wanted.host.name
        began = around.mono()
        began_to_come = came = False
        while not came and (left := began + wanted.wait_s - around.mono()) > 0:
            now = await waiter.changed(left)
            came = now.mode in ADMITS
            # Where it had failed before we came, it may still come; that it fails now is the end.
            if now.refused or (now.mode is Mode.FAILED and began_to_come):
                break
            began_to_come = began_to_come or now.mode in ON_THE_WAY
        if first:
            around.meters.wake(name, key.name, around.mono() - began, came=came)


def _asked(ask: Ask) -> Prewake | Answer:
    content_type = ask.named.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if content_type != b"application/json":
        # A form of a strange web page is sent by browsers unasked; JSON is not.
        return problem(415, "not-json", "What is to be woken is told as application/json")
    if len(ask.body) > MOST_BYTES:
        return problem(413, "too-large", f"A prewake is at most {MOST_BYTES} bytes")
    try:
        asked = msgspec.json.decode(ask.body, type=Prewake)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        asked = Prewake()
    if bool(asked.model) == bool(asked.host):
        hint = 'send {"model": "..."} or {"host": "..."}'
        return problem(400, "bad-prewake", "A prewake names a model or a host, and nothing else", hint=hint)
    return asked


def _said(document: Prewaken, status: int) -> Answer:
    return Answer(status, msgspec.json.encode(document))
