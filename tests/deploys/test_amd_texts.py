"""Texts for hosts with AMD graphics or shared memory, as apt and systemd read them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from labctl.domain import rocm
from labctl.inventory import Gpu, Host
from labctl.ops import openpgp
from labctl.ops.backend import PLACES, candidates, environment
from labctl.render import HEADER, amd, gguf, unified

CARD = Host(name="rig", address="10.0.0.1", gpus=(Gpu(model="RX 7900 XTX", slot="slot0"),))
STRIX = Host(
    name="strix", address="10.0.0.2", gpus=(Gpu(model="Strix Halo", slot="apu"),), unified_memory_gib=128
)
SPARK = Host(name="spark", address="10.0.0.3", gpus=(Gpu(model="GB10", slot="soc"),), unified_memory_gib=128)
OTHER = Host(
    name="odd",
    address="10.0.0.4",
    gpus=(
        Gpu(model="RX 9999", slot="slot0", vendor="amd", tdp_w=300),
        Gpu(model="RX 7900 XTX", slot="slot1"),
    ),
)


def test_cards_and_their_targets_come_from_the_inventory() -> None:
    assert [amd.has_cards(host) for host in (CARD, STRIX, SPARK)] == [True, True, False]
    assert amd.targets(CARD, ()) == ("gfx1100",)
    assert amd.targets(CARD, ("gfx1100", "gfx1036")) == ("gfx1100",), "not the processor's small graphics"
    assert amd.targets(STRIX, ()) == ("gfx1151",)


def test_of_a_card_that_no_table_knows_the_kernels_word_is_taken() -> None:
    assert amd.targets(OTHER, ("gfx1100", "gfx1250")) == ("gfx1100", "gfx1250")
    assert amd.targets(OTHER, ()) == ("gfx1100", "")


def test_only_amds_graphics_get_a_limit_of_their_module() -> None:
    assert [unified.has_amd_graphics(host) for host in (CARD, STRIX, SPARK)] == [False, True, False]
    assert "options ttm pages_limit=31457280 page_pool_size=31457280\n" in unified.ttm(120 * 262144)


def test_amds_source_is_for_one_architecture_and_one_key() -> None:
    text = amd.rocm_source("https://example.org/rocm/", "/etc/apt/keyrings/labctl-rocm.asc")
    assert text.splitlines() == [
        HEADER,
        "Types: deb",
        "URIs: https://example.org/rocm/",
        "Suites: stable",
        "Components: main",
        "Architectures: amd64",
        "Signed-By: /etc/apt/keyrings/labctl-rocm.asc",
    ]
    assert openpgp.normalized(rocm.KEY_FINGERPRINT) == rocm.KEY_FINGERPRINT


def test_apt_reads_the_preference_for_a_newer_mesa(tmp_path: Path) -> None:
    if not shutil.which("apt-cache"):
        pytest.skip("apt is not installed")
    file = tmp_path / "labctl-mesa.pref"
    file.write_text(amd.backports_pin("bookworm-backports"))
    argv = ["apt-cache", "-o", f"Dir::Etc::preferences={file}", "policy", "mesa-vulkan-drivers"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_engines_are_ended_before_the_ways_in() -> None:
    text = unified.earlyoom()
    spared = re.compile(unified.SPARED)
    for name in ("systemd", "systemd-journal", "sshd", "sshd-session", "dbus-daemon", "earlyoom"):
        assert spared.search(name), name
    for name in ("llama-server", "python3", "sshd-impostor"):
        assert not spared.search(name), name
    assert re.search(unified.PREFERRED, "llama-server")
    assert "--avoid '^(systemd|" in text
    assert not re.search(r"[^$]\$[^$]", text), "a single $ is systemd's"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_to_say_about_the_guards(tmp_path: Path) -> None:
    for name, drop_in in (
        ("earlyoom.service", unified.earlyoom().replace("/usr/bin/earlyoom", "/bin/true")),
        ("labctl-any.service", unified.services(128)),
    ):
        (tmp_path / f"{name}.d").mkdir()
        (tmp_path / f"{name}.d/10-labctl.conf").write_text(drop_in)
        (tmp_path / name).write_text("[Service]\nExecStart=/bin/true\n")
        argv = ["systemd-analyze", "verify", str(tmp_path / name)]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert "MemoryMax=120G\n" in unified.services(128)


def test_units_learn_the_backend_from_a_file_of_one_line() -> None:
    wanted = environment("vulkan")
    assert wanted.content.decode() == f"{HEADER}\nLABCTL_BACKEND=vulkan\n"


def test_labctls_own_engines_go_before_those_of_services_and_benches_before_servers() -> None:
    found = [program for backend, program in candidates(("/opt/llama/llama-server",)) if backend == "rocm"]
    assert found == [
        *(place.format(backend="rocm") for place in PLACES),
        "/opt/llama/llama-bench",
        "/opt/llama/llama-server",
    ]


def test_the_model_that_is_tried_is_small_and_always_the_same() -> None:
    gguf.tiny.cache_clear()
    first = gguf.tiny()
    gguf.tiny.cache_clear()
    assert gguf.tiny() == first
    assert first.startswith(b"GGUF")
    assert len(first) < 2_000_000
