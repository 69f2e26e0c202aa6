"""The values that energy is said in. Energy is in joules, until it is shown to people in kWh.

``at`` is wall seconds since 1970, the beginning of a span of a ``Grain``. ``joules`` is what a counter or a
meter told, ``guessed`` what was put in where none did; both together is what a host used. ``metered_s`` is
for how much of ``seconds`` something told, so ``joules / metered_s`` is a measured mean in watts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum

J_PER_KWH = 3.6e6


class Doing(StrEnum):
    """What a host does with its watts."""

    BUSY = "busy"
    LOADED = "loaded"  # awake and idle, with a model in its cards
    EMPTY = "empty"  # awake and idle, with none
    CHANGING = "changing"  # on its way to sleep, waking, or looked at after a wake
    ASLEEP = "asleep"  # or powered off, on purpose
    UNSEEN = "unseen"  # nobody knows


IDLE = (Doing.LOADED, Doing.EMPTY)


class Grain(IntEnum):
    """How long a row's span is, in seconds; the finer, the sooner it is forgotten (``KEPT_S``)."""

    MINUTE = 60
    HOUR = 3600
    DAY = 86400


KEPT_S: Mapping[Grain, float] = {
    Grain.MINUTE: 2 * 86400.0,
    Grain.HOUR: 400 * 86400.0,  # a year, so that hours of last summer still have their own price
    Grain.DAY: 10 * 366 * 86400.0,
}


@dataclass(frozen=True, slots=True)
class Spent:
    """What a host used while it did one thing, within the span that begins at ``at``."""

    at: int
    host: str
    doing: Doing
    seconds: float = 0.0
    metered_s: float = 0.0
    joules: float = 0.0
    guessed: float = 0.0


@dataclass(frozen=True, slots=True)
class SpentSum:
    """The sum of rows of a host doing one thing, of one hour of the week.

    ``slot``: 0 is Monday from midnight by the clock of the rack; None: of all hours.
    """

    host: str
    doing: Doing
    slot: int | None
    seconds: float
    metered_s: float
    joules: float
    guessed: float


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a model at a host, of prompts and answers, within the span that begins at ``at``."""

    at: int
    host: str
    model: str
    prompt: int
    answer: int


def grain_for(since: float, now: float) -> Grain:
    """Return the finest grain that still holds everything since a wall time."""
    for grain, kept_s in KEPT_S.items():
        if since >= now - kept_s:
            return grain
    return Grain.DAY
