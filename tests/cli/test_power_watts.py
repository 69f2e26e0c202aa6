"""What of a rack file the budget counts, and where its refusals point."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.domain.budget_change import cheapest_change
from labctl.inventory import Circuit, Gpu, Host, Psu, Rack, load_rack, profiles
from labctl.inventory.checks import check
from labctl.inventory.watts import power_of, rack_budget, refusals, uncounted

UUID = "GPU-11111111-2222-3333-4444-555555555555"


def host(*gpus: Gpu, psus: tuple[Psu, ...] = (Psu(name="p", watts=2000),), base: int | None = 100) -> Host:
    return Host(name="rig", address="10.0.0.1", gpus=gpus, psus=psus, base_w=base)


def outputs(*hosts: Host, circuits: tuple[Circuit, ...] = ()) -> list[float]:
    report = rack_budget(Rack(name="home", hosts=hosts, circuits=circuits))
    return [round(line.output_w, 1) for line in report.lines]


def test_a_card_counts_with_its_cap_else_its_hosts_else_full_load() -> None:
    own = Gpu(model="RTX 3090", slot="a", cap_w=200, cap_reason="heat")
    free = Gpu(model="RTX 3090", slot="b")
    assert outputs(host(own, free)) == [100 + 200 + 350]
    capped = host(own, free).model_copy(update={"cap_w": 250, "cap_reason": "psu"})
    assert outputs(capped) == [100 + 200 + 250]


def test_a_card_that_labctl_does_not_know_counts_with_the_watts_that_are_given() -> None:
    assert outputs(host(Gpu(model="Mystery 9", slot="a", vendor="nvidia", tdp_w=123))) == [223]


def test_a_card_is_found_by_whichever_of_its_names_a_supply_feeds() -> None:
    gpus = (
        Gpu(model="RTX 3090", slot="a", uuid=UUID),
        Gpu(model="RTX 3090", slot="b", pci="3b:00.0"),
        Gpu(model="RTX 3090", slot="c"),
    )
    psus = (
        Psu(name="p", watts=2000, feeds=["board", UUID, "c"]),
        Psu(name="q", watts=2000, feeds=["00000000:3B:00.0", "c"]),
    )
    assert outputs(host(*gpus, psus=psus)) == [100 + 350 + 175, 350 + 175]


def test_circuits_carry_what_their_supplies_take_and_what_they_feed() -> None:
    circuits = (Circuit(name="house"), Circuit(name="office", upstream="house"))
    found = outputs(
        host(psus=(Psu(name="p", watts=500, efficiency=0.8, circuit="office"),)), circuits=circuits
    )
    assert found == [100, 125, 125]


def test_a_lowest_cap_that_nobody_knows_is_proposed_no_lower_than_half() -> None:
    # Of a card that no row knows any cap from 1 W on is assumed, which no card takes.
    card = Gpu(model="Mystery 9", slot="a", vendor="amd", tdp_w=355)
    small = (Psu(name="p", watts=250, spike_tolerance=3),)
    change = cheapest_change(power_of(Rack(name="home", hosts=[host(card, psus=small)])))
    assert change.caps == ()
    assert "with every card at its lowest cap it is still 28 W over" in change.text
    enough = (Psu(name="p", watts=278, spike_tolerance=3),)
    change = cheapest_change(power_of(Rack(name="home", hosts=[host(card, psus=enough)])))
    assert change.text == "cap 1 GPU at 178 W (Mystery 9 in rig)"


@pytest.mark.parametrize("model", [row.name for row in profiles.ALL if row.cap_min_w is not None])
def test_what_is_proposed_for_a_card_is_a_cap_that_the_rack_file_may_have_and_that_fits(model: str) -> None:
    bare = [Gpu(model=model, slot=slot) for slot in ("a", "b")]
    full = outputs(host(*bare, psus=(Psu(name="p", watts=5000),)))[0]
    row = profiles.of(bare[0])
    assert full == 100 + 2 * row.tdp_w
    tight = (Psu(name="p", watts=round(full) - 5, spike_tolerance=3),)
    before = Rack(name="home", hosts=[host(*bare, psus=tight)])
    (cap,) = cheapest_change(power_of(before)).caps
    capped = [Gpu(model=model, slot=gpu.slot, cap_w=cap.watts, cap_reason="psu") for gpu in bare]
    after = Rack(name="home", hosts=[host(*capped, psus=tight)])
    assert rack_budget(after).fits
    assert check(after) == []
    assert cap.before_w - cap.watts == 3  # 5 W of two cards are 3 W of each


def test_what_the_budget_cannot_count_is_said() -> None:
    bare = Host(name="nas", address="10.0.0.2")
    rack = Rack(name="home", hosts=[host(base=None), bare], circuits=[Circuit(name="office")])
    assert uncounted(rack) == (
        "not counted, since no Psu is declared: nas",
        "counted as 0 W besides the cards, since base_w is not declared: rig",
        "on no circuit: p of rig",
    )
    assert uncounted(Rack(name="home", hosts=[bare])) == ()


FILE = """\
from labctl.inventory import *

def box(name, n, watts):
    return Host(
        name=name, address=f"10.0.0.{n}", base_w=500,
        psus=[Psu(name="p", watts=1000),
              Psu(name="q",
                  watts=watts, feeds=["board"])],
    )

rack = Rack(name="home", hosts=[box("a", 1, 600), box("b", 2, 400)])
globals().update(rack.groups())
"""


def test_a_refusal_points_at_the_supply_also_when_a_function_made_it(tmp_path: Path) -> None:
    path = tmp_path / "rack.py"
    path.write_text(FILE)
    (problem,) = refusals(load_rack(path))
    assert (problem.file, problem.line, problem.host, problem.field) == (str(path), 7, "b", "psus[1]")
    assert problem.reason == "q has to give 500 W, 100 W more than 400 W (its rating)"
    assert problem.hint.startswith("no cap can fit q of b: what is no card takes 500 W there")


def test_lines_are_those_of_the_file_that_was_loaded_whatever_it_says_by_now(tmp_path: Path) -> None:
    path = tmp_path / "rack.py"
    path.write_text(FILE)
    loaded = load_rack(path)
    (before,) = refusals(loaded)
    path.write_text("this is no Python")
    assert refusals(loaded) == [before]
    assert before.line == 7
