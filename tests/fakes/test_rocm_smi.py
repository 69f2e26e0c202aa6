"""The real rocm-smi of Debian 12 sees the fake AMD tree as it would see real cards, and is refused likewise.

It looks at /sys, so it runs in a mount namespace of its own where the fake tree lies over that.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from debian_programs import unpacked

from fake_gpus import MakeTree
from labctl import wiring

CACHE = wiring.cache_home() / "lab"
Run = Callable[..., subprocess.CompletedProcess[str]]
# rocm-smi leaves shared memory behind; a private /dev/shm takes that along.
UNDER = """\
mount --make-rprivate / && mount -t tmpfs shm /dev/shm && mount --rbind "$1/sys" /sys && shift && exec "$@"
"""


@pytest.fixture
def rocm_smi() -> Run:
    if os.geteuid() != 0:
        pytest.skip("needs root, for a mount namespace")
    program = unpacked(CACHE, "rocm-smi", "librocm-smi64-1") / "usr/libexec/rocm_smi/rocm_smi.py"

    def run(root: Path, *argv: str) -> subprocess.CompletedProcess[str]:
        # The tree is mounted in a namespace that its server has for itself: /proc/PID/root/MOUNTPOINT.
        _, _, server, _, *mountpoint = root.parts
        inside = str(Path("/", *mountpoint))
        command = ["nsenter", f"--target={server}", "--mount", "unshare", "--mount"]
        command += ["sh", "-c", UNDER, "sh", inside, "/usr/bin/python3", str(program), *argv]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH": str(program.parents[2] / "lib")}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)

    return run


def test_it_shows_every_card_with_its_cap(amd_fuse: MakeTree, rocm_smi: Run) -> None:
    root = amd_fuse("RX 7900 XTX", "W7900")
    shown = rocm_smi(root).stdout
    rows = [line.split() for line in shown.splitlines() if line[:1].isdecimal()]
    assert [(row[0], row[-3]) for row in rows] == [("0", "303.0W"), ("1", "241.0W")], shown


def test_it_sets_a_cap_in_range_and_is_refused_outside(amd_fuse: MakeTree, rocm_smi: Run) -> None:
    root = amd_fuse("RX 7900 XTX")
    cap = next((root / "sys/class/drm/card0/device/hwmon").glob("hwmon*")) / "power1_cap"
    set_to = ("-d", "0", "--autorespond", "y", "--setpoweroverdrive")
    assert rocm_smi(root, *set_to, "290").returncode == 0
    assert cap.read_text() == "290000000\n"
    refused = rocm_smi(root, *set_to, "900")
    assert "Value cannot be greater than: 348W" in refused.stderr
    assert cap.read_text() == "290000000\n"


def test_a_card_without_a_cap_has_none_for_it_either(amd_fuse: MakeTree, rocm_smi: Run) -> None:
    shown = rocm_smi(amd_fuse("Radeon 8060S"), "--showid", "--showmaxpower").stdout
    assert "GPU[0]" in shown
    assert "Max Graphics Package Power (W):" not in shown
