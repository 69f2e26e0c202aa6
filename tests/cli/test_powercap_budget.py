"""`labctl powercap` against the budget of the rack file: what lifts a meter over its limit needs words."""

from __future__ import annotations

from pathlib import Path

import pytest
from powercap_rack import UUIDS, Bench, bench_in, card, geforce, says

from labctl.inventory import load_rack, watts

# 3 x 250 W + 250 W = 1000 W of the rig, at 90 % and with the 600 W of big it is 1778 W of 1840 W.
RACK = f"""\
from labctl.inventory import Circuit, Gpu, Host, Psu, Rack

_ends = "{UUIDS[0][12:]}"
rack = Rack(name="desk", circuits=[Circuit(name="office", amps=10)], hosts=[
    Host(name="rig", address="10.0.0.1", base_w=250, cap_w=250, cap_reason="efficiency",
         psus=[Psu(name="psu0", watts=1400, circuit="office")],
         gpus=[Gpu(model="RTX 3090", slot=f"slot{{n}}", uuid=f"GPU-1111111{{n}}{{_ends}}")
               for n in range(3)]),
    Host(name="big", address="10.0.0.2", base_w=200, cap_w=400, cap_reason="efficiency",
         psus=[Psu(name="psu0", watts=1000, circuit="office")],
         gpus=[Gpu(model="RTX 5090", slot="slot0", uuid="{UUIDS[3]}")]),
])
globals().update(rack.groups())
"""
OVER = RACK.replace("amps=10", "amps=9")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    made = bench_in(tmp_path, monkeypatch, capsys, RACK)
    rig = says(*(card(f"slot{n}", "changed") for n in range(3)))
    made.hosts.plays = {"rig": rig, "big": says(geforce("changed"))}
    return made


def test_what_takes_a_circuit_over_its_limit_is_refused_by_how_much_and_with_what_fits(bench: Bench) -> None:
    done = bench.powercap("300", "rig")
    assert (done.code, bench.hosts.asked) == (2, [])
    # (3 x 300 + 250 + 600) / 0.9 = 1944.4 W; with 268 W it is 1837.8 W.
    assert done.words == (
        "error: with these caps circuit office has to carry 1945 W, 105 W more than 1840 W"
        " (80 % of 230 V x 10 A)"
        ' hint: 268 W would fit; if you know better, say why: --override "WORDS"'
    )
    assert bench.powercap("269", "rig").code == 2
    assert bench.powercap("268", "rig").code == 0


def test_every_meter_that_would_be_over_is_named(bench: Bench) -> None:
    done = bench.powercap("400", "rig", "--dry-run")
    assert (done.code, bench.hosts.asked) == (2, [])
    assert "psu0 of rig has to give 1450 W, 50 W more than 1400 W (its rating)" in done.err
    assert "circuit office has to carry" in done.err


def test_one_card_may_have_what_not_all_of_them_may(bench: Bench) -> None:
    assert bench.powercap("300", "rig/slot1").code == 0
    assert bench.hosts.orders()["rig"]["cards"] == [f"GPU-11111111{UUIDS[0][12:]}"]


def test_words_go_over_the_limit_and_what_they_do_is_said(bench: Bench) -> None:
    done = bench.powercap("300", "rig", "--override", "fuse is 16 A now")
    assert done.code == 0
    assert "warning: with these caps circuit office has to carry 1945 W" in done.err
    assert bench.hosts.orders()["rig"]["override"] == "fuse is 16 A now"


def test_a_rack_that_is_over_already_may_be_lowered_and_reset_but_not_lifted(bench: Bench) -> None:
    (bench.folder / "inventory/rack.py").write_text(OVER)
    assert watts.rack_budget(load_rack(bench.folder / "inventory/rack.py").rack).over
    for args in (("200", "rig"), ("250", "rig"), ("--reset", "rig"), ("--lock-clocks", "210,1400", "rig")):
        assert bench.powercap(*args).code == 0
    done = bench.powercap("251", "rig/slot0")
    assert done.code == 2
    assert "hint: 250 W would add nothing to what is over; if you know better" in done.err


def test_where_no_cap_fits_all_of_the_cards_none_is_proposed(bench: Bench) -> None:
    done = bench.powercap(
        "450", "all"
    )  # RTX 5090 take no less than 400 W, and with 400 W RTX 3090 are too much
    assert (done.code, bench.hosts.asked) == (2, [])
    assert "circuit office has to carry" in done.err
    assert "would fit" not in done.err
