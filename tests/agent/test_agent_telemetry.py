"""The key ``telemetry`` of a line: what cards and processors draw, asked without waking any."""

from __future__ import annotations

import os
from typing import Any

import pytest
from host_tree import Tree

from capped_host import MakeBox
from fake_gpus import MakeTree
from labctl.agent import nvml, telemetry
from labctl.agent.signals.gpu import Gpu
from labctl.agent.signals.terms import Host
from labctl.agent.watch import Watch
from labctl.domain.sleep import words
from labctl.domain.sleep.telemetry_words import telemetry_of


def looked(box: Any, meter: telemetry.Meter) -> list[dict[str, Any]]:
    """Have the signal look once, and return the cards as a line shows them."""
    signal = Gpu(Host(box.root, os.getuid()), 5, (), (), meter)
    try:
        signal.look()
    finally:
        signal._close()
    found: list[dict[str, Any]] = telemetry.now(box.root, meter, ())["gpus"]
    return found


def bound(box: Any) -> Any:
    """Have the driver of NVIDIA's bound to each card, as the signal wants it."""
    driver = box.root / "sys/bus/pci/drivers/nvidia"
    driver.mkdir(parents=True)
    for card in box.gpus.cards:
        (box.root / "sys/bus/pci/devices" / card.pci / "driver").symlink_to(driver)
    return box


def test_each_card_tells_also_beside_one_that_computes(box: MakeBox) -> None:
    made = bound(box("RTX 3090", "RTX 3090"))
    made.gpus.set(0, util_gpu=97, power_mw=300_000, energy_mj=5_000_000)
    made.gpus.set(1, energy_mj=77)
    first, second = looked(made, telemetry.Meter())
    assert (first["uuid"], first["busy_percent"], first["power_w"]) == (made.gpus.cards[0].uuid, 97, 300.0)
    assert (first["energy_mj"], first["cap_w"], first["vram_mib"]) == (5_000_000, 350.0, 24576)
    assert (second["power_w"], second["energy_mj"], second["temperature_c"]) == (21.0, 77, 34)


def test_a_card_that_falls_asleep_is_asked_no_more_and_still_known(
    box: MakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, meter = bound(box("RTX 3090")), telemetry.Meter()
    assert looked(made, meter)[0]["power_w"] == 21.0
    power = made.root / "sys/bus/pci/devices" / made.gpus.cards[0].pci / "power"
    power.mkdir()
    (power / "runtime_status").write_text("suspended\n")
    monkeypatch.setattr(nvml, "opened", lambda: pytest.fail("the library was opened"))
    found = looked(made, meter)[0]
    assert (found["uuid"], found["asleep"]) == (made.gpus.cards[0].uuid, True)
    assert [found[name] for name in telemetry._NAMES] == [None] * len(telemetry._NAMES)


def test_what_a_card_said_too_long_ago_is_not_shown(box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    made, meter = bound(box("RTX 3090")), telemetry.Meter()
    looked(made, meter)
    monkeypatch.setattr(telemetry, "_KEPT_S", -1.0)
    assert telemetry.now(made.root, meter, ())["gpus"][0]["power_w"] is None


def test_a_card_that_no_list_names_is_called_by_its_pci_ids(amd_tree: MakeTree) -> None:
    root = amd_tree("Radeon 8060S")
    assert telemetry.now(root, telemetry.Meter(), ())["gpus"][0]["name"] == "1002:1586"


def test_an_amd_card_tells_from_sysfs_and_not_while_it_sleeps(amd_tree: MakeTree) -> None:
    root, meter = amd_tree("RX 7900 XTX"), telemetry.Meter()
    found = telemetry.now(root, meter, ())["gpus"][0]
    assert (found["power_w"], found["temperature_c"], found["busy_percent"]) == (16.0, 41.0, 0)
    state = root / "sys/class/drm/card0/device/power/runtime_status"
    state.parent.mkdir()
    state.write_text("suspended\n")
    found = telemetry.now(root, meter, ())["gpus"][0]
    assert (found["asleep"], found["power_w"], found["name"]) == (True, None, "Radeon RX 7900 XTX")


def test_the_processors_counters_are_told_where_they_may_be_read(tree: Tree) -> None:
    tree.write(
        {
            "sys/class/powercap/intel-rapl:0/energy_uj": "123456\n",
            "sys/class/powercap/intel-rapl:0/name": "package-0\n",
            "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850\n",
            "sys/class/powercap/intel-rapl:0:0/energy_uj": "1\n",
            "sys/class/powercap/intel-rapl:1/name": "package-1\n",
        }
    )
    found = telemetry.now(tree.root, telemetry.Meter(), ())
    assert (found["rapl_uj"], found["rapl_max_uj"]) == ({"package-0": 123456}, {"package-0": 262143328850})


def test_a_line_of_the_watch_has_it_and_a_broken_one_is_still_a_report(tree: Tree) -> None:
    tree.write({"proc/sys/kernel/random/boot_id": "0a1b2c3d-0000-4000-8000-000000000001\n"})
    line = Watch(tree.root).line()
    told = telemetry_of(line["telemetry"])
    assert told is not None and words.report_of(line, 0.0).telemetry == told
    for odd in (None, 3, [], {"wall": "x"}, {"gpus": []}):
        assert words.report_of({**line, "telemetry": odd}, 0.0).telemetry is None
