"""What logind keeps in ``/run/systemd``, read without asking it: sessions and inhibitors.

logind writes each session and each inhibitor into a small file of ``NAME=value`` lines that everybody may
read, as libsystemd does. So a look costs no process and no message. A file without the lines that each has is
not understood, and then nothing is said at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .sockets import address
from .terms import Unreadable, listed, read

SESSIONS = "run/systemd/sessions"
INHIBITORS = "run/systemd/inhibit"
_NAME = re.compile(r"[A-Za-z0-9]+", re.ASCII)
_ESCAPED = re.compile(r"\\([0-7]{3}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "", "b": "", "f": "", "v": "", "s": " "}


class Session(NamedTuple):
    """Somebody's session, as logind knows it."""

    id: str
    uid: int
    user: str
    kind: str
    state: str
    service: str
    remote: bool
    remote_host: str
    seat: str
    tty: str
    scope: str

    @property
    def is_persons(self) -> bool:
        """Return whether it is of the kinds that people have; the others are managers, greeters and jobs."""
        return self.kind.startswith("user")

    @property
    def by_ssh(self) -> bool:
        """Return whether it came over the network."""
        return self.remote or self.service == "sshd"


class Inhibitor(NamedTuple):
    """Something that keeps the host from doing something."""

    what: list[str]
    mode: str
    who: str
    why: str
    uid: int
    pid: int


def sessions(root: Path) -> list[Session]:
    """Return all sessions.

    Raises:
        Unreadable: logind does not run, or its files are not understood.
    """
    return [_session(name, found) for name, found in _files(root, SESSIONS, ("UID", "STATE"))]


def inhibitors(root: Path) -> list[Inhibitor]:
    """Return all inhibitors.

    Raises:
        Unreadable: logind does not run, or its files are not understood.
    """
    return [
        Inhibitor(
            what=found["WHAT"].split(":"),
            mode=found["MODE"],
            who=found.get("WHO", ""),
            why=found.get("WHY", ""),
            uid=_number(found.get("UID", "")),
            pid=_number(found.get("PID", "")),
        )
        for _, found in _files(root, INHIBITORS, ("WHAT", "MODE"))
    ]


def _session(name: str, found: dict[str, str]) -> Session:
    uid = _number(found["UID"])
    return Session(
        id=name,
        uid=uid,
        user=found.get("USER") or f"user {uid}",
        kind=found.get("CLASS") or "user",
        state=found["STATE"],
        service=found.get("SERVICE", ""),
        remote=found.get("REMOTE") == "1",
        remote_host=address(found.get("REMOTE_HOST", "")),
        seat=found.get("SEAT", ""),
        tty=found.get("TTY", ""),
        scope=found.get("SCOPE", ""),
    )


def _files(root: Path, folder: str, needed: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    names = listed(root / folder)
    if names is None:
        raise Unreadable(f"systemd-logind does not run: /{folder} is not there")
    for name in names:
        if not _NAME.fullmatch(name):
            continue  # the pipe beside it, or a file that is being written
        content = read(root / folder / name)
        if content is None:
            continue  # it has just ended
        lines = (line.partition("=") for line in content.splitlines() if not line.startswith("#"))
        found = {key: _plain_value(value) for key, separator, value in lines if separator}
        if not all(found.get(key) for key in needed):
            raise Unreadable(f"/{folder}/{name} is not understood")
        yield name, found


def _plain_value(text: str) -> str:
    """Return a value without its quotes and escapes."""
    value = text.strip()
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    return _ESCAPED.sub(_meant, value) if "\\" in value else value


def _meant(match: re.Match[str]) -> str:
    given = match[1]
    if given[0] == "x" and len(given) == 3:
        return chr(int(given[1:], 16))
    if len(given) == 3:
        return chr(int(given, 8))
    return _LETTERS.get(given, given)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else -1
