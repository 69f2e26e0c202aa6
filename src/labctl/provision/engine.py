"""Run a job over worker processes: deal out the hosts, merge the events, ask once, and always come to an end.

One loop waits for the workers and for Ctrl-C together. It ends when every worker has closed its side, and
these are the ways out, each bounded:

- a worker says the last word on each of its hosts and exits: the ordinary way;
- a worker dies, or writes a line that is not an event: it is ended, its unfinished hosts have failed with the
  code "worker-died", and the others go on;
- a worker has said all but does not exit: it is ended after ``EXIT_GRACE_S``;
- the person interrupts: the running operations may finish for ``CANCEL_GRACE_S``, on a second interrupt
  they may not; a worker that is still there ``KILL_GRACE_S`` later is ended, its hosts are "interrupted".

The decision is asked for when every host has a plan or has ended without one. While it is being made nothing
runs on any host. When the listener or the decision raises (stdout was closed, say), nobody is left half done:
that counts as an interrupt, and the exception goes on its way after the end.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from labctl.domain import shards
from labctl.ports import Clock
from labctl.provision.events import Cancel, Event, Go, HostReport, Job, Log
from labctl.provision.interrupts import Interrupts
from labctl.provision.ledger import Ledger, Why
from labctl.provision.process import Crew, Garbage, WorkerProcess

CANCEL_GRACE_S = 10.0
KILL_GRACE_S = 15.0
EXIT_GRACE_S = 3.0
_TICK_S = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """What shall be done, in the words of the person; paths are absolute, times in seconds.

    ``forced``: by host, what was let through although it does not fit, as JSON.
    """

    rack: Path
    deploys: tuple[Path, ...]
    hosts: tuple[str, ...]
    execute: bool
    owner: str
    cores: int = 1
    wait_for_go: bool = True
    diff: bool = True
    parallel: int = 50
    serial: bool = False
    fail_percent: int | None = None
    allow_reboot: bool = False
    forks_per_core: int = 1
    connect_timeout_s: float = 10.0
    forced: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """How the run went: each host's report, and whether the person stopped it or said no."""

    reports: dict[str, HostReport]
    interrupted: bool
    declined: bool


Listener = Callable[[Event], None]
Decision = Callable[[dict[str, HostReport]], bool]


def run(request: Request, on_event: Listener, decide: Decision, *, crew: Crew, clock: Clock) -> Result:
    """Do what is requested with the workers of ``crew``; never raises for what happens to a host."""
    with Interrupts() as interrupts:
        return _Run(request, on_event, decide, crew, (clock, interrupts)).to_the_end()


def _jobs(request: Request) -> tuple[Job, ...]:
    # What hosts have to agree on (whose turn it is, how many failed) is decided in one process.
    one_place = request.serial or request.fail_percent is not None or request.allow_reboot
    workers = shards.count(
        len(request.hosts),
        request.cores,
        request.forks_per_core,
        parallel=request.parallel,
        one_place=one_place,
    )
    return tuple(
        Job(
            rack=str(request.rack),
            deploys=tuple(str(path) for path in request.deploys),
            hosts=shard.hosts,
            execute=request.execute,
            wait_for_go=request.wait_for_go,
            diff=request.diff,
            parallel=shard.parallel,
            serial=request.serial,
            fail_percent=request.fail_percent,
            allow_reboot=request.allow_reboot,
            connect_timeout_s=request.connect_timeout_s,
            owner=request.owner,
            forced={host: request.forced[host] for host in shard.hosts if host in request.forced},
        )
        for shard in shards.split(request.hosts, workers, request.parallel)
    )


class _Run:
    """The state of one run. All of it lives in one thread: the loop of ``to_the_end``."""

    def __init__(
        self,
        request: Request,
        on_event: Listener,
        decide: Decision,
        crew: Crew,
        senses: tuple[Clock, Interrupts],
    ) -> None:
        self._request = request
        self._on_event = on_event
        self._decide = decide
        self._crew = crew
        self._clock, self._interrupts = senses
        self._ledger = Ledger(request.hosts)
        self._live: set[WorkerProcess] = set()
        self._dismissed: dict[WorkerProcess, float] = {}
        self._undecided = request.execute and request.wait_for_go
        self._declined = False
        self._cancels = 0
        self._raised: Exception | None = None
        self._kill_at: float | None = None
        self._news = selectors.DefaultSelector()

    def to_the_end(self) -> Result:
        """Give out the jobs and stay until no worker is left."""
        with self._news:
            self._news.register(self._interrupts, selectors.EVENT_READ)
            self._start()
            while self._live:
                for key, _ in self._news.select(_TICK_S):
                    if isinstance(key.fileobj, WorkerProcess):
                        self._listen(key.fileobj)
                    else:
                        self._cancel(self._interrupts.take())
                self._ask()
                self._enforce()
        if self._raised is not None:
            raise self._raised
        return Result(self._ledger.reports, self._cancels > 0, self._declined)

    def _start(self) -> None:
        jobs = _jobs(self._request)
        self._crew.grow(len(jobs))
        for job, worker in zip(jobs, self._crew.workers, strict=True):
            worker.hosts = frozenset(job.hosts)
            worker.send(job)
            self._live.add(worker)
            self._news.register(worker, selectors.EVENT_READ)

    def _listen(self, worker: WorkerProcess) -> None:
        if worker not in self._live:
            return
        try:
            events = worker.read()
            for event in events or ():
                self._ledger.record(event, worker.hosts)
                self._tell(event)
        except (Garbage, ValueError) as broken:
            self._bury(worker, f"its worker process is broken: {broken}")
            return
        if events is None:
            self._bury(worker, "")
        elif worker not in self._dismissed and not self._ledger.unfinished(worker.hosts):
            self._dismissed[worker] = self._clock.monotonic() + EXIT_GRACE_S

    def _bury(self, worker: WorkerProcess, reason: str) -> None:
        """Take leave of a worker and speak for the hosts that it left."""
        self._news.unregister(worker)
        self._live.discard(worker)
        left = [host for host in self._ledger.unfinished() if host in worker.hosts]
        status = worker.close(grace_s=EXIT_GRACE_S if not reason else 0.0)
        if not left:
            return
        if self._kill_at is not None and not reason:
            why = Why("interrupted", "interrupted", "its worker was ended before it had finished", _RERUN)
        else:
            words = worker.last_words()
            said = f": {words}" if words else ""
            what = reason or f"its worker process died ({_ending(status)}){said}"
            hint = f"{_RERUN}; what the worker said: {worker.log}" if words else _RERUN
            why = Why("failed", "worker-died", what, hint)
        for host in left:
            self._tell(self._ledger.end(host, why))

    def _tell(self, event: Event) -> None:
        if self._raised is not None:
            return
        try:
            self._on_event(event)
        except Exception as error:
            self._raised = error
            self._cancel(1)

    def _ask(self) -> None:
        if not self._undecided or not self._live or not self._ledger.all_planned() or self._cancels:
            return
        waiting = self._ledger.awaiting_go()
        if not waiting:
            return
        try:
            with self._interrupts.raising():
                yes = self._decide(self._ledger.reports)
        except KeyboardInterrupt:
            self._cancel(1)
            return
        except Exception as error:
            self._raised = error
            yes = False
        self._undecided = False
        self._declined = not yes
        if not yes:
            self._kill_at = self._clock.monotonic() + KILL_GRACE_S
        for worker in self._live:
            hosts = tuple(host for host in waiting if host in worker.hosts)
            worker.send(Go(hosts) if yes else Cancel(0.0))

    def _cancel(self, times: int) -> None:
        for _ in range(times):
            self._cancels += 1
            if self._cancels > 2:
                return
            # Before anything runs there is nothing to finish.
            idle = self._undecided or not self._request.execute
            grace = 0.0 if idle or self._cancels == 2 else CANCEL_GRACE_S
            self._kill_at = self._clock.monotonic() + grace + KILL_GRACE_S
            self._tell(Log("warning", _farewell(grace, self._cancels)))
            for worker in self._live:
                worker.send(Cancel(grace))

    def _enforce(self) -> None:
        """End the workers whose time is over."""
        now = self._clock.monotonic()
        for worker in list(self._live):
            overdue = now >= self._dismissed.get(worker, float("inf"))
            if overdue or (self._kill_at is not None and now >= self._kill_at):
                worker.kill()
                self._bury(worker, "")


_RERUN = "run the same command again: what is done is not repeated"


def _farewell(grace_s: float, times: int) -> str:
    if times > 1:
        return "ending the running operations now"
    if grace_s:
        return f"finishing the running operations (up to {grace_s:g} s); press Ctrl-C again to end them now"
    return "stopping; nothing was changed yet"


def _ending(status: int | None) -> str:
    if status is None or status >= 0:
        return f"exit status {status}"
    return f"signal {-status}"
