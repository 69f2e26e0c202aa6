"""Would an order about power caps take a power supply or circuit over its limit, or further over it?

Counted as everywhere: the whole rack under load, with the caps of the rack file, and the ordered watts on
the cards that the order is about. What other cards were ordered to by hand before is not known without
asking every host, so it does not count here; ``labctl power`` shows it. An order that lifts no meter is never
refused, not even on a rack that is over already: lower caps are the way out of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labctl.domain import budget
from labctl.domain.capping import Order
from labctl.domain.problem import Problem
from labctl.inventory import Gpu, Rack, profiles, watts


@dataclass(frozen=True, slots=True)
class Excess:
    """The meters that an order takes over their limits; ``fits_w`` are the most watts a card that would not.

    ``fits_w`` is None where even the lowest cap of one of those cards would. ``already``: the rack was over
    before.
    """

    lines: tuple[budget.Line, ...]
    fits_w: int | None
    already: bool

    def problems(self) -> list[Problem]:
        """Return one problem for each meter, with the way out."""
        verb = "add nothing to what is over" if self.already else "fit"
        fitting = f"{self.fits_w} W would {verb}; " if self.fits_w is not None else ""
        hint = f'{fitting}if you know better, say why: --override "WORDS"'
        return [Problem(f"with these caps {line.meter.title} {line.because}", hint) for line in self.lines]


def excess(order: Order, cards: Mapping[str, Sequence[Gpu]], rack: Rack) -> Excess | None:
    """Return what the order takes over its limit, or None; ``cards`` are those that it caps, by host."""
    if order.watts is None:
        return None
    before = watts.rack_budget(rack)
    over = _worsened(before, rack, cards, order.watts)
    if not over:
        return None
    lowest = max(profiles.of(gpu).cap_min_w or 1 for gpus in cards.values() for gpu in gpus)
    fits, too_much = lowest - 1, order.watts
    # The lower the cap, the less every meter bears, so halving finds where it begins to be too much.
    while too_much - fits > 1:
        middle = (fits + too_much) // 2
        fits, too_much = (fits, middle) if _worsened(before, rack, cards, middle) else (middle, too_much)
    return Excess(over, fits if fits >= lowest else None, already=not before.fits)


def _worsened(
    before: budget.Report, rack: Rack, cards: Mapping[str, Sequence[Gpu]], cap_w: int
) -> tuple[budget.Line, ...]:
    return budget.worsened(before, budget.report(watts.with_cap(rack, cards, cap_w)))
