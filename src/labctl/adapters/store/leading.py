"""Who leads: one row, in which a term only rises.

Whether a leader lives is judged by whoever watches its beat. A leader that was taken for dead may still be
at work; what it then decides is refused, since every deciding transaction holds the term's row.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, select, update

from labctl.ports.store import Leadership, StaleError

from . import tables
from .database import Database, Transaction
from .deciding import happen

_LEADER = tables.leader


class Leading:
    """The part of the store that leaders are made by; see ``ports.store.Store``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def lead(self, holder: str, *, over: Leadership | None, now: float) -> Leadership | None:
        """Become the leader in a new term, unless somebody leads who is not known to be dead."""

        def work(transaction: Transaction) -> Leadership | None:
            row = _locked(transaction)
            if row.holder is not None and _leadership(row) != over:
                return None
            new = Leadership(holder, row.term + 1, row.beat + 1)
            transaction.run(update(_LEADER).values(holder=holder, term=new.term, beat=new.beat))
            happen(transaction, "", "leader", f"{holder} leads, in term {new.term}", now=now)
            return new

        return self._database.write(work)

    def leading(self) -> Leadership | None:
        """Return who leads, or None."""

        def work(transaction: Transaction) -> Leadership | None:
            return _leadership(transaction.run(select(_LEADER)).one())

        return self._database.read(work)

    def keep_leading(self, leadership: Leadership, *, now: float) -> Leadership:
        """Say that the leader lives."""

        def work(transaction: Transaction) -> Leadership:
            row = _locked(transaction)
            if (row.holder, row.term) != (leadership.holder, leadership.term):
                raise StaleError(f"the lead of term {leadership.term} is over; now it is term {row.term}")
            transaction.run(update(_LEADER).values(beat=row.beat + 1))
            return Leadership(leadership.holder, leadership.term, row.beat + 1)

        return self._database.write(work, sure=False)

    def abdicate(self, leadership: Leadership, *, now: float) -> None:
        """Lead no more."""

        def work(transaction: Transaction) -> None:
            row = _locked(transaction)
            if (row.holder, row.term) == (leadership.holder, leadership.term):
                transaction.run(update(_LEADER).values(holder=None))
                happen(transaction, "", "leader", f"{leadership.holder} leads no more", now=now)

        self._database.write(work)


def _locked(transaction: Transaction) -> Row[Any]:
    return transaction.run(select(_LEADER).with_for_update()).one()


def _leadership(row: Row[Any]) -> Leadership | None:
    return None if row.holder is None else Leadership(row.holder, row.term, row.beat)
