"""Joules out of two looks at a host, one after the other.

What tells, best first: a meter at its plug, which sees all of the host; else its cards and its processors'
packages (RAPL), which is less than the host draws, and is not made more by guessing. A counter of energy goes
before watts, since it misses nothing between two looks. Watts are summed up as trapezoids, and only between
looks that are no further apart than ``longest_s``.

Counters begin anew, and each in its own way:

* A card's begins with its driver. What it says then was used since, so it counts from nothing.
* RAPL's wraps at a maximum, and begins anew with a boot or a sleep, of which nothing can be said.
* A plug's begins with the plug's own start.

Whatever a counter or watts say, a part that would have drawn more than ``MOST_W`` was not drawn.

After a gap a counter tells what was used in it. That is put on the gap as ``UNSEEN``, or as ``CHANGING``
where the host slept or booted meanwhile, and what was guessed for it is taken back. What nobody tells is
guessed: a host asleep draws ``ASLEEP_W``, any other what it last drew while idle; and it stays an estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..sleep.lifecycle import Mode
from ..telemetry import Telemetry
from .terms import IDLE, Doing

MOST_W = 3000.0
"""More than any card, processor package or host at one plug draws; a counter that says so is wrong."""

STOOD_MOST_S = 75.0
"""For how long the agent shows a card as it said last; see ``agent.telemetry``."""

RAPL_MOST_W = 600.0
"""What a package may draw for long; beyond its range by this, RAPL may have wrapped more than once."""

ASLEEP_W = 3.0
"""What a host without a meter is taken to draw asleep: memory, network card and standby supply."""

BUSY_PERCENT = 5
"""Utilisation of a card that is no more than noise, as ``inventory.idle.Signals.gpu_percent``."""

LOADED_MIB = 1024
"""Memory in use of a card beyond which something is loaded; drivers and desktops need less."""


@dataclass(frozen=True, slots=True)
class Plug:
    """What a plug's meter said, and when (mono): watts, and joules since it began to count."""

    at: float
    watts: float | None
    joules: float | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """A host at a moment; ``epoch`` changes with each boot and sleep. ``plug``: None where none is fresh."""

    wall: float
    mono: float
    doing: Doing
    epoch: tuple[str, int] = ("", 0)
    telemetry: Telemetry | None = None
    plug: Plug | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """What was used in the ``seconds`` (or, where those were counted already, ``over_s``) from ``begin``."""

    begin: float
    doing: Doing
    seconds: float
    over_s: float
    metered_s: float = 0.0
    joules: float = 0.0
    guessed: float = 0.0


@dataclass(frozen=True, slots=True)
class Gauge:
    """What a counter or a wattmeter said last: when (mono), in which epoch, joules and watts.

    ``stood_s``: for how long its counter has said the same. A card that may doze is asked once a minute, and
    in between it is shown as it was, so its next number tells of all that time.
    """

    at: float
    epoch: tuple[str, int]
    joules: float | None = None
    watts: float | None = None
    stood_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Count:
    """What is remembered of a host: its last look, its gauges, watts while idle, and guesses to take back."""

    look: Look
    gauges: Mapping[str, Gauge] = field(default_factory=dict)
    idle_w: float | None = None
    owed: Mapping[Doing, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Part:
    """What a gauge told since it was read last: joules (None: nothing), over how many seconds.

    ``moved_s``: over how many its counter moved, which is more where it had stood; 0: it stands.
    """

    joules: float | None
    over_s: float
    epoch_changed: bool = False
    moved_s: float = 0.0


def doing_of(mode: Mode, telemetry: Telemetry | None, leases: int) -> Doing:
    """Return what a host does; ``telemetry``: None where it does not talk."""
    if mode is Mode.ASLEEP:
        return Doing.ASLEEP
    if mode in (Mode.SUSPENDING, Mode.WAKING, Mode.VERIFYING):
        return Doing.CHANGING
    if telemetry is None:
        return Doing.UNSEEN
    loads = [gpu.busy_percent for gpu in telemetry.gpus if gpu.busy_percent is not None]
    queues = [one for engine in telemetry.engines for one in (engine.running, engine.waiting) if one]
    if queues or any(load > BUSY_PERCENT for load in loads) or (leases and not loads):
        return Doing.BUSY
    filled = any((gpu.vram_used_mib or 0) > LOADED_MIB for gpu in telemetry.gpus)
    if filled or any(engine.active and engine.models for engine in telemetry.engines):
        return Doing.LOADED
    return Doing.EMPTY


def count(before: Count | None, look: Look, longest_s: float) -> tuple[Count, tuple[Slice, ...]]:
    """Return what is remembered after a look, and what was used since the last one.

    Args:
        before: what was remembered; None: nothing, so that nothing can be said to have been used.
        look: what is seen now.
        longest_s: how far apart two looks may be, so that watts at both tell what was used between them.
    """
    gauges = _gauges(look)
    if before is None:
        return Count(look, gauges), ()
    seconds = max(0.0, look.mono - before.look.mono)
    after = replace(before, look=look, gauges=_kept(before.gauges, gauges))
    if look.plug is not None:
        after = replace(after, owed={})  # no card will be asked to tell of what was guessed without the plug
    parts = {
        name: _told(before.gauges[name], gauge, longest_s, _range(look, name))
        for name, gauge in gauges.items()
        if name in before.gauges
    }
    doing = before.look.doing
    made_good: tuple[Slice, ...] = ()
    late = [part for part in parts.values() if part.joules is not None and part.over_s > longest_s]
    if late:
        after, made_good = _made_good(after, late, look)
    fresh = [part.joules for part in parts.values() if part.joules is not None and part.over_s <= longest_s]
    now = Slice(look.wall - seconds, doing, seconds, seconds, joules=sum(fresh))
    whole = bool(parts) and len(fresh) == len(gauges)
    if whole and seconds <= longest_s:
        now = replace(now, metered_s=seconds)
        if doing in IDLE and seconds:
            after = replace(after, idle_w=_idle_w(parts.values(), look.plug, before.idle_w))
    elif not fresh:
        after, now = _guess(after, now, late=bool(late))
    else:  # something that draws did not tell: it is less than was used, and no measured mean
        now = replace(now, joules=0.0, guessed=now.joules)
    return after, (*made_good, now)


def _idle_w(parts: Iterable[_Part], plug: Plug | None, before: float | None) -> float | None:
    """Return what a host draws while idle; what it was known to draw as long as a counter of it stands."""
    if plug is not None:
        return plug.watts
    told = list(parts)
    if any(part.joules is None or not part.moved_s for part in told):
        return before
    return sum((part.joules or 0.0) / part.moved_s for part in told)


def _kept(before: Mapping[str, Gauge], now: Mapping[str, Gauge]) -> Mapping[str, Gauge]:
    """Return the gauges that may tell later: never both the plug's and the cards' of the same time."""
    kept = {name: _stood(before.get(name), one) for name, one in now.items()}
    if "plug" in now:
        return kept
    return {**{name: one for name, one in before.items() if name != "plug"}, **kept}


def _stood(before: Gauge | None, now: Gauge) -> Gauge:
    """Return a gauge with how long its counter has said the same."""
    if before is None or now.joules is None or (now.joules, now.epoch) != (before.joules, before.epoch):
        return now
    return replace(now, stood_s=min(before.stood_s + now.at - before.at, STOOD_MOST_S))


def _guess(after: Count, now: Slice, *, late: bool) -> tuple[Count, Slice]:
    """Put in what a host probably drew, and remember it for the case that a counter tells later."""
    if now.doing is Doing.ASLEEP:
        return after, replace(now, guessed=ASLEEP_W * now.seconds)
    if late or after.idle_w is None:
        return after, now
    guessed = after.idle_w * now.seconds
    owed = {**after.owed, now.doing: after.owed.get(now.doing, 0.0) + guessed}
    return replace(after, owed=owed), replace(now, guessed=guessed)


def _made_good(after: Count, late: list[_Part], look: Look) -> tuple[Count, tuple[Slice, ...]]:
    """Return what counters tell of a gap, instead of what was guessed for it."""
    joules = sum(part.joules or 0.0 for part in late)
    changed = any(part.epoch_changed for part in late)
    # Over a sleep nobody knows when: it was about now, since a host that sleeps draws nothing by its cards.
    over_s = 0.0 if changed else max(part.over_s for part in late)
    begin = look.wall - over_s
    told = Slice(begin, Doing.CHANGING if changed else Doing.UNSEEN, 0.0, over_s, joules=joules)
    back = (Slice(begin, doing, 0.0, over_s, guessed=-guess) for doing, guess in after.owed.items())
    return Count(after.look, after.gauges, after.idle_w), (told, *back)


def _gauges(look: Look) -> dict[str, Gauge]:
    """Return what tells of a host's energy: its plug alone where it has one."""
    if look.plug is not None:
        return {"plug": Gauge(look.plug.at, ("", 0), look.plug.joules, look.plug.watts)}
    told = look.telemetry
    if told is None:
        return {}
    found = {}
    for gpu in told.gpus:
        if not gpu.asleep and (gpu.energy_mj is not None or gpu.power_w is not None):
            joules = None if gpu.energy_mj is None else gpu.energy_mj / 1e3
            found[f"gpu {gpu.uuid or gpu.pci}"] = Gauge(look.mono, look.epoch, joules, gpu.power_w)
    for name, value in told.rapl_uj.items():
        found[f"rapl {name}"] = Gauge(look.mono, look.epoch, value / 1e6)
    return found


def _range(look: Look, name: str) -> float | None:
    """Return at how many joules a counter wraps; 0: never. None: nobody knows, so it must not go back."""
    if not name.startswith("rapl "):
        return 0.0
    most = None if look.telemetry is None else look.telemetry.rapl_max_uj.get(name.removeprefix("rapl "))
    return most / 1e6 if most else None


def _told(before: Gauge, now: Gauge, longest_s: float, wraps: float | None) -> _Part:
    over_s = now.at - before.at
    changed = now.epoch != before.epoch
    if over_s <= 0:  # the same reading once more
        return _Part(0.0, 0.0)
    joules, moved_s = None, before.stood_s + over_s
    if now.joules is not None and before.joules is not None:
        if wraps == 0.0:
            joules = now.joules - before.joules if now.joules >= before.joules else now.joules
        elif not changed:
            joules = _unwrapped(now.joules - before.joules, over_s, wraps)
        if joules is not None and joules > MOST_W * moved_s:
            joules = None
        if joules == 0.0:
            moved_s = 0.0
    if joules is None and now.watts is not None and before.watts is not None and over_s <= longest_s:
        mean, moved_s = (now.watts + before.watts) / 2, over_s
        joules = mean * over_s if mean <= MOST_W else None
    return _Part(joules, over_s, changed, moved_s)


def _unwrapped(difference: float, over_s: float, wraps: float | None) -> float | None:
    """Return what a counter that wraps has counted, or None where that is not sure."""
    if wraps is None:
        return difference if difference >= 0 else None
    if over_s * RAPL_MOST_W > wraps:
        return None
    return difference if difference >= 0 else difference + wraps
