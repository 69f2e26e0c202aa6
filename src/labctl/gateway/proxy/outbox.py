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
from typing import Any

TOGETHER = 64
"""A burst of a thousand streams is not to wait for its last one."""
MANY = 24
"""So many writes within a millisecond are worth to be gathered."""
FEW, OFTEN = 8, 2
"""So few lines with something to send, so often in a row, are not."""
REST_MS = 20
"""How long it is not tried again then."""
LARGE = 64 * 1024
"""So many bytes go out at once: gathering would only copy them."""


class Outbox:
    """The lines of one event loop that have something to send."""

    __slots__ = ("_count", "_gathers", "_loop", "_not_before", "_now", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Line] = []
        self._gathers = False
        self._now = 0  # the millisecond that writes are counted in
        self._not_before = 0
        self._count = 0  # of writes in it; while gathering: of times when few had something to send

    def add(self, line: Line) -> None:
        """Send what a line has, at once or soon."""
        if not self._gathers:
            now = int(self._loop.time() * 1000)
            self._count = self._count + 1 if now == self._now else 1
            self._now = now
            if self._count < MANY or now < self._not_before:
                line.send()
                return
            self._gathers, self._count = True, 0
        waiting = self._waiting
        if not waiting:
            self._loop.call_soon(self.send)
        waiting.append(line)
        if len(waiting) >= TOGETHER:
            self.send()

    def send(self) -> None:
        """Send what all lines have."""
        waiting, self._waiting = self._waiting, []
        self._count = self._count + 1 if len(waiting) <= FEW else 0
        if self._count >= OFTEN:
            self._gathers, self._count = False, 0
            self._not_before = int(self._loop.time() * 1000) + REST_MS
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
        if len(data) >= LARGE:
            self.send()
            if not self._closing():
                self._write(data)
        elif self._data:
            self._data += data
            if len(self._data) >= LARGE:
                self.send()
        elif data:
            self._data = data
            self._outbox.add(self)

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
