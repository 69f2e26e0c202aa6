"""Run llama-swap, or its stand-in, on loopback with small engines, and talk to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from labctl.lab.processes import wait_until

# Says how it was started, and streams in two parts of which the second waits for a file.
ENGINE = """\
import json, os, signal, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
port, gate = int(sys.argv[1]), sys.argv[2]
class Engine(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words): pass
    def say(self, body, status=200):
        data = json.dumps(body).encode()
        self.send_response(status); self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data))); self.end_headers(); self.wfile.write(data)
    def do_GET(self):
        if self.path == "/health": return self.say({"status": "ok"})
        if self.path == "/": return self.say({}, 404)
        self.say({"argv": sys.argv[3:], "env": dict(os.environ), "pid": os.getpid(), "path": self.path})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not asked.get("stream"):
            if asked.get("wait"):
                while not Path(gate).exists(): time.sleep(0.01)
            return self.say({"asked": asked, "headers": dict(self.headers), "pid": os.getpid()})
        self.send_response(200); self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked"); self.end_headers()
        for part in ("one", "two"):
            data = f"data: {part}\\n\\n".encode()
            self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(data), data)); self.wfile.flush()
            while part == "one" and not Path(gate).exists(): time.sleep(0.01)
        self.wfile.write(b"0\\r\\n\\r\\n")
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
ThreadingHTTPServer(("127.0.0.1", port), Engine).serve_forever()
"""


_asked = count()


def free_ports(wanted: int) -> int:
    """Return the first of some consecutive ports on loopback that nobody listens on.

    Each process has a hundred of its own, below those that clients get, and takes turns there.
    """
    own = 10_000 + os.getpid() % 220 * 100
    turns = 100 // wanted
    for turn in range(turns):
        first = own + (next(_asked) + turn) % turns * wanted
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + wanted):
                    probe = held.enter_context(socket.socket())
                    # As servers do: connections that are only remembered take no port.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise AssertionError("no ports are free")


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def words(self) -> str:
        """Return the message of an error."""
        said: str = self.json["error"]["message"]
        return said


class Running:
    """A program that serves a configuration; ``config`` may be rewritten."""

    def __init__(
        self, program: str, folder: Path, given: Mapping[str, Any], key: str, env: Mapping[str, str]
    ) -> None:
        self.folder, self.key = folder, key
        self.config = folder / "config.yaml"
        self.gate = folder / "gate"
        self.ports = free_ports(9)
        self.port = self.ports + 8
        self.engine = folder / "engine.py"
        self.engine.write_text(ENGINE)
        self.write(given)
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [program, "-config", str(self.config), "-listen", f"127.0.0.1:{self.port}"],
                env={**os.environ, **env},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def write(self, given: Mapping[str, Any]) -> None:
        self.config.write_text(
            given if isinstance(given, str) else yaml.safe_dump({"startPort": self.ports, **given})
        )

    def cmd(self, *words: str) -> str:
        return " ".join([sys.executable, str(self.engine), "${PORT}", str(self.gate), *words])

    def ask(self, path: str, body: object = None, *, key: str | None = None, **headers: str) -> Answer:
        """Send a request; a body is sent as JSON."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        shown = self.key if key is None else key
        head = {"Content-Type": "application/json"} if data is not None else {}
        head |= {"Authorization": f"Bearer {shown}"} if shown else {}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data=data, headers={**head, **headers}
        )
        try:
            with opener().open(request, timeout=60) as found:
                return Answer(found.status, found.read(), lowered(found.headers.items()))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read(), lowered(error.headers.items()))

    def chat(self, model: str, **more: object) -> Answer:
        return self.ask("/v1/chat/completions", {"model": model, **more})

    def loaded(self) -> dict[str, str]:
        return {one["model"]: one["state"] for one in self.ask("/running").json["running"]}

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def hup(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.ask("/health").status == 200
        return False

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(45)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def lowered(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


def opener() -> urllib.request.OpenerDirector:
    """Return what opens addresses without a proxy and without following redirects."""

    class Still(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *words: Any) -> None:
            return None

    return urllib.request.build_opener(urllib.request.ProxyHandler({}), Still)


Start = Callable[..., Running]


def starter(program: str, folder: Path) -> Iterator[Start]:
    """Yield a function that starts the program with a configuration, and end what it started."""
    started: list[Running] = []

    def start(given: Callable[[Running], Mapping[str, Any]], key: str = "", **env: str) -> Running:
        place = folder / f"swap{len(started)}"
        place.mkdir()
        early = Running.__new__(Running)
        early.folder, early.gate, early.engine = place, place / "gate", place / "engine.py"
        one = Running(program, place, given(early), key, env)
        started.append(one)
        assert wait_until(one.answers, within=30), one.said()
        return one

    yield start
    for one in started:
        one.gate.touch()
    for one in started:
        one.end()


def refusal(program: str, folder: Path, text: str, **env: str) -> str:
    """Return what the program says of a configuration that it refuses; "" when it serves it."""
    config = folder / "refused.yaml"
    config.write_text(text)
    argv = [program, "-config", str(config), "-listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        argv, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = ""
    try:
        for line in process.stdout:
            said += line
            if "llama-swap listening" in line:
                return ""
        assert process.wait(30) == 1, said
        return said
    finally:
        process.terminate()
        process.stdout.close()
        process.wait(45)
