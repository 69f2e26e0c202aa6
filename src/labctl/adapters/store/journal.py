"""Intents, outcomes, and the log that is kept."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, insert, select, update

from labctl.ports.store import ANY, Happening, Intent, Sought

from . import tables
from .database import Database, Transaction
from .deciding import happen, require_term

# Made once: each effect writes both.
_INTEND = insert(tables.intent).returning(tables.intent.c.id)
_OUTCOME = (
    update(tables.intent)
    .where(tables.intent.c.id == bindparam("intent"))
    .values(outcome=bindparam("outcome"), ended=bindparam("ended"))
)


class Journal:
    """The part of the store that remembers; see ``ports.store.Store``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def intend(self, host: str, action: str, because: str, *, term: int, now: float) -> int:
        """Write down an effect before it is carried out."""
        values = {"host": host, "action": action, "because": because, "term": term, "at": now}

        def work(transaction: Transaction) -> int:
            require_term(transaction, term)
            return int(transaction.run(_INTEND, values).scalar_one())

        return self._database.write(work)

    def outcome(self, intent: int, outcome: str, *, now: float) -> None:
        """Write down how it went."""
        values = {"intent": intent, "outcome": outcome, "ended": now}
        self._database.write(lambda work: work.run(_OUTCOME, values))

    def unfinished(self) -> Sequence[Intent]:
        """Return the intents without an outcome, oldest first."""
        table = tables.intent
        query = select(table).where(table.c.outcome.is_(None)).order_by(table.c.id)

        def work(transaction: Transaction) -> list[Intent]:
            return [
                Intent(row.id, row.host, row.action, row.because, row.at, row.outcome)
                for row in transaction.run(query)
            ]

        return self._database.read(work)

    def happen(self, host: str, kind: str, text: str, *, now: float) -> None:
        """Write a line of the log that is kept."""
        self._database.write(lambda work: happen(work, host, kind, text, now=now), sure=False)

    def happenings(
        self, *, host: str | None = None, after: int = 0, most: int = 100, only: Sought = ANY
    ) -> Sequence[Happening]:
        """Return the newest lines past an id that are sought, oldest first."""
        table = tables.happening
        query = select(table).where(table.c.id > after).order_by(table.c.id.desc()).limit(most)
        if host is not None:
            query = query.where(table.c.host == host)
        if only.since is not None:
            query = query.where(table.c.at >= only.since)
        if only.until is not None:
            query = query.where(table.c.at < only.until)
        if only.kinds:
            query = query.where(table.c.kind.in_(only.kinds))
        if only.text:
            query = query.where(table.c.text.icontains(only.text, autoescape=True))

        def work(transaction: Transaction) -> list[Happening]:
            rows = transaction.run(query).all()
            return [Happening(row.id, row.at, row.host, row.kind, row.text) for row in reversed(rows)]

        return self._database.read(work)

    def prune(self, *, before: float) -> int:
        """Forget lines, finished intents, and holds and wishes that ended before a wall time."""
        old = (
            delete(tables.happening).where(tables.happening.c.at < before),
            delete(tables.intent).where(tables.intent.c.ended < before),
            delete(tables.hold).where(tables.hold.c.until < before),
            delete(tables.wish).where(tables.wish.c.until < before),
        )

        def work(transaction: Transaction) -> int:
            return sum(transaction.run(statement).rowcount for statement in old)

        return self._database.write(work, sure=False)
