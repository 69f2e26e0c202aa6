"""The page as it changes: server-sent events, one stream for each browser that looks.

A stream sends the page's live part whenever it reads differently, and a comment now and then, so that both
sides notice when the other is gone. It ends with its session and with the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

MOST = 64
EVERY_S = 1.0
ALIVE_TURNS = 15
_ALIVE = b": alive\n\n"


class Streams:
    """All streams of this process."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._over = asyncio.Event()
        self.open = 0

    @property
    def full(self) -> bool:
        """Return whether no more may look at a time."""
        return self.open >= MOST

    def stop(self) -> None:
        """End all streams."""
        self._over.set()

    async def lines(self, now: Callable[[], Awaitable[str | None]]) -> AsyncIterator[bytes]:
        """Yield the events of one stream.

        Args:
            now: returns the live part, or None when this browser may look no more.
        """
        self.open += 1
        try:
            last, quiet = "", 0
            while (html := await now()) is not None:
                quiet += 1
                if html != last:
                    last, quiet = html, 0
                    yield event("rack", html)
                elif quiet >= ALIVE_TURNS:
                    quiet = 0
                    yield _ALIVE
                if await self._stopped():
                    return
        finally:
            self.open -= 1

    async def _stopped(self) -> bool:
        try:
            await asyncio.wait_for(self._over.wait(), self._every_s)
        except TimeoutError:
            return False
        return True


def event(name: str, text: str) -> bytes:
    """Return a server-sent event."""
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"event: {name}\n{lines}\n".encode()
