"""A small file that is replaced whole, with a second place for a full disk, and a lock for who writes it.

A new content is written beside the old one, brought to the disk and renamed, so that after a crash at any
moment there is the old or the new one. Where the first place cannot be written (no space, read-only), the
second one is (on /run, which is memory); it goes when the first can be written again. Of two contents the
higher ``serial`` is the newer. A content that cannot be read is put aside, not thrown away.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


class Keepsake:
    """One JSON object in the file ``name`` of a folder, or of a second one."""

    def __init__(self, folder: Path, spare: Path | None, name: str) -> None:
        """Look at nothing yet."""
        self._main = folder / name
        self._spare = None if spare is None else spare / name
        self._serial = 0
        self.broken = ""
        """What was put aside since it could not be read, for as long as it lies there; empty: nothing."""

    def load(self) -> dict[str, Any]:
        """Return the newest content; empty where there is none.

        Raises:
            OSError: there is one, and it may not be read.
        """
        found = [self._read(place) for place in (self._main, self._spare) if place is not None]
        newest = max((one for one in found if one is not None), key=_serial, default={})
        self._serial = _serial(newest)
        for left in self._main.parent.glob(".*.new"):
            # Whoever wrote it was killed; who writes now holds the lock.
            with suppress(OSError):
                left.unlink()
        aside = [self._aside_of(place) for place in (self._main, self._spare) if place is not None]
        self.broken = next((str(one) for one in aside if one.exists()), "")
        return newest

    def save(self, document: Mapping[str, Any]) -> str:
        """Write a content; return why it could not be kept in the first place, empty: it could.

        Raises:
            OSError: neither place can be written.
        """
        data = json.dumps({**document, "serial": self._serial + 1}, separators=(",", ":")).encode()
        why = ""
        try:
            replace(self._main, data)
        except OSError as error:
            if self._spare is None:
                raise
            why = error.strerror or "it cannot be written"
            self._spare.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace(self._spare, data)
        else:
            if self._spare is not None:
                with suppress(OSError):
                    self._spare.unlink(missing_ok=True)
        self._serial += 1
        return why

    def _read(self, place: Path) -> dict[str, Any] | None:
        try:
            document = json.loads(place.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            return document
        self._aside(place)
        return None

    def put_aside(self) -> None:
        """Move what is there out of the way, and note it in ``broken``."""
        for place in (self._main, self._spare):
            if place is not None and place.exists():
                self._aside(place)

    @staticmethod
    def _aside_of(place: Path) -> Path:
        return place.with_name(f"{place.name}.broken")

    def _aside(self, place: Path) -> None:
        aside = self._aside_of(place)
        with suppress(OSError):
            place.replace(aside)
        self.broken = str(aside)


def _serial(document: Mapping[str, Any]) -> int:
    number = document.get("serial")
    return number if isinstance(number, int) and not isinstance(number, bool) else 0


def replace(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Have a file with that content and mode, or what it was before.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask is
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def alone(place: Path) -> Iterator[bool]:
    """Hold the lock of a file while the block runs; yield whether it could be had at once.

    Raises:
        OSError: the file cannot be opened.
    """
    try:
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        handle = os.open(place, os.O_RDONLY | os.O_CLOEXEC)  # NFS alone wants one that may be written
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)
