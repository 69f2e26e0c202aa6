"""A store in a PostgreSQL database, named by its address; it needs a database of its own.

Whoever decides locks the host's row first (``SELECT ... FOR UPDATE``): what is read after that is what holds
when it is written. A look at everything is one snapshot (REPEATABLE READ). Every wait has an end: for a
connection, a lock, an answer; a connection that died in the pool is noticed before it is used.

The password is in the address alone, and in no error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from labctl.ports.store import StoreError

from .database import TRY_AGAIN, Fault
from .tables import VERSION_TABLE

_LOCK = 0x4C414243  # "LABC", the advisory lock under which a schema is brought up
_CONNECTIONS = 8
_WAITS = {
    "statement_timeout": "10s",
    "lock_timeout": "3s",
    # Should this process stop in the middle, others must not wait for it for ever.
    "idle_in_transaction_session_timeout": "10s",
}
_CONNECT: dict[str, Any] = {
    "connect_timeout": 5,
    "application_name": "labctl",
    "options": " ".join(f"-c {name}={value}" for name, value in _WAITS.items()),
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
FORM = "postgresql+psycopg://USER:PASSWORD@HOST/NAME"
_LOOK = "look at its log, and at: systemctl status postgresql"

# By SQLSTATE, the longest start that fits: what is wrong, what to do, and whether to reconnect.
_FAULTS: dict[str, tuple[str, str, bool]] = {
    "08": ("the connection broke", f"{TRY_AGAIN}; {_LOOK}", True),
    "22": ("it refuses a value", "this is a bug in labctl", False),
    "23": ("it refuses a row", "this is a bug in labctl", False),
    "25006": ("it cannot be written: a standby, or set to read-only", "name the primary", True),
    "28": ("it does not let us in", "look at the user and password in the address, and at pg_hba.conf", True),
    "3D": ("there is no such database", "make it: createdb --owner=USER NAME", True),
    "40": ("others kept changing the same rows", TRY_AGAIN, False),
    "42501": ("the user may not do that", "make the user the owner of the database", False),
    "53100": ("there is no space left for it", f"make room on its disk; {_LOOK}", True),
    "53300": ("it takes no more connections", "raise max_connections, or close some", True),
    "53": ("it has not enough memory, space or connections", _LOOK, True),
    "55P03": ("another program holds a lock on it", "see who: SELECT * FROM pg_stat_activity", False),
    "57014": ("it did not answer in time", "see who is at work: SELECT * FROM pg_stat_activity", True),
    "57": ("it was shut down, or is starting", f"{TRY_AGAIN}; {_LOOK}", True),
    "58": ("its disk does not take or give its data", _LOOK, True),
    "XX": ("it is damaged", f"put a backup in its place; {_LOOK}", True),
}
_DOWN = ("it cannot be reached", f"{TRY_AGAIN}; {_LOOK}", True)
# The driver gives no SQLSTATE for a connection that was refused; the server's words, where it speaks English.
_REFUSED = {
    "authentication failed": "28",
    "no pg_hba.conf entry": "28",
    "no password supplied": "28",
    "does not exist": "3D",
    "too many clients": "53300",
    "connection slots": "53300",
    "starting up": "57",
    "shutting down": "57",
}
# Two transactions were in each other's way; the second time one of them comes first.
_AGAIN = ("40001", "40P01", "23505")


class PostgresServer:
    """The place of a store that is a database on a server."""

    def __init__(self, address: str) -> None:
        """Contact nothing yet.

        Raises:
            StoreError: the address is none that we can use; the text holds no part of it.
        """
        self._url = _parsed(address)
        where = self._url.host or self._url.query.get("host") or "localhost"
        port = f":{self._url.port}" if self._url.port else ""
        self.name = f"store {self._url.database or ''} on {where}{port}"
        passwords = [value for name, value in self._url.query.items() if "pass" in name]
        self._secrets = [str(one) for one in [self._url.password, *passwords] if one]

    def prepare(self, *, create: bool) -> None:
        """Do nothing: the database is made by whoever keeps the server."""

    def engine(self) -> Engine:
        """Return a new engine.

        Raises:
            StoreError: the driver is not installed.
        """
        arguments = {name: value for name, value in _CONNECT.items() if name not in self._url.query}
        try:
            return create_engine(
                self._url,
                connect_args=arguments,
                pool_pre_ping=True,
                pool_size=_CONNECTIONS,
                max_overflow=_CONNECTIONS,
                pool_timeout=5,
            )
        except ModuleNotFoundError:
            hint = "install it: pip install 'labctl[postgres]'"
            raise StoreError(f"{self.name}: the driver for PostgreSQL is not installed", hint=hint) from None

    def opened(self, connection: Connection) -> None:
        """Look at nothing: whether it is a store is seen by its schema."""

    def check(self) -> object:
        """Return the same always: a connection leads to the database that it was opened to."""
        return None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for nobody: the server has a lock for each row."""
        yield

    def begin(self, *, write: bool, sure: bool) -> dict[str, Any]:
        """Return the execution options that begin a transaction; every commit is sure."""
        if write:
            return {"isolation_level": "READ COMMITTED"}
        return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

    def loosen(self, connection: Connection) -> None:
        """Do nothing: PostgreSQL changes tables where they are."""

    def claim(self, connection: Connection) -> None:
        """Let nobody else bring the schema up until the transaction ends."""
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")

    def sound(self, connection: Connection) -> None:
        """Do nothing: PostgreSQL never lets go of what rows lead to."""

    def keep_backup(self, version: str) -> None:
        """Keep none: whoever keeps the server does, and the migration is one transaction."""

    def explain(self, error: DBAPIError) -> Fault:
        """Return what an error of PostgreSQL means."""
        words = str(error.orig)
        refused = next((state for part, state in _REFUSED.items() if part in words), "")
        state = getattr(error.orig, "sqlstate", None) or refused
        detail = self._without_secrets(words).splitlines()[0:1]
        if VERSION_TABLE in "".join(detail):
            hint = "the controller makes it: labctl controller run"
            return Fault(StoreError(f"{self.name}: it holds no store", hint=hint))
        known = [start for start in _FAULTS if state.startswith(start)]
        if known:
            text, hint, reconnect = _FAULTS[max(known, key=len)]
        elif state and not error.connection_invalidated:
            text, hint, reconnect = "it refuses what labctl asks", "this is a bug in labctl", True
        else:
            text, hint, reconnect = _DOWN
        said = f"{text}: {detail[0]}" if detail else text
        return Fault(
            StoreError(f"{self.name}: {said}", hint=hint),
            again=state in _AGAIN,
            reconnect=reconnect,
        )

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _parsed(address: str) -> URL:
    # What is wrong with an address is not repeated: a password may be in any part of a wrong one.
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise StoreError("the address of the store cannot be read", hint=f"its form is {FORM}") from None
    if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
        text = "the address of the store is not of PostgreSQL"
        raise StoreError(text, hint=f"its form is {FORM}, or name a file")
    if "@" in (url.host or ""):
        # Else what stands behind the first @ of a password would be shown as the name of a server.
        text = "the address of the store has an @ too many"
        raise StoreError(text, hint=f"in a password it is written %40; its form is {FORM}")
    return url.set(drivername="postgresql+psycopg")
