"""An order on standard input, and the timer that ends one: what comes in, and what goes to systemd."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fake_gpus import MakeNvml
from labctl.agent import caps, captimer, orders


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "not JSON"),
        (b"200", "not a JSON object"),
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"format":1,"watts":200,"watts":400}', "a name comes twice"),
        (b'{"format":1,"watts":NaN}', "watts must be a whole number"),
        (b'{"format":1,"watts":-Infinity}', "watts must be a whole number"),
        (b'{"format":1,"watts":1e400}', "watts must be a whole number"),
        (b'{"format":1,"watts":' + b"9" * 9000 + b"}", "the order"),
        (b"[" * 30_000, "the order is"),
        (b'{"format":1,"by":"' + b"x" * 70_000 + b'"}', "longer than 65536 bytes"),
        (b"\0" * 100, "not JSON"),
    ],
)
def test_what_is_no_order_is_refused_in_one_object(text: bytes, says: str) -> None:
    answer = orders.answered(io.BytesIO(text))
    assert (answer["error"]["code"], caps.exit_code(answer)) == ("bad-order", 2)
    assert says in answer["error"]["what"] or "watts must be" in answer["error"]["what"]
    assert len(json.dumps(answer)) < 600


def test_the_program_refuses_a_bad_order_with_one_line_of_json(
    agent_pyz: Path, nvml: MakeNvml, tmp_path: Path
) -> None:
    gpus = nvml("RTX 3090")
    for text in ("garbage", '{"format":1,"watts":"200"}', '{"format":1,"watts":200,"until":1}'):
        done = subprocess.run(
            [agent_pyz, "caps", "--order"], input=text, env=gpus.env(), capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (2, "")
        assert json.loads(done.stdout)["error"]["hint"] == "nothing was changed"
    assert gpus.writes() == []


def test_the_program_shows_and_tries_orders_with_the_cut_binding(agent_pyz: Path, nvml: MakeNvml) -> None:
    gpus = nvml("RTX 3090", "RTX 5090")
    shown = subprocess.run([agent_pyz, "caps", "--show"], env=gpus.env(), capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert [card["name"] for card in json.loads(shown.stdout)["cards"]] == [
        "NVIDIA GeForce RTX 3090",
        "NVIDIA GeForce RTX 5090",
    ]
    order = json.dumps({"format": 1, "watts": 300, "dry_run": True})
    tried = subprocess.run(
        [agent_pyz, "caps", "--order"], input=order, env=gpus.env(), capture_output=True, text=True
    )
    assert (tried.returncode, tried.stderr) == (1, "")
    assert [card["status"] for card in json.loads(tried.stdout)["cards"]] == ["would-change", "refused"]
    assert gpus.writes() == []


def test_a_packed_agent_sets_cards_with_the_cut_binding(
    agent_pyz: Path, nvml: MakeNvml, tmp_path: Path
) -> None:
    gpus = nvml("RTX 3090", "RTX 5090")
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from labctl.agent import caps\n"
        "for order in json.load(sys.stdin):\n"
        "    print(json.dumps(caps.order(order, Path(sys.argv[2]))))\n"
    )
    wanted: list[dict[str, Any]] = [
        {"format": 1, "watts": 200, "cards": [gpus.cards[0].uuid]},
        {"format": 1, "clocks_mhz": [210, 1800]},
        {"format": 1, "clocks_mhz": "reset"},
    ]
    done = subprocess.run(
        ["/usr/bin/python3", "-IS", "-W", "error", "-c", program, agent_pyz, tmp_path],
        input=json.dumps(wanted),
        env=gpus.env(),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["ok"] for answer in answers] == [True, True, True]
    assert gpus.cap_w(0) == 200
    assert "nvmlDeviceSetGpuLockedClocks gpu1 1800" in gpus.writes()
    assert not [write for write in gpus.writes() if "_v2" in write]


# --- the timer ---


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host on which systemd runs; what is asked of it is in the file that is returned."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    said = tmp_path / "said"
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("systemctl", "systemd-run"):
        program = programs / name
        program.write_text(
            f'#!/bin/sh\nfor word in {name} "$@"; do echo "$word" >>{said}; done\necho >>{said}\n'
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(captimer, "_AGAIN_S", 0.01)
    return said


def test_a_timer_is_a_moment_in_utc_and_fires_also_when_the_clock_is_set(
    systemd: Path, tmp_path: Path
) -> None:
    assert captimer.arm(1_795_284_000, tmp_path) is None
    stop, run = systemd.read_text().split("\n\n")[:2]
    assert stop.splitlines() == ["systemctl", "stop", "labctl-caps-until.timer"]
    words = run.splitlines()
    assert "--unit=labctl-caps-until" in words and "--on-clock-change" in words
    assert "--on-calendar=2026-11-21 18:00:00 UTC" in words
    assert words[-4:] == ["systemctl", "start", "--no-block", "labctl-caps.service"]


def test_a_timer_that_is_not_needed_is_taken_away(systemd: Path, tmp_path: Path) -> None:
    assert captimer.arm(None, tmp_path) is None
    assert systemd.read_text().split() == ["systemctl", "stop", "labctl-caps-until.timer"]


def test_a_timer_that_cannot_be_armed_is_a_finding_and_no_failure(systemd: Path, tmp_path: Path) -> None:
    program = systemd.parent / "bin/systemd-run"
    program.write_text("#!/bin/sh\necho 'Failed to start transient timer unit' >&2\nexit 1\n")
    finding = captimer.arm(1_795_284_000, tmp_path)
    assert finding is not None and finding.code == "until-not-armed"
    assert "Failed to start transient timer unit" in str(finding)
    program.unlink()
    assert captimer.arm(1_795_284_000, tmp_path) is not None


def test_without_systemd_a_timed_order_says_that_nothing_ends_it_in_time(tmp_path: Path) -> None:
    finding = captimer.arm(1_795_284_000, tmp_path)
    assert finding is not None and "systemd does not run here" in str(finding)
    assert captimer.arm(None, tmp_path) is None
