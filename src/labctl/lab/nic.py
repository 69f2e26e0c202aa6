"""The network card that listens while its host sleeps or is off: magic packets on the rack's bridge.

A magic packet is six bytes ff and sixteen times the card's address, anywhere in a frame: in a UDP packet to
whatever port, or in an Ethernet frame of type 0x0842. A SecureOn password may follow. What comes of it is
decided as real cards do: only a card that the host armed before it went to sleep or off listens, only while
it is plugged in; a host that is awake takes no notice. When unsure, a packet wakes nobody.

Every packet is noted with what came of it, so that a test can count them.
"""

from __future__ import annotations

import random
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAGIC, SECURE = 1 << 5, 1 << 6  # bits of Wake-on-LAN options, as in linux/ethtool.h
_PATTERN = re.compile(rb"\xff{6}(.{6})\1{15}(.{0,6})", re.DOTALL)
_IPV4, _UDP = 0x0800, 17
_KEEP = 20_000
# linux/if_packet.h
_ALL_PROTOCOLS, _SOL_PACKET, _ADD_MEMBERSHIP, _PROMISCUOUS, _OUTGOING = 3, 263, 1, 1, 4


@dataclass(frozen=True, slots=True)
class Magic:
    """One magic packet: for whom, with which password, in which frame; ``port`` is None outside of UDP."""

    mac: str
    password: bytes
    source: str
    ethertype: int
    port: int | None


@dataclass(frozen=True, slots=True)
class Card:
    """What a card was told by its host's driver: Wake-on-LAN options (as bits) and the SecureOn password."""

    options: int = 0
    password: bytes = bytes(6)


@dataclass(slots=True)
class Hearing:
    """What is wrong with a card: it hears nothing, or misses so many packets in a hundred."""

    deaf: bool = False
    loses_percent: int = 0
    luck: random.Random = field(default_factory=random.Random)


def magic_of(frame: bytes) -> Magic | None:
    """Return the magic packet in an Ethernet frame, or None."""
    found = _PATTERN.search(frame)
    if found is None:
        return None
    (ethertype,) = struct.unpack_from("!H", frame, 12)
    port = None
    header = 14 + (frame[14] & 0x0F) * 4 if ethertype == _IPV4 else 0
    if header and frame[23] == _UDP and len(frame) >= header + 8:
        (port,) = struct.unpack_from("!H", frame, header + 2)
    return Magic(_text(found[1]), found[2], _text(frame[6:12]), ethertype, port)


def verdict(magic: Magic, state: str, card: Card, hearing: Hearing, *, plugged_in: bool) -> str:
    """Return "wakes", or in one or two words why the host with this card takes no notice."""
    if not plugged_in:
        return "unplugged"
    if hearing.deaf:
        return "deaf"
    if hearing.loses_percent and hearing.luck.randrange(100) < hearing.loses_percent:
        return "lost"
    if state not in ("off", "asleep"):
        return "awake"
    if card.options & MAGIC or (card.options & SECURE and magic.password == card.password):
        return "wakes"
    return "wrong password" if card.options & SECURE else "not armed"


class Ear(threading.Thread):
    """Hears every magic packet on an interface, hands it on, and notes what came of it."""

    def __init__(self, interface: str, heard: Callable[[Magic], tuple[str | None, str]]) -> None:
        super().__init__(daemon=True)
        self._heard = heard
        self._notes: deque[dict[str, Any]] = deque(maxlen=_KEEP)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        self._socket.bind((interface, 0))
        index = socket.if_nametoindex(interface)
        self._socket.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, struct.pack("IHH8x", index, _PROMISCUOUS, 0))

    def run(self) -> None:
        """Listen for ever."""
        while True:
            frame, address = self._socket.recvfrom(2048)
            magic = magic_of(frame) if address[2] != _OUTGOING else None
            if magic:
                try:
                    host, outcome = self._heard(magic)
                except Exception as error:  # whatever befell one host, the others are to be woken
                    host, outcome = None, f"failed: {error}"
                self._notes.append(
                    {
                        "host": host,
                        "mac": magic.mac,
                        "source": magic.source,
                        "ethertype": f"0x{magic.ethertype:04x}",
                        "port": magic.port,
                        "outcome": outcome,
                    }
                )

    def notes(self) -> list[dict[str, Any]]:
        """Return every packet so far: for which ``host``, by which way, and its ``outcome``."""
        return list(self._notes)


def _text(mac: bytes) -> str:
    return mac.hex(":")
