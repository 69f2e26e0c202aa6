"""Fixtures: host keys made once, loopback servers that end with the test, racks in a temporary directory."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fake_sshd import Keys, Listen, MakeRack, Manners, RackDir, Server, make_key


@pytest.fixture(scope="session")
def keys() -> Keys:
    kinds = ("ed25519", "ecdsa", "rsa")
    return Keys({kind: make_key(kind) for kind in kinds}, {kind: make_key(kind) for kind in kinds})


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Start servers: ``listen(manners, address="127.0.0.2", port=0)``; all end with the test."""
    with ExitStack() as stack:

        def start(manners: Manners, address: str = "127.0.0.1", port: int = 0) -> Server:
            listener = socket.create_server((address, port), backlog=64)
            server = Server(address, listener.getsockname()[1])
            workers: list[threading.Thread] = []

            def one(connection: socket.socket) -> None:
                with connection:
                    manners(connection, server)

            def accept() -> None:
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    server.connections += 1
                    workers.append(threading.Thread(target=one, args=(connection,), daemon=True))
                    workers[-1].start()

            accepting = threading.Thread(target=accept, daemon=True)
            accepting.start()

            def stop() -> None:
                server.stopping.set()
                listener.shutdown(socket.SHUT_RDWR)
                listener.close()
                for thread in (accepting, *workers):
                    thread.join(10)

            stack.callback(stop)
            return server

        yield start


@pytest.fixture
def make_rack(tmp_path: Path) -> MakeRack:
    """Write a rack: ``make_rack(name=server, ...)``."""

    def make(**servers: Server) -> RackDir:
        hosts = [
            f"Host(name={name!r}, address={server.address!r}, ssh=Ssh(user='admin', port={server.port}))"
            for name, server in servers.items()
        ]
        folder = tmp_path / "inventory"
        folder.mkdir(exist_ok=True)
        (folder / "rack.py").write_text(
            "from labctl.inventory import Host, Rack, Ssh\n"
            f"rack = Rack(name='test', hosts=[{', '.join(hosts)}])\n"
            "globals().update(rack.groups())\n"
        )
        return RackDir(folder / "rack.py")

    return make
