"""The real llama.cpp for hosts of the virtual rack, from Debian's unstable archive, with its own loader.

No stable Debian ships it, and unstable's wants a newer C library than the hosts have. So its packages are
unpacked, not installed, below one folder, and a launcher starts it by the loader that came with them. apt
works in a state of its own here: nothing of this machine changes. The tree is made once and kept in labctl's
cache. ``archive`` packs it as llama.cpp packs its releases, so that labctl's own way to install one is tried
with a program that works.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path

from labctl.lab.aptsources import debian_lines

HOME = "/opt/llama"
BINARY = f"{HOME}/llama-server"
PACKAGES = (
    "llama.cpp-tools",
    "llama.cpp-tools-extra",
    "libggml0-backend-rpc",
    "libllama0",
    "libggml0",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "libgomp1",
    "libssl3t64",
    "libzstd1",
    "zlib1g",
)
PROGRAMS = ("llama-server", "llama-bench", "ggml-rpc-server")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LAUNCHER = """\
#!/bin/sh
# The newest loader for the newest libraries; the backend is the one that every processor can run.
here=$(dirname "$0")
lib=$here/lib
export GGML_BACKEND_PATH="$lib/ggml/backends0/{backend}"
exec "$lib/{loader}" --library-path "$lib:$lib/llama" "$here/bin/$(basename "$0")" "$@"
"""


class NoLlama(Exception):
    """llama-server cannot be had here; says why."""


def tree(cache: Path) -> Path:
    """Return a folder to be copied to ``/opt/llama`` of a host, making it first where it is missing."""
    cache.mkdir(parents=True, exist_ok=True)
    done = cache / "llama-3"
    with (cache / "llama-3.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.is_dir():
            work = cache / "llama-3.new"
            shutil.rmtree(work, ignore_errors=True)
            _make(work)
            (work / "tree").rename(done)
            shutil.rmtree(work)
    return done


def install(cache: Path, root: Path) -> None:
    """Lay llama-server out below ``/opt/llama`` of the host whose file tree is ``root``."""
    shutil.copytree(tree(cache), root / HOME.lstrip("/"), symlinks=True)


def archive(cache: Path, out: Path, tag: str = "b9999") -> tuple[Path, str]:
    """Pack the tree like a release of llama.cpp, below ``llama-TAG/``; return the archive and its sha256.

    Equal trees and tags give equal bytes.
    """
    made = tree(cache)
    path = out / f"llama-{tag}-bin-ubuntu-x64.tar.gz"
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for found in sorted(made.rglob("*")):
            tar.add(found, f"llama-{tag}/{found.relative_to(made)}", recursive=False, filter=_anonymous)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0
    return member


def _make(work: Path) -> None:
    for folder in ("etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d", "state/lists/partial"):
        (work / folder).mkdir(parents=True)
    (work / "cache/archives/partial").mkdir(parents=True)
    (work / "apt.conf").write_text(
        f'Dir::Etc "{work}/etc"; Dir::Etc::sourcelist "sources.list";\n'
        'Dir::Etc::sourceparts "sources.list.d";\n'
        f'Dir::State "{work}/state"; Dir::State::status "/var/lib/dpkg/status"; Dir::Cache "{work}/cache";\n'
        'APT::Sandbox::User "root";\n'
    )
    # A frozen mirror makes unstable's index look out of date; its signature is checked all the same.
    options = f"[signed-by={KEYRING} check-valid-until=no]"
    lines = [line.replace("deb ", f"deb {options} ", 1) for line in debian_lines("sid")[:1]]
    (work / "etc/sources.list").write_text("".join(f"{line}\n" for line in lines))
    _run(work, "apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any")
    _run(work, "apt-get", "download", "-q", *PACKAGES)
    for package in work.glob("*.deb"):
        _run(work, "dpkg-deb", "-x", str(package), "unpacked")
    _lay_out(work / "unpacked/usr", work / "tree")


def _lay_out(usr: Path, made: Path) -> None:
    (loader,) = usr.glob("lib/*/ld-linux-*.so.*")
    backends = sorted(path.name for path in loader.parent.glob("ggml/backends0/libggml-cpu-*.so"))
    backend = next((name for name in backends if name.endswith("-x64.so")), backends[0])
    shutil.copytree(
        loader.parent,
        made / "lib",
        symlinks=True,
        ignore=lambda folder, names: [
            name for name in names if (name.startswith("libggml-cpu-") and name != backend) or name == "gconv"
        ],
    )
    # llama.cpp takes the loader for its own program, and finds backends that lie beside it.
    shutil.copy2(loader.parent / "ggml/backends0/libggml-rpc.so", made / "lib")
    (made / "bin").mkdir()
    (inner,) = usr.glob("libexec/*/llama/bin")
    for name in PROGRAMS:
        shutil.copy2(
            next(place / name for place in (usr / "bin", inner) if (place / name).exists()), made / "bin"
        )
        launcher = made / name
        launcher.write_text(LAUNCHER.format(backend=backend, loader=loader.name))
        launcher.chmod(0o755)


def _run(work: Path, *argv: str) -> None:
    told = ("env", f"APT_CONFIG={work}/apt.conf", *argv)
    done = subprocess.run(told, cwd=work, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise NoLlama(f"{argv[0]} {argv[1]}: {done.stderr.strip()[-300:]}")
