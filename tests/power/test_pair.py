"""Two back-ends for one host: whoever cut its power, a wake gives it again."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from labctl.adapters.power.pair import Pair
from labctl.ports.power import Power, PowerError


@dataclass
class Played:
    kind: str = "wol"
    can_cut: bool = False
    has_meter: bool = False
    sees: Power | PowerError = "unclear"
    fails: PowerError | None = None
    did: list[str] = field(default_factory=list)

    def wake(self) -> None:
        self.did.append("wake")
        if self.fails is not None:
            raise self.fails

    def power(self) -> Power:
        if isinstance(self.sees, PowerError):
            raise self.sees
        return self.sees

    def cut(self) -> None:
        self.did.append("cut")


SILENT = PowerError("timeout", "it does not answer")


@pytest.mark.parametrize("sees", ["on", "unclear", SILENT])
def test_while_power_is_not_seen_off_a_round_is_the_first_ones_alone(sees: Power | PowerError) -> None:
    wakes, powers = Played(), Played("plug", can_cut=True, has_meter=True, sees=sees)
    pair = Pair(wakes, powers)
    pair.wake()
    assert (wakes.did, powers.did) == (["wake"], [])
    assert (pair.kind, pair.can_cut, pair.has_meter) == ("wol", True, True)


def test_where_power_is_off_it_is_given_even_if_the_packet_cannot_be_sent() -> None:
    wakes, powers = Played(fails=PowerError("no-route", "no route")), Played("plug", sees="off")
    Pair(wakes, powers).wake()
    assert (wakes.did, powers.did) == (["wake"], ["wake"])


def test_a_packet_that_cannot_be_sent_is_an_error_where_power_is_on() -> None:
    with pytest.raises(PowerError, match="no route"):
        Pair(Played(fails=PowerError("no-route", "no route")), Played("plug", sees="on")).wake()


def test_cutting_and_seeing_are_the_second_ones() -> None:
    wakes, powers = Played(), Played("plug", sees="off")
    pair = Pair(wakes, powers)
    pair.cut()
    assert (pair.power(), wakes.did, powers.did) == ("off", [], ["cut"])
