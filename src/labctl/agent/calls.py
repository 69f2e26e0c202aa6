"""Programs of the host that the agent starts: an argv, a deadline, and no exception for what they say.

A program that is not there, hangs or fails is an answer like any other; the caller decides what that means.
None reads our standard input, which belongs to whoever talks with the agent.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

NOT_RUN = 127
LATE = 124
_TEXT = 300


class Ended(NamedTuple):
    """How a program ended; ``status`` is LATE where it did not, NOT_RUN where it never began."""

    status: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        """Return whether it did what it was asked for."""
        return self.status == 0

    @property
    def why(self) -> str:
        """Return in one line why it failed."""
        said = self.err.strip() or self.out.strip()
        return (said.splitlines()[-1] if said else f"exit {self.status}")[-_TEXT:]


def call(*argv: str, within_s: float, env: Mapping[str, str] | None = None, user: str | None = None) -> Ended:
    """Run a program and return how it ended.

    Args:
        argv: the program and its arguments.
        within_s: seconds after which it is ended.
        env: variables besides our own.
        user: who runs it; default: we.
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=within_s,
            check=False,
            env={**os.environ, **env} if env else None,
            user=user,
        )
    except subprocess.TimeoutExpired:
        return Ended(LATE, "", f"{argv[0]} did not end within {within_s:g} s")
    except (OSError, ValueError, KeyError) as error:
        return Ended(NOT_RUN, "", f"{argv[0]}: {error}")
    return Ended(done.returncode, done.stdout, done.stderr)
