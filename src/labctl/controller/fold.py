"""What one host's lines and looks come to: the host as this process has seen it.

It *talks* as long as its channel is open and its newest line is no older than 2.5 intervals. A channel that
fell silent proves nothing: the host may sleep, hang, or sit behind a dead switch. What has been true for a
while (quiet, dark) is the domain's to fold: ``idle.fold`` sees every line and every look.

Which cards stepped down is known from what was read back after an order, and from what each line tells; the
newer of the two counts, by the host's own number. An order to step that is under way may have been done or
not, so the higher of old and new counts; if nobody ever hears what became of it, the lines are believed again
when it can't be done any more. A card of which nothing is told counts as declared.

A line is as old as it was made, not as it was read: while this process is frozen, lines wait in a buffer, and
after it they all come at once, said by a host that may have gone dark since. So a line's age is told by the
host's own clock against the line before it. Lines that come at the pace at which they were made are fresh.

Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from labctl.domain.sleep import idle
from labctl.domain.sleep.terms import Moment, Report, SeenHost, Sign

SILENT_AFTER = 2.5
"""Intervals without a line after which a channel counts as silent."""

ORDERED_FOR_S = 300.0
"""For so long an order to step may still be done of which nothing was heard: its deadline, and much more."""

LEAST_PATIENCE_S = 3.0
"""A channel is never called silent sooner than this, however short its interval."""


LATE_S = 2.0
"""How much longer than the one before a line may have been under way."""


def _life(report: Report) -> tuple[str, str, int]:
    return report.watch, report.boot_id, report.resumes


@dataclass(slots=True)
class Fold:
    """One host; not for two threads at once.

    ``interval_s`` is how often lines are asked for, ``watched`` (mono) since when.
    """

    name: str
    tick_s: float
    interval_s: float
    watched: float
    _at: float = float("-inf")
    _open: bool = False
    _report: Report | None = None
    _because: str = "it was not asked yet"
    _signs: Mapping[str, Sign] = field(default_factory=dict)
    _looked: float = float("-inf")
    _old_agent: bool = False
    _caps_w: Mapping[str, int] | None = None
    _caps_n: int = -1
    _ordered_at: float = float("-inf")
    _before: SeenHost | None = None
    _read: float = 0.0
    _began: float = 0.0
    _folded: Moment | None = None

    def heard(self, report: Report, now: Moment) -> bool:
        """Take in a line; return whether it tells more than that all is as it was."""
        report = replace(report, at=self._made(report))
        last, news = self._report, not self._open or self._old_agent
        if last is not None:
            slept = (report.boot_id, report.resumes) != (last.boot_id, last.resumes)
            news = news or slept or report.order != last.order or report.watch != last.watch
        if report.caps_w is not None:
            same = last is not None and (report.boot_id, report.resumes) == (last.boot_id, last.resumes)
            self._counts(self._believed(report.caps_w, report.caps_n, now) if same else report.caps_w)
        self._report, self._at, self._open = report, report.at, True
        self._because, self._old_agent, self._signs = "", False, {}
        self._fold(now)
        return news

    def _made(self, report: Report) -> float:
        """Return when a line was made, by our clock; ``report.at`` is when it was read."""
        last, before, began = self._report, self._began, report.at - report.up_s
        read_s, self._read = report.at - self._read, report.at
        self._began = began
        if last is None or _life(last) != _life(report):
            return report.at
        made_s = report.up_s - last.up_s
        if made_s / 2 <= read_s <= made_s + LATE_S:
            return report.at
        late_s = began - before
        if late_s <= LATE_S:
            return report.at
        self._began = before
        return report.at - late_s

    def ended(self, because: str, now: Moment, *, old_agent: bool = False) -> None:
        """Take in that there is no channel, or none any more.

        With ``old_agent`` the host did answer, but not to what was asked.
        """
        self._open, self._because, self._old_agent = False, because, old_agent
        if old_agent:
            self._at = now.mono
        self._fold(now)

    def looked(self, signs: Mapping[str, Sign], now: Moment) -> bool:
        """Take in a look from outside; return whether it changed what was seen."""
        news = dict(signs) != dict(self._signs)
        self._signs, self._looked, self._at = dict(signs), now.mono, max(self._at, now.mono)
        self._fold(now)
        return news

    def ordered(self, caps_w: Mapping[str, int], now: Moment) -> None:
        """Take in that the host is about to be told these caps: the higher of old and new counts."""
        self._ordered_at = now.mono
        self._counts(_higher(self._known_caps(), {**self._known_caps(), **caps_w}))

    def capped(self, caps_w: Mapping[str, int], n: int = 0) -> None:
        """Take in the caps that the host read back after its change ``n``."""
        self._ordered_at, self._caps_n = float("-inf"), n
        self._counts({**self._known_caps(), **caps_w})

    def unloaded(self) -> None:
        """Take in that the host's cards were freed; it holds for as long as the host stays quiet."""
        if self._before is not None:
            self._before = replace(self._before, unloaded=True)

    def _known_caps(self) -> Mapping[str, int]:
        if self._caps_w is not None:
            return self._caps_w
        return self._before.caps_w if self._before is not None else {}

    def _counts(self, caps_w: Mapping[str, int]) -> None:
        """Have these caps count from the next fold on, for as long as the host surely stays as it is."""
        self._caps_w = caps_w
        if self._before is not None:
            self._before = replace(self._before, caps_w=caps_w)

    def _believed(self, told: Mapping[str, int], n: int, now: Moment) -> Mapping[str, int]:
        """Return the caps after what a line tells, which may be older than what was read back."""
        if now.mono - self._ordered_at <= ORDERED_FOR_S or n < self._caps_n:
            return _higher(self._known_caps(), told)
        return told

    @property
    def opened(self) -> bool:
        """Whether the channel that there is has said something."""
        return self._open

    def talks(self, now: Moment) -> bool:
        """Return whether the channel is open and its newest line fresh."""
        patience = max(SILENT_AFTER * self.interval_s, LEAST_PATIENCE_S)
        return self._open and self._report is not None and now.mono - self._report.at <= patience

    def seen(self, now: Moment) -> SeenHost:
        """Return the host as it is seen at ``now``."""
        if now is self._folded and self._before is not None and self._caps_w is None:
            return self._before
        return self._fold(now)

    def _fold(self, now: Moment) -> SeenHost:
        talking, because = self.talks(now), self._because
        if self._open and not talking and self._report is not None:
            because = f"its channel has been silent for {now.mono - self._report.at:.0f} s"
        fresh = SeenHost(
            name=self.name,
            at=self._at,
            talking=talking,
            report=self._report,
            silent_because=because,
            signs={} if talking else self._signs,
            old_agent=self._old_agent,
            caps_w=self._caps_w or {},
            watched=self.watched,
        )
        self._before = folded = idle.fold(self._before, fresh, now, tick_s=self.tick_s)
        self._caps_w, self._folded = None, now
        return folded


def _higher(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Return the higher caps of two; a card that either does not tell of counts as declared."""
    return {card: max(one[card], other[card]) for card in one.keys() & other.keys()}
