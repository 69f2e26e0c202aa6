"""The life of each host in a run, and what ends it.

Each host has one greenlet: connect, plan, wait for the word, execute, say how it went. A host that fails,
freezes or raises ends itself and nobody else. Every host ends with exactly one ``HostEnded``.

Cancelling ends at once what has changed nothing yet: hosts that connect, plan, or wait for the word, their
turn or the lock. Only a running operation gets its time to finish.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path

import gevent
from gevent.event import Event as Flag
from gevent.lock import BoundedSemaphore
from pyinfra.api.host import Host
from pyinfra.api.state import State

from labctl.domain import failures
from labctl.domain.failures import Failure, HostError
from labctl.domain.problem import LabctlError
from labctl.provision.events import Connected, Event, HostEnded, HostStatus, Job, Planned
from labctl.provision.worker.connector import RackConnector
from labctl.provision.worker.executing import Execution, Tally
from labctl.provision.worker.lock import WHO_HOLDS, read_who_holds, refused_by
from labctl.provision.worker.planning import EvaluationError, HostPlan, LogTap, evaluate, register
from labctl.provision.worker.session import ConnectionLost

_INTERRUPTED = Failure("interrupted", "interrupted", "run labctl apply again: it resumes")
_NOT_CHOSEN = Failure("interrupted", "not confirmed", "nothing was changed")


class Run:
    """One job on the hosts of this worker."""

    def __init__(
        self,
        state: State,
        job: Job,
        deploys: list[Callable[[], None]],
        tap: LogTap,
        emit: Callable[[Event], None],
    ) -> None:
        """Prepare to run ``job``; ``emit`` gets every event."""
        self._state, self._job, self._deploys, self._tap, self._emit = state, job, deploys, tap, emit
        self._slots = BoundedSemaphore(max(1, job.parallel))
        self._decided = Flag()
        self._chosen: frozenset[str] = frozenset(job.hosts)
        self._cancelled = False
        self._failed = 0
        self._connectors: dict[str, RackConnector] = {}
        self._turns = {name: Flag() for name in job.hosts}
        self._waiting = list(job.hosts)
        self._harmless: dict[str, gevent.Greenlet] = {}
        if not job.wait_for_go:
            self._decided.set()
        if not job.serial:
            for turn in self._turns.values():
                turn.set()

    def run(self) -> None:
        """Run the job on every host to its end."""
        greenlets = [gevent.spawn(self._host, host) for host in self._state.inventory]
        self._turns[self._waiting[0]].set()
        gevent.joinall(greenlets, raise_error=True)

    def go(self, hosts: tuple[str, ...]) -> None:
        """Let ``hosts`` execute what they planned; the others end untouched."""
        self._chosen = frozenset(hosts)
        self._decided.set()

    def cancel(self, grace_s: float) -> None:
        """Start nothing new; after ``grace_s`` seconds end what runs, then the connections."""
        self._cancelled = True
        for name in list(self._harmless):
            gevent.get_hub().loop.run_callback(self._interrupt, name)
        gevent.spawn_later(grace_s, self._end_commands)
        gevent.spawn_later(grace_s + 7, self._drop_connections)

    def _interrupt(self, name: str) -> None:
        greenlet = self._harmless.pop(name, None)
        if greenlet is not None:
            greenlet.throw(gevent.GreenletExit)

    def _end_commands(self) -> None:
        gevent.joinall([gevent.spawn(c.end_running_command) for c in self._connectors.values()], timeout=6)

    def _drop_connections(self) -> None:
        for connector in self._connectors.values():
            connector.drop()

    def _next_turn(self, ended: str) -> None:
        """Give the turn to the first host that has not ended; whoever ends early takes nobody's place."""
        self._waiting.remove(ended)
        if self._waiting:
            self._turns[self._waiting[0]].set()

    # -- one host

    def _host(self, host: Host) -> None:
        started = time.monotonic()
        tally = Tally()
        failure: Failure | None
        self._harmless[host.name] = gevent.getcurrent()
        try:
            failure = self._live(host, tally)
        except gevent.GreenletExit:
            failure = _INTERRUPTED
        except HostError as error:
            failure = error.failure
        except ConnectionLost as error:
            failure = Failure("connection-lost", str(error), "nothing was changed", unreachable=True)
        except EvaluationError as error:
            failure = self._explain(host, error)
        except LabctlError as error:
            failure = Failure("deploy-error", "; ".join(str(problem) for problem in error.problems))
        except (Exception, SystemExit) as error:  # whatever a deploy file raises concerns its host alone
            failure = Failure("deploy-error", _where(error, self._job), "correct the deploy or the inventory")
        finally:
            self._harmless.pop(host.name, None)
            self._close(host)
            self._next_turn(host.name)
        status = self._status(failure)
        if status not in ("ok", "not-run", "interrupted"):
            self._failed += 1
        self._emit(
            HostEnded(
                host.name,
                status,
                failure.code if failure else "",
                failure.reason if failure else "",
                failure.hint if failure else "",
                tally.changed,
                tally.unchanged,
                tally.failed,
                tally.not_run,
                round(time.monotonic() - started, 3),
            )
        )

    def _live(self, host: Host, tally: Tally) -> Failure | None:
        with self._slots:
            if self._cancelled:
                return _INTERRUPTED
            plan = self._plan(host)
        tally.not_run = len(plan.ops)
        if not self._job.execute:
            tally.not_run, tally.unchanged = 0, sum(op.state == "no-change" for op in plan.ops)
            return None
        self._decided.wait()
        self._turns[host.name].wait()
        if host.name not in self._chosen:
            return _NOT_CHOSEN
        with self._slots:
            if failure := self._stop():
                return failure
            connector = host.connector
            assert isinstance(connector, RackConnector)
            execution = Execution(self._state, host, plan, self._tap, self._emit)
            if plan.pending and connector.take_lock(self._job.owner) != plan.word:
                execution.distrust()
            self._harmless.pop(host.name)
            try:
                return execution.run(self._stop)
            finally:
                for name in ("changed", "unchanged", "failed", "not_run"):
                    setattr(tally, name, getattr(execution.tally, name))

    def _plan(self, host: Host) -> HostPlan:
        started = time.monotonic()
        connector = host.connector
        assert isinstance(connector, RackConnector)
        self._connectors[host.name] = connector
        connector.open(self._job.connect_timeout_s)
        host.connected = True
        self._emit(Connected(host.name, round(time.monotonic() - started, 3)))
        word = holder = ""
        if self._job.execute:
            word, holder = read_who_holds(connector.ask_root(WHO_HOLDS))
        if holder:
            raise HostError(refused_by(holder))
        # What a deploy asks while it is read, its operations ask again.
        connector.remember(on=True)
        plan = register(self._state, host, self._deploys)
        plan.word = word
        evaluate(self._state, host, plan.ops, self._tap)
        seconds = round(time.monotonic() - started, 3)
        self._emit(Planned(host.name, tuple(op.planned for op in plan.ops), seconds))
        return plan

    def _stop(self) -> Failure | None:
        """Return why no further operation may start, or None."""
        if self._cancelled:
            return _INTERRUPTED
        limit = self._job.fail_percent
        if limit is not None and self._failed * 100 > limit * len(self._job.hosts):
            return Failure(
                "fail-percent",
                f"stopped: {self._failed} of {len(self._job.hosts)} hosts failed, more than {limit} %",
                "mend the failed hosts, then run labctl apply again: it resumes",
            )
        return None

    def _close(self, host: Host) -> None:
        connector = host.connector
        assert isinstance(connector, RackConnector)
        try:
            with gevent.Timeout(5, False):
                connector.disconnect()
        finally:
            connector.drop()

    def _explain(self, host: Host, error: EvaluationError) -> Failure:
        connector = host.connector
        assert isinstance(connector, RackConnector)
        if connector.lost is not None:
            return Failure("connection-lost", str(connector.lost), "nothing was changed", unreachable=True)
        if isinstance(error.cause, HostError):
            return error.cause.failure
        if isinstance(error.cause, LabctlError):
            return Failure("deploy-error", "; ".join(str(problem) for problem in error.cause.problems))
        if known := failures.of_output(str(error.cause)):
            return known
        return Failure("deploy-error", f"{error.name}: {_where(error.cause, self._job)}")

    def _status(self, failure: Failure | None) -> HostStatus:
        if failure is None:
            return "ok"
        if failure.code == "interrupted" or self._cancelled:
            return "interrupted"
        if failure.code == "fail-percent":
            return "not-run"
        return "unreachable" if failure.unreachable else "failed"


def _where(error: BaseException, job: Job) -> str:
    """Return what was raised and the line of the user's file that it came from, innermost first."""
    folders = {str(Path(path).parent) for path in (*job.deploys, job.rack)}
    text = str(error).strip() or type(error).__name__
    kind = "" if type(error).__module__.startswith("pyinfra") else f"{type(error).__name__}: "
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if any(frame.filename.startswith(folder) for folder in folders):
            return f"{frame.filename}:{frame.lineno}: {kind}{text}"
    return f"{kind}{text}"
