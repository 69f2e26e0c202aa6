"""Remember which upstream served a conversation last, since it still has the conversation in its KV cache.

A conversation is told by a header, where its client sends one, and else by how its request begins: every
turn repeats all that was said before. So of each request the longest beginning whose length is a power of two
is remembered; the next turn, which is longer, is looked up by its beginnings of such lengths, the longest
first. Two conversations with the same long instructions share a beginning, and then a cache as well.

Only hashes are kept, the newest ``most`` of them. What was forgotten costs an upstream the time to read the
prompt again, nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

HEADERS = (b"x-conversation-id", b"x-session-id", b"conversation_id", b"session_id", b"session-id")
SHORTEST = 256
"""Bytes of a beginning that is worth to be remembered."""
LONGEST = 64 * 1024


class Sticky:
    """The last upstream of conversations."""

    __slots__ = ("_last", "_most")

    def __init__(self, most: int = 8192) -> None:
        self._most = most
        self._last: OrderedDict[int, str] = OrderedDict()

    def last(self, model: str, named: Mapping[bytes, bytes], body: bytes) -> str:
        """Return the upstream that served a conversation last, or nothing."""
        for mark in _marks(model, named, body):
            if (upstream := self._last.get(mark)) is not None:
                return upstream
        return ""

    def served(self, model: str, named: Mapping[bytes, bytes], body: bytes, upstream: str) -> None:
        """Remember who serves a conversation."""
        mark = next(_marks(model, named, body), None)
        if mark is None:
            return
        self._last[mark] = upstream
        self._last.move_to_end(mark)
        if len(self._last) > self._most:
            self._last.popitem(last=False)


def _marks(model: str, named: Mapping[bytes, bytes], body: bytes) -> Iterator[int]:
    """Yield the marks of a conversation, the surest first."""
    for name in HEADERS:
        if value := named.get(name):
            yield hash((model, name, value))
            return
    length = 1 << (min(len(body), LONGEST).bit_length() - 1) if body else 0
    while length >= SHORTEST:
        yield hash((model, body[:length]))
        length >>= 1
