"""What makes one copy of a Debian tree a host of its own, as a cloud image's first boot would.

Name, SSH host keys, the operator's login with sudo, and the way to the apt archives. All is written into
the host's overlay before it boots. Host keys come from the lab's directory: they outlive a reset, so that
pinned keys stay true, and change only when a reinstalled host is simulated.
"""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from labctl.lab.commands import run
from labctl.lab.fake.packages import VENDOR_IMAGE
from labctl.lab.gpus import INSIDE as GPUS_INSIDE
from labctl.lab.spec import PROXY_PORT, LabHost, LabSpec
from labctl.lab.supplies import INSIDE as PACKAGES_INSIDE

KEY_TYPES = ("ed25519", "ecdsa")


def make_host_keys(spec: LabSpec, name: str, *, anew: bool = False) -> None:
    """Make SSH host keys for ``name`` in the lab's directory, unless it has some."""
    where = host_directory(spec, name)
    if anew:
        shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True, exist_ok=True)
    for kind in KEY_TYPES:
        key = where / f"ssh_host_{kind}_key"
        if not key.exists():
            run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", f"root@{name}", "-f", str(key))


def host_directory(spec: LabSpec, name: str) -> Path:
    """Return the directory that keeps the identity of a host."""
    return spec.home / "hosts" / name


def furnish(spec: LabSpec, host: LabHost, root: Path) -> None:
    """Write the host's own files into its tree at ``root``."""
    etc = root / "etc"
    (etc / "hostname").write_text(f"{host.name}\n")
    (etc / "hosts").write_text(
        f"127.0.0.1\tlocalhost\n127.0.1.1\t{host.name}\n\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
    )
    for key in host_directory(spec, host.name).glob("ssh_host_*"):
        shutil.copy(key, etc / "ssh" / key.name)
        (etc / "ssh" / key.name).chmod(0o644 if key.suffix == ".pub" else 0o600)
    (etc / "apt/apt.conf.d/00lab").write_text(f'Acquire::http::Proxy "http://{spec.uplink}:{PROXY_PORT}";\n')
    _furnish_login(spec, root)


def furnish_gpus(host: LabHost, root: Path, packages: Path) -> None:
    """Write what a host with (fake) graphics cards has besides: a source of drivers, and modprobe."""
    where = f"{PACKAGES_INSIDE}/{host.suite}"
    apt = root / "etc/apt"
    (apt / "sources.list.d/lab.list").write_text(f"deb [trusted=yes] file:{where} ./\n")
    (apt / "preferences.d/lab").write_text('Package: *\nPin: origin ""\nPin-Priority: 1001\n')
    # The list as apt-get update would store it, so that a host can install at once.
    index = root / "var/lib/apt/lists" / f"{where[1:].replace('/', '_')}_._Packages"
    index = index.with_name(f"_{index.name}")
    shutil.copy(packages / host.suite / "Packages", index)
    for name in ("modprobe", "rmmod"):
        (root / "usr/local/sbin" / name).symlink_to(f"{GPUS_INSIDE}/{name}")
    if host.vendor_image:
        (deb,) = (packages / host.suite).glob(f"{VENDOR_IMAGE}_*.deb")
        run("dpkg-deb", "--extract", str(deb), str(root))
    # A machine has the folder of its kernel's modules; a container that uses another's has not.
    (root / "usr/lib/modules" / platform.release()).mkdir(parents=True, exist_ok=True)


def _furnish_login(spec: LabSpec, root: Path) -> None:
    user = spec.login_user
    home = root / "root"
    if user != "root":
        run("useradd", "--root", str(root), "--create-home", "--shell", "/bin/bash", user)
        sudoers = root / "etc/sudoers.d/90-lab"
        sudoers.write_text(f"{user} ALL=(ALL) NOPASSWD:ALL\n")
        sudoers.chmod(0o440)
        home = root / "home" / user
    owner = home.stat()
    ssh = home / ".ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    keys = ssh / "authorized_keys"
    keys.write_text(spec.operator_pubkey.strip() + "\n")
    keys.chmod(0o600)
    for path in (ssh, keys):
        shutil.chown(path, owner.st_uid, owner.st_gid)
