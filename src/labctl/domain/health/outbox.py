"""What is still to be told, by one courier: nothing is lost, little is repeated, and it never grows.

Lines that wait are joined into one letter. A letter is *sealed* with an id before it is sent, and that is
written down; so whoever comes after a crash knows that it may have been sent, and its receiver can tell a
second copy by the id. A letter that certainly did not arrive is opened again, and its lines wait with those
that came meanwhile: a courier that was dead for a day brings one letter, not three hundred. Of one thing only
the newest line is kept, and never more than ``MOST`` lines; how many are missing is told.

Between tries lie 1, 2, 4 ... minutes, at most ``LONGEST_S``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from .flaps import Key, Kind
from .terms import Level

MOST = 100
FIRST_S = 60.0
LONGEST_S = 3600.0


@dataclass(frozen=True, slots=True)
class Line:
    """One piece of news in words; ``at`` is when it became news (wall)."""

    key: Key
    kind: Kind
    level: Level
    text: str
    at: float


@dataclass(frozen=True, slots=True)
class Sealed:
    """A letter under way: its id does not change, nor do its lines."""

    id: str
    lines: tuple[Line, ...]
    more: int = 0


@dataclass(frozen=True, slots=True)
class Box:
    """What one courier still has to bring.

    A letter that is ``sealed`` when a run begins may have arrived: the run before sealed it to send it.
    ``more``: how many lines were left out; ``tries`` have failed in a row since ``failing_since`` (wall), and
    the next may be made at ``next_at``.
    """

    sealed: Sealed | None = None
    waiting: tuple[Line, ...] = ()
    more: int = 0
    tries: int = 0
    next_at: float = 0.0
    failing_since: float = 0.0
    why: str = ""

    @property
    def empty(self) -> bool:
        """Return whether there is nothing to bring."""
        return self.sealed is None and not self.waiting


def add(box: Box, lines: Iterable[Line]) -> Box:
    """Return the box with more lines that wait."""
    newest = {one.key: one for one in box.waiting}
    for one in lines:
        newest.pop(one.key, None)
        newest[one.key] = one
    kept = sorted(newest.values(), key=lambda one: (one.kind is Kind.STILL, -one.level.gravity, -one.at))[
        :MOST
    ]
    waiting = tuple(sorted(kept, key=lambda one: (one.at, one.key)))
    return replace(box, waiting=waiting, more=box.more + len(newest) - len(kept))


def due(box: Box, now: float) -> bool:
    """Return whether a try is to be made now; a clock that went back does not keep it for long."""
    return not box.empty and not now < box.next_at <= now + LONGEST_S


def seal(box: Box, number: str) -> Box:
    """Return the box with a letter under way that has that id, if anything waits and none is."""
    if box.sealed is not None or not box.waiting:
        return box
    return replace(box, sealed=Sealed(number, box.waiting, box.more), waiting=(), more=0)


def delivered(box: Box) -> Box:
    """Return the box after its letter arrived."""
    return replace(box, sealed=None, tries=0, next_at=0.0, failing_since=0.0, why="")


def failed(box: Box, why: str, now: float, *, certain: bool) -> Box:
    """Return the box after a try; where it is ``certain`` that nothing arrived, the letter is opened."""
    tries = box.tries + 1
    pause = min(LONGEST_S, FIRST_S * 2.0 ** min(tries - 1, 20))
    since = box.failing_since or now
    after = replace(box, tries=tries, next_at=now + pause, failing_since=since, why=why)
    if not certain or box.sealed is None:
        return after
    opened = replace(after, sealed=None, waiting=box.sealed.lines, more=box.sealed.more + box.more)
    return add(opened, box.waiting)
