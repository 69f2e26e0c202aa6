"""Name what went wrong on a host, from what the host and its commands said.

A failure has a stable short code for scripts, a reason and a hint for people. Classification is by the text
that apt, sudo, the kernel and sshd are known to print; what is not recognised stays ``op-failed`` with its
own text, never guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a host could not be reached or finished; ``unreachable`` when nothing was done on it."""

    code: str
    reason: str
    hint: str = ""
    unreachable: bool = False


class HostError(Exception):
    """Carries a ``Failure`` to the place that ends the host."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.reason)


_APT_LOCK = re.compile(r"Could not get lock (\S+?)\.? (?:It is|- open|.*held by)(.*)")
_SUDO = re.compile(
    r"\bsudo: (?:a password is required|a terminal is required|command not found|not found)"
    r"|\benv: .sudo.: No such file"
    r"|is not (?:in the sudoers file|allowed to (?:run sudo|execute))"
)


def of_output(text: str) -> Failure | None:
    """Return the named failure that a command's output tells of, or None when it tells of none we know."""
    if found := _APT_LOCK.search(text):
        return Failure(
            "apt-locked",
            f"another package manager holds {found[1]}{_tail(found[2])}",
            "wait for it to finish (often unattended-upgrades), then run labctl apply again",
        )
    if "No space left on device" in text:
        return Failure(
            "disk-full", "its disk is full (No space left on device)", "free some space: df -h; apt-get clean"
        )
    if _SUDO.search(text):
        return no_sudo()
    return None


def no_sudo() -> Failure:
    """Return the failure of a log-in user who may not become root without a password."""
    return Failure(
        "no-sudo",
        "the log-in user may not become root without a password",
        "on the host, as root: echo 'USER ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/90-USER",
        unreachable=True,
    )


def _tail(text: str) -> str:
    words = text.strip(" .")
    return f" ({words})" if words else ""
