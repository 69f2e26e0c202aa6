"""Read the table: the one file that the gateway is given, and the secrets that lie beside it."""

from __future__ import annotations

from pathlib import Path

from labctl.adapters import table_file
from labctl.domain.gateway.table import Table


def read_table(path: Path) -> Table:
    """Return the table that a file holds.

    Raises:
        LabctlError: it cannot be read, or holds no table that this labctl knows.
    """
    return table_file.read(path, Table, whose="the gateway", only="gateway")
