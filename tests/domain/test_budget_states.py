"""Whatever hosts do and people wish: no supply and no circuit is ever over its limit.

Random racks are walked through random states. Orders take effect card by card and in any order, hosts wake,
load, are told to sleep and go when they like, and after every single step the watts are counted anew by an
oracle of the tests' own (``budget_racks.excess``). The mutants show that the walk would notice a guard that
is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from budget_racks import excess, random_rack

from labctl.domain import budget, budget_states
from labctl.domain.budget import Budget, Card, Circuit, Host, Rack, Supply, budget_of
from labctl.domain.budget_states import Phase, State, caps_for, may_set, may_wake, next_step

RACKS = 10_000
STEPS = 20


class Walk:
    """One rack, and the world's side of it: what its hosts really do."""

    def __init__(self, dice: Random) -> None:
        self.dice = dice
        self.rack = random_rack(dice)
        self.budget = budget_of(self.rack)
        self.hosts = [host.name for host in self.rack.hosts]
        self.priorities = {name: dice.randint(0, 2) for name in self.hosts}
        self.state = State(dict.fromkeys(self.hosts, Phase.ASLEEP), self.budget.declared)
        self.wishes: list[str] = []
        self.seen: set[str] = set()
        for host in dice.sample(self.hosts, dice.randint(0, len(self.hosts))):
            awake = self.state.entering(host, Phase.AWAKE)
            if not self.excess(awake):
                self.state = awake

    def step(self) -> None:
        """Let one thing happen: mostly the controller acts, else a host does what it does."""
        if self.dice.random() < 0.5:
            if not self.wishes and self.dice.random() < 0.5:
                self.wishes = self.dice.sample(self.hosts, self.dice.randint(0, len(self.hosts)))
            self.act()
            return
        host = self.dice.choice(self.hosts)
        phase = self.state.phase(host)
        if phase is Phase.RAMPING:
            self.enter(host, Phase.AWAKE)
        elif phase is Phase.LEAVING:
            self.enter(host, self.dice.choice((Phase.ASLEEP, Phase.ASLEEP, Phase.AWAKE)))
        elif phase is Phase.AWAKE:
            if self.dice.random() < 0.3:
                self.enter(host, Phase.LEAVING)
            elif may_wake(self.budget, self.state, host).ok:
                self.ramp(host)

    def act(self) -> None:
        """Carry out the controller's next step; orders reach the cards one after the other."""
        step = next_step(self.budget, self.state, self.wishes, self.priorities)
        self.seen.add(step.do)
        if step.do == "ramp":
            self.wishes.remove(step.host)
            self.ramp(step.host)
        elif step.do == "nothing":
            self.wishes = []
        else:
            for place in self.dice.sample(sorted(step.caps), len(step.caps)):
                caps = list(self.state.caps)
                caps[place] = step.caps[place]
                self.become(replace(self.state, caps=tuple(caps)))

    def ramp(self, host: str) -> None:
        caps = self.state.caps
        if self.state.phase(host) is Phase.ASLEEP:
            # A card that comes out of sleep has what is declared for it, whatever labctl wished for since.
            pairs = zip(self.budget.bunches, caps, strict=True)
            caps = tuple(bunch.watts if bunch.host == host else cap for bunch, cap in pairs)
        self.become(replace(self.state.entering(host, Phase.RAMPING), caps=caps))

    def enter(self, host: str, phase: Phase) -> None:
        self.become(self.state.entering(host, phase))

    def become(self, state: State) -> None:
        """Enter a state, and look whether it may be.

        Raises:
            OverLimitError: it may not.
        """
        self.state = state
        if over := self.excess(state):
            raise OverLimitError(over)

    def excess(self, state: State) -> str:
        caps = {
            (bunch.host, card): cap
            for bunch, cap in zip(self.budget.bunches, state.caps, strict=True)
            for card in bunch.cards
        }
        return excess(self.rack, state.phases, caps)


class OverLimitError(AssertionError):
    """The walk reached a state in which a limit is exceeded."""


def walk(seed: int, racks: int) -> set[str]:
    """Walk so many racks and return which kinds of steps the controller took."""
    dice = Random(seed)
    seen: set[str] = set()
    for _ in range(racks):
        one = Walk(dice)
        for _ in range(STEPS):
            one.step()
        seen |= one.seen
    return seen


def test_no_reachable_state_of_ten_thousand_racks_is_over_a_limit() -> None:
    assert walk(3, RACKS) == {"lower", "raise", "ramp", "nothing"}


# --- the same walk with one guard gone ---


def _ramps_are_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(budget_states, "spikes", lambda phase: False)


def _base_watts_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(budget, "base_share", lambda host, supply: 0.0)


def _nested_circuits_are_ignored(patch: pytest.MonkeyPatch) -> None:
    real = budget.chain
    patch.setattr(budget, "chain", lambda circuits, name: real(circuits, name)[:1])


def _caps_are_rounded_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(budget_states, "whole", lambda watts: int(-(-watts // 1)))


def _caps_go_up_before_the_other_sleeps(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(budget_states, "draws", lambda phase: phase in (Phase.RAMPING, Phase.AWAKE))


def _a_waking_host_is_counted_with_caps_it_has_not_heard(patch: pytest.MonkeyPatch) -> None:
    real = budget_states.over

    def over(table: Budget, state: State, *rest: Any) -> str:
        asked = {b.host for b in table.bunches if state.phase(b.host) is Phase.RAMPING}
        caps = [b.lowest_w if b.host in asked else c for b, c in zip(table.bunches, state.caps, strict=True)]
        return real(table, replace(state, caps=tuple(caps)), *rest)

    patch.setattr(budget_states, "over", over)


def _efficiency_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    real = budget.budget_of
    perfect = lambda supply: replace(supply, efficiency=1.0)  # noqa: E731
    patch.setattr(
        "test_budget_states.budget_of",
        lambda rack: real(
            replace(
                rack,
                hosts=tuple(
                    replace(host, supplies=tuple(map(perfect, host.supplies))) for host in rack.hosts
                ),
            )
        ),
    )


def _a_shared_load_is_counted_on_one_supply_only(patch: pytest.MonkeyPatch) -> None:
    real = budget.fed_by
    patch.setattr(budget, "fed_by", lambda host, load: real(host, load)[:1])


def _supplies_are_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    real = budget_states.read
    patch.setattr(
        budget_states,
        "read",
        lambda table, meter, state: (0.0, 0.0) if meter.kind == "psu" else real(table, meter, state),
    )


def _the_continuous_share_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        budget_states,
        "read",
        lambda table, meter, state, real=budget_states.read: (0.0, real(table, meter, state)[1]),
    )


def _hosts_wake_without_asking(patch: pytest.MonkeyPatch) -> None:
    real = budget_states.next_step

    def hasty(table: Budget, state: State, wishes: list[str], priorities: dict[str, int]) -> Any:
        asleep = [host for host in wishes if state.phase(host) is Phase.ASLEEP]
        if asleep:
            return budget_states.Step("ramp", "somebody wants it", {}, asleep[0])
        return real(table, state, wishes, priorities)

    patch.setattr("test_budget_states.next_step", hasty)
    patch.setattr(
        "test_budget_states.may_wake", lambda table, state, host: budget_states.Verdict(True, "why not")
    )


MUTANTS: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    _ramps_are_ignored,
    _base_watts_are_forgotten,
    _nested_circuits_are_ignored,
    _caps_are_rounded_up,
    _caps_go_up_before_the_other_sleeps,
    _a_waking_host_is_counted_with_caps_it_has_not_heard,
    _efficiency_is_forgotten,
    _a_shared_load_is_counted_on_one_supply_only,
    _supplies_are_not_looked_at,
    _the_continuous_share_is_forgotten,
    _hosts_wake_without_asking,
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__.strip("_"))
def test_the_walk_notices_a_guard_that_is_gone(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises(OverLimitError):
        walk(3, 1500)


# --- single decisions ---


def _two_hosts(limit_w: int) -> Budget:
    """Return two equal hosts, 100 W and two cards of 100 to 300 W that spike to double, on one circuit."""
    hosts = tuple(
        Host(
            name,
            100,
            tuple(Card(f"slot{n}", "RTX 3090", 300, 100, 2.0) for n in range(2)),
            (Supply("psu", 2000, 1.0, 2.0, "office"),),
        )
        for name in ("first", "second")
    )
    return budget_of(Rack(hosts, (Circuit("office", 100, limit_w / 100, 1.0),)))


def _state(first: Phase, second: Phase, caps: tuple[int, int] = (300, 300)) -> State:
    return State({"first": first, "second": second}, caps)


def test_two_hosts_ramp_together_only_with_room_for_both_spikes() -> None:
    ramping = _state(Phase.RAMPING, Phase.ASLEEP)
    refused = may_wake(_two_hosts(2599), ramping, "second")
    assert not refused.ok
    assert refused.because == "circuit office would bear 2600 W of 2599 W while first, second ramps up"
    assert may_wake(_two_hosts(2600), ramping, "second").ok


def test_a_host_may_ramp_once_the_other_is_through() -> None:
    table = _two_hosts(2000)
    assert not may_wake(table, _state(Phase.RAMPING, Phase.ASLEEP), "second").ok
    assert may_wake(table, _state(Phase.AWAKE, Phase.ASLEEP), "second").ok


def test_loading_a_model_asks_like_waking_does() -> None:
    table = _two_hosts(1999)
    assert not may_wake(table, _state(Phase.AWAKE, Phase.AWAKE), "second").ok
    assert may_wake(table, _state(Phase.AWAKE, Phase.ASLEEP), "first").ok


def test_a_host_that_was_told_to_sleep_counts_until_it_is_seen_dark() -> None:
    table = _two_hosts(1400)
    assert not may_wake(table, _state(Phase.LEAVING, Phase.ASLEEP), "second").ok
    assert not may_wake(table, _state(Phase.LEAVING, Phase.ASLEEP), "first").ok
    assert may_wake(table, _state(Phase.ASLEEP, Phase.ASLEEP), "second").ok


def test_a_host_that_nothing_is_known_of_counts_as_awake() -> None:
    table = _two_hosts(1999)
    assert not may_wake(table, State({"second": Phase.ASLEEP}, (300, 300)), "second").ok


def test_the_lower_priority_steps_down_first() -> None:
    both = _state(Phase.AWAKE, Phase.AWAKE)
    assert caps_for(_two_hosts(1400), both, {}).watts == (300, 300)
    assert caps_for(_two_hosts(1200), both, {"first": 1}).watts == (300, 200)
    assert caps_for(_two_hosts(1200), both, {"second": 1}).watts == (200, 300)
    assert caps_for(_two_hosts(800), both, {"first": 1}).watts == (200, 100)


def test_hosts_of_equal_priority_step_down_alike() -> None:
    assert caps_for(_two_hosts(1201), _state(Phase.AWAKE, Phase.AWAKE), {}).watts == (250, 250)


def test_caps_that_cannot_fit_are_said_and_the_lowest_are_given() -> None:
    found = caps_for(_two_hosts(599), _state(Phase.AWAKE, Phase.AWAKE), {})
    assert (found.fits, found.watts) == (False, (100, 100))
    assert found.because == "even with the lowest caps circuit office would bear 600 W of 599 W for hours"


def test_a_wake_goes_down_then_up_again_step_by_step() -> None:
    table, priorities = _two_hosts(1700), {"second": 1}
    state = _state(Phase.AWAKE, Phase.ASLEEP)
    step = next_step(table, state, ["second"], priorities)
    assert (step.do, step.caps, step.because) == ("lower", {0: 150}, "to make room for second")
    assert not may_wake(table, state, "second").ok  # not before the cards have read it back
    state = replace(state, caps=(150, 300))
    step = next_step(table, state, ["second"], priorities)
    assert (step.do, step.host) == ("ramp", "second")
    state = budget_states.waking(table, state, "second")
    assert next_step(table, state, [], priorities).do == "nothing"
    state = state.entering("second", Phase.AWAKE)
    step = next_step(table, state, [], priorities)
    assert (step.do, step.caps) == ("raise", {0: 300})
    assert may_set(table, state, (300, 300)).ok


def test_caps_go_up_only_when_the_other_is_seen_asleep() -> None:
    table = _two_hosts(1000)
    leaving = _state(Phase.AWAKE, Phase.LEAVING, (200, 200))
    assert next_step(table, leaving, [], {}).do == "nothing"
    assert not may_set(table, leaving, (300, 200)).ok
    step = next_step(table, leaving.entering("second", Phase.ASLEEP), [], {})
    assert (step.do, step.caps) == ("raise", {0: 300})


def test_a_wish_that_has_to_wait_says_why_and_lets_others_go_first() -> None:
    table = _two_hosts(2000)
    ramping = _state(Phase.RAMPING, Phase.ASLEEP)
    step = next_step(table, ramping, ["second"], {})
    assert step.do == "nothing"
    assert step.because.startswith(
        "second has to wait: even with the lowest caps circuit office would bear 2600 W"
    )


def test_what_is_over_already_is_brought_down_before_anything_else() -> None:
    step = next_step(_two_hosts(1000), _state(Phase.AWAKE, Phase.AWAKE), [], {})
    assert (step.do, step.caps) == ("lower", {0: 200, 1: 200})
