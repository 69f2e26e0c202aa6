"""The real uv for tests, packed as its releases are: from its wheel, which pip fetches once into a cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from labctl import wiring

VERSION = "0.9.5"
_TRIPLE = f"uv-{os.uname().machine}-unknown-linux-gnu"


def program() -> Path:
    """Return the uv program; skip the test where it cannot be had."""
    cache = wiring.cache_home() / "lab"
    cache.mkdir(parents=True, exist_ok=True)
    done = cache / f"uv-{VERSION}"
    with (cache / "uv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.is_dir():
            work = cache / "uv.new"
            shutil.rmtree(work, ignore_errors=True)
            argv = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "-d",
                str(work),
                f"uv=={VERSION}",
            ]
            fetched = subprocess.run(
                argv, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
            )
            if fetched.returncode:
                pytest.skip(f"no uv: {fetched.stderr.strip()[-200:]}")
            (wheel,) = work.glob("*.whl")
            with zipfile.ZipFile(wheel) as held:
                (member,) = [name for name in held.namelist() if name.endswith("/scripts/uv")]
                (work / "uv").write_bytes(held.read(member))
            (work / "uv").chmod(0o755)
            wheel.unlink()
            work.rename(done)
    return done / "uv"


def archive(folder: Path) -> Path:
    """Pack uv as one of its releases is; return the archive."""
    path = folder / f"{_TRIPLE}.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        tar.add(program(), f"{_TRIPLE}/uv")
    return path
