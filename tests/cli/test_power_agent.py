"""`labctl power` over what the real agent reports of eight imitated cards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from powercap_rack import KEY, Hosts

from fake_gpus import FakeNvml
from labctl import wiring
from labctl.cli.main import main
from labctl.ports import Said

RACK = """\
from labctl.inventory import Gpu, Host, Rack

rack = Rack(name="home", hosts=[Host(
    name="rig", address="10.0.0.1", cap_w=200, cap_reason="circuit",
    gpus=[Gpu(model="RTX 3090", slot=f"slot{n}") for n in range(8)],
)])
globals().update(rack.groups())
"""


@pytest.fixture
def rig(nvml: Callable[..., FakeNvml], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    cards = nvml(*["RTX 3090"] * 8)
    (tmp_path / "rack.py").write_text(RACK)
    (tmp_path / "known_hosts").write_text(f"10.0.0.1 ssh-ed25519 {KEY}\n")
    monkeypatch.setenv("LABCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("LABCTL_INVENTORY", str(tmp_path / "rack.py"))

    def report(asked: object) -> Said:
        argv = [sys.executable, "-m", "labctl.agent.main", "report"]
        done = subprocess.run(argv, env=cards.env(), capture_output=True, timeout=60)
        return Said(done.returncode, done.stdout, done.stderr.decode())

    monkeypatch.setattr(wiring, "remote", lambda: Hosts({"rig": report}))
    return cards


def test_caps_as_declared_and_a_card_less(rig: FakeNvml, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power"]) == 1
    said = capsys.readouterr()
    assert "0000:03:00.0 is capped at 350 W, declared are 200 W (circuit)" in said.err
    for index in range(8):
        rig.set(index, power_limit_mw=200_000)
    assert main(["power"]) == 0
    assert "8 of 8" in capsys.readouterr().out
    rig.fault(3, "removed")
    assert main(["power"]) == 1
    said = capsys.readouterr()
    assert "rig   7 of 8" in said.out
    assert "host rig: 1 of 8 RTX 3090 is missing\n" in said.err


def test_a_card_that_is_lost_is_there_and_named_as_lost(
    rig: FakeNvml, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(8):
        rig.set(index, power_limit_mw=200_000)
    rig.fault(3, "lost")
    assert main(["power"]) == 1
    said = capsys.readouterr()
    assert "rig   8 of 8" in said.out
    assert "missing" not in said.out + said.err
    assert "lost" in said.err.lower()
    assert said.err.count("warning") == 1


def test_a_driver_that_does_not_fit_its_library_leaves_the_cards_unknown(
    rig: FakeNvml, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.mismatch()
    assert main(["power"]) == 1
    said = capsys.readouterr()
    assert "rig   ? of 8" in said.out
    assert said.err.count("warning") == 1
    assert "hint" in said.err
