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
from labctl.gateway.desk import reasons
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
    wanted: Callable[[], dict[str, int]]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was asked for: a host, for how long at most, and in which words; ``model`` is for whose sake."""

    host: Host
    wait_s: float
    why: str
    model: Model | None = None


@dataclass(frozen=True, slots=True)
class _Vigil:
    """That we wait for a host; ``woken_at`` (mono) is when we woke it, None where others did."""

    task: asyncio.Task[None]
    woken_at: float | None


class Prewaker:
    """Answers prewakes, and waits for the hosts."""

    def __init__(self, table: Table, outlook: Outlook, around: Around) -> None:
        """Begin nothing."""
        self._outlook = outlook
        self._around = around
        self._budget = budget_of(table.watts)
        self._places = {upstream.name: at for at, upstream in enumerate(table.upstreams)}
        self._waits = {model.id: model.wait_s for model in table.models}
        self._vigils: dict[str, _Vigil] = {}

    def answer(self, ask: Ask, key: Key) -> Answer:
        """Wake, and say how long it will take."""
        asked = _asked(ask)
        if isinstance(asked, Answer):
            return asked
        access, model = self._around.access, self._outlook.models.get(asked.model)
        if asked.model and model is None:
            return reasons.no_such_model(asked.model, ())
        if asked.host and asked.host not in self._outlook.hosts:
            return reasons.no_such_host(asked.host, list(self._outlook.hosts))
        if refusal := access.enter(
            key, model.id if model else self._counted(asked.host, key), self._around.mono()
        ):
            return refusal
        try:
            wanted = self._for_model(model, key) if model else self._for_host(asked.host)
            return wanted if isinstance(wanted, Answer) else self._wake(wanted, key)
        finally:
            access.leave(key)

    def close(self) -> None:
        """Wait for no host any more."""
        for vigil in self._vigils.values():
            vigil.task.cancel()

    # --- whom

    def _counted(self, host: str, key: Key) -> str:
        """Return the model for which a wake of a host counts: one that the key may ask for, if there is any.

        Who may ask for all models needs none.
        """
        models = self._outlook.models_at(host) if key.models else ()
        return next((model for model in models if may_ask_for(key, model)), "")

    def _for_model(self, model: Model, key: Key) -> _Wanted | Answer:
        best = self._best(model)
        if best is None:
            now = self._outlook.model_now(model, outside=key.outside)
            because = "no host of this rack has to be awake for it"
            return _said(Prewaken("", now.state, now.expected_s, because), 200)
        why = f"{model.id} was asked for in advance"
        return _Wanted(self._outlook.hosts[best.upstream.host], model.wait_s, why, model)

    def _for_host(self, name: str) -> _Wanted:
        wait_s = max((self._waits[model] for model in self._outlook.models_at(name)), default=WAIT_S)
        return _Wanted(self._outlook.hosts[name], wait_s, f"{name} was asked for in advance")

    def _best(self, model: Model) -> Prospect | None:
        """Return whom a request would go to, or wake."""
        modes = {name: self._outlook.now(host).mode for name, host in self._outlook.hosts.items()}
        prospects = {self._places[p.upstream.name]: p for p in self._outlook.prospects(model)}
        options = []
        for at, prospect in prospects.items():
            host = self._outlook.hosts.get(prospect.upstream.host)
            if host is None:
                continue
            options.append(
                Option(
                    at,
                    EASE[modes[host.name]],
                    seconds=prospect.expected_s or 0.0,
                    watts=host.watts,
                    last=prospect.state is State.READY,
                    fits=has_room(self._budget, modes, host.name),
                    avoided=prospect.expected_s is None,
                )
            )
        best = ordered(options)
        return prospects[best[0].at] if best else None

    # --- and how

    def _wake(self, wanted: _Wanted, key: Key) -> Answer:
        around, name = self._around, wanted.host.name
        world, now = around.books.world, self._outlook.now(wanted.host)
        if now.mode in ADMITS:
            return _said(self._told(wanted, now, now.because), 200)
        if world.trouble:
            return reasons.store_unusable(name, world.trouble)
        if now.refused or world.paused:
            return reasons.must_not_wake(now, world.paused)
        woken_at = None
        if not around.wanted().get(name) and now.mode not in ON_THE_WAY:
            woken_at = around.mono()
            if refusal := around.access.may_wake(key, name, woken_at):
                return refusal
        self._hold(wanted, key, woken_at)
        return _said(self._told(wanted, now, f"{name} is being woken"), 202)

    def _told(self, wanted: _Wanted, now: HostNow, because: str) -> Prewaken:
        state, expected_s = host_state(now), host_expected_s(now)
        if wanted.model:
            at_host = (
                prospect
                for prospect in self._outlook.prospects(wanted.model)
                if prospect.upstream.host == wanted.host.name
            )
            nearest = next(at_host)
            state, expected_s = nearest.state, nearest.expected_s
        if state not in (State.READY, State.AWAKE):
            state = State.WAKING
        return Prewaken(wanted.host.name, state, expected_s, because)

    def _hold(self, wanted: _Wanted, key: Key, woken_at: float | None) -> None:
        """Wait for the host; whoever waited for it before us is released, once we do."""
        around, name = self._around, wanted.host.name
        until = around.wall() + wanted.wait_s
        waiter = around.books.want(name, f"gateway {key.name}", wanted.why, until=until)
        wanted_by = around.wanted()
        wanted_by[name] = wanted_by.get(name, 0) + 1
        before = self._vigils.get(name)
        if before is not None:
            woken_at = before.woken_at
            before.task.cancel()
        task = asyncio.get_running_loop().create_task(self._wait(waiter, wanted, key, woken_at))
        self._vigils[name] = _Vigil(task, woken_at)
        # Not in a `finally` of the task: one that is cancelled before its first step runs none.
        task.add_done_callback(lambda done: self._over(name, done, waiter))

    def _over(self, name: str, done: asyncio.Task[None], waiter: Waiter) -> None:
        waiter.leave()
        wanted_by = self._around.wanted()
        wanted_by[name] -= 1
        if not wanted_by[name]:
            del wanted_by[name]
        vigil = self._vigils.get(name)
        if vigil is not None and vigil.task is done:
            del self._vigils[name]

    async def _wait(self, waiter: Waiter, wanted: _Wanted, key: Key, woken_at: float | None) -> None:
        around, name = self._around, wanted.host.name
        began = around.mono()
        before, came = self._outlook.now(wanted.host), False
        while not came and (left := began + wanted.wait_s - around.mono()) > 0:
            now = await waiter.changed(left)
            came = now.mode in ADMITS
            # Where it had failed before we came, it may still come; that it fails anew is the end.
            anew = (now.mode, now.since) != (before.mode, before.since)
            if now.refused or (now.mode is Mode.FAILED and anew):
                break
        if woken_at is not None:
            around.meters.wake(name, key.name, around.mono() - woken_at, came=came)


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
