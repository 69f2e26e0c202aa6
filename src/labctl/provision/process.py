"""One worker process as the parent sees it: a line to write orders to, lines to read events from, an end.

A worker runs in a session of its own, so that Ctrl-C in the terminal reaches the parent alone, which then
decides. Its stderr goes to a log file of its own, named in every error about it and removed when it stayed
empty. Ending a worker by force ends its whole process group, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from labctl.provision.events import Event, Order, decode_event, encode

# -P: a gevent.py that lies in the current directory must not become part of the worker.
WORKER_ARGV = (sys.executable, "-P", "-m", "labctl.provision.worker")
_LONGEST_LINE = 32 * 1024 * 1024
_LOGS_KEPT = 40


class Garbage(Exception):
    """The worker wrote a line that is not an event."""


class WorkerProcess:
    """A started worker; it costs nothing but its start until it is given a job."""

    def __init__(self, argv: Sequence[str], log: Path) -> None:
        self.log = log
        self.hosts: frozenset[str] = frozenset()
        self._rest = b""
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                start_new_session=True,
            )
        os.set_blocking(self.fileno(), False)

    def fileno(self) -> int:
        """Return the descriptor of the worker's stdout."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    @property
    def pid(self) -> int:
        """Return the process id, which is also that of its group and session."""
        return self._process.pid

    def send(self, order: Order) -> None:
        """Give an order; a worker that is gone already is noticed where its events end."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(encode(order).encode())

    def read(self) -> list[Event] | None:
        """Return the events that have arrived, or None when the worker has closed its side.

        Raises:
            Garbage: a line is not an event, or has no end.
        """
        try:
            chunk = os.read(self.fileno(), 1 << 18)
        except BlockingIOError:
            return []
        if not chunk:
            # A line that was cut off belongs to a worker that died while writing it; its status tells more.
            return None
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            raise Garbage("it wrote a line without an end")
        return [_decoded(line) for line in lines]

    def close(self, grace_s: float) -> int | None:
        """Let the worker end for ``grace_s`` seconds, then end it by force; return its exit status."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self.kill()
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size == 0:
                self.log.unlink()
        return self._process.returncode

    def kill(self) -> None:
        """End the worker and whatever it started, now."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def last_words(self) -> str:
        """Return the last line that the worker left on stderr, or nothing."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _decoded(line: bytes) -> Event:
    try:
        return decode_event(line.decode())
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Garbage(f"it wrote something that is not an event: {_shown(line)}") from error


def _shown(line: bytes) -> str:
    text = line[:120].decode(errors="replace")
    return repr(text) + ("..." if len(line) > 120 else "")


class Crew:
    """The workers of one run, started as early as possible; leaving the context ends those that are left."""

    def __init__(self, logs: Path, started: datetime, argv: Sequence[str] = WORKER_ARGV) -> None:
        self.workers: list[WorkerProcess] = []
        self._argv = argv
        self._stem = f"worker-{started:%Y%m%d-%H%M%S}-{os.getpid()}"
        self._logs = logs
        _forget_old(logs)

    def grow(self, count: int) -> None:
        """Start workers until there are ``count``."""
        while len(self.workers) < count:
            log = self._logs / f"{self._stem}-{len(self.workers) + 1}.log"
            self.workers.append(WorkerProcess(self._argv, log))

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *unused: object) -> None:
        for worker in self.workers:
            # Whoever still runs here has either no job or was told to stop; both have nothing to lose.
            worker.close(grace_s=0)


def _forget_old(logs: Path) -> None:
    kept = sorted(logs.glob("worker-*.log"), key=lambda path: path.name)
    for path in kept[: -_LOGS_KEPT or None]:
        with contextlib.suppress(OSError):
            path.unlink()
