"""Ask an engine of this host over HTTP, and order it to do something: a deadline, and a bounded answer.

http.client would load a megabyte of modules for a process that asks two questions.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any, NamedTuple

from .host import text

_ANSWER_AT_MOST = 1 << 20


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Return the body's value, None where it is no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class Unanswered(Exception):
    """There was no whole answer, and why."""


def ask(
    url: str, path: str, *, key_file: str | None, root: Path, body: Any = None, within_s: float = 5.0
) -> Answer:
    """Ask a server; with a ``body`` by POST.

    Args:
        url: such as ``http://127.0.0.1:8080``, without a path.
        path: what is asked for.
        key_file: file with the key that it wants, if it wants one.
        root: where the host's file system begins.
        body: JSON to send.
        within_s: seconds for all of it.

    Raises:
        Unanswered: it said nothing, too much, or no HTTP.
    """
    host, port = _address(url)
    content = b"" if body is None else json.dumps(body).encode()
    words = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.0", f"Host: {host}:{port}"]
    words += ["Connection: close", *_key(key_file, root)]
    if body is not None:
        words += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    until = time.monotonic() + within_s
    try:
        data = _exchange((host, port), "\r\n".join([*words, "", ""]).encode() + content, until)
        head, _, answer = data.partition(b"\r\n\r\n")
        version, status, *_ = head.split(b" ", 2)
        if not version.startswith(b"HTTP/1."):
            raise Unanswered(f"{url}{path}: what answers there does not speak HTTP")
        return Answer(int(status), answer)
    except (OSError, ValueError) as error:
        raise Unanswered(f"{url}{path}: {error}") from None


def _address(url: str) -> tuple[str, int]:
    scheme, _, place = url.rstrip("/").partition("://")
    host, _, port = place.rpartition(":")
    if scheme != "http" or not host or not port.isascii() or not port.isdigit():
        raise Unanswered(f"{url!r} is no address such as http://127.0.0.1:8080")
    return host.strip("[]"), int(port)


def _key(key_file: str | None, root: Path) -> list[str]:
    if key_file is None:
        return []
    key = text(root / key_file.lstrip("/"))
    if not key:
        raise Unanswered(f"the key in {key_file} cannot be read")
    return [f"Authorization: Bearer {key.split()[0]}"]  # more lines would be more headers


def _exchange(address: tuple[str, int], request: bytes, until: float) -> bytes:
    data = b""
    with socket.create_connection(address, timeout=max(0.01, until - time.monotonic())) as connection:
        connection.sendall(request)
        while True:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("no whole answer in time")
            connection.settimeout(left)
            piece = connection.recv(1 << 16)
            if not piece:
                return data
            data += piece
            if len(data) > _ANSWER_AT_MOST:
                raise ValueError("the answer is too long")
