"""The watts of a rack: what hangs on what, what is over, and by how much."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labctl.domain.budget import Card, Circuit, Host, Line, Rack, Supply, report, worsened
from labctl.domain.budget_change import cheapest_change


def cards(count: int, watts: int, *, lowest: int | None = 100, spike: float = 1.0) -> tuple[Card, ...]:
    return tuple(Card(f"slot{n}", "RTX 3090", watts, lowest, spike) for n in range(count))


def one_host(
    base: int = 0, *, gpus: tuple[Card, ...] = (), supplies: tuple[Supply, ...] = (), name: str = "rig"
) -> Host:
    return Host(name, base, gpus, supplies or (Supply("psu0", 5000, 1.0, 2, "office"),))


def line(rack: Rack, title: str) -> Line:
    return next(line for line in report(rack).lines if line.meter.title == title)


OFFICE = Circuit("office", 230, 16)


# --- what is counted ---


def test_the_public_case_comes_to_886_watts_at_the_wall() -> None:
    # Two cards at 245 W, a processor of 190 W, 100 W for the rest, 88 % efficient: 896 W were measured.
    host = one_host(190 + 100, gpus=cards(2, 245), supplies=(Supply("psu", 1000, 0.88, 1.3, "office"),))
    found = report(Rack((host,), (OFFICE,)))
    assert [round(line.steady_w) for line in found.lines] == [886, 886]
    assert found.lines[0].output_w == 780
    assert found.fits


def test_a_supply_is_measured_at_its_output_and_a_circuit_at_the_wall() -> None:
    rack = Rack((one_host(800, supplies=(Supply("psu0", 1000, 0.8, 1.3, "office"),)),), (OFFICE,))
    psu, circuit = report(rack).lines
    assert (psu.output_w, psu.steady_w, psu.limit_w, psu.headroom_w) == (800, 1000, 1000, 200)
    assert (circuit.output_w, circuit.steady_w, circuit.limit_w, circuit.headroom_w) == (
        1000,
        1000,
        2944,
        1944,
    )


def test_each_load_weighs_on_the_supply_that_feeds_it() -> None:
    supplies = (
        Supply("psu0", 1600, 1, 2, "office", ("board", "slot0")),
        Supply("psu1", 1600, 1, 2, "kitchen", ("slot1", "slot2")),
    )
    host = one_host(250, gpus=cards(3, 300), supplies=supplies)
    rack = Rack((host,), (OFFICE, Circuit("kitchen", 230, 16)))
    assert [line.output_w for line in report(rack).lines] == [550, 600, 550, 600]


def test_a_load_that_several_supplies_name_is_shared_equally() -> None:
    pair = tuple(Supply(f"psu{n}", 1600, 1, 2, None, ("board", "slot0")) for n in range(2))
    rack = Rack((one_host(200, gpus=cards(1, 300), supplies=pair),))
    assert [line.output_w for line in report(rack).lines] == [250, 250]


def test_a_load_that_no_supply_names_is_never_forgotten() -> None:
    pair = (Supply("psu0", 1600, 1, 2, None, ("slot0",)), Supply("psu1", 1600, 1, 2, None, ("board",)))
    rack = Rack((one_host(100, gpus=cards(2, 300), supplies=pair),))
    assert [line.output_w for line in report(rack).lines] == [300 + 150, 100 + 150]


def test_a_circuit_also_carries_the_circuits_that_it_feeds() -> None:
    circuits = (
        Circuit("house", 230, 32),
        replace(OFFICE, upstream="house"),
        Circuit("ups", 230, 10, upstream="office"),
    )
    hosts = tuple(
        one_host(watts, name=name, supplies=(Supply("psu", 2000, 1, 2, circuit),))
        for name, watts, circuit in (("a", 100, "house"), ("b", 200, "office"), ("c", 400, "ups"))
    )
    carried = {line.meter.name: line.output_w for line in report(Rack(hosts, circuits)).circuits}
    assert carried == {"house": 700, "office": 600, "ups": 400}


def test_a_circle_of_circuits_is_walked_once() -> None:
    circuits = (replace(OFFICE, upstream="ups"), Circuit("ups", 230, 16, upstream="office"))
    rack = Rack((one_host(100),), circuits)
    assert [line.output_w for line in report(rack).circuits] == [100, 100]


def test_a_host_without_supplies_weighs_on_nothing() -> None:
    rack = Rack((Host("hub", 9999, cards(4, 400), ()),), (OFFICE,))
    assert [line.output_w for line in report(rack).lines] == [0]


# --- what is over ---


@pytest.mark.parametrize(
    ("base", "spike", "tolerance", "over"),
    [
        (1000, 1.0, 1.0, 0),
        (1001, 1.0, 1.0, 1),
        (600, 2.0, 1.3, 0),  # 200 + 400 W of cards that spike to 800: exactly what it stands
        (601, 2.0, 1.3, 1),
        (600, 2.0, 1.0, 300),
    ],
)
def test_a_supply_is_over_beyond_its_rating_or_beyond_the_spike_it_stands(
    base: int, spike: float, tolerance: float, over: int
) -> None:
    gpus = cards(1, 400, spike=spike) if spike > 1 else ()
    base = base if spike == 1 else base - 100
    host = one_host(base, gpus=gpus, supplies=(Supply("psu0", 1000, 0.5, tolerance),))
    (found,) = report(Rack((host,))).lines
    assert found.over_w == over
    assert bool(found.because) == bool(over)


def test_a_circuit_is_over_beyond_its_continuous_share() -> None:
    fits, over = (Rack((one_host(watts),), (OFFICE,)) for watts in (2944, 2945))
    assert report(fits).fits
    found = line(over, "circuit office")
    assert found.over_w == 1
    assert found.because == "has to carry 2945 W, 1 W more than 2944 W (80 % of 230 V x 16 A)"


@pytest.mark.parametrize(
    ("base", "amps", "said"),
    [
        (500.04, 500, "has to carry 501 W, 1 W more than 500 W"),
        (886.36, 500, "has to carry 887 W, 387 W more than 500 W"),
        (500.0, 499.9, "has to carry 500.9 W, 1 W more than 499.9 W"),
        (3_000_000.0, 1_000_000, "has to carry 3000000 W, 2000000 W more than 1000000 W"),
    ],
)
def test_what_is_over_is_told_in_numbers_that_agree_with_each_other(
    base: float, amps: float, said: str
) -> None:
    circuit = Circuit("c", 1, amps, 1.0, None, 10)
    host = Host("box", base, (), (Supply("psu", 10**7, 1, 1, "c"),))  # type: ignore[arg-type]
    found = line(Rack((host,), (circuit,)), "circuit c")
    assert found.because.startswith(said + " (")
    assert found.over_w == int(said.split()[5])


def test_only_what_is_over_and_bears_more_has_worsened() -> None:
    was, lower, higher, beyond = (
        report(Rack((one_host(100, gpus=cards(8, watts)),), (OFFICE,))) for watts in (370, 369, 371, 355)
    )
    assert was.over
    assert [one.meter.title for one in worsened(was, higher)] == ["circuit office"]
    assert worsened(was, lower) == worsened(was, was) == worsened(lower, beyond) == ()


def test_a_circuit_is_over_when_all_cards_spike_beyond_what_it_bears_for_milliseconds() -> None:
    rack = Rack((one_host(500, gpus=cards(8, 250, spike=1.7)),), (OFFICE,))
    found = line(rack, "circuit office")
    assert found.headroom_w > 0
    assert found.over_w == 3900 - 3680
    assert "up to 3900 W, 220 W more than 3680 W (1 x 230 V x 16 A, for milliseconds)" in found.because
    assert report(replace(rack, circuits=(replace(OFFICE, spike_tolerance=3.0),))).fits, "a breaker bears it"


def test_what_a_board_draws_besides_its_capped_chip_counts_and_does_not_spike() -> None:
    (card,) = cards(1, 200, spike=2.0)
    rack = Rack((one_host(100, gpus=(replace(card, beyond_w=50),)),), (OFFICE,))
    found = line(rack, "circuit office")
    assert (found.output_w, found.spike_w) == (350, 550)


def test_another_continuous_share_counts() -> None:
    rack = Rack((one_host(3680),), (replace(OFFICE, continuous_share=1.0),))
    assert report(rack).fits


# --- the cheapest change ---


def test_what_fits_needs_no_change() -> None:
    change = cheapest_change(Rack((one_host(100, gpus=cards(2, 300)),), (OFFICE,)))
    assert (change.text, change.taken_w) == ("", 0)


def test_the_cheapest_change_is_said_as_a_person_would_type_it() -> None:
    # 8 cards and 1464 W besides: 185 W each are exactly the 2944 W of the circuit.
    rack = Rack((one_host(1464, gpus=cards(8, 200)),), (OFFICE,))
    assert cheapest_change(rack).text == "cap 8 GPUs at 185 W (RTX 3090 in rig)"


def test_a_cap_is_a_whole_number_of_watts_that_fits() -> None:
    rack = Rack((one_host(1465, gpus=cards(8, 200)),), (OFFICE,))
    assert cheapest_change(rack).text.startswith("cap 8 GPUs at 184 W")


def test_cards_of_different_hosts_that_are_alike_get_one_cap() -> None:
    hosts = tuple(one_host(500, gpus=cards(4, 300), name=name) for name in ("a", "b"))
    change = cheapest_change(Rack(hosts, (OFFICE,)))
    assert change.text == "cap 8 GPUs at 243 W (RTX 3090 in a and b)"


def test_a_host_that_is_not_in_trouble_keeps_its_caps() -> None:
    weak = one_host(100, gpus=cards(4, 300), supplies=(Supply("psu0", 1000, 1, 2),), name="weak")
    strong = one_host(100, gpus=cards(4, 300), name="strong")
    assert cheapest_change(Rack((weak, strong))).text == "cap 4 GPUs at 225 W (RTX 3090 in weak)"


def test_the_fewest_watts_are_taken_where_a_watt_of_cap_saves_most() -> None:
    # A watt less behind the bad supply saves 1/0.5 W at the wall, one behind the good supply 1/1.
    poor = tuple(replace(card, kind="RTX 4090") for card in cards(2, 400))
    bad = one_host(0, gpus=poor, supplies=(Supply("p", 4000, 0.5, 9, "office"),), name="bad")
    good = one_host(0, gpus=cards(4, 400), supplies=(Supply("p", 4000, 1.0, 9, "office"),), name="good")
    change = cheapest_change(Rack((bad, good), (OFFICE,)))
    assert change.text == "cap 2 GPUs at 336 W (RTX 4090 in bad)"
    assert change.taken_w == 128


def test_no_card_is_capped_below_its_lowest() -> None:
    first = replace(cards(1, 575, lowest=400)[0], kind="RTX 5090")
    others = tuple(replace(card, name=f"other{n}") for n, card in enumerate(cards(4, 350)))
    host = one_host(100, gpus=(first, *others), supplies=(Supply("p", 1000, 1, 9),))
    change = cheapest_change(Rack((host,)))
    assert {cap.kind: cap.watts for cap in change.caps} == {"RTX 5090": 500, "RTX 3090": 100}
    assert change.taken_w == 1075


def test_a_card_without_caps_is_left_alone() -> None:
    fixed = replace(cards(1, 140, lowest=None)[0], kind="GB10", name="soc")
    host = one_host(100, gpus=(fixed, *cards(2, 300)), supplies=(Supply("p", 700, 1, 9),))
    assert cheapest_change(Rack((host,))).text == "cap 2 GPUs at 230 W (RTX 3090 in rig)"


# --- when no cap can help ---


def test_a_base_load_that_is_too_much_by_itself_is_said_so() -> None:
    hosts = (one_host(2000, name="a"), one_host(1000, name="b"), one_host(50, name="c"))
    change = cheapest_change(Rack(hosts, (OFFICE,)))
    assert change.text == (
        "no cap can fit circuit office: what is no card takes 3050 W there, 106 W more than its limit;"
        " move b to another circuit"
    )


def test_the_circuit_that_has_room_is_named() -> None:
    hosts = (one_host(2000, name="a"), one_host(1000, name="b"))
    kitchen = Circuit("kitchen", 230, 16)
    assert "move b to circuit kitchen" in cheapest_change(Rack(hosts, (OFFICE, kitchen))).text
    small = replace(kitchen, amps=4)
    assert "move b to another circuit" in cheapest_change(Rack(hosts, (OFFICE, small))).text
    fed_by_a_small_one = (OFFICE, replace(kitchen, upstream="cellar"), replace(small, name="cellar"))
    assert "move b to another circuit" in cheapest_change(Rack(hosts, fed_by_a_small_one)).text


def test_a_move_that_is_enough_only_with_caps_says_so() -> None:
    hosts = tuple(one_host(600, gpus=cards(8, 300), name=name) for name in ("a", "b", "c"))
    change = cheapest_change(Rack(hosts, (OFFICE,)))
    assert "with every card at its lowest cap it is still 1256 W over" in change.text
    assert "move a to another circuit, then cap the cards that stay" in change.text


def test_several_hosts_have_to_go_when_one_is_not_enough() -> None:
    hosts = tuple(one_host(1200, name=name) for name in ("a", "b", "c", "d", "e"))
    assert "move e, d and c to another circuit" in cheapest_change(Rack(hosts, (OFFICE,))).text


def test_a_host_alone_on_its_circuit_is_not_told_to_leave_it() -> None:
    change = cheapest_change(Rack((one_host(3000),), (OFFICE,)))
    assert change.text.endswith("spread its power supplies over more circuits, or take load away")


def test_a_supply_that_is_too_small_is_told_which_would_do() -> None:
    host = one_host(500, gpus=cards(4, 300, spike=1.5), supplies=(Supply("p", 750, 1, 1.3),))
    change = cheapest_change(Rack((host,)))
    assert change.text == (
        "no cap can fit p of rig: with every card at its lowest cap it is still 150 W over;"
        " hang something of it on another power supply, or use one of 900 W"
    )


def test_caps_are_named_also_when_another_meter_cannot_be_helped() -> None:
    lost = one_host(3000, name="lost")
    capped = one_host(100, gpus=cards(2, 300), supplies=(Supply("p", 500, 1, 9),), name="box")
    text = cheapest_change(Rack((lost, capped), (OFFICE,))).text
    assert text.startswith("cap 2 GPUs at 200 W (RTX 3090 in box); no cap can fit circuit office")
