"""Writes go out together, when the loop has handled all that came with one look at the sockets.

A write wakes who waits at its other end, and the kernel makes us pay for that: on a machine that is not busy,
more than for sending the bytes. Of writes right after one another only the first has to wake anybody, and
code that runs many times in a row runs faster. So when there is much to do, bytes are kept until all that was
readable has been handled, or until ``TOGETHER`` connections have some. Nothing is delayed by more than that,
and never by a clock. When there is little to do, bytes go out at once.

A ``Line`` is a connection's transport with that in between. All that is written goes by it, in order, and
what was written goes out before the connection is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

TOGETHER = 64
"""A burst of a thousand streams is not to wait for its last one."""
SAMPLE, MANY_IN_S = 16, 0.0007
"""So many writes within so many seconds are worth to be gathered."""
FEW, OFTEN = 8, 2
"""So few lines with something to send, so often in a row, are not."""
REST_S = 0.02
"""How long it is not tried again then."""
LARGE = 64 * 1024
"""So many bytes go out at once: gathering would only copy them."""


class Outbox:
    """The lines of one event loop that have something to send.

    ``gathers``: there is much to do. ``count`` is of writes since it was judged last; while gathering, of
    times in a row when few had something to send.
    """

    __slots__ = ("_loop", "_mono", "_since", "_waiting", "count", "gathers")

    def __init__(self, loop: asyncio.AbstractEventLoop, mono: Callable[[], float]) -> None:
        self._loop = loop
        self._mono = mono
        self._waiting: list[Line] = []
        self._since = 0.0
        self.count = 0
        self.gathers = False

    def judge(self) -> None:
        """Begin to gather, if ``SAMPLE`` writes came quickly."""
        self.count = 0
        now = self._mono()
        if now >= self._since:  # else it was not worth it a moment ago
            self.gathers = now - self._since < MANY_IN_S
            self._since = now

    def add(self, line: Line) -> None:
        """Send what a line has, soon."""
        waiting = self._waiting
        if not waiting:
            self._loop.call_soon(self.send)
        waiting.append(line)
        if len(waiting) >= TOGETHER:
            self.send()

    def send(self) -> None:
        """Send what all lines have."""
        waiting, self._waiting = self._waiting, []
        if self.gathers:
            self.count = self.count + 1 if len(waiting) <= FEW else 0
            if self.count >= OFTEN:
                self.gathers = False
                self.count = 0
                self._since = self._mono() + REST_S
        for line in waiting:
            line.send()


class Line(asyncio.Transport):
    """A connection's transport, whose writes go out with others'."""

    __slots__ = ("_closing", "_data", "_outbox", "_transport", "_write")

    def __init__(self, transport: asyncio.Transport, outbox: Outbox) -> None:
        self._transport = transport
        self._outbox = outbox
        self._write = transport.write
        self._data = b""
        self._closing = transport.is_closing

    def write(self, data: bytes) -> None:  # type: ignore[override]  # we have nothing but bytes
        """Send bytes, after those that were written before."""
        outbox = self._outbox
        if not outbox.gathers:
            outbox.count += 1
            if outbox.count >= SAMPLE:
                outbox.judge()
        if not outbox.gathers or len(data) >= LARGE:
            if self._data:
                self.send()
            if not self._closing():
                self._write(data)
        elif self._data:
            self._data += data
            if len(self._data) >= LARGE:
                self.send()
        elif data:
            self._data = data
            outbox.add(self)

    def send(self) -> None:
        """Send what was written."""
        data, self._data = self._data, b""
        if data and not self._closing():
            self._write(data)

    def is_closing(self) -> bool:
        """Return whether it is closed, or about to be."""
        return self._closing()

    def close(self) -> None:
        """Send what was written, and hang up."""
        self.send()
        self._transport.close()

    def write_eof(self) -> None:
        """Send what was written, and say that nothing more comes."""
        self.send()
        self._transport.write_eof()

    def can_write_eof(self) -> bool:
        """Return whether that can be said."""
        return self._transport.can_write_eof()

    def abort(self) -> None:
        """Hang up at once; what was written is lost."""
        self._data = b""
        self._transport.abort()

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes were written and not sent yet."""
        return len(self._data) + self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport says of itself."""
        return self._transport.get_extra_info(name, default)
