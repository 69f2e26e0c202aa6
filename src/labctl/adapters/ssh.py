"""Run one command on a host over SSH, strictly, and be done with it.

The rule: a host proves one of the keys that ``known_hosts`` pins for it, or nothing is sent, not even the
user name. Only the key types that are pinned are offered, so a stranger's key of another type cannot slip
in. One connection carries one session: no terminal, no SFTP, no forwarding, no second connection.

One deadline bounds the whole of it, because a frozen sshd accepts connections and then says nothing, and a
command may hang where the host does not. What a command prints is kept up to a bound. When a connection
ends after the command was sent, nobody can know from here whether it was carried out, and that is what the
failure says; before that, it says ``unreachable``, which means that nothing was done.

There are many hosts and one Python: what is the same for all of them (pinned keys, the private key) is read
once, and packets leave without Nagle's delay of 40 ms.
"""

from __future__ import annotations

import logging
import os
import selectors
import shlex
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from labctl.domain import failures
from labctl.domain.failures import Failure, HostError
from labctl.inventory import known_hosts
from labctl.inventory.connect import nodelay_transport
from labctl.ports import Said

MOST_STDOUT = 4 * 1024 * 1024
MOST_STDERR = 64 * 1024
CONNECT_S = 10.0
"""Most seconds for each step until the host has let us in; a longer deadline is for the command."""

_LOG = "labctl.ssh"
_CHUNK = 65536
_RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")
# What commands say is read by us, so they shall say it in one language.
_PLAIN = ("env", "-u", "LANGUAGE", "LC_ALL=C.UTF-8")
_LOOK = "whether it was carried out is unknown; look with: labctl powercap"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and as whom to connect, and the pinned keys by their type."""

    name: str
    address: str
    port: int
    user: str
    key: Path
    known_hosts: Path
    disabled_algorithms: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, data: Mapping[str, Any]) -> Endpoint:
        """Read the endpoint from a host's connection data; raise ``HostError`` unless they are strict."""
        if data.get("ssh_strict_host_key_checking") != "yes" or not data.get("ssh_known_hosts_file"):
            raise _nothing_done(
                "host-key",
                "its data does not ask for strict host key checking",
                "describe the host with labctl.inventory.Host",
            )
        if not data.get("ssh_key"):
            raise _nothing_done("auth", "no ssh_key is set for it", "set Ssh(key=...)")
        more = data.get("ssh_paramiko_connect_kwargs") or {}
        return cls(
            name=name,
            address=str(data.get("ssh_hostname") or name),
            port=int(data.get("ssh_port") or 22),
            user=str(data.get("ssh_user") or "root"),
            key=Path(data["ssh_key"]),
            known_hosts=Path(data["ssh_known_hosts_file"]),
            disabled_algorithms=more.get("disabled_algorithms") or {},
        )


class _StoppedError(Exception):
    """The person stopped everything before this connection began."""


class SshRemote:
    """The port ``Remote`` over paramiko; may be used by many threads at once."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._stopped = False
        self._open: set[socket.socket] = set()
        self._pinned: dict[Path, tuple[known_hosts.KnownHost, ...]] = {}
        self._keys: dict[Path, paramiko.PKey] = {}
        # paramiko logs tracebacks; without a handler they would reach stderr.
        logging.getLogger(_LOG).addHandler(logging.NullHandler())
        logging.getLogger(_LOG).propagate = False

    def run(
        self,
        host: str,
        data: Mapping[str, Any],
        argv: Sequence[str],
        *,
        root: bool,
        stdin: bytes,
        deadline_s: float,
    ) -> Said:
        """Run ``argv`` on a host and return what it said; see ``ports.Remote.run``."""
        endpoint = Endpoint.of(host, data)
        call = _Call(endpoint, deadline_s)
        try:
            with self._guard:
                pinned = self._pinned_for(endpoint)
                key = self._private_key(endpoint.key)
            call.dial(self._hold)
            call.enter(pinned, key)
            return call.run(_command(argv, become=root and endpoint.user != "root"), stdin)
        except (HostError, _StoppedError):
            if self._stopped:
                raise HostError(call.interrupted()) from None
            raise
        finally:
            with self._guard:
                self._open.difference_update(call.sockets)
            call.close()

    def _hold(self, sock: socket.socket) -> None:
        """Take note of a socket before it connects; raise once everything is being stopped."""
        with self._guard:
            if self._stopped:
                raise _StoppedError
            self._open.add(sock)

    def stop(self) -> None:
        """Close every connection, and let no new one do anything."""
        with self._guard:
            self._stopped = True
            for sock in self._open:
                _shut(sock)

    def _pinned_for(self, endpoint: Endpoint) -> Mapping[str, str]:
        if endpoint.known_hosts not in self._pinned:
            self._pinned[endpoint.known_hosts] = known_hosts.load(endpoint.known_hosts)
        found = known_hosts.lookup(self._pinned[endpoint.known_hosts], endpoint.address, endpoint.port)
        if not found:
            raise _nothing_done(
                "host-key", f"{endpoint.address} has no pinned host key", f"labctl enroll {endpoint.name}"
            )
        return {entry.keytype: entry.key_b64 for entry in found}

    def _private_key(self, path: Path) -> paramiko.PKey:
        if path not in self._keys:
            self._keys[path] = _read_private_key(path)
        return self._keys[path]


class _Call:
    """One command on one host, from the first packet to the last."""

    def __init__(self, endpoint: Endpoint, deadline_s: float) -> None:
        self._endpoint = endpoint
        self._deadline_s = deadline_s
        self._until = time.monotonic() + deadline_s
        self.sockets: list[socket.socket] = []
        self._transport: paramiko.Transport | None = None
        self._sent = False

    def _left(self) -> float:
        return max(0.001, self._until - time.monotonic())

    def _patience(self) -> float:
        return min(CONNECT_S, self._left())

    def dial(self, hold: Callable[[socket.socket], None]) -> None:
        """Connect; ``hold`` gets each socket before that, so that another thread can end the wait."""
        patience = self._patience()
        address, port = self._endpoint.address, self._endpoint.port
        try:
            for family, kind, protocol, _, place in socket.getaddrinfo(
                address, port, type=socket.SOCK_STREAM
            ):
                try:
                    sock = socket.socket(family, kind, protocol)
                    self.sockets.append(sock)
                    hold(sock)
                    sock.settimeout(self._patience())
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
        raise _nothing_done("timeout", f"{address}:{port} {reason}", hint)

    def enter(self, pinned: Mapping[str, str], key: paramiko.PKey) -> None:
        """Have the host prove its key, then log in."""
        try:
            self._transport = nodelay_transport(
                self.sockets[-1], disabled_algorithms=dict(self._endpoint.disabled_algorithms)
            )
        except OSError as error:
            raise HostError(self._no_ssh(error.strerror or "")) from None
        self._transport.set_log_channel(_LOG)
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
        endpoint, patience = self._endpoint, self._patience()
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
            raise _nothing_done("frozen", reason, "update the host's sshd") from None
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise HostError(self._no_ssh(str(error))) from None
        if pinned.get(shown.get_name()) != shown.get_base64():
            raise HostError(_changed(endpoint))

    def _authenticate(self, transport: paramiko.Transport, key: paramiko.PKey) -> None:
        endpoint = self._endpoint
        transport.auth_timeout = self._patience()
        try:
            transport.auth_publickey(endpoint.user, key)
        except paramiko.AuthenticationException as error:
            if "timeout" in str(error).lower():
                reason = f"{endpoint.address} did not finish the log-in within {transport.auth_timeout:.3g} s"
                raise _nothing_done("frozen", reason) from None
            raise _nothing_done(
                "auth",
                f"{endpoint.address} refuses user {endpoint.user} with the key {endpoint.key}",
                f"ssh-copy-id -i {endpoint.key}.pub {endpoint.user}@{endpoint.address},"
                " or correct Ssh(user=...)",
            ) from None
        except (paramiko.SSHException, EOFError, OSError) as error:
            reason = f"{endpoint.address} broke off the log-in: {error or 'it closed the connection'}"
            raise _nothing_done("frozen", reason) from None

    def run(self, command: str, stdin: bytes) -> Said:
        """Run the command in the connection's only session."""
        assert self._transport is not None
        try:
            channel = self._transport.open_session(timeout=self._patience())
        except (paramiko.SSHException, EOFError, OSError) as error:
            reason = f"its sshd opens no session: {str(error) or 'it closed the connection'}"
            raise _nothing_done("no-shell", reason, "what says journalctl -u ssh there?") from None
        try:
            channel.settimeout(self._left())
            self._sent = True
            channel.exec_command(command)
            if stdin:
                channel.sendall(stdin)
            channel.shutdown_write()
            said = self._listen(channel)
        except TimeoutError:
            raise HostError(self._late()) from None
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise HostError(self._lost(str(error))) from None
        if said.status and (known := failures.of_output(said.stderr)) and known.code == "no-sudo":
            raise HostError(known)
        return said

    def _listen(self, channel: paramiko.Channel) -> Said:
        """Read both streams until they end, then the exit status."""
        out, err = bytearray(), bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(channel, selectors.EVENT_READ)
            while True:
                if not selector.select(self._left()) or time.monotonic() > self._until:
                    raise TimeoutError
                while channel.recv_ready():
                    out += channel.recv(_CHUNK)
                while channel.recv_stderr_ready():
                    err += channel.recv_stderr(_CHUNK)
                    del err[MOST_STDERR:]
                if len(out) > MOST_STDOUT:
                    reason = f"it printed more than {MOST_STDOUT >> 20} MiB and was cut off"
                    raise HostError(Failure("op-failed", reason))
                more = channel.recv_ready() or channel.recv_stderr_ready()
                if (channel.eof_received or channel.closed) and not more:
                    break
        if not channel.status_event.wait(self._left()):
            raise TimeoutError
        if not channel.exit_status_ready() or (channel.exit_status == -1 and not _ended(channel)):
            raise EOFError
        took = time.monotonic() - self._until + self._deadline_s
        return Said(channel.exit_status, bytes(out), err.decode("utf-8", "replace"), took)

    def _late(self) -> Failure:
        reason = f"it did not answer within {self._deadline_s:.3g} s; {_LOOK}"
        return Failure("timeout", reason, "does a card hang there?")

    def _lost(self, why: str) -> Failure:
        told = f" ({why})" if why else ""
        return Failure("connection-lost", f"the connection ended before the answer{told}; {_LOOK}")

    def interrupted(self) -> Failure:
        """Return what to say of this host when the person stopped everything."""
        if self._sent:
            return Failure("interrupted", f"it was asked, and its answer not awaited; {_LOOK}")
        return Failure("interrupted", "it was not asked any more", unreachable=True)

    def close(self) -> None:
        """End the connection at once; paramiko's own thread would otherwise look for it every 0.1 s."""
        for sock in self.sockets:
            _shut(sock)
        if self._transport is not None:
            self._transport.close()
        for sock in self.sockets:
            sock.close()


def _nothing_done(code: str, reason: str, hint: str = "") -> HostError:
    return HostError(Failure(code, reason, hint, unreachable=True))


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is closed already


def _ended(channel: paramiko.Channel) -> bool:
    """Return whether the command ended (a signal ended it), rather than the connection to it."""
    transport = channel.get_transport()
    return transport is not None and transport.is_active()


def _command(argv: Sequence[str], *, become: bool) -> str:
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


def _read_private_key(path: Path) -> paramiko.PKey:
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
    raise _nothing_done("auth", reason, hint)
