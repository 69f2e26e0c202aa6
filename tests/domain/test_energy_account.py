"""What it cost and what sleep saved: tables of tariffs, and accounts that can be checked by hand."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.domain.energy.account import Priced, Used, account
from labctl.domain.energy.tariff import HOURS, Price, Tariff, by_hour, mean, price_at, stretches
from labctl.domain.energy.terms import KEPT_S, Doing, Grain, SpentSum, Tokens, grain_for
from labctl.domain.sleep.terms import Window

HOUR_S = 3600.0
WEEKDAYS = frozenset(range(5))
ALL = frozenset(range(7))
NIGHTLY = Tariff(
    0.40,
    "EUR",
    (Price((Window(WEEKDAYS, 17 * 60, 20 * 60),), 0.50), Price((Window(ALL, 22 * 60, 6 * 60),), 0.20)),
)

PRICES = [
    ("a weekday at noon", 0, 12 * 60, 0.40),
    ("a weekday at five", 4, 17 * 60, 0.50),
    ("a weekday at eight, when the window is over", 4, 20 * 60, 0.40),
    ("a Saturday at five", 5, 17 * 60, 0.40),
    ("late in the evening", 2, 23 * 60, 0.20),
    ("past midnight, in the window of the day before", 3, 5 * 60 + 59, 0.20),
    ("six in the morning", 3, 6 * 60, 0.40),
]


@pytest.mark.parametrize(
    ("day", "minute", "expected"), [row[1:] for row in PRICES], ids=[p[0] for p in PRICES]
)
def test_what_a_kwh_costs(day: int, minute: int, expected: float) -> None:
    assert price_at(NIGHTLY, day, minute) == expected


def test_of_two_windows_that_fit_the_first_counts() -> None:
    both = Tariff(1.0, "EUR", (Price((Window(ALL, 0, 1440),), 2.0), Price((Window(ALL, 0, 720),), 3.0)))
    assert price_at(both, 0, 0) == 2.0


def test_a_window_of_one_day_that_runs_past_midnight_is_on_in_the_next_morning_alone() -> None:
    sunday = Tariff(1.0, "EUR", (Price((Window(frozenset({6}), 22 * 60, 6 * 60),), 2.0),))
    assert price_at(sunday, 0, 60) == 2.0
    assert price_at(sunday, 6, 60) == 1.0


def test_an_hour_costs_the_mean_of_its_minutes() -> None:
    half = Tariff(0.10, "EUR", (Price((Window(ALL, 90, 120),), 0.30),))
    assert by_hour(half, 0)[:3] == pytest.approx((0.10, 0.20, 0.10))


def test_where_the_clock_is_half_an_hour_ahead_hours_begin_at_half_past() -> None:
    half = Tariff(0.10, "INR", (Price((Window(ALL, 90, 150),), 0.30),))
    assert by_hour(half, 5 * 3600 + 1800)[:3] == pytest.approx((0.10, 0.30, 0.10))


def test_the_mean_is_that_of_a_week() -> None:
    assert mean(Tariff(0.5, "EUR")) == pytest.approx(0.5)
    assert mean(NIGHTLY) == pytest.approx((15 * 0.5 + 56 * 0.2 + (HOURS - 71) * 0.4) / HOURS)


def test_summer_time_cuts_a_year_in_three() -> None:
    zone = ZoneInfo("Europe/Berlin")
    since = int(datetime(2026, 1, 1, tzinfo=zone).timestamp())
    until = int(datetime(2027, 1, 1, tzinfo=zone).timestamp())
    found = list(stretches("Europe/Berlin", since, until))
    assert [offset for _, _, offset in found] == [3600, 7200, 3600]
    assert found[0][1] == int(datetime(2026, 3, 29, 3, tzinfo=zone).timestamp())
    assert found[1][1] == int(datetime(2026, 10, 25, 2, fold=1, tzinfo=zone).timestamp())
    assert list(stretches("Etc/UTC", since, until)) == [(since, until, 0)]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1_700_000_000, 1_900_000_000),
    st.integers(1, 500 * 86400),
    st.sampled_from(["Etc/UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"]),
)
def test_stretches_leave_nothing_out_and_overlap_nowhere(since: int, length: int, zone: str) -> None:
    found = list(stretches(zone, since, since + length))
    assert found[0][0] == since
    assert found[-1][1] == since + length
    assert all(before[1] == after[0] for before, after in pairwise(found))
    assert all(begin < end for begin, end, _ in found)


def test_the_finest_grain_that_is_kept_long_enough_is_summed_up() -> None:
    assert grain_for(99_000.0, 100_000.0) is Grain.MINUTE
    assert grain_for(0.0, KEPT_S[Grain.MINUTE] + 1) is Grain.HOUR
    assert grain_for(0.0, KEPT_S[Grain.HOUR] + 1) is Grain.DAY
    assert grain_for(0.0, 1e12) is Grain.DAY


# --- accounts ---


def spent(
    doing: Doing, hours: float, watts: float, *, guessed: bool = False, slot: int | None = None
) -> SpentSum:
    seconds, joules = hours * HOUR_S, hours * HOUR_S * watts
    if guessed:
        return SpentSum("box", doing, slot, seconds, 0.0, 0.0, joules)
    return SpentSum("box", doing, slot, seconds, seconds, joules, 0.0)


def used(
    *sums: SpentSum, price: float | None = 0.5, usual: tuple[SpentSum, ...] = (), answer: int = 0
) -> Used:
    tokens = (Tokens(0, "box", "qwen", 10 * answer, answer),)
    (host,), _ = account(["box"], [Priced(sums, None if price is None else (price,))], tokens, usual)
    return host


def test_what_a_host_did_stands_apart_and_loaded_while_idle_is_a_line_of_its_own() -> None:
    host = used(spent(Doing.BUSY, 2, 500), spent(Doing.LOADED, 10, 100), spent(Doing.EMPTY, 5, 80))
    assert [(line.doing, line.kwh, line.money) for line in host.lines] == [
        (Doing.BUSY, pytest.approx(1.0), pytest.approx(0.5)),
        (Doing.LOADED, pytest.approx(1.0), pytest.approx(0.5)),
        (Doing.EMPTY, pytest.approx(0.4), pytest.approx(0.2)),
    ]
    assert (host.kwh, host.money, host.estimated_kwh) == pytest.approx((2.4, 1.2, 0.0))


def test_saved_is_idle_less_asleep_less_the_ways_to_sleep_and_back() -> None:
    host = used(spent(Doing.LOADED, 4, 90), spent(Doing.ASLEEP, 100, 4), spent(Doing.CHANGING, 1, 150))
    saved = host.saved
    assert saved.kwh == pytest.approx((90 - 4) * 100 / 1000 - 0.15)
    assert saved.money == pytest.approx(0.5 * ((90 - 4) * 100 / 1000 - 0.15))
    assert (saved.idle_w, saved.asleep_w, saved.wakes_kwh) == pytest.approx((90, 4, 0.15))
    assert saved.estimated is False
    assert saved.because == "awake and idle it draws 90 W, asleep 4 W"


def test_asleep_watts_that_nobody_measured_make_it_an_estimate() -> None:
    host = used(spent(Doing.EMPTY, 4, 90), spent(Doing.ASLEEP, 100, 3, guessed=True))
    assert host.saved.kwh == pytest.approx(8.7)
    assert host.saved.estimated
    assert host.saved.because.endswith("asleep 3 W, which is an estimate")
    assert host.estimated_kwh == pytest.approx(0.3)


def test_idle_watts_of_other_times_help_out_and_make_it_an_estimate() -> None:
    host = used(spent(Doing.ASLEEP, 100, 4), usual=(spent(Doing.EMPTY, 50, 70), spent(Doing.BUSY, 9, 900)))
    assert host.saved.kwh == pytest.approx(6.6)
    assert host.saved.estimated
    assert "70 W, measured at other times" in host.saved.because


def test_without_idle_watts_nothing_is_said_to_be_saved() -> None:
    host = used(spent(Doing.ASLEEP, 100, 4), spent(Doing.EMPTY, 0.1, 80), spent(Doing.BUSY, 9, 500))
    assert host.saved.kwh is None
    assert host.saved.money is None
    assert host.saved.because == "it was not yet measured awake and idle for 10 min"


def test_a_host_that_wakes_too_often_may_have_saved_less_than_nothing() -> None:
    host = used(spent(Doing.EMPTY, 4, 90), spent(Doing.ASLEEP, 1, 4), spent(Doing.CHANGING, 1, 150))
    assert host.saved.kwh == pytest.approx(0.086 - 0.15)


def test_one_that_did_not_sleep_saved_nothing() -> None:
    saved = used(spent(Doing.LOADED, 4, 90)).saved
    assert (saved.kwh, saved.because) == (0.0, "it did not sleep")


def test_what_sleep_saved_is_priced_by_the_hours_in_which_it_slept() -> None:
    prices = [0.0] * HOURS
    prices[3], prices[12] = 0.10, 0.40
    sums = (spent(Doing.EMPTY, 4, 100, slot=12), spent(Doing.ASLEEP, 10, 0, slot=3))
    (host,), _ = account(["box"], [Priced(sums, prices)], (), ())
    assert host.money == pytest.approx(0.4 * 0.40)
    assert host.saved.money == pytest.approx(1.0 * 0.10)


def test_a_million_tokens_cost_all_that_the_host_used_and_no_tokens_cost_nothing() -> None:
    host = used(spent(Doing.BUSY, 2, 500), spent(Doing.LOADED, 10, 100), answer=500_000)
    assert (host.kwh_per_mtok, host.money_per_mtok) == pytest.approx((4.0, 2.0))
    assert (host.prompt_tokens, host.answer_tokens) == (5_000_000, 500_000)
    unmetered = used(spent(Doing.BUSY, 2, 0), spent(Doing.ASLEEP, 10, 3), answer=500_000)
    assert (unmetered.kwh_per_mtok, unmetered.money_per_mtok) == (None, None)
    idle = used(spent(Doing.BUSY, 2, 500))
    assert (idle.kwh_per_mtok, idle.money_per_mtok) == (None, None)


def test_without_a_tariff_there_is_no_money_anywhere() -> None:
    host = used(spent(Doing.EMPTY, 4, 90), spent(Doing.ASLEEP, 9, 4), price=None, answer=9)
    assert (host.money, host.money_per_mtok, host.saved.money) == (None, None, None)
    assert all(line.money is None for line in host.lines)


def test_the_rack_is_the_sum_of_the_hosts_that_were_asked_for() -> None:
    sums = [spent(Doing.EMPTY, 4, 90), spent(Doing.ASLEEP, 100, 4)]
    other = [
        SpentSum("nas", Doing.EMPTY, None, 3600, 3600, 36e3, 0.0),
        SpentSum("nas", Doing.ASLEEP, None, 9, 0, 0, 9),
    ]
    stranger = SpentSum("gone", Doing.BUSY, None, 3600, 3600, 36e5, 0.0)
    hosts, rack = account(["box", "nas"], [Priced([*sums, *other, stranger], (1.0,))], (), ())
    assert rack.kwh == pytest.approx(sum(host.kwh for host in hosts))
    assert rack.money == pytest.approx(rack.kwh)
    assert rack.saved.kwh == pytest.approx(sum(host.saved.kwh or 0 for host in hosts))
    assert [line.doing for line in rack.lines] == [Doing.EMPTY, Doing.ASLEEP]


def test_hosts_of_which_nothing_can_be_said_are_named_with_the_rack() -> None:
    _, rack = account(["box"], [Priced([spent(Doing.ASLEEP, 9, 4)], None)], (), ())
    assert rack.saved.kwh is None
    assert rack.saved.because.endswith("awake and idle: box")


def test_two_stretches_with_prices_of_their_own_add_up() -> None:
    stretch = [spent(Doing.BUSY, 1, 1000)]
    (host,), _ = account(["box"], [Priced(stretch, (0.2,)), Priced(stretch, (0.6,))], (), ())
    assert (host.kwh, host.money) == pytest.approx((2.0, 0.8))
