"""What people and programs ask for: holds, wishes, and hands off.

Each is written under the host's lock, so that an order that is decided at the same time either sees it or was
committed before it; the host that drains comes back to READY in the same transaction.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Table, delete, insert, select, update

from labctl.domain.sleep.terms import Hold, Wish
from labctl.ports.store import StoreError

from . import tables
from .database import Database, Transaction
from .deciding import change, happen, locked_by_anyone, readmit


class Asks:
    """The part of the store that commands and gateways ask by; see ``ports.store.Store``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def hold(self, host: str, why: str, by: str, *, until: float, now: float) -> Hold:
        """Keep a host awake until a wall time."""
        values = {"host": host, "why": why, "by": by, "until": until}

        def work(transaction: Transaction) -> Hold:
            row = locked_by_anyone(transaction, host)
            number = _inserted(transaction, tables.hold, values)
            readmit(transaction, row, f"{by} holds it: {why}", now=now)
            happen(transaction, host, "hold", f"held by {by}: {why}", now=now)
            return Hold(number, host, why, by, until)

        return self._database.write(work)

    def release_hold(self, host: str, *, hold: int | None = None, by: str, now: float) -> int:
        """End one hold, or all of a host."""
        table = tables.hold
        live = delete(table).where(table.c.host == host, table.c.until > now)
        statement = live if hold is None else live.where(table.c.id == hold)

        def work(transaction: Transaction) -> int:
            ended = transaction.run(statement).rowcount
            if ended:
                what = "a hold" if ended == 1 else f"{ended} holds"
                happen(transaction, host, "hold", f"{by} ended {what}", now=now)
            return ended

        return self._database.write(work)

    def wish(self, wish: Wish, *, now: float) -> Wish:
        """Keep a wish."""
        names = ("host", "by", "why", "at", "until", "sleep", "force")
        values = {name: getattr(wish, name) for name in names}

        def work(transaction: Transaction) -> Wish:
            row = locked_by_anyone(transaction, wish.host)
            number = _inserted(transaction, tables.wish, values)
            why = f": {wish.why}" if wish.why else ""
            if not wish.sleep:
                readmit(transaction, row, f"{wish.by} wants it awake{why}", now=now)
            wanted = "asleep" if wish.sleep else "awake"
            forced = ", whatever its signals say" if wish.force else ""
            text = f"{wish.by} wants it {wanted}{forced}{why}"
            happen(transaction, wish.host, "wish", text, now=now)
            return replace(wish, id=number)

        return self._database.write(work)

    def end_wish(self, wish: int, *, now: float) -> None:
        """Forget a wish."""
        statement = delete(tables.wish).where(tables.wish.c.id == wish)
        self._database.write(lambda transaction: transaction.run(statement))

    def pause(self, host: str | None, why: str, by: str, *, now: float) -> None:
        """Hands off a host, or the whole rack."""
        paused = f"{why} ({by})"

        def one(transaction: Transaction) -> None:
            assert host is not None
            row = locked_by_anyone(transaction, host)
            readmit(transaction, row, f"paused: {paused}", now=now)
            change(transaction, locked_by_anyone(transaction, host), paused=paused)
            happen(transaction, host, "pause", f"paused: {paused}", now=now)

        def all_of_them(transaction: Transaction) -> None:
            table = tables.host
            # All hosts first: an order holds its host's lock while it looks whether the rack is paused.
            for row in transaction.run(select(table).order_by(table.c.name).with_for_update()).all():
                readmit(transaction, row, f"the rack is paused: {paused}", now=now)
            transaction.run(update(tables.rack).values(paused=paused))
            happen(transaction, "", "pause", f"paused: {paused}", now=now)

        self._database.write(all_of_them if host is None else one)

    def resume(self, host: str | None, by: str, *, now: float) -> None:
        """End a pause, and a host's quarantine."""

        def one(transaction: Transaction) -> None:
            assert host is not None
            row = locked_by_anyone(transaction, host)
            # Who ends a quarantine has mended it: the ladder begins anew.
            repair = None if row.quarantined else row.repair
            change(transaction, row, paused="", quarantined="", repair=repair)
            if row.paused or row.quarantined:
                happen(transaction, host, "pause", f"{by} ended it", now=now)

        def all_of_them(transaction: Transaction) -> None:
            transaction.run(update(tables.rack).values(paused=""))
            happen(transaction, "", "pause", f"{by} ended it", now=now)

        self._database.write(all_of_them if host is None else one)


def _inserted(transaction: Transaction, table: Table, values: dict[str, object]) -> int:
    number = transaction.run(insert(table).values(values).returning(table.c.id)).scalar_one()
    if not isinstance(number, int):
        raise StoreError("the database gave no id", hint="this is a bug in labctl")
    return number
