"""Hosts with AMD graphics: drivers by card, shared memory guarded, a backend chosen by what really decodes.

The cards are not there, which is what is wanted of half of these tests: an engine that finds no card computes
on the processor, and must not pass for one that uses it. The packages of AMD and Mesa are stand-ins from a
repository on the host; apt, dpkg, systemd and llama.cpp are real.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from declared import DeclaredHost

from labctl import wiring
from labctl.lab import Lab, llama
from labctl.lab.fake import packages

pytestmark = pytest.mark.rack

BOTH = pytest.mark.parametrize("amd", ["bookworm", "trixie"], indirect=True)
DISCRETE = 'gpus=[Gpu(model="RX 7900 XTX", slot="slot0")], '
STRIX = 'gpus=[Gpu(model="Strix Halo", slot="apu")], unified_memory_gib=128, '
ENGINES = "/opt/labctl/llama.cpp"
DEPLOYS = ("unified", "rocm", "vulkan", "backend")
WORKS = """\
echo 'ggml_cuda_init: found 1 {kind} devices:' >&2
echo 'load_tensors: offloaded 3/3 layers to GPU' >&2
echo 'load_tensors:        {buffer} model buffer size =     0.46 MiB' >&2
echo '{{"build_commit": "abc", "build_number": 1, "n_gen": 32, "avg_ts": {speed}}}'
"""
FAULTS = """\
echo 'ggml_cuda_init: found 1 ROCm devices:' >&2
echo 'Memory access fault by GPU node-1 on address 0x7f: Page not present' >&2
kill -ABRT $$
"""
HANGS = "echo 'ggml_cuda_init: found 1 ROCm devices:' >&2; sleep 600\n"
GARBAGE = "echo 'ggml_vulkan: Found 1 Vulkan devices:' >&2; head -c 100000 /dev/urandom\n"


@pytest.fixture
def amd(
    request: pytest.FixtureRequest, rack: Lab, hosts: Any, rack_file: Callable[..., Path]
) -> DeclaredHost:
    """One host whose package sources hold the stand-ins."""
    (host,) = hosts(1, suite=getattr(request, "param", "trixie"))
    lent = DeclaredHost(rack, host, rack_file([host]))
    text = Path(packages.__file__).with_name("amd-packages.toml").read_text()
    contents = packages.Contents({"rocminfo": b"#!/bin/sh\necho gfx1100\n"}, {})
    built = packages.repository(wiring.cache_home() / "lab", packages.rows([("amd", text)]), contents)
    shutil.copytree(built / host.suite, rack.root(host.name) / "opt/stand-ins", dirs_exist_ok=True)
    lent.run(
        "echo 'deb [trusted=yes] file:/opt/stand-ins ./' >/etc/apt/sources.list.d/stand-ins.list;"
        "printf 'Package: *\\nPin: origin \"\"\\nPin-Priority: 1001\\n' >/etc/apt/preferences.d/stand-ins;"
        "apt-get -q update"
    )
    return lent


def engine(amd: DeclaredHost, backend: str, script: str) -> None:
    """Put a double of llama-bench where the backend's engine is looked for."""
    folder = amd.rack.root(amd.host.name) / f"{ENGINES[1:]}/{backend}/current"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "llama-bench").write_text(f"#!/bin/sh\n{script}")
    (folder / "llama-bench").chmod(0o755)


def signed_copy(amd: DeclaredHost, work: Path) -> tuple[Path, str]:
    """Lay AMD's layout of a repository around the stand-ins, signed; return the key and its fingerprint."""
    if not shutil.which("gpg"):
        pytest.skip("gpg is not installed")
    copy = amd.rack.root(amd.host.name) / "opt/copy"
    shutil.copytree(amd.rack.root(amd.host.name) / "opt/stand-ins", copy)
    index = copy / "dists/stable/main/binary-amd64/Packages"
    index.parent.mkdir(parents=True)
    (copy / "Packages").rename(index)
    listed = f" {hashlib.sha256(index.read_bytes()).hexdigest()} {index.stat().st_size}"
    release = copy / "dists/stable/Release"
    release.write_text(
        "Suite: stable\nCodename: stable\nComponents: main\nArchitectures: amd64\n"
        f"Date: {formatdate(usegmt=True)}\nSHA256:\n{listed} main/binary-amd64/Packages\n"
    )
    gpg = ["gpg", "--homedir", str(work / "gpg"), "--batch", "--quiet", "--yes"]
    (work / "gpg").mkdir(mode=0o700)
    make = ["--passphrase", "", "--quick-generate-key", "a@example.org", "ed25519", "sign", "never"]
    key = work / "key.asc"
    for argv in (make, ["--clearsign", "-o", str(release.with_name("InRelease")), str(release)],
                 ["--armor", "--export", "-o", str(key)]):  # fmt: skip
        subprocess.run([*gpg, *argv], check=True, capture_output=True)
    said = subprocess.run([*gpg, "--with-colons", "--list-keys"], check=True, capture_output=True, text=True)
    subprocess.run(["gpgconf", "--homedir", str(work / "gpg"), "--kill", "all"], check=True)
    return key, next(line.split(":")[9] for line in said.stdout.splitlines() if line.startswith("fpr"))


def record(amd: DeclaredHost) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(amd.run("cat /var/lib/labctl/backend.json"))
    return found


def outcomes(amd: DeclaredHost) -> dict[str, str]:
    return {run["backend"]: run["outcome"] for run in record(amd)["runs"]}


@BOTH
def test_a_card_gets_rocm_and_vulkan_once_and_pyinfra_agrees(amd: DeclaredHost) -> None:
    amd.declare(fields=DISCRETE)
    planned = amd.plan(*DEPLOYS)
    assert planned["ROCm | packages from amd"] == planned["Vulkan | packages"] == "change"
    assert amd.apply(*DEPLOYS) > 0
    assert amd.run("cat /opt/rocm/core/.info/version") == "10.0.0"
    assert "ii" in amd.run("dpkg-query -W -f='${db:Status-Abbrev}' amdrocm10.0-gfx1100 mesa-vulkan-drivers")
    amd.run("getent group render && getent group video")
    amd.run("dpkg-query -W amdgpu-dkms", status=1)
    assert amd.apply(*DEPLOYS) == 0
    for deploy in DEPLOYS:
        assert not [op for op in amd.pyinfra(deploy, "--dry")["plan"] if op["hosts_with_change"]]


@BOTH
def test_strix_halo_divides_its_memory_and_is_guarded_until_it_leaves_the_inventory(
    amd: DeclaredHost,
) -> None:
    amd.declare(fields=STRIX)
    assert amd.apply(*DEPLOYS) > 0
    assert f"pages_limit={120 * 262144} " in amd.run("cat /etc/modprobe.d/labctl-ttm.conf")
    assert amd.run("systemctl is-active earlyoom; systemctl is-enabled earlyoom") == "active\nenabled"
    assert "sshd" in amd.run("tr '\\0' ' ' </proc/$(systemctl show -P MainPID earlyoom)/cmdline")
    amd.run("systemd-run --unit=labctl-any.service sleep 60")
    assert amd.run("systemctl show -P MemoryMax labctl-any.service") == str(120 << 30)
    assert amd.apply(*DEPLOYS) == 0

    amd.declare()
    assert amd.apply(*DEPLOYS) > 0
    amd.run("ls /etc/modprobe.d/labctl-* /etc/systemd/system/*/10-labctl* /etc/labctl/backend.env", status=2)
    assert amd.apply(*DEPLOYS) == 0


@BOTH
def test_a_copy_of_amds_repository_is_believed_by_its_key_only(amd: DeclaredHost, tmp_path: Path) -> None:
    key, fingerprint = signed_copy(amd, tmp_path)
    mirror = {"url": "file:///opt/copy", "key": str(key), "fingerprint": fingerprint}
    amd.declare(fields=f"{DISCRETE}amd={{'mirror': {mirror!r}}}, ")
    assert amd.apply("rocm") > 0
    assert "file:/opt/copy" in amd.run("apt-cache policy amdrocm10.0-gfx1100")
    assert amd.apply("rocm") == 0

    amd.declare(fields=f"{DISCRETE}amd={{'mirror': {mirror | {'fingerprint': '0' * 40}!r}}}, ")
    assert "expected 000" in amd.fails("rocm")


def test_amds_own_key_that_cannot_be_had_changes_nothing(amd: DeclaredHost) -> None:
    amd.run("rm /etc/apt/sources.list.d/stand-ins.list; apt-get -q update; rm -f /var/cache/apt/*.bin")
    amd.declare(fields=DISCRETE)
    assert "the key at https://stable.repo.amd.com/rocm/gpg/packages.gpg could not be fetched" in amd.fails(
        "rocm"
    )
    amd.run("ls /etc/apt/sources.list.d/labctl-* /etc/apt/keyrings/labctl-*", status=2)


def test_a_host_without_an_engine_has_nothing_proved_and_nothing_changed(amd: DeclaredHost) -> None:
    amd.declare(fields=DISCRETE)
    amd.apply("backend")
    amd.run("test -e /var/lib/labctl/backend.json || test -e /etc/labctl/backend.env", status=1)
    assert amd.apply("backend") == 0


@BOTH
def test_the_faster_of_two_backends_is_chosen_and_tried_again_only_when_something_changed(
    amd: DeclaredHost,
) -> None:
    engine(amd, "rocm", WORKS.format(kind="ROCm", buffer="ROCm0", speed=200))
    engine(amd, "vulkan", WORKS.format(kind="Vulkan", buffer="Vulkan0", speed=100))
    amd.declare(fields=DISCRETE)
    assert amd.apply("backend") > 0
    assert (record(amd)["backend"], outcomes(amd)) == ("rocm", {"rocm": "ok", "vulkan": "ok"})
    assert amd.run("tail -n 1 /etc/labctl/backend.env") == "LABCTL_BACKEND=rocm"
    assert record(amd)["ground"]["kernel"] == amd.run("uname -r")
    proved_at = record(amd)["at"]
    assert amd.apply("backend") == 0
    assert record(amd)["at"] == proved_at

    engine(amd, "rocm", FAULTS)
    assert amd.apply("backend") == 1
    assert (record(amd)["backend"], outcomes(amd)) == ("vulkan", {"rocm": "faulted", "vulkan": "ok"})
    assert amd.apply("backend") == 0

    amd.run("rm /etc/labctl/backend.env")
    assert amd.apply("backend") == 1
    assert amd.run("tail -n 1 /etc/labctl/backend.env") == "LABCTL_BACKEND=vulkan"
    amd.run("systemctl --failed --plain --no-legend | grep labctl-backend", status=1)


def test_a_hang_and_garbage_harm_nobody_and_are_failures(amd: DeclaredHost) -> None:
    engine(amd, "rocm", HANGS)
    engine(amd, "vulkan", GARBAGE)
    amd.declare(fields=DISCRETE)
    # The shortest way to a shorter limit: the service manager's own.
    amd.run(
        "mkdir -p /etc/systemd/system/labctl-backend-rocm.service.d;"
        "printf '[Service]\\nRuntimeMaxSec=3\\n' >/etc/systemd/system/labctl-backend-rocm.service.d/99.conf;"
        "systemctl daemon-reload"
    )
    assert amd.apply("backend") > 0
    assert (record(amd)["backend"], outcomes(amd)) == ("none", {"rocm": "timeout", "vulkan": "faulted"})
    amd.run("pgrep -x llama-bench", status=1)
    assert amd.apply("backend") == 0


@BOTH
def test_a_real_llama_cpp_without_a_card_is_known_to_compute_on_the_processor(amd: DeclaredHost) -> None:
    try:
        llama.install(wiring.cache_home() / "lab", amd.rack.root(amd.host.name))
    except llama.NoLlama as reason:
        pytest.skip(f"no llama-server: {reason}")
    amd.declare(fields=DISCRETE)
    amd.run(f"mkdir -p {ENGINES}/vulkan && ln -s {llama.HOME} {ENGINES}/vulkan/current")
    assert amd.apply("backend") > 0
    (run,) = record(amd)["runs"]
    assert (run["backend"], run["outcome"], record(amd)["backend"]) == ("vulkan", "cpu", "none"), run
    assert "the model lay in CPU" in run["why"]
    assert run["tokens_per_s"] > 0
    assert amd.apply("backend") == 0
