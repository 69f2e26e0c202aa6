"""Keep who woke what, and who was turned away.

The log that is kept is in the store and is read by people, so nobody may fill it. Wakes are written each:
they are few, and cost more than a line. Of refusals, the same is written once in ``AGAIN_S``, with how often
it came since, and all of them together not more than six at once and one in ``EACH_S`` after that.
"""

from __future__ import annotations

from collections.abc import Callable

from labctl.domain.gateway.quota import full_after_one, wait_for_one

AGAIN_S = 600.0
EACH_S = 10.0
# How many sorts of refusals are told apart; the oldest loses its count to a new one.
_SORTS = 256

Note = Callable[[str, str, str], None]
"""``Books.note``: host, kind, text."""


class Audit:
    """Writes to the log that is kept. ``note`` never waits; what it can't write is lost."""

    __slots__ = ("_full_at", "_note", "_refused")

    def __init__(self, note: Note) -> None:
        self._note = note
        self._full_at = 0.0
        # When it was written (-1: not yet), and how often it came since.
        self._refused: dict[tuple[str, str, str], tuple[float, int]] = {}

    def woke(self, key: str, host: str, count: str) -> None:
        """Write that a key wakes a host; ``count`` says how many of how many these are."""
        self._note(host, "woken", f"woken for the key {key} of the gateway ({count})")

    def may_not_wake(self, key: str, host: str, why: str, now: float) -> None:
        """Write that a key was refused a wake."""
        self._seldom((host, "wake refused", f"not woken for the key {key} of the gateway: {why}"), now)

    def stranger(self, client: str, why: str, now: float) -> None:
        """Write that a client showed no key, or one that is not known."""
        self._seldom(("", "turned away", f"{client} was turned away at the gateway: {why}"), now)

    def _seldom(self, line: tuple[str, str, str], now: float) -> None:
        at, times = self._refused.get(line, (-1.0, 0))
        if at < 0 or now - at >= AGAIN_S:
            full_at = full_after_one(self._full_at, now, EACH_S)
            if not wait_for_one(full_at, now):
                self._full_at = full_at
                host, kind, text = line
                self._note(host, kind, f"{text} ({times} more times meanwhile)" if times else text)
                at, times = now, -1
        if line not in self._refused and len(self._refused) >= _SORTS:
            del self._refused[next(iter(self._refused))]
        self._refused[line] = (at, times + 1)
