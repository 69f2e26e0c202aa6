"""What a decision rests on, read in one transaction, without making the same values again and again.

A controller looks at all hosts in each tick, and few of them have changed. So the statements are made once,
and JSON comes as the text that it is kept as: where a row and what claims its host read the same as the last
time, the host that was made of it then is returned again. Nothing is remembered instead of being read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, TypeVar

from sqlalchemy import JSON, BindParameter, Row, Text, bindparam, cast, func, select

from labctl.domain.sleep.lifecycle import Claims
from labctl.domain.sleep.terms import Hold, Known, KnownHost, Wish

from . import tables
from .database import Transaction
from .rows import hold_of, host_of, wish_of

_HOLD, _WISH, _LEASE, _HOST = tables.hold, tables.wish, tables.lease, tables.host
_NOW: BindParameter[float] = bindparam("now")
_NAME: BindParameter[str] = bindparam("host")
_HOLDS = select(_HOLD).where(_HOLD.c.until > _NOW).order_by(_HOLD.c.id)
_WISHES = select(_WISH).where(_WISH.c.until > _NOW).order_by(_WISH.c.id)
_LEASES = select(_LEASE.c.host, func.count().label("taken")).group_by(_LEASE.c.host)
_PAUSED = select(tables.rack.c.paused)
_ROWS = select(
    *(
        cast(column, Text).label(column.name) if isinstance(column.type, JSON) else column
        for column in _HOST.columns
    )
).order_by(_HOST.c.name)
_HOLDS_OF = _HOLDS.where(_HOLD.c.host == _NAME)
_WISHES_OF = _WISHES.where(_WISH.c.host == _NAME)
_LEASES_OF = _LEASES.where(_LEASE.c.host == _NAME)
_ROW = _ROWS.where(_HOST.c.name == _NAME)

_Claim = TypeVar("_Claim", Hold, Wish)


class Looking:
    """Reads hosts; usable from many threads at once."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[tuple[Any, ...], KnownHost]] = {}

    def known(self, transaction: Transaction, now: float) -> Known:
        """Return all hosts."""
        holds = _by_host(hold_of(row) for row in transaction.run(_HOLDS, {"now": now}))
        wishes = _by_host(wish_of(row) for row in transaction.run(_WISHES, {"now": now}))
        leases = {row.host: row.taken for row in transaction.run(_LEASES)}
        paused = transaction.run(_PAUSED).scalar_one()
        return Known(
            {
                row.name: self._host(row, leases.get(row.name, 0), holds[row.name], wishes[row.name], paused)
                for row in transaction.run(_ROWS).all()
            },
            paused,
        )

    def host(self, transaction: Transaction, name: str, now: float) -> KnownHost | None:
        """Return one host, or None."""
        row = transaction.run(_ROW, {"host": name}).one_or_none()
        if row is None:
            return None
        values = {"host": name, "now": now}
        holds = tuple(hold_of(one) for one in transaction.run(_HOLDS_OF, values))
        wishes = tuple(wish_of(one) for one in transaction.run(_WISHES_OF, values))
        leases = transaction.run(_LEASES_OF, {"host": name}).one_or_none()
        paused = transaction.run(_PAUSED).scalar_one()
        return self._host(row, 0 if leases is None else leases.taken, holds, wishes, paused)

    def _host(
        self, row: Row[Any], leases: int, holds: tuple[Hold, ...], wishes: tuple[Wish, ...], paused: str
    ) -> KnownHost:
        read = (tuple(row), leases, holds, wishes, paused)
        made = self._made.get(row.name)
        if made is not None and made[0] == read:
            return made[1]
        claims = Claims(
            leases, len(holds), sum(not one.sleep for one in wishes), paused=bool(row.paused or paused)
        )
        host = host_of(row, claims, holds, wishes)
        self._made[row.name] = (read, host)
        return host


def _by_host(claims: Iterable[_Claim]) -> defaultdict[str, tuple[_Claim, ...]]:
    found: defaultdict[str, tuple[_Claim, ...]] = defaultdict(tuple)
    for claim in claims:
        found[claim.host] += (claim,)
    return found
