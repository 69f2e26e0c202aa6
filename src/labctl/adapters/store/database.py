"""One transaction at a time, whatever becomes of the database.

A piece of work is a function of a transaction. It is committed when the function returns and leaves no trace
when anything fails, so that it may be run again: after a deadlock, or because it turned out to need a commit
that also survives a loss of power. What the database says of itself becomes a ``StoreError`` with a reason
and a hint; after a failure that may stick to connections they are dropped, so that the next call starts
afresh and works as soon as the cause is mended.

Two things are looked at in every transaction: that the place is still the one that was opened (a file that
was moved away takes writes that nobody ever sees again), and that its schema is still ours (a newer labctl
may have migrated it meanwhile).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, CursorResult, Engine, Executable
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection

from labctl.ports.store import StoreError

from .rows import UnreadableError

TRY_AGAIN = "nothing was changed; the controller tries again by itself"
_TRIES = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """What a database's error means: for people, whether to try again at once, and whether to reconnect."""

    error: StoreError
    again: bool = False
    reconnect: bool = True


class Place(Protocol):
    """Where a store lies, and all that differs between kinds of databases."""

    name: str
    """What to call it in errors; no secret is in it."""

    def engine(self) -> Engine:
        """Return a new engine; nothing is contacted."""
        ...

    def opened(self, connection: Connection) -> None:
        """Look at what was opened, before anything is read, and remember which place it is.

        Raises:
            StoreError: it is no store, or damaged.
        """
        ...

    def check(self) -> object:
        """Return which place it is; called before and after the work of a transaction.

        Raises:
            StoreError: it is not the one that was opened.
        """
        ...

    def turn(self) -> AbstractContextManager[None]:
        """Wait until no other thread of this process writes."""
        ...

    def begin(self, *, write: bool, sure: bool) -> dict[str, Any]:
        """Return the execution options that begin a transaction."""
        ...

    def explain(self, error: DBAPIError) -> Fault:
        """Return what an error means."""
        ...


class NotSureError(Exception):
    """The work needs a commit that survives a loss of power; nothing was changed."""


class Transaction:
    """What a piece of work may do; ``sure``: its commit survives a loss of power."""

    def __init__(self, connection: Connection, *, sure: bool) -> None:
        self._connection = connection
        self._sure = sure

    def run(self, statement: Executable, values: Any = None) -> CursorResult[Any]:
        """Run a statement."""
        return self._connection.execute(statement, values)

    def require_sure(self) -> None:
        """Have the work done again in a transaction whose commit survives a loss of power."""
        if not self._sure:
            raise NotSureError


class Database:
    """The transactions of one place; usable from as many threads as the caller likes."""

    def __init__(self, place: Place, verify: Callable[[Connection], None]) -> None:
        """Contact nothing yet; ``verify`` raises ``StoreError`` where a schema is not ours."""
        self._place = place
        self._verify = verify
        self._engine = place.engine()
        self._looked = False

    @property
    def engine(self) -> Engine:
        """Return the engine, for whoever brings the schema up."""
        return self._engine

    def write(self, work: Callable[[Transaction], T], *, sure: bool = True) -> T:
        """Do a piece of work that changes something, under a lock that makes it the only one."""
        for _ in range(_TRIES - 1):
            try:
                with self._place.turn():
                    return self._guarded(work, write=True, sure=sure)
            except NotSureError:
                sure = True
            except _AgainError:
                continue
        with self._place.turn():
            return self._guarded(work, write=True, sure=True, last=True)

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Do a piece of work that sees one moment of the database and changes nothing."""
        return self._guarded(work, write=False, sure=False, last=True)

    def guard(self, work: Callable[[], T]) -> T:
        """Run something that speaks to the engine by itself, and explain its failures."""
        try:
            return work()
        except DBAPIError as error:
            raise self._failed(self._place.explain(error)) from None
        except (SQLAlchemyError, OSError) as error:
            raise self._failed(self._other(error)) from None

    def drop(self) -> None:
        """Forget all connections, and look at the place anew before the next transaction."""
        self._looked = False
        self._engine.dispose()

    def _guarded(self, work: Callable[[Transaction], T], *, write: bool, sure: bool, last: bool = False) -> T:
        try:
            return self._once(work, write=write, sure=sure)
        except StoreError:
            self.drop()
            raise
        except DBAPIError as error:
            fault = self._place.explain(error)
            if fault.again and not last:
                raise _AgainError from None
            raise self._failed(fault) from None
        except (UnreadableError, json.JSONDecodeError) as error:
            hint = "a backup of the store helps, or a labctl that is not older than the one that wrote it"
            raise StoreError(f"{self._place.name}: {error}", hint=hint) from None
        except (SQLAlchemyError, OSError) as error:
            raise self._failed(self._other(error)) from None

    def _once(self, work: Callable[[Transaction], T], *, write: bool, sure: bool) -> T:
        before = self._place.check() if self._looked else None
        with self._engine.connect() as connection:
            if not self._looked:
                before = self.look(connection)
            begun = connection.execution_options(**self._place.begin(write=write, sure=sure))
            with begun.begin():
                self._verify(begun)
                result = work(Transaction(begun, sure=sure))
                if write and self._place.check() != before:
                    raise StoreError(f"{self._place.name}: it was replaced meanwhile", hint=TRY_AGAIN)
                try:
                    begun.commit()
                except DBAPIError as error:
                    if error.connection_invalidated:
                        raise self._unknown() from None
                    raise
        return result

    def _unknown(self) -> StoreError:
        # Both are harmless: an order that nobody sends, a lease that its instance does not know of.
        text = "the connection broke during a commit, so it may or may not have happened"
        return StoreError(f"{self._place.name}: {text}", hint="look again before you decide again")

    def look(self, connection: Connection) -> object:
        """Look at what a new connection leads to; return which place it is."""
        self._place.opened(connection)
        connection.rollback()
        self._looked = True
        return self._place.check()

    def _other(self, error: Exception) -> Fault:
        if isinstance(error, NoConnection):
            text = "all connections to it are in use"
            return Fault(StoreError(f"{self._place.name}: {text}", hint=TRY_AGAIN), reconnect=False)
        reason = str(error).splitlines()[0]
        return Fault(StoreError(f"{self._place.name}: {reason}", hint="this is a bug in labctl"))

    def _failed(self, fault: Fault) -> StoreError:
        if fault.reconnect:
            self.drop()
        return fault.error


class _AgainError(Exception):
    """Nothing was changed, and the same work is likely to succeed now."""
