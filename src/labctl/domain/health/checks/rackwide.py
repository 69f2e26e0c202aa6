"""What all hosts share: the controller, supplies and circuits, and keys that get old."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from ...budget_measured import Drawn, Reading, readings
from ...sleep.lifecycle import Mode
from ..expected import ExpectedRack
from ..saying import Voice, few, lasting, over, under
from ..seats import seats, unread
from ..terms import Case, Figure, Level, Result
from ..thresholds import DAY_S, Thresholds

_LESS = "lower caps at once: labctl powercap; labctl power shows what each card draws"


class PowerOver:
    """No supply gives and no circuit carries more than it may for hours, by what cards draw now.

    Over by what is measured is critical. Where cards do not tell, they may draw up to their caps: if it could
    be over with those, it is UNKNOWN. A meter is only judged when all hosts that hang on it were asked.
    """

    code: ClassVar = "power-over"
    about: ClassVar = "no supply or circuit bears more than it may, by measured watts"

    def judge(self, rack: ExpectedRack, cases: Mapping[str, Case], now: float) -> Iterator[Result]:
        """Yield a result for each supply and circuit."""
        drawn = {name: _drawn(case) for name, case in cases.items()}
        for reading in readings(rack.power, drawn):
            if reading.hosts and all(host in cases for host in reading.hosts):
                yield _meter(Voice(self.code, reading.meter.host), rack.thresholds, reading)


def _drawn(case: Case) -> Drawn:
    """Return what a host draws: nothing where the controller says that it sleeps."""
    cards: dict[str, float | None] = {}
    for seat in seats(case):
        if seat.expected is not None and seat.gpu is not None:
            cards[seat.expected.label] = 0.0 if seat.gpu.asleep else seat.gpu.power_w
        elif seat.expected is not None and seat.expected.vendor not in unread(case):
            cards[seat.expected.label] = 0.0  # it is not there
    asleep = case.sleep is not None and case.sleep.mode is Mode.ASLEEP and case.evidence is None
    return Drawn(cards, on=not asleep)


def _meter(say: Voice, limits: Thresholds, reading: Reading) -> Result:
    meter, limit = reading.meter, reading.meter.limit_w
    subject = meter.name if meter.kind == "psu" else f"circuit {meter.name}"
    warn = limit * limits.power_warn_percent / 100
    figure = Figure("power", reading.least_w, "W", warn, limit)
    does, may = ("gives", "give") if meter.kind == "psu" else ("carries", "carry")
    base = f", {reading.base_w:.0f} W of that by declaration" if reading.base_w else ""
    reason = f"it {does} {reading.least_w:.0f} W of {limit:.0f} W ({meter.limit_text}){base}"
    level = over(reading.least_w, warn, limit) if reading.least_w > 0 else Level.OK
    if level is not Level.CRIT and reading.most_w > limit and reading.silent:
        reason = (
            f"it may {may} up to {reading.most_w:.0f} W of {limit:.0f} W; {few(reading.silent)}: not told"
        )
        return say.unknown(subject, reason, "labctl power shows what each card draws", figure)
    return say.at(level, subject, reason, _LESS, figure)


class Controller:
    """The controller can be asked, so that hosts that sleep are not taken for dead ones."""

    code: ClassVar = "controller"
    about: ClassVar = "the controller can be asked"

    def judge(self, rack: ExpectedRack, cases: Mapping[str, Case], now: float) -> Iterator[Result]:
        """Yield one result where the rack has a controller."""
        say = Voice(self.code, "")
        if not rack.controlled or not cases:
            return
        if any(case.sleep is not None for case in cases.values()):
            yield say.ok("", "the controller says who sleeps")
        else:
            yield say.crit("", "nobody can say who sleeps", "look at it: labctl controller status")


class Keys:
    """Keys and passwords for which the rack file states a day are replaced by that day."""

    code: ClassVar = "keys"
    about: ClassVar = "keys and passwords are replaced by the day that the rack file states"

    def judge(self, rack: ExpectedRack, cases: Mapping[str, Case], now: float) -> Iterator[Result]:
        """Yield a result for each."""
        say, limits = Voice(self.code, ""), rack.thresholds
        for name, day in rack.replace_by.items():
            left = day - now
            level = under(left, limits.certificate_warn_s, 0)
            late = f"was to be replaced {lasting(-left)} ago" if left <= 0 else f"has another {lasting(left)}"
            figure = Figure("days", left / DAY_S)
            yield say.at(level, name, late, "replace it, and write the next day into `replace_by`", figure)
