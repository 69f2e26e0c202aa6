"""Read the table: the one file that the web page's process is given."""

from __future__ import annotations

from pathlib import Path

from labctl.adapters import table_file
from labctl.domain.web_table import Table


def read_table(path: Path) -> Table:
    """Return the table that a file holds.

    Raises:
        LabctlError: it cannot be read, or holds no table that this labctl knows.
    """
    return table_file.read(path, Table, whose="the web page", only="web")
