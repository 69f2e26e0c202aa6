"""Measurements kept on this machine: one JSON file, written whole.

A file that cannot be read costs the corrections and nothing else: estimates go on without them. So does an
entry that is none.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from labctl.domain.fit.measured import Measured

FORMAT = 1
NAME = "measured.json"


def load(folder: Path) -> dict[str, Measured]:
    """Return what was measured, by the key of model, build and use."""
    try:
        document = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            return {}
        every = {str(key): Measured(**one) for key, one in document["measured"].items() if _sound(one)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return every


def _sound(one: dict[str, object]) -> bool:
    """Return whether an entry holds what measurements hold: sizes are whole and not below nothing."""
    shares = one["shares"]
    sizes = (
        [size for parts in shares.values() for size in parts.values()] if isinstance(shares, dict) else [-1]
    )
    words = (one["when"], one["host"], one["model"])
    load_s, loaded = one.get("load_s"), one.get("loaded_bytes")
    return (
        all(isinstance(word, str) for word in words)
        and all(isinstance(size, int) and size >= 0 for size in sizes)
        and (load_s is None or (isinstance(load_s, int | float) and load_s >= 0))
        and (loaded is None or (isinstance(loaded, int) and loaded >= 0))
    )


def save(folder: Path, found: Mapping[str, Measured]) -> None:
    """Add measurements to those that are kept; the newest of a key counts. Raises ``OSError``."""
    every = {**load(folder), **found}
    document = {"format": FORMAT, "measured": {key: asdict(one) for key, one in sorted(every.items())}}
    descriptor, name = tempfile.mkstemp(prefix=f".{NAME}-", dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(folder / NAME)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
