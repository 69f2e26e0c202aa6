"""Loopback SSH hosts that let one key in and run what they are asked for, or misbehave as real ones do."""

from __future__ import annotations

import io
import logging
import os
import socket
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

logging.getLogger("loopback").addHandler(logging.NullHandler())
logging.getLogger("loopback").propagate = False

SUDO = '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done; shift; AS_ROOT=yes exec "$@"\n'
NO_SUDO = '#!/bin/sh\necho "sudo: a password is required" >&2; exit 1\n'


def private_text() -> str:
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def host_key() -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key(io.StringIO(private_text()))


@dataclass
class LoopbackHost(paramiko.ServerInterface):
    """One listening sshd. ``manner``: well, silent, hangs-up (at log-in), cuts (after the command came)."""

    listener: socket.socket
    key: paramiko.PKey
    authorized: str
    path: Path
    manner: str = "well"
    connections: int = 0
    left: int = 0
    commands: list[str] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def serve(self) -> None:
        """Accept until the listener is closed."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            talk = threading.Thread(target=self._talk, args=(connection,), daemon=True)
            # Only then into the list: whoever stops the host waits for all that are in it.
            talk.start()
            self.threads.append(talk)

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            if self.manner == "silent":
                self.stopping.wait()
                return
            transport = paramiko.Transport(connection)
            transport.set_log_channel("loopback")
            transport.add_server_key(self.key)
            try:
                transport.start_server(server=_Door(self, transport))
            except (paramiko.SSHException, EOFError, OSError):
                return
            while transport.is_active() and not self.stopping.wait(0.02):
                continue
            transport.close()
            self.left += 1

    def run(self, channel: paramiko.Channel, command: str) -> None:
        try:
            env = {"PATH": f"{self.path}:{os.environ['PATH']}", "HOME": "/", "PORT": str(self.port)}
            stdin = channel.makefile("rb").read()
            done = subprocess.run(
                ["sh", "-c", command], input=stdin, capture_output=True, env=env, check=False
            )
            channel.sendall(done.stdout)
            channel.sendall_stderr(done.stderr)
            channel.send_exit_status(done.returncode)
            channel.close()
        except (OSError, EOFError, paramiko.SSHException):
            return  # whoever asked went away


class _Door(paramiko.ServerInterface):
    def __init__(self, host: LoopbackHost, transport: paramiko.Transport) -> None:
        self._host, self._transport = host, transport

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        if self._host.manner == "hangs-up":
            self._transport.close()
        known = key.get_base64() == self._host.authorized and username == "admin"
        return paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self._host.commands.append(command.decode())
        if self._host.manner == "cuts":
            threading.Timer(0.1, self._transport.close).start()
            return True
        worker = threading.Thread(target=self._host.run, args=(channel, command.decode()), daemon=True)
        worker.start()
        self._host.threads.append(worker)
        return True


@dataclass
class Lan:
    """A folder with keys and known_hosts, and the hosts that were started."""

    folder: Path
    hosts: list[LoopbackHost] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key = self.folder / "operator"
        self.key.write_text(private_text())
        self.key.chmod(0o600)
        self.known_hosts = self.folder / "known_hosts"
        self.known_hosts.touch()
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        self.sudo(SUDO)

    def sudo(self, script: str) -> None:
        """Let every host's sudo be this script."""
        (self.bin / "sudo").write_text(script)
        (self.bin / "sudo").chmod(0o755)

    def start(
        self, manner: str = "well", pinned: paramiko.PKey | None = None, address: str = "127.0.0.1"
    ) -> dict[str, Any]:
        """Start a host and return its connection data, as a rack would give them."""
        authorized = paramiko.PKey.from_path(self.key).get_base64()
        host = LoopbackHost(socket.create_server((address, 0)), host_key(), authorized, self.bin, manner)
        self.hosts.append(host)
        self.pin(host.port, pinned or host.key, address)
        threading.Thread(target=host.serve, daemon=True).start()
        return self.data(host.port)

    def pin(self, port: int, key: paramiko.PKey, address: str = "127.0.0.1") -> None:
        with self.known_hosts.open("a") as stream:
            stream.write(f"[{address}]:{port} {key.get_name()} {key.get_base64()}\n")

    def data(self, port: int, user: str = "admin") -> dict[str, Any]:
        return {
            "ssh_hostname": "127.0.0.1",
            "ssh_port": port,
            "ssh_user": user,
            "ssh_key": str(self.key),
            "ssh_known_hosts_file": str(self.known_hosts),
            "ssh_strict_host_key_checking": "yes",
        }

    def stop(self) -> None:
        for host in self.hosts:
            host.stopping.set()
            host.listener.shutdown(socket.SHUT_RDWR)
            host.listener.close()
            for thread in host.threads:
                thread.join(10)
