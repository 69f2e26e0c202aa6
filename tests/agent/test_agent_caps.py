"""Caps reach the cards and stay: real calls to a fake NVML, an AMD tree, and everything that breaks."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

import pynvml  # children that ask the driver are forked from here, so it is read once
import pytest

from capped_host import NOW, MakeBox, capped, codes, statuses
from fake_gpus import MakeNvml, MakeTree
from labctl.agent import caps, capstate, cards
from labctl.domain import cap_json
from labctl.domain.capping import Change, Declared

assert pynvml.nvmlDeviceSetPowerManagementLimit
MODEL = (r"NVIDIA GeForce RTX 3090",)


# --- what is declared ---


def test_declared_caps_are_set_read_back_and_the_second_run_changes_nothing(box: MakeBox) -> None:
    host = box("RTX 3090", "RTX 3090", "RTX 5090")
    first, second, _ = host.gpus.cards
    host.declare(capped(first), Declared("RTX 3090", pci=second.pci, cap_w=220, reason="noise"))
    answer = host.apply()
    assert statuses(answer) == ["changed", "changed", "unchanged"]
    assert (host.watts(), caps.exit_code(answer)) == ([200, 220, 575], 0)
    row = answer["cards"][0]
    assert (row["before_w"], row["after_w"], row["declared_w"], row["declared_reason"]) == (
        350,
        200,
        200,
        "circuit",
    )
    assert (row["min_w"], row["max_w"], row["default_w"], row["source"]) == (100, 400, 350, "declared")
    before = host.gpus.writes()
    assert statuses(host.apply()) == ["unchanged", "unchanged", "unchanged"]
    assert host.gpus.writes() == before


def test_cards_without_a_name_are_capped_by_their_model(box: MakeBox) -> None:
    host = box("RTX 5090", "RTX 3090")
    host.declare(Declared("RTX 3090", slot="slot0", patterns=MODEL, cap_w=200, reason="psu"))
    answer = host.apply()
    assert host.watts() == [575, 200]
    assert [card["slot"] for card in answer["cards"]] == [None, "slot0"]
    assert codes(answer) == {"undeclared-card"}


def test_a_removed_card_is_a_finding_and_the_others_are_capped(box: MakeBox) -> None:
    host = box("RTX 3090", "RTX 3090")
    host.declare(*map(capped, host.gpus.cards))
    host.gpus.fault(0, "removed")
    gone = host.root / "sys/bus/pci/devices" / host.gpus.cards[0].pci
    for file in gone.iterdir():
        file.unlink()
    gone.rmdir()
    answer = host.apply()
    assert (statuses(answer), caps.exit_code(answer)) == (["changed", "missing"], 0)
    assert host.gpus.cap_w(1) == 200
    assert codes(answer) == {"missing-card"}
    assert answer["cards"][1]["uuid"] == host.gpus.cards[0].uuid
    assert json.loads(host.file("outcome.json").read_text())["cards"][1]["status"] == "missing"
    (line,) = caps.complaints(answer)
    assert line.startswith("missing-card: RTX 3090 ")


def test_a_lost_card_is_named_by_its_address_and_the_others_are_capped(box: MakeBox) -> None:
    host = box("RTX 3090", "RTX 3090", "RTX 3090")
    host.declare(*(capped(card, pci=card.pci) for card in host.gpus.cards))
    host.gpus.fault(1, "lost")
    answer = host.apply()
    assert (statuses(answer), caps.exit_code(answer)) == (["changed", "changed", "missing"], 0)
    (finding,) = answer["findings"]
    assert (finding["code"], finding["card"]) == ("gpu-lost", host.gpus.cards[1].pci)
    assert "Xid 79" in finding["hint"]


def test_a_card_that_hangs_fails_in_time_and_stops_no_other(
    box: MakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "DEADLINE_S", 2.0)
    host = box("RTX 3090", "RTX 3090", "RTX 3090")
    host.declare(*map(capped, host.gpus.cards))
    host.gpus.fault(0, "hang")
    began = time.monotonic()
    answer = host.apply()
    assert time.monotonic() - began < 8
    assert sorted(statuses(answer)) == ["changed", "changed", "failed"]
    assert caps.exit_code(answer) == 1
    assert host.watts()[1:] == [200, 200]
    assert "hang" in codes(answer)


def test_a_card_that_hangs_while_it_is_set_leaves_the_lock_to_the_next_run(
    box: MakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "DEADLINE_S", 1.0)
    monkeypatch.setattr(capstate, "_LOCK_FOR_S", 1.0)
    host = box("RTX 3090", "RTX 3090")
    host.declare(*map(capped, host.gpus.cards))
    host.gpus.set(0, **{"delay.nvmlDeviceSetPowerManagementLimit": 600_000})
    answer = host.apply()
    assert statuses(answer) == ["failed", "changed"]
    assert "did not answer within" in answer["cards"][0]["why"]
    host.gpus.set(0, **{"delay.nvmlDeviceSetPowerManagementLimit": None})
    assert statuses(host.apply()) == ["changed", "unchanged"]


def test_a_card_whose_driver_refuses_fails_and_the_others_are_done(box: MakeBox) -> None:
    host = box("RTX 3090", "RTX 3090")
    host.declare(*map(capped, host.gpus.cards))
    host.gpus.fault(0, "refuse")
    answer = host.apply()
    assert (statuses(answer), host.watts(), caps.exit_code(answer)) == (["failed", "changed"], [350, 200], 1)
    assert answer["cards"][0]["why"] == "the driver refuses: Insufficient Permissions"
    assert answer["cards"][0]["after_w"] == 350


def test_a_declared_cap_that_the_card_cannot_take_is_refused_with_its_range(box: MakeBox) -> None:
    host = box("RTX 5090", "GB10")
    host.declare(*(capped(card, 300) for card in host.gpus.cards))
    answer = host.apply()
    assert (statuses(answer), caps.exit_code(answer)) == (["refused", "refused"], 1)
    assert "400 to 600 W" in answer["cards"][0]["why"] and "--lock-clocks" in answer["cards"][0]["hint"]
    assert answer["cards"][1]["why"] == "this card has no power cap"


@pytest.mark.parametrize(
    ("broken", "code"), [("mismatch", "driver-mismatch"), ("unload", "driver-not-loaded")]
)
def test_cards_on_the_bus_without_a_working_driver_have_failed_and_are_not_missing(
    box: MakeBox, broken: str, code: str
) -> None:
    host = box("RTX 3090", "RTX 3090")
    host.declare(capped(host.gpus.cards[0]), Declared("RTX 3090", slot="slot1", patterns=MODEL))
    getattr(host.gpus, broken)()
    for answer in (host.apply(), host.show()):
        assert statuses(answer) == ["failed", "failed"]
        assert codes(answer) == {code}
    assert caps.exit_code(host.apply()) == 1
    ordered = host.order(watts=200)
    assert (caps.exit_code(ordered), codes(ordered)) == (1, {code})


def test_a_driver_that_forgets_without_persistence_mode_is_caught(box: MakeBox) -> None:
    host = box("RTX 3090")
    host.declare(capped(host.gpus.cards[0]))
    host.gpus.forgetful()
    assert statuses(host.apply()) == ["changed"]
    assert host.gpus.get(0, "persistence") == "1"
    host.gpus.set(0, **{"persistence": 0, "power_limit_mw": 350_000, "err.nvmlDeviceSetPersistenceMode": 3})
    answer = host.apply()
    assert (statuses(answer), caps.exit_code(answer)) == (["failed"], 1)
    assert "persistence mode is off" in answer["cards"][0]["hint"]


def test_a_limit_that_another_tool_set_is_left_alone_and_our_own_is_undone(box: MakeBox) -> None:
    host = box("RTX 3090", "RTX 3090")
    host.gpus.set(0, power_limit_mw=250_000)
    host.declare(capped(host.gpus.cards[1]))
    host.apply()
    host.declare()
    answer = host.apply()
    assert (statuses(answer), host.watts()) == (["unchanged", "changed"], [250, 350])
    assert "nobody asks for a cap" in answer["cards"][1]["why"]


# --- orders ---


def test_an_order_holds_until_the_next_run(box: MakeBox) -> None:
    host = box("RTX 3090", "RTX 3090")
    host.declare(capped(host.gpus.cards[0], 220))
    host.apply()
    answer = host.order(watts=180, by="a person")
    assert (statuses(answer), host.watts()) == (["changed", "changed"], [180, 180])
    assert host.show()["cards"][0]["status"] == "would-change"
    assert statuses(host.apply()) == ["changed", "changed"]
    assert host.watts() == [220, 350]
    assert not host.file("overrides.json").exists()


def test_an_order_is_about_the_named_cards_and_a_wrong_name_is_told(box: MakeBox) -> None:
    host = box("RTX 3090", "RTX 3090", "RTX 3090")
    first, second, _ = host.gpus.cards
    host.declare(Declared("RTX 3090", slot="slot0", uuid=first.uuid))
    answer = host.order(watts=200, cards=["slot0", second.pci, "slot9", "GPU-none"])
    assert host.watts() == [200, 200, 350]
    assert (statuses(answer), caps.exit_code(answer)) == (["changed", "changed", "missing", "missing"], 1)
    assert answer["cards"][2]["why"] == "this host has no card slot9"


def test_cards_that_cannot_are_refused_one_by_one_and_the_others_are_done(box: MakeBox) -> None:
    host = box("RTX 3090", "RTX 5090", "GB10", "RTX 3090")
    host.declare(capped(host.gpus.cards[3], 180))
    host.apply()
    answer = host.order(watts=200)
    assert statuses(answer) == ["changed", "refused", "no-cap", "refused"]
    assert "above the 180 W that protect its circuit" in answer["cards"][3]["why"]
    assert (host.watts(), caps.exit_code(answer)) == ([200, 575, 0, 180], 1)
    assert statuses(host.order(watts=200, cards=[host.gpus.cards[2].uuid])) == ["no-cap"]


def test_words_lift_a_protecting_cap_and_last_with_the_order(box: MakeBox) -> None:
    host = box("RTX 3090")
    host.declare(capped(host.gpus.cards[0], 200))
    answer = host.order(watts=300, override="the other circuit feeds it today", persist=True)
    assert (statuses(answer), host.watts()) == (["changed"], [300])
    assert (statuses(host.apply()), host.watts()) == (["unchanged"], [300])
    assert host.apply()["cards"][0]["source"] == "override"


def test_an_override_above_a_cap_that_came_later_is_ignored_and_told(box: MakeBox) -> None:
    host = box("RTX 3090")
    host.order(watts=300, persist=True)
    host.declare(capped(host.gpus.cards[0], 200))
    answer = host.apply()
    assert (host.watts(), codes(answer)) == ([200], {"override-ignored"})


def test_what_is_persisted_survives_a_reboot_and_ends_with_a_reset(box: MakeBox) -> None:
    host = box("RTX 3090", "RTX 3090")
    assert statuses(host.order(watts=200, persist=True, by="me")) == ["changed", "changed"]
    host.gpus.set(0, power_limit_mw=350_000)
    host.gpus.set(1, power_limit_mw=350_000)
    host.boot("second")
    assert (statuses(host.apply()), host.watts()) == (["changed", "changed"], [200, 200])
    assert host.file("overrides.json").stat().st_mode & 0o777 == 0o600
    assert host.file("outcome.json").stat().st_mode & 0o777 == 0o644
    answer = host.order(reset=True, cards=[host.gpus.cards[1].uuid])
    assert (statuses(answer), host.watts()) == (["changed"], [200, 350])
    host.apply()
    assert host.watts() == [200, 350]


def test_a_reset_returns_also_what_another_tool_set_to_the_default(box: MakeBox) -> None:
    host = box("RTX 3090", "GB10")
    host.gpus.set(0, power_limit_mw=222_000)
    answer = host.order(reset=True)
    assert (statuses(answer), host.watts()[0]) == (["changed", "no-cap"], 350)


def test_a_timed_order_ends_by_the_clock_and_its_timer_is_armed_at_each_run(box: MakeBox) -> None:
    host = box("RTX 3090")
    host.declare(capped(host.gpus.cards[0], 250, "noise"))
    answer = host.order(watts=200, until=NOW + 3600)
    assert (answer["until"], host.timers) == (NOW + 3600, [NOW + 3600])
    host.at(NOW + 3599)
    host.boot("second")
    host.gpus.set(0, power_limit_mw=350_000)
    host.apply()
    assert (host.watts(), host.timers) == ([200], [NOW + 3600] * 2)
    host.at(NOW + 3600)
    assert statuses(host.apply()) == ["changed"]
    assert (host.watts(), host.timers[-1]) == ([250], None)
    host.apply()
    assert len(host.timers) == 3
    assert json.loads(host.file("overrides.json").read_text())["overrides"] == []


def test_a_clock_in_the_past_stretches_no_timed_order_and_the_right_time_brings_it_back(box: MakeBox) -> None:
    host = box("RTX 3090")
    host.declare(capped(host.gpus.cards[0], 250, "noise"))
    host.order(watts=200, until=NOW + 3600)
    host.at(NOW + 60)
    host.apply()
    host.boot("second")
    for wrong in (0, NOW - 1, NOW + 59):
        host.at(wrong)
        answer = host.apply()
        assert (host.watts(), codes(answer)) == ([250], {"clock-behind"})
        assert host.timers[-1] == NOW + 3600
    host.at(NOW + 100)
    host.apply()
    assert host.watts() == [200]


def test_an_order_until_a_time_that_is_over_is_refused(box: MakeBox) -> None:
    host = box("RTX 3090")
    answer = host.order(watts=200, until=NOW)
    assert (answer["error"]["code"], caps.exit_code(answer)) == ("bad-order", 2)
    assert "is over" in answer["error"]["what"]
    assert host.gpus.writes() == []


def test_clocks_are_locked_renewed_and_unlocked(box: MakeBox) -> None:
    host = box("RTX 5090")
    host.declare(capped(host.gpus.cards[0], 450, "heat", clocks_mhz=(210, 2000)))
    answer = host.apply()
    assert (answer["cards"][0]["clocks_after"], host.gpus.get(0, "lock_max")) == ([210, 2000], "2000")
    # No driver tells whether clocks are locked, so each run locks them again, and calls that no change.
    host.gpus.set(0, lock_min=None, lock_max=None)
    assert statuses(host.apply()) == ["unchanged"]
    assert host.gpus.get(0, "lock_max") == "2000"
    assert statuses(host.show()) == ["unchanged"]
    host.boot("second")
    assert statuses(host.show()) == ["would-change"]
    answer = host.order(clocks_mhz="reset", persist=True)
    assert (answer["cards"][0]["clocks_after"], host.gpus.get(0, "lock_max")) == (None, None)
    host.apply()
    assert (host.gpus.get(0, "lock_max"), host.watts()) == (None, [450])
    host.order(reset=True)
    assert host.gpus.get(0, "lock_max") == "2000"


def test_a_clock_lock_that_nobody_wants_any_more_is_undone(box: MakeBox) -> None:
    host = box("RTX 3090")
    assert statuses(host.order(clocks_mhz=[300, 1500])) == ["changed"]
    assert host.gpus.get(0, "lock_max") == "1500"
    assert statuses(host.apply()) == ["changed"]
    assert host.gpus.get(0, "lock_max") is None


def test_neither_a_dry_run_nor_a_show_changes_anything(box: MakeBox) -> None:
    host = box("RTX 3090", "RTX 5090")
    host.declare(capped(host.gpus.cards[0], 250))
    before = sorted(path for path in host.root.rglob("*"))
    answer = host.order(watts=200, persist=True, dry_run=True)
    assert statuses(answer) == ["would-change", "refused"]
    assert (answer["cards"][0]["before_w"], answer["cards"][0]["after_w"]) == (350, 200)
    shown = host.show()
    assert (statuses(shown), shown["ok"], caps.exit_code(shown)) == (["would-change", "unchanged"], False, 0)
    assert host.gpus.writes() == []
    assert sorted(path for path in host.root.rglob("*")) == before


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"watts": 200},
        {"format": 1, "watts": "200"},
        {"format": 1, "watts": -5},
        {"format": 1, "x": 1},
    ],
)
def test_a_bad_order_changes_nothing(box: MakeBox, document: object) -> None:
    host = box("RTX 3090")
    answer = caps.order(document, host.root)
    assert (answer["error"]["code"], caps.exit_code(answer)) == ("bad-order", 2)
    assert (host.gpus.writes(), host.file("").exists()) == ([], False)


def test_a_host_without_cards_refuses_an_order_and_has_nothing_to_apply(box: MakeBox) -> None:
    host = box(driver=None)
    assert host.order(watts=200)["error"]["code"] == "no-cards"
    answer = host.apply()
    assert (answer["cards"], answer["findings"], caps.exit_code(answer)) == ([], [], 0)


# --- files ---


def test_without_the_declared_caps_nobody_knows_what_protects_a_circuit(box: MakeBox) -> None:
    host = box("RTX 3090")
    host.declare(capped(host.gpus.cards[0]))
    (host.root / capstate.DECLARED).write_text('{"format": 1, "cards": [')
    for answer in (host.apply(), host.order(watts=300), host.show()):
        assert (answer["error"]["code"], caps.exit_code(answer)) == ("bad-file", 2)
        assert "labctl apply" in answer["error"]["hint"]
    assert host.gpus.writes() == []


@pytest.mark.parametrize("rubbish", ["", "[]", "{}", '{"format": 1}', "\0\0", "[" * 100_000])
def test_state_that_rots_is_told_and_stops_nothing(box: MakeBox, rubbish: str) -> None:
    host = box("RTX 3090")
    host.declare(capped(host.gpus.cards[0]))
    host.apply()
    for name in ("overrides.json", "set.json", "outcome.json"):
        host.file(name).write_text(rubbish)
    host.gpus.set(0, power_limit_mw=350_000)
    answer = host.apply()
    assert (statuses(answer), codes(answer)) == (["changed"], {"bad-file"})
    assert statuses(host.order(watts=150)) == ["changed"]
    assert statuses(host.apply()) == ["changed"]
    assert host.watts() == [200]


def test_a_pipe_in_the_place_of_state_holds_nobody_up(box: MakeBox) -> None:
    host = box("RTX 3090")
    host.declare(capped(host.gpus.cards[0]))
    host.file("set.json").parent.mkdir(parents=True)
    for name in ("overrides.json", "set.json", "outcome.json"):
        os.mkfifo(host.file(name))
    answer = host.apply()
    assert (statuses(answer), codes(answer)) == (["changed"], {"bad-file"})
    assert host.file("outcome.json").is_file()


def test_a_disk_that_takes_nothing_does_not_keep_a_card_from_its_cap(box: MakeBox) -> None:
    host = box("RTX 3090")
    host.declare(capped(host.gpus.cards[0]))
    blocked = host.root / "var/lib/labctl"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("not a folder")
    answer = host.apply()
    assert (statuses(answer), caps.exit_code(answer)) == (["changed"], 0)
    assert "not-recorded" in codes(answer)
    ordered = host.order(watts=180, persist=True)
    assert (host.watts(), caps.exit_code(ordered)) == ([180], 1)


def test_a_file_is_the_old_one_or_the_new_one(box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    host = box("RTX 3090")
    host.order(watts=200, persist=True)
    before = host.file("overrides.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    answer = host.order(watts=180, persist=True)
    assert codes(answer) == {"not-recorded"}
    assert host.file("overrides.json").read_bytes() == before
    assert not [path.name for path in host.file("").iterdir() if path.name.startswith(".")]


def test_two_runs_do_not_mix_and_the_second_does_not_wait_for_ever(
    box: MakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capstate, "_LOCK_FOR_S", 0.3)
    host = box("RTX 3090")
    host.declare(capped(host.gpus.cards[0]))
    host.apply()
    with host.file("lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        answer = host.order(watts=180)
        assert (answer["error"]["code"], caps.exit_code(answer)) == ("busy", 2)
        assert statuses(host.show()) == ["unchanged"]
    assert statuses(host.order(watts=180)) == ["changed"]


def test_who_is_not_root_is_told_so(box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    host = box("RTX 3090")

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    answer = host.order(watts=200)
    assert (answer["error"]["code"], answer["error"]["hint"]) == ("no-permission", "ask again by sudo")
    assert host.gpus.writes() == []


# --- AMD ---


def sensors(root: Path, pci: str = "0000:03:00.0") -> Path:
    found = (root / "sys/devices/pci0000:00" / pci / "hwmon").glob("hwmon*")
    return next(path for path in found if (path / "name").read_text() == "amdgpu\n")


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch, loaded_nvml: MakeNvml) -> None:
    """No NVIDIA driver, a fixed clock, and no systemd."""
    loaded_nvml(driver=None)
    monkeypatch.setattr(caps, "_now", lambda: NOW)


def test_an_amd_card_is_capped_through_the_sensors_of_its_own_address(
    amd_tree: MakeTree, still: None
) -> None:
    root = amd_tree("RX 7900 XTX", "RX 7900 XTX", "Radeon 8060S")
    decoy = sensors(root).with_name("hwmon0")
    decoy.mkdir()
    (decoy / "name").write_text("jc42\n")
    (decoy / "power1_cap").write_text("1\n")
    answer = caps.order({"format": 1, "watts": 290, "cards": ["0000:03:00.0"]}, root)
    assert (statuses(answer), caps.exit_code(answer)) == (["changed"], 0)
    assert (sensors(root) / "power1_cap").read_text().strip() == "290000000"
    assert (sensors(root, "0000:13:00.0") / "power1_cap").read_text().strip() == "303000000"
    assert (decoy / "power1_cap").read_text() == "1\n"
    everything = caps.order({"format": 1, "watts": 280}, root)
    assert statuses(everything) == ["changed", "changed", "no-cap"]
    assert statuses(caps.apply(root)) == ["changed", "changed", "no-cap"]
    assert (sensors(root) / "power1_cap").read_text().strip() == "303000000"
    assert statuses(caps.order({"format": 1, "clocks_mhz": [500, 1500]}, root)) == ["refused"] * 3


def test_what_the_kernel_refuses_has_failed(amd_fuse: MakeTree, still: None, tmp_path: Path) -> None:
    root = amd_fuse("RX 7900 XTX", "RX 7900 XT")
    faults = tmp_path / "root0/.faults"
    faults.mkdir()
    (faults / "0000:03:00.0").write_text("refuse")
    changes = {str(at): (seen, Change(280.0)) for at, seen in enumerate(cards.survey(root, wake=True).seen)}
    assert cards.change(changes, root) == {
        "0": {
            "what": "the driver refuses: Operation not permitted",
            "hint": "look at dmesg",
            "code": "refused",
        }
    }
    assert (sensors(root) / "power1_cap").read_text() == "303000000\n"
    assert (sensors(root, "0000:13:00.0") / "power1_cap").read_text() == "280000000\n"
    out_of_range = {"1": (changes["1"][0], Change(1000.0))}
    assert "Invalid argument" in cards.change(out_of_range, root)["1"]["what"]


def test_a_limit_that_does_not_take_is_caught_by_reading_it_back(
    amd_tree: MakeTree, still: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = amd_tree("RX 7900 XTX")
    monkeypatch.setattr(cards, "_set_amd", lambda path, wanted: None)
    answer = caps.order({"format": 1, "watts": 280}, root)
    assert (statuses(answer), caps.exit_code(answer)) == (["failed"], 1)
    assert answer["cards"][0]["why"] == "it was set to 280 W and shows 303.0 W"


def test_a_sleeping_card_is_woken_by_a_run_and_not_by_a_look(amd_tree: MakeTree, still: None) -> None:
    root = amd_tree("RX 7900 XTX")
    power = root / "sys/devices/pci0000:00/0000:03:00.0/power"
    power.mkdir()
    (power / "runtime_status").write_text("suspended\n")
    path = root / capstate.DECLARED
    path.parent.mkdir(parents=True)
    declared = Declared("RX 7900 XTX", pci="0000:03:00.0", cap_w=280, reason="psu")
    path.write_text(json.dumps(cap_json.declared_document([declared])))
    (card,) = caps.show(root)["cards"]
    assert (card["status"], card["why"], card["before_w"]) == ("unchanged", "is in runtime suspend", None)
    assert statuses(caps.apply(root)) == ["changed"]


def test_a_card_that_holds_its_readers_in_the_kernel_stops_no_other(
    amd_fuse: MakeTree, still: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "DEADLINE_S", 2.0)
    root = amd_fuse("RX 7900 XTX", "RX 7900 XT")
    fault = tmp_path / "root0/.faults/0000:03:00.0"
    fault.parent.mkdir()
    fault.write_text("hang")
    began = time.monotonic()
    try:
        answer = caps.order({"format": 1, "watts": 250, "dry_run": True}, root)
    finally:
        fault.unlink()
    assert time.monotonic() - began < 6
    shown = {card["pci"]: card["status"] for card in answer["cards"]}
    assert shown == {"0000:03:00.0": "failed", "0000:13:00.0": "would-change"}
    assert codes(answer) == {"hang"}
