"""Keep who woke what, and who was turned away.

The log that is kept is in the store and is read by people, so nobody may fill it: of the same sort, of the
same key or client, one line is written in ``EVERY_S``, which says how many there were since. Wakes are
written each: they are few, and a quota bounds them.
"""

from __future__ import annotations

from collections.abc import Callable

EVERY_S = 600.0
# How many sorts are told apart; a line that pushes out an older sort only loses its count.
_SORTS = 256

Note = Callable[[str, str, str], None]
"""``Books.note``: host, kind, text."""


class Audit:
    """Writes to the log that is kept. ``note`` never waits; what it can't write is lost."""

    __slots__ = ("_note", "_said")

    def __init__(self, note: Note) -> None:
        self._note = note
        self._said: dict[tuple[str, str], list[float]] = {}

    def woke(self, key: str, host: str, count: str) -> None:
        """Write that a key wakes a host; ``count`` says which one of how many."""
        self._note(host, "woken", f"for key {key} of the gateway ({count})")

    def may_not_wake(self, key: str, host: str, why: str, now: float) -> None:
        """Write that a key was refused a wake."""
        self._seldom(host, "wake refused", f"key {key} of the gateway may not wake it: {why}", now)

    def stranger(self, client: str, why: str, now: float) -> None:
        """Write that a client showed no key, or one that is not known."""
        self._seldom("", "turned away", f"{client} at the gateway: {why}", now)

    def _seldom(self, host: str, kind: str, text: str, now: float) -> None:
        said = self._said.get((host, text))
        if said is not None and now - said[0] < EVERY_S:
            said[1] += 1
            return
        times = 0 if said is None else int(said[1])
        if said is None and len(self._said) >= _SORTS:
            del self._said[next(iter(self._said))]
        self._said[host, text] = [now, 0]
        self._note(host, kind, f"{text} ({times} more times before)" if times else text)
