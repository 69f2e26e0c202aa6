"""TCP connections, as the kernel lists them for everybody.

Counted are those that are up, and those whose peer has gone while the program here has not noticed
(CLOSE_WAIT): a frozen sshd still has somebody. Whose process has a connection only root may see; who is at
the other end everybody may.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import NamedTuple

from .terms import Unreadable, read

_COUNTED = ("01", "08")  # ESTABLISHED, CLOSE_WAIT
_MAPPED = "::ffff:"


class Connection(NamedTuple):
    """One connection: this host's end and the other."""

    here: str
    port: int
    there: str
    from_port: int

    @property
    def is_local(self) -> bool:
        """Return whether both ends are on this host."""
        return self.there == self.here or self.there.startswith("127.") or self.there == "::1"


class Sockets:
    """The host's connections, read once for all signals of one look."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: tuple[Connection, ...] | None = None

    def forget(self) -> None:
        """Begin a new look."""
        self._known = None

    def connections(self) -> tuple[Connection, ...]:
        """Return all connections.

        Raises:
            Unreadable: the kernel does not list them.
        """
        if self._known is None:
            self._known = _connections(self._root)
        return self._known

    def to(self, port: int) -> list[Connection]:
        """Return the connections that others have to a port of this host.

        Raises:
            Unreadable: the kernel does not list them.
        """
        return [one for one in self.connections() if one.port == port]


def address(text: str) -> str:
    """Return an IP address as it is compared here: IPv4 in IPv6 as IPv4, without a zone."""
    bare = text.strip().lower().partition("%")[0]
    return bare[len(_MAPPED) :] if bare.startswith(_MAPPED) and "." in bare else bare


def _connections(root: Path) -> tuple[Connection, ...]:
    four, six = read(root / "proc/net/tcp"), read(root / "proc/net/tcp6")
    if four is None:
        raise Unreadable("the kernel does not list TCP connections")
    found = []
    for line in [*four.splitlines()[1:], *(six or "").splitlines()[1:]]:
        fields = line.split(None, 4)
        if len(fields) > 3 and fields[3] in _COUNTED:
            here, port = _end(fields[1])
            there, from_port = _end(fields[2])
            found.append(Connection(here, port, there, from_port))
    return tuple(found)


def _end(text: str) -> tuple[str, int]:
    number, _, port = text.partition(":")
    # The kernel prints each 32-bit word as the processor reads it.
    words = [int(number[at : at + 8], 16) for at in range(0, len(number), 8)]
    raw = struct.pack(f"={len(words)}I", *words)
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    return address(socket.inet_ntop(family, raw)), int(port, 16)
