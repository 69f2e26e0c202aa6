"""Times of the week: whether one is on, when it began, and when the next begins.

A window is said in the rack's own time, so it follows summer time: "8-18" begins when the clock on the wall
says 8, on every day. One that runs past midnight belongs to the day on which it begins. A time that the clock
skips in spring is the moment of the skip. Of one that it shows twice in autumn, a window begins at the first
and ends at the last. Windows that touch or overlap count as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from labctl.domain.sleep.terms import Window

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# A window comes once in eight days at the latest, also when one of them is cut out by summer time.
_BACK, _AHEAD = 8, 9


@dataclass(frozen=True, slots=True)
class Span:
    """A window at one time, in wall seconds since 1970; ``text`` is how a person writes it."""

    start: float
    end: float
    text: str


def current(windows: Sequence[Window], zone: str, wall: float) -> Span | None:
    """Return the window that is on at a wall time, and None when none is.

    Raises:
        zoneinfo.ZoneInfoNotFoundError: there is no such zone.
    """
    return next((span for span in _spans(windows, zone, wall) if span.start <= wall < span.end), None)


def upcoming(windows: Sequence[Window], zone: str, wall: float) -> Span | None:
    """Return the next window that begins after a wall time; None when none does, since one is always on.

    Raises:
        zoneinfo.ZoneInfoNotFoundError: there is no such zone.
    """
    return next((span for span in _spans(windows, zone, wall) if span.start > wall), None)


def text_of(window: Window) -> str:
    """Return a window as it is written: "mon-fri 8-18", "sat,sun 22:30-7", "22-7"."""
    hours = f"{_clock(window.start)}-{_clock(window.end)}"
    days = sorted(window.days)
    if len(days) == len(_DAYS):
        return hours
    if len(days) > 2 and days == list(range(days[0], days[-1] + 1)):
        return f"{_DAYS[days[0]]}-{_DAYS[days[-1]]} {hours}"
    return f"{','.join(_DAYS[day] for day in days)} {hours}"


def local_text(wall: float, zone: str) -> str:
    """Return a wall time as the rack's own clock shows it: "mon 08:00".

    Raises:
        zoneinfo.ZoneInfoNotFoundError: there is no such zone.
    """
    at = datetime.fromtimestamp(wall, ZoneInfo(zone))
    return f"{_DAYS[at.weekday()]} {at:%H:%M}"


def _clock(minutes: int) -> str:
    hours, rest = divmod(minutes, 60)
    return f"{hours}:{rest:02}" if rest else str(hours)


def _spans(windows: Sequence[Window], zone: str, wall: float) -> Iterator[Span]:
    """Yield the spans around a wall time, the earliest first, those that touch as one."""
    if not windows:
        return
    place = ZoneInfo(zone)
    today = datetime.fromtimestamp(wall, place).date()
    days = [today + timedelta(days=step) for step in range(-_BACK, _AHEAD)]
    found = [_span(window, day, place) for window in windows for day in days if day.weekday() in window.days]
    last: Span | None = None
    for span in sorted(found, key=lambda span: (span.start, span.end)):
        if span.start >= span.end:
            continue  # all of it lies in the hour that is skipped
        if last is None or span.start > last.end:
            if last is not None:
                yield last
            last = span
        elif span.end > last.end:
            text = last.text if span.text in last.text else f"{last.text} and {span.text}"
            last = Span(last.start, span.end, text)
    if last is not None:
        yield last


def _span(window: Window, day: date, zone: ZoneInfo) -> Span:
    until = day if window.end > window.start else day + timedelta(days=1)
    return Span(
        _instant(day, window.start, zone, last=False),
        _instant(until, window.end, zone, last=True),
        text_of(window),
    )


def _instant(day: date, minutes: int, zone: ZoneInfo, *, last: bool) -> float:
    """Return when the clock on the wall shows so many minutes of a day, for the last time or the first."""
    there = datetime.combine(day, time(), zone) + timedelta(minutes=minutes)
    at = there.replace(fold=int(last)).timestamp()
    if datetime.fromtimestamp(at, zone).replace(tzinfo=None) == there.replace(tzinfo=None):
        return at
    # The clock never shows it. Read by the offset after the skip it lies before the skip, and the other way.
    low, high = there.replace(fold=1).timestamp(), there.replace(fold=0).timestamp()
    before = _offset(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(middle, zone) == before else (low, middle)
    return high


def _offset(wall: float, zone: ZoneInfo) -> timedelta | None:
    return datetime.fromtimestamp(wall, UTC).astimezone(zone).utcoffset()
