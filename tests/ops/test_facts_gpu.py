"""What a host says of itself as far as GPU drivers are concerned: recorded answers, and this machine's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from labctl.ops.command import text
from labctl.ops.facts_gpu import Machine, MachineInfo

MACHINES = sorted((Path(__file__).parent / "machines").glob("*.json"))


def said(info: MachineInfo, field: str) -> Any:
    """Return a field as JSON has it."""
    value = getattr(info, field)
    if field == "pci":
        return [[card.address, card.vendor, card.device] for card in value]
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.stem)
def test_a_recorded_machine_is_read(path: Path) -> None:
    case = json.loads(path.read_text())
    info = Machine().process(case["lines"])
    assert {field: said(info, field) for field in case["is"]} == case["is"]


def ask(*prefix: str) -> subprocess.CompletedProcess[str]:
    argv = [*prefix, "sh", "-c", text("machine"), "labctl-machine"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


def test_this_machine_answers_without_a_complaint() -> None:
    done = ask()
    assert (done.returncode, done.stderr) == (0, "")
    info = Machine().process(done.stdout.splitlines())
    assert info.kernel == Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert info.os_id
    assert info.arch in ("amd64", "arm64")


def test_a_host_without_any_of_the_programs_still_answers(tmp_path: Path) -> None:
    for name in ("sh", "uname"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    done = ask("env", "-i", f"PATH={tmp_path}")
    assert done.returncode == 0
    assert Machine().process(done.stdout.splitlines()).kernel


def test_a_card_that_hangs_does_not_hang_the_question(tmp_path: Path) -> None:
    library = tmp_path / "libnvidia-ml.so.595.99.02"
    library.touch()
    (tmp_path / "libnvidia-ml.so.1").symlink_to(library.name)
    programs = {
        "ldconfig": f"printf '\\tlibnvidia-ml.so.1 (libc6,x86-64) => {tmp_path}/libnvidia-ml.so.1\\n'",
        "nvidia-smi": "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
        # Whether a limit is asked for is what counts here, not that timeout(1) works.
        "timeout": f'echo "$@" >{tmp_path}/asked; shift 3; "$@"',
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    done = ask("env", f"PATH={tmp_path}:/usr/bin:/bin")
    info = Machine().process(done.stdout.splitlines())
    assert info.nvidia_library == "595.99.02"
    if not Path("/sys/module/nvidia").exists():
        assert (tmp_path / "asked").read_text() == "-k 2 10 nvidia-smi -L\n"
        assert info.mismatch == "the loaded NVIDIA kernel module does not fit the library 595.99.02"
