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
from collections.abc import Mapping, Sequence

HEADERS = (b"x-conversation-id", b"x-session-id", b"conversation_id", b"session_id", b"session-id")
_NAMES = frozenset(HEADERS)
SHORTEST = 256
"""Bytes of a beginning that is worth to be remembered."""
LONGEST = 64 * 1024


class Sticky:
    """The last upstream of conversations."""

    __slots__ = ("_last", "_most")

    def __init__(self, most: int = 8192) -> None:
        self._most = most
        self._last: OrderedDict[int, str] = OrderedDict()

    def last(self, marks: Sequence[int]) -> str:
        """Return the upstream that served a conversation last, or nothing; ``marks`` are its."""
        for mark in marks:
            if (upstream := self._last.get(mark)) is not None:
                return upstream
        return ""

    def served(self, marks: Sequence[int], upstream: str) -> None:
        """Remember who serves a conversation."""
        if not marks:
            return
        last, mark = self._last, marks[0]
        last[mark] = upstream
        last.move_to_end(mark)
        if len(last) > self._most:
            last.popitem(last=False)


def marks_of(model: str, named: Mapping[bytes, bytes], body: bytes) -> Sequence[int]:
    """Return the marks of a conversation, the surest first."""
    if not _NAMES.isdisjoint(named):
        return (hash((model, *(named.get(name) for name in HEADERS))),)
    size = len(body)
    if size < SHORTEST:
        return ()
    length = 1 << ((size if size < LONGEST else LONGEST).bit_length() - 1)
    marks = []
    while length >= SHORTEST:
        marks.append(hash((model, body[:length])))
        length >>= 1
    return marks
