"""Find out what each operation of a host would do, without doing it.

All operations of a host are evaluated side by side, each to its end and not only to its first command: their
facts travel together, equal facts are asked once, and a file gets its diff even when its directory does not
exist yet. An operation that runs only if another one changes something (``_if``) is decided by the
prediction for that other one; where that cannot be predicted it counts as conditional.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import gevent
import pyinfra
from pyinfra.api.host import Host
from pyinfra.api.state import State, StateOperationHostData
from pyinfra.context import ctx_host

from labctl.provision.events import Event, Log, PlannedOp, PlanState
from labctl.provision.worker.connector import RackConnector
from labctl.provision.worker.pyinfra_state import forget_prediction, in_context, prediction, twin

_DIFF_MARK = "labctl-diff:"
_DIFF_CHARS = 200_000
_COMMAND_CHARS = 10_000
_ERRORS_KEPT = 40
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PYINFRA = str(Path(pyinfra.__file__).parent)
_CLOSING = re.compile(r"Error( \(ignored.*?\))?: executed \d+ commands")


class EvaluationError(Exception):
    """An operation could not be evaluated; says which."""

    def __init__(self, op: Op, cause: BaseException) -> None:
        self.name = op.name
        self.index = op.index
        self.cause = cause
        super().__init__(f"{op.name}: {cause or type(cause).__name__}")


class LogTap(logging.Handler):
    """Collect what operations log: while they are evaluated their diffs, while they run what went wrong.

    A warning of a deploy or an operation goes to ``emit``, once for each host however often it is evaluated;
    pyinfra's own only repeat what its outcomes tell.
    """

    def __init__(self, emit: Callable[[Event], None]) -> None:
        """Start with nothing collected."""
        super().__init__(logging.INFO)
        self._emit = emit
        self._said: set[tuple[str, str]] = set()
        self.lines: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.errors: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=_ERRORS_KEPT))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what an operation says of its change, or of its failure."""
        host = ctx_host.get()
        if host is None:
            return
        if record.levelno == logging.WARNING and not record.pathname.startswith(_PYINFRA):
            self._say(_plain(record.getMessage(), host).removeprefix(f"{host.name}: "), host.name)
        if getattr(host, "labctl_executing", False):
            if record.levelno >= logging.WARNING:
                self.errors[host.name].append(_plain(record.getMessage(), host))
        elif record.levelno == logging.INFO and host.in_op and host.current_op_hash is not None:
            self.lines[host.name, host.current_op_hash].append(record.getMessage())

    def _say(self, warning: str, host: str) -> None:
        if (host, warning) not in self._said:
            self._said.add((host, warning))
            self._emit(Log("warning", warning, host))

    def take(self, host: str, op_hash: str) -> str:
        """Return and forget the diff of one operation, cut to what a person can read."""
        text = "\n".join(self.lines.pop((host, op_hash), []))
        return _cut(text.removeprefix(_DIFF_MARK).strip("\n"), _DIFF_CHARS)

    def take_errors(self, host: str) -> str:
        """Return and forget what was logged as wrong on a host, without pyinfra's own closing words."""
        lines = self.errors.pop(host, ())
        return "\n".join(line for line in lines if not _CLOSING.match(line))


def _plain(message: str, host: Host) -> str:
    return _COLOURS.sub("", message).replace(f"[{host.name}] ", "").strip()


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    kept = text[:most].rpartition("\n")[0] or text[:most]
    return f"{kept}\n... and {len(text) - len(kept)} characters more"


@dataclass(slots=True)
class Op:
    """One operation of one host, as registered and as planned."""

    index: int
    op_hash: str
    name: str
    data: StateOperationHostData
    conditional: bool
    commands: tuple[str, ...] = ()
    state: PlanState = "no-change"
    diff: str = ""

    @property
    def planned(self) -> PlannedOp:
        """Return the operation as the parent shall see it."""
        return PlannedOp(self.index, self.name, self.state, self.diff, self.commands)


@dataclass(slots=True)
class HostPlan:
    """The operations of one host in the order in which they run, and the word in its lock before planning."""

    ops: list[Op] = field(default_factory=list)
    word: str = ""

    @property
    def pending(self) -> bool:
        """Whether anything would be changed."""
        return any(op.state != "no-change" for op in self.ops)


def register(state: State, host: Host, deploys: list[Callable[[], None]]) -> HostPlan:
    """Run the deploys for ``host``, which registers their operations, and return these unevaluated."""
    with in_context(state, host):
        for deploy in deploys:
            deploy()
    plan = HostPlan()
    for index, op_hash in enumerate(host.op_hash_order):
        data = state.get_op_data_for_host(host, op_hash)
        name = ", ".join(sorted(state.get_op_meta(op_hash).names))
        plan.ops.append(Op(index, op_hash, name, data, bool(data.global_arguments.get("_if"))))
    return plan


def evaluate(state: State, host: Host, ops: list[Op], tap: LogTap) -> None:
    """Plan ``ops`` side by side; raise ``EvaluationError`` for the first that cannot be evaluated."""
    connector = host.connector
    assert isinstance(connector, RackConnector)
    for op in ops:
        forget_prediction(op.data.operation_meta)
    connector.remember(on=True)
    try:
        greenlets = [gevent.spawn(_evaluate_one, state, twin(host), op) for op in ops]
        try:
            gevent.joinall(greenlets, raise_error=False)
        finally:
            gevent.killall([greenlet for greenlet in greenlets if not greenlet.ready()], block=False)
    finally:
        connector.remember(on=False)
    for op, greenlet in zip(ops, greenlets, strict=True):
        if greenlet.exception is not None:
            raise EvaluationError(op, greenlet.exception)
        op.diff = tap.take(host.name, op.op_hash)


def _evaluate_one(state: State, host: Host, op: Op) -> None:
    expected = prediction(op.data.operation_meta)
    try:
        with in_context(state, host):
            runs = _condition(op)
            op.commands = (
                ()
                if runs is False
                else tuple(_cut(str(command), _COMMAND_CHARS) for command in op.data.command_generator())
            )
    except BaseException as error:
        expected.set_exception(error)
        raise
    if op.commands:
        op.state = "conditional" if op.conditional else "change"
    else:
        op.state = "no-change"
    expected.set(bool(op.commands))


def _condition(op: Op) -> bool | None:
    """Return whether the operation's ``_if`` is expected to hold; None: it has none, or nobody can tell."""
    conditions = op.data.global_arguments.get("_if")
    if not conditions:
        return None
    every = conditions if isinstance(conditions, list) else [conditions]
    try:
        return all(condition() for condition in every)
    except RuntimeError:  # it asks for the output of an operation that has not run yet
        return None
