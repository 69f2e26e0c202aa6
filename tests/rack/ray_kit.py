"""The real Ray for hosts of the virtual rack, and uv to install it with, as wheels that pip downloads once.

Hosts have no way out, so the wheels are copied in, and labctl installs them there by its own way.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

VERSION = "2.60.0"
PYTHON = "3.11"  # of Debian 12
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")


class NoRay(Exception):
    """Ray cannot be had here; says why."""


def wheels(cache: Path) -> Path:
    """Return the folder with the wheels of Ray and all that it needs, fetching them first."""
    if platform.machine() != "x86_64":
        raise NoRay(f"wheels are fetched for x86_64, and this is {platform.machine()}")
    options = ["--only-binary", ":all:", "--python-version", PYTHON, "--implementation", "cp"]
    for name in PLATFORMS:
        options += ["--platform", name]
    return _downloaded(cache, f"ray-{VERSION}", [f"ray=={VERSION}", *options])


def uv(cache: Path, out: Path) -> Path:
    """Make the archive of uv as its releases are packed, and return it; equal versions give equal bytes."""
    (wheel,) = _downloaded(cache, "uv", ["uv", "--no-deps"]).glob("uv-*.whl")
    with zipfile.ZipFile(wheel) as held:
        (name,) = (name for name in held.namelist() if name.endswith("/scripts/uv"))
        program = held.read(name)
    path = out / "uv-x86_64-unknown-linux-gnu.tar.gz"
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        member = tarfile.TarInfo("uv-x86_64-unknown-linux-gnu/uv")
        member.size, member.mode = len(program), 0o755
        tar.addfile(member, io.BytesIO(program))
    return path


def _downloaded(cache: Path, name: str, what: list[str]) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    done = cache / name
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.is_dir():
            work = cache / f"{name}.new"
            shutil.rmtree(work, ignore_errors=True)
            argv = [sys.executable, "-m", "pip", "download", "-q", "--dest", str(work), *what]
            try:
                run = subprocess.run(argv, capture_output=True, text=True, timeout=600)
            except subprocess.TimeoutExpired:
                raise NoRay("pip took longer than ten minutes") from None
            if run.returncode:
                raise NoRay(f"pip download: {run.stderr.strip()[-300:]}")
            work.rename(done)
    return done


def sha256(path: Path) -> str:
    """Return what pins a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
