"""Carry out the plan of one host, operation by operation.

The rule: what was planned as "no change" is believed until something has been changed on this host, by us or
by another apply that had the lock after the plan was made; from then on the operations that follow are
evaluated anew, a whole run of them in one go, before they are skipped. What changes something goes through
pyinfra's own ``run_host_op``, which reads fresh facts, checks ``_if``, retries. The first failure ends the
host: later operations stand on earlier ones, so they are reported as not run. A failure that the deploy
allows (``_ignore_errors``) is told as a warning; a lost connection and a lost lock are never allowed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.operations import run_host_op
from pyinfra.api.state import State
from pyinfra.connectors.util import CommandOutput

from labctl.domain import failures
from labctl.domain.failures import Failure, HostError
from labctl.domain.problem import LabctlError
from labctl.provision.events import Event, Log, OpEnded, OpStarted, OpStatus
from labctl.provision.worker.connector import RackConnector
from labctl.provision.worker.planning import EvaluationError, HostPlan, LogTap, Op, evaluate
from labctl.provision.worker.pyinfra_state import in_context

_TAIL_LINES = 20
_TAIL_CHARS = 4000


@dataclass(slots=True)
class Tally:
    """How the operations of a host ended."""

    changed: int = 0
    unchanged: int = 0
    failed: int = 0
    not_run: int = 0


class Execution:
    """The execution of one host's plan."""

    def __init__(
        self,
        state: State,
        host: Host,
        plan: HostPlan,
        tap: LogTap,
        emit: Callable[[Event], None],
    ) -> None:
        """Prepare to execute ``plan`` on ``host``, telling ``emit`` about it."""
        assert isinstance(host.connector, RackConnector)
        self._state, self._host, self._plan, self._emit = state, host, plan, emit
        self._connector = host.connector
        self._tap = tap
        self._trusted_until = len(plan.ops)
        self.tally = Tally()

    def distrust(self) -> None:
        """Evaluate everything anew, since somebody else was at work here after the plan was made."""
        self._trusted_until = 0

    def run(self, stop: Callable[[], Failure | None]) -> Failure | None:
        """Execute, asking ``stop`` before each operation whether to; return why it ended early, if it did.

        Raises whatever an operation raised that is no failure of the host; what came after it was not run.
        """
        failure: Failure | None = None
        raised: BaseException | None = None
        for op in self._plan.ops:
            failure = failure or (None if raised else stop())
            if failure or raised:
                self._end(op, "not-run")
                continue
            try:
                failure = self._one(op)
            except HostError as error:
                failure = error.failure
                self._end(op, "failed", error=failure.reason)
            except (Exception, SystemExit) as error:  # an operation of the user's may do anything
                raised = error
                self._end(op, "failed", error=f"{type(error).__name__}: {error}")
        if raised is not None:
            raise raised
        return failure

    def _one(self, op: Op) -> Failure | None:
        if op.state == "no-change" and self._still_unchanged(op):
            op.data.operation_meta.set_complete(True, [], CommandOutput([]))
            self._end(op, "unchanged")
            return None
        self._connector.require_lock()
        self._emit(OpStarted(self._host.name, op.index, op.name))
        started = time.monotonic()
        self._connector.last_failure = ""
        self._tap.take_errors(self._host.name)
        self._trusted_until = op.index
        ok, error = self._execute(op)
        seconds = time.monotonic() - started
        meta = op.data.operation_meta
        lost = self._connector.lost
        said = str(lost or "") or self._connector.last_failure or self._tap.take_errors(self._host.name)
        if ok and lost is None:
            allowed = meta.is_complete() and not meta.did_succeed()
            if allowed:
                warning = f"{op.name} failed, which its deploy allows: {_last_line(said)}"
                self._emit(Log("warning", warning, self._host.name))
            changed = meta.is_complete() and meta.did_change()
            status: OpStatus = "changed" if changed else "unchanged"
            self._end(op, status, seconds=seconds, error=said if allowed else "")
            return None
        self._end(op, "failed", seconds=seconds, error=error or said)
        return self._named(op, "\n".join(part for part in (error, said) if part))

    def _execute(self, op: Op) -> tuple[bool, str]:
        self._host.labctl_executing = True  # type: ignore[attr-defined]
        try:
            with in_context(self._state, self._host):
                return run_host_op(self._state, self._host, op.op_hash), ""
        except (PyinfraError, OSError) as error:
            return False, str(error) or type(error).__name__
        finally:
            self._host.labctl_executing = False  # type: ignore[attr-defined]

    def _still_unchanged(self, op: Op) -> bool:
        """Evaluate the run of unchanged operations from ``op`` on again, if something changed before it."""
        if op.index < self._trusted_until:
            return True
        run = [op]
        for later in self._plan.ops[op.index + 1 :]:
            if later.state != "no-change":
                break
            run.append(later)
        try:
            evaluate(self._state, self._host, run, self._tap)
        except EvaluationError as error:
            if error.index != op.index and self._connector.lost is None:
                # It is a later operation's, which shall fail in its own turn.
                run = [op]
                self._evaluate_alone(op)
            else:
                raise self._broken(op, error) from None
        changing = [later.index for later in run if later.state != "no-change"]
        self._trusted_until = changing[0] if changing else run[-1].index + 1
        return op.index < self._trusted_until

    def _evaluate_alone(self, op: Op) -> None:
        try:
            evaluate(self._state, self._host, [op], self._tap)
        except EvaluationError as error:
            raise self._broken(op, error) from None

    def _broken(self, op: Op, error: EvaluationError) -> HostError:
        if isinstance(error.cause, HostError):
            return error.cause
        if isinstance(error.cause, LabctlError):
            return HostError(Failure("op-failed", "; ".join(str(one) for one in error.cause.problems)))
        return HostError(self._named(op, str(error.cause) or type(error.cause).__name__))

    def _named(self, op: Op, text: str) -> Failure:
        if self._connector.lost is not None:
            return Failure(
                "connection-lost",
                f"{self._connector.lost} during {op.name!r}; what that operation did is unknown",
                "when the host is back, run labctl apply again: it resumes",
            )
        if known := failures.of_output(text):
            return known
        return Failure("op-failed", f"{op.name}: {_last_line(text)}")

    def _end(self, op: Op, status: OpStatus, *, seconds: float = 0.0, error: str = "") -> None:
        name = status.replace("-", "_")
        setattr(self.tally, name, getattr(self.tally, name) + 1)
        stdout = stderr = ""
        meta = op.data.operation_meta
        if status != "not-run" and meta.is_complete():
            stdout, stderr = tail(meta.stdout_lines), tail(meta.stderr_lines)
        self._emit(
            OpEnded(
                self._host.name,
                op.index,
                op.name,
                status,
                round(seconds, 3),
                stdout,
                stderr or error,
            )
        )


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "it failed without saying why"


def tail(lines: list[str]) -> str:
    """Return the last lines of an output, bounded in lines and characters."""
    return "\n".join(lines[-_TAIL_LINES:])[-_TAIL_CHARS:]
