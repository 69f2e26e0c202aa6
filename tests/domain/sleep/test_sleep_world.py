"""Random racks that live: whatever happens, no limit is exceeded and nobody is put to sleep under a request.

Each tick the controller carries out a part of what was decided, dies in the middle of an action, or forgets
everything but the store; then it decides again. So the plan is interrupted at every place there is, and what
follows has to be safe. The mutants show that the walk would notice a guard that is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sleep_cases import MONO, TICK, WALL, report
from sleep_world import BrokenRuleError, World

from labctl.domain import budget_states
from labctl.domain.sleep import evidence, idle, ladder, lifecycle, wanting, watts
from labctl.domain.sleep.lifecycle import Mode, Verdict
from labctl.domain.sleep.terms import Moment, Reading, SeenHost

RACKS = 100
TICKS = 60


def _walk(seed: int, racks: int = RACKS) -> set[str]:
    """Walk so many racks; return all that was done on the way."""
    done: set[str] = set()
    for number in range(racks):
        world = World(Random(f"{seed}/{number}"))
        for _ in range(TICKS):
            world.people()
            actions = world.decide()
            upto = world.dice.choice((len(actions), len(actions), world.dice.randint(0, len(actions))))
            for action in actions[:upto]:
                if world.dice.random() < 0.5:
                    world.people()
                world.act(action)
            if upto < len(actions):
                if world.dice.random() < 0.5:
                    world.act(actions[upto], half=True)
                world.restart()
            world.pass_time(world.dice.choice((1.0, TICK, TICK, 25.0)))
        done |= world.done
    return done


def test_no_interrupted_plan_of_any_rack_exceeds_a_limit_or_sleeps_under_anybody() -> None:
    done = _walk(1)
    assert done >= {"Suspend", "SendWake", "Verify", "Mend", "StepCaps", "Wait", "Move"}
    assert done >= {event.value for event in lifecycle.Event} - {"seen"}


def test_after_each_part_of_a_plan_the_next_one_is_safe_too() -> None:
    parts = 0
    for number in range(25):
        world = World(Random(f"parts/{number}"))
        for _ in range(25):
            world.people()
            actions = world.decide()
            for upto in range(len(actions)):
                other = deepcopy(world)
                for action in actions[:upto]:
                    other.act(action)
                other.act(actions[upto], half=True)
                other.restart()
                for _ in range(3):
                    for action in other.decide():
                        other.act(action)
                    other.pass_time(TICK)
                parts += 1
            for action in actions:
                world.act(action)
            world.pass_time(TICK)
    assert parts > 300


def _ramps_are_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(budget_states, "spikes", lambda phase: False)


def _whoever_may_be_on_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    real = watts.phase_of
    asleep = (Mode.UNKNOWN, Mode.SUSPENDING, Mode.FAILED)

    def phase_of(sight: watts.Sight, host: str) -> budget_states.Phase:
        row = sight.row(host)
        return budget_states.Phase.ASLEEP if row is None or row.mode in asleep else real(sight, host)

    patch.setattr(watts, "phase_of", phase_of)


def _a_wake_asks_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(watts.Ledger, "may_wake", lambda self, host: Verdict(True, f"{host} may"))


def _two_wakes_of_one_tick_do_not_see_each_other(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(budget_states, "waking", lambda table, state, host: state)


def _caps_that_were_not_read_back_count(patch: pytest.MonkeyPatch) -> None:
    real = watts.state_of

    def state_of(sight: watts.Sight, table: watts.Budget) -> budget_states.State:
        state = real(sight, table)
        lowest = tuple(float(bunch.lowest_w) for bunch in table.bunches)
        return budget_states.State(state.phases, lowest)

    patch.setattr(watts, "state_of", state_of)


def _nobody_asks_who_depends_on_a_host(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wanting, "dependants", lambda *rest: iter(()))
    patch.setattr(wanting, "needs", lambda host, mode: ())


def _leases_do_not_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lifecycle, "_unclaimed", lambda claims: Verdict(True, "who cares"))
    patch.setattr(idle, "_claims", lambda row, now: ())


def _repairs_have_no_interlock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ladder, "may_take", lambda *rest: Verdict(True, "who cares"))


def _a_host_is_off_as_soon_as_it_is_silent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        evidence, "dark_because", lambda look, *rest: "" if look.talking else f"{look.name} is silent"
    )
    patch.setitem(lifecycle.NEXT, (Mode.READY, lifecycle.Event.LOST), Mode.ASLEEP)


MUTANTS: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    _ramps_are_ignored,
    _whoever_may_be_on_is_not_counted,
    _a_wake_asks_nobody,
    _two_wakes_of_one_tick_do_not_see_each_other,
    _caps_that_were_not_read_back_count,
    _nobody_asks_who_depends_on_a_host,
    _leases_do_not_count,
    _repairs_have_no_interlock,
    _a_host_is_off_as_soon_as_it_is_silent,
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__.strip("_"))
def test_the_walk_notices_a_guard_that_is_gone(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises(BrokenRuleError):
        _walk(1)


def test_when_everything_calms_down_whoever_is_wanted_is_ready() -> None:
    for number in range(30):
        world = World(Random(number), watts=False)
        for _ in range(20):
            world.people()
            for action in world.decide():
                world.act(action)
            world.pass_time(TICK)
        world.calm_down()
        for _ in range(150):
            for action in world.decide():
                world.act(action)
            world.pass_time(TICK)
        assert {row.mode for row in world.rows.values()} == {Mode.READY}, number


# --- quiet since: judged by a second way of counting ---

_LINES = st.lists(
    st.tuples(
        st.sampled_from([1.0, 10.0, 10.0, 10.0, 24.0, 26.0]),  # seconds since the line before
        st.sampled_from([False, False, False, False, True, None]),  # busy
        st.sampled_from(["w", "w", "w", "v"]),  # the watch
        st.sampled_from([1, 1, 1, 2]),  # how often it has slept
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(_LINES)
def test_a_host_is_quiet_exactly_since_the_last_hole_in_the_evidence(
    lines: list[tuple[float, bool | None, str, int]],
) -> None:
    at, found = MONO, None
    times: list[float] = []
    for gap, busy, watch, resumes in lines:
        at += gap
        said = report((Reading("gpu", busy, ""),), at=at, watch=watch, resumes=resumes, up_s=at)
        now = Moment(WALL + at - MONO, at)
        found = idle.fold(found, SeenHost("gpu1", at, talking=True, report=said), now, tick_s=TICK)
        times.append(at)
    assert found is not None
    since = None
    for place in range(len(lines)):  # the earliest line from which on all is quiet and nothing is missing
        tail = lines[place:]
        quiet = all(busy is False for _, busy, _, _ in tail)
        whole = all(
            gap <= 25 and (watch, resumes) == before[2:]
            for (gap, _, watch, resumes), before in zip(tail[1:], tail, strict=False)
        )
        if quiet and whole:
            since = times[place]
            break
    assert found.quiet_since == since
