"""Packets until a host is seen, and for long enough: when packets get lost, boots are slow, clocks jump."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from sleep_cases import NOW, PROOF, WALL, host, row

from labctl.domain.sleep import waking
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.terms import Attempt, HostPolicy, KnownHost, Moment, Repair

UNPROVEN = row(mode=Mode.WAKING, proof=None)


def _attempt(sent: int, ago: float, **more: float) -> KnownHost:
    return replace(UNPROVEN, attempt=Attempt(WALL - 300, sent, WALL - ago), **more)


def test_the_first_round_goes_out_at_once() -> None:
    due = waking.due(host(), UNPROVEN, NOW)
    assert (due.do, due.round, due.for_s) == ("send", 1, 0.0)


def test_rounds_come_quickly_and_then_ever_slower_until_the_time_is_up() -> None:
    gaps = list(waking.gaps(host(), UNPROVEN))
    assert gaps[0] < 1.2
    assert sum(gaps[:4]) < 10  # four packets within the first ten seconds
    assert all(later > earlier * 0.7 for earlier, later in pairwise(gaps))
    assert max(gaps) <= waking.LONGEST_GAP_S * (1 + waking.JITTER)
    assert 180 <= sum(gaps) < 180 + max(gaps)
    assert len(gaps) < 25  # each round is a few small packets; nobody is flooded


def test_the_same_wake_has_the_same_gaps_and_others_have_others() -> None:
    one, again, other = (list(waking.gaps(host(name), UNPROVEN)) for name in ("a", "a", "b"))
    assert one == again
    assert one != other


def test_times_that_were_learnt_make_us_wait_longer_and_never_shorter() -> None:
    assert waking.time_s(host(), UNPROVEN) == 180.0
    assert waking.time_s(host(), replace(UNPROVEN, came_up_s=(8.0,) * 20)) == 180.0  # it may boot cold
    assert waking.time_s(host(), replace(UNPROVEN, came_up_s=(200.0, 240.0))) == 360.0
    assert waking.time_s(host(boot_s=300.0), UNPROVEN) == 300.0
    slow_once = replace(UNPROVEN, came_up_s=(10.0,) * 19 + (900.0,))
    assert waking.time_s(host(), slow_once) == 180.0  # one outlier of twenty is no rule
    assert waking.time_s(host(), replace(UNPROVEN, proof=replace(PROOF, ready_s=200.0))) == 300.0


def test_what_a_wake_usually_takes_is_its_median() -> None:
    assert waking.usual_s(UNPROVEN) is None
    assert waking.usual_s(row()) == PROOF.ready_s
    assert waking.usual_s(replace(UNPROVEN, came_up_s=(9.0, 11.0, 95.0))) == 11.0


def test_a_wake_says_how_long_it_usually_takes_and_when_it_is_late() -> None:
    early = replace(_attempt(3, 1.0), came_up_s=(10.0,) * 5)
    early = replace(early, attempt=Attempt(WALL - 20, 3, WALL - 1))
    assert waking.due(host(), early, NOW).because == "gpu1 is waking, which usually takes 10 s"
    late = replace(early, attempt=Attempt(WALL - 40, 3, WALL - 1))
    assert waking.due(host(), late, NOW).because == (
        "gpu1 is waking, which usually takes 10 s: it is late, so this is probably a cold boot,"
        " which may take 3 min"
    )


def test_after_the_last_round_it_has_all_of_its_time_once_more() -> None:
    last = len(list(waking.gaps(host(), UNPROVEN))) + 1
    waits = waking.due(host(), _attempt(last, 179.0), NOW)
    assert (waits.do, waits.for_s) == ("wait", pytest.approx(1.0))
    assert waking.due(host(), _attempt(last, 181.0), NOW).do == "give-up"


def test_a_host_whose_power_was_cut_has_all_of_its_time_once_more() -> None:
    last = len(list(waking.gaps(host(), UNPROVEN))) + 1
    cut = replace(_attempt(last, 5000.0), repair=Repair(("cold-cycle",), (), WALL - 100))
    assert waking.due(host(), cut, NOW).do == "wait"
    late = replace(cut, repair=Repair(("cold-cycle",), (), WALL - 200))
    assert waking.due(host(), late, NOW).do == "give-up"


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
def test_a_jump_of_the_clock_costs_one_round_and_no_wake(jump_s: float) -> None:
    after = Moment(WALL + jump_s, NOW.mono, jumped=True, steady_s=5.0)
    assert waking.due(host(), _attempt(1, 0.5), after).do == "send"
    last = len(list(waking.gaps(host(), UNPROVEN))) + 1
    for steady_s, does in ((5.0, "wait"), (179.0, "wait"), (181.0, "give-up")):
        late = Moment(WALL + jump_s, NOW.mono, steady_s=steady_s)
        assert waking.due(host(), _attempt(last, 1.0), late).do == does


# --- ten thousand wakes ---


def _wake(dice: Random, policy: HostPolicy, *, lost: float, tick_s: float) -> tuple[bool, int]:
    """Wake a host that boots in 5 to 180 s, and return whether it came and how many rounds were sent."""
    found = replace(UNPROVEN, attempt=None)
    now, heard_at, boot_s = WALL, None, dice.uniform(5, 180)
    while True:
        if heard_at is not None and now >= heard_at + boot_s:
            return True, found.attempt.sent if found.attempt else 0
        due = waking.due(policy, found, Moment(now, now))
        if due.do == "give-up":
            return False, found.attempt.sent if found.attempt else 0
        if due.do == "send":
            began = found.attempt.began if found.attempt else now
            found = replace(found, attempt=Attempt(began, due.round, now))
            if heard_at is None and dice.random() >= lost:
                heard_at = now
        now += dice.uniform(0.5, 1.0) * tick_s if tick_s else max(due.for_s, 0.05)


def _came(wakes: int) -> tuple[int, int]:
    """Return how many of so many wakes came up, and how many rounds were sent; half of them in slow ticks."""
    dice, came, rounds = Random(7), 0, 0
    for number in range(wakes):
        done, sent = _wake(dice, host(f"host{number % 40}"), lost=0.3, tick_s=0.0 if number % 2 else 10.0)
        came += done
        rounds += sent
    return came, rounds


def test_of_ten_thousand_wakes_at_a_loss_of_thirty_percent_nearly_all_get_through() -> None:
    came, rounds = _came(10_000)
    assert came >= 9_990
    assert rounds < 200_000


MUTANTS = {
    "one packet and no resend": lambda policy, known: iter(()),
    "three packets at once and no more": lambda policy, known: iter((0.1, 0.1)),
}


@pytest.mark.parametrize("gaps", MUTANTS.values(), ids=MUTANTS)
def test_a_schedule_with_fewer_packets_would_be_noticed(
    gaps: Callable[[HostPolicy, KnownHost], Iterator[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waking, "gaps", gaps)
    assert _came(1_000)[0] < 999


def test_a_host_that_is_given_up_too_early_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waking, "time_s", lambda policy, known: 60.0)
    assert _came(1_000)[0] < 999
