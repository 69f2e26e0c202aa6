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
import selectors
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import paramiko

from labctl.adapters.ssh.connection import (
    CONNECT_S,
    LOG,
    Connection,
    Endpoint,
    ended,
    nothing_done,
    read_private_key,
    shut,
)
from labctl.adapters.ssh.conversation import SshConversation
from labctl.domain import failures
from labctl.domain.failures import Failure, HostError
from labctl.inventory import known_hosts
from labctl.ports import Said

__all__ = ["CONNECT_S", "MOST_STDERR", "MOST_STDOUT", "Endpoint", "SshRemote"]

MOST_STDOUT = 4 * 1024 * 1024
MOST_STDERR = 64 * 1024
_CHUNK = 65536
_ENTER_S = 60.0
_LOOK = "whether it was carried out is unknown; look with: labctl powercap"


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
        logging.getLogger(LOG).addHandler(logging.NullHandler())
        logging.getLogger(LOG).propagate = False

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
            return call.run(endpoint.command(argv, root=root), stdin)
        except (HostError, _StoppedError):
            if self._stopped:
                raise HostError(call.interrupted()) from None
            raise
        finally:
            with self._guard:
                self._open.difference_update(call.sockets)
            call.close()

    def talk(self, host: str, data: Mapping[str, Any], argv: Sequence[str], *, root: bool) -> SshConversation:
        """Start ``argv`` on a host and return the conversation with it; see ``ports.Talker.talk``."""
        endpoint = Endpoint.of(host, data)
        connection = Connection(endpoint, _ENTER_S)

        def forget() -> None:
            with self._guard:
                self._open.difference_update(connection.sockets)

        try:
            with self._guard:
                pinned = self._pinned_for(endpoint)
                key = self._private_key(endpoint.key)
            connection.dial(self._hold)
            connection.enter(pinned, key)
            return SshConversation(connection, endpoint.command(argv, root=root), forget)
        except BaseException as error:
            forget()
            connection.close()
            if isinstance(error, HostError | _StoppedError) and self._stopped:
                stopped = Failure("interrupted", "it was not asked any more", unreachable=True)
                raise HostError(stopped) from None
            if isinstance(error, paramiko.SSHException | EOFError | OSError):
                raise nothing_done("no-shell", f"its sshd starts no program: {error}") from None
            raise

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
                shut(sock)

    def _pinned_for(self, endpoint: Endpoint) -> Mapping[str, str]:
        if endpoint.known_hosts not in self._pinned:
            self._pinned[endpoint.known_hosts] = known_hosts.load(endpoint.known_hosts)
        found = known_hosts.lookup(self._pinned[endpoint.known_hosts], endpoint.address, endpoint.port)
        if not found:
            raise nothing_done(
                "host-key", f"{endpoint.address} has no pinned host key", f"labctl enroll {endpoint.name}"
            )
        return {entry.keytype: entry.key_b64 for entry in found}

    def _private_key(self, path: Path) -> paramiko.PKey:
        if path not in self._keys:
            self._keys[path] = read_private_key(path)
        return self._keys[path]


class _Call(Connection):
    """One command on one host, from the first packet to the last."""

    _sent = False

    def run(self, command: str, stdin: bytes) -> Said:
        """Run the command in the connection's only session."""
        channel = self.session()
        try:
            channel.settimeout(self.left())
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
                if not selector.select(self.left()) or self.late():
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
        if not channel.status_event.wait(self.left()):
            raise TimeoutError
        if not channel.exit_status_ready() or (channel.exit_status == -1 and not ended(channel)):
            raise EOFError
        return Said(channel.exit_status, bytes(out), err.decode("utf-8", "replace"), self.took())

    def _late(self) -> Failure:
        reason = f"it did not answer within {self.deadline_s:.3g} s; {_LOOK}"
        return Failure("timeout", reason, "does a card hang there?")

    def _lost(self, why: str) -> Failure:
        told = f" ({why})" if why else ""
        return Failure("connection-lost", f"the connection ended before the answer{told}; {_LOOK}")

    def interrupted(self) -> Failure:
        """Return what to say of this host when the person stopped everything."""
        if self._sent:
            return Failure("interrupted", f"it was asked, and its answer not awaited; {_LOOK}")
        return Failure("interrupted", "it was not asked any more", unreachable=True)
