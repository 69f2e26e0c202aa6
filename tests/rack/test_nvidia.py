"""The NVIDIA driver on real hosts: chosen by card and system, held, kept loaded, and let go of without harm.

The packages are stand-ins from repositories on the host, and so are cards where a test asks for them. apt,
dpkg, gpg and systemd are real, so what is proved is which packages come from where, what stays as it is, and
what a second run changes.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from declared import DeclaredHost, GpuHost

from labctl import wiring
from labctl.lab import Lab
from labctl.lab.fake import nvml, packages

pytestmark = pytest.mark.rack

BOTH = pytest.mark.parametrize("bare", ["bookworm", "trixie"], indirect=True)
AMPERE = 'gpus=[Gpu(model="RTX 3090", slot="slot0"), Gpu(model="RTX 3090", slot="slot1")], '
BLACKWELL = 'gpus=[Gpu(model="RTX 5090", slot="slot0")], '
SERVICE = 'Command(name="busy", argv=["/bin/sleep", "1000000"]),\n'
SMI = """\
#!/bin/sh
[ ! -e /opt/mismatch ] || { echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18; }
[ -e /opt/driver ] || { echo 'NVIDIA-SMI has failed'; exit 9; }
echo 'GPU 0: NVIDIA GeForce RTX 3090 (UUID: GPU-1)'
"""
DAEMON = """\
#!/bin/sh
[ -e /opt/driver ] || exit 1
echo "$@" >/run/persistenced
sleep 1000000 &
"""


# NVIDIA's repository has the daemon in the driver's own version; in the archive it is older.
NEWER_DAEMON = """
[[package]]
name = "nvidia-persistenced"
version = "595.99.02-1"
[package.files]
"/usr/bin/nvidia-persistenced" = "@persistenced"
"/usr/lib/systemd/system/nvidia-persistenced.service" = '''
[Service]
Type=forking
ExecStart=/usr/bin/nvidia-persistenced
'''
"""


def stand_ins(suite: str, more: str = "") -> Path:
    """Return a flat repository of the stand-in packages for one release."""
    if nvml.compiler() is None:
        pytest.skip("there is no C compiler for the fake library")
    text = Path(packages.__file__).with_name("nvidia-packages.toml").read_text()
    rows = packages.rows([("nvidia", text + more)])
    library = nvml.library(wiring.cache_home() / "lab").read_bytes()
    made = {"nvml": library, "nvidia-smi": SMI.encode(), "persistenced": DAEMON.encode()}
    contents = packages.Contents(made, {row.upstream: b"a module" for row in rows})
    return packages.repository(wiring.cache_home() / "lab", rows, contents) / suite


@pytest.fixture
def bare(
    request: pytest.FixtureRequest, rack: Lab, hosts: Any, rack_file: Callable[..., Path]
) -> DeclaredHost:
    """One host that manages modules of its own and whose driver would answer at once."""
    (host,) = hosts(1, suite=getattr(request, "param", "bookworm"))
    lent = DeclaredHost(rack, host, rack_file([host]))
    lent.run("mkdir -p /lib/modules/$(uname -r); touch /opt/driver")
    return lent


def offer(bare: DeclaredHost) -> None:
    """Put the stand-ins before everything else that apt knows."""
    shutil.copytree(stand_ins(bare.host.suite), bare.rack.root(bare.host.name) / "opt/stand-ins")
    bare.run(
        "echo 'deb [trusted=yes] file:/opt/stand-ins ./' >/etc/apt/sources.list.d/stand-ins.list;"
        "printf 'Package: *\\nPin: origin \"\"\\nPin-Priority: 1001\\n' >/etc/apt/preferences.d/stand-ins;"
        "apt-get -q update"
    )


def mirror(bare: DeclaredHost, folder: Path) -> str:
    """Put a signed copy of NVIDIA's repository on the host; return how the inventory states it."""
    if not shutil.which("gpg"):
        pytest.skip("gpg is not installed")
    copy = bare.rack.root(bare.host.name) / "srv/cuda"
    shutil.copytree(stand_ins(bare.host.suite, NEWER_DAEMON), copy)
    index = (copy / "Packages").read_bytes()
    (copy / "Packages.gz").write_bytes(gzip.compress(index, mtime=0))
    sums = [
        f" {hashlib.sha256((copy / name).read_bytes()).hexdigest()} {(copy / name).stat().st_size} {name}"
        for name in ("Packages", "Packages.gz")
    ]
    date = bare.run("date -Ru")
    release = f"Origin: NVIDIA\nLabel: NVIDIA CUDA\nDate: {date}\nSHA256:\n" + "\n".join(sums) + "\n"
    home = folder / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--passphrase", "", "--pinentry-mode", "loopback"]
    make = [*gpg, "--quick-gen-key", "NVIDIA <nobody@invalid>", "rsa3072", "sign", "never"]
    subprocess.run(make, check=True, capture_output=True)
    signed = subprocess.run([*gpg, "--clearsign"], input=release.encode(), check=True, capture_output=True)
    (copy / "InRelease").write_bytes(signed.stdout)
    armored = subprocess.run([*gpg, "--armor", "--export"], check=True, capture_output=True)
    (bare.file.parent / "cuda.asc").write_bytes(armored.stdout)
    listed = subprocess.run(
        [*gpg, "--with-colons", "--list-keys"], check=True, capture_output=True, text=True
    )
    (print_,) = [line.split(":")[9] for line in listed.stdout.splitlines() if line.startswith("fpr")]
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
    return f'mirror=AptMirror(url="file:///srv/cuda", key="cuda.asc", fingerprint="{print_}")'


def declare(bare: DeclaredHost, cards: str, settings: str = "", services: str = "", more: str = "") -> None:
    """Write the inventory with classes that the tests of other things do not need."""
    bare.declare(services, fields=f"{cards}nvidia=Nvidia({settings}), {more}")
    bare.file.write_text(f"from labctl.inventory import AptMirror, Nvidia\n{bare.file.read_text()}")


def installed(bare: DeclaredHost) -> dict[str, str]:
    """Return the versions of what belongs to a driver; what is held counts as installed."""
    lines = bare.run("dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\\n'").splitlines()
    words = [line.split() for line in lines if line[1:2] == "i"]
    return {name: version for _, name, version in words if "nvidia" in name or "cuda" in name}


@BOTH
def test_a_card_that_the_archive_serves_gets_its_driver_once_and_pyinfra_agrees(bare: DeclaredHost) -> None:
    offer(bare)
    declare(bare, AMPERE, services=SERVICE)
    branch = {"bookworm": "535", "trixie": "550"}[bare.host.suite]
    planned = bare.plan("nvidia")
    assert planned[f"NVIDIA | driver {branch} (proprietary)"] == "change"
    assert planned["NVIDIA | driver and kernel stay together"] == "change"
    assert installed(bare) == {}, "a plan changes nothing"

    assert bare.apply("nvidia") > 5
    assert installed(bare)["nvidia-kernel-dkms"].startswith(branch)
    held = bare.run("apt-mark showhold").split()
    assert {"nvidia-kernel-dkms", "nvidia-smi", "libcuda1", "nvidia-persistenced"} <= set(held)
    components = bare.run("cat /etc/apt/sources.list.d/labctl-components.sources")
    assert "Components: contrib non-free non-free-firmware" in components
    assert "blacklist nova_core" in bare.run(
        "modprobe -c 2>/dev/null || cat /etc/modprobe.d/zz-labctl-nvidia.conf"
    )
    assert bare.run("systemctl is-active nvidia-persistenced; cat /run/persistenced") == (
        "active\n--user nvpd --persistence-mode --verbose"
    )
    bare.run("systemctl is-enabled nvidia-suspend nvidia-resume nvidia-hibernate gpu-sleep-labctl")
    assert bare.apply("nvidia") == 0
    assert not [op for op in bare.pyinfra("nvidia", "--dry")["plan"] if op["hosts_with_change"]]
    assert bare.run("apt-get -s upgrade | grep -c '^Inst nvidia' || true") == "0"


@pytest.mark.parametrize("bare", ["trixie"], indirect=True)
def test_blackwell_on_debian_13_comes_from_nvidias_repository_and_keeps_its_branch(
    bare: DeclaredHost, tmp_path: Path
) -> None:
    stated = mirror(bare, tmp_path)
    declare(bare, BLACKWELL, stated)
    assert bare.apply("nvidia") > 5
    found = installed(bare)
    assert found["nvidia-driver-cuda"] == found["nvidia-kernel-open-dkms"] == "595.99.02-1"
    assert "nvidia-driver-pinning-595" in bare.run("apt-mark showhold").split()
    assert bare.apply("nvidia") == 0
    assert "615" not in bare.run("apt-get -s dist-upgrade | grep ^Inst || true"), (
        "615 is offered and not taken"
    )

    (bare.file.parent / "cuda.asc").write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n")
    assert "key of the package source labctl-nvidia" in bare.fails("nvidia")


def test_a_key_with_another_fingerprint_installs_nothing(bare: DeclaredHost, tmp_path: Path) -> None:
    stated = mirror(bare, tmp_path)
    head, _, tail = stated.rpartition('fingerprint="')
    wrong = f'{head}fingerprint="{"0" * 40}{tail[40:]}'
    declare(bare, AMPERE, f'source="nvidia", branch=595, {wrong}')
    assert "nothing was written" in bare.fails("nvidia")
    assert installed(bare) == {}


def test_a_container_gets_libraries_and_no_kernel_modules(bare: DeclaredHost) -> None:
    offer(bare)
    bare.run("rmdir /lib/modules/$(uname -r)")
    declare(bare, AMPERE)
    bare.apply("nvidia")
    assert "nvidia-smi" in installed(bare)
    assert "nvidia-kernel-dkms" not in installed(bare)
    bare.run("test -e /etc/modprobe.d/zz-labctl-nvidia.conf", status=1)
    assert bare.apply("nvidia") == 0


def test_a_library_that_the_driver_refuses_asks_for_a_reboot_and_is_no_change_twice(
    bare: DeclaredHost,
) -> None:
    offer(bare)
    declare(bare, AMPERE)
    bare.apply("nvidia")
    bare.run("touch /opt/mismatch")
    assert bare.apply("nvidia") == 1
    assert "does not fit the library" in bare.run("cat /run/labctl/reboot-required.d/*")
    assert bare.apply("nvidia") == 0


def test_a_vendors_image_is_looked_at_and_not_touched(bare: DeclaredHost) -> None:
    offer(bare)
    bare.run("apt-get install -qy --no-install-recommends nvidia-smi; touch /opt/mismatch")
    before = bare.rack.digest(bare.host.name, ("/etc", "/usr/local", "/var/lib/labctl", "/opt"))
    declare(bare, AMPERE, more="vendor_image=True, ")
    said = bare.report("plan", "--only=nvidia")
    assert "vendor's driver is left alone" in str(said)
    assert bare.apply("nvidia") == 0
    assert bare.rack.digest(bare.host.name, ("/etc", "/usr/local", "/var/lib/labctl", "/opt")) == before


def test_holds_of_labctl_go_with_the_cards_and_those_of_others_stay(bare: DeclaredHost) -> None:
    offer(bare)
    bare.run("apt-get install -qy --no-install-recommends nvidia-smi; apt-mark hold nvidia-smi tzdata")
    declare(bare, AMPERE, services=SERVICE)
    bare.apply("nvidia")
    assert "libcuda1" in bare.run("apt-mark showhold").split()
    bare.run("apt-mark unhold libcuda1")
    assert bare.apply("nvidia") == 1, "what somebody let go of is held again"

    bare.declare()
    assert bare.apply("nvidia") > 0
    assert bare.run("apt-mark showhold").split() == ["nvidia-smi", "tzdata"]
    assert "nvidia-kernel-dkms" in installed(bare), "the driver itself stays"
    bare.run("ls /etc/modprobe.d/*labctl* /etc/systemd/system/*labctl.service", status=2)
    assert bare.apply("nvidia") == 0


def test_services_leave_the_cards_before_sleep_and_those_that_ran_come_back(bare: DeclaredHost) -> None:
    offer(bare)
    declare(bare, AMPERE, services=SERVICE + SERVICE.replace("busy", "idle"))
    bare.apply("nvidia", "services")
    bare.run("systemctl stop labctl-idle")
    # systemd-sleep itself would put the machine to sleep on which the lab runs.
    drop_in = """[Service]
ExecStart=
ExecStart=/bin/sh -c "systemctl is-active labctl-busy >/opt/slept || true"
"""
    folder = bare.rack.root(bare.host.name) / "etc/systemd/system/systemd-suspend.service.d"
    folder.mkdir()
    (folder / "test.conf").write_text(drop_in)
    bare.run("systemctl daemon-reload; systemctl start suspend.target")
    assert bare.run("cat /opt/slept") == "inactive"
    awake = "for i in $(seq 50); do systemctl -q is-active labctl-busy && exit 0; sleep 0.2; done; exit 1"
    bare.run(awake)
    assert bare.run("systemctl is-active labctl-idle || true") == "inactive"


def test_video_memory_is_not_promised_a_place_that_cannot_hold_it(bare: DeclaredHost) -> None:
    offer(bare)
    declare(bare, AMPERE, 'suspend="preserve", suspend_path="/run/vram"')
    assert "lies in memory" in bare.fails("nvidia")
    assert installed(bare) == {}


# With cards, and a module that can be loaded.


def test_a_host_with_cards_computes_after_one_apply_and_after_a_boot(
    gpu_rack: Lab, gpu_host: GpuHost
) -> None:
    box = gpu_host("cuda")
    declare(box, f"gpus=[{box.gpus()}], ")
    assert box.apply("nvidia") > 5
    assert box.run("nvidia-smi -L | wc -l") == "4"
    assert box.run("cat /sys/module/nvidia/version") == "535.261.03"
    assert all(card["persistence"] for card in gpu_rack.gpu_state("cuda")["cards"])
    assert box.apply("nvidia") == 0
    box.reboot()
    assert all(card["persistence"] for card in gpu_rack.gpu_state("cuda")["cards"])
    assert box.apply("nvidia") == 0


def test_a_loaded_driver_owes_no_boot_for_a_blacklist(gpu_host: GpuHost) -> None:
    box = gpu_host("cuda")
    declare(box, f"gpus=[{box.gpus()}], ")
    box.apply("nvidia")
    box.run("rm /etc/modprobe.d/zz-labctl-nvidia.conf")
    assert box.apply("nvidia") == 1
    box.run("ls /run/labctl/reboot-required.d", status=2)


def test_blackwell_takes_the_open_modules_from_the_source_that_the_host_has(gpu_host: GpuHost) -> None:
    box = gpu_host("blackwell")
    declare(box, f"gpus=[{box.gpus()}], ")
    box.apply("nvidia")
    assert box.run("cat /sys/module/nvidia/version") == "595.99.02"
    box.run("ls /etc/apt/sources.list.d/labctl-nvidia.sources", status=2)
    assert "nvidia-kernel-open-dkms" in box.run("apt-mark showhold").split()
    assert box.apply("nvidia") == 0


def test_an_old_card_stays_with_the_archives_proprietary_modules(gpu_host: GpuHost) -> None:
    box = gpu_host("pascal")
    declare(box, f"gpus=[{box.gpus()}], ")
    box.apply("nvidia")
    assert box.run("cat /sys/module/nvidia/version") == "550.163.01"
    assert "nvidia-kernel-dkms" in installed(box)
    assert box.apply("nvidia") == 0


def test_cards_that_the_kernels_own_driver_holds_wait_for_a_boot(gpu_rack: Lab, gpu_host: GpuHost) -> None:
    box = gpu_host("cuda")
    gpu_rack.gpu_fault("cuda", None, "nouveau")
    declare(box, f"gpus=[{box.gpus()}], ")
    box.apply("nvidia")
    assert "until the next boot" in box.run("cat /run/labctl/reboot-required.d/*")
    assert box.apply("nvidia") == 0, "that a boot is owed is no change"


def test_a_driver_that_was_updated_under_a_loaded_module_asks_for_a_boot(
    gpu_rack: Lab, gpu_host: GpuHost
) -> None:
    box = gpu_host("cuda")
    declare(box, f"gpus=[{box.gpus()}], ")
    box.apply("nvidia")
    gpu_rack.gpu_fault("cuda", None, "mismatch")
    said = str(box.report("plan", "--only=nvidia", "--only=restart"))
    assert "needs a reboot" in said
