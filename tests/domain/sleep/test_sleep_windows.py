"""Times of the week, above all those on which the clock on the wall is changed."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from labctl.domain.sleep import windows
from labctl.domain.sleep.terms import Window
from labctl.inventory.idle import window_parts

BERLIN, NEW_YORK, UTC = "Europe/Berlin", "America/New_York", "Etc/UTC"


def _window(text: str) -> Window:
    return Window(*window_parts(text))


def _at(text: str, zone: str = BERLIN, *, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def _utc(text: str) -> float:
    return _at(text, UTC)


ON: list[tuple[str, str, str, bool]] = [
    # 2026-09-21 is a Monday
    ("mon-fri 8-18", "2026-09-21 07:59:59", BERLIN, False),
    ("mon-fri 8-18", "2026-09-21 08:00", BERLIN, True),
    ("mon-fri 8-18", "2026-09-21 17:59:59", BERLIN, True),
    ("mon-fri 8-18", "2026-09-21 18:00", BERLIN, False),
    ("mon-fri 8-18", "2026-09-26 12:00", BERLIN, False),
    ("22-7", "2026-09-21 23:30", BERLIN, True),
    ("22-7", "2026-09-22 06:59", BERLIN, True),
    ("22-7", "2026-09-22 07:00", BERLIN, False),
    ("fri 22-7", "2026-09-25 23:00", BERLIN, True),
    ("fri 22-7", "2026-09-26 06:00", BERLIN, True),  # it is Saturday, and still Friday's
    ("fri 22-7", "2026-09-25 06:00", BERLIN, False),  # Thursday's night is none
    ("sun 22-7", "2026-09-21 03:00", BERLIN, True),
    ("sat-mon 10:30-11", "2026-09-20 10:45", BERLIN, True),
    ("0-24", "2026-09-20 00:00", BERLIN, True),
    ("sat 0-24", "2026-09-26 23:59:59", BERLIN, True),
    ("sat 0-24", "2026-09-27 00:00", BERLIN, False),
    ("mon-fri 8-18", "2026-09-21 08:00", NEW_YORK, True),
]


@pytest.mark.parametrize(("text", "at", "zone", "on"), ON)
def test_a_window_is_on_from_its_first_minute_to_before_its_last(
    text: str, at: str, zone: str, on: bool
) -> None:
    assert (windows.current([_window(text)], zone, _at(at, zone)) is not None) is on


# In Berlin the clock goes from 2:00 to 3:00 on 2027-03-28, and from 3:00 back to 2:00 on 2026-10-25, both at
# 1:00 UTC. In New York it goes from 2:00 to 3:00 on 2027-03-14 (7:00 UTC).
CHANGES: list[tuple[str, str, str, str, str]] = [
    # window, zone, any time before it that day, its start and its end in UTC
    ("sun 8-18", BERLIN, "2027-03-28 00:00", "2027-03-28 06:00", "2027-03-28 16:00"),
    ("sun 8-18", BERLIN, "2027-03-21 00:00", "2027-03-21 07:00", "2027-03-21 17:00"),
    ("sat 22-7", BERLIN, "2027-03-27 12:00", "2027-03-27 21:00", "2027-03-28 05:00"),  # one hour shorter
    ("sat 22-7", BERLIN, "2026-10-24 12:00", "2026-10-24 20:00", "2026-10-25 06:00"),  # one hour longer
    ("sun 2:30-5", BERLIN, "2027-03-28 00:00", "2027-03-28 01:00", "2027-03-28 03:00"),  # 2:30 is skipped
    ("sun 1-2:30", BERLIN, "2027-03-28 00:00", "2027-03-28 00:00", "2027-03-28 01:00"),
    ("sun 2:15-3:15", BERLIN, "2027-03-28 00:00", "2027-03-28 01:00", "2027-03-28 01:15"),
    ("sun 2:30-4", BERLIN, "2026-10-25 00:00", "2026-10-25 00:30", "2026-10-25 03:00"),  # 2:30 comes twice
    ("sun 1-2:30", BERLIN, "2026-10-25 00:00", "2026-10-24 23:00", "2026-10-25 01:30"),
    ("sun 2:10-2:20", BERLIN, "2026-10-25 00:00", "2026-10-25 00:10", "2026-10-25 01:20"),
    ("sun 2:30-9", NEW_YORK, "2027-03-14 00:00", "2027-03-14 07:00", "2027-03-14 13:00"),
    ("0-24", BERLIN, "2027-03-20 00:00", "", ""),  # always on: none begins
]


@pytest.mark.parametrize(("text", "zone", "before", "start", "end"), CHANGES)
def test_windows_follow_the_clock_on_the_wall(
    text: str, zone: str, before: str, start: str, end: str
) -> None:
    span = windows.upcoming([_window(text)], zone, _at(before, zone) - 1)
    if not start:
        assert span is None
        return
    assert span is not None
    assert (span.start, span.end) == (_utc(start), _utc(end))


def test_a_window_that_is_skipped_as_a_whole_comes_a_week_later() -> None:
    span = windows.upcoming([_window("sun 2:10-2:50")], BERLIN, _at("2027-03-27 12:00"))
    assert span is not None
    assert span.start == _utc("2027-04-04 00:10")


def test_an_hour_that_comes_twice_is_on_both_times() -> None:
    window = [_window("sun 2:10-2:20")]
    times = ("2026-10-25 00:15", "2026-10-25 01:15")
    assert all(windows.current(window, BERLIN, _utc(at)) is not None for at in times)


def test_windows_that_touch_count_as_one() -> None:
    found = windows.current([_window("mon 8-12"), _window("mon 12-18")], BERLIN, _at("2026-09-21 12:30"))
    assert found == windows.Span(_at("2026-09-21 08:00"), _at("2026-09-21 18:00"), "mon 8-12 and mon 12-18")


def test_every_minute_of_a_year_is_on_or_off_as_the_wall_says() -> None:
    zone, window = ZoneInfo(BERLIN), _window("mon-fri 7:30-18:15")
    for minute in range(0, 366 * 1440, 397):
        wall = _at("2026-09-01 00:00") + 60 * minute
        there = datetime.fromtimestamp(wall, zone)
        on = there.weekday() < 5 and 450 <= there.hour * 60 + there.minute < 1095
        assert (windows.current([window], BERLIN, wall) is not None) is on, there


def test_the_next_one_may_be_a_week_away() -> None:
    span = windows.upcoming([_window("mon 8-9")], BERLIN, _at("2026-09-21 08:00"))
    assert span is not None
    assert span.start == _at("2026-09-28 08:00")


def test_no_windows_are_never_on() -> None:
    assert windows.current([], BERLIN, 0.0) is None
    assert windows.upcoming([], BERLIN, 0.0) is None


TEXTS = {
    "mon-fri 8-18": "mon-fri 8-18",
    "22-7": "22-7",
    "sat 10:30-23": "sat 10:30-23",
    "sun-mon 1-2": "mon,sun 1-2",
}


@pytest.mark.parametrize(("written", "said"), TEXTS.items())
def test_a_window_is_said_as_it_is_written(written: str, said: str) -> None:
    assert windows.text_of(_window(written)) == said
