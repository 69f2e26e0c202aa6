"""The last look before a sleep: everything that counts as use, seen on the host itself.

The controller's picture is seconds old and knows no terminals; this one is as old as the answer. What cannot
be read counts as use. Our own sessions, and the controller's watch, are of a user that only the controller's
key opens, so they are no use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import host
from .sections import gather

_DEADLINE_S = 15.0


class Reading(NamedTuple):
    """One signal: busy, quiet, or (None) not readable."""

    signal: str
    busy: bool | None
    because: str


def looked(config: Mapping[str, Any], root: Path, names: tuple[str, ...] | None = None) -> list[Reading]:
    """Return what every signal of this host's configuration says now, or only those of some names."""
    values, findings = gather({"sessions": host.sessions}, _DEADLINE_S)
    if findings:
        return [Reading("sessions", None, findings["sessions"]["what"])]
    people = values["sessions"]["people"]
    return [Reading("sessions", bool(people), f"{people} people are logged in")]


def busy_because(readings: Iterable[Reading]) -> str | None:
    """Return why the host is in use, None where every signal is quiet; no signal at all is no quiet."""
    seen = list(readings)
    if not seen:
        return "no signal was read"
    said = [
        one.because if one.busy else f"{one.signal} cannot be read: {one.because}"
        for one in seen
        if one.busy is not False
    ]
    return "; ".join(said) or None
