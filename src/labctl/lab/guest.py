"""The disk and the kernel of virtual machines: a Debian tree with a Debian kernel, as files that QEMU starts.

The tree is the one that the other hosts of the suite run on; a layer over it adds the modules that a guest
can need and the lab's way in. Nothing is installed by the kernel's package: no boot loader and no tool that
makes initial file systems is needed. Kernel and busybox come from the suite's own archive, by an apt that
works in a state of its own. Made once, kept by a digest of what decides the content.

What makes a guest one host, and not another, comes with its initial file system, and is laid on the disk at
its first boot: ``identity`` packs it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from labctl.domain.problem import LabctlError
from labctl.lab import bases
from labctl.lab.commands import attempt, run
from labctl.lab.supplies import MIRROR_INSIDE, MIRROR_TAG

RECIPE = 2
SIZE_MIB = 4096
SHELL = "/usr/local/lib/lab-shell"
_BOOT_MODULES = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")
# What of the kernel's modules a server of a rack may load; the rest, most of it for hardware, is left out.
_KEPT = (
    *("arch", "block", "crypto", "lib", "mm", "net", "drivers/virtio", "drivers/char", "drivers/rtc"),
    *("drivers/net/mii", "drivers/net/ethernet/realtek/8139", "drivers/net/dummy", "drivers/net/tun"),
    *("drivers/net/veth", "drivers/net/net_failover", "drivers/block/virtio", "drivers/block/loop"),
    *("drivers/input/evdev", "drivers/acpi", "drivers/md/dm-mod", "fs/ext4", "fs/jbd2", "fs/mbcache"),
    *(
        "fs/fuse",
        "fs/overlayfs",
        "fs/nfs",
        "fs/lockd",
        "fs/netfs",
        "fs/fscache",
        "fs/autofs",
        "fs/configfs",
    ),
)
_LEFT_OUT = re.compile(
    r"net/(wireless|mac80211|bluetooth|can|nfc|ieee802154|mac802154|batman|rxrpc|tipc|atm|ax25)"
)
_MASKED = (
    *("getty@tty1.service", "systemd-pstore.service", "e2scrub_reap.service", "fstrim.timer"),
    *("e2scrub_all.timer", "systemd-networkd.service", "systemd-networkd-wait-online.service"),
    *("systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "sys-kernel-debug.mount"),
    *("sys-kernel-tracing.mount", "dev-hugepages.mount", "modprobe@drm.service", "modprobe@dm_mod.service"),
    *("modprobe@loop.service", "modprobe@configfs.service", "sys-kernel-config.mount"),
    *("apt-daily.service", "apt-daily-upgrade.service", "dpkg-db-backup.timer", "man-db.timer"),
)
_UNITS = {
    "lab-network.service": (
        "[Unit]\nDescription=Address of this virtual machine\nDefaultDependencies=no\n"
        "Requires=sys-subsystem-net-devices-eth0.device\nAfter=sys-subsystem-net-devices-eth0.device\n"
        "Before=network.target ssh.service\nWants=network.target\n\n"
        f"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={SHELL}/network.sh\n"
    ),
    "lab-shell.service": (
        "[Unit]\nDescription=The lab's way in\n"
        "After=ssh.service lab-network.service systemd-logind.service\n\n"
        f"[Service]\nExecStart={SHELL}/shell.py\nRestart=always\nRestartSec=1\n"
    ),
}
# The mirror is mounted when somebody looks there, since most boots want to be quick.
_FSTAB = f"""\
/dev/vda / ext4 noatime 0 0
LABEL={MIRROR_TAG} {MIRROR_INSIDE} ext4 ro,noauto,x-systemd.automount 0 0
"""


@dataclass(frozen=True, slots=True)
class Guest:
    """The files of a suite's guests: ``kernel``, ``initrd`` (without an identity) and the ``disk``, raw."""

    folder: Path

    @property
    def kernel(self) -> Path:
        """Return the kernel's file."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Return the initial file system, to which an identity is appended."""
        return self.folder / "initrd"

    @property
    def disk(self) -> Path:
        """Return the raw disk, which is never written: guests have their own layer over it."""
        return self.folder / "root.ext4"


def guest(suite: str, cache: Path, progress: Callable[[str], None], mirror: str | None = None) -> Guest:
    """Return the guest of a suite, made now if it is missing.

    Raises:
        LabctlError: the archive does not give what is needed, or a tool failed.
    """
    tree = bases.base(suite, cache, progress, mirror)
    sources = (file.read_text() for file in sorted(_ours(), key=lambda file: file.name))
    decisive = json.dumps([RECIPE, SIZE_MIB, tree.parent.name, _KEPT, _MASKED, _UNITS, _FSTAB, *sources])
    built = cache / "guests" / f"{suite}-{hashlib.sha256(decisive.encode()).hexdigest()[:12]}"
    if not built.is_dir():
        built.parent.mkdir(parents=True, exist_ok=True)
        with built.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not built.is_dir():
                progress(f"making the disk of Debian {suite} virtual machines: once, about half a minute")
                _make(tree, built)
    return Guest(built)


def identity(upper: Path, out: Path, made: Guest) -> None:
    """Write to ``out`` the initial file system of one host, whose own files are those below ``upper``."""
    entries = [("identity", stat.S_IFDIR | 0o755, 0, 0, b"")]
    for path in sorted(upper.rglob("*")):
        status = path.lstat()
        if stat.S_ISCHR(status.st_mode):
            continue  # a file that the overlay took away
        content = str(path.readlink()).encode() if path.is_symlink() else b""
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        name = f"identity/{path.relative_to(upper)}"
        entries.append((name, status.st_mode, status.st_uid, status.st_gid, content))
    out.write_bytes(made.initrd.read_bytes() + _newc(entries))


def _make(tree: Path, built: Path) -> None:
    work = built.with_suffix(".partial")
    shutil.rmtree(work, ignore_errors=True)
    (work / "layer").mkdir(parents=True)
    _fetch(tree, work)
    (kernel,) = work.glob("linux-image-*.deb")
    (busybox,) = work.glob("busybox-static_*.deb")
    run("dpkg-deb", "--extract", str(kernel), str(work / "kernel"))
    run("dpkg-deb", "--extract", str(busybox), str(work / "busybox"))
    # Debian 13 has them below /usr alone.
    (release,) = (path for at in ("lib", "usr/lib") for path in (work / "kernel" / at / "modules").glob("*"))
    modules = work / "layer/usr/lib/modules" / release.name
    _keep(release, modules)
    # depmod wants /lib/modules below the base that it is given.
    (work / "layer/lib").symlink_to("usr/lib")
    run("depmod", "--basedir", str(work / "layer"), release.name)
    (work / "layer/lib").unlink()
    _lay(work / "layer")
    (image,) = (work / "kernel/boot").glob("vmlinuz-*")
    (program,) = (path for path in work.glob("busybox/**/bin/busybox") if path.is_file())
    done = work / "done"
    done.mkdir()
    shutil.copy(image, done / "vmlinuz")
    (done / "initrd").write_bytes(_initrd(modules, program.read_bytes()))
    _format(tree, work / "layer", done / "root.ext4")
    done.rename(built)
    shutil.rmtree(work)


def _fetch(tree: Path, work: Path) -> None:
    """Download the kernel and busybox from where the tree came from."""
    for folder in ("etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d", "state/lists/partial"):
        (work / folder).mkdir(parents=True)
    (work / "cache/archives/partial").mkdir(parents=True)
    text = (tree / "etc/apt/sources.list").read_text()
    for uri in bases.archives_of(tree):
        text = text.replace(urlsplit(uri)._replace(scheme="http").geturl(), uri)
    (work / "etc/sources.list").write_text(text)
    (work / "apt.conf").write_text(
        f'Dir::Etc "{work}/etc"; Dir::Etc::sourcelist "sources.list";\n'
        'Dir::Etc::sourceparts "sources.list.d";\n'
        f'Dir::Etc::trustedparts "{tree}/etc/apt/trusted.gpg.d";\n'
        f'Dir::State "{work}/state"; Dir::State::status "{tree}/var/lib/dpkg/status";\n'
        f'Dir::Cache "{work}/cache"; APT::Sandbox::User "root";\n'
    )

    def apt(*argv: str) -> str:
        done = attempt("env", f"--chdir={work}", f"APT_CONFIG={work}/apt.conf", *argv, timeout=600)
        if done.returncode:
            raise LabctlError(f"the kernel of virtual machines can't be had: {done.stderr.strip()[-400:]}")
        return done.stdout

    apt("apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any")
    shown = apt("apt-cache", "show", "--no-all-versions", "linux-image-amd64")
    found = re.search(r"^Depends: (linux-image-\S+)", shown, re.MULTILINE)
    if found is None:
        raise LabctlError("the archive has no kernel linux-image-amd64")
    apt("apt-get", "download", "-q", found[1], "busybox-static")


def _keep(release: Path, modules: Path) -> None:
    """Copy those modules that a guest may need, and the lists that depmod needs."""
    modules.mkdir(parents=True)
    for path in release.glob("modules.*"):
        shutil.copy(path, modules)
    for path in (release / "kernel").rglob("*.ko*"):
        name = str(path.relative_to(release / "kernel"))
        if name.startswith(_KEPT) and not _LEFT_OUT.match(name):
            kept = modules / "kernel" / name
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, kept)


def _lay(layer: Path) -> None:
    """Put the lab's own units and programs in, and take out what only costs time at boot."""
    home = layer / SHELL.lstrip("/")
    home.mkdir(parents=True)
    for name in ("network.sh", "shell.py"):
        (home / name).write_text(files("labctl.lab.fake.guest").joinpath(name).read_text())
        (home / name).chmod(0o755)
    system = layer / "etc/systemd/system"
    wanted = system / "multi-user.target.wants"
    wanted.mkdir(parents=True)
    for name, text in _UNITS.items():
        (system / name).write_text(text)
        (wanted / name).symlink_to(f"/etc/systemd/system/{name}")
    for name in _MASKED:
        (system / name).symlink_to("/dev/null")
    (layer / "etc/fstab").write_text(_FSTAB)
    (layer / "etc/systemd/network").mkdir()


def _initrd(modules: Path, busybox: bytes) -> bytes:
    folder, program = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755
    order = list(_in_order(modules))
    names = [Path(path).name for path in order]
    init = files("labctl.lab.fake.guest").joinpath("init.sh").read_bytes()
    return _newc(
        [
            *((name, folder, 0, 0, b"") for name in ("bin", "modules", "dev", "proc", "root", "sys")),
            ("bin/busybox", program, 0, 0, busybox),
            ("init", program, 0, 0, init),
            ("modules/order", program, 0, 0, " ".join(names).encode()),
            *((f"modules/{Path(p).name}", program, 0, 0, (modules / p).read_bytes()) for p in order),
        ]
    )


def _in_order(modules: Path) -> Iterator[str]:
    """Yield the modules that the disk needs, each after those that it depends on."""
    needs: dict[str, tuple[str, list[str]]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[Path(path).name.split(".")[0].replace("-", "_")] = (path, others.split())
    done: set[str] = set()
    for name in _BOOT_MODULES:
        wanted, before = needs.get(name, ("", []))
        for one in (*reversed(before), wanted):
            if one and one not in done:
                done.add(one)
                yield one


def _format(tree: Path, layer: Path, image: Path) -> None:
    """Write tree and layer to a disk, without mounting anything outside of a namespace of its own."""
    mounted = layer.with_name("mounted")
    mounted.mkdir()
    script = (
        'mount -t overlay -o "ro,lowerdir=$1:$2" lab-guest "$3" && truncate -s "$5" "$4" && '
        'mke2fs -q -t ext4 -d "$3" -m 0 -E root_owner=0:0 -O ^metadata_csum "$4"'
    )
    argv = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
    run(*argv, str(layer), str(tree), str(mounted), str(image), f"{SIZE_MIB}M", timeout=300)


def _newc(entries: list[tuple[str, int, int, int, bytes]]) -> bytes:
    """Return a cpio archive: name, mode, owner, group and content of each file."""
    out = bytearray()
    for number, (name, mode, owner, group, content) in enumerate([*entries, ("TRAILER!!!", 0, 0, 0, b"")], 1):
        encoded = name.encode() + b"\0"
        fields = (number, mode, owner, group, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)


def _ours() -> Iterator[Path]:
    folder = Path(str(files("labctl.lab.fake.guest")))
    yield from (folder / name for name in ("init.sh", "network.sh", "shell.py"))
