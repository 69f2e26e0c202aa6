"""One file of a kernel that is only imitated: a pair of functions, and who may use it."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Knob:
    """One file; ``write`` may raise OSError, whose errno the writer gets. Without ``write`` nobody writes."""

    read: Callable[[], bytes]
    write: Callable[[bytes], None] | None = None
    secret: bool = False

    @property
    def mode(self) -> int:
        """Return the file's mode: root writes what can be written, and alone reads what is secret."""
        return stat.S_IFREG | (0o200 if self.write else 0) | (0o400 if self.secret else 0o444)
