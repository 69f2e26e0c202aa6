"""Write files into a folder that is also somebody else's, and never over what somebody else wrote.

Which files are ours, and what was in them, is kept beside them (``NOTE``). A file that is there and is not as
we left it belongs to a person: then nothing at all is written, unless they say so. Each file is replaced in
one step, and the note is written before them, so a run that was cut off is simply run again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from labctl.domain.problem import LabctlError, Problem

NOTE = ".labctl-files.json"


def write(folder: Path, files: Mapping[str, str], *, over: bool = False) -> tuple[str, ...]:
    """Write files by their place below ``folder``; return those that are new or changed.

    Args:
        folder: is made where it is missing.
        files: their texts.
        over: also replace files that somebody else wrote or changed.

    Raises:
        LabctlError: such files are there, or something cannot be read or written.
    """
    try:
        return _write(folder, files, over=over)
    except OSError as error:
        raise LabctlError(f"{error.filename or folder}: {error.strerror or error}") from None


def _write(folder: Path, files: Mapping[str, str], *, over: bool) -> tuple[str, ...]:
    ours, new = _noted(folder), {name: _sum(text.encode()) for name, text in files.items()}
    there = {name: _sum((folder / name).read_bytes()) for name in files if (folder / name).exists()}
    strange = [name for name, is_now in there.items() if is_now not in (new[name], *ours.get(name, ()))]
    if strange and not over:
        hint = "move it away, or write over it with --force"
        raise LabctlError([Problem(f"{folder / name} was not written by labctl", hint) for name in strange])
    changed = tuple(name for name in files if there.get(name) != new[name])
    folder.mkdir(parents=True, exist_ok=True)
    if changed:
        # Both what is there and what will be: whichever a cut leaves is ours.
        both = {name: [new[name], *([there[name]] if name in there else [])] for name in files}
        _replace(folder / NOTE, json.dumps({"files": both}, indent=2) + "\n")
    for name in changed:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _replace(folder / name, files[name])
    return changed


def _noted(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the sums of files that we wrote; a note that cannot be read vouches for none."""
    try:
        kept = json.loads((folder / NOTE).read_text())["files"]
        return {str(name): tuple(map(str, sums)) for name, sums in kept.items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new-{os.getpid()}")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
