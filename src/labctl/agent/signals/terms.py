"""What a signal is, and how the host's files are read for one.

``read`` tells a file that is not there (None) from one that cannot be read (``Unreadable``): the first is an
answer, the second is none.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ..host import ROOT

AGENT_USER = "labctl-agent"
AGENT_PATH = "/usr/local/lib/labctl/agent.pyz"
TEXT_MAX = 300
_FILE_MAX = 4 << 20


class Unreadable(Exception):
    """A signal cannot be read; the text says why, as a person reads it."""


class Verdict(NamedTuple):
    """What a signal says: whether the host is in use, and why."""

    busy: bool
    because: str


class Reading(NamedTuple):
    """What a signal said, under its name; ``busy`` None is "not readable", which counts as busy."""

    signal: str
    busy: bool | None
    because: str


class Signal:
    """One thing that counts as use; it is given up as not readable after ``deadline_s`` seconds."""

    name = ""
    deadline_s = 3.0

    def look(self) -> Verdict:
        """Return what it says now.

        Raises:
            Unreadable: it cannot be known.
        """
        raise NotImplementedError


class Host(NamedTuple):
    """Where the host's files begin, and the number of the user whose sessions are ours."""

    root: Path = ROOT
    agent_uid: int = -1


def this_host(root: Path = ROOT) -> Host:
    """Return this host; the agent's own user is known by name, since root looks too."""
    for line in (read(root / "etc/passwd") or "").splitlines():
        fields = line.split(":")
        if len(fields) > 3 and fields[0] == AGENT_USER and fields[2].isdigit():
            return Host(root, int(fields[2]))
    return Host(root, os.getuid() or -1)


def read(path: Path) -> str | None:
    """Return what a file holds, or None where there is none.

    Raises:
        Unreadable: it is there and cannot be read.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            return file.read(_FILE_MAX).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return None
    except OSError as error:
        raise Unreadable(f"{shown(path)} cannot be read: {error.strerror or error}") from None


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)


def listed(path: Path) -> list[str] | None:
    """Return the sorted names in a folder, or None where there is none.

    Raises:
        Unreadable: it is there and cannot be read.
    """
    try:
        return sorted(entry.name for entry in path.iterdir())
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return None
    except OSError as error:
        raise Unreadable(f"{shown(path)} cannot be read: {error.strerror or error}") from None


def shown(path: Path) -> str:
    """Return a path in one line, whatever is in it."""
    return plain(str(path))


def plain(words: str) -> str:
    """Return text of somebody else's as one printable line of at most ``TEXT_MAX`` characters."""
    line = " ".join(words.split())
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return line if len(line) <= TEXT_MAX else line[: TEXT_MAX - 3] + "..."


def times(count: int, one: str, many: str = "") -> str:
    """Return "1 request" or "3 requests"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def lasting(seconds: float) -> str:
    """Return seconds as people say them: "40 s", "12 min", "3 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"
