"""Measurements kept on this machine: one JSON file, written whole.

A file that cannot be read costs the corrections and nothing else: estimates go on without them.
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
        return {str(key): Measured(**one) for key, one in document["measured"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


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
