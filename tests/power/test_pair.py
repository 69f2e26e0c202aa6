"""Two back-ends for one host: whoever cut its power, a wake gives it again."""

from __future__ import annotations

import pytest
from test_cycle import BROKEN, DRAINED, FakeSwitch, run

from labctl.adapters.power.pair import Pair
from labctl.ports.power import Power, PowerError


class Both:
    """Two back-ends as one, and what was noted."""

    def __init__(self, *, rest_s: float = 60) -> None:
        self.wakes, self.powers = FakeSwitch("wol", can_cut=False), FakeSwitch("plug")
        self.notes: list[str] = []
        self.switch = Pair(self.wakes, self.powers, note=self.notes.append, rest_s=rest_s)


@pytest.mark.parametrize("says", ["on", "unclear", BROKEN])
def test_while_power_is_not_seen_off_a_round_is_the_first_ones_alone(says: Power | PowerError) -> None:
    both = Both()
    both.powers.says = [says]
    both.switch.wake()
    assert (both.wakes.done, both.powers.done) == (["wake"], ["power"])


def test_where_power_is_off_it_is_given_even_if_the_packet_cannot_be_sent() -> None:
    both = Both()
    both.wakes.fails, both.powers.on = {"wake": 1}, False
    both.switch.wake()
    assert (both.wakes.done, both.powers.done, both.powers.on) == (["wake"], ["power", "wake"], True)


def test_a_packet_that_cannot_be_sent_is_an_error_where_power_is_on() -> None:
    both = Both()
    both.wakes.fails = {"wake": 1}
    with pytest.raises(PowerError, match="answers 500"):
        both.switch.wake()


def test_cutting_and_seeing_are_the_second_ones() -> None:
    both = Both()
    both.powers.has_meter = True
    assert (both.switch.kind, both.switch.can_cut, both.switch.has_meter) == ("wol", True, True)
    both.switch.cut()
    assert both.switch.power() == "off"
    assert both.wakes.done == []


def test_a_second_one_that_does_not_answer_is_noted_and_left_alone_for_a_while() -> None:
    both = Both()
    both.powers.says = [BROKEN] * 2
    both.switch.wake()
    both.switch.wake()
    assert (both.wakes.done, both.powers.done) == (["wake", "wake"], ["power"])
    assert both.notes == ["its plug does not say whether it has power: the BMC answers 500"]
    patient = Both(rest_s=0)
    patient.powers.says = [BROKEN] * 2
    patient.switch.wake()
    patient.switch.wake()
    assert patient.powers.done == ["power", "power"]


def test_after_a_cut_that_we_made_power_has_to_return() -> None:
    both = Both()
    both.powers.fails = {"wake": 2}
    assert run(both.switch, DRAINED).seen_off
    assert (both.powers.done.count("wake"), both.powers.on) == (3, True)


def test_what_cannot_see_gives_power_again_after_a_cut_that_we_made() -> None:
    both = Both()
    both.powers.says = ["unclear"] * 100
    both.switch.cut()
    both.switch.wake()
    both.switch.wake()
    assert both.powers.done == ["cut", "wake", "power"]


def test_a_cut_whose_answer_is_lost_counts_as_one() -> None:
    both = Both()
    both.powers.fails = {"cut": 1, "wake": 1}
    with pytest.raises(PowerError):
        both.switch.cut()
    with pytest.raises(PowerError):
        both.switch.wake()
    both.switch.wake()
    assert both.powers.done == ["cut", "wake", "wake"]
