"""What this host hands on, and the short-lived server that does so.

The server listens on the addresses that it was given and nowhere else, for as long as the program runs. It
hands on nothing but parts of the files of this run, to nobody but the hosts of this run, and only to those
who show the run's key. A part that is still on its way is waited for. The sha256 of a part follows its bytes,
so that whoever receives it knows at once whether they are right. Where the digests of a file are not known
yet, they are computed while its parts go out: no file is read just to know them.
"""

from __future__ import annotations

import hashlib
import hmac
import http.server
import os
import socket
import threading
from collections.abc import Iterable
from typing import Any

from labctl.domain import parts

CHUNK = 1 << 20
DIGEST_BYTES = 32
PATIENCE_S = 10.0
"""How long a request waits for a part that is not there yet."""
_SILENCE_S = 30.0
_MOST_AT_ONCE = 16


class Held:
    """A file that is handed on: all of it, or one that still grows."""

    def __init__(self, descriptor: int, size: int, digests: Iterable[bytes], *, whole: bool) -> None:
        self.descriptor, self.size, self.whole = descriptor, size, whole
        self.digests: dict[int, bytes] = dict(enumerate(digests))
        self.there = parts.count(size) if whole else len(self.digests)


class Shelf:
    """The files that this host hands on, by their sha256; counts the bytes that it ``sent``."""

    def __init__(self) -> None:
        self.sent = 0
        self._news = threading.Condition()
        self._held: dict[str, Held] = {}

    def put(self, sha256: str, held: Held) -> None:
        """Hand on this file; one that stood there under the same sha256 is replaced."""
        with self._news:
            self._held[sha256] = held
            self._news.notify_all()

    def grew(self, sha256: str, digest: bytes) -> None:
        """One more part of a growing file may be handed on."""
        with self._news:
            held = self._held[sha256]
            held.digests[held.there] = digest
            held.there += 1
            self._news.notify_all()

    def take_away(self, sha256: str) -> None:
        """Hand on nothing of a file any more."""
        with self._news:
            self._held.pop(sha256, None)
            self._news.notify_all()

    def wait_for(self, sha256: str, index: int, patience_s: float) -> Held | None:
        """Return the file once that part is there; None where it did not come in time.

        A file that is not here yet is waited for as well: its host may be about to begin.

        Raises:
            KeyError: this host does not hand on that file, or it has no such part.
        """

        def decided() -> bool:
            held = self._held.get(sha256)
            return held is not None and not held.there <= index < parts.count(held.size)

        with self._news:
            self._news.wait_for(decided, timeout=patience_s)
            held = self._held[sha256]
            if not 0 <= index < parts.count(held.size):
                raise KeyError(index)
            return held if held.there > index else None

    def count(self, sent: int) -> None:
        """Count bytes that went out."""
        with self._news:
            self.sent += sent


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers ``GET /SHA256/INDEX`` with the bytes of a part and the 32 bytes of its sha256."""

    protocol_version = "HTTP/1.1"
    server_version = "labctl"
    sys_version = ""
    timeout = _SILENCE_S
    server: Server

    def do_GET(self) -> None:
        """Answer one request."""
        shown = self.headers.get("Authorization", "")
        if not hmac.compare_digest(shown.encode(), f"Bearer {self.server.key}".encode()):
            self._say(403)
            return
        try:
            _, sha256, number = self.path.split("/")
            index = int(number)
            held = self.server.shelf.wait_for(sha256, index, PATIENCE_S)
        except (KeyError, ValueError):
            self._say(404)
            return
        if held is None:
            self._say(503)
            return
        start, length = parts.bounds(held.size, index)
        self.send_response(200)
        self.send_header("Content-Length", str(length + DIGEST_BYTES))
        self.end_headers()
        self._hand_out(held, index, start, length)

    def _hand_out(self, held: Held, index: int, start: int, length: int) -> None:
        digest = held.digests.get(index)
        running = hashlib.sha256()
        try:
            for offset in range(start, start + length, CHUNK):
                chunk = os.pread(held.descriptor, min(CHUNK, start + length - offset), offset)
                if not chunk:
                    self.close_connection = True
                    return
                if digest is None:
                    running.update(chunk)
                self.wfile.write(chunk)
                self.server.shelf.count(len(chunk))
            held.digests[index] = digest if digest is not None else running.digest()
            self.wfile.write(held.digests[index])
        except OSError:
            self.close_connection = True  # whoever asked went away, or our disk failed: it will be noticed

    def _say(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: standard error is the operator's."""


class Server(http.server.ThreadingHTTPServer):
    """Hands on a shelf at one address, to those who come from ``guests`` and show the key."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: str, shelf: Shelf, key: str, guests: frozenset[str]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.shelf, self.key, self._guests = shelf, key, guests
        self._slots = threading.BoundedSemaphore(_MOST_AT_ONCE)
        super().__init__((address, 0), Handler)

    @property
    def port(self) -> int:
        """Return the TCP port that the kernel gave."""
        return int(self.server_address[1])

    def server_bind(self) -> None:
        """Bind, without asking name servers who we are."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.port

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Turn away strangers, and whoever comes while all places are taken."""
        return str(client_address[0]).removeprefix("::ffff:") in self._guests and self._slots.acquire(
            blocking=False
        )

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer on one connection, then free its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of those who went away."""
