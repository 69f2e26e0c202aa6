"""Hosts that are processes of this machine: the real program, with a folder of its own for each host.

Paths are the same on every host of a rack, so what is said to a host gets the host's own folder put in front
of /srv, and what it says gets it taken away. The network between them is loopback, with real sockets.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from labctl.domain.failures import Failure, HostError
from labctl.inventory import LoadedRack, Rack
from labctl.weights import program

OFF = Failure("timeout", "10.0.0.9:22 did not answer within 10 s", "is it switched on?", unreachable=True)


class LocalConversation:
    """One program on one such host."""

    peer = "127.0.0.1"

    def __init__(self, host: str, root: Path, heard: Callable[[str, dict[str, Any]], None]) -> None:
        self.host, self.root, self._heard = host, root, heard
        root.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, *program.ARGV[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def send(self, data: bytes) -> None:
        if data == program.preamble():
            data = at_home(data, self.root)
        else:
            for word in (b'"/srv', b'"file:///srv'):
                data = data.replace(word, word[:-4] + f"{self.root}/srv".encode())
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except (OSError, ValueError):
            raise HostError(Failure("connection-lost", "the connection ended")) from None

    def finish(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def lines(self) -> Iterator[bytes]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            plain = line.replace(str(self.root).encode(), b"").rstrip(b"\n")
            self._heard(self.host, json.loads(plain))
            yield plain
        if self.process.wait():
            raise HostError(Failure("connection-lost", "the connection ended"))

    def close(self) -> None:
        for stream in (self.process.stdin,):
            try:
                assert stream is not None
                stream.close()
            except OSError:
                continue
        self.process.wait(10)


def at_home(preamble: bytes, root: Path) -> bytes:
    """Return the program with its stamps below ``root``."""
    _, _, content = preamble.partition(b"\n")
    moved = content.replace(b"/var/lib/labctl/verified", f"{root}/verified".encode())
    return f"{len(moved)}\n".encode() + moved


class LocalHosts:
    """The port ``Talker``; ``on_event`` sees everything that hosts say, before anybody else does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.talks: dict[str, LocalConversation] = {}
        self.off: set[str] = set()
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.on_event: Callable[[str, dict[str, Any]], None] = lambda host, said: None

    def talk(
        self, host: str, data: Mapping[str, Any], argv: Sequence[str], *, root: bool
    ) -> LocalConversation:
        assert tuple(argv) == program.ARGV and root
        if host in self.off:
            raise HostError(OFF)
        self.talks[host] = LocalConversation(host, self.folder / host, self._hear)
        return self.talks[host]

    def _hear(self, host: str, said: dict[str, Any]) -> None:
        self.said.append((host, said))
        self.on_event(host, said)

    def stop(self) -> None:
        for talk in self.talks.values():
            if talk.process.poll() is None:
                talk.close()
            for stream in (talk.process.stdout, talk.process.stderr):
                if stream is not None:
                    stream.close()

    def kill(self, host: str) -> None:
        """Take a host off the net in the middle of things."""
        self.off.add(host)
        self.talks[host].process.kill()

    def path(self, host: str, path: str) -> Path:
        """Return where a path of that host lies here."""
        return self.folder / host / path.lstrip("/")

    def write(self, host: str, path: str, content: bytes) -> Path:
        """Put a file onto a host, as its admin would."""
        place = self.path(host, path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return place

    def events(self, host: str, event: str) -> list[dict[str, Any]]:
        """Return what a host said of that kind."""
        return [said for who, said in list(self.said) if who == host and said["event"] == event]


class Hub(ThreadingHTTPServer):
    """Where models come from; counts what leaves it, and can be told to misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.lengths = True
        self.cut_after: list[int] = []
        self.hold_at: int | None = None
        self.go_on = threading.Event()
        self.redirect: dict[str, str] = {}
        self.sent = 0
        self.asked: list[tuple[str, str, str]] = []
        self._guard = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Answer)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def count(self, sent: int) -> None:
        with self._guard:
            self.sent += sent

    def end(self) -> None:
        self.go_on.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        hub, asked = self.server, self.headers.get("Range", "")
        hub.asked.append((self.path, asked, self.headers.get("Authorization", "")))
        if target := hub.redirect.get(self.path):
            self.send_response(302)
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = hub.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and hub.ranges else 0
        body = content[start:]
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if hub.lengths:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if hub.cut_after:
            body = body[: hub.cut_after.pop(0)]
        self.close_connection = True
        try:
            for at in range(0, len(body), 65536):
                if hub.hold_at is not None and start + at >= hub.hold_at:
                    self.wfile.flush()
                    hub.go_on.wait(30)
                self.wfile.write(body[at : at + 65536])
                hub.count(len(body[at : at + 65536]))
        except OSError:
            return

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def loaded(rack: Rack, folder: Path) -> LoadedRack:
    """Return a rack as the loader gives it, for hosts that are never really connected to."""
    return LoadedRack(rack, folder / "rack.py", {}, {host.name: {} for host in rack.hosts})


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
