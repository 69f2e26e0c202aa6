"""Read pieces of a file that lies on a host, over SSH.

Each piece is one command on the host, ``dd`` with a place and a length, of at most three mebibytes: a session
keeps no more than four of what a command prints. Names are words of their own, and no shell reads meaning
into them. Root reads, since models may belong to the user of a service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labctl.domain.failures import HostError
from labctl.domain.problem import LabctlError
from labctl.ports import Remote, Said

DEADLINE_S = 60.0
MOST_AT_ONCE = 3 * 1024**2


class HostRanges:
    """The port ``Ranges`` for a file on a host."""

    def __init__(self, remote: Remote, host: str, data: Mapping[str, Any], path: str) -> None:
        """Ask for nothing yet; ``data`` is the host's connection data."""
        self._remote = remote
        self._host = host
        self._data = data
        self._path = path
        self._size: int | None = None

    @property
    def name(self) -> str:
        """Return host and path."""
        return f"{self._host}:{self._path}"

    @property
    def size(self) -> int:
        """Return the file's length."""
        if self._size is None:
            said = self._run("stat", "-L", "-c", "%s %F", "--", self._path)
            length, _, kind = said.stdout.decode(errors="replace").strip().partition(" ")
            if said.status or not length.isdecimal() or kind not in ("regular file", "regular empty file"):
                raise LabctlError(
                    f"{self.name}: is no file there"
                    + (f" ({said.stderr.strip()[-200:]})" if said.status else ""),
                    hint="is the path right, and was the model fetched?",
                )
            self._size = int(length)
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Return a piece of the file; see ``ports.Ranges.read``."""
        found = bytearray()
        while len(found) < length:
            wanted = min(MOST_AT_ONCE, length - len(found))
            piece = self._piece(offset + len(found), wanted)
            found += piece
            if len(piece) < wanted:
                break
        return bytes(found)

    def _piece(self, offset: int, length: int) -> bytes:
        said = self._run(
            "dd",
            f"if={self._path}",
            "bs=65536",
            "iflag=skip_bytes,count_bytes,fullblock",
            f"skip={offset}",
            f"count={length}",
            "status=none",
        )
        if said.status or len(said.stdout) > length:
            raise LabctlError(
                f"{self.name}: cannot be read ({said.stderr.strip()[-200:] or 'no reason given'})"
            )
        return said.stdout

    def _run(self, *argv: str) -> Said:
        try:
            return self._remote.run(self._host, self._data, argv, root=True, stdin=b"", deadline_s=DEADLINE_S)
        except HostError as error:
            failure = error.failure
            raise LabctlError(
                f"{self.name}: cannot be read: {failure.reason}", hint=failure.hint, host=self._host
            ) from error
