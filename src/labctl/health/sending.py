"""Sending what waits: each courier's letter, once as far as that can be known.

Before this begins, the letters were sealed and written down. One that was sealed before this run may have
arrived (the run that sealed it died): its courier is asked, and where it cannot tell the letter is sent
again, marked so. After each try what became of it is written down.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from labctl.domain.health import outbox
from labctl.domain.health.flaps import News
from labctl.domain.health.outbox import Box, Line
from labctl.domain.health.terms import Level
from labctl.domain.health.wording import level_of, line_of, text_of, title_of
from labctl.ports.letters import Courier, CourierError, Letter

BUDGET_S = 60.0
"""After so long no further letter is begun; it waits for the next run."""


@dataclass(frozen=True, slots=True)
class Way:
    """A courier, and from which level on it is used."""

    courier: Courier
    least: Literal["warn", "crit"] = "warn"

    def tells(self, news: News) -> bool:
        """Return whether this way tells a piece of news: also the end of what it told."""
        return self.least == "warn" or Level.CRIT in (news.before, news.result.level)


@dataclass(frozen=True, slots=True)
class Sending:
    """What sending needs beside the letters: the rack's name, the time, and where to note and to say."""

    rack: str
    wall: Callable[[], float]
    save: Callable[[Mapping[str, Box]], None]
    warn: Callable[[str], None]


def filled(boxes: Mapping[str, Box], ways: Mapping[str, Way], news: tuple[News, ...]) -> dict[str, Box]:
    """Return each way's box with the news that it tells; boxes of ways that are no more are gone."""
    lines = [(one, line_of(one)) for one in news]
    return {
        name: outbox.add(
            boxes.get(name, Box()),
            # That a way is dead is for the others to tell.
            [line for one, line in lines if way.tells(one) and one.result.key != ("notify", "", name)],
        )
        for name, way in ways.items()
    }


def sealed(boxes: Mapping[str, Box], now: float) -> dict[str, Box]:
    """Return the boxes with a letter under way wherever a try is due."""
    return {
        name: outbox.seal(box, number_of(name, box)) if outbox.due(box, now) else box
        for name, box in boxes.items()
    }


def number_of(name: str, box: Box) -> str:
    """Return the id of the letter that a way's box makes: the same for the same lines, and else another."""
    parts = [name, str(box.more)]
    parts += [f"{one.key} {one.kind} {one.level} {one.at:.3f}" for one in box.waiting]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def deliver(
    boxes: Mapping[str, Box], ways: Mapping[str, Way], doubtful: frozenset[str], sending: Sending
) -> dict[str, Box]:
    """Send what is due, and return the boxes after it.

    Args:
        boxes: as they were written down.
        ways: by name.
        doubtful: the ids of letters that were sealed before this run.
        sending: the rest.
    """
    after = dict(boxes)
    began = sending.wall()
    for name, way in ways.items():
        box = after[name]
        now = sending.wall()
        if box.sealed is None or not outbox.due(box, now) or not 0 <= now - began < BUDGET_S:
            continue
        after[name] = _try(name, box, way, sending, again=box.sealed.id in doubtful)
        sending.save(after)
    return after


def _try(name: str, box: Box, way: Way, sending: Sending, *, again: bool) -> Box:
    assert box.sealed is not None
    lines, more = box.sealed.lines, box.sealed.more
    letter = letter_of(sending.rack, box.sealed.id, lines, more, again=again)
    try:
        if again and way.courier.has(letter.id):
            return outbox.delivered(box)
        way.courier.send(letter)
    except CourierError as error:
        why, certain = error.reason, error.certain
    except Exception as error:
        # The other ways still have to tell; its words may hold an address, so its kind has to do.
        why, certain = f"it failed by itself ({type(error).__name__}), which is a bug of labctl's", False
    else:
        if box.tries:
            sending.warn(f"{name}: letters arrive again")
        return outbox.delivered(box)
    failed = outbox.failed(box, why, sending.wall(), certain=certain)
    if failed.tries == 1:
        sending.warn(f"{name}: {why}; it is tried again")
    return failed


def letter_of(rack: str, number: str, lines: tuple[Line, ...], more: int, *, again: bool) -> Letter:
    """Return a letter that tells those lines."""
    level = level_of(lines)
    text = text_of(lines, more, again=again)
    return Letter(number, title_of(rack, lines), text, level, well=not level, again=again)
