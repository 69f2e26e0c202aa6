"""What every act needs: the ports, the lead, what was seen, and how to ask a host's agent something."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from labctl.controller.doors import AGENT, Doors, Timekeeper
from labctl.controller.leader import Leader
from labctl.controller.ledger import Ledger
from labctl.controller.tally import Tally
from labctl.domain.energy.tariff import EnergyPolicy
from labctl.domain.failures import Failure, HostError
from labctl.domain.sleep.lifecycle import Event
from labctl.domain.sleep.proofs import Rung
from labctl.domain.sleep.terms import HostPolicy, KnownHost, Policy, Seen, SeenHost
from labctl.ports.store import StaleError

_QUOTED = 200


class Observer(Protocol):
    """Sees the hosts."""

    def seen(self) -> Seen:
        """Return what was seen of every host, as it is now."""
        ...

    def host(self, name: str) -> SeenHost:
        """Return what was seen of one host, as it is now."""
        ...

    def pace(self, quick: Collection[str]) -> None:
        """Look at these hosts every second or so, and at the others once in a tick."""
        ...

    def ordered(self, host: str, caps_w: Mapping[str, int]) -> None:
        """Take in that a host is about to be told these caps: the higher of old and new counts."""
        ...

    def capped(self, host: str, caps_w: Mapping[str, int], n: int = 0) -> None:
        """Take in the caps that a host read back after its change ``n``, by card name."""
        ...

    def unloaded(self, host: str) -> None:
        """Take in that a host's cards were freed."""
        ...

    def start(self) -> None:
        """Begin to see."""
        ...

    def stop(self) -> None:
        """See no more."""
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """What every act needs; ``wakes`` is when the wake of a host began (mono), for those under way.

    ``rungs`` is by which way to sleep a host is being tested, ``unloads`` when (mono) a host that did not
    free its cards is asked again. ``tally``
    counts what became of hosts.
    """

    doors: Doors
    policy: Policy
    leader: Leader
    ledger: Ledger
    observer: Observer
    times: Timekeeper
    energy: EnergyPolicy = EnergyPolicy()  # noqa: RUF009 - a frozen value
    wakes: dict[str, float] = field(default_factory=dict)
    rungs: dict[str, Rung] = field(default_factory=dict)
    unloads: dict[str, float] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)

    def host(self, name: str) -> HostPolicy:
        """Return what the inventory wants of a host."""
        return self.policy.hosts[name]

    def known(self, name: str) -> KnownHost:
        """Return the host's row as it is now.

        Raises:
            StaleError: it has none any more.
            StoreError: the store cannot be used.
        """
        found = self.doors.store.known_host(name, now=self.doors.wall())
        if found is None:
            raise StaleError(f"{name} has no row")
        return found

    def move(self, host: str, event: Event, because: str, *, version: int, now: float) -> None:
        """Move a host by the table, if its row is still as decided on, and count it.

        Raises:
            NotLeadingError, StaleError, StoreError: it was not moved.
        """
        self.doors.store.move(host, event, because, version=version, term=self.leader.term(), now=now)
        self.tally.moved(host, event)

    def happen(self, host: str, kind: str, text: str) -> None:
        """Write a line of the log that is kept."""
        self.doors.store.happen(host, kind, text, now=self.doors.wall())

    def ask(self, host: str, *verb: str, order: Mapping[str, Any], deadline_s: float) -> dict[str, Any]:
        """Have the host's agent do one verb, and return the JSON object that it answers with.

        Raises:
            HostError: it did not answer, or not with one.
        """
        said = self.doors.remote.run(
            host,
            self.doors.data[host],
            (AGENT, *verb),
            root=False,
            stdin=line(order),
            deadline_s=deadline_s,
        )
        last = said.stdout.strip().rpartition(b"\n")[2]
        if not last:
            why = " ".join(said.stderr.split())[-_QUOTED:] or f"it ended with exit status {said.status}"
            raise HostError(Failure("op-failed", f"its agent did not do {' '.join(verb)}: {why}"))
        return document(last)


def line(order: Mapping[str, Any]) -> bytes:
    """Return an object as a line of JSON."""
    return json.dumps(order, allow_nan=False).encode() + b"\n"


def document(said: bytes) -> dict[str, Any]:
    """Return the JSON object in a line.

    Raises:
        HostError: there is none.
    """
    try:
        found = json.loads(said)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        shown = said[:_QUOTED].decode("utf-8", "replace")
        raise HostError(Failure("op-failed", f"its agent says what cannot be read: {shown}"))
    return found
