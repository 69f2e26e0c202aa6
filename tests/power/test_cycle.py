"""Cutting power is the last resort: behind an interlock, seen, and never the last thing that is done."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.adapters.power.cycle import Cycled, Pace, cycle
from labctl.domain.sleep.lifecycle import Verdict
from labctl.ports.power import Power, PowerError

DRAINED = Verdict(True, "it is drained")
BUSY = Verdict(False, "a request is in flight")
BROKEN = PowerError("server-error", "the BMC answers 500", transient=True)


class FakeSwitch:
    """A host's power, which does what a list says, and writes down all that is asked of it."""

    has_meter = False

    def __init__(self, kind: str = "ipmi", *, can_cut: bool = True) -> None:
        self.kind = kind
        self.can_cut = can_cut
        self.on = True
        self.done: list[str] = []
        self.says: list[Power | PowerError] = []  # before the truth
        self.fails: dict[str, int] = {}  # how often an order fails

    def wake(self) -> None:
        self._order("wake")
        self.on = True

    def cut(self) -> None:
        self._order("cut")
        self.on = False

    def power(self) -> Power:
        self.done.append("power")
        said = self.says.pop(0) if self.says else ("on" if self.on else "off")
        if isinstance(said, PowerError):
            raise said
        return said

    def _order(self, what: str) -> None:
        self.done.append(what)
        if self.fails.get(what, 0):
            self.fails[what] -= 1
            raise BROKEN


class Time:
    """A clock that only pauses move."""

    def __init__(self, done: list[str]) -> None:
        self.at = 0.0
        self.done = done

    def wait(self, seconds: float) -> None:
        self.at += seconds
        self.done.append(f"wait {seconds:g}")


def run(switch: Any, interlock: Verdict = DRAINED) -> Cycled:
    time = Time(getattr(switch, "done", []))
    return cycle(switch, interlock, Pace(wait=time.wait, now=lambda: time.at))


def test_off_is_seen_then_a_pause_then_on() -> None:
    switch = FakeSwitch()
    assert run(switch) == Cycled(True, "it is drained; it was seen off and has power again")
    assert switch.done == ["cut", "power", "wait 10", "wake"]


def test_without_an_interlock_nothing_is_touched() -> None:
    switch = FakeSwitch()
    with pytest.raises(PowerError, match="its power is not cut: a request is in flight") as caught:
        run(switch, BUSY)
    assert (caught.value.code, switch.done) == ("interlock", [])


def test_where_the_inventory_does_not_allow_it_nothing_is_touched() -> None:
    switch = FakeSwitch("plug", can_cut=False)
    with pytest.raises(PowerError, match="the inventory does not allow that by its plug") as caught:
        run(switch)
    assert (caught.value.code, "may_cut=True" in caught.value.hint) == ("unsupported", True)
    assert switch.done == []


def test_one_that_is_not_seen_off_has_failed_and_has_power_again() -> None:
    switch = FakeSwitch()
    switch.says = ["on"] * 100
    with pytest.raises(PowerError, match="30 s later it is not seen to be off"):
        run(switch)
    assert (switch.done[-1], switch.on) == ("wake", True)


def test_what_cannot_see_at_all_is_believed_and_that_is_said() -> None:
    switch = FakeSwitch("webhook")
    switch.says = ["unclear"] * 100
    done = run(switch)
    assert (done.seen_off, "could not be seen off by its webhook" in done.because) == (False, True)
    assert switch.done[-2:] == ["wait 10", "wake"]


def test_a_bmc_that_is_unclear_for_a_while_is_waited_for() -> None:
    switch = FakeSwitch()
    switch.says = ["unclear", "on", BROKEN]
    assert run(switch).seen_off
    assert switch.done.count("power") == 4


def test_a_cut_that_fails_is_followed_by_power() -> None:
    switch = FakeSwitch()
    switch.fails = {"cut": 1}
    with pytest.raises(PowerError, match="answers 500"):
        run(switch)
    assert switch.done == ["cut", "wake"]


def test_power_that_does_not_return_is_tried_again_and_then_said() -> None:
    switch = FakeSwitch()
    switch.fails = {"wake": 2}
    run(switch)
    assert (switch.done.count("wake"), switch.on) == (3, True)
    switch.fails = {"wake": 3}
    with pytest.raises(PowerError, match="could not be given again, so it may be off") as caught:
        run(switch)
    assert (caught.value.code, caught.value.hint) == ("server-error", "switch it on by hand")


_SAID = st.sampled_from(["on", "off", "unclear", BROKEN])


@given(
    st.lists(_SAID, max_size=50),
    st.dictionaries(st.sampled_from(["cut", "wake"]), st.integers(0, 2)),
    st.sampled_from(["ipmi", "plug", "webhook"]),
    st.booleans(),
    st.booleans(),
)
def test_whatever_fails_a_host_that_was_cut_has_power_again(
    says: list[Power | PowerError], fails: dict[str, int], kind: str, allowed: bool, drained: bool
) -> None:
    switch = FakeSwitch(kind, can_cut=allowed)
    switch.says, switch.fails = list(says), dict(fails)
    try:
        run(switch, DRAINED if drained else BUSY)
    except PowerError:
        pass
    else:
        assert allowed and drained
    assert switch.on
    if not (allowed and drained):
        assert switch.done == []


def test_power_returns_when_a_person_breaks_it_off() -> None:
    switch = FakeSwitch()

    def broken(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cycle(switch, DRAINED, Pace(wait=broken, now=lambda: 0.0))
    assert switch.on
