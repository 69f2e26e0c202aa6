"""What the verb ``health`` finds on a tree of files, of fake cards and from programs that are played."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from host_tree import Tree

from capped_host import MakeBox, capped
from fake_gpus import MakeTree
from labctl.agent import (
    amd,
    disks,
    enginemetrics,
    health,
    kernellog,
    maintenance,
    nvidia,
    nvml,
    report,
    sections,
    wellness,
)
from labctl.agent.calls import LATE, NOT_RUN, Ended
from labctl.domain.health.reading import evidence_of

Play = Callable[..., None]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Return a function by which programs, by their name, answer what is given."""

    def given(**programs: Ended) -> None:
        def call(*argv: str, within_s: float, env: object = None, user: object = None) -> Ended:
            assert within_s < health.DEADLINE_S
            return programs.get(argv[0].replace("-", "_"), Ended(NOT_RUN, "", ""))

        for module in (kernellog, disks, maintenance):
            monkeypatch.setattr(module, "call", call)

    return given


def card_of(box: Any) -> dict[str, Any]:
    """Return the first card as the document has it."""
    found = sections.gather(
        {
            "nvidia": lambda: nvidia.nvidia(
                box.root, lambda values, card: wellness.of_nvidia(values, card, box.root)
            )
        },
        10,
    )[0]
    made: dict[str, Any] = found["nvidia/0"]
    return made


# --- cards ---


def test_a_healthy_card_has_nothing_that_holds_it_down(box: MakeBox) -> None:
    found = card_of(box("RTX 3090"))
    assert found["errors"] == {}
    assert found["health"] == {
        "throttle": [],
        "hotspot_c": None,
        "memory_c": None,
        "slowdown_c": 95,
        "replays": 0,
        "slot": None,
        "rows": None,
        "retired_pending": None,
        "recovery": None,
        "processes": [],
    }


FAULTS = [
    ({"throttle": "0x4"}, "throttle", ["power-cap"]),
    ({"throttle": "0x48"}, "throttle", ["hw-slowdown", "hw-thermal"]),
    ({"throttle": "0xa1"}, "throttle", ["sw-thermal", "power-brake"]),
    ({"throttle": "0x600"}, "throttle", ["board-limit", "reliability"]),
    ({"temp_mem": 104}, "memory_c", 104),
    ({"pcie_replay": 812}, "replays", 812),
    (
        {"remap_corr": 1, "remap_uncorr": 2, "remap_pending": 1, "remap_failed": 0},
        "rows",
        {"corrected": 1, "uncorrected": 2, "pending": True, "failed": False},
    ),
    ({"retired_pending": 1}, "retired_pending", True),
    ({"recovery": 2}, "recovery", "reboot"),
    ({"recovery": 4}, "recovery", "drain-and-reset"),
    ({"procs": "1:1048576000:init"}, "processes", [{"pid": 1, "mib": 1000, "unit": ""}]),
]


@pytest.mark.parametrize(("keys", "name", "value"), FAULTS, ids=[str(keys) for keys, _, _ in FAULTS])
def test_each_fault_of_a_card_is_told_and_goes_with_it(
    box: MakeBox, keys: dict[str, Any], name: str, value: object
) -> None:
    made = box("RTX 3090")
    before = card_of(made)["health"][name]
    made.gpus.set(0, **keys)
    assert card_of(made)["health"][name] == value != before
    made.gpus.set(0, **{key: {"throttle": "0x1", "pcie_replay": 0}.get(key) for key in keys})
    assert card_of(made)["health"][name] == before


def test_a_value_that_fails_costs_that_value_alone(box: MakeBox) -> None:
    made = box("RTX 3090")
    made.gpus.set(0, **{"err.nvmlDeviceGetComputeRunningProcesses_v3": 999})
    found = card_of(made)
    assert found["health"]["processes"] is None and found["health"]["slowdown_c"] == 95
    assert found["errors"] == {"processes": "Unknown Error"}


def test_a_card_that_sleeps_is_not_asked(box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    made = box("RTX 3090", "RTX 3090")
    for at, card in enumerate(made.gpus.cards):
        state = made.root / "sys/bus/pci/devices" / card.pci / "power/runtime_status"
        state.parent.mkdir()
        state.write_text("suspended\n" if at == 0 else "active\n")
    asked: list[Any] = []
    found = nvidia.nvidia(made.root, lambda values, card: asked.append(card))
    assert isinstance(found, sections.More)
    assert [gpu["asleep"] for gpu in found.value["gpus"]] == [True]
    assert [section() for section in found.sections.values()] and len(asked) == 1

    for card in made.gpus.cards:
        (made.root / "sys/bus/pci/devices" / card.pci / "power/runtime_status").write_text("suspended\n")
    monkeypatch.setattr(nvml, "opened", lambda: pytest.fail("the library was opened"))
    assert isinstance(nvidia.nvidia(made.root, lambda values, card: asked.append(card)), dict)
    assert len(asked) == 1


def test_an_amd_card_tells_its_heat_and_its_slot(amd_tree: MakeTree) -> None:
    root = amd_tree("RX 7900 XTX")
    path = next(iter(amd.cards(root)))
    found = wellness.of_amd(path)
    assert {name: found[name] for name in ("temperature_c", "hotspot_c", "memory_c", "slowdown_c")} == {
        "temperature_c": 41.0,
        "hotspot_c": 44.0,
        "memory_c": 48.0,
        "slowdown_c": 100.0,
    }
    assert (found["replays"], found["slot"]["width"], found["throttle"]) == (0, 16, None)


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0, []),
        (1 << 36, []),
        (1 << 0, ["power-cap"]),
        (1 << 22 | 1 << 34, ["board-limit", "sw-thermal"]),
        (1 << 44, ["hw-thermal"]),
        (1 << 57, ["reliability"]),
        ((1 << 64) - 1, None),
    ],
)
def test_amds_bits_have_the_same_words(tmp_path: Path, bits: int, words: list[str] | None) -> None:
    table = bytearray(120)
    struct.pack_into("<HBB", table, 0, 120, 1, 3)
    struct.pack_into("<Q", table, 112, bits)
    (tmp_path / "gpu_metrics").write_bytes(table)
    assert wellness._amd_reasons(tmp_path / "gpu_metrics") == words
    (tmp_path / "gpu_metrics").write_bytes(bytes(table[:60]))
    assert wellness._amd_reasons(tmp_path / "gpu_metrics") is None


def test_the_link_to_the_slot_is_that_of_the_bridge_on_the_card(tmp_path: Path) -> None:
    port = tmp_path / "0000:00:01.1"
    device = port / "0000:01:00.0/0000:02:00.0/0000:03:00.0"
    device.mkdir(parents=True)
    for folder, vendor, kind in (
        (port, "0x1022", "0x060400"),
        (device.parent.parent, "0x1002", "0x060400"),
        (device.parent, "0x1002", "0x060400"),
        (device, "0x1002", "0x030000"),
    ):
        (folder / "vendor").write_text(vendor)
        (folder / "class").write_text(kind)
    assert wellness.slot_of(device) == device.parent.parent
    (device.parent / "vendor").write_text("0x8086")
    assert wellness.slot_of(device) == device


# --- the kernel's log ---

BUFFER = """\
6,1,1000000,-;Linux version 6.1
4,2,2000000,-;NVRM: Xid (PCI:0000:01:00): 13, pid=7, name=a, Graphics Exception
4,3,3000000,-;NVRM: Xid (PCI:0000:01:00): 13, pid=8, name=a, Graphics Exception
3,4,4000000,-;NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.
 SUBSYSTEM=pci
4,5,5000000,-;NVRM: GPU at PCI:0000:01:00: GPU-1234
nonsense
"""


def test_xids_are_counted_by_card_and_code(tree: Tree) -> None:
    found = kernellog.xids(tree.write({"dev/kmsg": BUFFER}))
    assert [(one["pci"], one["code"], one["count"]) for one in found] == [
        ("0000:01:00.0", 13, 2),
        ("0000:3b:00.0", 79, 1),
    ]
    assert found[1]["text"] == "GPU has fallen off the bus."
    booted = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    assert found[1]["last"] == pytest.approx(booted + 4, abs=2)


def test_what_the_journal_and_the_buffer_both_have_counts_once(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = {"__REALTIME_TIMESTAMP": "1764400000123456", "MESSAGE": "NVRM: Xid (PCI:0000:01:00): 79, gone"}
    play(journalctl=Ended(0, f"{json.dumps(line)}\nnonsense\n{json.dumps(line)}\n", ""))
    monkeypatch.setattr(kernellog, "_kernel", lambda root: [(5.0, line["MESSAGE"])])
    assert kernellog.xids() == [
        {"pci": "0000:01:00.0", "code": 79, "count": 2, "last": 1764400000.1, "text": "gone"}
    ]
    play(journalctl=Ended(1, "", ""))
    assert kernellog.xids()[0]["last"] == 5.0


@pytest.mark.parametrize(
    "ended", [Ended(1, "", "no journal files"), Ended(LATE, "", ""), Ended(NOT_RUN, "", "")]
)
def test_a_log_that_nobody_can_read_is_a_finding_and_not_a_clean_one(
    play: Play, monkeypatch: pytest.MonkeyPatch, ended: Ended
) -> None:
    play(journalctl=ended)
    monkeypatch.setattr(kernellog, "_kernel", lambda root: None)
    with pytest.raises(sections.Finding, match=r"neither the journal nor /dev/kmsg can be read"):
        kernellog.xids()


# --- file systems and disks ---

TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw shared:2 - proc proc rw
24 22 8:2 / /srv/my\\040models ro,relatime - xfs /dev/sdb1 rw
25 22 0:40 / /mnt/later rw - autofs systemd-1 rw
26 22 8:2 /part /srv/bound ro - xfs /dev/sdb1 rw
27 22 0:50 / /mnt/dead rw - nfs4 nas:/x rw
"""


def test_file_systems_are_those_with_room_of_their_own(tree: Tree) -> None:
    tree.write({"proc/self/mountinfo": TABLE})
    (tree.root / "srv/my models").mkdir(parents=True)
    found = disks.mounts(tree.root)
    assert list(found.sections) == ["mounts//", "mounts//srv/my models", "mounts//mnt/dead"]
    room = found.sections["mounts//srv/my models"]()
    assert (room["device"], room["read_only"], room["path"]) == ("/dev/sdb1", True, "/srv/my models")
    assert 0 <= room["free_mib"] <= room["total_mib"]


def test_a_dead_server_holds_up_no_other_file_system(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.write({"proc/self/mountinfo": TABLE})
    (tree.root / "srv/my models").mkdir(parents=True)
    real = os.statvfs

    def statvfs(path: Path) -> os.statvfs_result:
        if str(path).endswith("dead"):
            time.sleep(30)
        return real(path)

    monkeypatch.setattr(os, "statvfs", statvfs)
    own: dict[str, report.Section] = {
        "nvidia": lambda root: None,
        "amd": lambda root: None,
        "mounts": disks.mounts,
    }
    found = report.collect(1.5, tree.root, own)
    seen = evidence_of(found)
    assert seen.mounts is not None and [one.path for one in seen.mounts] == ["/", "/srv/my models"]
    assert seen.errors["mounts:/mnt/dead"].startswith("did not answer within")


NVME = {
    "smartctl": {"exit_status": 0},
    "smart_status": {"passed": True},
    "nvme_smart_health_information_log": {"percentage_used": 12, "media_errors": 3, "available_spare": 98},
    "temperature": {"current": 41},
}
ATA = {
    "smartctl": {"exit_status": 8},
    "smart_status": {"passed": False},
    "ata_smart_attributes": {"table": [{"id": 5, "raw": {"value": 7}}, {"id": 197, "raw": {"value": 2}}, 3]},
    "temperature": {"current": 50},
}
STILL = {"smartctl": {"exit_status": 2, "messages": [{"string": "Device is in STANDBY mode, exit(2)"}]}}


def test_disks_say_of_themselves_what_smartctl_reads() -> None:
    nvme, ata, still = (disks.judged("/dev/x", said) for said in (NVME, ATA, STILL))
    assert (nvme["passed"], nvme["wear_percent"], nvme["media_errors"], nvme["spare_percent"]) == (
        True,
        12,
        3,
        98,
    )
    assert (ata["passed"], ata["media_errors"], ata["pending_sectors"]) == (False, 7, 2)
    assert (still["asleep"], still["passed"]) == (True, None)
    with pytest.raises(sections.Finding, match="smartctl: Open failed"):
        disks.judged("/dev/x", {"smartctl": {"exit_status": 2, "messages": [{"string": "Open failed"}]}})


def test_a_disk_that_sleeps_is_not_even_asked(tree: Tree, play: Play) -> None:
    tree.write({"sys/block/sda/device/power/runtime_status": "suspended\n", "sys/block/loop0/size": "1\n"})
    play(smartctl=Ended(0, "this would not be JSON", ""))
    found = disks.smart(tree.root)
    assert list(found.sections) == ["smart//dev/sda"]
    assert found.sections["smart//dev/sda"]()["asleep"] is True
    (tree.root / "sys/block/sda/device/power/runtime_status").write_text("active\n")
    with pytest.raises(sections.Finding, match="smartctl does not tell"):
        found.sections["smart//dev/sda"]()


def test_smartctl_never_spins_a_disk_up(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.write({"sys/block/sda/size": "1\n"})
    seen: list[tuple[str, ...]] = []

    def call(*argv: str, within_s: float) -> Ended:
        seen.append(argv)
        return Ended(0, json.dumps(ATA), "")

    monkeypatch.setattr(disks, "call", call)
    disks.smart(tree.root).sections["smart//dev/sda"]()
    assert "--nocheck=standby" in seen[0]


def test_without_smartctl_the_kernel_tells_the_heat_of_an_nvme(tree: Tree, play: Play) -> None:
    play()
    tree.write({"sys/block/nvme0n1/device/hwmon3/temp1_input": "39850\n"})
    found = disks.smart(tree.root).sections["smart//dev/nvme0n1"]()
    assert (found["temperature_c"], found["passed"]) == (39.85, None)


# --- what waits for a person ---

SIMULATED = """\
Inst libssl3 [3.0.14-1] (3.0.15-1~deb12u1 Debian-Security:12/stable-security [amd64])
Inst linux-image-amd64 (6.8 Ubuntu:24.04/noble-updates, Ubuntu:24.04/noble-security [amd64]) []
Inst vim [2:9.0] (2:9.1 Debian:12.9/stable [amd64])
Conf libssl3 (3.0.15-1~deb12u1 Debian-Security:12/stable-security [amd64])
"""


def test_updates_are_counted_by_where_they_come_from(tree: Tree, play: Play) -> None:
    (tree.root / "var/lib/apt/lists").mkdir(parents=True)
    os.utime(tree.root / "var/lib/apt/lists", (time.time() - 5000, time.time() - 5000))
    play(apt_get=Ended(0, SIMULATED, ""))
    found = maintenance.updates(tree.root)
    assert (found["pending"], found["security"]) == (3, 2)
    assert 4990 <= found["age_s"] <= 5100
    play(apt_get=Ended(100, "", "E: The package cache file is corrupted"))
    with pytest.raises(sections.Finding, match="apt-get cannot tell what is to be updated: E: The package"):
        maintenance.updates(tree.root)


def test_where_there_is_no_apt_nothing_is_known_of_updates(tree: Tree, play: Play) -> None:
    nothing = {"pending": None, "security": None, "age_s": None}
    assert maintenance.updates(tree.root) == nothing
    (tree.root / "var/lib/apt/lists").mkdir(parents=True)
    play()
    assert maintenance.updates(tree.root) == nothing


def test_units_that_failed_are_named(play: Play) -> None:
    play(systemctl=Ended(0, "labctl-chat.service loaded failed failed labctl: chat\n", ""))
    assert maintenance.failed_units() == ["labctl-chat.service"]
    play(systemctl=Ended(1, "", "Failed to connect to bus"))
    with pytest.raises(sections.Finding, match="systemctl does not answer: Failed to connect to bus"):
        maintenance.failed_units()


def test_memory_and_how_hard_it_is_waited_for(tree: Tree) -> None:
    tree.write(
        {
            "proc/meminfo": "MemTotal: 2097152 kB\nMemAvailable: 1048576 kB\nSwapTotal: 0 kB\n",
            "proc/pressure/memory": "some avg10=9.0 avg60=8.0 total=1\nfull avg10=1.50 avg60=2.25 total=9\n",
            "proc/vmstat": "pgfault 12\noom_kill 3\n",
        }
    )
    found = maintenance.memory(tree.root)
    assert (found["total_mib"], found["available_mib"]) == (2048, 1024)
    assert (found["stall_percent"], found["oom_kills"], found["swap_total_mib"]) == (2.25, 3, 0)
    tree.write({"proc/meminfo": ""})
    with pytest.raises(sections.Finding, match="how much memory"):
        maintenance.memory(tree.root)


def test_certificates_are_those_that_the_configuration_names(tree: Tree) -> None:
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    place = tree.root / "etc/x.pem"
    place.parent.mkdir(exist_ok=True)
    more = ["-days", "30", "-subj", "/CN=gate", "-keyout", str(tree.root / "key"), "-out", str(place)]
    subprocess.run([*argv, *more], check=True, capture_output=True)
    named = {"format": 1, "health": {"certificates": ["/etc/x.pem", "/etc/none.pem", "relative", 3]}}
    tree.write({"etc/labctl/agent.json": json.dumps(named), "etc/none.txt": ""})
    found = maintenance.certificates(tree.root).sections
    assert list(found) == ["certificates//etc/x.pem", "certificates//etc/none.pem"]
    made = found["certificates//etc/x.pem"]()
    assert made["not_after"] == pytest.approx(time.time() + 30 * 86400, abs=120)
    assert "gate" in made["subject"]
    with pytest.raises(sections.Finding, match="there is no such file"):
        found["certificates//etc/none.pem"]()
    place.write_text("no certificate")
    with pytest.raises(sections.Finding, match="openssl cannot read it"):
        found["certificates//etc/x.pem"]()


# --- the whole ---


def test_the_whole_document_of_this_machine_is_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "_SIMULATED", ("true",))
    seen = evidence_of(json.loads(json.dumps(health.collect())))
    assert abs(seen.at - time.time()) < 60 and seen.agent
    assert seen.memory is not None and seen.memory.total_mib > 0
    assert seen.mounts and seen.gpus is not None and seen.clock is not None


def test_it_ends_in_time_whatever_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in report.SECTIONS:
        monkeypatch.setitem(report.SECTIONS, name, lambda root: time.sleep(30))
    for module, names in (
        (maintenance, ("memory", "certificates", "updates")),
        (disks, ("mounts", "smart")),
        (kernellog, ("xids",)),
        (enginemetrics, ("engines",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, lambda root: time.sleep(30))
    began = time.monotonic()
    seen = evidence_of(health.collect(1.6, tmp_path))
    assert time.monotonic() - began < 8
    assert seen.mounts is None and seen.xids is None and seen.memory is None and seen.engines is None
    assert "did not answer within" in seen.errors["xids"]


def test_caps_that_are_wanted_are_told_by_card(box: MakeBox) -> None:
    made = box("RTX 3090", "RTX 3090")
    assert health._caps_wanted(made.root) == {}
    made.declare(capped(made.gpus.cards[0], 250))
    assert health._caps_wanted(made.root) == {made.gpus.cards[0].uuid: 250.0}
