"""``gate``: look whether everything works after a wake or boot, and say what is broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .host import ROOT


def passed(root: Path = ROOT) -> dict[str, Any]:
    """Return what is broken, and what was seen in passing."""
    return {"broken": ["the gate is not built yet"], "notes": []}
