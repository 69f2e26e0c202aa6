"""Who connects and says little keeps nobody else out."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from labctl.web import guard, patience
from web_kit import Rack, served

WHOLE = b"GET /assets/icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n"
FORM = (
    b"POST /session HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nContent-Length: 99\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\nkey="
)


def connected(address: str) -> socket.socket:
    # Its own limit fails a test in which the other side never ends.
    return socket.create_connection(("127.0.0.1", urlsplit(address).port or 0), timeout=20)


def heard(sock: socket.socket, until: bytes) -> bytes:
    """Return what is said up to a sign, or to the end."""
    said = b""
    while until not in said and (part := sock.recv(65536)):
        said += part
    return said


def test_a_connection_that_never_asks_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HEAD_S", 0.1)
    monkeypatch.setattr(guard, "FORM_S", 0.1)
    with served(tmp_path, Rack()) as address:
        for begun in (b"", b"GET / HTTP/1.1\r\nHost: local"):
            with connected(address) as sock:
                sock.sendall(begun)
                assert heard(sock, b"never") == b""
        with connected(address) as sock:
            sock.sendall(WHOLE)
            assert heard(sock, b"</svg>").startswith(b"HTTP/1.1 200 ")
            sock.sendall(b"GET / HT")
            assert heard(sock, b"never") == b""
        with connected(address) as sock:
            sock.sendall(FORM)
            assert heard(sock, b"in time").startswith(b"HTTP/1.1 408 ")


def test_one_address_has_only_so_many_connections_unless_it_is_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "MOST_OF_ONE", 2)
    with served(tmp_path, Rack()) as address:
        others = [connected(address) for _ in range(3)]
        try:
            others[-1].sendall(WHOLE)
            assert heard(others[-1], b"</svg>").startswith(b"HTTP/1.1 200 ")
            monkeypatch.setattr(patience, "_is_near", lambda address: False)
            with connected(address) as sock:
                assert heard(sock, b"never") == b""
        finally:
            for one in others:
                one.close()
