"""What electricity was used and for what, by the minute, hour and day; and tokens, by the hour and day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the five tables."""
    for span in ("minute", "hour", "day"):
        op.create_table(
            f"energy_{span}",
            sa.Column("host", sa.Text, primary_key=True),
            sa.Column("doing", sa.Text, primary_key=True),
            sa.Column("at", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("seconds", sa.Double, nullable=False),
            sa.Column("metered_s", sa.Double, nullable=False),
            sa.Column("joules", sa.Double, nullable=False),
            sa.Column("guessed", sa.Double, nullable=False),
            sqlite_with_rowid=False,
        )
    for span in ("hour", "day"):
        op.create_table(
            f"token_{span}",
            sa.Column("host", sa.Text, primary_key=True),
            sa.Column("model", sa.Text, primary_key=True),
            sa.Column("at", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("prompt", sa.BigInteger, nullable=False),
            sa.Column("answer", sa.BigInteger, nullable=False),
            sqlite_with_rowid=False,
        )
