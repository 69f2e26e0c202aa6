"""The answer: kWh, money, kWh for a million tokens, and what sleeping saved.

*Saved by sleeping* compares a host with itself: had it not slept, it would have drawn while idle what it
draws while awake and idle, as measured. From that goes what it did draw asleep, and all that its ways to
sleep and back cost: where nothing told what those drew, they are counted with the idle watts. So::

    saved = idle watts * seconds asleep - joules asleep - joules of changing

It is an estimate unless a meter told both sides. Where a host was never measured awake and idle, nothing is
said to be saved.

*For a million tokens* all that a host used is counted, also while it was idle or asleep: that is what they
cost. Tokens are those of answers, as the gateway counted them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .terms import IDLE, J_PER_KWH, Doing, SpentSum, Tokens

LEAST_IDLE_S = 600.0
"""How long a host must have been measured awake and idle before that is believed to be what it draws."""

_MILLION = 1e6
_MOSTLY = 0.95


@dataclass(frozen=True, slots=True)
class Line:
    """What doing one thing took: seconds, kWh with the estimated part of it, and money (None: no tariff)."""

    doing: Doing
    seconds: float
    kwh: float
    estimated_kwh: float
    money: float | None


@dataclass(frozen=True, slots=True)
class Saved:
    """What sleeping saved; ``because`` says by which watts, or why nothing can be said (then kWh is None).

    ``wakes_kwh`` is what the ways to sleep and back took, which is in ``kwh`` already. ``estimated``: not
    both sides were measured.
    """

    kwh: float | None
    money: float | None
    estimated: bool
    wakes_kwh: float
    idle_w: float | None
    asleep_w: float | None
    because: str


@dataclass(frozen=True, slots=True)
class Used:
    """What a host (or the rack: empty) used; per million tokens None where there were none."""

    host: str
    lines: tuple[Line, ...]
    kwh: float
    estimated_kwh: float
    money: float | None
    prompt_tokens: int
    answer_tokens: int
    kwh_per_mtok: float | None
    money_per_mtok: float | None
    saved: Saved


@dataclass(frozen=True, slots=True)
class Account:
    """All hosts and the rack, from ``since`` until ``until`` (wall); ``currency`` is empty without a tariff.

    ``mean_price``: hours are forgotten by now for a part of it, so money is by the mean price of a week.
    """

    since: float
    until: float
    currency: str
    mean_price: bool
    hosts: tuple[Used, ...]
    rack: Used
