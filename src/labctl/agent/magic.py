"""Magic packets: what they are, which networks this machine is in, and how they leave it.

A packet goes out of one interface: the socket is bound to that interface's own address, by which the kernel
sends the limited broadcast 255.255.255.255 out of that interface too (ip_route_output_key of the kernel:
a source address picks the device for limited broadcasts and multicasts). That needs no privilege.
SO_BINDTODEVICE is asked for besides, since two interfaces may be in one network; kernels before 5.7 give it
to root alone, and then the source address has to do.

Networks are read by ioctl, since a process for `ip` would take longer than all the rest. IPv6 has no
broadcast, and cards look at the payload only, so IPv4 does for waking.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import ipaddress
import re
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

EVERYWHERE = "255.255.255.255"
PORTS = (9, 7)
_SIOCGIFCONF = 0x8912
_SIOCGIFFLAGS = 0x8913
_SIOCGIFNETMASK = 0x891B
_SIOCETHTOOL = 0x8946
_ETHTOOL_GLINK = 0x0A
_UP, _BROADCAST, _LOOPBACK, _RUNNING = 0x1, 0x2, 0x8, 0x40
_REQUEST = 40 if struct.calcsize("P") == 8 else 32  # sizeof(struct ifreq)
_MOST = 256
SIX = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}", re.ASCII)
_HIGHEST_PREFIX = 30  # 31 and 32 have no broadcast address

Target = tuple[str, int]
"""An IPv4 address and a UDP port."""


class Network(NamedTuple):
    """An IPv4 network that this machine has an address in, and the interface that leads there."""

    interface: str
    address: str
    prefix: int

    @property
    def whole(self) -> ipaddress.IPv4Network:
        """Return the network itself."""
        return ipaddress.IPv4Network((self.address, self.prefix), strict=False)

    @property
    def broadcast(self) -> str:
        """Return the address of everybody in it."""
        return str(self.whole.broadcast_address)


def networks() -> list[Network]:
    """Return the networks in which something can be broadcast: interfaces that are up, no loopback.

    Raises:
        OSError: the kernel does not tell.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        found = []
        for label, address in _addresses(door):
            flags = _flags(door, label)
            if flags & (_UP | _BROADCAST | _LOOPBACK) != _UP | _BROADCAST:
                continue
            # With the address in it the kernel answers for that one, and not for the interface's first.
            request = struct.pack("16sHH4s8x", label, socket.AF_INET, 0, address)
            mask = struct.unpack_from("4s", _asked(door, _SIOCGIFNETMASK, request), 20)[0]
            prefix = bin(int.from_bytes(mask, "big")).count("1")
            if 0 < prefix <= _HIGHEST_PREFIX:
                name = label.rstrip(b"\0").decode("utf-8", "replace").partition(":")[0]
                found.append(Network(name, socket.inet_ntoa(address), prefix))
    return found


def is_connected(interface: str) -> bool:
    """Return whether an interface is up and has a carrier, as far as its driver can tell.

    Raises:
        OSError: there is no such interface.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        flags = _flags(door, interface.encode())
        if not flags & _UP:
            return False
        answer = array.array("B", struct.pack("II", _ETHTOOL_GLINK, 0))
        request = struct.pack("16sP", interface.encode(), answer.buffer_info()[0])
        try:
            _asked(door, _SIOCETHTOOL, request)
        except OSError:  # a driver that cannot say; the flag follows a carrier by up to a second
            return bool(flags & _RUNNING)
        return bool(struct.unpack_from("II", answer)[1])


def _flags(door: socket.socket, label: bytes) -> int:
    answer = _asked(door, _SIOCGIFFLAGS, struct.pack("16s16s", label, b""))
    return int(struct.unpack_from("H", answer, 16)[0])


def _addresses(door: socket.socket) -> list[tuple[bytes, bytes]]:
    """Return each IPv4 address of this machine with the label that it has on its interface."""
    room = array.array("B", bytes(_REQUEST * _MOST))
    where, size = room.buffer_info()
    filled = struct.unpack_from("i", _asked(door, _SIOCGIFCONF, struct.pack("iP", size, where)))[0]
    raw = room.tobytes()[:filled]
    return [(raw[at : at + 16], raw[at + 20 : at + 24]) for at in range(0, filled, _REQUEST)]


def _asked(door: socket.socket, what: int, request: bytes) -> bytes:
    return fcntl.ioctl(door, what, request.ljust(_REQUEST, b"\0"))


def packet(mac: str, secureon: str | None = None) -> bytes:
    """Return the bytes of a magic packet; both arguments as aa:bb:cc:dd:ee:ff.

    Raises:
        ValueError: one of them is written otherwise.
    """
    for six in (mac, secureon):
        if six is not None and not SIX.fullmatch(six):
            raise ValueError("must be six bytes such as 52:54:00:12:34:56")
    last = b"" if secureon is None else bytes.fromhex(secureon.replace(":", ""))
    return b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) * 16 + last


def send(payload: bytes, targets: Sequence[Target], *, out_of: Network | None = None) -> int:
    """Send a packet to each target, out of that network's interface or where the routes lead.

    Returns how many were sent.

    Raises:
        OSError: none was; it is the last reason.
    """
    sent, last = 0, None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.setblocking(False)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if out_of is not None:
            with contextlib.suppress(PermissionError):  # the source address picks the interface as well
                door.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, out_of.interface.encode() + b"\0")
            door.bind((out_of.address, 0))
        for target in targets:
            try:
                door.sendto(payload, target)
                sent += 1
            except OSError as error:
                last = error
    if last is not None and not sent:
        raise last
    return sent


def everybody(network: Network, ports: Iterable[int]) -> list[Target]:
    """Return where to send so that everybody in a network hears it."""
    return [(address, port) for port in ports for address in (network.broadcast, EVERYWHERE)]
