"""Loopback SSH servers with chosen host keys and chosen bad manners, and racks that point at them.

The fixtures that start and end them are in conftest.py.
"""

from __future__ import annotations

import io
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import paramiko
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from labctl.inventory.known_hosts import fingerprint

logging.getLogger("fake-sshd").addHandler(logging.NullHandler())
logging.getLogger("fake-sshd").propagate = False


Private = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def generate(kind: str) -> Private:
    """Return a fresh private key of the kind ed25519, ecdsa or rsa."""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return (
        ec.generate_private_key(ec.SECP256R1()) if kind == "ecdsa" else rsa.generate_private_key(65537, 2048)
    )


def private_text(key: Private) -> str:
    """Return the key as ssh-keygen would write it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def make_key(kind: str) -> paramiko.PKey:
    """Return a fresh private key of the kind ed25519, ecdsa or rsa, for paramiko."""
    cls = {"ed25519": paramiko.Ed25519Key, "ecdsa": paramiko.ECDSAKey, "rsa": paramiko.RSAKey}[kind]
    return cls.from_private_key(io.StringIO(private_text(generate(kind))))


def print_of(key: paramiko.PKey) -> str:
    return fingerprint(key.get_base64())


@dataclass(frozen=True)
class Keys:
    """Two keys of each kind: the host's own, and those of somebody else."""

    own: dict[str, paramiko.PKey]
    other: dict[str, paramiko.PKey]


class Manners(Protocol):
    def __call__(self, connection: socket.socket, server: Server) -> None: ...


@dataclass
class Server:
    """One listening address. ``connections`` counts callers, ``auth_attempts`` every try to log in."""

    address: str
    port: int
    connections: int = 0
    auth_attempts: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)


class _Door(paramiko.ServerInterface):
    """Lets nobody in and counts who tried."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def get_allowed_auths(self, username: str) -> str:
        return "publickey,password"

    def check_auth_none(self, username: str) -> int:
        self._server.auth_attempts.append(f"none {username}")
        return paramiko.AUTH_FAILED

    def check_auth_password(self, username: str, password: str) -> int:
        self._server.auth_attempts.append(f"password {username}")
        return paramiko.AUTH_FAILED

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self._server.auth_attempts.append(f"publickey {username}")
        return paramiko.AUTH_FAILED


def speaks_ssh(*host_keys: paramiko.PKey) -> Manners:
    """Return the manners of an sshd that has these host keys."""

    def serve(connection: socket.socket, server: Server) -> None:
        transport = paramiko.Transport(connection)
        transport.set_log_channel("fake-sshd")
        for key in host_keys:
            transport.add_server_key(key)
        try:
            transport.start_server(server=_Door(server))
        except (paramiko.SSHException, EOFError, OSError):
            return
        while transport.is_active() and not server.stopping.wait(0.02):
            pass
        transport.close()

    return serve


@dataclass(frozen=True)
class RackDir:
    """A rack file on disk and its known_hosts."""

    file: Path

    @property
    def known_hosts(self) -> Path:
        return self.file.parent / "known_hosts"

    def pin(self, server: Server, *host_keys: paramiko.PKey) -> None:
        """Append pinned keys, as an earlier enroll would have."""
        with self.known_hosts.open("a") as stream:
            for key in host_keys:
                stream.write(f"[{server.address}]:{server.port} {key.get_name()} {key.get_base64()}\n")


Listen = Callable[..., Server]
MakeRack = Callable[..., RackDir]
