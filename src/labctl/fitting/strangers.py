"""Models that are in no rack: a GGUF file by its path or address, looked at but never served."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from labctl.domain.problem import LabctlError
from labctl.inventory import Model

_ID = re.compile(r"[^A-Za-z0-9._:-]+")
_HINT = "name a GGUF file by its path or https:// address, or a model of the rack"
_MOST = 64
_UNPINNED = "0" * 64  # nothing is fetched, so nothing has to be pinned


def model(where: str) -> Model:
    """Return the model of a file on this machine or behind an address.

    Raises:
        LabctlError: it is neither.
    """
    name = where.partition("?")[0].rstrip("/").rpartition("/")[2]
    identity = _ID.sub("-", name.removesuffix(".gguf"))[:_MOST].strip("-.:") or "model"
    web = where.startswith(("https://", "http://"))
    if not web and not _is_file(path := _path(where)):
        raise LabctlError(f"there is no file {where}", hint=_HINT)
    if not name.endswith(".gguf"):
        raise LabctlError(f"{where.partition('?')[0]} is no GGUF file by its name", hint=_HINT)
    try:
        return (
            Model(id=identity, source=where, sha256=_UNPINNED)
            if web
            else Model(id=identity, source=str(path))
        )
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise LabctlError(f"the address of {identity} {reason}", hint=_HINT) from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long for any file
        return False


def _path(where: str) -> Path:
    try:
        return Path(where).expanduser().absolute()
    except RuntimeError:  # ~somebody, whom nobody knows
        return Path(where).absolute()
