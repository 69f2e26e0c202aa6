"""What is known of the rack: one look for everybody, at most every ``FRESH_S``.

A look asks the controller for its status and for what happened since the last look; what was used
(``energy``) seldom, since that is counted up each time. A controller that is away is a reason in words; what
it said before is shown no more.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labctl.domain.health.results import Findings
from labctl.domain.problem import LabctlError
from labctl.web.metrics.reading import items, number, text

FRESH_S = 1.0
ENERGY_S = 60.0
ENERGY_FOR_S = 30 * 24 * 3600
MOST_EVENTS = 1000

Ask = Callable[[str, str, Mapping[str, Any]], Sequence[Mapping[str, Any]]]
"""Asks the controller: verb, for whom, fields; returns what it says, the last being the answer.

Raises ``LabctlError``. May block for as long as the controller takes, and is called in threads.
"""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where everything comes from; ``wall`` tells seconds since 1970."""

    ask: Ask
    findings: Callable[[], Findings | None]
    wall: Callable[[], float]
    monotonic: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Seen:
    """One look, at the wall time ``at``.

    ``trouble``: why the controller says nothing; ``energy`` is None where it counts none.
    """

    at: float
    trouble: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    energy: Mapping[str, Any] | None = None
    findings: Findings | None = None

    @property
    def hosts(self) -> Sequence[Mapping[str, Any]]:
        """Return the hosts' statuses."""
        return tuple(one for one in items(self.status.get("hosts")) if text(one.get("host")))


class Sight:
    """Looks when asked, and remembers for a second; may be used by any thread."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._guard = threading.Lock()
        self._seen: Seen | None = None
        self._looked = -math.inf
        self._counted: float | None = None
        self._energy: Mapping[str, Any] | None = None
        self._events: deque[Mapping[str, Any]] = deque(maxlen=MOST_EVENTS)

    def look(self) -> Seen:
        """Return what is known; asks the controller if that is older than ``FRESH_S``.

        While somebody else is asking, what was seen before is good enough.
        """
        if not self._guard.acquire(blocking=self._seen is None):
            assert self._seen is not None
            return self._seen
        try:
            now = self._sources.monotonic()
            if self._seen is None or now - self._looked >= FRESH_S:
                self._seen = self._new(now)
                self._looked = self._sources.monotonic()
            return self._seen
        finally:
            self._guard.release()

    def forget(self) -> None:
        """Have the next look be a new one: something was just asked for."""
        self._looked = -math.inf

    def status(self) -> Mapping[str, Any]:
        """Return the controller's status.

        Raises:
            LabctlError: it says none.
        """
        seen = self.look()
        if seen.trouble:
            raise LabctlError(seen.trouble)
        return seen.status

    def _new(self, now: float) -> Seen:
        at, findings = self._sources.wall(), self._sources.findings()
        try:
            status = self._last("status")
            told = self._follow()
        except LabctlError as error:
            return Seen(at, error.problems[0].reason, findings=findings)
        # Who does not tell the one will not tell the other, and is not waited for twice.
        if told and (self._counted is None or now - self._counted >= ENERGY_S):
            self._counted = now
            try:
                self._energy = self._last("energy", for_s=ENERGY_FOR_S)
            except LabctlError:  # an older controller, or a store that is away: the page goes on without
                self._energy = None
        return Seen(at, "", status, tuple(self._events), self._energy, findings)

    def _last(self, verb: str, **fields: Any) -> Mapping[str, Any]:
        said = self._sources.ask(verb, "", fields)
        return said[-1] if said else {}

    def _follow(self) -> bool:
        """Add what happened since; return whether that was told.

        The newest line that is known is asked for again, and proves the log. Where it is not the first, the
        log is another one (of a new store, whose lines have other numbers), or more happened than is told at
        a time: what is known is read anew.
        """
        known = self._events[-1] if self._events else {}
        after = int(number(known.get("event")) or 0)
        try:
            lines = self._lines(max(0, after - 1))
            if known and lines[:1] == [known]:
                self._events.extend(lines[1:])
                return True
            if after > 1:
                lines = self._lines(0)
        except LabctlError:  # the store is away; what the controller knows is still worth seeing
            return False
        self._events.clear()
        self._events.extend(lines)
        return True

    def _lines(self, after: int) -> list[Mapping[str, Any]]:
        return list(self._sources.ask("events", "", {"after": after, "most": MOST_EVENTS})[:-1])
