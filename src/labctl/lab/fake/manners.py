"""The kernel's manners over a plain tree: what sysfs refuses, this file system refuses, with the same errno.

It shows the files of a folder and judges writes by the file's name, as amdgpu's source does:

- ``power1_cap``, in microwatts, is cut to whole watts; outside of [min, max] is EINVAL; 0 re-applies the
  present cap where the minimum allows 0. A card that is in reset (``refuse``) says EPERM.
- ``power_dpm_force_performance_level`` takes its words, a module's parameter takes a number; else EINVAL.
- All other files can't even be opened for writing, also not by root: EACCES. Nothing can be made or removed.

A card that hangs (``hang``) holds whoever touches its hwmon files, also against a SIGKILL, until the fault is
gone; the others go on. The faults of a card are
in the folder's ``.faults/PCI-ADDRESS``. The process ends when its standard input ends, so with its owner; it
is meant for a mount namespace of its own, so that no mount is left however it ends.

    python -m labctl.lab.fake.manners FOLDER MOUNTPOINT
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mfusepy  # type: ignore[import-untyped]

_UW = 1_000_000
_PAGE = 4096
_LEVEL = "power_dpm_force_performance_level"
_LEVELS = {"auto", "low", "high", "manual", "profile_standard", "profile_min_sclk", "profile_min_mclk"}
_LOOK_AGAIN_S = 0.2


class Manners(mfusepy.Operations):  # type: ignore[misc]
    """The file system over one folder; every call looks at the folder anew."""

    use_ns = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """Return what the plain file says of itself; sizes are a page, as in sysfs."""
        found = self._stat(path)
        shown = {name: getattr(found, name) for name in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_ino")}
        size = found.st_size if self._at(path).is_symlink() else _PAGE
        return shown | {"st_mtime": found.st_mtime_ns, "st_size": size}

    def readdir(self, path: str, fh: int) -> list[str]:
        """Return the names in a folder; the faults' folder is no part of the tree."""
        names = (file.name for file in self._at(path).iterdir())
        return [".", "..", *(name for name in names if not name.startswith("."))]

    def readlink(self, path: str) -> str:
        """Return where a link leads; links are relative, as in sysfs."""
        return str(self._at(path).readlink())

    def open(self, path: str, flags: int) -> int:
        """Let a file be opened for what it can do."""
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        if writes and not self._stat(path).st_mode & 0o222:
            raise mfusepy.FuseOSError(errno.EACCES)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Return a part of what the file holds now."""
        self._stumble(path)
        try:
            return self._at(path).read_bytes()[offset : offset + size]
        except OSError as error:
            raise mfusepy.FuseOSError(error.errno or errno.EIO) from None

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        """Do nothing, as sysfs does when a shell's ``>`` truncates."""
        return 0

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """Take a value or refuse it."""
        self._stumble(path)
        file = self._at(path)
        said = data.decode("ascii", "replace").strip()
        if file.name == "power1_cap":
            self._cap(file, said)
        elif said in _LEVELS if file.name == _LEVEL else _is_parameter(file) and said.isdecimal():
            _store(file, said)
        else:
            raise mfusepy.FuseOSError(errno.EINVAL)
        return len(data)

    def _cap(self, file: Path, said: str) -> None:
        if self._fault(file) == "refuse":
            raise mfusepy.FuseOSError(errno.EPERM)
        if not said.isdecimal():
            raise mfusepy.FuseOSError(errno.EINVAL)
        wanted = int(said) // _UW * _UW
        least, most = (int((file.parent / f"power1_cap_{end}").read_text()) for end in ("min", "max"))
        if not least <= wanted <= most:
            raise mfusepy.FuseOSError(errno.EINVAL)
        if wanted:
            _store(file, str(wanted))

    def _stumble(self, path: str) -> None:
        while "/hwmon" in path and self._fault(self._at(path)) == "hang":
            time.sleep(_LOOK_AGAIN_S)

    def _fault(self, file: Path) -> str | None:
        faults = self.folder / ".faults"
        if not faults.is_dir():
            return None
        real = str(file.resolve())
        return next((one.read_text().strip() for one in faults.iterdir() if f"/{one.name}/" in real), None)

    def _at(self, path: str) -> Path:
        return self.folder / path.lstrip("/")

    def _stat(self, path: str) -> os.stat_result:
        if "/." in path:
            raise mfusepy.FuseOSError(errno.ENOENT)
        try:
            return os.lstat(self._at(path))
        except OSError as error:
            raise mfusepy.FuseOSError(error.errno or errno.ENOENT) from None


def _is_parameter(file: Path) -> bool:
    return file.parent.name == "parameters"


def _store(file: Path, value: str) -> None:
    """Write a plain file so that a reader finds the old value or the new one."""
    partial = file.with_name(f".{file.name}.new")
    partial.write_text(f"{value}\n")
    partial.chmod(file.stat().st_mode & 0o777)
    partial.rename(file)


def _end_with_owner() -> None:
    while os.read(0, 4096):
        continue
    os._exit(0)


def main(folder: Path, mountpoint: Path) -> None:
    """Serve ``folder`` at ``mountpoint`` until standard input ends."""
    threading.Thread(target=_end_with_owner, daemon=True).start()
    options = {"allow_other": True, "default_permissions": True, "direct_io": True}
    ages = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}
    mfusepy.FUSE(Manners(folder), str(mountpoint), foreground=True, fsname="labctl-sysfs", **options, **ages)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
