"""What every client's connection has: a transport, a phase, a deadline, and ways to end.

    HEAD ──► BODY ──► BUSY ──► HEAD …      the usual round; BUSY: the answer is under way
               │                           an upload is in BODY while its exchange runs already
               ▼
             LINGER                        an answer was given without the body: what still comes is thrown
                                           away for a moment, since closing would take the answer back (RST)
    BUSY ──► TUNNEL                        websockets: bytes both ways until one side ends

Deadlines are compared by the proxy's round (``watch``): a whole head within ``head_s``, a byte of a body each
``body_s`` and ``body_rate`` of them on average, a next request within ``idle_s``.
"""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import TYPE_CHECKING

from labctl.gateway.proxy import heads
from labctl.gateway.refusals import problem
from labctl.gateway.terms import Answer

if TYPE_CHECKING:
    from labctl.gateway.proxy.proxy import Proxy

_LINGER_S = 2.0


class Phase(IntEnum):
    """See the module's text."""

    HEAD = 0
    BODY = 1
    BUSY = 2
    LINGER = 3
    TUNNEL = 4


HEAD, BODY, BUSY, LINGER, TUNNEL = Phase


class Wire(asyncio.Protocol):
    """See the module's text; ``client.Client`` is the whole of a connection."""

    __slots__ = (
        *("_body_from", "_deadline", "_held", "_name", "_paused", "_paused_at", "_phase"),
        *("body_bytes", "full", "keep", "proxy", "transport"),
    )

    transport: asyncio.Transport

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.keep = True  # the connection may serve another request
        self.full = False  # it doesn't read
        self._phase = HEAD
        self._deadline = 0.0
        self._name = ""
        self._paused = False
        self._paused_at = 0.0
        self._body_from = 0.0  # when the body would have begun, had it never been held back
        self.body_bytes = 0
        self._held = 0  # bytes of ours that count in proxy.held

    def hold(self) -> None:
        """Read no more for now."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self._paused_at = self.proxy.loop.time()
            self.transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if self._paused:
            self._paused = False
            if self._phase is BODY:
                self._body_from += self.proxy.loop.time() - self._paused_at
                self._wait_for_body()
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def _wait_for_body(self) -> None:
        """Give the body time for its next byte, as far as it came quickly enough so far."""
        limits = self.proxy.limits
        within_s = limits.body_s + self.body_bytes / limits.body_rate
        self._deadline = min(self.proxy.loop.time() + limits.body_s, self._body_from + within_s)

    def refuse(
        self, status: int, code: str, detail: str, *, hint: str = "", retry_after_s: float = 0
    ) -> None:
        """Say no to what came so far, and hang up."""
        self.keep = False
        answer = problem(status, code, detail, hint=hint, retry_after_s=retry_after_s)
        self._count(answer, code)
        self.transport.write(heads.answer_bytes(answer, method="", close=True))
        self._release()
        self._linger()

    def _count(self, _answer: Answer, code: str) -> None:
        """Count a refusal that the desk never hears of."""
        self.proxy.refused[code] = self.proxy.refused.get(code, 0) + 1

    def _linger(self) -> None:
        """Hang up as soon as the client does, or a little later: it shall read its answer first."""
        self._phase = LINGER
        self._deadline = self.proxy.loop.time() + _LINGER_S
        self.go_on()
        if not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()

    def _close(self) -> None:
        """Hang up when the last answer was sent; a client that doesn't read it is cut off."""
        if self._phase is LINGER and self.transport.is_closing():
            self.transport.abort()
        else:
            self._phase = LINGER
            self._deadline = self.proxy.loop.time() + self.proxy.limits.idle_s
            self.transport.close()

    def _release(self) -> None:
        self.proxy.held -= self._held
        self._held = 0

    def _hold_bytes(self, size: int) -> bool:
        """Count bytes of a body that we keep; refuse it where all clients together have too many."""
        proxy = self.proxy
        if proxy.held + size > proxy.limits.held_bytes:
            self._too_many_bodies()
            return False
        proxy.held += size
        self._held += size
        return True

    def _too_many_bodies(self) -> None:
        self.refuse(503, "too-many-bodies", "other requests' bodies fill what may be kept", retry_after_s=2)
