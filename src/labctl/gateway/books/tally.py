"""Tokens for the energy ledger: what the counters say more than when they were written last.

The counters only rise, so what the store did not take is in the next difference, and nothing is kept twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from labctl.domain.energy.terms import Tokens
from labctl.gateway.books.thread import Clerk

Totals = Mapping[tuple[str, str], tuple[int, int]]
"""Tokens of prompts and answers since this process began, by host and model."""


class Tally:
    """Writes differences; called in the event loop."""

    def __init__(self, clerk: Clerk, wall: Callable[[], float]) -> None:
        self._clerk, self._wall = clerk, wall
        self._written: Totals = {}
        self._writing = False

    def note(self, totals: Totals) -> None:
        """Write what is new, unless a piece of it is being written."""
        if self._writing:
            return
        at, rows = int(self._wall()), []
        for (host, model), (prompt, answer) in totals.items():
            before = self._written.get((host, model), (0, 0))
            if (prompt, answer) != before:
                rows.append(Tokens(at, host, model, prompt - before[0], answer - before[1]))
        if not rows:
            return
        self._writing = True

        def done(came: Exception | None) -> None:
            self._writing = False
            if came is None:
                self._written = totals

        self._clerk.do(lambda store: store.add_tokens(rows), done)
