"""A host with two back-ends: a wake is both, and who was cut off gets its power back."""

from __future__ import annotations

import pytest
from test_cycle import BROKEN, DRAINED, FakeSwitch, run

from labctl.adapters.power.pair import PairSwitch
from labctl.ports.power import PowerError


class Both:
    """Two back-ends as one, and what was noted."""

    def __init__(self, wakes: str = "wol", *, rest_s: float = 60) -> None:
        self.wakes, self.powers = FakeSwitch(wakes, can_cut=False), FakeSwitch("plug")
        self.notes: list[str] = []
        self.switch = PairSwitch(self.wakes, self.powers, note=self.notes.append, rest_s=rest_s)


def test_a_wake_is_a_packet_and_then_power() -> None:
    both = Both()
    both.switch.wake()
    assert (both.wakes.done, both.powers.done, both.notes) == (["wake"], ["wake"], [])


def test_power_is_seen_and_cut_by_the_second() -> None:
    both = Both()
    both.powers.has_meter = True
    assert (both.switch.kind, both.switch.can_cut, both.switch.has_meter) == ("wol", True, True)
    both.switch.cut()
    assert both.switch.power() == "off"
    assert both.wakes.done == []


def test_a_second_one_that_fails_is_noted_and_left_alone_for_a_while() -> None:
    both = Both()
    both.powers.fails = {"wake": 9}
    both.switch.wake()
    both.switch.wake()
    assert (both.wakes.done, both.powers.done) == (["wake", "wake"], ["wake"])
    assert both.notes == ["its plug gives no power: the BMC answers 500"]
    patient = Both(rest_s=0)
    patient.powers.fails = {"wake": 1}
    patient.switch.wake()
    patient.switch.wake()
    assert patient.powers.done == ["wake", "wake"]


def test_a_packet_that_cannot_leave_is_an_error_after_power_was_given() -> None:
    both = Both()
    both.wakes.fails = {"wake": 1}
    with pytest.raises(PowerError, match="answers 500"):
        both.switch.wake()
    assert both.powers.done == ["wake"]


def test_after_a_cut_that_we_made_power_has_to_return() -> None:
    both = Both()
    both.powers.fails = {"wake": 2}
    assert run(both.switch, DRAINED).seen_off
    assert (both.powers.done.count("wake"), both.powers.on, both.notes) == (3, True, [])


def test_a_cut_whose_answer_is_lost_counts_as_one() -> None:
    both = Both()
    both.powers.fails = {"cut": 1, "wake": 1}
    with pytest.raises(PowerError):
        both.switch.cut()
    with pytest.raises(PowerError) as caught:
        both.switch.wake()
    assert caught.value is BROKEN
    both.switch.wake()
    assert both.powers.done == ["cut", "wake", "wake"]


def test_where_nothing_wakes_a_host_power_alone_does() -> None:
    both = Both("none")
    both.switch.wake()
    assert (both.wakes.done, both.powers.done) == ([], ["wake"])
