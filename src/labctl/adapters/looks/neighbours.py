"""What the kernel knows of its neighbours: who answered to ARP or neighbour discovery, and how lately.

Read over netlink (rtnetlink(7), RTM_GETNEIGH): /proc/net/arp does not tell a neighbour that answered from one
that did an hour ago, and knows no IPv6. The times of a neighbour come in hundredths of a second (USER_HZ).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from labctl.domain.sleep.terms import Sign

_RTM_NEWNEIGH, _RTM_GETNEIGH = 28, 30
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_NDA_DST, _NDA_CACHEINFO = 1, 3
_TICK_S = 0.01
INCOMPLETE, REACHABLE, FAILED = 0x01, 0x02, 0x20
_HEADER, _NEIGHBOUR = struct.Struct("=IHHII"), struct.Struct("=BBHiHBB")
_WAIT_S = 1.0
ASKED_S = 1.0
"""How long a neighbour must have been asked, without an answer, to count as silent: the kernel asks thrice,
a second apart."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbour's state as the kernel names it, and seconds since it was last confirmed."""

    state: int
    confirmed_s: float


def sign(neighbour: Neighbour | None, looked_s: float) -> Sign:
    """Return what a neighbour's entry means, when it has been asked for during so many seconds."""
    if neighbour is None:
        return Sign.UNCLEAR
    if neighbour.state == FAILED or (neighbour.state == INCOMPLETE and looked_s >= ASKED_S):
        return Sign.DARK
    if neighbour.state == REACHABLE and neighbour.confirmed_s <= looked_s + 2 * _TICK_S:
        return Sign.ON
    return Sign.UNCLEAR  # remembered from before, or being asked still


def neighbour(address: str) -> Neighbour | None:
    """Return the entry of an address, or None where there is none.

    Raises:
        OSError: the kernel does not tell.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    wanted = socket.inet_pton(family, address)
    for state, attributes in _dump(family):
        if attributes.get(_NDA_DST) == wanted and _NDA_CACHEINFO in attributes:
            confirmed = struct.unpack_from("=I", attributes[_NDA_CACHEINFO])[0]
            return Neighbour(state, confirmed * _TICK_S)
    return None


def _dump(family: int) -> Iterator[tuple[int, dict[int, bytes]]]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as door:
        door.settimeout(_WAIT_S)
        body = _NEIGHBOUR.pack(family, 0, 0, 0, 0, 0, 0)
        door.send(_HEADER.pack(_HEADER.size + len(body), _RTM_GETNEIGH, _DUMP, 1, 0) + body)
        while True:
            data = door.recv(1 << 16)
            at = 0
            while at < len(data):
                length, kind, _, _, _ = _HEADER.unpack_from(data, at)
                if kind in (_NLMSG_DONE, _NLMSG_ERROR) or length < _HEADER.size:
                    return
                if kind == _RTM_NEWNEIGH:
                    state = _NEIGHBOUR.unpack_from(data, at + _HEADER.size)[4]
                    start = at + _HEADER.size + _NEIGHBOUR.size
                    yield state, dict(_attributes(data[start : at + length]))
                at += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind, data[at + 4 : at + length]
        at += (length + 3) & ~3
