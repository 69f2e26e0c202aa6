"""Who is at the other end of a unix socket, by the kernel's word, and whether he may give orders.

The kernel notes the uid when the connection is made, so nothing that is said can change it. Root may, the
user that the controller runs as may, and the users that the rack file names as operators. An operator that
does not exist on this machine is nobody, not everybody: his name is only reported. The gateway's user may
say that there is news in the store (the verb ``nudge``), and nothing else. In a user namespace that
maps only some users (``PrivateUsers=``) all others look alike, and none of them may.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

_CREDENTIALS = struct.Struct("3i")
GATEWAY = "labctl-gateway"
NUDGE = "nudge"
_OVERFLOW = 65534
"""What the kernel says of users that a user namespace does not map: never somebody."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end."""

    pid: int
    uid: int

    @property
    def user(self) -> str:
        """Return the user's name, or his number where he has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid {self.uid}"

    def called(self, by: str) -> str:
        """Return who gives an order.

        Root speaks for whoever came to it (by SSH, with the operator's key), and says for whom; everybody
        else speaks for himself.
        """
        return by.strip() or self.user if self.uid == 0 else self.user


def peer_of(sock: socket.socket) -> Peer:
    """Return who made the connection."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return Peer(pid, uid)


@dataclass(frozen=True, slots=True)
class Allowed:
    """The uids that may give orders, and those that may only nudge.

    ``missing`` are operators of the rack file that do not exist here.
    """

    uids: frozenset[int]
    missing: tuple[str, ...] = ()
    nudgers: frozenset[int] = frozenset()

    def __contains__(self, peer: object) -> bool:
        """Return whether that peer may say anything at all."""
        return isinstance(peer, Peer) and (peer.uid in self.uids or peer.uid in self.nudgers)

    def may(self, peer: Peer, verb: str) -> bool:
        """Return whether that peer may use a verb."""
        return peer.uid in self.uids or (verb == NUDGE and peer.uid in self.nudgers)


def allowed(operators: Iterable[str], gateway: str = GATEWAY) -> Allowed:
    """Return who may give orders, for the operators that a rack file names and the gateway's user."""
    uids: set[int] = {0, os.geteuid()}
    missing = []
    for name in operators:
        try:
            uids.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            missing.append(name)
    nudgers: set[int] = set()
    with suppress(KeyError):  # there is no gateway on this machine
        nudgers.add(pwd.getpwnam(gateway).pw_uid)
    return Allowed(frozenset(uids - {_OVERFLOW}), tuple(missing), frozenset(nudgers - {_OVERFLOW}))
