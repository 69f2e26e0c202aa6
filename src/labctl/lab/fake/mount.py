"""Lay the kernel's manners over a plain tree, and take them away again.

The file system runs in a process of its own and in a mount namespace of its own: whoever needs it reaches it
through that process's root, nobody else sees it, and the kernel removes the mount with the process. The
process ends when its standard input closes, so no owner can leave it behind, also one that is killed.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from labctl.domain.problem import LabctlError
from labctl.lab.processes import wait_until

_SERVE = "labctl.lab.fake.manners"


def lacking() -> str | None:
    """Return what this machine lacks to imitate AMD cards; None if nothing."""
    if os.geteuid() != 0:
        return "mounting the fake AMD tree needs root"
    if not Path("/dev/fuse").exists():
        return "there is no /dev/fuse"
    if importlib.util.find_spec("mfusepy") is None:
        return "the Python package mfusepy is not installed"
    if ctypes.util.find_library("fuse3") is None:
        return "libfuse3 is not installed: apt-get install --no-install-recommends fuse3"
    return None


def serve(folder: Path, mountpoint: Path, *wrapped: str) -> subprocess.Popen[bytes]:
    """Start the file system in this mount namespace, or in what ``wrapped`` (as unshare) makes; wait for it.

    Raises:
        LabctlError: it did not come up.
    """
    argv = [*wrapped, sys.executable, "-P", "-m", _SERVE, str(folder), str(mountpoint)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE)

    def is_there() -> bool:
        mounts = Path(f"/proc/{process.pid}/mounts").read_text().splitlines()
        return process.poll() is not None or any(line.split()[1] == str(mountpoint) for line in mounts)

    if not wait_until(is_there, within=10) or process.poll() is not None:
        process.kill()
        said = process.communicate()[1].decode(errors="replace").strip()[-300:]
        raise LabctlError(f"the fake AMD cards can't be mounted: {said or 'no answer'}")
    return process


class Mounted:
    """A mounted tree that nobody else sees; ``path`` is valid for root, until ``end``."""

    def __init__(self, folder: Path) -> None:
        mountpoint = folder.with_name(f"{folder.name}.mounted")
        mountpoint.mkdir()
        self._process = serve(folder, mountpoint, "unshare", "--mount")
        self.path = Path(f"/proc/{self._process.pid}/root{mountpoint}")

    def end(self) -> None:
        """End the file system; its mount goes with it."""
        self._process.communicate()
