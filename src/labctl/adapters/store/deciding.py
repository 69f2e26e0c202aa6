"""What every deciding transaction does: lock the row, look who leads, count what claims the host, move it.

Locks are taken in one order, or two transactions could wait for each other: the leader, then hosts by name,
then instances, then the rack. SQLite has one lock for all; there ``FOR UPDATE`` is no part of the statement.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import BindParameter, Row, Select, Update, bindparam, false, func, insert, select, update

from labctl.domain.problem import LabctlError
from labctl.domain.sleep.lifecycle import Claims, Event, Mode, after
from labctl.ports.store import StaleError

from . import tables
from .database import Transaction
from .rows import mode_of

# Made once: what a gateway waits for is mostly the making of statements.
_TERM = select(tables.leader.c.holder, tables.leader.c.term).with_for_update(read=True)
_HOST = select(tables.host).where(tables.host.c.name == bindparam("host")).with_for_update()
_HAPPEN = insert(tables.happening)


def _counted() -> Select[Any]:
    lease, hold, wish, rack = tables.lease, tables.hold, tables.wish, tables.rack
    host: BindParameter[str] = bindparam("host")
    now: BindParameter[float] = bindparam("now")
    leases = select(func.count()).where(lease.c.host == host)
    holds = select(func.count()).where(hold.c.host == host, hold.c.until > now)
    wishes = select(func.count()).where(wish.c.host == host, wish.c.until > now, wish.c.sleep == false())
    return select(
        leases.scalar_subquery().label("leases"),
        holds.scalar_subquery().label("holds"),
        wishes.scalar_subquery().label("wishes"),
        select(rack.c.paused).scalar_subquery().label("paused"),
    )


_CLAIMS = _counted()


def require_term(transaction: Transaction, term: int) -> None:
    """Let nobody else take the lead until this transaction ends.

    Raises:
        StaleError: somebody else leads, or nobody.
    """
    row = transaction.run(_TERM).one()
    if row.holder is None or row.term != term:
        raise StaleError(f"the lead of term {term} is over; now it is term {row.term}")


def locked(transaction: Transaction, name: str) -> Row[Any] | None:
    """Lock a host's row and return it."""
    return transaction.run(_HOST, {"host": name}).one_or_none()


def locked_for(transaction: Transaction, name: str, *, term: int, version: int | None = None) -> Row[Any]:
    """Lock a host's row for the leader, who may have decided on a version of it.

    Raises:
        StaleError: the term is over, there is no such row, or its version is another.
    """
    require_term(transaction, term)
    row = locked(transaction, name)
    if row is None:
        raise StaleError(f"the store has no host {name}")
    if version is not None and row.version != version:
        raise StaleError(f"host {name} is at version {row.version}, not {version}: it is {row.mode}")
    return row


def locked_by_anyone(transaction: Transaction, name: str) -> Row[Any]:
    """Lock a host's row for whoever asks something of it.

    Raises:
        LabctlError: there is none.
    """
    row = locked(transaction, name)
    if row is None:
        hint = "the controller learns of new hosts when it starts: systemctl restart labctl-controller"
        raise LabctlError("the store does not know it", host=name, hint=hint)
    return row


def claims_of(transaction: Transaction, row: Row[Any], *, now: float) -> Claims:
    """Count what claims a host whose row is locked."""
    counted = transaction.run(_CLAIMS, {"host": row.name, "now": now}).one()
    return Claims(counted.leases, counted.holds, counted.wishes, bool(row.paused or counted.paused))


def change(transaction: Transaction, row: Row[Any], **values: Any) -> None:
    """Change a locked row, and raise its version by one; no version where nothing differs."""
    differs = {name: value for name, value in values.items() if getattr(row, name) != value}
    if differs:
        differs["version"] = row.version + 1
        transaction.run(_changing(frozenset(differs)), {**differs, "row": row.name})


@cache
def _changing(columns: frozenset[str]) -> Update:
    """Return the statement that changes these columns of a host; there are few such sets."""
    values: dict[str, BindParameter[Any]] = {name: bindparam(name) for name in sorted(columns)}
    return update(tables.host).where(tables.host.c.name == bindparam("row")).values(values)


def move(
    transaction: Transaction, row: Row[Any], mode: Mode, because: str, *, now: float, **values: Any
) -> None:
    """Move a locked row to a mode, end what belonged to the old one, and write it to the log."""
    kept: dict[str, Any] = {"mode": mode, "since": now, "because": because}
    if row.mode == Mode.SUSPENDING and mode is not Mode.SUSPENDING:
        kept["sleep_order"] = None
    if row.mode == Mode.WAKING and mode is not Mode.WAKING:
        kept["attempt"] = None
    change(transaction, row, **kept, **values)
    happen(transaction, row.name, "mode", f"{row.mode} -> {mode}: {because}", now=now)


def readmit(transaction: Transaction, row: Row[Any], because: str, *, now: float) -> None:
    """Bring a host that drains back to READY, since somebody needs it; leave any other as it is."""
    mode = mode_of(row)
    if mode is Mode.DRAINING and (ready := after(mode, Event.NEEDED)) is not None:
        transaction.require_sure()
        move(transaction, row, ready, because, now=now)


def happen(transaction: Transaction, host: str, kind: str, text: str, *, now: float) -> None:
    """Write a line of the log that is kept."""
    transaction.run(_HAPPEN, {"at": now, "host": host, "kind": kind, "text": text})
