"""How nvidia-smi ends and speaks."""

from __future__ import annotations

import sys


class End(Exception):
    """Nothing more is to be done: the exit status, and the last words."""

    def __init__(self, status: int, words: str = "") -> None:
        super().__init__(status)
        self.status, self.words = status, words


def say(line: str = "") -> None:
    """Print a line at once, as the real one does when the next card hangs."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
