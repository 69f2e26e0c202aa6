"""Read the table: the one file that the gateway is given, and the secrets that lie beside it.

labctl wrote it from a rack that it had checked, so a fault in it means another version or another hand: the
gateway then does not start, and says which field is wrong. Nothing is taken for something else.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from labctl.domain.gateway.table import Table
from labctl.domain.problem import LabctlError

_HINT = "write it anew with: labctl apply --only gateway"
_MOST_BYTES = 16 * 1024 * 1024


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
            f"{path}: the gateway's table cannot be read: {error.strerror}", hint=_HINT
        ) from None
    if len(data) > _MOST_BYTES:
        raise LabctlError(f"{path}: is no table of the gateway: it is too long", hint=_HINT)
    try:
        return msgspec.json.decode(data, type=Table)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        # It tells the place and the types, and never a value.
        raise LabctlError(f"{path}: is no table of the gateway: {error}", hint=_HINT) from None
