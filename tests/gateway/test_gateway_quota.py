"""How much a key may still ask: rates that hold in every window, and wakes that are counted exactly."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.domain.gateway.quota import HOUR_S, MINUTE_S, full_after_one, wait_for_one, wait_for_wake

GAPS = st.lists(st.floats(0.0, 40.0, allow_nan=False), min_size=1, max_size=150)


def _granted(per_minute: int, at: list[float]) -> list[float]:
    every_s, full_at, granted = MINUTE_S / per_minute, 0.0, []
    for now in at:
        after = full_after_one(full_at, now, every_s)
        if not wait_for_one(after, now):
            full_at = after
            granted.append(now)
    return granted


def _times(gaps: list[float]) -> list[float]:
    now, times = 1000.0, []
    for gap in gaps:
        now += gap
        times.append(now)
    return times


def test_a_minutes_requests_may_come_at_once_and_not_one_more() -> None:
    assert len(_granted(10, [5.0] * 30)) == 10


def test_a_bucket_fills_again_evenly() -> None:
    at = [0.0] * 6 + [9.9, 10.0, 19.9, 20.0]
    assert _granted(6, at) == [0.0] * 6 + [10.0, 20.0]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 50), GAPS)
def test_no_window_has_more_than_its_share(per_minute: int, gaps: list[float]) -> None:
    granted = _granted(per_minute, _times(gaps))
    for first, begin in enumerate(granted):
        for last in range(first, len(granted)):
            window_s = granted[last] - begin
            assert last - first + 1 <= per_minute * (1 + window_s / MINUTE_S) + 1e-3


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 50), GAPS)
def test_whoever_waits_as_long_as_told_is_let_in(per_minute: int, gaps: list[float]) -> None:
    every_s, full_at = MINUTE_S / per_minute, 0.0
    for now in _times(gaps):
        after = full_after_one(full_at, now, every_s)
        wait_s = wait_for_one(after, now)
        if wait_s:
            assert 0 < wait_s <= every_s + 1e-6
            assert wait_for_one(full_after_one(full_at, now + wait_s, every_s), now + wait_s) == 0
        else:
            full_at = after


def test_refusals_spend_nothing() -> None:
    storm = [1.0] * 5 + [1.0 + n / 100 for n in range(1, 1000)]
    assert _granted(5, [*storm, 13.0]) == [1.0] * 5 + [13.0]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 6), st.lists(st.floats(0.0, 2000.0, allow_nan=False), min_size=1, max_size=60))
def test_no_hour_has_more_wakes_than_allowed_and_waiting_helps(per_hour: int, gaps: list[float]) -> None:
    woken: deque[float] = deque(maxlen=per_hour)
    granted = []
    for now in _times(gaps):
        wait_s = wait_for_wake(woken, now, per_hour)
        assert 0 <= wait_s <= HOUR_S + 1e-6
        if wait_s:
            assert wait_for_wake(woken, now + wait_s + 1e-6, per_hour) == 0
        else:
            woken.append(now)
            granted.append(now)
    for index, at in enumerate(granted):
        assert sum(at <= later < at + HOUR_S for later in granted[index:]) <= per_hour
