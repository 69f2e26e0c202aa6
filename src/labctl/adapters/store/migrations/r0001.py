"""The first schema: hosts, who claims them, intents, the log that is kept, and who leads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create all tables, and the single rows of ``leader`` and ``rack``."""
    _hosts()
    _claims()
    _log()
    _single_rows()


def _hosts() -> None:
    op.create_table(
        "host",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("because", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("boot_id", sa.Text, nullable=False),
        sa.Column("resumes", sa.BigInteger, nullable=False),
        sa.Column("paused", sa.Text, nullable=False),
        sa.Column("quarantined", sa.Text, nullable=False),
        sa.Column("sleep_order", sa.JSON),
        sa.Column("attempt", sa.JSON),
        sa.Column("proof", sa.JSON),
        sa.Column("repair", sa.JSON),
        sa.Column("came_up_s", sa.JSON, nullable=False),
        sa.CheckConstraint("(mode = 'suspending') = (sleep_order IS NOT NULL)", name="host_order"),
    )


def _claims() -> None:
    op.create_table(
        "instance",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
    )
    op.create_table(
        "lease",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("host", sa.Text, sa.ForeignKey("host.name"), nullable=False, index=True),
        sa.Column("instance", sa.Text, sa.ForeignKey("instance.name"), nullable=False, index=True),
        sa.Column("since", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "hold",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("host", sa.Text, sa.ForeignKey("host.name"), nullable=False, index=True),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "wish",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("host", sa.Text, sa.ForeignKey("host.name"), nullable=False, index=True),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.Column("sleep", sa.Boolean, nullable=False),
        sa.Column("force", sa.Boolean, nullable=False),
        sqlite_autoincrement=True,
    )


def _log() -> None:
    op.create_table(
        "intent",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("because", sa.Text, nullable=False),
        sa.Column("term", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("ended", sa.Double),
        sa.Column("outcome", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "happening",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("host", sa.Text, nullable=False, index=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )


def _single_rows() -> None:
    leader = op.create_table(
        "leader",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="leader_one"), primary_key=True),
        sa.Column("holder", sa.Text),
        sa.Column("term", sa.BigInteger, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )
    rack = op.create_table(
        "rack",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="rack_one"), primary_key=True),
        sa.Column("paused", sa.Text, nullable=False),
        sa.Column("labctl", sa.Text, nullable=False),
    )
    op.bulk_insert(leader, [{"id": 1, "holder": None, "term": 0, "beat": 0}])
    op.bulk_insert(rack, [{"id": 1, "paused": "", "labctl": ""}])
