"""Programs of the host that the agent starts: an argv, a deadline, and no exception for what they say.

A program that is not there, hangs or fails is an answer like any other; the caller decides what that means.
None reads our standard input, which belongs to whoever talks with the agent.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any, NamedTuple

NOT_RUN = 127
LATE = 124
_TEXT = 300
_CARD_GROUPS = ("video", "render")


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
        user: who runs it, with the groups that own cards; default: we.
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
            **(_identity(user) if user else {}),
        )
    except subprocess.TimeoutExpired:
        return Ended(LATE, "", f"{argv[0]} did not end within {within_s:g} s")
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        return Ended(NOT_RUN, "", f"{argv[0]}: {error}")
    return Ended(done.returncode, done.stdout, done.stderr)


def _identity(user: str) -> dict[str, Any]:
    """Return how subprocess becomes somebody else, with what a unit of theirs would be given.

    Raises:
        KeyError: there is no such user.
    """
    import grp
    import pwd

    account = pwd.getpwnam(user)
    groups = set(os.getgrouplist(user, account.pw_gid))
    for name in _CARD_GROUPS:
        try:
            groups.add(grp.getgrnam(name).gr_gid)
        except KeyError:
            continue
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": sorted(groups)}
