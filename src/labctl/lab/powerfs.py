"""The files by which a sleeping host's kernel is told to sleep, as a file system that answers at once.

A file here is a pair of functions, so that whoever writes waits until the lab has acted, and gets the errno
that the kernel would give. That matters for one file above all: the write of ``mem`` to ``/sys/power/state``
returns only after the host has woken up again, since the lab freezes the writer before it answers. With plain
files that somebody watches, a host would go on for a moment after it was told to sleep.

Only root may write, or read what is not for everybody. One file system serves all hosts of a rack, each in a
folder of its own.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mfusepy  # type: ignore[import-untyped]

from labctl.domain.problem import LabctlError
from labctl.lab.knob import Knob
from labctl.lab.processes import wait_until

_PAGE = 4096


class PowerFiles(mfusepy.Operations):  # type: ignore[misc]
    """The file system: a tree of knobs by their paths, ``HOST/power/state`` and so on."""

    use_ns = True

    def __init__(self, knobs: Mapping[str, Knob]) -> None:
        self._knobs = {f"/{path}": knob for path, knob in knobs.items()}
        self._folders = {"/", *(str(above) for path in self._knobs for above in Path(path).parents)}

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """Return what kind of file it is."""
        if path in self._folders:
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        return {"st_mode": self._at(path).mode, "st_nlink": 1, "st_size": _PAGE}

    def readdir(self, path: str, fh: int) -> list[str]:
        """Return the names in a folder."""
        inside = {Path(one).name for one in (*self._knobs, *self._folders) if str(Path(one).parent) == path}
        return [".", "..", *sorted(inside - {""})]

    def open(self, path: str, flags: int) -> int:
        """Let a file be opened for what it can do."""
        if flags & (os.O_WRONLY | os.O_RDWR) and self._at(path).write is None:
            raise mfusepy.FuseOSError(errno.EACCES)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Return a part of what the file says now."""
        return self._at(path).read()[offset : offset + size]

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        """Do nothing, as sysfs does when a shell's ``>`` truncates."""
        return 0

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """Act, and answer when it is done."""
        knob = self._at(path)
        try:
            if knob.write:
                knob.write(data)
        except OSError as error:
            raise mfusepy.FuseOSError(error.errno or errno.EIO) from None
        return len(data)

    def _at(self, path: str) -> Knob:
        try:
            return self._knobs[path]
        except KeyError:
            raise mfusepy.FuseOSError(errno.ENOENT) from None


def serve(knobs: Mapping[str, Knob], mountpoint: Path) -> None:
    """Mount the knobs in this mount namespace, as long as this process lives.

    Raises:
        LabctlError: they did not appear.
    """
    mountpoint.mkdir(parents=True, exist_ok=True)
    options = {"allow_other": True, "default_permissions": True, "direct_io": True}
    ages = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}

    def run() -> None:
        mfusepy.FUSE(
            PowerFiles(knobs), str(mountpoint), foreground=True, fsname="lab-power", **options, **ages
        )

    threading.Thread(target=run, daemon=True).start()
    if not wait_until(mountpoint.is_mount, within=10):
        raise LabctlError("the files by which virtual hosts sleep can't be mounted")
