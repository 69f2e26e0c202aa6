"""Energy and tokens, added up in spans; see ``ports.energy``.

Both databases know ``INSERT ... ON CONFLICT DO UPDATE``, by the same words, so what is added is added by the
database itself. Rows are sorted, so that two gateways that add at once never wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Table, TextClause, delete, func, select, text

from labctl.domain.energy.terms import KEPT_S, Doing, Grain, Spent, SpentSum, Tokens

from . import tables
from .database import Database, Transaction

_SPENT: Mapping[Grain, Table] = {
    Grain.MINUTE: tables.energy_minute,
    Grain.HOUR: tables.energy_hour,
    Grain.DAY: tables.energy_day,
}
_TOKENS: Mapping[Grain, Table] = {Grain.HOUR: tables.token_hour, Grain.DAY: tables.token_day}
_NUMBERS = ("seconds", "metered_s", "joules", "guessed")


def _adding(table: Table) -> TextClause:
    """Return the statement that adds a row's numbers to what is there."""
    names = [column.name for column in table.columns]
    keys = [column.name for column in table.primary_key]
    sums = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in names if name not in keys)
    return text(
        f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)}) "
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {sums}"
    )


_ADD_SPENT = {grain: _adding(table) for grain, table in _SPENT.items()}
_ADD_TOKENS = {grain: _adding(table) for grain, table in _TOKENS.items()}
# Of one host and doing at a time: to group all of them at once takes a sort of half a million rows.
_PAIRS = select(tables.energy_day.c.host, tables.energy_day.c.doing).distinct()
# The first of January 1970 was a Thursday; the week begins on Monday.
_BY_SLOT = {
    grain: text(
        "SELECT ((at + :offset) / 3600 + 72) % 168 AS slot, SUM(seconds) AS seconds, "
        "SUM(metered_s) AS metered_s, SUM(joules) AS joules, SUM(guessed) AS guessed "
        f"FROM {table.name} WHERE host = :host AND doing = :doing AND at >= :since AND at < :until GROUP BY 1"
    )
    for grain, table in _SPENT.items()
}


def _numbers(row: Any) -> tuple[float, float, float, float]:
    return row.seconds, row.metered_s, row.joules, row.guessed


class Energy:
    """The part of the store that counts energy; see ``ports.energy.EnergyBook``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_spent(self, rows: Sequence[Spent]) -> None:
        """Add what hosts used."""
        told = [
            {"host": row.host, "doing": str(row.doing)} | {name: getattr(row, name) for name in _NUMBERS}
            for row in rows
        ]
        self._add(_ADD_SPENT, told, [row.at for row in rows])

    def add_tokens(self, rows: Sequence[Tokens]) -> None:
        """Add tokens of answers."""
        told = [
            {"host": row.host, "model": row.model, "prompt": row.prompt, "answer": row.answer} for row in rows
        ]
        self._add(_ADD_TOKENS, told, [row.at for row in rows])

    def _add(
        self, statements: Mapping[Grain, TextClause], told: Sequence[Mapping[str, Any]], at: Sequence[int]
    ) -> None:
        if not told:
            return

        def work(transaction: Transaction) -> None:
            for grain, statement in statements.items():
                values = [{"at": when - when % grain, **one} for when, one in zip(at, told, strict=True)]
                transaction.run(statement, sorted(values, key=lambda one: tuple(map(str, one.values()))))

        self._database.write(work, sure=False)

    def spent(self, grain: Grain, *, since: int, until: int, offset_s: int | None) -> Sequence[SpentSum]:
        """Return sums by host and doing, and with ``offset_s`` by hour of the week."""
        table = _SPENT[grain]
        plain = (
            select(
                table.c.host,
                table.c.doing,
                *(func.sum(table.c[name]).label(name) for name in _NUMBERS),
            )
            .where(table.c.at >= since, table.c.at < until)
            .group_by(table.c.host, table.c.doing)
        )

        def work(transaction: Transaction) -> list[SpentSum]:
            if offset_s is None:
                return [
                    SpentSum(row.host, Doing(row.doing), None, *_numbers(row))
                    for row in transaction.run(plain)
                ]
            found: list[SpentSum] = []
            for pair in transaction.run(_PAIRS).all():
                host, doing = pair.host, pair.doing
                given = {"host": host, "doing": doing, "offset": offset_s, "since": since, "until": until}
                what = Doing(doing)
                rows = transaction.run(_BY_SLOT[grain], given)
                found += [SpentSum(host, what, int(row.slot), *_numbers(row)) for row in rows]
            return found

        return self._database.read(work)

    def spans(self, grain: Grain, *, since: int, until: int, hosts: Sequence[str]) -> Sequence[Spent]:
        """Return rows, the oldest first."""
        table = _SPENT[grain]
        query = select(table).where(table.c.at >= since, table.c.at < until)
        if hosts:
            query = query.where(table.c.host.in_(hosts))
        query = query.order_by(table.c.at, table.c.host, table.c.doing)

        def work(transaction: Transaction) -> list[Spent]:
            return [
                Spent(row.at, row.host, Doing(row.doing), *_numbers(row)) for row in transaction.run(query)
            ]

        return self._database.read(work)

    def tokens(self, grain: Grain, *, since: int, until: int) -> Sequence[Tokens]:
        """Return sums by host and model."""
        table = _TOKENS[max(grain, Grain.HOUR)]
        first = since - since % max(grain, Grain.HOUR)
        query = (
            select(
                table.c.host,
                table.c.model,
                func.sum(table.c.prompt).label("prompt"),
                func.sum(table.c.answer).label("answer"),
            )
            .where(table.c.at >= first, table.c.at < until)
            .group_by(table.c.host, table.c.model)
            .order_by(table.c.host, table.c.model)
        )

        def work(transaction: Transaction) -> list[Tokens]:
            return [
                Tokens(since, row.host, row.model, int(row.prompt), int(row.answer))
                for row in transaction.run(query)
            ]

        return self._database.read(work)

    def forget_energy(self, *, now: float) -> int:
        """Forget spans that are older than their grain is kept."""
        old = [
            delete(table).where(table.c.at < int(now - KEPT_S[grain]))
            for those in (_SPENT, _TOKENS)
            for grain, table in those.items()
        ]
        return self._database.write(
            lambda transaction: sum(transaction.run(one).rowcount for one in old), sure=False
        )
