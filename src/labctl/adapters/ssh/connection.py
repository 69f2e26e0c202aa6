"""One connection to one host: dial, have the host prove a pinned key, log in.

One deadline bounds all of it; each step until the host has let us in has at most ``CONNECT_S`` of that.
"""

from __future__ import annotations

import os
import shlex
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from labctl.domain.failures import Failure, HostError
from labctl.inventory.connect import nodelay_transport

CONNECT_S = 10.0
"""Most seconds for each step until the host has let us in; a longer deadline is for the command."""

LOG = "labctl.ssh"
_RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")
# What commands say is read by us, so they shall say it in one language.
_PLAIN = ("env", "-u", "LANGUAGE", "LC_ALL=C.UTF-8")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and as whom to connect, and the pinned keys by their type.

    ``forced``: the key opens one program whatever is asked for, and that program reads the line for itself.
    """

    name: str
    address: str
    port: int
    user: str
    key: Path
    known_hosts: Path
    disabled_algorithms: Mapping[str, Any]
    forced: bool = False

    @classmethod
    def of(cls, name: str, data: Mapping[str, Any]) -> Endpoint:
        """Read the endpoint from a host's connection data; raise ``HostError`` unless they are strict."""
        if data.get("ssh_strict_host_key_checking") != "yes" or not data.get("ssh_known_hosts_file"):
            raise nothing_done(
                "host-key",
                "its data does not ask for strict host key checking",
                "describe the host with labctl.inventory.Host",
            )
        if not data.get("ssh_key"):
            raise nothing_done("auth", "no ssh_key is set for it", "set Ssh(key=...)")
        more = data.get("ssh_paramiko_connect_kwargs") or {}
        return cls(
            name=name,
            address=str(data.get("ssh_hostname") or name),
            port=int(data.get("ssh_port") or 22),
            user=str(data.get("ssh_user") or "root"),
            key=Path(data["ssh_key"]),
            known_hosts=Path(data["ssh_known_hosts_file"]),
            disabled_algorithms=more.get("disabled_algorithms") or {},
            forced=bool(data.get("ssh_forced")),
        )

    def command(self, argv: Sequence[str], *, root: bool) -> str:
        """Return the line to ask for: the words alone, without the program, where that is forced."""
        if self.forced:
            return shlex.join(argv[1:])
        return command(argv, become=root and self.user != "root")


class Connection:
    """The way to one host, from the first packet to the last."""

    def __init__(self, endpoint: Endpoint, deadline_s: float) -> None:
        self._endpoint = endpoint
        self.deadline_s = deadline_s
        self._until = time.monotonic() + deadline_s
        self.sockets: list[socket.socket] = []
        self._transport: paramiko.Transport | None = None

    def left(self) -> float:
        """Return how many seconds are left."""
        return max(0.001, self._until - time.monotonic())

    def late(self) -> bool:
        """Return whether no time is left."""
        return time.monotonic() > self._until

    def took(self) -> float:
        """Return how many seconds have passed."""
        return time.monotonic() - self._until + self.deadline_s

    def patience(self) -> float:
        """Return how many seconds the next step may take."""
        return min(CONNECT_S, self.left())

    def dial(self, hold: Callable[[socket.socket], None]) -> None:
        """Connect; ``hold`` gets each socket before that, so that another thread can end the wait."""
        patience = self.patience()
        address, port = self._endpoint.address, self._endpoint.port
        try:
            for family, kind, protocol, _, place in socket.getaddrinfo(
                address, port, type=socket.SOCK_STREAM
            ):
                try:
                    sock = socket.socket(family, kind, protocol)
                    self.sockets.append(sock)
                    hold(sock)
                    sock.settimeout(self.patience())
                    sock.connect(place)
                    return
                except OSError as error:
                    refused = error
            raise refused
        except TimeoutError:
            reason, hint = (
                f"did not answer within {patience:.3g} s",
                "is it switched on, and on this network?",
            )
        except socket.gaierror as error:
            reason, hint = f"cannot be found: {error.strerror}", "is its address right in the rack file?"
        except OSError as error:
            reason = f"cannot be reached: {error.strerror or error}"
            hint = "is it switched on, and does sshd run there?"
        raise nothing_done("timeout", f"{address}:{port} {reason}", hint)

    def enter(self, pinned: Mapping[str, str], key: paramiko.PKey) -> None:
        """Have the host prove its key, then log in."""
        try:
            self._transport = nodelay_transport(
                self.sockets[-1], disabled_algorithms=dict(self._endpoint.disabled_algorithms)
            )
        except OSError as error:
            raise HostError(self._no_ssh(error.strerror or "")) from None
        self._transport.set_log_channel(LOG)
        self._handshake(self._transport, pinned)
        self._authenticate(self._transport, key)

    def _no_ssh(self, why: str) -> Failure:
        place = f"{self._endpoint.address}:{self._endpoint.port}"
        return Failure(
            "frozen",
            f"{place} accepts connections but does not speak SSH: {why or 'it closed the connection'}",
            "is its sshd frozen, or is something else on that port?",
            unreachable=True,
        )

    def _handshake(self, transport: paramiko.Transport, pinned: Mapping[str, str]) -> None:
        endpoint, patience = self._endpoint, self.patience()
        transport.banner_timeout = transport.auth_timeout = patience
        offered: list[str] = []
        for keytype in pinned:
            offered.extend(_RSA_SIGNATURES if keytype == "ssh-rsa" else (keytype,))
        try:
            options = transport.get_security_options()
            options.key_types = [kind for kind in options.key_types if kind in offered]
            transport.start_client(timeout=patience)
            if not transport.initial_kex_done:
                raise paramiko.SSHException(f"it said nothing for {patience:.3g} s")
            shown = transport.get_remote_server_key()
        except IncompatiblePeer as error:
            if "host key" in str(error):
                raise HostError(_changed(endpoint)) from None
            reason = f"{endpoint.address} and labctl have no algorithm in common ({error})"
            raise nothing_done("frozen", reason, "update the host's sshd") from None
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise HostError(self._no_ssh(str(error))) from None
        if pinned.get(shown.get_name()) != shown.get_base64():
            raise HostError(_changed(endpoint))

    def _authenticate(self, transport: paramiko.Transport, key: paramiko.PKey) -> None:
        endpoint = self._endpoint
        transport.auth_timeout = self.patience()
        try:
            transport.auth_publickey(endpoint.user, key)
        except paramiko.AuthenticationException as error:
            if "timeout" in str(error).lower():
                reason = f"{endpoint.address} did not finish the log-in within {transport.auth_timeout:.3g} s"
                raise nothing_done("frozen", reason) from None
            raise nothing_done(
                "auth",
                f"{endpoint.address} refuses user {endpoint.user} with the key {endpoint.key}",
                f"ssh-copy-id -i {endpoint.key}.pub {endpoint.user}@{endpoint.address},"
                " or correct Ssh(user=...)",
            ) from None
        except (paramiko.SSHException, EOFError, OSError) as error:
            reason = f"{endpoint.address} broke off the log-in: {error or 'it closed the connection'}"
            raise nothing_done("frozen", reason) from None

    def session(self) -> paramiko.Channel:
        """Return the connection's only session."""
        assert self._transport is not None
        try:
            return self._transport.open_session(timeout=self.patience())
        except (paramiko.SSHException, EOFError, OSError) as error:
            reason = f"its sshd opens no session: {str(error) or 'it closed the connection'}"
            raise nothing_done("no-shell", reason, "what says journalctl -u ssh there?") from None

    def close(self) -> None:
        """End the connection at once; paramiko's own thread would otherwise look for it every 0.1 s."""
        for sock in self.sockets:
            shut(sock)
        if self._transport is not None:
            self._transport.close()
        for sock in self.sockets:
            sock.close()


def nothing_done(code: str, reason: str, hint: str = "") -> HostError:
    """Return the failure of a host on which nothing was done."""
    return HostError(Failure(code, reason, hint, unreachable=True))


def shut(sock: socket.socket) -> None:
    """End a connection both ways."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is closed already


def ended(channel: paramiko.Channel) -> bool:
    """Return whether the command ended (a signal ended it), rather than the connection to it."""
    transport = channel.get_transport()
    return transport is not None and transport.is_active()


def command(argv: Sequence[str], *, become: bool) -> str:
    """Return the words as sshd's shell reads them back."""
    words = (*_PLAIN, "sudo", "-H", "-n", "--", *argv) if become else (*_PLAIN, *argv)
    return shlex.join(words)


def _changed(endpoint: Endpoint) -> Failure:
    return Failure(
        "host-key",
        f"{endpoint.address} does not prove the host key that is pinned in {endpoint.known_hosts};"
        " it was reinstalled, or someone stands in between. Nothing was sent to it",
        f"compare the fingerprint on its console, then: labctl enroll {endpoint.name} --replace"
        " --fingerprint ...",
        unreachable=True,
    )


def read_private_key(path: Path) -> paramiko.PKey:
    """Return the private key; raise ``HostError`` if there is none that may be used."""
    reason, hint = "", ""
    try:
        status = path.stat()
        if status.st_mode & 0o077 and status.st_uid == os.getuid():
            reason, hint = f"others may read the private key {path}", f"chmod 600 {shlex.quote(str(path))}"
        else:
            return paramiko.PKey.from_path(path)
    except FileNotFoundError:
        reason, hint = f"the private key {path} does not exist", "create it, or correct Ssh(key=...)"
    except OSError as error:
        reason = f"the private key {path} cannot be read: {error.strerror or error}"
    except (paramiko.SSHException, ValueError, TypeError) as error:
        # Each format and library has an exception of its own for this.
        if isinstance(error, paramiko.PasswordRequiredException) or "password" in str(error).lower():
            reason, hint = f"the private key {path} asks for a passphrase", "use a key without one"
        else:
            reason = f"{path} is no private key that labctl can read"
            hint = "make one with: ssh-keygen -t ed25519, and name the file without .pub in Ssh(key=...)"
    raise nothing_done("auth", reason, hint)
