"""labctl's own dependencies as wheels, for virtual hosts that have no way out.

They are fetched once by this machine's pip, from wherever it fetches, for the Pythons of the hosts' Debian,
and checked against the hashes of labctl's lock file. Hosts see them in the mirror.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

from packaging.markers import Marker

from labctl import content
from labctl.domain.problem import LabctlError
from labctl.lab.supplies import MIRROR_INSIDE, mirror_folder

INSIDE = f"file://{MIRROR_INSIDE}/wheels"
_PYTHONS = ("3.11", "3.13")  # Debian 12 and 13
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "linux_x86_64")


def make(cache: Path) -> Path:
    """Fetch what is missing, and return the folder of the wheels on this machine.

    Raises:
        LabctlError: pip could not fetch them.
    """
    lock = content.requirements()
    folder = mirror_folder(cache) / "wheels"
    mark = folder / ".complete"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (mark.is_file() and mark.read_text() == digest):
            _fetch(lock, folder)
            mark.write_text(digest)
    return folder


def _for_python(lock: str, python: str) -> str:
    """Return the requirements that apply to a Python; pip itself goes by the one that it runs in."""
    there = {"python_version": python, "python_full_version": f"{python}.0"}
    found = []
    for line in lock.replace("\\\n", " ").splitlines():
        pin, _, hashes = line.partition(" --hash")
        name, _, marker = pin.partition(";")
        if hashes and (not marker.strip() or Marker(marker).evaluate(there)):
            found.append(f"{name.strip()} --hash{hashes}\n")
    return "".join(found)


def _fetch(lock: Path, folder: Path) -> None:
    for python in _PYTHONS:
        wanted = folder / f".requirements-{python}"
        wanted.write_text(_for_python(lock.read_text(), python))
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        argv += ["--no-deps", "--require-hashes", "--only-binary=:all:", "-r", str(wanted), "-d", str(folder)]
        argv += ["--implementation", "cp", "--python-version", python]
        argv += [word for name in _PLATFORMS for word in ("--platform", name)]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False
        )
        if done.returncode:
            raise LabctlError(
                f"pip could not fetch labctl's packages: {done.stderr.strip()[-300:]}",
                hint="pip's own settings and PIP_* variables say where it fetches from",
            )
    for path in folder.iterdir():
        path.chmod(0o644)
