"""The log: one JSON line for each request, which never makes anybody wait.

Whoever reads the log may be slow: a journal under pressure, a terminal that was stopped, a pipe to a program
that hangs. The event loop never waits for it. Lines are gathered for ``EVERY_S`` (or until there are many)
and encoded together; they are written in pieces that a descriptor which takes anything takes whole, and only
as long as it says that it does. What isn't taken is kept up to ``MOST_BYTES``; lines beyond that are lost,
and the first line that gets through again says how many: ``{"at":..., "lost":N}``.

The descriptor is not set to non-blocking: it is shared with whoever started us, who would get it so as well.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable

import msgspec

from labctl.gateway.terms import Record

EVERY_S = 0.05
MOST_BYTES = 1024 * 1024
# So many lines are about 64 KiB.
_MANY = 160
# POSIX' least PIPE_BUF is 512, Linux' is this: a pipe that polls as writable takes as much without waiting,
# and so do sockets and terminals.
_PIECE = 4096

Later = Callable[[float, Callable[[], None]], object]
"""``loop.call_later``."""


class _Lost(msgspec.Struct):
    at: float
    lost: int


class Lines:
    """Lines for a file descriptor (-1: nobody wants them); ``later`` is ``loop.call_later``.

    ``dropped`` counts lines that were lost.
    """

    __slots__ = ("_due", "_fd", "_gathered", "_later", "_left", "_lost", "_ready", "dropped")

    def __init__(self, fd: int, later: Later) -> None:
        self._fd = fd
        self._later = later
        self._gathered: list[Record] = []
        self._left = bytearray()
        self._due = False
        self._lost = 0
        self.dropped = 0
        self._ready = select.poll()
        if fd >= 0:
            self._ready.register(fd, select.POLLOUT)

    def add(self, record: Record) -> None:
        """Write a line for a request, soon; the record must not change any more."""
        if self._fd < 0:
            return
        gathered = self._gathered
        gathered.append(record)
        if len(gathered) >= _MANY:
            self._flush()
        elif not self._due:
            self._due = True
            self._later(EVERY_S, self._come_due)

    def close(self) -> None:
        """Write out what is left, as far as it is taken at once."""
        if self._fd >= 0:
            self._flush()

    def _come_due(self) -> None:
        self._due = False
        self._flush()
        if self._left and not self._due:
            self._due = True
            self._later(EVERY_S, self._come_due)

    def _flush(self) -> None:
        self._write()
        gathered = self._gathered
        if gathered:
            if len(self._left) < MOST_BYTES:
                if self._lost:
                    self._left += _encode_lines([_Lost(gathered[-1].at, self._lost)])
                    self._lost = 0
                self._left += _encode_lines(gathered)
            else:
                self._lose(len(gathered))
            gathered.clear()
            self._write()

    def _lose(self, lines: int) -> None:
        self._lost += lines
        self.dropped += lines

    def _write(self) -> None:
        left = self._left
        try:
            while left and self._ready.poll(0):
                del left[: os.write(self._fd, left[:_PIECE])]
        except BlockingIOError:
            pass  # somebody else made it non-blocking: it is full
        except OSError:
            # Nobody reads any more, or the disk is full; whoever looks at the metrics sees how much is lost.
            self._lose(left.count(b"\n"))
            left.clear()


_encode_lines = msgspec.json.Encoder().encode_lines
