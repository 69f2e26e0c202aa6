"""The tables as this version of labctl uses them; ``migrations/`` is how a database comes to have them.

What a decision rests on lies in one row, ``host``, so that one lock is enough to decide. What claims a host
(leases, holds, wishes) lies in tables of its own and is counted under that lock. ``leader`` and ``rack``
have one row each. Ids are never given twice, also after rows are gone: a late ``release`` must not free
somebody else's lease. Values that are only ever read as a whole (an order, a proof) are kept as JSON.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
)

SCHEMA = "0002"
"""The newest revision in ``migrations/``: the schema that this version of labctl reads and writes."""

VERSION_TABLE = "labctl_schema"
"""Where Alembic keeps the revision of a database."""

# SQLite gives ids by itself only to a column of just this type.
_ID = BigInteger().with_variant(Integer, "sqlite")
_VALUE = JSON(none_as_null=True)

metadata = MetaData()

host = Table(
    "host",
    metadata,
    Column("name", Text, primary_key=True),
    Column("mode", Text, nullable=False),
    Column("since", Double, nullable=False),
    Column("because", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("resumes", BigInteger, nullable=False),
    Column("paused", Text, nullable=False),
    Column("quarantined", Text, nullable=False),
    Column("sleep_order", _VALUE),
    Column("attempt", _VALUE),
    Column("proof", _VALUE),
    Column("repair", _VALUE),
    Column("came_up_s", _VALUE, nullable=False),
    # What closes admission and what was ordered must never part.
    CheckConstraint("(mode = 'suspending') = (sleep_order IS NOT NULL)", name="host_order"),
)

instance = Table(
    "instance",
    metadata,
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("since", Double, nullable=False),
)

lease = Table(
    "lease",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("host", Text, ForeignKey("host.name"), nullable=False, index=True),
    Column("instance", Text, ForeignKey("instance.name"), nullable=False, index=True),
    Column("since", Double, nullable=False),
    sqlite_autoincrement=True,
)

hold = Table(
    "hold",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("host", Text, ForeignKey("host.name"), nullable=False, index=True),
    Column("why", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("until", Double, nullable=False),
    sqlite_autoincrement=True,
)

wish = Table(
    "wish",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("host", Text, ForeignKey("host.name"), nullable=False, index=True),
    Column("by", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("until", Double, nullable=False),
    Column("sleep", Boolean, nullable=False),
    Column("force", Boolean, nullable=False),
    sqlite_autoincrement=True,
)

intent = Table(
    "intent",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("host", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("because", Text, nullable=False),
    Column("term", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    Column("ended", Double),
    Column("outcome", Text),
    sqlite_autoincrement=True,
)

happening = Table(
    "happening",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("host", Text, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("text", Text, nullable=False),
    sqlite_autoincrement=True,
)


def _spans(name: str) -> Table:
    """Return a table of energy by spans of one length; the key is in the order in which it is summed up."""
    return Table(
        name,
        metadata,
        Column("host", Text, primary_key=True),
        Column("doing", Text, primary_key=True),
        Column("at", BigInteger, primary_key=True, autoincrement=False),
        Column("seconds", Double, nullable=False),
        Column("metered_s", Double, nullable=False),
        Column("joules", Double, nullable=False),
        Column("guessed", Double, nullable=False),
        sqlite_with_rowid=False,
    )


def _tokens(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("host", Text, primary_key=True),
        Column("model", Text, primary_key=True),
        Column("at", BigInteger, primary_key=True, autoincrement=False),
        Column("prompt", BigInteger, nullable=False),
        Column("answer", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )


energy_minute = _spans("energy_minute")
energy_hour = _spans("energy_hour")
energy_day = _spans("energy_day")
token_hour = _tokens("token_hour")
token_day = _tokens("token_day")

leader = Table(
    "leader",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="leader_one"), primary_key=True),
    Column("holder", Text),  # null: nobody leads
    Column("term", BigInteger, nullable=False),
    Column("beat", BigInteger, nullable=False),
)

rack = Table(
    "rack",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="rack_one"), primary_key=True),
    Column("paused", Text, nullable=False),
    Column("labctl", Text, nullable=False),  # the version that brought the store to its schema
)
