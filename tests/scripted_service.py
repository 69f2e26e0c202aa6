"""A controller that plays a script, behind the real door: a unix socket in a folder of the test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labctl.controller.answers import Block, Change, Explanation, HostStatus, RackStatus, TestStep, Ticket
from labctl.controller.api.peers import Allowed, allowed
from labctl.controller.api.server import Bounds, Door, Server, greeting
from labctl.controller.api.verbs import Verbs
from labctl.domain.energy.account import Account, account
from labctl.domain.energy.terms import Grain, Spent
from labctl.domain.problem import LabctlError
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.terms import Hold, Reading, Wish
from labctl.ports.store import ANY, Happening, Sought

NOON = 1_800_000_000.0
NOTHING_USED = Account(NOON - 86400, NOON, "", False, *account((), (), (), ()))
STALLED = Change("", Mode.UNKNOWN, "the script stalls here, until the test lets it go on")


@dataclass
class Scripted:
    """The facade ``Asked``, played; every call is noted in ``calls``."""

    names: tuple[str, ...] = ("gpu-box", "nas")
    changes: list[Change | None] = field(default_factory=list)
    steps: list[TestStep | None] = field(default_factory=list)
    log: list[Happening] = field(default_factory=list)
    statuses: dict[str, HostStatus] = field(default_factory=dict)
    store: str = ""
    paused: str = ""
    leader: str = "nas pid 1"
    account: Account = NOTHING_USED
    spans: list[Spent] = field(default_factory=list)
    raises: Exception | None = None
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)

    def _note(self, name: str, **given: Any) -> None:
        self.calls.append((name, given))
        if self.raises is not None:
            raise self.raises

    def called(self, name: str) -> list[dict[str, Any]]:
        return [given for called, given in self.calls if called == name]

    def hosts(self) -> tuple[str, ...]:
        return self.names

    def wake(self, hosts: Sequence[str], *, why: str, by: str, lasts_s: float = 900.0) -> tuple[Ticket, ...]:
        self._note("wake", hosts=tuple(hosts), why=why, by=by, lasts_s=lasts_s)
        return tuple(Ticket(host, 7 + n, "awake") for n, host in enumerate(hosts))

    def suspend(
        self, hosts: Sequence[str], *, why: str, by: str, when_idle: bool = False, force: bool = False
    ) -> tuple[Ticket, ...]:
        self._note("suspend", hosts=tuple(hosts), why=why, by=by, when_idle=when_idle, force=force)
        return tuple(Ticket(host, 7 + n, "asleep") for n, host in enumerate(hosts))

    def follow(self, tickets: Sequence[Ticket], *, patience_s: float = 5.0) -> Iterator[Change | None]:
        self._note("follow", tickets=tuple(tickets))
        try:
            for change in self.changes:
                if change is STALLED:
                    self.stalled.set()
                    while not self.let_go.wait(0.01):
                        yield None
                else:
                    yield change
        finally:
            self.closed.set()

    def forget(self, tickets: Sequence[Ticket]) -> None:
        self._note("forget", tickets=tuple(tickets))

    def watch(self, hosts: Sequence[str], *, patience_s: float = 5.0) -> Iterator[Change | None]:
        yield from self.changes

    def hold(self, host: str, *, lasts_s: float, why: str, by: str) -> Hold:
        self._note("hold", host=host, lasts_s=lasts_s, why=why, by=by)
        return Hold(12, host, why, by, NOON + lasts_s)

    def release(self, host: str, *, by: str, hold: int | None = None) -> int:
        self._note("release", host=host, by=by, hold=hold)
        return sum(hold in (None, one.id) for one in self._status(host).holds)

    def nudge(self, host: str) -> None:
        self._note("nudge", host=host)

    def pause(self, host: str | None, *, why: str, by: str) -> None:
        self._note("pause", host=host, why=why, by=by)

    def resume(self, host: str | None, *, by: str) -> None:
        self._note("resume", host=host, by=by)

    def _status(self, host: str) -> HostStatus:
        return self.statuses.get(host) or HostStatus(host, Mode.READY, NOON - 60, "it serves", usual_s=42.0)

    def status(self) -> RackStatus:
        self._note("status")
        hosts = tuple(map(self._status, self.names))
        return RackStatus(NOON, self.leader, bool(self.leader), self.store, self.paused, 2.0, hosts)

    def explain(self, host: str) -> Explanation:
        self._note("explain", host=host)
        return Explanation(
            self._status(host),
            "it stays awake: sessions is busy",
            may_sleep=False,
            readings=(
                Reading("sessions", True, "ann is logged in from 10.0.0.7"),
                Reading("gpu", False, "no card computes"),
                Reading("mounts", None, "showmount is not there"),
            ),
            report_age_s=3.0,
            signs=("ping: on",),
            against=("ann is logged in from 10.0.0.7", "mounts cannot be read"),
            recent=((NOON - 5, "woken for ann"),),
            lines=("awake: ann is logged in from 10.0.0.7", "awake: mounts cannot be read"),
            blocks=(
                Block("hold", "ann is logged in from 10.0.0.7", NOON + 600, "labctl release gpu-box"),
                Block("quiet", "mounts cannot be read", None, ""),
            ),
            refused=(NOON - 9, "gpu of gpu-box: train.py (500) holds card 0"),
            next_look_s=7.0,
        )

    def events(
        self, *, host: str | None = None, after: int = 0, most: int = 100, only: Sought = ANY
    ) -> Sequence[Happening]:
        self._note("events", host=host, after=after, most=most, only=only)
        return [one for one in self.log if one.id > after and host in (None, one.host)][-most:]

    def energy(self, hosts: Sequence[str], *, for_s: float) -> Account:
        self._note("energy", hosts=tuple(hosts), for_s=for_s)
        return self.account

    def energy_spans(self, hosts: Sequence[str], grain: Grain, *, for_s: float) -> Sequence[Spent]:
        self._note("energy_spans", hosts=tuple(hosts), grain=grain, for_s=for_s)
        return self.spans

    def sleep_test(
        self, host: str, *, cycles: int = 3, by: str, patience_s: float = 5.0
    ) -> Iterator[TestStep | None]:
        self._note("sleep_test", host=host, cycles=cycles, by=by)
        for step in self.steps:
            yield step
            while step is None and not self.let_go.wait(0.01):
                yield None

    def end_test(self, host: str, *, by: str) -> bool:
        self._note("end_test", host=host, by=by)
        return bool(self.steps)


def hold(number: int, why: str = "a fine-tune", by: str = "ann") -> Hold:
    return Hold(number, "gpu-box", why, by, NOON + 3600)


def wish(number: int, *, sleep: bool = False) -> Wish:
    return Wish(number, "gpu-box", "ben", "a demo", NOON, NOON + 900, sleep)


def refuses(reason: str, hint: str = "") -> LabctlError:
    return LabctlError(reason, hint=hint)


@contextmanager
def serving(
    path: Path,
    service: Scripted,
    *,
    who: Allowed | None = None,
    bounds: Bounds | None = None,
    log: list[str] | None = None,
    rack: str = "desk",
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[Server]:
    """Keep a door for a scripted controller, and see that it leaves nothing behind."""
    told = [] if log is None else log
    door = Door(path, who or allowed(()), greeting(rack, "0.1"), told.append)
    before = set(threading.enumerate())
    with Server(door, Verbs(service, monotonic).answer, bounds) as server:
        yield server
    for one in set(threading.enumerate()) - before:
        one.join(10)  # whoever answered somebody else a moment ago may still be at its end
        assert not one.is_alive(), f"a thread was left behind: {one.name}"
    assert not path.exists()
