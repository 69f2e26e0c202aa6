"""Read the table: the one file that the web page's process is given."""

from __future__ import annotations

from pathlib import Path

import msgspec

from labctl.domain.problem import LabctlError
from labctl.domain.web_table import Table

_HINT = "write it anew with: labctl apply --only web"
_MOST_BYTES = 4 * 1024 * 1024


def read_table(path: Path) -> Table:
    """Return the table that a file holds.

    Raises:
        LabctlError: it cannot be read, or holds no table that this labctl knows.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise LabctlError(
            f"{path}: the web page's table cannot be read: {error.strerror}", hint=_HINT
        ) from None
    if len(data) > _MOST_BYTES:
        raise LabctlError(f"{path}: is no table of the web page: it is too long", hint=_HINT)
    try:
        return msgspec.json.decode(data, type=Table)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        # It tells the place and the types, and never a value.
        raise LabctlError(f"{path}: is no table of the web page: {error}", hint=_HINT) from None
