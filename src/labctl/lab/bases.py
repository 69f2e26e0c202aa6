"""The Debian trees that hosts start from: built once by mmdebstrap, then shared read-only by all.

A tree's directory name carries a digest of everything that decides what is in it, so a changed recipe
builds a new tree and never alters one in use. A tree appears by a rename when it is complete; a lock lets
one builder work while others wait for it. The build runs in namespaces of its own, so that killing it
leaves no mount behind.

The trees resemble a small Debian server: what the installer would give, python3, and a filled package
index, so that a host can install at once. Nothing that labctl itself deploys is in them. The apt timers are
off: nobody wants a rack of test hosts that upgrades itself in the middle of a test.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from labctl.domain.problem import LabctlError
from labctl.lab.aptsources import debian_lines
from labctl.lab.commands import attempt

RECIPE = 1
PACKAGES = (
    "apt-utils,ca-certificates,cron,curl,dbus,ethtool,gpgv,iproute2,iputils-ping,kmod,less,libpam-systemd,logrotate,"
    "nano,netbase,nftables,openssh-server,procps,psmisc,python3,rsync,sudo,systemd,systemd-sysv,systemd-timesyncd,"
    "tzdata,udev"
)
_HOOKS = (
    'chroot "$1" systemctl disable apt-daily.timer apt-daily-upgrade.timer',
    'rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/resolv.conf "$1"/etc/hostname',
    ': > "$1/etc/machine-id"',
)
_BUILD_TIMEOUT_S = 1800

Progress = Callable[[str], None]


def base(suite: str, cache_dir: Path, progress: Progress, mirror: str | None = None) -> Path:
    """Return the directory of the tree for ``suite``, building it first if needed.

    Raises:
        LabctlError: mmdebstrap failed; its last words are in the message.
    """
    lines = debian_lines(suite, mirror)
    decisive = json.dumps([RECIPE, suite, PACKAGES, _HOOKS, lines])
    trees = cache_dir / "bases"
    built = trees / f"{suite}-{hashlib.sha256(decisive.encode()).hexdigest()[:12]}"
    if not built.is_dir():
        trees.mkdir(parents=True, exist_ok=True)
        with _alone(built.with_suffix(".lock")):
            if not built.is_dir():
                progress(f"building the Debian {suite} base: once, about a minute")
                _build(suite, lines, built)
    return built / "root"


def archives_of(tree: Path) -> tuple[str, ...]:
    """Return the archive URIs that a tree was built from, by the scheme they were fetched with."""
    return tuple((tree.parent / "archives").read_text().split())


def _build(suite: str, lines: tuple[str, ...], built: Path) -> None:
    partial = built.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    log = built.with_suffix(".log")
    # /proc of the sandbox must show its own processes, or mmdebstrap can't end those left in the tree.
    sandbox = ("unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc")
    done = attempt(
        *sandbox,
        *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", f"--include={PACKAGES}"),
        "--skip=cleanup/apt/lists",
        *(f"--customize-hook={hook}" for hook in _HOOKS),
        *(suite, str(partial / "root")),
        *(("-",) if lines else ()),
        stdin="\n".join(lines) + "\n",
        timeout=_BUILD_TIMEOUT_S,
    )
    log.write_text(done.stdout + done.stderr)
    if done.returncode:
        shutil.rmtree(partial, ignore_errors=True)
        said = " / ".join(line for line in done.stderr.splitlines() if line.startswith("E"))
        raise LabctlError(f"building the Debian {suite} base failed: {said[-600:]}", hint=f"read {log}")
    _use_plain_http(partial)
    # Without a ready index cache each host would spend seconds and 50 MB of its disk on making its own.
    attempt("chroot", str(partial / "root"), "apt-cache", "gencaches")
    partial.rename(built)


def _use_plain_http(partial: Path) -> None:
    """Let hosts ask the proxy in plain HTTP; note by which scheme the archives are really fetched."""
    sources = partial / "root/etc/apt/sources.list"
    text = sources.read_text()
    uris = sorted({word for word in text.split() if word.startswith(("http://", "https://"))})
    (partial / "archives").write_text("\n".join(uris) + "\n")
    for uri in uris:
        text = text.replace(uri, urlsplit(uri)._replace(scheme="http").geturl())
    sources.write_text(text)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
