"""Declared caps, their unit and their udev rule: what the agent reads back, and when the unit runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from labctl.domain import cap_json
from labctl.inventory import Gpu, Host
from labctl.render import caps

UUID = "GPU-11111111-2222-3333-4444-555555555555"
RIG = Host(
    name="rig",
    address="10.0.0.1",
    cap_w=245,
    cap_reason="circuit",
    gpus=(
        Gpu(model="RTX 3090", slot="slot0", uuid=UUID),
        Gpu(model="RTX 3090", pci="0000:3b:00.0", cap_w=190, cap_reason="noise", clocks_mhz=(210, 1400)),
        Gpu(model="GB10", slot="soc"),
    ),
)


def sections(text: str) -> dict[str, list[str]]:
    """Return what each key of a unit is set to, line by line."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^([A-Za-z]+)=(.*)$", text, re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def test_the_agent_reads_what_the_inventory_declares() -> None:
    first, second, third = cap_json.declared(json.loads(caps.declared(RIG)))
    assert (first.uuid, first.cap_w, first.reason, first.clocks_mhz) == (UUID, 245, "circuit", None)
    assert (second.pci, second.cap_w, second.reason) == ("0000:3b:00.0", 190, "noise")
    assert second.clocks_mhz == (210, 1400)
    assert (third.model, third.cap_w) == ("GB10", None), "a card without a cap can still be missing"


def test_the_drivers_name_of_a_card_fits_its_patterns_and_a_better_cards_does_not() -> None:
    (card, *_) = cap_json.declared(json.loads(caps.declared(RIG)))

    def fits(name: str) -> bool:
        return any(re.fullmatch(pattern, name, re.IGNORECASE) for pattern in card.patterns)

    assert fits("NVIDIA GeForce RTX 3090")
    assert not fits("NVIDIA GeForce RTX 3090 Ti")


def test_a_card_that_nothing_tells_from_another_goes_without_the_name_of_its_slot() -> None:
    gpus = [Gpu(model="RTX 3090", slot=f"slot{n}") for n in range(2)]
    gpus.append(Gpu(model="RTX 3090", slot="slot2", pci="0000:3b:00.0"))
    rig = Host(name="rig", address="10.0.0.1", gpus=gpus)
    assert [card.slot for card in caps.cards(rig)] == [None, None, "slot2"]
    # The budget calls them so when it has all of them step down.
    assert [card.name for card in caps.cards(rig)] == ["slot0", "slot1", None]


def test_cards_that_no_driver_of_ours_can_cap_are_not_declared() -> None:
    arc = Host(name="arc", address="10.0.0.2", gpus=(Gpu(model="Arc B580", slot="slot0"),))
    assert not caps.has_cards(arc)
    assert not caps.has_cards(Host(name="nas", address="10.0.0.3"))
    assert caps.has_cards(RIG)


def test_the_unit_runs_at_boot_and_after_every_kind_of_sleep() -> None:
    found = sections(caps.unit())
    sleeps = {"suspend.target", "hibernate.target", "hybrid-sleep.target", "suspend-then-hibernate.target"}
    assert set(found["WantedBy"][0].split()) == {"multi-user.target", *sleeps}
    assert sleeps < set(" ".join(found["After"]).split())
    assert found["Type"] == ["oneshot"]
    assert "RemainAfterExit" not in found, "a unit that remains active would not run again after a sleep"
    assert int(found["TimeoutStartSec"][0]) <= 120, "a card that hangs must not hold up the boot"


@pytest.mark.parametrize(
    "hides", ["PrivateDevices", "ProtectClock", "DeviceAllow", "DevicePolicy", "ProtectKernelTunables",
              "ProtectKernelModules"]
)  # fmt: skip
def test_the_unit_sees_the_cards(hides: str) -> None:
    assert hides not in sections(caps.unit())


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = caps.unit().replace(caps.AGENT, "/bin/true")
    (tmp_path / caps.UNIT).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / caps.UNIT)],
        capture_output=True, text=True, check=False,
        env={"SYSTEMD_LOG_LEVEL": "warning", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert caps.UNIT not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not shutil.which("udevadm"), reason="udevadm is not installed")
def test_udev_takes_the_rules(tmp_path: Path) -> None:
    rules = tmp_path / "90-labctl-caps.rules"
    rules.write_text(caps.udev_rules())
    done = subprocess.run(["udevadm", "verify", str(rules)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "Unknown command verb" in done.stderr, done.stderr


def test_the_rules_start_the_unit_for_either_driver() -> None:
    lines = [line for line in caps.udev_rules().splitlines() if not line.startswith("#")]
    assert len(lines) == 2
    for line, device in zip(lines, ("/bus/pci/drivers/nvidia", "amdgpu"), strict=True):
        assert f'"{device}"' in line
        assert f'ENV{{SYSTEMD_WANTS}}+="{caps.UNIT}"' in line
        assert 'TAG+="systemd"' in line
