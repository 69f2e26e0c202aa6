"""When each host slept and woke: the controller's log as spans of modes over the last day.

The log has a line for each change, ``ready -> draining: because``. What was before the oldest line that is
known is left empty, and never guessed. Should a line be missing, the mode that the next one names as the
earlier one is believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from labctl.domain.sleep.lifecycle import Mode
from labctl.web.metrics.reading import number, text

SPAN_S = 24 * 3600.0
_CHANGE = re.compile(r"([a-z]+) -> ([a-z]+):")
KINDS: Mapping[str, str] = {
    Mode.READY: "awake",
    Mode.DRAINING: "awake",
    Mode.SUSPENDING: "changing",
    Mode.WAKING: "changing",
    Mode.VERIFYING: "changing",
    Mode.ASLEEP: "asleep",
    Mode.FAILED: "failed",
}
"""What a mode is on the page; every other is ``unknown``."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which a host was of one kind, from ``begin`` to ``end``, in seconds since 1970."""

    kind: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Line:
    """A host's day, the oldest first."""

    host: str
    stretches: tuple[Stretch, ...]

    @property
    def asleep_s(self) -> float:
        """Return how long it slept."""
        return sum(one.end - one.begin for one in self.stretches if one.kind == "asleep")


def line(host: Mapping[str, Any], events: Iterable[Mapping[str, Any]], now: float) -> Line:
    """Return the last day of a host, by its status and the log, oldest line first."""
    name = text(host.get("host"))
    begin = now - SPAN_S
    changes = [
        (at, found[1], found[2])
        for one in events
        if one.get("host") == name and one.get("kind") == "mode"
        if (at := number(one.get("at"))) is not None and (found := _CHANGE.match(text(one.get("text"))))
    ]
    stretches: list[Stretch] = []
    end, mode = now, text(host.get("mode"))
    for at, before, after in reversed(changes):
        if at >= end:
            continue  # the clock was set back meanwhile
        stretches.append(Stretch(KINDS.get(after, "unknown"), max(begin, at), end))
        end, mode = at, before
        if at <= begin:
            break
    since = number(host.get("since"))
    if not changes and since is not None and since < now:
        stretches.append(Stretch(KINDS.get(mode, "unknown"), max(begin, since), now))
    return Line(name, tuple(_joined(reversed(stretches))))


def _joined(stretches: Iterable[Stretch]) -> list[Stretch]:
    found: list[Stretch] = []
    for one in stretches:
        if found and found[-1].kind == one.kind and found[-1].end == one.begin:
            found[-1] = Stretch(one.kind, found[-1].begin, one.end)
        else:
            found.append(one)
    return found
