"""Heads that were read before: what one said need not be found out again.

A client that keeps its connection sends the same head with each request, but for the length of its body. The
parser and all our checks are functions of a head's bytes alone. So a head whose bytes are those of the last
one that was read on its connection, found sound, and framed by ``Content-Length``, says the same again, with
another number where digits stood. One byte that differs anywhere else, and it is read anew.

Only the last head of a connection is kept, and only as long as the connection is: it holds the client's key.
"""

from __future__ import annotations

import re

from labctl.gateway.terms import Ask

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,9})\r\n")
_MOST_DIGITS = 9


class Known:
    """A head that was read: its bytes around the digits of its length, and what it said besides.

    ``lines`` are those of its headers that an upstream gets to see, once it came a second time.
    """

    __slots__ = ("_after", "_before", "headers", "lines", "method", "named", "path", "query", "target")

    def __init__(self, before: bytes, after: bytes, ask: Ask) -> None:
        self._before = before
        self._after = after
        self.method, self.target, self.path, self.query = ask.method, ask.target, ask.path, ask.query
        self.headers, self.named = ask.headers, ask.named
        self.lines: bytes | None = None

    def found(self, data: bytes) -> tuple[int, int]:
        """Return where this head ends in what came, and its body's length; (0, 0): it is another one."""
        before, after = self._before, self._after
        if data.startswith(before):
            start = len(before)
            end = data.find(b"\r", start, start + _MOST_DIGITS + 1)
            if end > start and data.startswith(after, end):
                digits = data[start:end]
                if digits.isdigit():
                    return end + len(after), int(digits)
        return 0, 0


def known(head: bytes, ask: Ask) -> Known | None:
    """Return a sound head of HTTP/1.1, to be known again.

    None where its body's length is not stated, or more hangs on the head than what is kept of it.
    """
    if ask.upgrade or b"expect" in ask.named:
        return None
    stated = _LENGTH.search(head)
    return None if stated is None else Known(head[: stated.start(1)], head[stated.end(1) :], ask)
