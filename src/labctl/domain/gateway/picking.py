"""Choose who serves a request.

The order, best first:

1. awake with the model loaded, and a slot free;
2. awake, and a slot free;
3. awake, but all slots taken, where its line moves on sooner than anybody could be woken;
4. waking already;
5. asleep: whoever needs the fewest seconds to wake and load, in steps of ten; then the fewest watts;
6. awake, with a longer line than 3;
7. waking, but late: it should have been there long ago, so whoever sleeps is tried first; unknown or failed,
   which may come, or not;
8. asleep, but with no room in the power budget: it would wait for others to sleep.

Among equals of 1 and 2 whoever served the conversation last comes first, unless it has ``UNEVEN`` requests
more than another; then whoever has the fewest requests; then the table's order. Whoever did not answer a
moment ago comes after all others of its kind that did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import inf

from labctl.domain import budget_states
from labctl.domain.budget import Budget
from labctl.domain.budget_states import Phase, State
from labctl.domain.sleep.lifecycle import Mode

UNEVEN = 4
STEP_S = 10.0


class Ease(IntEnum):
    """How easily somebody could serve."""

    LOADED = 0
    AWAKE = 1
    WAKING = 2
    ASLEEP = 3
    UNSURE = 4


EASE: dict[Mode, Ease] = {
    Mode.READY: Ease.AWAKE,
    Mode.DRAINING: Ease.AWAKE,
    Mode.WAKING: Ease.WAKING,
    Mode.VERIFYING: Ease.WAKING,
    Mode.ASLEEP: Ease.ASLEEP,
    Mode.SUSPENDING: Ease.ASLEEP,
    Mode.UNKNOWN: Ease.UNSURE,
    Mode.FAILED: Ease.UNSURE,
}


@dataclass(slots=True)
class Option:
    """One who could serve; ``at`` is its place in the table. Not frozen, since that costs more than all else.

    ``seconds`` is what is expected until it begins: for a slot, or to wake and to load. ``fits``: the power
    budget has room for its wake. ``avoided``: it did not answer a moment ago. ``late``: it is waking, and has
    taken several times as long as it usually does.
    """

    at: int
    ease: Ease
    free: bool = True
    seconds: float = 0.0
    watts: float = 0.0
    running: int = 0
    last: bool = False
    fits: bool = True
    avoided: bool = False
    late: bool = False


def ordered(options: Sequence[Option]) -> list[Option]:
    """Return the options, best first."""
    if len(options) < 2:
        return list(options)
    soonest, least = inf, 1 << 30
    for option in options:
        if option.ease <= Ease.AWAKE:
            least = min(least, option.running)
        elif option.fits and option.ease <= Ease.ASLEEP:
            soonest = min(soonest, option.seconds)
    return sorted(options, key=lambda option: _rank(option, soonest, least))


def _rank(option: Option, soonest: float, least: int) -> tuple[float, ...]:
    ease, at = option.ease, option.at
    if ease <= Ease.AWAKE:
        if option.free:
            stays = option.last and option.running < least + UNEVEN
            return (option.avoided, ease, not stays, option.running, at)
        place = 2.0 if option.seconds <= soonest else 5.0
        return (option.avoided, place, option.seconds, ease, at)
    if ease is Ease.ASLEEP and not option.fits:
        return (option.avoided, 7.0, option.seconds, option.watts, at)
    place = 6.0 if option.late else {Ease.WAKING: 3.0, Ease.ASLEEP: 4.0, Ease.UNSURE: 6.0}[ease]
    return (option.avoided, place, round(option.seconds / STEP_S), option.watts, at)


def has_room(budget: Budget, modes: Mapping[str, Mode], host: str) -> bool:
    """Return whether the power budget lets a host wake now, be it with the caps of others stepped down."""
    if not budget.meters:
        return True
    phases = {name: _phase(mode) for name, mode in modes.items()}
    state = State(phases, tuple(float(bunch.watts) for bunch in budget.bunches))
    then = budget_states.waking(budget, state, host)
    return budget_states.caps_for(budget, then, {}).fits


def _phase(mode: Mode) -> Phase:
    if mode is Mode.ASLEEP:
        return Phase.ASLEEP
    return Phase.RAMPING if mode in (Mode.WAKING, Mode.VERIFYING) else Phase.AWAKE


def line_s(waiting: int, limit: float, usual_s: float) -> float:
    """Return how long somebody at the end of a line waits for a slot, in seconds."""
    return (waiting + 1) / limit * usual_s


def averaged(before: float, seconds: float, share: float = 0.2) -> float:
    """Return a running average with one more value."""
    return before + share * (seconds - before)
