"""The store, as a database: SQLite in a file, or PostgreSQL by its address, by the same statements.

This package is the only speaker of SQL. ``database`` runs transactions and explains failures; ``lives``,
``leases``, ``asks``, ``journal``, ``leading`` and ``energy`` are what is done in them; ``sqlite`` and
``postgres`` hold all that differs; ``schema`` brings what is there to this version of labctl.
"""

from __future__ import annotations

from pathlib import Path

from labctl.ports.store import Store

from .asks import Asks
from .database import Database
from .energy import Energy
from .journal import Journal
from .leading import Leading
from .leases import Leases
from .lives import Lives
from .postgres import PostgresServer
from .schema import OURS, Steps, bring_up, verifier
from .sqlite import SqliteFile, move_store

_SQLITE = "sqlite:///"

__all__ = ["SqlStore", "move_store", "open_store", "store_at"]


class SqlStore(Lives, Leases, Asks, Journal, Leading, Energy):
    """The port ``Store`` over a database; see there."""

    def close(self) -> None:
        """Let go of the store."""
        self._database.drop()


def open_store(url_or_path: str | Path, *, create: bool) -> Store:
    """Return the store in a file, or in the database of an address such as postgresql+psycopg://U:P@H/NAME.

    A store of an older labctl is migrated. With ``create`` it is made where there is none yet.

    Raises:
        StoreError: it is not there, not a store, newer than this labctl, or cannot be used now.
    """
    return store_at(_place(url_or_path), create=create)


def store_at(place: SqliteFile | PostgresServer, *, create: bool, steps: Steps = OURS) -> SqlStore:
    """Return the store at a place; ``steps`` are the migrations, others than our own only in tests."""
    place.prepare(create=create)
    database = Database(place, verifier(place.name, steps))
    bring_up(database, place, create=create, steps=steps)
    return SqlStore(database)


def _place(url_or_path: str | Path) -> SqliteFile | PostgresServer:
    text = str(url_or_path)
    if text.startswith(_SQLITE):
        return SqliteFile(Path(text.removeprefix(_SQLITE)))
    if isinstance(url_or_path, str) and "://" in text:
        return PostgresServer(text)
    return SqliteFile(Path(url_or_path))
