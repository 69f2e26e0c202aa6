"""The engines: started when asked for, looked after until they answer, ended with all that they started."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from .macros import environment, split

FIRST_LOOK_S = 0.25
LOOK_S = 0.1


class Failed(Exception):
    """A model did not start; says why in llama-swap's words."""


def duration(seconds: int) -> str:
    """Return whole seconds as Go writes a duration, such as 15s or 2m0s."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"


class Process:
    """One model's engine and its state: stopped, starting, ready or stopping."""

    def __init__(self, id_: str, model: dict[str, Any], timeout_s: int) -> None:
        """Begin stopped."""
        self.id, self.model, self.timeout_s = id_, model, timeout_s
        self.busy, self.last_use = 0, time.monotonic()
        self._state = "stopped"
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def state(self) -> str:
        """Return the state; a child that was killed has stopped."""
        if self._state == "ready" and self._child is not None and self._child.poll() is not None:
            self._state = "stopped"
        return self._state

    def start(self) -> None:
        """Start the engine and wait until it is healthy.

        Raises:
            Failed: it could not be started, ended, or was not healthy in time.
        """
        with self._lock:
            if self.state == "ready":
                return
            self._state = "starting"
            try:
                self._spawn()
                self._wait()
            except Failed:
                self._end()
                raise
            self._state, self.last_use = "ready", time.monotonic()

    def _spawn(self) -> None:
        argv = split(self.model["cmd"])
        if not argv:
            raise Failed("unable to get sanitized command: empty command")
        own = dict(pair.split("=", 1) for pair in self.model.get("env") or [] if "=" in pair)
        try:
            self._child = subprocess.Popen(
                argv,
                env={**environment(), **own},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            why = (error.strerror or "").lower()
            raise Failed(f"failed to start command '{' '.join(argv)}': fork/exec {argv[0]}: {why}") from error

    def _wait(self) -> None:
        endpoint = str(self.model["checkEndpoint"]).strip()
        if endpoint == "none" or self._child is None:
            return
        where = urlsplit(self.model["proxy"])
        end = time.monotonic() + self.timeout_s
        pause = FIRST_LOOK_S
        while True:
            time.sleep(pause)
            pause = LOOK_S
            if self._child.poll() is not None:
                raise Failed("upstream command exited prematurely")
            if time.monotonic() > end:
                raise Failed(f"health check timed out after {duration(self.timeout_s)}")
            asked = http.client.HTTPConnection(where.hostname or "", where.port, timeout=1)
            try:
                asked.request("GET", endpoint)
                if asked.getresponse().status == 200:
                    return
            except OSError:
                continue
            except http.client.HTTPException:
                continue
            finally:
                asked.close()

    def stop(self) -> None:
        """End the engine: its own command for that or SIGTERM first, SIGKILL after `unloadTimeout`."""
        with self._lock:
            if self._state != "stopped":
                self._end()

    def _end(self) -> None:
        child = self._child
        if child is not None and child.poll() is None:
            self._state = "stopping"
            if self.model.get("cmdStop"):
                argv = split(str(self.model["cmdStop"]).replace("${PID}", str(child.pid)))
                with contextlib.suppress(OSError, subprocess.SubprocessError):
                    subprocess.run(argv, check=False, timeout=self.model["unloadTimeout"])
            else:
                _signal(child.pid, signal.SIGTERM)
            try:
                child.wait(self.model["unloadTimeout"])
            except subprocess.TimeoutExpired:
                _signal(child.pid, signal.SIGKILL)
                child.wait()
        self._state = "stopped"


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        os.killpg(group, number)
