"""The report's facts about cards, driver and kernel: real calls to a fake NVML, trees, and what is broken."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pynvml  # children that ask the driver are forked from here, so it is read once
import pytest

from fake_gpus import MakeNvml, MakeTree
from labctl.agent import amd, caps, kernel, nvidia, report
from labctl.lab.fake import boards

assert pynvml.nvmlInit
Report = Callable[..., dict[str, Any]]


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Report:
    """Return a function that reports on the cards below a root, and on nothing else."""
    sections = {name: report.SECTIONS[name] for name in ("nvidia", "amd", "kernel", "caps")}
    monkeypatch.setattr(report, "SECTIONS", sections)
    return lambda root, deadline_s=10.0: report.collect(deadline_s, root)


def bus(root: Path, cards: tuple[boards.Card, ...]) -> Path:
    for card in cards:
        device = root / "sys/bus/pci/devices" / card.pci
        device.mkdir(parents=True, exist_ok=True)
        (device / "vendor").write_text(f"{card.vendor}\n")
        (device / "class").write_text("0x030000\n")
    return root


def test_a_card_tells_all_that_caps_and_placement_need(
    loaded_nvml: MakeNvml, reported: Report, tmp_path: Path
) -> None:
    gpus = loaded_nvml("A100", "RTX 3090")
    gpus.set(0, power_limit_mw=300_000, persistence=1, ecc_pending=0, ecc_corr_volatile=2, nvlink_up=4)
    found = reported(bus(tmp_path, gpus.cards))
    assert (found["errors"], found["findings"]) == ({}, [])
    assert found["nvidia"]["driver"] == "580.95.05"
    first, second = found["nvidia"]["gpus"]
    assert first["uuid"] == gpus.cards[0].uuid and first["pci"] == gpus.cards[0].pci
    assert [first[key] for key in ("cap_w", "cap_min_w", "cap_max_w", "cap_default_w", "cap_enforced_w")] == [
        300,
        100,
        400,
        400,
        300,
    ]
    assert (first["persistence"], first["compute_capability"], first["architecture"]) == (
        True,
        "8.0",
        "Ampere",
    )
    assert first["pcie"] == {"gen": 1, "width": 16, "gen_max": 4, "width_max": 16}
    assert first["ecc"] == {
        "mode": True,
        "pending": False,
        "corrected_volatile": 2,
        "corrected_aggregate": 0,
        "uncorrected_volatile": 0,
        "uncorrected_aggregate": 0,
    }
    assert first["clocks"]["graphics_max_mhz"] == 1410
    assert first["nvlink"]["links"] == 12
    assert (second["ecc"], second["persistence"], second["errors"]) == (None, False, {})


def test_what_a_gb10_does_not_have_is_null_and_never_zero(
    loaded_nvml: MakeNvml, reported: Report, tmp_path: Path
) -> None:
    gpus = loaded_nvml("GB10")
    (gpu,) = reported(bus(tmp_path, gpus.cards))["nvidia"]["gpus"]
    absent = (
        "cap_w",
        "cap_min_w",
        "cap_max_w",
        "cap_default_w",
        "cap_enforced_w",
        "vram_mib",
        "ecc",
        "nvlink",
    )
    assert [gpu[key] for key in absent] == [None] * len(absent)
    assert (gpu["errors"], gpu["code"], gpu["architecture"]) == ({}, None, "Blackwell")


def test_a_lost_card_and_one_that_hangs_are_named_and_the_others_are_whole(
    loaded_nvml: MakeNvml, reported: Report, tmp_path: Path
) -> None:
    gpus = loaded_nvml("RTX 3090", "RTX 3090", "RTX 3090", "RTX 3090")
    gpus.fault(1, "lost")
    gpus.fault(2, "hang")
    began = time.monotonic()
    found = reported(bus(tmp_path, gpus.cards), 3.0)
    assert time.monotonic() - began < 6
    cards = found["nvidia"]["gpus"]
    assert [card["code"] for card in cards] == [None, "gpu-lost", "hang", None]
    assert [card["pci"] for card in cards] == [card.pci for card in gpus.cards]
    assert (cards[3]["cap_w"], cards[2]["cap_w"]) == (350.0, None)
    assert cards[1]["errors"] == {"card": "GPU is lost"}
    named = [(finding["code"], finding["card"], finding["section"]) for finding in found["findings"]]
    assert named == [("gpu-lost", gpus.cards[1].pci, "nvidia"), ("hang", gpus.cards[2].pci, "nvidia")]
    assert all(finding["what"] and finding["hint"] for finding in found["findings"])
    assert found["errors"] == {}


@pytest.mark.parametrize(
    ("change", "code", "hint"),
    [
        ({"err__nvmlInitWithFlags": 18}, "driver-mismatch", "reboot the host"),
        ({"driver": None}, "driver-not-loaded", "dmesg"),
        ({"err__nvmlInitWithFlags": 17}, "blocked", "DeviceAllow="),
        ({"err__nvmlInitWithFlags": 4}, "no-permission", "root"),
        ({"err__nvmlDeviceGetCount_v2": 999}, "nvml-error", ""),
    ],
)
def test_a_driver_that_does_not_work_is_a_finding_with_a_name(
    loaded_nvml: MakeNvml, reported: Report, tmp_path: Path, change: dict[str, Any], code: str, hint: str
) -> None:
    gpus = loaded_nvml("RTX 3090")
    gpus.change(**change)
    found = reported(bus(tmp_path, gpus.cards))
    assert found["nvidia"] is None
    assert found["errors"]["nvidia"]["code"] == code
    assert hint in found["errors"]["nvidia"].get("hint", "")
    assert [finding["code"] for finding in found["findings"]] == [code]


def test_a_driver_that_hangs_costs_its_own_section_only(
    loaded_nvml: MakeNvml, reported: Report, tmp_path: Path
) -> None:
    gpus = loaded_nvml("RTX 3090")
    gpus.change(delay__nvmlInitWithFlags=600_000)
    found = reported(bus(tmp_path, gpus.cards), 2.0)
    assert found["errors"]["nvidia"]["code"] == "hang"
    assert found["kernel"]["release"]


def test_a_card_that_is_given_to_a_virtual_machine_misses_no_driver(tmp_path: Path) -> None:
    card = boards.cards(("RTX 3090",))[0]
    device = bus(tmp_path, (card,)) / "sys/bus/pci/devices" / card.pci
    driver = tmp_path / "sys/bus/pci/drivers/vfio-pci"
    driver.mkdir(parents=True)
    (device / "driver").symlink_to(driver)
    assert nvidia.nvml.cards(tmp_path) == []


def _sleeps(root: Path, pci: str) -> None:
    power = root / "sys/bus/pci/devices" / pci / "power"
    power.mkdir()
    (power / "runtime_status").write_text("suspended\n")


def test_sleeping_cards_are_not_asked(loaded_nvml: MakeNvml, reported: Report, tmp_path: Path) -> None:
    gpus = loaded_nvml("RTX 3090", "RTX 5090")
    root = bus(tmp_path, gpus.cards)
    _sleeps(root, gpus.cards[0].pci)
    gpus.fault(0, "hang")
    began = time.monotonic()
    awake, asleep = reported(root)["nvidia"]["gpus"]
    assert (awake["name"], awake["asleep"]) == ("NVIDIA GeForce RTX 5090", False)
    assert (asleep["pci"], asleep["asleep"], asleep["cap_w"]) == (gpus.cards[0].pci, True, None)
    _sleeps(root, gpus.cards[1].pci)
    gpus.change(delay__nvmlInitWithFlags=600_000)
    found = reported(root)["nvidia"]
    assert [card["asleep"] for card in found["gpus"]] == [True, True]
    assert time.monotonic() - began < 3
    assert [card["status"] for card in caps.show(root)["cards"]] == []


# --- AMD ---


def test_an_amd_card_tells_its_target_link_and_range(amd_tree: MakeTree) -> None:
    root = amd_tree("RX 7900 XTX", "Radeon 8060S")
    sections = amd.amd(root).sections
    found = amd.assembled({name: section() for name, section in sections.items()}, {}, root)
    big, apu = found["gpus"]
    assert (big["gfx"], apu["gfx"], big["name"]) == ("gfx1100", "gfx1151", "Radeon RX 7900 XTX")
    assert big["uuid"] == big["unique_id"] and apu["uuid"] is None
    assert big["pcie"] == {"gen": 4, "width": 16, "gen_max": 4, "width_max": 16}
    assert [big[key] for key in ("cap_w", "cap_min_w", "cap_max_w")] == [303, 272, 348]
    assert [apu[key] for key in ("cap_w", "cap_min_w", "cap_max_w")] == [None] * 3
    assert big["clocks"] == {"graphics_mhz": 500, "memory_mhz": 96}


def test_a_card_without_a_name_of_its_own_is_named_by_libdrms_list(amd_tree: MakeTree) -> None:
    root = amd_tree("Radeon 8060S")
    names = root / "usr/share/libdrm/amdgpu.ids"
    names.parent.mkdir(parents=True)
    names.write_text("# List\n1586,\tC1,\tAMD Radeon 8050S\n1586,\tC8,\tAMD Radeon 8060S Graphics\n")
    (path,) = amd.cards(root)
    assert amd.name_of(path, root) == "AMD Radeon 8060S Graphics"
    names.unlink()
    assert amd.name_of(path, root) is None


def test_the_sensors_of_a_sleeping_amd_card_are_left_alone(amd_tree: MakeTree) -> None:
    root = amd_tree("RX 7900 XTX")
    (path,) = amd.cards(root)
    power = (path / "device").resolve() / "power"
    power.mkdir()
    (power / "runtime_status").write_text("suspended\n")
    shutil.rmtree((path / "device").resolve() / "hwmon")
    (section,) = amd.amd(root).sections.values()
    found = section()
    assert (found["asleep"], found["pci"], found["vram_mib"], found["cap_w"]) == (
        True,
        "0000:03:00.0",
        24560,
        None,
    )


def test_a_hung_amd_card_is_named_and_the_other_is_whole(
    amd_tree: MakeTree, reported: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = amd_tree("RX 7900 XTX", "RX 7900 XT")
    asked = amd.number

    def stuck(path: Path) -> int | None:
        if "0000:03:00.0" in str(path.resolve()):
            time.sleep(60)
        return asked(path)

    monkeypatch.setattr(amd, "number", stuck)
    hung, whole = reported(root, 3.0)["amd"]["gpus"]
    assert (hung["pci"], hung["code"], hung["cap_w"]) == ("0000:03:00.0", "hang", None)
    assert (whole["pci"], whole["cap_w"]) == ("0000:13:00.0", 265)


# --- the kernel ---


def test_versions_of_the_drivers_parts_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "sys/module/nvidia").mkdir(parents=True)
    (tmp_path / "sys/module/nvidia/version").write_text("580.95.05\n")
    libraries = tmp_path / "usr/lib/x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    (libraries / "libnvidia-ml.so.580.105.08").write_text("")
    (libraries / "libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.580.105.08")
    found = kernel.kernel(tmp_path)
    assert (found["nvidia_module"], found["nvidia_library"]) == ("580.95.05", "580.105.08")
    assert (found["nvidia_on_disk"], found["dkms"]) == (None, None)
    built = tmp_path / "var/lib/dkms/nvidia/580.105.08" / found["release"]
    built.mkdir(parents=True)
    (tmp_path / "var/lib/dkms/nvidia/source").mkdir()
    assert kernel.kernel(tmp_path)["dkms"] == ["580.105.08"]


def test_an_old_driver_tells_its_version_in_proc(tmp_path: Path) -> None:
    path = tmp_path / "proc/driver/nvidia/version"
    path.parent.mkdir(parents=True)
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.261.03  Tue\nGCC version: 12.2\n")
    assert kernel.kernel(tmp_path)["nvidia_module"] == "535.261.03"


@pytest.mark.parametrize("broken", ["", "\x7fELF\x02\x01", "text", "\x7fELF\x02\x01" + "\xff" * 80])
def test_the_module_on_disk_is_read_from_its_header_and_rubbish_is_null(tmp_path: Path, broken: str) -> None:
    release = kernel.kernel(tmp_path)["release"]
    folder = tmp_path / "lib/modules" / release
    module = folder / "updates/dkms/nvidia.ko"
    module.parent.mkdir(parents=True)
    (folder / "modules.dep").write_text(
        "kernel/a.ko: updates/dkms/nvidia.ko\nupdates/dkms/nvidia-drm.ko: b\nupdates/dkms/nvidia.ko:\n"
    )
    module.write_bytes(broken.encode("latin-1"))
    assert kernel.kernel(tmp_path)["nvidia_on_disk"] is None
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no C compiler, which makes an ELF file with a section .modinfo")
    line = (
        'const char v[] __attribute__((section(".modinfo"))) = "license=x\\0version=580.95.05\\0author=y";\n'
    )
    subprocess.run([gcc, "-xc", "-c", "-o", str(module), "-"], input=line.encode(), check=True)
    assert kernel.kernel(tmp_path)["nvidia_on_disk"] == "580.95.05"
    (folder / "modules.dep").write_text("updates/dkms/nvidia.ko.zst:\n")
    assert kernel.kernel(tmp_path)["nvidia_on_disk"] is None


def test_secure_boot_is_what_the_firmware_says(tmp_path: Path) -> None:
    secure_boot = partial(kernel._secure_boot, tmp_path)
    assert secure_boot() is False
    variable = tmp_path / kernel._SECURE_BOOT
    (tmp_path / "sys/firmware/efi").mkdir(parents=True)
    assert secure_boot() is False
    variable.parent.mkdir()
    for content, said in ((b"\x06\0\0\0\x01", True), (b"\x06\0\0\0\0", False), (b"\x01", None)):
        variable.write_bytes(content)
        assert secure_boot() is said


def test_the_last_outcome_is_in_the_report(reported: Report, tmp_path: Path) -> None:
    assert reported(tmp_path)["caps"] is None
    path = tmp_path / "var/lib/labctl/caps/outcome.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"ok": true, "cards": []}')
    assert reported(tmp_path)["caps"]["ok"] is True
    path.write_text("{")
    found = reported(tmp_path)
    assert (found["caps"], found["errors"]["caps"]["code"]) == (None, "bad-file")
