"""Devices on loopback, over real sockets: each speaks as its maker documents, and misbehaves when told to."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import secrets
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}


@dataclass
class Reply:
    """What a device says."""

    document: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Device(Protocol):
    """Something that answers."""

    def answer(self, asked: Asked) -> Reply: ...


@dataclass
class Served:
    """A device that can be reached, what it was asked, and how it misbehaves.

    ``fault``: "500", "half" (ends within its answer), "hang" (says nothing), "drip" (a byte now and then, for
    ever), "redirect", "garbage" or "flood".
    """

    port: int
    asked: list[Asked] = field(default_factory=list)
    fault: str = ""
    spare: str = ""  # a path for which there is no fault
    over: threading.Event = field(default_factory=threading.Event)

    def seen(self) -> list[tuple[str, str]]:
        return [(asked.method, asked.target) for asked in self.asked]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    device: Device
    served: Served

    def _all(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, self.rfile.read(length))
        self.served.asked.append(asked)
        if self.served.fault and asked.path != self.served.spare:
            self._misbehave(self.served.fault)
            return
        reply = self.device.answer(asked)
        body = b"" if reply.document is None else json.dumps(reply.document).encode()
        self._say(reply.status, {"Content-Type": "application/json", **reply.headers}, body)

    do_GET = do_POST = do_DELETE = _all

    def _say(self, status: int, headers: dict[str, str], body: bytes, *, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _misbehave(self, fault: str) -> None:
        self.close_connection = True
        if fault == "500":
            self._say(500, {}, b'{"error": {"message": "out of memory"}}')
        elif fault == "half":
            self._say(200, {}, b'{"ison": tr', length=400)
        elif fault == "redirect":
            self._say(302, {"Location": "http://127.0.0.2:1/elsewhere"}, b"")
        elif fault == "garbage":
            self._say(200, {}, b"<html>It works!</html>")
        elif fault == "flood":
            self._say(200, {}, b" " * (3 << 20))
        elif fault == "hang":
            self.served.over.wait()
        elif fault == "drip":
            self.send_response(200)
            while not self.served.over.wait(0.01):
                self.wfile.write(b"X-Still-Here: 1\r\n")

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # who asked has gone
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()

    def send_response(self, code: int, message: str | None = None) -> None:
        super().send_response(code, message)
        self.flush_headers() if self.served.fault == "drip" else None

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _HttpServer(ThreadingHTTPServer):
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is not None:
            try:
                request = self.tls.wrap_socket(request, server_side=True)
            except OSError:
                return  # who asked does not like our certificate
        try:
            super().finish_request(request, client_address)
        finally:
            with contextlib.suppress(OSError):
                request.close()


@contextmanager
def serving(device: Device, *, tls: ssl.SSLContext | None = None) -> Iterator[Served]:
    """Let a device be reached on loopback until the end of the block."""
    handler = type("Handler", (_Handler,), {"device": device})
    with _HttpServer(("127.0.0.1", 0), handler) as server:
        server.tls = tls
        served = handler.served = Served(server.server_port)  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            served.over.set()
            server.shutdown()
            thread.join()


@dataclass
class Shelly1:
    """A Shelly Plug S of the first generation."""

    password: str = ""
    on: bool = False
    watts: float | None = 0.0
    stuck: bool = False

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/shelly":
            return Reply(
                {"type": "SHPLG-S", "mac": "AABBCCDDEEFF", "auth": bool(self.password), "fw": "1.14"}
            )
        expected = "Basic " + base64.b64encode(f"admin:{self.password}".encode()).decode()
        if self.password and asked.headers.get("authorization") != expected:
            return Reply(None, 401, {"WWW-Authenticate": 'Basic realm="shellyplug-s"'})
        if asked.path == "/relay/0":
            turn = asked.query.get("turn")
            if turn in ("on", "off") and not self.stuck:
                self.on = turn == "on"
            return Reply({"ison": self.on, "has_timer": False, "source": "http"})
        if asked.path == "/meter/0" and self.watts is not None:
            return Reply({"power": self.watts if self.on else 0.0, "is_valid": True, "total": 1})
        return Reply(None, 404)


@dataclass
class Shelly2:
    """A Shelly Plus Plug S: digest with SHA-256, each nonce for one request."""

    password: str = ""
    on: bool = False
    watts: float | None = 0.0
    realm: str = "shellyplusplugs-aabbccddeeff"
    nonces: set[str] = field(default_factory=set)

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/shelly":
            return Reply(
                {
                    "id": self.realm,
                    "mac": "AABBCCDDEEFF",
                    "gen": 2,
                    "auth_en": bool(self.password),
                    "app": "Plus",
                }
            )
        if self.password and not self._knows(asked):
            nonce = secrets.token_hex(8)
            self.nonces.add(nonce)
            words = f'Digest qop="auth", realm="{self.realm}", nonce="{nonce}", algorithm=SHA-256'
            return Reply(None, 401, {"WWW-Authenticate": words})
        if asked.path not in ("/rpc/Switch.Set", "/rpc/Switch.GetStatus"):
            return Reply({"code": 404, "message": f"No handler for {asked.path}"}, 404)
        if asked.query.get("id") != "0":
            return Reply({"code": -105, "message": "Argument 'id', value 3 not found!"}, 500)
        was = self.on
        if asked.path == "/rpc/Switch.Set":
            self.on = asked.query["on"] == "true"
            return Reply({"was_on": was})
        told: dict[str, object] = {"id": 0, "source": "HTTP_in", "output": self.on}
        if self.watts is not None:
            told["apower"] = self.watts if self.on else 0.0
            told["aenergy"] = {"total": 12.5, "by_minute": [0.0, 0.0, 0.0], "minute_ts": 1800000000}
        return Reply(told)

    def _knows(self, asked: Asked) -> bool:
        """Check the answer to the challenge as RFC 7616 has it."""
        kind, _, rest = asked.headers.get("authorization", "").partition(" ")
        said = {name: value.strip('"') for name, value in re.findall(r'(\w+)=("[^"]*"|[^,\s]+)', rest)}
        if kind != "Digest" or said.get("nonce") not in self.nonces or said.get("uri") != asked.target:
            return False
        self.nonces.remove(said["nonce"])
        one = _sha256(f"admin:{self.realm}:{self.password}")
        two = _sha256(f"{asked.method}:{asked.target}")
        middle = f"{said['nonce']}:{said['nc']}:{said['cnonce']}:{said['qop']}"
        return said.get("response") == _sha256(f"{one}:{middle}:{two}") and said.get("username") == "admin"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class TasmotaPlug:
    """A plug with Tasmota; ``old``: before 8.2.3, when a wrong password was no error of HTTP."""

    password: str = ""
    on: bool = False
    watts: Any = 0
    outlets: int = 1
    old: bool = False

    def answer(self, asked: Asked) -> Reply:
        if asked.path != "/cm":
            return Reply(None, 404)
        query = asked.query
        if self.password and (query.get("user"), query.get("password")) != ("admin", self.password):
            words = {"WARNING": "Need user=<username>&password=<password>"}
            return Reply(words, 200 if self.old else 401)
        command, _, argument = query.get("cmnd", "").partition(" ")
        if command.lower() == "status" and argument == "8":
            energy = {"ENERGY": {"Total": 3.1, "Power": self.watts}} if self.watts is not None else {}
            return Reply({"StatusSNS": {"Time": "2026-11-28T00:00:00", **energy}})
        outlet = re.fullmatch(r"power([1-9]?)", command.lower())
        if outlet is None or int(outlet[1] or 1) > self.outlets:
            return Reply({"Command": "Unknown"})
        if argument.lower() in ("on", "off"):
            self.on = argument.lower() == "on"
        key = "POWER" if self.outlets == 1 else f"POWER{outlet[1] or 1}"
        return Reply({key: "ON" if self.on else "OFF"})


@dataclass
class Hook:
    """A webhook: anything posted to its path is taken."""

    path: str
    taken: list[str] = field(default_factory=list)

    def answer(self, asked: Asked) -> Reply:
        if asked.method != "POST" or not asked.path.startswith(self.path):
            return Reply(None, 405)
        self.taken.append(asked.path)
        return Reply(None)
