"""Bring a database to the schema of this version of labctl, or refuse it.

An older schema is brought up step by step in one transaction, under a lock that lets nobody else do the same;
of a file, a copy is kept beside it first. A newer one is refused: its meaning is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from labctl import __version__
from labctl.ports.store import StoreError

from .database import Database, Place
from .tables import SCHEMA, VERSION_TABLE

_STEPS = Path(__file__).parent / "migrations"
_OURS = {"host", "lease", "leader", "rack"}


class Ground(Place, Protocol):
    """A place of which the schema can be brought up."""

    def loosen(self, connection: Connection) -> None:
        """Let tables be rebuilt by the transaction that is about to begin."""
        ...

    def claim(self, connection: Connection) -> None:
        """Let nobody else bring the schema up until the transaction ends, and mark the place as ours."""
        ...

    def sound(self, connection: Connection) -> None:
        """Look whether rows still lead to each other after tables were rebuilt.

        Raises:
            StoreError: they do not.
        """
        ...

    def keep_backup(self, version: str) -> Path | None:
        """Keep a copy of what is there; None where somebody else cares for backups.

        Raises:
            StoreError: it cannot be kept.
        """
        ...


@dataclass(frozen=True, slots=True)
class Steps:
    """The folder of migrations and the newest of them; others than our own only in tests."""

    folder: Path = _STEPS
    newest: str = SCHEMA


OURS = Steps()


def verifier(name: str, steps: Steps = OURS) -> Callable[[Connection], None]:
    """Return what refuses a database whose schema is not the one of ``steps``; ``name`` is for errors."""
    select = f"SELECT version_num FROM {VERSION_TABLE}"

    def verify(connection: Connection) -> None:
        found = connection.exec_driver_sql(select).scalar_one_or_none()
        if found != steps.newest:
            raise _foreign(name, str(found), steps, _writer(connection))

    return verify


def bring_up(database: Database, ground: Ground, *, create: bool, steps: Steps = OURS) -> None:
    """Have the schema of ``steps``, creating it (with ``create``) or migrating what there is.

    Raises:
        StoreError: there is none, it is newer, or it cannot be brought up; nothing was changed.
    """

    def work() -> None:
        with database.engine.connect() as connection:
            database.look(connection)
            if _found(connection, ground.name) == steps.newest:
                return
            connection.rollback()
            ground.loosen(connection)
            connection.rollback()
            connection.execution_options(**ground.begin(write=True, sure=True))
            with connection.begin():
                ground.claim(connection)
                # Again, since another process may have been quicker.
                found = _found(connection, ground.name)
                if found == steps.newest:
                    return
                if found is None and not create:
                    hint = "the controller makes it: labctl controller run"
                    raise StoreError(f"{ground.name}: it holds no store yet", hint=hint)
                if found is not None and not _older(found, steps):
                    raise _foreign(ground.name, found, steps, _writer(connection))
                if found is not None:
                    ground.keep_backup(found)
                _migrate(connection, ground.name, steps)
                ground.sound(connection)

    try:
        database.guard(work)
    finally:
        database.drop()  # a loosened connection must not be used again


def _found(connection: Connection, name: str) -> str | None:
    tables = set(inspect(connection).get_table_names())
    if VERSION_TABLE not in tables:
        if tables & _OURS:
            hint = "give labctl a database of its own"
            raise StoreError(f"{name}: it holds tables of something else", hint=hint)
        return None
    query = text(f"SELECT version_num FROM {VERSION_TABLE}")
    return connection.execute(query).scalar_one_or_none()


def _older(found: str, steps: Steps) -> bool:
    return found.isdigit() and int(found) < int(steps.newest)


def _writer(connection: Connection) -> str:
    """Return which labctl brought the store to its schema, where that can be read of a strange one."""
    try:
        with connection.begin_nested():
            return str(connection.execute(text("SELECT labctl FROM rack")).scalar_one())
    except DBAPIError:
        return "unknown"


def _foreign(name: str, found: str, steps: Steps, writer: str) -> StoreError:
    reason = (
        f"{name}: it has schema {found}, made by labctl {writer}; "
        f"this is labctl {__version__}, which knows schema {steps.newest}"
    )
    if _older(found, steps):
        return StoreError(reason, hint="start labctl anew, and it migrates the store")
    return StoreError(reason, hint=f"use labctl {writer} or newer here too; nothing was changed")


def _migrate(connection: Connection, name: str, steps: Steps) -> None:
    # Only now: most openings find the schema as it should be, and Alembic takes 0.1 s to load.
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    try:
        script = ScriptDirectory(str(steps.folder), version_locations=[str(steps.folder)])

        def ahead(revision: Any, _context: MigrationContext) -> Iterable[Any]:
            return script._upgrade_revs(steps.newest, revision)

        with EnvironmentContext(Config(), script, fn=ahead) as environment:
            environment.configure(connection=connection, version_table=VERSION_TABLE, transactional_ddl=True)
            environment.run_migrations()
        connection.execute(text("UPDATE rack SET labctl = :version"), {"version": __version__})
    except CommandError as error:
        hint = "reinstall labctl: its migrations are not complete; nothing was changed"
        raise StoreError(f"{name}: {error}", hint=hint) from None
