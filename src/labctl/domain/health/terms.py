"""The values that health is said in.

A ``Check`` is a small class: it is given a ``Case`` (one host as the rack file wants it, as it said it is,
and what is known of it beside that) and yields ``Result``s, one for each thing that it looked at. A check
never looks at anything itself. What could not be read is UNKNOWN with its reason, never OK; what the host
cannot have (a cap on a laptop's card) yields nothing.

A result is told apart from others by its ``key``: check, host and subject. Its words may change from run to
run; the key does not, so that a state that lasts is one state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, NamedTuple, Protocol

from ..sleep.lifecycle import Mode
from .evidence import Evidence
from .expected import Expected, ExpectedRack


class Level(IntEnum):
    """How bad it is; the numbers are the exit codes of monitoring plugins."""

    OK = 0
    WARN = 1
    CRIT = 2
    UNKNOWN = 3

    @property
    def gravity(self) -> int:
        """Return its place from good to bad: OK, UNKNOWN, WARN, CRIT."""
        return (0, 2, 3, 1)[self]


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured number, as plugins show it, in ``unit``, and from where on it is too high.

    ``unit`` is W, C, MiB, s, % or empty (a plain number).
    """

    label: str
    value: float
    unit: str = ""
    warn: float | None = None
    crit: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found of one thing.

    Args:
        code: of the check, as "gpu-present"; stable, documented in docs/health.md.
        level: how bad it is.
        host: which host; empty: the rack.
        subject: which card, unit, mount or engine; empty: the host itself.
        reason: what is so, in one line, also when it is well.
        cure: what to do; empty when it is well.
        figures: what was measured.
        informs: it is well, and worth telling people who look (an intended power cap that is reached).
    """

    code: str
    level: Level
    host: str
    subject: str
    reason: str
    cure: str = ""
    figures: tuple[Figure, ...] = ()
    informs: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what it is about, whatever it says."""
        return self.code, self.host, self.subject


@dataclass(frozen=True, slots=True)
class Sleep:
    """What the controller says of a host; ``since`` and ``now`` are wall times in seconds.

    ``waking_usual_s``: how long its wakes take; ``proof``: what is wrong with its wake proof, empty: nothing.
    ``wanted``: somebody wishes it awake; ``quarantined``: what the gate found.
    """

    mode: Mode
    since: float
    because: str
    proof: str = ""
    wanted: bool = False
    quarantined: str = ""
    waking_usual_s: float = 0.0


class Look(NamedTuple):
    """What an engine said at the wall time ``at`` of its host.

    ``requests`` run or wait; ``pulse`` is as in ``evidence.Engine``; None: it did not say. ``answered``: its
    health page did. ``silent``: its counters did not come in time.
    """

    at: float
    requests: int | None
    pulse: float | None
    answered: bool = True
    silent: bool = False


@dataclass(frozen=True, slots=True)
class EnginePast:
    """What earlier looks at an engine remembered, the newest last.

    Kept by whoever runs the checks, by ``domain.health.progress.remember``.
    """

    service: str
    looks: tuple[Look, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One host to judge.

    Args:
        expected: what the rack file wants of it.
        evidence: what it said; None: nothing.
        unreachable: why it said nothing, in words; empty: it was not asked (it sleeps), or it answered.
        sleep: what the controller says; None: no controller, or it cannot be asked.
        earlier: what was noted of it in the run before, for what only a difference tells.
        engines: what is remembered of its engines.
        now: wall time in seconds.
    """

    expected: Expected
    evidence: Evidence | None
    unreachable: str
    sleep: Sleep | None
    earlier: Evidence | None
    engines: tuple[EnginePast, ...]
    now: float

    @property
    def host(self) -> str:
        """Return the host's name."""
        return self.expected.host


class Check(Protocol):
    """A thing that is judged; ``docs/health.md`` lists all, with their cures."""

    code: ClassVar[str]
    about: ClassVar[str]

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield what is found; nothing, where the host cannot have it.

        An UNKNOWN that ``informs`` is *withheld*: what it is about is there, and nothing can be said of it
        now (a card that hangs, a link that idles). ``judging`` keeps those apart.
        """
        ...


class RackCheck(Protocol):
    """A thing that is judged of all hosts together."""

    code: ClassVar[str]
    about: ClassVar[str]

    def judge(self, rack: ExpectedRack, cases: Mapping[str, Case], now: float) -> Iterator[Result]:
        """Yield what is found; ``cases`` are the hosts that were asked, by name, ``now`` is wall time."""
        ...
