"""What a host says of a PostgreSQL with pgvector: its release, the data that lies there, the database."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from pyinfra.api.facts import FactBase
from typing_extensions import override

# The role of interest is called like the database. What is asked never holds a password: only its verifier's
# hash is told.
_QUERY = """\
select concat_ws('|', rolcanlogin, encode(sha256(convert_to(coalesce(rolpassword, ''), 'UTF8')), 'hex'),
  (select datdba = pg_authid.oid from pg_database where datname = current_database()),
  exists(select from pg_extension where extname = 'vector'))
from pg_authid where rolname = current_database()"""
_LOOK = """\
sed -n 's/^ID=//p; s/^VERSION_ID=//p' /etc/os-release | tr -d '"' | paste -sd' '
cat -- DATA/PG_VERSION 2>/dev/null || echo
runuser -u USER -- PSQL -XAtqw -h STATE -p PORT -U USER -d NAME -c QUERY 2>/dev/null </dev/null || echo
true"""


@dataclass(frozen=True, slots=True)
class Database:
    """What is there: ``major`` of the data that lies there, and ``row`` of what the database says of itself.

    Both are "" where there is none, or where nothing answers.
    """

    distribution: str = ""
    release: str = ""
    major: str = ""
    row: str = ""


class Databases(FactBase[Database]):
    """The state of one database; asks a server only if it runs."""

    @override
    @staticmethod
    def default() -> Database:
        """Return that nothing is known."""
        return Database()

    def command(self, state: str, data: str, user: str, database: str, port: int, psql: str) -> str:
        """Return the command; it never fails."""
        text = _LOOK
        for word, value in (
            ("DATA", data),
            ("USER", user),
            ("PSQL", psql),
            ("STATE", state),
            ("PORT", str(port)),
            ("NAME", database),
            ("QUERY", _QUERY),
        ):
            text = text.replace(word, shlex.quote(value))
        return text

    @override
    def process(self, output: list[str]) -> Database:
        """Read the release, the major version of the data, and what the database says."""
        lines = [*output, "", "", ""]
        # In os-release the order of the two is free: an identifier is no number.
        words = lines[0].split()
        name = next((word for word in words if not word[:1].isdigit()), "")
        number = next((word for word in words if word[:1].isdigit()), "")
        return Database(name, number, lines[1].strip(), lines[2].strip())
