"""The part of the store that keeps what electricity was used, and what for.

What is added is added to what is there, in spans of a minute, an hour and a day at once, so that nothing has
to be summed up later and nothing is summed up twice. A call is one transaction: it added all of it, or
raised ``StoreError`` and nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from labctl.domain.energy.terms import Grain, Spent, SpentSum, Tokens


class EnergyBook(Protocol):
    """See the module's text; all times are wall seconds since 1970."""

    def add_spent(self, rows: Sequence[Spent]) -> None:
        """Add what hosts used; ``at`` may be any second of a span."""
        ...

    def add_tokens(self, rows: Sequence[Tokens]) -> None:
        """Add tokens of answers; kept by the hour and the day."""
        ...

    def spent(self, grain: Grain, *, since: int, until: int, offset_s: int | None) -> Sequence[SpentSum]:
        """Return sums by host and doing over the spans that begin in [since, until).

        With ``offset_s``, by which the rack's clock is ahead of UTC in that time, also by hour of the week.
        """
        ...

    def spans(self, grain: Grain, *, since: int, until: int, hosts: Sequence[str]) -> Sequence[Spent]:
        """Return the rows that begin in [since, until), the oldest first; no host named: of all."""
        ...

    def tokens(self, grain: Grain, *, since: int, until: int) -> Sequence[Tokens]:
        """Return sums by host and model, each with ``at`` = ``since``; of minutes there are none."""
        ...

    def forget_energy(self, *, now: float) -> int:
        """Forget spans that are older than their grain is kept; return how many rows."""
        ...
