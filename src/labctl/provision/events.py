"""The language between the parent and its workers: one JSON object a line, both ways.

The parent sends one ``Job`` and then orders; a worker answers with events. Everything is a frozen dataclass
whose ``ev`` (or ``do``) names its type, so that a line can be read without knowing the rest of the stream.
A line that cannot be read is a bug of ours and ends the worker; it is never skipped.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

PlanState = Literal["no-change", "change", "conditional"]
OpStatus = Literal["changed", "unchanged", "failed", "not-run"]
HostStatus = Literal["ok", "failed", "unreachable", "not-run", "interrupted"]


@dataclass(frozen=True, slots=True)
class Job:
    """What one worker process shall do; paths are absolute, times in seconds.

    ``forced``: by host, what a person let through although it does not fit, as JSON.
    """

    rack: str
    deploys: tuple[str, ...]
    hosts: tuple[str, ...]
    execute: bool
    wait_for_go: bool = True
    diff: bool = True
    parallel: int = 50
    serial: bool = False
    fail_percent: int | None = None
    allow_reboot: bool = False
    connect_timeout_s: float = 10.0
    owner: str = ""
    forced: dict[str, str] = field(default_factory=dict)
    do: Literal["job"] = "job"


@dataclass(frozen=True, slots=True)
class Go:
    """Execute what was planned, on these hosts only."""

    hosts: tuple[str, ...]
    do: Literal["go"] = "go"


@dataclass(frozen=True, slots=True)
class Cancel:
    """Start nothing new; give each running command ``grace_s`` seconds to finish, then end it."""

    grace_s: float = 10.0
    do: Literal["cancel"] = "cancel"


@dataclass(frozen=True, slots=True)
class PlannedOp:
    """One operation on one host as evaluated before anything is changed.

    ``conditional``: it runs only because another operation of this plan changes something.
    ``commands`` are masked; ``diff`` is a unified diff with secrets masked.
    """

    index: int
    name: str
    state: PlanState
    diff: str = ""
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Connected:
    """The host answered, proved its key and let us in."""

    host: str
    seconds: float
    ev: Literal["connected"] = "connected"


@dataclass(frozen=True, slots=True)
class Planned:
    """Everything that would be done on a host; nothing has been changed yet."""

    host: str
    ops: tuple[PlannedOp, ...]
    seconds: float
    ev: Literal["planned"] = "planned"


@dataclass(frozen=True, slots=True)
class OpStarted:
    """An operation that will change something starts."""

    host: str
    index: int
    name: str
    ev: Literal["op-started"] = "op-started"


@dataclass(frozen=True, slots=True)
class OpEnded:
    """The outcome of one operation; the tails hold the last lines of output of a failed or changed one."""

    host: str
    index: int
    name: str
    status: OpStatus
    seconds: float = 0.0
    stdout_tail: str = ""
    stderr_tail: str = ""
    ev: Literal["op-ended"] = "op-ended"


@dataclass(frozen=True, slots=True)
class HostEnded:
    """The last word on a host. ``reason`` and ``hint`` are set unless all went well.

    ``code`` is a stable short name of the failure: "timeout", "frozen", "host-key", "auth", "no-shell",
    "no-sudo", "locked", "disk-full", "apt-locked", "connection-lost", "deploy-error", "op-failed",
    "interrupted", "fail-percent", "worker-died", "asleep", or "" when there is none.
    """

    host: str
    status: HostStatus
    code: str = ""
    reason: str = ""
    hint: str = ""
    changed: int = 0
    unchanged: int = 0
    failed: int = 0
    not_run: int = 0
    seconds: float = 0.0
    ev: Literal["host-ended"] = "host-ended"


@dataclass(frozen=True, slots=True)
class Log:
    """Something worth saying that belongs to no operation."""

    level: Literal["warning", "error"]
    message: str
    host: str = ""
    ev: Literal["log"] = "log"


@dataclass(frozen=True, slots=True)
class WorkerEnded:
    """The worker is done; its cost in CPU seconds and peak resident memory in KiB."""

    cpu_s: float
    rss_kib: int
    ev: Literal["worker-ended"] = "worker-ended"


Event = Connected | Planned | OpStarted | OpEnded | HostEnded | Log | WorkerEnded
Order = Job | Go | Cancel

_EVENTS: dict[str, type[Any]] = {
    "connected": Connected,
    "planned": Planned,
    "op-started": OpStarted,
    "op-ended": OpEnded,
    "host-ended": HostEnded,
    "log": Log,
    "worker-ended": WorkerEnded,
}
_ORDERS: dict[str, type[Any]] = {"job": Job, "go": Go, "cancel": Cancel}


def encode(message: Event | Order) -> str:
    """Return the message as one line of JSON, newline included."""
    return json.dumps(asdict(message), separators=(",", ":")) + "\n"


def _named(kinds: dict[str, type[Any]], data: Any, key: str) -> Any:
    cls = kinds.get(data.get(key, "")) if isinstance(data, dict) else None
    if cls is None:
        raise ValueError(f"neither of {', '.join(kinds)}: {str(data)[:80]}")
    return _build(cls, data)


def _build(cls: type[Any], data: dict[str, Any]) -> Any:
    known = {f.name for f in fields(cls)}
    if unknown := set(data) - known:
        raise ValueError(f"{cls.__name__}: unknown {sorted(unknown)}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    if cls is Planned:
        values["ops"] = tuple(_build(PlannedOp, op) for op in values["ops"])
    return cls(**values)


def decode_event(line: str) -> Event:
    """Read one line from a worker; raise ``ValueError`` when it is not an event."""
    event: Event = _named(_EVENTS, json.loads(line), "ev")
    return event


def decode_order(line: str) -> Order:
    """Read one line from the parent; raise ``ValueError`` when it is not an order."""
    order: Order = _named(_ORDERS, json.loads(line), "do")
    return order


@dataclass(slots=True)
class HostReport:
    """What a caller keeps of a host after a run: plan, outcomes, warnings, and the last word."""

    host: str
    plan: tuple[PlannedOp, ...] = ()
    ops: list[OpEnded] = field(default_factory=list)
    end: HostEnded | None = None
    warnings: list[str] = field(default_factory=list)
