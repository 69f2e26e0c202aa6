"""The store: the only thing that controller, gateways and commands share.

Every method is one transaction, committed when it returns. A deciding method (``move``, ``order``,
``take_lease``) reads the host's row, judges by the rules of ``domain.sleep.lifecycle`` and writes, all
under that row's lock: whoever commits first wins, and the other is told so. Nothing that an adapter of this
port does depends on wall clocks agreeing: whether an instance or a leader is alive is judged by whoever
watches its beat change, on the watcher's own monotonic clock.

A host's ``version`` rises by exactly one with each call that changes its row (mode, order, attempt, boot,
repair, proof, pause), and not when a call changes nothing. Leases, holds and wishes are no part of the row:
they are counted when it matters. Whoever asks something of a host that has no row gets a ``LabctlError``; the
leader gets a ``StaleError``.

What fails because the store is locked, full, read-only, corrupt or gone raises ``StoreError``; then nothing
was changed, and machines stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from labctl.domain.problem import LabctlError
from labctl.domain.sleep.lifecycle import Event, Mode, Verdict
from labctl.domain.sleep.terms import Attempt, Hold, Known, KnownHost, Order, Proof, Repair, Wish
from labctl.ports.energy import EnergyBook


class StoreError(LabctlError):
    """The store cannot be used now; nothing was changed."""


class StaleError(Exception):
    """The decision rests on a row that has changed since, or a leadership that is over; nothing was done."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A request, or an instance's bundle of them, that a host serves."""

    id: int
    host: str
    instance: str


@dataclass(frozen=True, slots=True)
class Instance:
    """A process that holds leases: what it is, and how often it has said that it lives."""

    name: str
    kind: str
    beat: int


@dataclass(frozen=True, slots=True)
class Leadership:
    """Who leads and in which term; ``beat`` changes as long as the leader lives."""

    holder: str
    term: int
    beat: int


@dataclass(frozen=True, slots=True)
class Intent:
    """An effect that was about to be carried out; without ``outcome`` nobody knows whether it was."""

    id: int
    host: str
    action: str
    because: str
    at: float
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Happening:
    """A line of the log that is kept: at a wall time, on a host (or the rack: empty), of a kind, in words."""

    id: int
    at: float
    host: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Sought:
    """Which lines of the log are wanted: from one wall time to before another, of some kinds, with a text.

    What is None or empty does not matter; the case of ``text`` neither.
    """

    since: float | None = None
    until: float | None = None
    kinds: tuple[str, ...] = ()
    text: str = ""


ANY = Sought()


class Store(EnergyBook, Protocol):
    """See the module's text; wall times ``now`` are given by the caller, in seconds since 1970."""

    def enlist(self, hosts: Collection[str], *, now: float) -> None:
        """Have a row for each host, new ones UNKNOWN; rows of hosts that are gone are only kept."""
        ...

    def known(self, *, now: float) -> Known:
        """Return one consistent look at all that decisions need, without holds and wishes past ``now``."""
        ...

    def known_host(self, host: str, *, now: float) -> KnownHost | None:
        """Return what ``known`` has of one host, without reading of the others; None where there is none."""
        ...

    # -- the life of a host (the controller's; each names the term in which it leads)

    def move(self, host: str, event: Event, because: str, *, version: int, term: int, now: float) -> Mode:
        """Move a host by the table, write the event, and return its new mode.

        A move out of SUSPENDING or WAKING ends its order or attempt. WENT_QUIET is judged by ``may_drain``.

        Raises:
            StaleError: the row's version is another, the term is over, the table knows no such move, or
                something claims the host.
        """
        ...

    def order(self, host: str, order: Order, because: str, *, version: int, term: int, now: float) -> Verdict:
        """Close admission: DRAINING to SUSPENDING with this order, if ``may_order``; else READY, and say why.

        Raises:
            StaleError: as for ``move``.
        """
        ...

    def note_attempt(self, host: str, attempt: Attempt, *, version: int, term: int, now: float) -> None:
        """Keep how far a wake is; the host must be WAKING.

        Raises:
            StaleError: as for ``move``, or no wake is under way.
        """
        ...

    def note_boot(self, host: str, boot_id: str, resumes: int, *, term: int, now: float) -> None:
        """Keep which boot and how many sleeps the host counted when it was found READY."""
        ...

    def note_came_up(self, host: str, seconds: float, *, term: int, now: float) -> None:
        """Keep that a wake ended now, and how long it took from its first packet; the last 20 are kept."""
        ...

    def note_repair(self, host: str, repair: Repair, quarantined: str, *, term: int, now: float) -> None:
        """Keep where a host is on the ladder, and whether it is quarantined."""
        ...

    def note_proof(self, host: str, proof: Proof | None, because: str, *, now: float) -> None:
        """Keep a wake proof, or forget the one there is."""
        ...

    # -- intents and what happened

    def intend(self, host: str, action: str, because: str, *, term: int, now: float) -> int:
        """Write down an effect before it is carried out; return its id."""
        ...

    def outcome(self, intent: int, outcome: str, *, now: float) -> None:
        """Write down how it went."""
        ...

    def unfinished(self) -> Sequence[Intent]:
        """Return the intents without an outcome, oldest first."""
        ...

    def happen(self, host: str, kind: str, text: str, *, now: float) -> None:
        """Write a line of the log that is kept."""
        ...

    def happenings(
        self, *, host: str | None = None, after: int = 0, most: int = 100, only: Sought = ANY
    ) -> Sequence[Happening]:
        """Return the newest lines past the id ``after`` that are sought, oldest first."""
        ...

    def prune(self, *, before: float) -> int:
        """Forget lines and finished intents older than a wall time; return how many."""
        ...

    # -- leases

    def register(self, instance: str, kind: str, *, now: float) -> None:
        """Make an instance known; one of that name that there was loses its leases."""
        ...

    def beat(self, instance: str, *, now: float) -> None:
        """Say that an instance lives.

        Raises:
            StaleError: it was buried; it holds no lease any more.
        """
        ...

    def instances(self) -> Sequence[Instance]:
        """Return all of them."""
        ...

    def bury(self, instance: str, beat: int, *, now: float) -> bool:
        """Take all leases of an instance whose beat has not changed; return False if it has meanwhile."""
        ...

    def take_lease(self, instance: str, host: str, *, now: float) -> Lease | Mode:
        """Take a lease if the host's mode admits it (DRAINING returns to READY), or return that mode.

        Raises:
            StaleError: the instance was buried.
        """
        ...

    def release(self, lease: Lease, *, now: float) -> None:
        """Give a lease back; harmless when it is gone."""
        ...

    def keep_leases(self, instance: str, leases: Collection[Lease]) -> None:
        """Give back all leases of an instance but these: it may have some that it does not know of."""
        ...

    def retire(self, instance: str, *, now: float) -> None:
        """Forget an instance that ends, and its leases; harmless when it is gone."""
        ...

    # -- what people and programs ask for

    def hold(self, host: str, why: str, by: str, *, until: float, now: float) -> Hold:
        """Keep a host awake until a wall time; a DRAINING one returns to READY."""
        ...

    def release_hold(self, host: str, *, hold: int | None = None, by: str, now: float) -> int:
        """End one hold, or all of a host; return how many ended."""
        ...

    def wish(self, wish: Wish, *, now: float) -> Wish:
        """Keep a wish (its id is given here); one to be awake brings a DRAINING host back to READY."""
        ...

    def end_wish(self, wish: int, *, now: float) -> None:
        """Forget a wish: it came true, or nobody wants it any more."""
        ...

    def pause(self, host: str | None, why: str, by: str, *, now: float) -> None:
        """Hands off a host, or (None) the whole rack; a DRAINING host returns to READY."""
        ...

    def resume(self, host: str | None, by: str, *, now: float) -> None:
        """End a pause; also ends a host's quarantine."""
        ...

    # -- who leads

    def lead(self, holder: str, *, over: Leadership | None, now: float) -> Leadership | None:
        """Become the leader in a new term, where none leads or the leader is still the dead one ``over``.

        Returns None if somebody else was quicker.
        """
        ...

    def leading(self) -> Leadership | None:
        """Return who leads, or None."""
        ...

    def keep_leading(self, leadership: Leadership, *, now: float) -> Leadership:
        """Say that the leader lives.

        Raises:
            StaleError: somebody else leads.
        """
        ...

    def abdicate(self, leadership: Leadership, *, now: float) -> None:
        """Lead no more; a standby takes over at once."""
        ...

    def close(self) -> None:
        """Let go of the store."""
        ...


__all__ = [
    "Happening",
    "Instance",
    "Intent",
    "Leadership",
    "Lease",
    "StaleError",
    "Store",
    "StoreError",
]
