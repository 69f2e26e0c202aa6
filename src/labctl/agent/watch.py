"""``report --watch``: one line of JSON for each look at this host, as long as somebody listens.

The first line comes at once, the next ones every ten seconds. On its standard input it takes lines of JSON:
``{"every_s": N}`` changes the interval, ``{"now": true}`` has it look at once, what else a newer controller
may say is passed over, and what is no JSON ends it. It ends when its input ends: at once, whatever hangs.
It also ends when its own program was replaced or its parent is gone, so that nothing of it is left behind.

``domain/sleep/words.py`` has the form of a line. A line is written whole, and only when it was just looked;
one process does it all, and starts another one only where a signal needs it (see ``signals``).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from . import config, telemetry, vitals
from .host import ROOT, text
from .signals import every
from .signals.board import Board
from .signals.terms import Reading, this_host

FORMAT = 1
EVERY_S = 10.0
_EVERY = (0.1, 3600.0)
_INPUT_MAX = 4096
_VITALS_FOR_S = 3.0
_TELEMETRY_FOR_S = 3.0
_PR_SET_PDEATHSIG = 1
_BAD_INPUT = 2
_REPLACED = "the agent was replaced: start the watch again"


class Wishes:
    """What the other end wants; a thread reads it, since a look must never keep its end from being seen."""

    def __init__(self, stdin: int) -> None:
        self._stdin = stdin
        self._changed = threading.Condition()
        self._every_s = EVERY_S
        self._now = False

    def listen(self) -> None:
        """Begin to read; the process ends with its input."""
        threading.Thread(target=self._read, daemon=True).start()

    def wait(self, since: float) -> None:
        """Wait until the next look is due, ``since`` being when the last one began (monotonic)."""
        with self._changed:
            while not self._now:
                left = since + self._every_s - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._now = False

    def take(self, line: bytes) -> None:
        """Do what a line of input says.

        Raises:
            ValueError: it is no JSON object, or no interval that can be kept.
        """
        try:
            found = json.loads(line)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
        wanted = found.get("every_s", self._every_s)
        if isinstance(wanted, bool) or not isinstance(wanted, (int, float)):
            raise ValueError("every_s is no number of seconds")
        if not _EVERY[0] <= wanted <= _EVERY[1]:
            raise ValueError(f"every_s is not from {_EVERY[0]:g} to {_EVERY[1]:g}")
        with self._changed:
            self._every_s = float(wanted)
            self._now = self._now or found.get("now") is True
            self._changed.notify()

    def _read(self) -> None:
        rest = b""
        while True:
            try:
                data = os.read(self._stdin, _INPUT_MAX)
            except OSError:
                data = b""
            if not data:
                end(0)
            *lines, rest = (rest + data).split(b"\n")
            try:
                for line in lines:
                    if line.strip():
                        self.take(line)
                if len(rest) > _INPUT_MAX:
                    raise ValueError(f"it is longer than {_INPUT_MAX} bytes")
            except ValueError as error:
                end(_BAD_INPUT, f"labctl-agent: what was said is not understood: {error}\n")


class Watch:
    """Looks at this host as often as wanted."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._name = os.urandom(16).hex()
        self._count = 0
        self._uptime = vitals.Uptime(root, vitals.clocks())
        self._meter = telemetry.Meter()
        self._written: tuple[int, ...] | None = None
        self._settings, self._board = self._begin()

    def line(self) -> dict[str, Any]:
        """Look at everything and return the line that says it."""
        if _state_of(self._root / config.PATH) != self._written:
            self._board.close()
            self._settings, self._board = self._begin()
        readings = self._board.look()
        self._count += 1
        resumes, up_s = self._uptime.look(vitals.clocks())
        return {
            "format": FORMAT,
            "watch": self._name,
            "n": self._count,
            "boot_id": text(self._root / "proc/sys/kernel/random/boot_id") or "",
            "resumes": resumes,
            "up_s": round(up_s, 3),
            "readings": [_reading(one) for one in readings],
            "order": vitals.order(self._root),
            **self._board.within(
                "vitals",
                self._vitals,
                _VITALS_FOR_S,
                {"fingerprint": None, "wol_armed": None, "mem_sleeps": None, "caps": None},
            ),
            "telemetry": self._board.within("telemetry", self._telemetry, _TELEMETRY_FOR_S, None),
        }

    def _begin(self) -> tuple[config.Settings, Board]:
        self._written = _state_of(self._root / config.PATH)
        settings = config.read(self._root)
        return settings, every.every(settings, this_host(self._root), self._meter)

    def _telemetry(self) -> dict[str, Any]:
        return telemetry.now(self._root, self._meter, self._settings.engines)

    def _vitals(self) -> dict[str, Any]:
        sleep = self._settings.sleep
        return {
            "fingerprint": vitals.fingerprint(self._root, sleep),
            "wol_armed": vitals.wol_armed(self._root, sleep),
            "mem_sleeps": vitals.mem_sleeps(self._root),
            "caps": vitals.caps(self._root),
        }


def watch(root: Path = ROOT, stdin: int = 0, stdout: int = 1) -> NoReturn:
    """Write lines until nobody listens any more."""
    _end_with_parent()
    program = Path(sys.argv[0])
    began_as = _state_of(program)
    wishes = Wishes(stdin)
    wishes.listen()
    looking = Watch(root)
    while True:
        began = time.monotonic()
        say(stdout, looking.line())
        wishes.wait(began)
        if _state_of(program) != began_as:
            # What was not loaded yet would be read from the new file as if it were the old one.
            end(0, f"labctl-agent: {_REPLACED}\n")


def say(stdout: int, line: dict[str, Any]) -> None:
    """Write a line whole; the process ends where nobody can read it."""
    data = json.dumps(line, ensure_ascii=True).encode() + b"\n"
    try:
        while data:
            data = data[os.write(stdout, data) :]
    except OSError:
        end(0)


def end(status: int, words: str = "") -> NoReturn:
    """End this process at once, also while a thread of it hangs in a driver."""
    if words:
        with contextlib.suppress(OSError):
            os.write(2, words.encode())
    # A thread that the kernel holds would keep the pipes open, and the other end waiting.
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nowhere, number)
    os._exit(status)


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent (sshd's) is gone."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        end(0)


def _reading(one: Reading) -> dict[str, Any]:
    return {"signal": one.signal, "busy": one.busy, "because": one.because}


def _state_of(path: Path) -> tuple[int, ...] | None:
    """Return what changes with a file's content, None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
