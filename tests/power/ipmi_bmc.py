"""A small BMC that speaks IPMI 2.0 over LAN (RMCP+), enough for ipmitool to log in and switch the chassis.

After the IPMI 2.0 specification, chapter 13: RAKP with HMAC-SHA1 or HMAC-SHA256, integrity by the same, and
AES-CBC-128 (cipher suites 3 and 17). Numbers are little-endian throughout.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_RMCP = bytes([0x06, 0x00, 0xFF, 0x07])
_OPEN, _OPENED, _RAKP1, _RAKP2, _RAKP3, _RAKP4 = range(0x10, 0x16)
_APP, _CHASSIS = 0x06, 0x00
_SUITES = {3: (1, 1, 1), 17: (3, 4, 1)}  # authentication, integrity, confidentiality
_NO_SUCH_COMMAND, _NODE_BUSY, _NOT_ALLOWED = 0xC1, 0xC0, 0xD4
_GUID = bytes(range(16))
_OPERATOR = 3


@dataclass
class Session:
    """One login, from the first message on."""

    console_id: bytes
    bmc_id: bytes
    suite: int
    console_random: bytes = b""
    bmc_random: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    role: int = 0
    user: bytes = b""
    key: bytes = b""  # SIK
    active: bool = False
    sent: int = 0

    def mac(self, key: bytes, text: bytes) -> bytes:
        return hmac.new(key, text, hashlib.sha1 if self.suite == 3 else hashlib.sha256).digest()

    @property
    def short(self) -> int:
        return 12 if self.suite == 3 else 16

    @property
    def who(self) -> bytes:
        return bytes([self.role, len(self.user)]) + self.user

    def derived(self, number: int) -> bytes:
        return self.mac(self.key, bytes([number]) * 20)


@dataclass
class IpmiBmc:
    """The BMC: its user, the state of the chassis, and how it misbehaves.

    ``fault``: "hang" (never answers), "busy" (each command fails), "half" (answers within the session are cut
    in half), "deaf" (hangs once somebody is logged in).
    """

    password: str = "calvin"
    user: str = "ops"
    suites: tuple[int, ...] = (3, 17)
    privilege: int = _OPERATOR
    on: bool = False
    fault: str = ""
    controls: list[int] = field(default_factory=list)
    suite_used: int = 0
    closed: int = 0
    sessions: dict[bytes, Session] = field(default_factory=dict)
    heard: int = 0

    def answer(self, packet: bytes) -> bytes | None:
        """Return what the BMC says to a datagram."""
        self.heard += 1
        if self.fault == "hang" or packet[:4] != _RMCP:
            return None
        if packet[4] == 0x00:
            told = self._command(packet[14 : 14 + packet[13]], None)
            return None if told is None else _RMCP + bytes(9) + bytes([len(told)]) + told
        kind, session_id = packet[5] & 0x3F, packet[6:10]
        length = struct.unpack_from("<H", packet, 14)[0]
        payload = packet[16 : 16 + length]
        if kind == _OPEN:
            return _outside(_OPENED, self._open(payload))
        if kind == _RAKP1:
            return _outside(_RAKP2, self._rakp1(payload))
        if kind == _RAKP3:
            return _outside(_RAKP4, self._rakp3(payload))
        if session_id == bytes(4):
            told = self._command(payload, None)
            return None if told is None else _outside(0, told)
        return self._inside(packet, session_id, payload)

    def _open(self, payload: bytes) -> bytes:
        tag, console_id = payload[:1], payload[4:8]
        wanted = payload[12], payload[20], payload[28]
        suite = next((suite for suite in self.suites if _SUITES[suite] == wanted), None)
        if suite is None:
            return tag + b"\x11" + bytes(2) + console_id  # no matching cipher suite
        session = Session(console_id, secrets.token_bytes(4), suite)
        self.sessions[session.bmc_id] = session
        return tag + bytes([0, payload[1], 0]) + console_id + session.bmc_id + payload[8:32]

    def _rakp1(self, payload: bytes) -> bytes:
        tag, session = payload[:1], self.sessions[payload[4:8]]
        session.console_random, session.role = payload[8:24], payload[24]
        session.user = payload[28 : 28 + payload[27]]
        if session.user != self.user.encode():
            return tag + b"\x0d" + bytes(2) + session.console_id
        if session.role & 0x0F > self.privilege:
            return tag + b"\x0a" + bytes(2) + session.console_id
        text = session.console_id + session.bmc_id + session.console_random + session.bmc_random + _GUID
        proof = session.mac(self._password, text + session.who)
        return tag + bytes(3) + session.console_id + session.bmc_random + _GUID + proof

    def _rakp3(self, payload: bytes) -> bytes:
        tag, session = payload[:1], self.sessions[payload[4:8]]
        expected = session.mac(self._password, session.bmc_random + session.console_id + session.who)
        if payload[1] or payload[8:] != expected:
            return tag + b"\x0f" + bytes(2) + session.console_id  # invalid integrity check value
        session.key = session.mac(self._password, session.console_random + session.bmc_random + session.who)
        session.active = True
        self.suite_used = session.suite
        check = session.mac(session.key, session.console_random + session.bmc_id + _GUID)
        return tag + bytes(3) + session.console_id + check[: session.short]

    @property
    def _password(self) -> bytes:
        return self.password.encode().ljust(20, b"\0")

    def _inside(self, packet: bytes, session_id: bytes, payload: bytes) -> bytes | None:
        session = self.sessions.get(session_id)
        if session is None or not session.active or packet[5] & 0xC0 != 0xC0 or self.fault == "deaf":
            return None
        text, proof = packet[4 : -session.short], packet[-session.short :]
        if session.mac(session.derived(1), text)[: session.short] != proof:
            return None
        cipher = Cipher(algorithms.AES(session.derived(2)[:16]), modes.CBC(payload[:16])).decryptor()
        plain = cipher.update(payload[16:]) + cipher.finalize()
        told = self._command(plain[: -plain[-1] - 1], session)
        if told is None:
            return None
        sealed = self._sealed(session, told)
        return sealed[: len(sealed) // 2] if self.fault == "half" else sealed

    def _sealed(self, session: Session, told: bytes) -> bytes:
        padding = -(len(told) + 1) % 16
        plain = told + bytes(range(1, padding + 1)) + bytes([padding])
        iv = secrets.token_bytes(16)
        cipher = Cipher(algorithms.AES(session.derived(2)[:16]), modes.CBC(iv)).encryptor()
        payload = iv + cipher.update(plain) + cipher.finalize()
        session.sent += 1
        text = (
            bytes([0x06, 0xC0])
            + session.console_id
            + struct.pack("<IH", session.sent, len(payload))
            + payload
        )
        missing = -(len(text) + 2) % 4
        text += b"\xff" * missing + bytes([missing, 0x07])
        return _RMCP + text + session.mac(session.derived(1), text)[: session.short]

    def _command(self, message: bytes, session: Session | None) -> bytes | None:
        """Return the answer to an IPMI message."""
        netfn, command, data = message[1] >> 2, message[5], message[6:-1]
        code, out = self._done(netfn, command, data, session)
        head = bytes([message[3], (netfn | 1) << 2])
        tail = bytes([message[0], message[4], command, code]) + out
        return head + _checksum(head) + tail + _checksum(tail)

    def _done(self, netfn: int, command: int, data: bytes, session: Session | None) -> tuple[int, bytes]:
        if (netfn, command) == (_APP, 0x38):  # Get Channel Authentication Capabilities
            return 0, bytes([1, 0x80, 0x04, 0x02]) + bytes(4)
        if (netfn, command) == (_APP, 0x54):  # Get Channel Cipher Suites
            records = b"".join(
                bytes([0xC0, suite, one, 0x40 | two, 0x80 | three])
                for suite, (one, two, three) in _SUITES.items()
                if suite in self.suites
            )
            return 0, b"\x01" + records
        if session is None:
            return _NOT_ALLOWED, b""
        if (netfn, command) == (_APP, 0x3B):  # Set Session Privilege Level
            return (0x81, b"") if data[0] > self.privilege else (0, data[:1])
        if (netfn, command) == (_APP, 0x3C):  # Close Session
            self.closed += 1
            return 0, b""
        if netfn == _CHASSIS and self.fault == "busy":
            return _NODE_BUSY, b""
        if (netfn, command) == (_CHASSIS, 0x01):  # Get Chassis Status
            return 0, bytes([0x60 | self.on, 0, 0])
        if (netfn, command) == (_CHASSIS, 0x02):  # Chassis Control
            self.controls.append(data[0] & 0x0F)
            self.on = data[0] & 0x0F != 0
            return 0, b""
        return _NO_SUCH_COMMAND, b""


def _outside(kind: int, payload: bytes) -> bytes:
    return _RMCP + bytes([0x06, kind]) + bytes(8) + struct.pack("<H", len(payload)) + payload


def _checksum(data: bytes) -> bytes:
    return bytes([-sum(data) & 0xFF])


@contextmanager
def bmc_on_loopback(bmc: IpmiBmc) -> Iterator[int]:
    """Let a BMC be reached at a UDP port until the end of the block."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                packet, where = door.recvfrom(4096)
                if not packet:
                    return
                if (told := bmc.answer(packet)) is not None:
                    door.sendto(told, where)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield door.getsockname()[1]
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
                end.sendto(b"", door.getsockname())
            thread.join()
