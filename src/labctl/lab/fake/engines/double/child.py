"""The llama-server behind a double: found on the host, started on a free port of loopback, and stopped."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Where llama-server is looked for, in this order; LABCTL_DOUBLE_LLAMA_SERVER names another.
PLACES = (
    "/opt/labctl/llama.cpp/cpu/current/llama-server",
    "/opt/llama/llama-server",
    "/usr/bin/llama-server",
)


class LoadError(Exception):
    """The model cannot be served; says why."""


def program() -> str:
    """Return the path of llama-server.

    Raises:
        LoadError: there is none on this host.
    """
    named = os.environ.get("LABCTL_DOUBLE_LLAMA_SERVER")
    places = (named,) if named else PLACES
    found = next((place for place in places if place and os.access(place, os.X_OK)), None)
    found = found or (None if named else shutil.which("llama-server"))
    if found is None:
        raise LoadError(
            f"this double needs a llama-server, and there is none at {', '.join(map(str, places))}"
        )
    return found


def weights(model: str) -> Path | None:
    """Return the GGUF file that stands for a model: the file itself, or the first one in its folder."""
    path = Path(model)
    if path.is_file():
        return path
    return next(iter(sorted(path.glob("*.gguf"))), None) if path.is_dir() else None


class Child:
    """One llama-server; ``start`` and ``stop`` may be called in turns."""

    def __init__(self, file: Path, arguments: Sequence[str]) -> None:
        """Remember what to start."""
        self._argv = [program(), "--model", str(file), "--host", "127.0.0.1", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self.port = 0

    def start(self, within_s: float = 600) -> None:
        """Start it and return when it answers.

        Raises:
            LoadError: it ended, or time was up.
        """
        with self._lock:
            self.port = _free_port()
            argv = [*self._argv, "--port", str(self.port)]
            process = self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
            until = time.monotonic() + within_s
            while not self._answers():
                if process.poll() is not None:
                    raise LoadError(f"llama-server ended with {process.returncode} while loading")
                if time.monotonic() > until:
                    raise LoadError(f"llama-server did not load the model within {within_s:g} s")
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it, and with it everything that it holds."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End it at once, as if it had died by itself."""
        process = self._process
        if process is not None:
            process.kill()

    @property
    def alive(self) -> bool:
        """Return whether it runs."""
        process = self._process
        return process is not None and process.poll() is None

    def wait(self) -> int:
        """Return the status with which it ended, once it has."""
        process = self._process
        return 0 if process is None else process.wait()

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the JSON that it answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        with contextlib.closing(connection):
            sent = None if body is None else json.dumps(body)
            connection.request(
                "GET" if body is None else "POST", path, sent, {"Content-Type": "application/json"}
            )
            return json.loads(connection.getresponse().read())

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/health")
                return connection.getresponse().status == 200
            except OSError:
                return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
