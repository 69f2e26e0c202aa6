"""`labctl powercap --local` on a machine with fake NVIDIA cards: no inventory, no SSH, root's business."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pynvml  # children that ask the driver are forked from here, so it is read once
import pytest

from fake_gpus import FakeNvml, MakeNvml
from labctl import wiring
from labctl.agent import captimer
from labctl.cli.main import main
from labctl.fleet import local

assert pynvml.nvmlDeviceSetPowerManagementLimit
Run = Callable[[Sequence[str]], tuple[int, str]]


@pytest.fixture
def gpus(loaded_nvml: MakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """A machine with two cards and nothing of labctl's on it yet."""
    found = loaded_nvml("RTX 3090", "RTX 5090")
    for card in found.cards:
        device = tmp_path / "root/sys/bus/pci/devices" / card.pci
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x10de\n")
        (device / "class").write_text("0x030000\n")
    boot_id = tmp_path / "root/proc/sys/kernel/random/boot_id"
    boot_id.parent.mkdir(parents=True)
    boot_id.write_text("first\n")
    monkeypatch.setattr(local, "ROOT", tmp_path / "root")
    monkeypatch.setattr(captimer, "arm", lambda until, root: None)
    monkeypatch.setattr(wiring, "is_root", lambda: True)
    monkeypatch.chdir(tmp_path)
    return found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(args: Sequence[str]) -> tuple[int, str]:
        code = main(["powercap", "--local", *args])
        said = capsys.readouterr()
        assert "bug in labctl" not in said.err, said.err
        return code, said.out + said.err

    return call


def test_cards_are_shown_without_an_inventory(gpus: FakeNvml, run: Run) -> None:
    code, said = run(["--json"])
    (host,) = json.loads(said)["hosts"]
    assert (code, host["host"]) == (0, "this host")
    assert [card["before_w"] for card in host["cards"]] == [350, 575]
    assert gpus.writes() == []


def test_each_card_is_judged_by_its_own_range(gpus: FakeNvml, run: Run) -> None:
    code, said = run(["300"])
    assert code == 4
    assert "350 -> 300 W  changed" in said
    assert "300 W is below what this card takes: 400 to" in said
    assert "--lock-clocks MIN,MAX" in said
    assert (gpus.cap_w(0), gpus.cap_w(1)) == (300, 575)


def test_a_card_is_named_by_uuid_or_address(gpus: FakeNvml, run: Run) -> None:
    assert run(["200", gpus.cards[0].pci])[0] == 0
    assert gpus.cap_w(0) == 200
    code, said = run(["300", gpus.cards[1].uuid])
    assert code == 2
    assert "nothing was changed; refused" in said
    code, said = run(["200", "GPU-99999999-2222-3333-4444-555555555555"])
    assert code == 1
    assert "missing" in said


def test_a_dry_run_changes_nothing_and_needs_no_root(
    gpus: FakeNvml, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "is_root", lambda: False)
    code, said = run(["200", "--dry-run", gpus.cards[0].uuid])
    assert code == 0
    assert "350 -> 200 W  would-change" in said
    code, said = run(["200"])
    assert code == 2
    assert "only root may change limits of cards" in said
    assert "sudo" in said
    assert gpus.writes() == []


def test_clocks_are_locked_and_freed(gpus: FakeNvml, run: Run) -> None:
    code, said = run(["--lock-clocks", "210,1400", "--persist"])
    assert code == 0, said
    assert "clocks 210 to 1400 MHz" in said
    assert any("LockedClocks" in line for line in gpus.writes())
    code, said = run(["--reset"])
    assert code == 0, said
    assert any("ResetGpuLockedClocks" in line for line in gpus.writes())
