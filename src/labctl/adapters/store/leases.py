"""Leases, and the instances that hold them.

A lease is taken under the host's lock, so that it and an order can never both be committed. It belongs to
an instance whose row stays locked until then: an instance is either buried before, and gets none, or after,
and loses it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import bindparam, delete, insert, select, update

from labctl.domain.sleep.lifecycle import Mode, may_lease
from labctl.ports.store import Instance, Lease, StaleError

from . import tables
from .database import Database, Transaction
from .deciding import happen, locked, readmit
from .rows import mode_of

_INSTANCE, _LEASE = tables.instance, tables.lease
# Made once: what a gateway waits for is mostly the making of statements. Not FOR UPDATE, since two leases of
# one instance on two hosts need not wait for each other.
_ALIVE = (
    select(_INSTANCE.c.name)
    .where(_INSTANCE.c.name == bindparam("instance"))
    .with_for_update(read=True, key_share=True)
)
_TAKE = insert(_LEASE).returning(_LEASE.c.id)
# All of it, not the id alone: a backup that was put in place may have given the id to another.
_RELEASE = delete(_LEASE).where(
    _LEASE.c.id == bindparam("lease"),
    _LEASE.c.host == bindparam("on"),
    _LEASE.c.instance == bindparam("of"),
)
_BEAT = update(_INSTANCE).where(_INSTANCE.c.name == bindparam("alive")).values(beat=_INSTANCE.c.beat + 1)


class Leases:
    """The part of the store that gateways use; see ``ports.store.Store``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, instance: str, kind: str, *, now: float) -> None:
        """Make an instance known."""

        def work(transaction: Transaction) -> None:
            _end(transaction, instance)
            transaction.run(insert(_INSTANCE).values(name=instance, kind=kind, beat=0, since=now))

        self._database.write(work, sure=False)

    def beat(self, instance: str, *, now: float) -> None:
        """Say that an instance lives."""

        def work(transaction: Transaction) -> None:
            if transaction.run(_BEAT, {"alive": instance}).rowcount == 0:
                raise _buried(instance)

        self._database.write(work, sure=False)

    def instances(self) -> Sequence[Instance]:
        """Return all of them."""

        def work(transaction: Transaction) -> list[Instance]:
            rows = transaction.run(select(_INSTANCE).order_by(_INSTANCE.c.name))
            return [Instance(row.name, row.kind, row.beat) for row in rows]

        return self._database.read(work)

    def bury(self, instance: str, beat: int, *, now: float) -> bool:
        """Take all leases of an instance whose beat has not changed."""
        query = select(_INSTANCE.c.beat).where(_INSTANCE.c.name == instance).with_for_update()

        def work(transaction: Transaction) -> bool:
            found = transaction.run(query).scalar_one_or_none()
            if found is None:
                return True  # somebody else did it
            if found != beat:
                return False
            ended = _end(transaction, instance)
            text = f"{instance} is dead: {ended} of its leases ended"
            happen(transaction, "", "instance", text, now=now)
            return True

        return self._database.write(work, sure=False)

    def take_lease(self, instance: str, host: str, *, now: float) -> Lease | Mode:
        """Take a lease if the host's mode admits it, or return that mode."""

        def work(transaction: Transaction) -> Lease | Mode:
            row = locked(transaction, host)
            if transaction.run(_ALIVE, {"instance": instance}).first() is None:
                raise _buried(instance)
            if row is None:
                return Mode.UNKNOWN
            mode = mode_of(row)
            if not may_lease(mode):
                return mode
            readmit(transaction, row, f"{instance} has a request for it", now=now)
            values = {"host": host, "instance": instance, "since": now}
            return Lease(transaction.run(_TAKE, values).scalar_one(), host, instance)

        return self._database.write(work, sure=False)

    def release(self, lease: Lease, *, now: float) -> None:
        """Give a lease back."""
        values = {"lease": lease.id, "on": lease.host, "of": lease.instance}
        self._database.write(lambda transaction: transaction.run(_RELEASE, values), sure=False)

    def keep_leases(self, instance: str, leases: Collection[Lease]) -> None:
        """Give back all leases of an instance but these."""
        kept = [lease.id for lease in leases]
        rest = delete(_LEASE).where(_LEASE.c.instance == instance, _LEASE.c.id.not_in(kept))
        self._database.write(lambda transaction: transaction.run(rest), sure=False)

    def retire(self, instance: str, *, now: float) -> None:
        """Forget an instance that ends, and its leases."""
        self._database.write(lambda transaction: _end(transaction, instance), sure=False)


def _end(transaction: Transaction, instance: str) -> int:
    """Remove an instance and its leases; return how many those were."""
    transaction.run(select(_INSTANCE.c.name).where(_INSTANCE.c.name == instance).with_for_update())
    ended = transaction.run(delete(_LEASE).where(_LEASE.c.instance == instance)).rowcount
    transaction.run(delete(_INSTANCE).where(_INSTANCE.c.name == instance))
    return ended


def _buried(instance: str) -> StaleError:
    return StaleError(f"{instance} was taken for dead, or never registered; it holds no lease")
