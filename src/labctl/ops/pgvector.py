"""A database with pgvector: which packages this release has, and role, database and extension in it.

What is there is asked of the server itself, so nothing is done when all is as wanted; a password that
somebody changed is noticed by the hash of its verifier. The SQL travels by standard input and holds the
verifier, never the password; in its session the server does not log statements that fail.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pyinfra.api.exceptions import OperationValueError
from pyinfra.context import host

from labctl.domain import pgvector as releases
from labctl.inventory import PgVector
from labctl.ops.command import Commands, Script, operation
from labctl.ops.facts_pgvector import Database, Databases
from labctl.render import scram
from labctl.render.gateways import pgvector as render

READY_S = 60


@dataclass(frozen=True, slots=True)
class Choice:
    """The major version of PostgreSQL for a host, and the packages that hold it."""

    major: int

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the Debian packages."""
        return (f"postgresql-{self.major}-pgvector", f"postgresql-{self.major}")

    @property
    def folder(self) -> str:
        """Return where its programs lie."""
        return f"/usr/lib/postgresql/{self.major}"


def _seen(wanted: PgVector) -> Database:
    found: Database = host.get_fact(
        Databases,
        state=render.state(wanted),
        data=render.data(wanted),
        user=wanted.user,
        database=wanted.database,
        port=wanted.port,
        psql=f"{render.PROGRAMS}/bin/psql",
    )
    return found


def choice(wanted: PgVector) -> Choice:
    """Return what to install on this host.

    Raises:
        OperationValueError: this release has no pgvector, or data of another major version lies there.
    """
    seen = _seen(wanted)
    try:
        major = releases.major(seen.distribution, seen.release)
    except ValueError as error:
        raise OperationValueError(f"service {wanted.name}: {error}") from None
    if seen.major and seen.major != str(major):
        raise OperationValueError(
            f"service {wanted.name}: {render.data(wanted)} is of PostgreSQL {seen.major}, and this release "
            f"has {major}; nothing was changed (bring it over by pg_upgrade, or move it away to start anew)"
        )
    return Choice(major)


def verifier(wanted: PgVector, password: str, host_name: str) -> str:
    """Return what the server is to store of the owner's password."""
    return scram.verifier(password, host=host_name, role=wanted.database)


@operation
def database(wanted: PgVector, verifier: str) -> Commands:
    """Have the database on a running server, its owner with this verifier, and pgvector in it."""
    digest = hashlib.sha256(verifier.encode()).hexdigest()
    if _seen(wanted).row == f"t|{digest}|t|t":
        return
    state = render.state(wanted)
    argv = (state, str(wanted.port), wanted.user, f"{render.PROGRAMS}/bin", str(READY_S))
    yield Script("pgvector", *argv, stdin=render.statements(wanted, verifier), timeout_s=READY_S + 60)
