"""Read pieces of a file of this machine."""

from __future__ import annotations

import stat
from pathlib import Path

from labctl.domain.problem import LabctlError


class FileRanges:
    """The port ``Ranges`` for a local file."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet."""
        self._path = path

    @property
    def name(self) -> str:
        """Return the path."""
        return str(self._path)

    @property
    def size(self) -> int:
        """Return the file's length."""
        try:
            status = self._path.stat()
        except OSError as error:
            raise self._cannot(error) from error
        if not stat.S_ISREG(status.st_mode):
            raise LabctlError(f"{self._path}: is no file")
        return status.st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return a piece of the file; see ``ports.Ranges.read``."""
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                return file.read(length)
        except OSError as error:
            raise self._cannot(error) from error

    def _cannot(self, error: OSError) -> LabctlError:
        return LabctlError(f"{self._path}: cannot be read: {error.strerror or error}")
