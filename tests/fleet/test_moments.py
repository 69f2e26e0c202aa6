"""Times as people type them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from labctl.domain.problem import LabctlError
from labctl.fleet.moments import until

NOW = datetime(2026, 3, 28, 14, 30, 20, tzinfo=UTC)  # the day before summer time comes to Berlin


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 5400), ("2h", 7200), ("1d12h", 129_600), ("1h30m15s", 5415), ("45s", 45), (" 2h ", 7200)],
)
def test_a_span_counts_from_now(text: str, seconds: int) -> None:
    assert until(text, NOW) - NOW == timedelta(seconds=seconds)


@pytest.mark.usefixtures("in_berlin")
@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("18:00", "2026-03-28T17:00:00+00:00"),
        ("15:31", "2026-03-28T14:31:00+00:00"),
        # One that is past today, or now, is tomorrow's; and tomorrow's clock is an hour ahead.
        ("15:30", "2026-03-29T13:30:00+00:00"),
        ("7:00", "2026-03-29T05:00:00+00:00"),
        ("2026-03-29T18:00", "2026-03-29T16:00:00+00:00"),
        ("2026-03-29 18:00", "2026-03-29T16:00:00+00:00"),
        ("2026-03-29T18:00+09:00", "2026-03-29T09:00:00+00:00"),
        ("2026-03-29T18:00Z", "2026-03-29T18:00:00+00:00"),
    ],
)
def test_a_clock_or_a_date_means_what_it_shows_here(text: str, moment: str) -> None:
    assert until(text, NOW) == datetime.fromisoformat(moment)


@pytest.mark.usefixtures("in_berlin")
@pytest.mark.parametrize(
    ("now", "moment"),
    [
        ("2026-10-24T23:00:00+00:00", "2026-10-25T00:30:00+00:00"),
        ("2026-10-25T00:45:00+00:00", "2026-10-25T01:30:00+00:00"),
        ("2026-10-25T01:45:00+00:00", "2026-10-26T01:30:00+00:00"),
        ("2026-03-28T23:00:00+00:00", "2026-03-29T01:30:00+00:00"),  # it never is 2:30 on that day
    ],
)
def test_a_clock_that_shows_the_same_twice_or_never_is_taken_at_its_next_word(now: str, moment: str) -> None:
    assert until("2:30", datetime.fromisoformat(now)) == datetime.fromisoformat(moment)


@pytest.mark.parametrize(
    "text",
    ["", " ", "soon", "2", "25:00", "12:60", "-2h", "2h-", "h", "2026-03-29", "1e3h", "٢h", "0m",
     "2020-01-01T00:00", "367d", "99999999999h", "9999-12-31T23:59"],
)  # fmt: skip
def test_what_is_no_moment_to_come_is_refused(text: str) -> None:
    with pytest.raises(LabctlError) as caught:
        until(text, NOW)
    assert "--until" in str(caught.value)


def test_the_edge_of_the_calendar_does_not_break_it() -> None:
    for text in ("0001-01-01T00:00", "9999-12-31T23:59:59", "9999d9999h99999m999999s"):
        with pytest.raises(LabctlError):
            until(text, NOW)
