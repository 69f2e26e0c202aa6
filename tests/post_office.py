"""Receivers on loopback: ntfy with its memory, webhooks, a ping, and a server that takes mail."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Got:
    """What arrived; ``status`` is the answer to what comes next, ``deaf``: there is none after reading."""

    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    status: int = 200
    deaf: bool = False
    shown: bytes = b""
    address: str = ""

    @property
    def documents(self) -> list[Any]:
        return [json.loads(body) for method, _, _, body in self.requests if method == "POST"]


@contextmanager
def web() -> Iterator[Got]:
    """Serve HTTP on loopback until the block ends."""
    got = Got()

    class Handler(BaseHTTPRequestHandler):
        def _take(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            got.requests.append((self.command, self.path, headers, body))
            if got.deaf:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            answer = got.shown if self.command == "GET" else b"ok"
            self.send_response(got.status)
            if got.status == 302:
                self.send_header("Location", f"{got.address}/elsewhere")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = _take

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        got.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield got
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Mailbox:
    """What was handed in; ``answers`` replaces answers by their command, "" hangs up instead."""

    letters: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    port: int = 0


@contextmanager
def post_office() -> Iterator[Mailbox]:
    """Take mail on loopback, one connection after the other, until the block ends."""
    box = Mailbox()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        box.port = listener.getsockname()[1]

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(10)
                    _one(box, connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield box
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _one(box: Mailbox, connection: socket.socket) -> None:
    with connection.makefile("rwb", buffering=0) as line:

        def say(command: str, usual: str) -> bool:
            answer = box.answers.get(command, usual)
            if answer:
                line.write(answer.encode() + b"\r\n")
            return bool(answer)

        say("greeting", "220 here")
        while said := line.readline().decode().strip():
            box.said.append(said)
            command = said.split()[0].upper()
            if command == "EHLO":
                say("EHLO", "250-here\r\n250 AUTH PLAIN LOGIN")
            elif command == "DATA":
                if not say("DATA", "354 go on"):
                    return
                if not box.answers.get("DATA", "3").startswith("3"):
                    continue
                text = ""
                while (part := line.readline().decode()) != ".\r\n":
                    text += part
                box.letters.append(text)
                if not say("END", "250 taken"):
                    return
            elif command == "AUTH":
                say("AUTH", "235 welcome")
            elif command == "QUIT":
                say("QUIT", "221 bye")
                return
            elif not say(command, "250 well"):
                return
