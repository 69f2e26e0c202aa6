"""A server on loopback that sends parts of files, counts what it sends, and misbehaves when told to."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass
class Served:
    """What there is to fetch, how the server behaves, and what was asked of it."""

    files: dict[str, Path] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    behave: Callable[[BaseHTTPRequestHandler, bytes, int, int], bool] | None = None
    ranges: bool = True
    url: str = ""
    bytes_sent: int = 0
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served

    def do_GET(self) -> None:
        served = self.served
        path = self.path.partition("?")[0]
        served.requests.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
        if path in served.moved:
            self.send_response(302)
            self.send_header("Location", served.moved[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path not in served.files:
            self.send_error(404)
            return
        size = served.files[path].stat().st_size
        match = _RANGE.fullmatch(self.headers.get("Range", "")) if served.ranges else None
        if match is None:
            self._whole(served.files[path], size)
            return
        start, end = int(match[1]), min(int(match[2]), size - 1)
        with served.files[path].open("rb") as file:
            file.seek(start)
            data = file.read(end - start + 1)
        if served.behave is not None and served.behave(self, data, start, size):
            return
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{size}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self._send(data)

    def _whole(self, path: Path, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        try:
            with path.open("rb") as file:
                while piece := file.read(65536):
                    self._send(piece)
        except OSError:
            self.close_connection = True

    def _send(self, data: bytes) -> None:
        self.served.bytes_sent += len(data)  # before: who got the last byte may look at once
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(files: Mapping[str, Path]) -> Iterator[Served]:
    """Serve files at these paths until the end of the block."""
    served = Served(dict(files))
    handler = type("Handler", (_Handler,), {"served": served})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
