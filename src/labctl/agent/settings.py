"""What the rack file says of this host, for who acts by it: that there is a file, and that it is believed.

Who only looks may go by defaults where the file is missing (``config``); who stops engines, sets alarms and
sleeps may not.
"""

from __future__ import annotations

from pathlib import Path

from . import config
from .config import Engine, Settings
from .host import ROOT


class Unsaid(Exception):
    """The file is not there or cannot be believed, so nobody knows what this host may do."""


def settings(root: Path = ROOT) -> Settings:
    """Return what the file says.

    Raises:
        Unsaid: it cannot be believed.
    """
    found = config.read(root)
    if found.trouble:
        raise Unsaid(found.trouble)
    if not found.written:
        raise Unsaid(f"there is no /{config.PATH}: run labctl apply")
    return found


def engines(found: Settings) -> tuple[Engine, ...]:
    """Return the engines in the order in which they start; they stop in the reverse."""
    return tuple(sorted(found.engines, key=lambda one: one.order))
