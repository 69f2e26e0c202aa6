"""The last look before a sleep: everything that counts as use, seen on the host itself.

The controller's picture is seconds old and knows no terminals; this one is as old as the answer. What cannot
be read counts as use. Our own sessions, and the controller's watch, are of a user that only the controller's
key opens, so they are no use.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from . import looking
from .config import Settings
from .signals.people import Inhibitors
from .signals.terms import Reading, Unreadable, this_host


def looked(config: Settings, root: Path, names: tuple[str, ...] | None = None) -> list[Reading]:
    """Return what every signal of this host's configuration says now, or only those of some names."""
    return looking.readings(root, config, names)


def locked_because(root: Path) -> str | None:
    """Return who else blocks sleep, None where nobody does.

    Asked even where use is to be disregarded, and of ourselves: logind, asked by root, passes over root's own
    locks before systemd 257, and backups run as root.
    """
    try:
        found = Inhibitors(this_host(root)).look()
    except Unreadable as error:
        return f"who blocks sleep cannot be read: {error}"
    return found.because if found.busy else None


def busy_because(readings: Iterable[Reading]) -> str | None:
    """Return why the host is in use, None where every signal is quiet."""
    said = [
        one.because if one.busy else f"{one.signal} cannot be read: {one.because}"
        for one in readings
        if one.busy is not False
    ]
    return "; ".join(said) or None
