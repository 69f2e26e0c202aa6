"""The life of a host: moves by the table, the order that closes admission, and what is noted on the way."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import insert, select

from labctl.domain.sleep.lifecycle import Event, Mode, Verdict, after, may_drain, may_order
from labctl.domain.sleep.terms import Attempt, Known, KnownHost, Order, Proof, Repair
from labctl.ports.store import StaleError

from . import tables
from .database import Database, Transaction
from .deciding import change, claims_of, happen, locked_by_anyone, locked_for, move
from .looking import Looking
from .rows import encoded, mode_of

_WAKES_REMEMBERED = 20


class Lives:
    """The part of the store that the controller moves hosts by; see ``ports.store.Store``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._looking = Looking()

    def enlist(self, hosts: Collection[str], *, now: float) -> None:
        """Have a row for each host."""

        def work(transaction: Transaction) -> None:
            there = set(transaction.run(select(tables.host.c.name)).scalars())
            for name in sorted(set(hosts) - there):
                transaction.run(insert(tables.host).values(_new(name, now)))

        self._database.write(work)

    def known(self, *, now: float) -> Known:
        """Return one consistent look at all that decisions need."""
        return self._database.read(lambda transaction: self._looking.known(transaction, now))

    def known_host(self, host: str, *, now: float) -> KnownHost | None:
        """Return what ``known`` has of one host."""
        return self._database.read(lambda transaction: self._looking.host(transaction, host, now))

    def move(self, host: str, event: Event, because: str, *, version: int, term: int, now: float) -> Mode:
        """Move a host by the table."""

        def work(transaction: Transaction) -> Mode:
            row = locked_for(transaction, host, term=term, version=version)
            mode = after(mode_of(row), event)
            if mode is None:
                raise StaleError(f"host {host} is {row.mode}: {event} leads nowhere")
            if event is Event.ORDERED:
                raise StaleError(f"host {host}: only an order closes admission")
            if event is Event.WENT_QUIET:
                verdict = may_drain(mode_of(row), claims_of(transaction, row, now=now))
                if not verdict:
                    raise StaleError(f"host {host}: {verdict.because}")
            move(transaction, row, mode, because, now=now)
            return mode

        return self._database.write(work)

    def order(self, host: str, order: Order, because: str, *, version: int, term: int, now: float) -> Verdict:
        """Close admission with an order, or return the host to READY."""

        def work(transaction: Transaction) -> Verdict:
            row = locked_for(transaction, host, term=term, version=version)
            mode = mode_of(row)
            verdict = may_order(mode, claims_of(transaction, row, now=now))
            ordered, ready = after(mode, Event.ORDERED), after(mode, Event.NEEDED)
            if ordered is None or ready is None:
                raise StaleError(f"host {host}: {verdict.because}")
            if verdict:
                move(transaction, row, ordered, because, now=now, sleep_order=encoded(order))
            else:
                move(transaction, row, ready, verdict.because, now=now)
            return verdict

        return self._database.write(work)

    def note_attempt(self, host: str, attempt: Attempt, *, version: int, term: int, now: float) -> None:
        """Keep how far a wake is."""

        def work(transaction: Transaction) -> None:
            row = locked_for(transaction, host, term=term, version=version)
            if mode_of(row) is not Mode.WAKING:
                raise StaleError(f"host {host} is {row.mode}: no wake is under way")
            change(transaction, row, attempt=encoded(attempt))

        self._database.write(work)

    def note_boot(self, host: str, boot_id: str, resumes: int, *, term: int, now: float) -> None:
        """Keep which boot and how many sleeps the host counted."""

        def work(transaction: Transaction) -> None:
            change(transaction, locked_for(transaction, host, term=term), boot_id=boot_id, resumes=resumes)

        self._database.write(work)

    def note_came_up(self, host: str, seconds: float, *, term: int, now: float) -> None:
        """Keep how long a wake took."""

        def work(transaction: Transaction) -> None:
            row = locked_for(transaction, host, term=term)
            change(transaction, row, came_up_s=[*row.came_up_s, [seconds, now]][-_WAKES_REMEMBERED:])

        self._database.write(work)

    def note_repair(self, host: str, repair: Repair, quarantined: str, *, term: int, now: float) -> None:
        """Keep where a host is on the ladder."""

        def work(transaction: Transaction) -> None:
            row = locked_for(transaction, host, term=term)
            # As JSON has it: a list never equals a tuple, and a version must not rise for nothing.
            kept = {"taken": list(repair.taken), "broken": list(repair.broken), "at": repair.at}
            change(transaction, row, repair=kept, quarantined=quarantined)
            if quarantined != row.quarantined:
                text = f"quarantined: {quarantined}" if quarantined else "quarantine ended"
                happen(transaction, host, "repair", text, now=now)

        self._database.write(work)

    def note_proof(self, host: str, proof: Proof | None, because: str, *, now: float) -> None:
        """Keep a wake proof, or forget the one there is."""

        def work(transaction: Transaction) -> None:
            row = locked_by_anyone(transaction, host)
            change(transaction, row, proof=encoded(proof))
            happen(transaction, host, "proof", because, now=now)

        self._database.write(work)


def _new(name: str, now: float) -> dict[str, Any]:
    new = KnownHost(name, since=now, because="nothing is known of it yet")
    return {
        "name": name,
        "mode": new.mode,
        "since": new.since,
        "because": new.because,
        "version": new.version,
        "boot_id": new.boot_id,
        "resumes": new.resumes,
        "paused": new.paused,
        "quarantined": new.quarantined,
        "came_up_s": list(new.came_up_s),
    }
