"""Open an SSH transport to one host, strictly.

The rule: a host proves one of the keys that ``known_hosts`` pins for it, or nothing is sent, not even the
user name. Only the key types that are pinned are offered, so a stranger's key of another type cannot slip
in. TCP_NODELAY is set before the first byte: without it each command costs 40 ms of Nagle and delayed ACK.
Every phase has its own deadline, because a frozen sshd accepts connections and then says nothing.
"""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from labctl.domain.failures import Failure, HostError
from labctl.inventory import known_hosts

_QUEUED_BYTES = 128 * 1024
_RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and as whom to connect; ``timeout_s`` bounds each phase of the handshake."""

    name: str
    address: str
    port: int
    user: str
    key: Path
    known_hosts: Path
    timeout_s: float
    disabled_algorithms: Mapping[str, Any]

    @classmethod
    def of(cls, data: Mapping[str, Any], name: str, timeout_s: float) -> Endpoint:
        """Read the endpoint from a host's pyinfra data; raise ``HostError`` unless it is strict."""
        if data.get("ssh_strict_host_key_checking") != "yes" or not data.get("ssh_known_hosts_file"):
            raise HostError(
                Failure(
                    "host-key",
                    "its data does not ask for strict host key checking",
                    'describe the host with labctl.inventory.Host, or set ssh_strict_host_key_checking="yes"'
                    " and ssh_known_hosts_file",
                )
            )
        if not data.get("ssh_key"):
            raise HostError(Failure("auth", "no ssh_key is set for it", "set Ssh(key=...) in the rack file"))
        connect_kwargs = data.get("ssh_paramiko_connect_kwargs") or {}
        return cls(
            name=name,
            address=str(data.get("ssh_hostname") or name),
            port=int(data.get("ssh_port") or 22),
            user=str(data.get("ssh_user") or "root"),
            key=Path(data["ssh_key"]),
            known_hosts=Path(data["ssh_known_hosts_file"]),
            timeout_s=timeout_s,
            disabled_algorithms=connect_kwargs.get("disabled_algorithms") or {},
        )


def open_transport(endpoint: Endpoint) -> paramiko.Transport:
    """Return an authenticated transport; raise ``HostError`` with the reason when there is none to be had."""
    pinned = known_hosts.lookup(known_hosts.load(endpoint.known_hosts), endpoint.address, endpoint.port)
    if not pinned:
        raise HostError(
            Failure(
                "host-key", f"{endpoint.address} has no pinned host key", f"labctl enroll {endpoint.name}"
            )
        )
    key = _private_key(endpoint.key)
    transport = paramiko.Transport(_dial(endpoint), disabled_algorithms=dict(endpoint.disabled_algorithms))
    try:
        _handshake(transport, endpoint, {entry.keytype: entry.key_b64 for entry in pinned})
        _authenticate(transport, endpoint, key)
    except BaseException:
        transport.close()
        raise
    return transport


def _private_key(path: Path) -> paramiko.PKey:
    try:
        status = path.stat()
        if status.st_mode & 0o077 and status.st_uid == os.getuid():
            raise HostError(
                Failure(
                    "auth", f"others may read the private key {path}", f"chmod 600 {shlex.quote(str(path))}"
                )
            )
        return paramiko.PKey.from_path(path)
    except FileNotFoundError:
        raise HostError(
            Failure("auth", f"the private key {path} does not exist", "create it, or correct Ssh(key=...)")
        ) from None
    except OSError as error:
        raise HostError(
            Failure("auth", f"the private key {path} cannot be read: {error.strerror or error}")
        ) from None
    except (paramiko.SSHException, ValueError, TypeError) as error:
        # Each format and library has an exception of its own for this.
        if isinstance(error, paramiko.PasswordRequiredException) or "password" in str(error).lower():
            raise HostError(
                Failure("auth", f"the private key {path} asks for a passphrase", "use a key without one")
            ) from None
        raise HostError(
            Failure(
                "auth",
                f"{path} is no private key that labctl can read",
                "make one with: ssh-keygen -t ed25519, and name the file without .pub in Ssh(key=...)",
            )
        ) from None


def _dial(endpoint: Endpoint) -> socket.socket:
    try:
        sock = socket.create_connection((endpoint.address, endpoint.port), timeout=endpoint.timeout_s)
    except TimeoutError:
        raise HostError(
            Failure(
                "timeout",
                f"{endpoint.address}:{endpoint.port} did not answer within {endpoint.timeout_s:g} s",
                "is it switched on, and on this network?",
                unreachable=True,
            )
        ) from None
    except OSError as error:
        raise HostError(
            Failure(
                "timeout",
                f"{endpoint.address}:{endpoint.port} cannot be reached: {error.strerror or error}",
                "is it switched on, and does sshd run there?",
                unreachable=True,
            )
        ) from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Heartbeats travel behind what was sent before, so an upload must not fill the kernel's queue.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _QUEUED_BYTES)
    return sock


def _handshake(transport: paramiko.Transport, endpoint: Endpoint, pinned: Mapping[str, str]) -> None:
    offered: list[str] = []
    for keytype in pinned:
        offered.extend(_RSA_SIGNATURES if keytype == "ssh-rsa" else (keytype,))
    transport.banner_timeout = endpoint.timeout_s
    transport.auth_timeout = endpoint.timeout_s
    changed = HostError(
        Failure(
            "host-key",
            f"{endpoint.address} does not prove the host key that is pinned in {endpoint.known_hosts};"
            " it was reinstalled, or someone stands in between. Nothing was sent to it",
            "compare the fingerprint on its console, then:"
            f" labctl enroll {endpoint.name} --replace --fingerprint ...",
            unreachable=True,
        )
    )
    try:
        options = transport.get_security_options()
        options.key_types = [kind for kind in options.key_types if kind in offered]
        transport.start_client(timeout=endpoint.timeout_s)
        key = transport.get_remote_server_key()
    except IncompatiblePeer:
        raise changed from None
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise HostError(
            Failure(
                "frozen",
                f"{endpoint.address}:{endpoint.port} accepts connections but does not speak SSH:"
                f" {str(error) or 'it closed the connection'}",
                "is its sshd frozen, or is something else on that port?",
                unreachable=True,
            )
        ) from None
    if pinned.get(key.get_name()) != key.get_base64():
        raise changed


def _authenticate(transport: paramiko.Transport, endpoint: Endpoint, key: paramiko.PKey) -> None:
    try:
        transport.auth_publickey(endpoint.user, key)
    except paramiko.AuthenticationException:
        raise HostError(
            Failure(
                "auth",
                f"{endpoint.address} refuses user {endpoint.user} with the key {endpoint.key}",
                f"ssh-copy-id -i {endpoint.key}.pub {endpoint.user}@{endpoint.address},"
                " or correct Ssh(user=...)",
                unreachable=True,
            )
        ) from None
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise HostError(
            Failure("frozen", f"{endpoint.address} broke off the log-in: {error}", unreachable=True)
        ) from None
