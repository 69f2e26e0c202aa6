"""PostgreSQL with pgvector: a server of its own, beside whatever cluster a person has on that host.

It is one service like any other: a unit of labctl's, its own user, its data in the service's folder of state,
which stays when the service goes. The programs are the distribution's, reached by a link that says which
major version this release has, since the inventory does not know releases. The first start makes the data
folder. Nobody may log in as its superuser over the network: only the owner of the one database, by password.
"""

from __future__ import annotations

from labctl.inventory import PgVector
from labctl.render import HEADER
from labctl.render.engines.terms import ConfigFile, Launch
from labctl.render.gateways.terms import FOLDER, mark

# Leads to /usr/lib/postgresql/MAJOR.
PROGRAMS = "/opt/labctl/postgresql"
# Runs on the host; its arguments are the data folder and the folder of programs.
_FIRST = (
    '[ -s "$1/PG_VERSION" ] || exec "$2/initdb" --pgdata="$1" --encoding=UTF8 --locale=C.UTF-8 '
    "--auth=reject --no-instructions"
)


def state(wanted: PgVector) -> str:
    """Return the folder of the service, where its socket is too."""
    return f"/var/lib/labctl-{wanted.name}"


def data(wanted: PgVector) -> str:
    """Return the folder of the data."""
    return f"{state(wanted)}/data"


def access(wanted: PgVector) -> str:
    """Return pg_hba.conf: the service's user on the socket, and the owner from wherever it listens."""
    owner = f'"{wanted.database}"'
    return "\n".join(
        [
            HEADER,
            "# type  database  user  address  method",
            f'local   all  "{wanted.user}"  peer',
            f"local   {owner}  {owner}  scram-sha-256",
            f"host    {owner}  {owner}  0.0.0.0/0  scram-sha-256",
            f"host    {owner}  {owner}  ::/0  scram-sha-256",
            "",
        ]
    )


def launch(wanted: PgVector) -> Launch:
    """Return how it is started."""
    hba = ConfigFile(f"{FOLDER}/pgvector/{wanted.name}.hba.conf", access(wanted))
    settings = {
        "listen_addresses": wanted.listen,
        "port": str(wanted.port),
        "unix_socket_directories": state(wanted),
        "hba_file": hba.path,
        "password_encryption": "scram-sha-256",
        # Its compiler writes code into memory, which the unit forbids; searching vectors gains nothing by it.
        "jit": "off",
        "logging_collector": "off",
        "log_destination": "stderr",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return Launch(
        (f"{PROGRAMS}/bin/postgres", "-D", data(wanted), *options),
        {},
        (hba.path,),
        (),
        (hba,),
        (("/bin/sh", "-c", _FIRST, "labctl-initdb", data(wanted), f"{PROGRAMS}/bin"),),
        (mark(hba.content),),
    )


def statements(wanted: PgVector, verifier: str) -> str:
    """Return the SQL that brings role, database and extension about; for psql's standard input."""
    name = wanted.database
    return "\n".join(
        [
            # A name is a host name label, so it holds no quote.
            f"SELECT 'CREATE ROLE \"{name}\" LOGIN' WHERE NOT EXISTS "
            f"(SELECT FROM pg_roles WHERE rolname = '{name}') \\gexec",
            f"ALTER ROLE \"{name}\" LOGIN NOSUPERUSER PASSWORD '{verifier}';",
            f'SELECT \'CREATE DATABASE "{name}" OWNER "{name}"\' WHERE NOT EXISTS '
            f"(SELECT FROM pg_database WHERE datname = '{name}') \\gexec",
            f'ALTER DATABASE "{name}" OWNER TO "{name}";',
            f'\\connect "{name}"',
            "CREATE EXTENSION IF NOT EXISTS vector;",
            "",
        ]
    )
