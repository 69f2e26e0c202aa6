"""The fake AMD tree has what amdgpu shows, and refuses what amdgpu refuses."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from fake_gpus import MakeTree
from labctl.lab.fake import boards, sysfs
from labctl.lab.fake.mount import lacking
from labctl.lab.processes import wait_until


def _hwmon(root: Path, card: str) -> Path:
    (found,) = (root / "sys/class/drm" / card / "device/hwmon").glob("hwmon*")
    assert (found / "name").read_text() == "amdgpu\n"
    return found


def _refusal(file: Path, value: str) -> int:
    with pytest.raises(OSError) as refused:
        file.write_text(value)
    return refused.value.errno or 0


def test_a_cap_is_taken_in_range_and_cut_to_whole_watts(amd_fuse: MakeTree) -> None:
    cap = _hwmon(amd_fuse("RX 7900 XTX"), "card0") / "power1_cap"
    assert cap.read_text() == "303000000\n"
    cap.write_text("280900000\n")
    assert cap.read_text() == "280000000\n"


@pytest.mark.parametrize("value", ["999000000", "100000000", "0", "-1", "280 W", ""])
def test_a_cap_out_of_range_is_refused_and_nothing_changes(amd_fuse: MakeTree, value: str) -> None:
    cap = _hwmon(amd_fuse("RX 7900 XTX"), "card0") / "power1_cap"
    assert _refusal(cap, f"{value}\n") == errno.EINVAL
    assert cap.read_text() == "303000000\n"


def test_zero_applies_the_present_cap_again_where_the_minimum_is_zero(amd_fuse: MakeTree) -> None:
    cap = _hwmon(amd_fuse("W7900"), "card0") / "power1_cap"
    cap.write_text("200000000")
    cap.write_text("0")
    assert cap.read_text() == "200000000\n"


def test_what_the_driver_only_shows_cannot_be_written(amd_fuse: MakeTree) -> None:
    root = amd_fuse("RX 7900 XTX")
    for file in (_hwmon(root, "card0") / "power1_average", root / "sys/class/drm/card0/device/vendor"):
        assert _refusal(file, "1") == errno.EACCES
    with pytest.raises(OSError):
        (root / "sys/class/drm/card0/device/new").write_text("1")


def test_an_apu_has_no_cap_and_takes_what_is_left(amd_fuse: MakeTree) -> None:
    root = amd_fuse("Radeon 8060S")
    hwmon = _hwmon(root, "card0")
    assert not list(hwmon.glob("power1_cap*"))
    assert not (root / "sys/class/drm/card0/device/unique_id").exists()
    pages = root / "sys/module/ttm/parameters/pages_limit"
    pages.write_text("27648000")
    assert pages.read_text() == "27648000\n"
    assert _refusal(pages, "many") == errno.EINVAL


def test_a_card_in_reset_refuses_and_a_hanging_one_holds_only_itself(
    amd_tree: MakeTree, amd_fuse: MakeTree
) -> None:
    root = amd_fuse("RX 7900 XTX", "RX 7900 XTX")
    plain = Path(str(root).partition("/root/")[2])
    faults = Path("/", str(plain).removesuffix(".mounted")) / ".faults"
    faults.mkdir()
    first, second = boards.cards(("RX 7900 XTX", "RX 7900 XTX"))
    (faults / first.pci).write_text("refuse")
    assert _refusal(_hwmon(root, "card0") / "power1_cap", "280000000") == errno.EPERM
    (faults / second.pci).write_text("hang")
    assert (_hwmon(root, "card0") / "power1_cap").read_text() == "303000000\n"
    held = next((root / "sys/class/drm/card1/device/hwmon").glob("hwmon*")) / "power1_cap"
    reader = subprocess.Popen(["cat", str(held)], stdout=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        reader.wait(timeout=0.5)
    (faults / second.pci).unlink()
    assert reader.communicate(timeout=10) == (b"303000000\n", None)
    assert not (root / ".faults").exists()


def test_the_mount_ends_with_its_owner(amd_tree: MakeTree, tmp_path: Path) -> None:
    if reason := lacking():
        pytest.skip(reason)
    folder = amd_tree("RX 7900 XTX")
    owner = (
        "import os, pathlib, sys; from labctl.lab.fake.mount import Mounted;"
        "m = Mounted(pathlib.Path(sys.argv[1])); print(m._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", owner, str(folder)], capture_output=True, text=True)
    server = Path("/proc", done.stdout.strip())
    assert wait_until(lambda: not server.exists() or not (server / "root/sys").exists(), within=10)
    assert "labctl-sysfs" not in Path("/proc/mounts").read_text()


def test_a_pulled_card_leaves_nothing_behind_and_the_others_stay(amd_tree: MakeTree) -> None:
    root = amd_tree("RTX 3090", "RX 7900 XTX", "RX 9070 XT")
    pulled, stays = boards.cards(("RTX 3090", "RX 7900 XTX", "RX 9070 XT"))[1:]
    sysfs.remove(root, pulled)
    said = subprocess.run(["grep", "-rl", pulled.pci, str(root)], capture_output=True, text=True).stdout
    assert said == ""
    assert not [link for link in root.rglob("*") if link.is_symlink() and not link.exists()]
    assert [link.resolve().parents[1].name for link in (root / "sys/class/drm").iterdir()] == [stays.pci] * 2
    assert len(list((root / "sys/class/kfd/kfd/topology/nodes").iterdir())) == 2
