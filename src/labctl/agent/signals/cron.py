"""When cron will run something: its tables, read as cron reads them.

A line of a table is five fields and a command, or ``@daily`` and the like; the system's tables name a user in
between. A field is a list of values, ranges and steps; months and days also have names. Where both days are
restricted, either is enough, as crontab(5) says. ``@reboot`` is no time. A line that is neither is an error
of the table, and what it meant nobody knows; but cron itself runs nothing of it, so it is passed over.

Left out are lines which do nothing: those that step back where systemd runs (Debian writes them so), and
``run-parts`` over a folder in which nothing can be run.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SETTING = re.compile(r"""\s*["']?[A-Za-z_][A-Za-z0-9_]*["']?\s*=""")
_FOR_SYSTEMD = re.compile(
    r"\s*(?:test\s+(?:-e|-d)\s+/run/systemd/system|\[\s+(?:-e|-d)\s+/run/systemd/system\s+\])\s*\|\|"
)
_RUN_PARTS = re.compile(r"\brun-parts\s+(?:--\S+\s+)*(/\S+?)\s*[;}]?\s*\}?\s*$")
_FIELDS = ((0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, _MONTHS), (0, 7, _DAYS))


class Times(NamedTuple):
    """The moments at which a line runs; ``either`` says that one of the two days is enough."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    def at(self, moment: datetime.datetime) -> bool:
        """Return whether it runs in that minute."""
        day = moment.day in self.days
        weekday = moment.isoweekday() % 7 in self.weekdays
        return (
            moment.minute in self.minutes
            and moment.hour in self.hours
            and moment.month in self.months
            and ((day or weekday) if self.either else (day and weekday))
        )


class Job(NamedTuple):
    """A line of a table: where it stands, and its five fields (no command, which may hold a secret)."""

    source: str
    fields: str


def jobs(table: str, source: str, *, has_user: bool, root: Path) -> list[Job]:
    """Return the lines of a table that run something.

    Args:
        table: its text.
        source: what to call it.
        has_user: it is one of the system's, whose lines name a user.
        root: where the host's files begin; folders of scripts are looked into.
    """
    found = []
    for line in table.splitlines():
        text = line.strip()
        if not text or text.startswith("#") or _SETTING.match(text):
            continue
        count = 1 if text.startswith("@") else 5
        words = text.split(None, count + has_user)
        fields = " ".join(words[:count]).lower()
        if len(words) <= count + has_user or times_of(fields) is None:
            continue
        if not _does_nothing(words[-1], root):
            found.append(Job(source, fields))
    return found


def times_of(fields: str) -> Times | None:
    """Return the moments that five fields (or a name such as ``@daily``) mean, or None for none."""
    words = _NAMED.get(fields.lower(), fields).split()
    if len(words) != 5:
        return None
    try:
        sets = [_values(word, *form) for word, form in zip(words, _FIELDS)]  # noqa: B905 (Python 3.9)
    except ValueError:
        return None
    weekdays = frozenset(day % 7 for day in sets[4])
    # crontab(5): a field is unrestricted if it begins with a star.
    either = not words[2].startswith("*") and not words[4].startswith("*")
    return Times(sets[0], sets[1], sets[2], sets[3], weekdays, either)


def next_due(given: Iterable[Job], now: datetime.datetime, within_s: float) -> tuple[Job, float] | None:
    """Return the first line that runs within ``within_s`` seconds, and in how many; None where none does.

    The minute that is going on counts, since what it started may not have begun yet.
    """
    wanted = [(job, times) for job in given if (times := times_of(job.fields)) is not None]
    minute = now.replace(second=0, microsecond=0)
    while wanted and (minute - now).total_seconds() <= within_s:
        for job, times in wanted:
            if times.at(minute):
                return job, max(0.0, (minute - now).total_seconds())
        minute += datetime.timedelta(minutes=1)
    return None


def _values(field: str, low: int, high: int, names: tuple[str, ...]) -> frozenset[int]:
    found: set[int] = set()
    for part in field.lower().split(","):
        span, stepped, step_text = part.partition("/")
        step = _number(step_text) if stepped else 1
        if span == "*":
            first, last = low, high
        else:
            first_text, ranged, last_text = span.partition("-")
            first = _value(first_text, low, names)
            last = _value(last_text, low, names) if ranged else (high if stepped else first)
        if step < 1 or not low <= first <= last <= high:
            raise ValueError(field)
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _value(text: str, low: int, names: tuple[str, ...]) -> int:
    return names.index(text) + low if text in names else _number(text)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)


def _does_nothing(command: str, root: Path) -> bool:
    if _FOR_SYSTEMD.match(command) and (root / "run/systemd/system").is_dir():
        return True
    parts = _RUN_PARTS.search(command)
    if parts is None:
        return False
    folder = root / parts[1].lstrip("/")
    try:
        scripts = list(folder.iterdir())
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return not any(not one.name.startswith(".") and os.access(one, os.X_OK) for one in scripts)
