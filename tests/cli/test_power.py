"""`labctl power`, and a rack over budget in `validate`, `plan` and `apply`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from powercap_rack import KEY, Done, Hosts, Play, fails

from labctl import wiring
from labctl.cli.main import main
from labctl.domain.failures import Failure
from labctl.ports import Said

UUIDS = [f"GPU-1111111{n}-2222-3333-4444-555555555555" for n in range(8)]

RACK = """\
from labctl.inventory import Circuit, Gpu, Host, Psu, Rack

_house = Circuit(name="house", volts=230, amps=32, spike_tolerance=1.0)
_office = Circuit(name="office", volts=230, amps=16, upstream="house", spike_tolerance=1.0)
_uuids = [f"GPU-1111111{n}-2222-3333-4444-555555555555" for n in range(8)]
_rig = Host(
    name="rig",
    address="10.0.0.1",
    gpus=[Gpu(model="RTX 3090", slot=f"slot{n}", uuid=_uuids[n], CAP) for n in range(8)],
    psus=[
        Psu(name="psu0", watts=1600, circuit="office", feeds=["board", "slot0", "slot1", "slot2", "slot3"]),
        Psu(name="psu1", watts=1600, circuit="office", feeds=["slot4", "slot5", "slot6", "slot7"]),
    ],
    base_w=250,
)
_desk = Host(
    name="desk",
    address="10.0.0.2",
    gpus=[Gpu(model="RTX 3090", slot=f"slot{n}", cap_w=245, cap_reason="circuit") for n in range(2)],
    psus=[Psu(name="psu", watts=1000, efficiency=0.88, circuit="house")],
    base_w=290,
)
_nas = Host(name="nas", address="10.0.0.3", roles=["storage"])
rack = Rack(name="home", hosts=[_rig, _desk, _nas], circuits=[_house, _office])
globals().update(rack.groups())
"""
CAPPED = RACK.replace("CAP", 'cap_w=200, cap_reason="circuit"')
OVER = RACK.replace(", CAP", "")

Power = Callable[..., Done]


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    played = Hosts()
    monkeypatch.setattr(wiring, "remote", lambda: played)
    return played


@pytest.fixture
def power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hosts: Hosts
) -> Power:
    """Return how to run labctl in a folder with a rack file; ``rack`` is its text."""
    folder = tmp_path / "inventory"
    folder.mkdir()
    (folder / "known_hosts").write_text("".join(f"10.0.0.{n} ssh-ed25519 {KEY}\n" for n in range(1, 4)))
    monkeypatch.chdir(tmp_path)
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"LABCTL_{name}", str(tmp_path / name.lower()))

    def call(*args: str, rack: str = CAPPED, command: str = "power") -> Done:
        (folder / "rack.py").write_text(rack)
        code = main((command, *args))
        said = capsys.readouterr()
        assert "bug in labctl" not in said.err, said.err
        return Done(code, said.out, said.err)

    return call


def gpu(n: int, **more: Any) -> dict[str, Any]:
    return {
        "uuid": UUIDS[n], "pci": f"0000:0{n}:00.0", "name": "NVIDIA GeForce RTX 3090", "power_w": 150.0,
        "cap_w": 200.0, "cap_default_w": 350.0, "asleep": False, "code": None, **more,
    }  # fmt: skip


def reports(*gpus: Any) -> Play:
    document = {"nvidia": {"gpus": gpus}, "amd": {"gpus": []}, "errors": {}, "findings": [], "caps": None}
    return lambda asked: Said(0, json.dumps(document).encode(), "")


def everything_well(hosts: Hosts) -> None:
    hosts.plays = {
        "rig": reports(*(gpu(n) for n in range(8))),
        "desk": reports(gpu(0, cap_w=245), gpu(1, cap_w=245)),
        "nas": reports(),
    }


# --- the budget ---


def test_the_table_is_plain_narrow_and_in_the_order_of_the_rack_file(power: Power) -> None:
    done = power("--offline")
    assert done.code == 0
    assert done.out == (
        "SUPPLY    OUTPUT  LIMIT   HEADROOM  SPIKE   SPIKE LIMIT  AT THE WALL\n"
        "rig psu0  1050 W  1600 W  550 W     1610 W  2080 W       1167 W       fits\n"
        "rig psu1   800 W  1600 W  800 W     1360 W  2080 W        889 W       fits\n"
        "desk psu   780 W  1000 W  220 W     1123 W  1300 W        886 W       fits\n"
        "\n"
        "CIRCUIT  STEADY  LIMIT   HEADROOM  SPIKE   SPIKE LIMIT\n"
        "house    2942 W  5888 W  2946 W    4576 W  7360 W       fits\n"
        "office   2056 W  2944 W   888 W    3300 W  3680 W       fits\n"
        "note: not counted, since no Psu is declared: nas\n"
    )
    assert max(map(len, done.out.splitlines())) <= 80


def test_headroom_is_rounded_down_so_that_what_is_over_shows_none(power: Power) -> None:
    tight = CAPPED.replace('name="office", volts=230, amps=16', 'name="office", volts=230, amps=11.17')
    done = power("--offline", rack=tight)
    assert "office   2056 W  2055 W    -1 W    3300 W  2569 W       over" in done.out
    assert "office has to carry 2056.3 W, 1 W more than 2055.3 W (80 % of 230 V x 11.17 A)" in done.out


def test_what_is_over_is_marked_by_a_word_and_the_cheapest_change_is_named(power: Power) -> None:
    done = power("--offline", rack=OVER)
    assert done.code == 1
    assert "rig psu0  1650 W  1600 W  -50 W     2630 W  2080 W       1833 W       over" in done.out
    assert (
        "over: circuit office has to carry 3389 W, 445 W more than 2944 W (80 % of 230 V x 16 A)" in done.out
    )
    assert done.out.splitlines()[-1] == "cheapest change that fits: cap 8 GPUs at 225 W (RTX 3090 in rig)"


def test_a_rack_without_supplies_has_no_budget_and_says_how_to_get_one(power: Power) -> None:
    rack = (
        'from labctl.inventory import *\nrack = Rack(name="r", hosts=[Host(name="a", address="10.0.0.1")])\n'
    )
    done = power("--offline", rack=rack + "globals().update(rack.groups())\n")
    assert done.code == 0
    assert "so there is no budget" in done.out
    assert "psus=[Psu(...)]" in done.out


def test_watts_that_nobody_declared_are_said(power: Power) -> None:
    done = power("--offline", rack=CAPPED.replace("    base_w=250,\n", ""))
    assert "counted as 0 W besides the cards, since base_w is not declared: rig" in done.out


def test_offline_contacts_nobody(power: Power, hosts: Hosts) -> None:
    power("--offline")
    assert hosts.asked == []


# --- what hosts say ---


def test_a_rack_as_declared_shows_what_it_draws_and_exits_with_0(power: Power, hosts: Hosts) -> None:
    everything_well(hosts)
    done = power()
    assert (done.code, done.err) == (0, "")
    assert "rig 8 of 8 1200 W ok" in done.words
    assert "desk 2 of 2 300 W ok" in done.words
    assert "nas none ok" in done.words
    assert {(call.argv[1:], call.root) for call in hosts.asked} == {(("report",), False)}


def test_a_missing_card_is_told_and_exits_with_1(power: Power, hosts: Hosts) -> None:
    everything_well(hosts)
    hosts.plays["rig"] = reports(*(gpu(n) for n in range(8) if n != 3))
    done = power()
    assert done.code == 1
    assert "rig 7 of 8 1050 W wrong 1 of 8 RTX 3090 is missing (slot3)" in done.words
    assert "warning: host rig: 1 of 8 RTX 3090 is missing (slot3)" in done.err


def test_a_cap_that_differs_is_told_and_exits_with_1(power: Power, hosts: Hosts) -> None:
    everything_well(hosts)
    hosts.plays["desk"] = reports(gpu(0, cap_w=300), gpu(1, cap_w=245))
    done = power()
    assert done.code == 1
    # Nothing tells its two cards apart, so they go by where they sit, and the order is for both.
    assert "0000:00:00.0 is capped at 300 W, declared are 245 W (circuit)" in done.words
    assert done.words.rstrip().endswith("labctl powercap --reset desk")


def test_a_host_that_is_off_is_a_row_and_no_failure(power: Power, hosts: Hosts) -> None:
    everything_well(hosts)
    del hosts.plays["desk"]
    done = power()
    assert (done.code, done.err) == (0, "")
    assert "desk ? ? unreachable 10.0.0.9:22 did not answer within 10 s" in done.words


def test_a_host_without_the_agent_is_a_failure_with_what_to_do(power: Power, hosts: Hosts) -> None:
    everything_well(hosts)
    hosts.plays["desk"] = lambda asked: Said(127, b"", "no such file")
    done = power()
    assert done.code == 1
    assert "desk ? ? failed" in done.words
    assert "hint: labctl apply --limit desk" in done.words


def test_ctrl_c_ends_with_130(power: Power, hosts: Hosts) -> None:
    everything_well(hosts)
    hosts.plays["desk"] = fails(Failure("interrupted", "it was not asked any more", unreachable=True))
    assert power().code == 130


def test_only_the_hosts_in_the_limit_are_asked_and_the_budget_stays_whole(power: Power, hosts: Hosts) -> None:
    everything_well(hosts)
    done = power("--limit", "desk,nas")
    assert {call.host for call in hosts.asked} == {"desk", "nas"}
    assert "rig psu0" in done.out
    assert power("--limit", "dsk").code == 2


def test_a_host_cannot_paint_the_terminal(power: Power, hosts: Hosts) -> None:
    everything_well(hosts)
    hosts.plays["desk"] = reports(
        gpu(0, cap_w=245), gpu(1, cap_w=245), gpu(2, name="evil\x1b[31m\nhost", cap_w=9)
    )
    done = power()
    assert done.code == 1
    assert "evil" in done.words
    assert "\x1b" not in done.out + done.err


# --- the document ---


def test_the_document_holds_all_of_it(power: Power, hosts: Hosts) -> None:
    everything_well(hosts)
    hosts.plays["rig"] = reports(*(gpu(n) for n in range(1, 8)))
    del hosts.plays["nas"]
    done = power("--json", rack=CAPPED)
    found = json.loads(done.out)
    assert (done.code, done.err) == (1, "")
    assert (found["ok"], found["fits"], found["rack"], found["change"]) == (False, True, "home", None)
    assert found["psus"][2] == {
        "host": "desk", "name": "psu", "circuit": "house", "output_w": 780.0, "steady_w": 886.4,
        "limit_w": 1000, "headroom_w": 220.0, "spike_w": 1123.0, "spike_limit_w": 1300.0,
        "spike_headroom_w": 177.0, "over_w": 0, "because": "",
    }  # fmt: skip
    assert [(one["name"], one["upstream"], one["limit_w"]) for one in found["circuits"]] == [
        ("house", None, 5888.0), ("office", "house", 2944.0)
    ]  # fmt: skip
    rig, desk, nas = found["hosts"]
    assert (rig["status"], rig["declared"], rig["present"], rig["draw_w"]) == ("wrong", 8, 7, 1050)
    assert rig["wrong"][0]["code"] == "missing"
    assert rig["cards"][0]["state"] == "missing"
    assert desk["cards"][0] == {
        "name": "0000:00:00.0", "model": "RTX 3090", "state": "ok", "power_w": 150.0, "cap_w": 245.0,
        "declared_w": 245, "reason": "circuit",
    }  # fmt: skip
    assert (nas["status"], nas["failure"]["code"]) == ("unreachable", "timeout")


def test_the_document_of_a_rack_over_budget_names_the_change(power: Power) -> None:
    found = json.loads(power("--json", "--offline", rack=OVER).out)
    assert (found["ok"], found["fits"], found["hosts"]) == (False, False, None)
    (cap,) = found["change"]["caps"]
    assert (cap["kind"], cap["before_w"], cap["watts"], len(cap["cards"])) == ("RTX 3090", 350, 225, 8)
    assert (found["change"]["taken_w"], found["change"]["shortages"]) == (1000, [])
    assert found["circuits"][1]["over_w"] == 5567 - 3680


# --- refusals of what changes hosts ---


def test_plan_and_apply_refuse_a_rack_over_budget_before_anything_else(power: Power) -> None:
    for args in (("--limit", "nas"), ("--only", "base")):
        for command in ("plan", "apply"):
            done = power(*args, rack=OVER, command=command)
            assert (done.code, done.out) == (2, "")
            assert (
                "error: inventory/rack.py:4: circuits[1]: circuit office has to carry 3389 W, 445 W more than"
                " 2944 W (80 % of 230 V x 16 A)" in done.words
            )
            assert "inventory/rack.py:11: host rig: psus[0]: psu0 has to give 1650 W" in done.words
            assert "hint: cheapest change that fits: cap 8 GPUs at 225 W (RTX 3090 in rig)" in done.words


def test_validate_tells_it_too_and_as_json_with_line_and_field(power: Power) -> None:
    assert power(command="validate").code == 0
    assert power(rack=OVER, command="validate").code == 2
    done = power("--json", rack=OVER, command="validate")
    found = {(one["host"], one["field"]): one["line"] for one in json.loads(done.out)["problems"]}
    assert done.code == 2
    assert found == {("rig", "psus[0]"): 11, ("rig", "psus[1]"): 12, ("", "circuits[1]"): 4}


def test_the_change_that_is_named_is_accepted(power: Power) -> None:
    assert power(rack=RACK.replace("CAP", 'cap_w=225, cap_reason="circuit"'), command="validate").code == 0
    assert power(rack=RACK.replace("CAP", 'cap_w=226, cap_reason="circuit"'), command="validate").code == 2


def test_a_rack_that_no_cap_can_save_names_what_has_to_move(power: Power) -> None:
    done = power(rack=CAPPED.replace("base_w=250", "base_w=2700"), command="validate")
    assert done.code == 2
    assert "no cap can fit psu0 of rig: what is no card takes 2700 W there" in done.words
    assert "no cap can fit circuit office" in done.words
