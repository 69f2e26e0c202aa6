"""Read a table: the one file that the gateway, or the web page, is given on its host.

labctl wrote it from a rack that it had checked, so a fault in it means another version or another hand: its
reader then does not start, and says which field is wrong. Nothing is taken for something else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from labctl.domain.problem import LabctlError

Table = TypeVar("Table")

_MOST_BYTES = 16 * 1024 * 1024


def read(path: Path, kind: type[Table], *, whose: str, only: str) -> Table:
    """Return the table that a file holds; ``only`` is the part of ``labctl apply`` that writes it.

    Raises:
        LabctlError: it cannot be read, or holds no table that this labctl knows.
    """
    hint = f"write it anew with: labctl apply --only {only}"
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise LabctlError(f"{path}: {whose}'s table cannot be read: {error.strerror}", hint=hint) from None
    if len(data) > _MOST_BYTES:
        raise LabctlError(f"{path}: is no table of {whose}: it is too long", hint=hint)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        # It tells the place and the types, and never a value.
        raise LabctlError(f"{path}: is no table of {whose}: {error}", hint=hint) from None
