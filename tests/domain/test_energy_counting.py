"""Joules out of looks: a simulated meter is met within 1 %, and what nobody measured stays an estimate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.domain.energy.buckets import Pending, spread
from labctl.domain.energy.counting import (
    ASLEEP_W,
    Count,
    Look,
    Plug,
    Slice,
    count,
    doing_of,
)
from labctl.domain.energy.terms import Doing
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.telemetry import EngineNow, GpuNow, Telemetry

NOON = 1_800_000_000.0
LONGEST_S = 20.0
BOOT = ("boot-1", 0)
RANGE_UJ = 262_143_328_850


def told(
    *,
    mj: int | None = None,
    watts: float | None = None,
    rapl: int | None = None,
    asleep: bool = False,
    busy: int | None = 0,
    used: int | None = 0,
    engines: tuple[EngineNow, ...] = (),
) -> Telemetry:
    card = GpuNow(
        "GPU-1", "0000:01:00.0", "RTX 3090", asleep, watts, mj, busy_percent=busy, vram_used_mib=used
    )
    packages: Mapping[str, int] = {} if rapl is None else {"package-0": rapl}
    return Telemetry(NOON, (card,), packages, {"package-0": RANGE_UJ}, engines)


def look(
    at: float,
    telemetry: Telemetry | None = None,
    doing: Doing = Doing.EMPTY,
    epoch: tuple[str, int] = BOOT,
    plug: Plug | None = None,
) -> Look:
    return Look(NOON + at, 1000.0 + at, doing, epoch, telemetry, plug)


def counted(*looks: Look) -> tuple[Slice, ...]:
    """Return all slices of looks one after the other."""
    kept: Count | None = None
    found: list[Slice] = []
    for one in looks:
        kept, slices = count(kept, one, LONGEST_S)
        found += slices
    return tuple(found)


def sums(slices: tuple[Slice, ...]) -> tuple[float, float, float]:
    return (
        sum(one.metered_s for one in slices),
        sum(one.joules for one in slices),
        sum(one.guessed for one in slices),
    )


def test_a_first_look_says_nothing_of_what_was_used_before() -> None:
    assert counted(look(0, told(mj=9_000_000))) == ()


def test_a_counter_goes_before_watts_since_it_misses_nothing_in_between() -> None:
    found = counted(look(0, told(mj=1000, watts=10.0)), look(10, told(mj=3_001_000, watts=10.0)))
    assert sums(found) == (10.0, 3000.0, 0.0)


def test_without_a_counter_watts_are_summed_up_as_a_trapezoid() -> None:
    found = counted(look(0, told(watts=100.0)), look(10, told(watts=200.0)))
    assert sums(found) == (10.0, 1500.0, 0.0)


def test_watts_are_not_bridged_over_a_gap_and_what_is_put_in_is_an_estimate() -> None:
    found = counted(look(0, told(watts=100.0)), look(10, told(watts=100.0)), look(310, told(watts=900.0)))
    assert sums(found) == (10.0, 1000.0, 300 * 100.0)


def test_a_counter_tells_of_a_gap_later_and_the_guess_is_taken_back() -> None:
    idle = [look(at, told(mj=at * 50_000)) for at in (0, 10)]
    unseen = [look(at, None, Doing.UNSEEN) for at in range(20, 620, 10)]
    before = sums(counted(*idle, *unseen))
    assert before == pytest.approx((10.0, 500.0, 600 * 50.0))
    after = counted(*idle, *unseen, look(620, told(mj=620 * 70_000)))
    joules = 620 * 70 - 10 * 50
    assert sums(after) == pytest.approx((10.0, 500.0 + joules, 0.0))
    assert sum(one.joules for one in after if one.doing is Doing.UNSEEN) == pytest.approx(joules)


def test_a_card_whose_driver_was_loaded_anew_counts_from_nothing() -> None:
    found = counted(look(0, told(mj=50_000_000)), look(10, told(mj=400_000)), look(20, told(mj=800_000)))
    assert sums(found) == (20.0, 800.0, 0.0)


def test_a_counter_that_jumps_beyond_reason_is_not_believed() -> None:
    found = counted(look(0, told(mj=0, watts=100.0)), look(10, told(mj=10**12, watts=100.0)))
    assert sums(found) == (10.0, 1000.0, 0.0)


def test_a_card_that_is_asked_once_a_minute_loses_nothing_of_a_job_that_began_meanwhile() -> None:
    """It is shown as it was until then, so a minute's joules come in ten seconds."""
    shown = [look(at, told(mj=1000, watts=20.0)) for at in range(0, 60, 10)]
    found = counted(*shown, look(60, told(mj=1000 + 60 * 575_000, watts=575.0)))
    assert sums(found) == pytest.approx((60.0, 60 * 575.0, 0.0))


def test_what_a_host_draws_while_idle_is_known_although_its_card_is_asked_once_a_minute() -> None:
    shown = [look(at, told(mj=at // 60 * 60 * 25_000)) for at in range(0, 160, 10)]
    found = counted(*shown, look(160, None, Doing.UNSEEN), look(170, None, Doing.UNSEEN))
    assert found[-1].guessed == pytest.approx(10 * 25.0)


@pytest.mark.parametrize("watts", [3001.0, 1e15])
def test_watts_beyond_reason_are_not_believed_either(watts: float) -> None:
    assert sums(counted(look(0, told(watts=watts)), look(10, told(watts=watts)))) == (0.0, 0.0, 0.0)


def test_what_only_a_part_of_a_host_tells_is_an_estimate_and_in_no_measured_mean() -> None:
    whole = [look(at, told(mj=at * 20_000, rapl=at * 30_000_000)) for at in (0, 10)]
    found = counted(
        *whole, look(20, told(rapl=20 * 30_000_000)), look(30, told(mj=600_000, rapl=900_000_000))
    )
    assert [one.metered_s for one in found] == [10.0, 10.0, 10.0]
    found = counted(*whole, look(20, told(mj=400_000, rapl=10)))
    assert sums(found) == (10.0, 500.0, 200.0)


def test_what_a_plug_told_is_not_counted_again_by_the_cards_when_the_plug_fails_twice() -> None:
    """A card's counter that was read when the plug failed first knows all that the plug told since."""

    def seen(at: int, *, plugged: bool) -> Look:
        plug = Plug(1000.0 + at, 300.0, at * 300.0) if plugged else None
        return look(at, told(mj=at * 200_000), Doing.BUSY, plug=plug)

    fails = {50, 60, 1000, 1010}
    found = counted(*(seen(at, plugged=at not in fails) for at in range(0, 1100, 10)))
    assert sum(one.joules + one.guessed for one in found) <= 1090 * 300.0


def test_rapl_wraps_at_its_maximum() -> None:
    before, after = RANGE_UJ - 200_000_000, 300_000_000
    found = counted(look(0, told(mj=0, rapl=before)), look(10, told(mj=0, rapl=after)))
    assert sums(found) == pytest.approx((10.0, 500.0, 0.0))


def test_rapl_is_not_believed_where_it_may_have_wrapped_twice_or_began_anew() -> None:
    twice = counted(look(0, told(mj=0, rapl=5)), look(3600, told(mj=0, rapl=9)))
    assert sum(one.joules for one in twice) == 0
    slept = counted(look(0, told(mj=0, rapl=9_000_000)), look(10, told(mj=0, rapl=5), epoch=("boot-1", 1)))
    assert sums(slept) == (0.0, 0.0, 0.0)


def test_a_host_asleep_is_an_estimate_unless_its_plug_has_a_meter() -> None:
    asleep = counted(look(0, None, Doing.ASLEEP), look(10, None, Doing.ASLEEP))
    assert sums(asleep) == (0.0, 0.0, 10 * ASLEEP_W)
    metered = counted(
        *(look(at, None, Doing.ASLEEP, plug=Plug(1000.0 + at, 4.0, at * 4.0)) for at in (0, 10, 20))
    )
    assert sums(metered) == (20.0, 80.0, 0.0)


def test_a_plug_sees_all_of_a_host_so_its_cards_are_not_counted_besides() -> None:
    looks = [look(at, told(mj=at * 100_000), plug=Plug(1000.0 + at, 250.0)) for at in (0, 10)]
    assert sums(counted(*looks)) == (10.0, 2500.0, 0.0)


def test_a_plug_that_says_the_same_once_more_is_counted_once() -> None:
    said = [Plug(1000.0, 100.0), Plug(1000.0, 100.0), Plug(1010.0, 100.0)]
    looks = [look(at, plug=plug) for at, plug in zip((0.0, 5.0, 10.0), said, strict=True)]
    assert sums(counted(*looks)) == (10.0, 1000.0, 0.0)


def test_a_plug_that_fell_silent_counts_again_from_its_return() -> None:
    looks = [
        look(0, plug=Plug(1000.0, 100.0, 0.0)),
        look(10, plug=Plug(1010.0, 100.0, 1000.0)),
        look(20),
        look(30, plug=Plug(1030.0, 100.0, 3000.0)),
        look(40, plug=Plug(1040.0, 100.0, 4000.0)),
    ]
    assert sums(counted(*looks)) == (20.0, 2000.0, 2000.0)


def test_what_a_wake_took_is_put_on_changing() -> None:
    looks = [
        look(0, told(mj=0)),
        look(10, told(mj=500_000)),
        look(20, None, Doing.CHANGING),
        look(30, None, Doing.ASLEEP),
        look(3630, None, Doing.CHANGING),
        look(3660, told(mj=2_500_000), epoch=("boot-1", 1)),
    ]
    found = counted(*looks)
    assert sum(one.joules for one in found if one.doing is Doing.CHANGING) == 2000.0
    assert sum(one.guessed for one in found if one.doing is not Doing.ASLEEP) == 0.0
    assert sum(one.guessed for one in found if one.doing is Doing.ASLEEP) == 3600 * ASLEEP_W


POWERS = st.lists(st.tuples(st.floats(2, 450), st.integers(20, 200)), min_size=2, max_size=6)


@settings(max_examples=20, deadline=None)
@given(POWERS, st.booleans(), st.data())
def test_sums_meet_a_simulated_meter_within_one_percent(
    powers: list[tuple[float, int]], counter: bool, data: st.DataObject
) -> None:
    """A card draws what it likes, its driver is loaded anew at some time, and looks come as they come."""
    watts = [power for power, seconds in powers for _ in range(seconds)]
    reset = data.draw(st.integers(0, len(watts) - 1)) if counter else -1
    meter = energy = 0.0
    at = shown = 0
    kept: Count | None = None
    pending = Pending()
    for second, power in enumerate(watts):
        if second == reset:
            energy = 0.0
        meter, energy = meter + power, energy + power
        # Watts are seen often enough to follow their steps; a counter may be asked when one likes.
        if second - at >= shown or second == 0:
            if second == 0:
                meter = 0.0
            seen = told(mj=round(energy * 1e3)) if counter else told(watts=power)
            kept, slices = count(kept, look(second, seen), LONGEST_S)
            for one in slices:
                pending.add("box", one)
            at, shown, told_to = second, data.draw(st.integers(1, 9 if counter else 2)), meter
    total = sum(row.joules + row.guessed for row in pending.taken())
    # What a driver counted just before it was loaded anew, nobody can know: less than one look apart.
    lost = 10 * 450 if counter else 450 * len(powers)
    assert abs(total - told_to) <= max(0.01 * told_to, lost)


def test_two_days_of_looks_meets_the_meter_within_one_percent_though_drivers_and_agents_come_and_go() -> None:
    meter = counter = 0.0
    kept: Count | None = None
    pending = Pending()
    for step in range(17_280):  # two days of 10 s
        at = step * 10.0
        hour = step // 360 % 24
        power = 28.0 if hour < 8 else 95.0 if step % 7 else 340.0
        counter = 0.0 if step % 5_000 == 4_999 else counter + power * 10
        meter += power * 10 if step else 0.0
        silent = 2500 < step % 4_000 < 2600
        seen = look(at, None, Doing.UNSEEN) if silent else look(at, told(mj=round(counter * 1e3)))
        kept, slices = count(kept, seen, LONGEST_S)
        for one in slices:
            pending.add("box", one)
    rows = pending.taken()
    assert sum(row.joules + row.guessed for row in rows) == pytest.approx(meter, rel=0.01)
    assert abs(sum(row.guessed for row in rows)) < 1e-3 * meter
    assert sum(row.seconds for row in rows) == pytest.approx(172_790)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1e4), st.floats(0, 5000), st.floats(0, 1e6))
def test_minutes_share_a_slice_out_and_lose_nothing(begin: float, seconds: float, joules: float) -> None:
    rows = list(spread("box", Slice(begin, Doing.BUSY, seconds, seconds, seconds, joules)))
    assert sum(row.joules for row in rows) == pytest.approx(joules, abs=1e-6)
    assert sum(row.seconds for row in rows) == pytest.approx(seconds, abs=1e-6)
    assert all(row.at % 60 == 0 and row.seconds <= 60.000001 for row in rows)


SERVING = EngineNow("chat", "vllm", active=True, models=("qwen",), running=0, waiting=0)
DOINGS = [
    ("asleep, whatever it said last", Mode.ASLEEP, told(busy=90), 0, Doing.ASLEEP),
    ("waking", Mode.WAKING, None, 0, Doing.CHANGING),
    ("looked at after a wake", Mode.VERIFYING, told(), 0, Doing.CHANGING),
    ("ready, but nobody hears it", Mode.READY, None, 3, Doing.UNSEEN),
    ("failed, and nobody hears it", Mode.FAILED, None, 0, Doing.UNSEEN),
    ("a card computes", Mode.READY, told(busy=40), 0, Doing.BUSY),
    ("a request waits", Mode.READY, told(engines=(replace(SERVING, waiting=1),)), 0, Doing.BUSY),
    ("a lease, and no card tells its load", Mode.READY, told(busy=None), 1, Doing.BUSY),
    ("a lease that is only kept, its card idle", Mode.READY, told(busy=0), 1, Doing.EMPTY),
    ("an engine holds a model", Mode.READY, told(engines=(SERVING,)), 0, Doing.LOADED),
    ("something fills a card", Mode.DRAINING, told(used=9000), 0, Doing.LOADED),
    ("failed, but it talks", Mode.FAILED, told(), 0, Doing.EMPTY),
]


@pytest.mark.parametrize(
    ("mode", "telemetry", "leases", "expected"), [row[1:] for row in DOINGS], ids=[row[0] for row in DOINGS]
)
def test_what_a_host_does(mode: Mode, telemetry: Telemetry | None, leases: int, expected: Doing) -> None:
    assert doing_of(mode, telemetry, leases) is expected
