"""What all hosts share: watts measured against what supplies and circuits bear, the controller, old keys."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from budget_racks import random_rack
from health_cases import NOW, card, told, wanted, well

from labctl.domain.budget import Card, Circuit, Host, Rack, Supply, report
from labctl.domain.budget_measured import Drawn, Reading, readings
from labctl.domain.health.expected import ExpectedRack
from labctl.domain.health.judging import judge_rack
from labctl.domain.health.terms import Case, Level, Result, Sleep
from labctl.domain.health.thresholds import DAY_S
from labctl.domain.sleep.lifecycle import Mode

WARN, CRIT, UNKNOWN, OK = Level.WARN, Level.CRIT, Level.UNKNOWN, Level.OK
CARDS = (Card("slot0", "RTX 3090", 280), Card("slot1", "RTX 3090", 280))
# 500 W of cards and 100 W of the board at 90 % of efficiency make 667 W at the wall.
POWER = Rack(
    (Host("rig", 100, CARDS, (Supply("psu0", 700, 0.9, 2.0, "office"),)),),
    (Circuit("house", 230, 16), Circuit("office", 230, 4, 0.8, "house")),
)
RACK = ExpectedRack(power=POWER)


def _drawing(*watts: float | None) -> Case:
    return told(well(), gpus=tuple(card(n, power_w=each) for n, each in enumerate(watts)))


def _power(*cases: Case, rack: ExpectedRack = RACK) -> dict[tuple[str, str], Result]:
    return {(one.host, one.subject): one for one in judge_rack(rack, cases, NOW) if one.code == "power-over"}


# --- readings ---


def _by_name(drawn: dict[str, Drawn], rack: Rack = POWER) -> dict[str, Reading]:
    return {one.meter.name: one for one in readings(rack, drawn)}


def test_what_cards_tell_is_added_up_to_the_wall() -> None:
    found = _by_name({"rig": Drawn({"slot0": 200.0, "slot1": 60.0})})
    assert found["psu0"].least_w == found["psu0"].most_w == 360
    assert found["psu0"].base_w == 100
    assert found["office"].least_w == found["house"].least_w == pytest.approx(400)
    assert found["house"].hosts == ("rig",) and found["house"].silent == ()


def test_a_card_that_does_not_tell_draws_between_nothing_and_its_cap() -> None:
    found = _by_name({"rig": Drawn({"slot0": 200.0, "slot1": None})})["psu0"]
    assert (found.least_w, found.most_w, found.silent) == (300, 580, ("slot1 of rig",))


def test_a_host_that_sleeps_draws_nothing_and_one_that_nobody_asked_may_be_on() -> None:
    asleep = _by_name({"rig": Drawn({}, on=False)})["psu0"]
    assert (asleep.least_w, asleep.most_w, asleep.hosts) == (0, 0, ("rig",))
    unasked = _by_name({})["psu0"]
    assert (unasked.least_w, unasked.most_w) == (100, 660)


def test_cards_at_their_caps_read_as_the_budget_counts_them_and_silent_ones_at_most_so() -> None:
    dice = Random(7)
    for _ in range(200):
        rack = random_rack(dice)
        at_cap = {
            host.name: Drawn({one.name: float(one.watts + one.beyond_w) for one in host.cards})
            for host in rack.hosts
        }
        counted = {(one.meter.kind, one.meter.title): one.output_w for one in report(rack).lines}
        for full, silent in zip(readings(rack, at_cap), readings(rack, {}), strict=True):
            output = counted[full.meter.kind, full.meter.title]
            assert full.least_w == pytest.approx(output) == full.most_w
            assert silent.most_w == pytest.approx(output)
            assert silent.least_w == pytest.approx(silent.base_w) == pytest.approx(full.base_w)


# --- power-over ---


def test_a_supply_and_its_circuits_are_read_by_measured_watts() -> None:
    found = _power(_drawing(100.0, 100.0))
    assert set(found) == {("rig", "psu0"), ("", "circuit house"), ("", "circuit office")}
    assert {one.level for one in found.values()} == {OK}
    psu = found["rig", "psu0"]
    assert psu.reason == "it gives 300 W of 700 W (its rating), 100 W of that by declaration"
    assert (psu.figures[0].value, psu.figures[0].unit, psu.figures[0].crit) == (300, "W", 700)


@pytest.mark.parametrize(
    ("watts", "subject", "level", "words"),
    [
        ((350.0, 320.0), ("rig", "psu0"), CRIT, "it gives 770 W of 700 W"),
        ((300.0, 280.0), ("rig", "psu0"), WARN, "it gives 680 W of 700 W"),
        ((300.0, 280.0), ("", "circuit office"), CRIT, "it carries 756 W of 736 W (80 % of 230 V x 4 A)"),
        ((450.0, None), ("rig", "psu0"), UNKNOWN, "it may give up to 830 W of 700 W; slot1 of rig: not told"),
    ],
)
def test_too_many_watts_are_found_where_they_are_too_many(
    watts: tuple[float | None, ...], subject: tuple[str, str], level: Level, words: str
) -> None:
    found = _power(_drawing(*watts))[subject]
    assert (found.level, found.reason.startswith(words)) == (level, True), found
    assert "labctl power" in found.cure


def test_a_card_that_does_not_tell_is_no_matter_where_its_cap_fits() -> None:
    assert _power(_drawing(100.0, None))["rig", "psu0"].level is OK


def test_a_missing_card_and_a_sleeping_one_and_a_sleeping_host_draw_nothing() -> None:
    gone = told(well(), gpus=(card(0, power_w=100.0),))
    asleep = told(well(), gpus=(card(0, power_w=100.0), replace(card(1), asleep=True, power_w=None)))
    for case in (gone, asleep):
        assert _power(case)["rig", "psu0"].figures[0].value == 200
    dark = well(evidence=None, sleep=Sleep(Mode.ASLEEP, NOW, ""))
    assert _power(dark)["rig", "psu0"].figures[0].value == 0


def test_a_host_that_does_not_speak_may_draw_all_that_it_is_counted_with() -> None:
    small = ExpectedRack(
        power=replace(POWER, circuits=(Circuit("house", 230, 16), Circuit("office", 230, 3)))
    )
    dark = well(evidence=None, unreachable="timed out", sleep=Sleep(Mode.READY, NOW, ""))
    assert _power(dark, rack=small)["", "circuit office"].level is UNKNOWN


def test_a_circuit_is_judged_only_when_all_hosts_on_it_were_asked() -> None:
    other = Host("nas", 60, (), (Supply("psu0", 200, 0.9, 2.0, "house"),))
    rack = ExpectedRack(power=replace(POWER, hosts=(*POWER.hosts, other)))
    assert set(_power(_drawing(100.0, 100.0), rack=rack)) == {("rig", "psu0"), ("", "circuit office")}


# --- the controller and keys ---


def _codes(rack: ExpectedRack, *cases: Case, now: float = NOW) -> dict[tuple[str, str], Result]:
    return {(one.code, one.subject): one for one in judge_rack(rack, cases, now)}


def test_a_controller_that_says_nothing_of_any_host_is_told_of_once_and_none_is_missed_without_one() -> None:
    rack = ExpectedRack(controlled=True)
    silent = _codes(rack, well(sleep=None), wanted(well(sleep=None), host="nas"))["controller", ""]
    assert (silent.level, silent.cure) == (CRIT, "look at it: labctl controller status")
    assert _codes(rack, well(), wanted(well(sleep=None), host="nas"))["controller", ""].level is OK
    assert _codes(ExpectedRack(), well(sleep=None)) == {}


@pytest.mark.parametrize(
    ("days", "level", "words"),
    [(30, OK, "has another 30 d"), (10, WARN, "has another 10 d"), (-3, CRIT, "was to be replaced 3 d ago")],
)
def test_a_key_is_told_of_before_its_day(days: int, level: Level, words: str) -> None:
    found = _codes(ExpectedRack(replace_by={"hf": NOW + days * DAY_S}), well())["keys", "hf"]
    assert (found.level, found.reason) == (level, words)
    assert ("replace_by" in found.cure) == bool(level)


def test_watts_that_are_no_part_of_a_document_are_told_as_not_known() -> None:
    unread = told(well(), gpus=None, errors={"gpus": "NVML hangs"})
    small = ExpectedRack(power=Rack((Host("rig", 100, CARDS, (Supply("psu0", 500, 0.9),)),)))
    assert _power(unread, rack=small)["rig", "psu0"].level is UNKNOWN
