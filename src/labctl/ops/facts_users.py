"""One user of a host in one command of a few milliseconds (pyinfra's own fact forks eight processes a user).

``authorized_keys`` is looked at only where asked. It is read by root although its directory belongs to the
user, so a symbolic link on the way is reported as such and never followed.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase
from typing_extensions import override

from labctl.ops.facts import CONTENT, PathInfo, look_function, parse_look

_QUERY = """\
n=NAME
if p=$(getent passwd "$n"); then
printf '%s\\n%s\\n' "$p" "$(LC_ALL=C id -nG -- "$n" 2>/dev/null)"
case $(getent shadow "$n" 2>/dev/null) in "$n"::*) echo open;; *) echo closed;; esac
h=${p%:*}; h=${h##*:}
if [ -d "$h" ]; then echo home; else echo homeless; fi
KEYS
else echo absent; fi"""
_KEYS = """\
if [ -L "$h/.ssh" ]; then labctl_look "$h/.ssh" '' ''
else labctl_look "$h/.ssh/authorized_keys" 'CONTENT' ''; fi"""


@dataclass(frozen=True, slots=True)
class UserInfo:
    """A user as it is. ``open``: it has an empty password, so anyone may be it."""

    exists: bool = False
    uid: int = -1
    home: str = ""
    shell: str = ""
    groups: frozenset[str] = frozenset()
    open: bool = False
    has_home: bool = False
    keys: PathInfo = field(default_factory=PathInfo)


class User(FactBase[UserInfo]):
    """What passwd, group, shadow and authorized_keys say of one user."""

    @override
    @staticmethod
    def default() -> UserInfo:
        """Return a user that does not exist."""
        return UserInfo()

    def command(self, user: str, *, keys: bool = False) -> str:
        """Return the command for this user."""
        query = _QUERY.replace("NAME", shlex.quote(user))
        if not keys:
            return query.replace("KEYS\n", "")
        return look_function() + query.replace("KEYS", _KEYS.replace("CONTENT", CONTENT))

    @override
    def process(self, output: list[str]) -> UserInfo:
        """Read the answer; raise ``FactProcessError`` when it is not one."""
        if output[0] == "absent":
            return UserInfo()
        try:
            _, _, uid, _, _, home, shell = output[0].split(":")
            groups = frozenset(output[1].split())
            keys = parse_look(output[4]) if len(output) > 4 else PathInfo()
            seen = (output[2] == "open", output[3] == "home")
            return UserInfo(True, int(uid), home, shell, groups, *seen, keys)
        except (ValueError, IndexError) as error:
            raise FactProcessError(f"unreadable answer about a user: {output[:1]!r}") from error


class Group(FactBase[bool]):
    """Whether a group exists."""

    @override
    @staticmethod
    def default() -> bool:
        """Return that it does not."""
        return False

    def command(self, group: str) -> str:
        """Return the command for this group."""
        return f"getent group {shlex.quote(group)} || true"

    @override
    def process(self, output: list[str]) -> bool:
        """Return whether getent knew it."""
        return any(":" in line for line in output)
