"""What is at a path on a host: one cheap command for any number of paths, which never fails.

The shell looks with ``stat`` and, where asked, ``sha256sum``. The old content travels only when it would be
shown: the caller says which sha256 it wants to see, and content comes back only if the file's differs from it
and is at most 256 KiB. So an unchanged file costs two small processes and sends no content. What cannot be
read is reported as absent or with an empty sha256, which makes the operation plan a change, never skip one.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase
from pyinfra.context import host
from typing_extensions import override

MAX_SHOWN_BYTES = 256 * 1024
Kind = Literal["file", "directory", "link", "special file", "absent"]
HASH = "hash"
CONTENT = "content"
_KINDS: dict[int, Kind] = {0o100000: "file", 0o040000: "directory", 0o120000: "link"}

# $1 path, $2 "" for stat only, "hash", or the sha256 whose file need not be sent; $3 -L to follow links.
_LOOK = """labctl_look() {
m=$(LC_ALL=C stat $3 -c '%f %u %g %U %G %s' -- "$1" 2>/dev/null) || { echo absent; return 0; }
h= c=
if [ -z "$3" ] && [ -L "$1" ]; then c=$(readlink -- "$1" | base64 -w0)
elif [ -n "$2" ] && [ -f "$1" ]; then
h=$(sha256sum <"$1" 2>/dev/null); h=${h%% *}
if [ "$2" != hash ] && [ "$2" != "$h" ] && [ "${m##* }" -le MAX ]; then c=$(base64 -w0 <"$1" 2>/dev/null); fi
fi
printf '%s %s %s\\n' "$m" "${h:--}" "${c:--}"
}
""".replace("MAX", str(MAX_SHOWN_BYTES))


@dataclass(frozen=True, slots=True)
class Look:
    """A question about one path.

    ``against``: "" asks for kind, mode and owner only; ``HASH`` also for the sha256 of a file; ``CONTENT``
    also for its content; a sha256 also for its content should it differ. ``follow``: look at what a
    symbolic link points to.
    """

    path: str
    against: str = ""
    follow: bool = False

    def command(self) -> str:
        """Return the shell words that answer this question, given the function in ``look_command``."""
        return f"labctl_look {shlex.quote(self.path)} '{self.against}' {'-L' if self.follow else chr(39) * 2}"


@dataclass(frozen=True, slots=True)
class PathInfo:
    """What is at a path. ``content`` is None when it was not asked for, equal, or too large to show."""

    kind: Kind = "absent"
    mode: int = 0
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    size: int = 0
    sha256: str = ""
    content: bytes | None = None
    target: str = ""

    def owned_by(self, user: str, group: str) -> bool:
        """Return whether user and group, each a name or a number, own it."""
        return user in (self.user, str(self.uid)) and group in (self.group, str(self.gid))


def look_function() -> str:
    """Return the definition of the shell function by which paths are looked at."""
    return _LOOK


def look_command(looks: Iterable[Look]) -> str:
    """Return one shell command that answers every question, a line each."""
    return _LOOK + "\n".join(look.command() for look in looks)


def parse_look(line: str) -> PathInfo:
    """Read one answer; raise ``FactProcessError`` when it is not one."""
    if line == "absent":
        return PathInfo()
    try:
        raw, uid, gid, user, group, size, sha256, data = line.split(" ")
        mode = int(raw, 16)
        content = None if data == "-" else base64.b64decode(data, validate=True)
        kind = _KINDS.get(mode & 0o170000, "special file")
        digest = "" if sha256 == "-" else sha256
        target = (content or b"").decode("utf-8", "replace").removesuffix("\n") if kind == "link" else ""
        numbers = (mode & 0o7777, int(uid), int(gid))
        return PathInfo(kind, *numbers, user, group, int(size), digest, None if target else content, target)
    except ValueError as error:
        raise FactProcessError(f"unreadable answer about a path: {line[:80]!r}") from error


class Paths(FactBase[list[PathInfo]]):
    """What is at each of some paths, in the order asked; ask through ``look``."""

    @override
    @staticmethod
    def default() -> list[PathInfo]:
        """Return no answers."""
        return []

    def command(self, looks: Sequence[Look]) -> str:
        """Return the command for these questions."""
        return look_command(looks)

    @override
    def process(self, output: list[str]) -> list[PathInfo]:
        """Read the answers, one a line."""
        return [parse_look(line) for line in output]


def look(*looks: Look) -> list[PathInfo]:
    """Ask the host of the running operation; what it does not answer counts as absent."""
    answers: list[PathInfo] = host.get_fact(Paths, looks=looks)
    return list(answers) + [PathInfo()] * (len(looks) - len(answers))
