"""Slices of time, put into minutes: what runs over the end of a minute is shared out by its seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .counting import Slice
from .terms import Doing, Grain, Spent

_MINUTE = int(Grain.MINUTE)
MOST_ROWS = 50_000
"""Rows that are kept while the store cannot be used: 20 hosts for more than a day."""


def spread(host: str, one: Slice) -> Iterator[Spent]:
    """Yield a row for each minute that a slice touches."""
    at, end = one.begin, one.begin + one.over_s
    left = end - at
    if left <= 0:  # also where it is so short that a clock cannot tell
        yield _row(host, one, int(at), 1.0)
        return
    while at < end:
        minute = int(at // _MINUTE) * _MINUTE
        till = min(end, float(minute + _MINUTE))
        yield _row(host, one, minute, (till - at) / left)
        at = till


def _row(host: str, one: Slice, at: int, share: float) -> Spent:
    minute = at - at % _MINUTE
    return Spent(
        minute,
        host,
        one.doing,
        one.seconds * share,
        one.metered_s * share,
        one.joules * share,
        one.guessed * share,
    )


@dataclass(slots=True)
class Pending:
    """Rows that wait to be written, each of a minute, host and doing added up."""

    rows: dict[tuple[int, str, Doing], Spent] = field(default_factory=dict)

    def add(self, host: str, one: Slice) -> None:
        """Take a slice in; the oldest minutes go where there are too many."""
        for row in spread(host, one):
            key = (row.at, row.host, row.doing)
            kept = self.rows.get(key)
            self.rows[key] = row if kept is None else _sum(kept, row)
        while len(self.rows) > MOST_ROWS:
            del self.rows[next(iter(self.rows))]

    def taken(self) -> tuple[Spent, ...]:
        """Return all rows; they are kept until ``done``."""
        return tuple(self.rows.values())

    def done(self) -> None:
        """Forget all rows: they were written."""
        self.rows.clear()


def _sum(one: Spent, other: Spent) -> Spent:
    return Spent(
        one.at,
        one.host,
        one.doing,
        one.seconds + other.seconds,
        one.metered_s + other.metered_s,
        one.joules + other.joules,
        one.guessed + other.guessed,
    )
