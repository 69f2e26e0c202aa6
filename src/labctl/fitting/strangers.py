"""Models that are in no rack: a GGUF file by its path or address, looked at but never served."""

from __future__ import annotations

import re
from pathlib import Path

from labctl.domain.problem import LabctlError
from labctl.inventory import Model

_ID = re.compile(r"[^A-Za-z0-9._:-]+")
_UNPINNED = "0" * 64  # nothing is fetched, so nothing has to be pinned


def model(where: str) -> Model:
    """Return the model of a file on this machine or behind an address.

    Raises:
        LabctlError: it is neither.
    """
    name = where.partition("?")[0].rstrip("/").rpartition("/")[2]
    identity = _ID.sub("-", name.removesuffix(".gguf")).strip("-.:") or "model"
    if where.startswith(("https://", "http://")):
        return Model(id=identity, source=where, sha256=_UNPINNED)
    path = Path(where).expanduser().absolute()
    if not path.is_file():
        raise LabctlError(f"there is no file {where}", hint="name a GGUF file, or a model of the rack")
    return Model(id=identity, source=str(path))
