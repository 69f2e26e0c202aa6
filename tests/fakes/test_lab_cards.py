"""The cards of a virtual host as files: boots, removals, faults; and the packages that bring drivers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from labctl.domain.problem import LabctlError
from labctl.lab import LabHost
from labctl.lab.fake import boards, nvml, packages
from labctl.lab.fake.programs import kmod
from labctl.lab.gpus import FAULTS, HostGpus

ROW = """
[[package]]
name = "thing"
version = "1:2.5-3"
depends = ["libc6"]
{more}
[package.files]
"/usr/bin/thing" = "#!/bin/sh\\necho {{upstream}}"
"/etc/thing.conf" = "@conf"
[package.scripts]
postinst = "echo {{upstream}}"
"""


def made(tmp_path: Path, *models: str) -> HostGpus:
    """A host's cards after the first boot of a host whose disk is ``tmp_path/disk``."""
    gpus = HostGpus(LabHost("box", "10.0.0.2", "52:54:00:00:00:02", gpus=models), tmp_path / "gpu")
    (tmp_path / "disk").mkdir()
    gpus.prepare(tmp_path / "disk")
    return gpus


def with_module(disk: Path, version: str = "550.163.01") -> None:
    folder = disk / "usr/lib/modules/6.1.0/updates/dkms"
    folder.mkdir(parents=True)
    (folder / "nvidia.ko").write_bytes(b"\x7fELF\0version=%s\0license=NVIDIA\0" % version.encode())


def test_a_boot_loads_the_module_that_is_on_the_disk_and_no_other(tmp_path: Path) -> None:
    gpus = made(tmp_path, "RTX 3090")
    assert gpus.look()["driver"] is None
    assert not kmod.nodes(gpus.tree)
    with_module(tmp_path / "disk")
    gpus.boot(tmp_path / "disk")
    assert gpus.look()["driver"] == "550.163.01"
    assert (gpus.tree / "sys/module/nvidia/version").read_text() == "550.163.01\n"
    assert "/dev/nvidia0 666 root" in (gpus.folder / "nodes").read_text()


def test_a_boot_forgets_settings_and_faults_and_takes_the_pending_ecc_mode(tmp_path: Path) -> None:
    gpus = made(tmp_path, "L40S", "RX 7900 XTX")
    gpus.change(0, power_limit_mw=200000, persistence=1, ecc_pending=0)
    gpus.change(1, power1_cap=280_000_000)
    gpus.fault(0, "lost")
    gpus.fault(1, "hang")
    gpus.boot(tmp_path / "disk")
    state = nvml.parse(gpus.state.read_text())
    assert (state["gpu0.power_limit_mw"], state["gpu0.persistence"]) == ("350000", "0")
    assert (state["gpu0.ecc"], state["gpu0.ecc_pending"]) == ("0", "0")
    assert "gpu0.err" not in state
    assert gpus.look()["cards"][1]["cap_w"] == 303
    assert not list((gpus.tree / ".faults").iterdir())


@pytest.mark.parametrize("index", [0, 1])
def test_a_removed_card_stays_away_over_boots_until_it_is_put_back(tmp_path: Path, index: int) -> None:
    gpus = made(tmp_path, "RTX 3090", "RX 7900 XTX")
    pci = gpus.cards[index].pci
    gpus.remove(index)
    for _ in range(2):
        assert not (gpus.tree / "sys/bus/pci/devices" / pci).exists()
        assert [card["removed"] for card in gpus.look()["cards"]] == [index == 0, index == 1]
        gpus.boot(tmp_path / "disk")
    gpus.restore()
    gpus.boot(tmp_path / "disk")
    assert (gpus.tree / "sys/bus/pci/devices" / pci / "vendor").exists()
    assert not any(card["removed"] for card in gpus.look()["cards"])


def test_healing_takes_every_fault_of_a_card_away(tmp_path: Path) -> None:
    gpus = made(tmp_path, "RTX 3090")
    before = gpus.state.read_text()
    for kind in ("lost", "hang", "refuse", "blocked"):
        gpus.fault(0, kind)
    gpus.fault(None, "heal")
    assert gpus.state.read_text() == before


def test_a_card_or_fault_that_is_not_there_is_named(tmp_path: Path) -> None:
    gpus = made(tmp_path, "RTX 3090", "Radeon 8060S")
    with pytest.raises(LabctlError, match="no card 2"):
        gpus.remove(2)
    with pytest.raises(LabctlError, match="tired"):
        gpus.fault(0, "tired")
    with pytest.raises(LabctlError, match="power1_cap"):
        gpus.change(1, power1_cap=1)
    assert "heal" in FAULTS


def test_the_free_driver_comes_at_boot_until_something_keeps_it_away(tmp_path: Path) -> None:
    gpus = made(tmp_path, "RTX 3090")
    with_module(tmp_path / "disk")
    gpus.fault(None, "nouveau")
    gpus.boot(tmp_path / "disk")
    assert kmod.is_loaded(gpus.tree, "nouveau")
    with pytest.raises(kmod.Refused, match="No such device"):
        kmod.load(gpus.tree, gpus.state, "nvidia", "550.163.01")
    (tmp_path / "disk/etc/modprobe.d").mkdir(parents=True)
    (tmp_path / "disk/etc/modprobe.d/x.conf").write_text("# why\nblacklist nouveau\n")
    gpus.boot(tmp_path / "disk")
    assert gpus.look()["driver"] == "550.163.01"


def test_a_module_that_is_loaded_stays_when_another_is_on_the_disk(tmp_path: Path) -> None:
    gpus = made(tmp_path, "RTX 3090")
    kmod.load(gpus.tree, gpus.state, "nvidia", "550.163.01")
    kmod.load(gpus.tree, gpus.state, "nvidia", "580.95.05")
    assert gpus.look()["driver"] == "550.163.01"
    kmod.load(gpus.tree, gpus.state, "nvidia_uvm", "550.163.01")
    with pytest.raises(kmod.Refused, match="in use by: nvidia_uvm"):
        kmod.unload(gpus.tree, gpus.state, "nvidia")


def test_cards_have_the_address_and_identity_that_they_are_given() -> None:
    one, two, three = boards.cards(("RTX 3090 @0000:03:00.0 =GPU-x", "RTX 3090", "RX 7900 XTX"), "box")
    assert (one.pci, one.uuid) == ("0000:03:00.0", "GPU-x")
    assert len({one.pci, two.pci, three.pci}) == 3
    assert two.uuid != boards.cards(("RTX 3090", "RTX 3090"), "other")[1].uuid


def test_a_card_is_the_same_model_with_and_without_its_address_and_identity() -> None:
    for more in ("", " @0000:3b:00.0", " =GPU-3090", " @0000:3b:00.0 =GPU-3090"):
        assert boards.require(f"RTX 3090{more}").model == "RTX 3090"


def test_a_model_without_a_fake_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(LabctlError, match="Voodoo 2"):
        boards.cards(("Voodoo 2",))


def test_every_board_is_found_by_the_names_that_people_and_drivers_use() -> None:
    for board in boards.BOARDS:
        for spelling in (board.model, board.model.lower(), board.name, board.model.replace(" ", "")):
            assert boards.find(spelling) == board, spelling


def test_a_package_is_built_once_and_holds_what_its_row_says(tmp_path: Path) -> None:
    contents = packages.Contents({"conf": b"a = 1\n"}, {})
    rows = packages.rows([("x", ROW.format(more=""))])
    built = packages.repository(tmp_path, rows, contents)
    assert packages.repository(tmp_path, rows, contents) == built
    assert packages.repository(tmp_path, rows, packages.Contents({"conf": b"a = 2\n"}, {})) != built
    (deb,) = (built / "bookworm").glob("*.deb")
    control = subprocess.run(["dpkg-deb", "--field", str(deb)], capture_output=True, text=True).stdout
    assert "Version: 1:2.5-3\n" in control
    assert "Depends: libc6\n" in control
    subprocess.run(["dpkg-deb", "--raw-extract", str(deb), str(tmp_path / "out")], check=True)
    program = tmp_path / "out/usr/bin/thing"
    assert (program.read_text(), program.stat().st_mode & 0o777) == ("#!/bin/sh\necho 2.5", 0o755)
    assert (tmp_path / "out/DEBIAN/conffiles").read_text() == "/etc/thing.conf\n"
    assert "set -e\necho 2.5\n" in (tmp_path / "out/DEBIAN/postinst").read_text()
    assert f"Filename: ./{deb.name}\n" in (built / "bookworm/Packages").read_text()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (ROW.format(more="colour = 'red'"), "colour"),
        (ROW.format(more="suites = ['sid']"), "sid"),
        (ROW.format(more="").replace('"/usr/bin/thing"', '"usr/bin/thing"'), "absolute"),
        (ROW.format(more="").replace("postinst", "postinstall"), "postinstall"),
        (ROW.format(more="").replace('version = "1:2.5-3"', ""), "version"),
        ("[[package", "TOML"),
    ],
)
def test_a_slip_in_a_row_is_named(text: str, wrong: str) -> None:
    with pytest.raises(LabctlError, match=wrong) as refused:
        packages.rows([("rows.toml", text)])
    assert "rows.toml" in str(refused.value)


def test_a_file_by_a_key_that_nobody_makes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabctlError, match="@conf"):
        packages.repository(tmp_path, packages.rows([("x", ROW.format(more=""))]), packages.Contents({}, {}))
    assert not list(tmp_path.iterdir())


def test_the_removed_cards_are_kept_as_plain_text(tmp_path: Path) -> None:
    gpus = made(tmp_path, "RTX 3090", "RTX 3090")
    gpus.remove(1)
    assert json.loads((gpus.folder / "removed").read_text()) == [gpus.cards[1].pci]
