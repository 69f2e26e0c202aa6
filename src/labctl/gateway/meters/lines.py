"""The log: one JSON line for each request, which never makes anybody wait."""

from __future__ import annotations

from collections.abc import Callable

from labctl.gateway.terms import Record

Later = Callable[[float, Callable[[], None]], object]
"""``loop.call_later``."""


class Lines:
    """Lines for a file descriptor (-1: nobody wants them); ``later`` is ``loop.call_later``."""

    __slots__ = ("dropped",)

    def __init__(self, fd: int, later: Later) -> None:
        self.dropped = 0

    def add(self, record: Record) -> None:
        """Write a line for a request, soon."""
        raise NotImplementedError

    def close(self) -> None:
        """Write out what is left, as far as it is taken."""
        raise NotImplementedError
