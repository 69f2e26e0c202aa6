"""Heat, what holds clocks down, and caps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from ...capping import reached, same, same_address
from ..evidence import Gpu
from ..expected import ExpectedGpu
from ..saying import Voice, gravest, over, short
from ..seats import Seat
from ..terms import Case, Figure, Level, Result
from ..thresholds import Thresholds
from .cards import CardCheck

_LOOK = "look on the host with: nvidia-smi -q"
_COOL = "look at its fans, dust and the air around it; a lower cap cools at once: labctl powercap"
_HELD: Mapping[str, tuple[Level, str]] = {
    "power-cap": (Level.OK, "its power cap is reached"),
    "hw-slowdown": (Level.WARN, "its hardware slows it down"),
    "sw-thermal": (Level.WARN, "its driver slows it down for heat"),
    "hw-thermal": (Level.CRIT, "its hardware slows it down for heat"),
    "power-brake": (Level.CRIT, "its supply calls for less power"),
    "board-limit": (Level.OK, "its board's own limit is reached"),
    "reliability": (Level.OK, "its voltage limit is reached"),
}
_BRAKE = "look at its power cables and the supply's rating; a lower cap helps at once: labctl powercap"


class Temperature(CardCheck):
    """A card, its hottest spot and its memory are as cool as they must be.

    Where the card itself says at which temperature it slows down, that counts; else the limits.
    """

    code: ClassVar = "temperature"
    about: ClassVar = "a card, its hottest spot and its memory are cool enough"

    def card(self, case: Case, seat: Seat, gpu: Gpu) -> Iterator[Result]:
        """Yield UNKNOWN where a card has no sensor that tells: all have one."""
        say, found = self.say(case), list(_sensors(gpu, case.expected.thresholds))
        if found:
            yield _hottest(say, seat, found)
        else:
            why = short(gpu.errors.get("temperature_c", "")) or "it does not tell"
            yield say.unknown(seat.name, f"its temperature is not known: {why}", _LOOK)


def _sensors(gpu: Gpu, limits: Thresholds) -> Iterator[tuple[str, Figure]]:
    if gpu.temperature_c is not None:
        warn, crit = limits.temperature_warn_c, limits.temperature_crit_c
        if gpu.slowdown_c is not None and gpu.slowdown_c > 0:
            warn, crit = gpu.slowdown_c - limits.slowdown_margin_c, gpu.slowdown_c
        yield "it", Figure("temperature", gpu.temperature_c, "C", warn, crit)
    if gpu.hotspot_c is not None:
        figure = Figure("hotspot", gpu.hotspot_c, "C", limits.hotspot_warn_c, limits.hotspot_crit_c)
        yield "its hottest spot", figure
    if gpu.memory_c is not None:
        figure = Figure("memory", gpu.memory_c, "C", limits.memory_warn_c, limits.memory_crit_c)
        yield "its memory", figure


def _hottest(say: Voice, seat: Seat, found: list[tuple[str, Figure]]) -> Result:
    levels = [over(figure.value, figure.warn or 0, figure.crit or 0) for _, figure in found]
    level = gravest(*levels)
    figures = [figure for _, figure in found]
    told = [
        f"{what} has {figure.value:.0f} °C"
        for (what, figure), one in zip(found, levels, strict=True)
        if one is level
    ]
    return say.at(level, seat.name, ", ".join(told), _COOL, *figures)


class Throttle(CardCheck):
    """Nothing but an intended cap holds a card's clocks down; that one only informs."""

    code: ClassVar = "throttle"
    about: ClassVar = "neither heat nor its supply holds a card's clocks down"

    def card(self, case: Case, seat: Seat, gpu: Gpu) -> Iterator[Result]:
        """Yield UNKNOWN where it could not be asked."""
        say = self.say(case)
        if why := gpu.errors.get("throttle"):
            yield say.unknown(seat.name, f"what holds its clocks down is not known: {short(why)}", _LOOK)
        else:
            yield _throttled(say, seat, gpu)


def _throttled(say: Voice, seat: Seat, gpu: Gpu) -> Result:
    if not gpu.throttle:
        return say.ok(seat.name, "nothing holds its clocks down")
    held = [_HELD.get(one, (Level.WARN, f"held down: {one}")) for one in gpu.throttle]
    level = gravest(*(one for one, _ in held))
    reason = ", ".join(words for one, words in held if one is level)
    if level is not Level.OK:
        return say.at(level, seat.name, reason, _BRAKE if "power-brake" in gpu.throttle else _COOL)
    declared = seat.expected.cap_w if seat.expected is not None else None
    if "power-cap" in gpu.throttle and declared is not None:
        reason = f"its declared cap of {declared:g} W is reached, as intended"
    return say.informs(seat.name, reason)


class CapsDrift(CardCheck):
    """A card's power cap is the one that its host was told to keep.

    That is the declared one, or what a person ordered for a time, which only informs. A card without caps
    yields nothing; a declared cap that a card does not tell is UNKNOWN.
    """

    code: ClassVar = "caps-drift"
    about: ClassVar = "a card has the power cap that was declared or ordered"

    def card(self, case: Case, seat: Seat, gpu: Gpu) -> Iterator[Result]:
        """Yield what is found of a declared card that has or should have a cap."""
        if seat.expected is not None and (result := _cap(self.say(case), case, (seat, seat.expected), gpu)):
            yield result


def _cap(say: Voice, case: Case, whose: tuple[Seat, ExpectedGpu], gpu: Gpu) -> Result | None:
    seat, expected = whose
    declared, name = expected.cap_w, seat.name
    ordered = _ordered(case, gpu)
    wanted = ordered if ordered is not None else declared
    own = expected.declared
    # A card that nothing tells apart from others cannot be ordered by itself.
    place = f"{case.host}/{name}" if name in (own.slot, own.pci, own.uuid) else case.host
    back = f"labctl powercap --reset {place}, or cap it by --until or --persist"
    if gpu.cap_w is None:
        if declared is None:
            return None
        return say.unknown(name, f"it does not tell its cap, and declared are {declared:g} W", _LOOK)
    figure = Figure("cap", gpu.cap_w, "W")
    if wanted is not None and not reached(gpu.cap_w, wanted):
        return say.warn(name, f"its cap is {gpu.cap_w:g} W, and should be {wanted:g} W", back, figure)
    if declared is None and wanted is None:
        if gpu.cap_w > expected.counted_w + 1 and expected.counted_w > 0:
            reason = f"it may draw {gpu.cap_w:g} W, and the budget counts {expected.counted_w:g} W"
            return say.warn(name, reason, f"give it cap_w={expected.counted_w:.0f}, or tdp_w", figure)
        return say.ok(name, f"it has its own limit of {gpu.cap_w:g} W", figure)
    if ordered is not None and (declared is None or not reached(declared, ordered)):
        than = "" if declared is None else f", and declared are {declared:g} W"
        return say.informs(name, f"its cap is {gpu.cap_w:g} W by order of a person{than}", figure)
    return say.ok(name, f"its cap is {gpu.cap_w:g} W, as declared", figure)


def _ordered(case: Case, gpu: Gpu) -> float | None:
    """Return the cap that the host itself wants a card to have, by UUID or PCI address."""
    wanted = (case.evidence.caps_wanted_w if case.evidence is not None else None) or {}
    for card, watts in wanted.items():
        if same(card, gpu.uuid) or same_address(card, gpu.pci):
            return watts
    return None
