"""Texts for hosts with NVIDIA cards, the keys that come with labctl, and what sleep asks for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from labctl.domain.driver_packages import DriverPlan, Needs, choose
from labctl.domain.problem import LabctlError
from labctl.inventory import AptMirror, Command, Gpu, Host, Nvidia
from labctl.ops import openpgp
from labctl.render import nvidia, nvidia_keys

DEBIAN = Needs("debian", "12", "amd64", "6.1.0-40-amd64", ("Ampere",))


def host(*models: str, **settings: Any) -> Host:
    cards = tuple(Gpu(model=model, slot=f"slot{number}") for number, model in enumerate(models))
    services = (Command(name="a", argv=("/bin/true",)), Command(name="b", argv=("/bin/true",)))
    return Host(name="rig", address="10.0.0.1", gpus=cards, nvidia=Nvidia(**settings), services=services)


def plan(**changed: Any) -> DriverPlan:
    return choose(Needs(**{**{name: getattr(DEBIAN, name) for name in DEBIAN.__slots__}, **changed}))


# Cards.


def test_only_nvidias_cards_count() -> None:
    mixed = host("RTX 3090", "RX 7900 XTX", "RTX 5090", "RTX 3090")
    assert [gpu.model for gpu in nvidia.cards(mixed)] == ["RTX 3090", "RTX 5090", "RTX 3090"]
    assert nvidia.architectures(mixed) == ("Ampere", "Blackwell")
    assert nvidia.video_memory(mixed) == (24 + 32 + 24) * 2**30


def test_video_memory_of_a_card_that_nobody_knows_is_not_known() -> None:
    odd = Host(
        name="odd",
        address="10.0.0.2",
        gpus=(Gpu(model="RTX 9999", slot="slot0", vendor="nvidia", tdp_w=300),),
        nvidia=Nvidia(suspend="preserve"),
    )
    assert nvidia.video_memory(odd) is None
    with pytest.raises(LabctlError, match="not known of every card"):
        nvidia.require_room(odd, "ext4", 10**15)


# Keys.


@pytest.mark.parametrize("folder", ["debian12", "debian13", "ubuntu2404"])
def test_a_key_that_comes_with_labctl_has_the_fingerprint_that_is_stated_for_it(folder: str) -> None:
    key = nvidia_keys.of_repository(folder)
    assert key is not None
    assert openpgp.fingerprint(key.armored) == key.fingerprint


def test_the_container_toolkits_key_has_its_fingerprint() -> None:
    key = nvidia_keys.CONTAINER_TOOLKIT
    assert openpgp.fingerprint(key.armored) == key.fingerprint


@pytest.mark.skipif(not shutil.which("gpg"), reason="gpg is not installed")
def test_gpg_reads_the_keys_too(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    for key in (nvidia_keys.of_repository("debian12"), nvidia_keys.CONTAINER_TOOLKIT):
        assert key is not None
        argv = ["gpg", "--homedir", str(tmp_path), "--batch", "--with-colons", "--show-keys"]
        shown = subprocess.run(argv, input=key.armored, capture_output=True, text=True, check=True)
        assert f"fpr:::::::::{key.fingerprint}:" in shown.stdout


# Repositories.


def test_the_repository_is_nvidias_or_the_copy_that_the_inventory_names(tmp_path: Path) -> None:
    new = plan(architectures=("Blackwell",))
    url, key = nvidia.repository(new, None, tmp_path)
    assert url.endswith("/cuda/repos/debian12/x86_64")
    assert key is nvidia_keys.of_repository("debian12")
    url, same = nvidia.repository(new, AptMirror(url="https://mirror.lan/cuda"), tmp_path)
    assert (url, same) == ("https://mirror.lan/cuda", key), "a copy is signed as the original is"

    (tmp_path / "own.asc").write_text("a key")
    mirror = AptMirror(url="file:///srv/cuda", key="own.asc", fingerprint="A" * 40)
    assert nvidia.repository(new, mirror, tmp_path) == (
        "file:///srv/cuda",
        nvidia_keys.Key("A" * 40, "a key"),
    )


def test_a_repository_whose_key_labctl_lacks_asks_for_one(tmp_path: Path) -> None:
    resolute = choose(Needs("ubuntu", "26.04", "amd64", "7.0.0-43-generic", ("Ada",), source="nvidia"))
    with pytest.raises(LabctlError, match="does not carry the key") as caught:
        nvidia.repository(resolute, None, tmp_path)
    assert "fingerprint=" in str(caught.value)


# Files.


def test_debians_archive_names_its_modules_otherwise() -> None:
    text = nvidia.modprobe(host("RTX 3090", suspend="preserve"), plan(), "debian")
    for module in ("nvidia", "nvidia-current", "nvidia-current-open"):
        assert f"options {module} NVreg_PreserveVideoMemoryAllocations=1" in text
    other = nvidia.modprobe(
        host("RTX 5090", suspend="preserve"), plan(architectures=("Blackwell",)), "debian"
    )
    assert other.count("options ") == 1
    assert "blacklist nova_core\nalias nova_core off" in other
    assert "options" not in nvidia.modprobe(host("RTX 3090"), plan(), "debian")


@pytest.mark.skipif(not shutil.which("modprobe"), reason="modprobe is not installed")
def test_modprobe_reads_the_options(tmp_path: Path) -> None:
    (tmp_path / "x.conf").write_text(nvidia.modprobe(host("RTX 3090", suspend="preserve"), plan(), "debian"))
    done = subprocess.run(["modprobe", "-C", str(tmp_path), "-c"], capture_output=True, text=True, check=True)
    assert "blacklist nouveau" in done.stdout
    assert "options nvidia_current NVreg_PreserveVideoMemoryAllocations=1" in done.stdout


def test_the_daemon_keeps_the_user_that_the_package_made() -> None:
    assert "--user nvpd --persistence-mode" in nvidia.persistence(plan())
    assert "--user" not in nvidia.persistence(plan(architectures=("Blackwell",)))


def test_room_for_video_memory_is_five_per_cent_more_than_it() -> None:
    rig = host("RTX 3090", "RTX 3090", suspend="preserve", suspend_path="/srv/vram")
    nvidia.require_room(rig, "ext4", int(48 * 1.05 * 2**30) + 1)
    for kind, free, words in (("ext4", 48 * 2**30, "50 GiB"), ("tmpfs", 10**15, "lies in memory")):
        with pytest.raises(LabctlError, match=words):
            nvidia.require_room(rig, kind, free)


# Around sleep.


@pytest.fixture
def sleeper(tmp_path: Path) -> Path:
    """The script with its memory, and a systemctl that knows which services run, below a folder."""
    script = nvidia.sleep_script(host("RTX 3090")).replace("/run/labctl/asleep", f"{tmp_path}/run/asleep")
    (tmp_path / "gpu-sleep").write_text(script)
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        "#!/bin/sh\n"
        f'cd {tmp_path}; case "$1 $2" in "-q is-active") test -e "$3.on" ;;'
        ' stop*) shift; for u; do rm -f "$u.on"; done ;;'
        ' "start --no-block") shift 2; for u; do touch "$u.on"; done ;; *) exit 9 ;; esac\n'
    )
    systemctl.chmod(0o755)
    return tmp_path


def run(sleeper: Path, verb: str) -> list[str]:
    environment = {**os.environ, "PATH": f"{sleeper}:{os.environ['PATH']}"}
    subprocess.run(["sh", str(sleeper / "gpu-sleep"), verb], env=environment, check=True)
    return sorted(path.name for path in sleeper.glob("*.on"))


def test_what_ran_before_sleep_runs_after_it_and_nothing_else(sleeper: Path) -> None:
    (sleeper / "labctl-a.service.on").touch()
    assert run(sleeper, "down") == []
    assert run(sleeper, "up") == ["labctl-a.service.on"]
    assert run(sleeper, "up") == ["labctl-a.service.on"]


def test_a_second_sleep_before_the_first_wake_up_forgets_nobody(sleeper: Path) -> None:
    (sleeper / "labctl-b.service.on").touch()
    run(sleeper, "down")
    assert run(sleeper, "down") == []
    assert run(sleeper, "up") == ["labctl-b.service.on"]


def test_waking_up_without_a_sleep_starts_nothing(sleeper: Path) -> None:
    assert run(sleeper, "up") == []
