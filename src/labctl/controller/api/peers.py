"""Who is at the other end of a unix socket, by the kernel's word, and whether he may give orders.

The kernel notes the uid when the connection is made, so nothing that is said can change it. Root may, the
user that the controller runs as may, and the users that the rack file names as operators. An operator that
does not exist on this machine is nobody, not everybody: his name is only reported. The gateway's user may
say that there is news in the store (the verb ``nudge``), and nothing else; the user that looks after health
may ask for the status, and nothing else. In a user namespace that maps only some users (``PrivateUsers=``)
all others look alike, and none of them may.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_CREDENTIALS = struct.Struct("3i")
GATEWAY = "labctl-gateway"
NUDGE = "nudge"
WEB = "labctl-web"
HEALTH = "labctl-health"
STATUS = "status"
WEB_VERBS = frozenset({"status", "explain", "events", "energy", "wake", "suspend", "hold", "release"})
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

        Root speaks for whoever came to it (by SSH, with the operator's key), and says for whom; the web page
        says whose key it was shown, and that it says so; everybody else speaks for himself.
        """
        if self.uid == 0:
            return by.strip() or self.user
        user = self.user
        return f"{by.strip()} by {WEB}" if user == WEB and by.strip() else user


def peer_of(sock: socket.socket) -> Peer:
    """Return who made the connection."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return Peer(pid, uid)


@dataclass(frozen=True, slots=True)
class Allowed:
    """The uids that may give orders, may only nudge, are the web page's, or look after health.

    ``missing`` are operators of the rack file that do not exist here.
    """

    uids: frozenset[int]
    missing: tuple[str, ...] = ()
    nudgers: frozenset[int] = frozenset()
    web: frozenset[int] = frozenset()
    watchers: frozenset[int] = frozenset()

    def __contains__(self, peer: object) -> bool:
        """Return whether that peer may say anything at all."""
        return isinstance(peer, Peer) and peer.uid in self.uids | self.nudgers | self.web | self.watchers

    def refusal(self, peer: Peer, verb: str, fields: Mapping[str, Any]) -> str:
        """Return why that peer may not ask this, as "may only ..."; empty: it may."""
        if peer.uid in self.uids:
            return ""
        if peer.uid in self.nudgers:
            return "" if verb == NUDGE else f"may only {NUDGE} this controller"
        if peer.uid in self.watchers:
            return "" if verb == STATUS else f"may only ask this controller for its {STATUS}"
        if peer.uid not in self.web:
            return "may give no orders to this controller"
        if fields.get("force"):
            return "may force nothing"
        return "" if verb in WEB_VERBS else f"may not {verb} here; that is for commands"


def allowed(
    operators: Iterable[str], gateway: str = GATEWAY, web: str = WEB, health: str = HEALTH
) -> Allowed:
    """Return who may give orders, for a rack file's operators and the users of labctl's own services."""
    uids: set[int] = {0, os.geteuid()}
    missing = []
    for name in operators:
        try:
            uids.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            missing.append(name)
    return Allowed(
        frozenset(uids - {_OVERFLOW}), tuple(missing), _uids_of(gateway), _uids_of(web), _uids_of(health)
    )


def _uids_of(user: str) -> frozenset[int]:
    """Return a user's uid; nothing where there is none on this machine."""
    try:
        return frozenset({pwd.getpwnam(user).pw_uid} - {_OVERFLOW})
    except KeyError:
        return frozenset()
