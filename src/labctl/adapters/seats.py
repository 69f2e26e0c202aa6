"""Know of another process on this machine that it is dead, and not merely silent.

Each process keeps a lock on a file of its own name for as long as it lives; the kernel takes the lock away
when it ends, however it ends, and a boot takes all of them. So a file that is there and free is that of a
dead process, at once and for certain. A file that is locked says that it lives, or is frozen; one that is not
there says nothing (it ran on another machine): those are judged by their silence alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path

_KEPT = 16
"""Files of the dead that stay, the newest; a process that fails at each start must not fill the folder."""


class Seats:
    """The seats of one folder, which must be on a disk of this machine."""

    def __init__(self, folder: Path) -> None:
        """Look at nothing yet."""
        self._folder = folder
        self._own: list[int] = []

    def sit(self, name: str) -> None:
        """Take the seat of this process until it ends.

        Raises:
            OSError: the folder cannot be used, or a process of that name lives.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        seat = os.open(self._path(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(seat, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(seat)
            raise
        self._own.append(seat)
        old = sorted(self._folder.iterdir(), key=lambda path: path.lstat().st_mtime)
        for path in old[:-_KEPT]:
            if _is_free(path):
                path.unlink(missing_ok=True)

    def empty(self, name: str) -> bool:
        """Return whether a process of that name sat here and is dead; when unsure it is not."""
        return _is_free(self._path(name))

    def leave(self) -> None:
        """Give the seat up, as the end of the process does."""
        while self._own:
            os.close(self._own.pop())

    def _path(self, name: str) -> Path:
        # The name comes from a store that others write to.
        return self._folder / hashlib.sha256(name.encode()).hexdigest()[:32]


def _is_free(path: Path) -> bool:
    try:
        seat = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        with suppress(OSError):
            fcntl.flock(seat, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False
    finally:
        os.close(seat)
