"""News in words: a line for each, and a letter of several.

Words of hosts come in here, so lines are cut, and control characters are left out: what a host says must
neither forge another line nor reach a terminal as an order to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from .flaps import Kind, News
from .outbox import Line
from .terms import Level, Result

LONGEST = 400
_MARKS = {Level.OK: "OK", Level.WARN: "WARN", Level.CRIT: "CRIT", Level.UNKNOWN: "UNKNOWN"}


def one_line(text: str, longest: int = LONGEST) -> str:
    """Return a text in one line of bounded length, without what is not printable."""
    words = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return words if len(words) <= longest else f"{words[: longest - 1]}…"


def about(result: Result) -> str:
    """Return what a result is about: rig gpu-present slot0."""
    return one_line(" ".join(part for part in (result.host, result.code, result.subject) if part))


def lasting(seconds: float) -> str:
    """Return how long something lasted, in its two greatest units."""
    minutes = max(0, int(seconds // 60))
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min"


def line_of(news: News) -> Line:
    """Return a piece of news as the line that people read."""
    result, was = news.result, _MARKS[news.before]
    now = _MARKS[result.level]
    for_long = lasting(news.at - news.since)
    opening = {
        Kind.BEGAN: now,
        Kind.WORSE: f"{now} (was {was})",
        Kind.BETTER: f"{now} (was {was})",
        Kind.OVER: f"OK (was {was} for {for_long})",
        Kind.STILL: f"{now} (for {for_long})",
        Kind.FLAPPING: f"{now}, changing back and forth; no more of it until it keeps still",
        Kind.SETTLED: f"{now}, and it keeps still again",
    }[news.kind]
    what = f"{opening}: {about(result)}"
    if result.reason and news.kind is not Kind.OVER:
        what = f"{what}: {one_line(result.reason)}"
    if result.cure and result.level:
        what = f"{what} -> {one_line(result.cure)}"
    return Line(result.key, news.kind, result.level, what, news.at)


def level_of(lines: Sequence[Line]) -> Level:
    """Return the gravest level that lines tell of."""
    return max((one.level for one in lines), key=lambda level: level.gravity, default=Level.OK)


def title_of(rack: str, lines: Sequence[Line]) -> str:
    """Return the title of a letter: how many of what, or the one thing that it tells."""
    if len(lines) == 1:
        return one_line(f"{rack}: {lines[0].text}", 120)
    counts = [
        f"{number} {_MARKS[level]}"
        for level in (Level.CRIT, Level.WARN, Level.UNKNOWN, Level.OK)
        if (number := sum(line.level is level for line in lines))
    ]
    return one_line(f"{rack}: {', '.join(counts)}", 120)


def text_of(lines: Sequence[Line], more: int, *, again: bool) -> str:
    """Return the text of a letter, the gravest first; ``more`` lines were left out."""
    ordered = sorted(lines, key=lambda line: (-line.level.gravity, line.at, line.key))
    rest = [f"... and {more} more; labctl health shows all"] if more else []
    if again:
        rest.append("(This may have reached you before.)")
    return "\n".join([line.text for line in ordered] + rest)
