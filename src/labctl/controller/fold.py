"""What one host's lines and looks come to: the host as this process has seen it.

- It *talks* as long as its channel is open and its newest line is no older than 2.5 intervals. A channel
  that fell silent proves nothing: the host may sleep, hang, or sit behind a dead switch.
- It is *quiet since* the first of an unbroken chain of lines in which every reading was quiet. A line
  without readings is not quiet, and a gap, a boot or a sleep breaks the chain.
- It is *dark since* the first of an unbroken chain of looks that each saw two or more dark signs and no sign
  of life. A line from it breaks that chain.

Nothing here does I/O or reads a clock; all times are the controller's monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from labctl.domain.sleep.terms import Report, SeenHost, Sign

SILENT_AFTER = 2.5
"""Intervals without a line after which a channel counts as silent."""

LEAST_PATIENCE_S = 4.0
"""A channel is never called silent sooner than this, however short its interval."""

DARK_SIGNS = 2


@dataclass(slots=True)
class Fold:
    """One host; not for two threads at once. ``interval_s`` is how often lines are asked for."""

    name: str
    interval_s: float
    _at: float = float("-inf")
    _open: bool = False
    _report: Report | None = None
    _because: str = "it was not asked yet"
    _signs: Mapping[str, Sign] = field(default_factory=dict)
    _looked: float = float("-inf")
    _quiet_since: float | None = None
    _dark_since: float | None = None
    _old_agent: bool = False

    def heard(self, report: Report) -> bool:
        """Take in a line; return whether it tells more than that all is as it was."""
        last, news = self._report, not self._open or self._old_agent
        broken = last is None or report.at - last.at > self._patience()
        if last is not None and (report.boot_id, report.resumes) != (last.boot_id, last.resumes):
            broken = news = True
        if last is not None and report.order != last.order:
            news = True
        quiet = bool(report.readings) and all(reading.busy is False for reading in report.readings)
        if not quiet:
            self._quiet_since = None
        elif self._quiet_since is None or broken:
            self._quiet_since = report.at
        self._report, self._at, self._open = report, report.at, True
        self._because, self._old_agent = "", False
        self._signs, self._dark_since = {}, None
        return news

    def ended(self, because: str, at: float, *, old_agent: bool = False) -> None:
        """Take in that there is no channel, or none any more.

        With ``old_agent`` the host did answer, but not to what was asked.
        """
        self._open, self._because, self._old_agent = False, because, old_agent
        if old_agent:
            self._at, self._dark_since, self._quiet_since = at, None, None

    def looked(self, signs: Mapping[str, Sign], at: float) -> bool:
        """Take in a look from outside; return whether it changed what was seen."""
        told = set(signs.values())
        dark = Sign.ON not in told and list(signs.values()).count(Sign.DARK) >= DARK_SIGNS
        gap = at - self._looked > SILENT_AFTER * max(self.interval_s, LEAST_PATIENCE_S)
        news = dict(signs) != dict(self._signs)
        if not dark:
            self._dark_since = None
        elif self._dark_since is None or gap:
            self._dark_since = at
        self._signs, self._looked, self._at = dict(signs), at, max(self._at, at)
        return news

    def talks(self, now: float) -> bool:
        """Return whether the channel is open and its newest line fresh."""
        return self._open and self._report is not None and now - self._report.at <= self._patience()

    def seen(self, now: float) -> SeenHost:
        """Return the host as it is seen at ``now``."""
        talking = self.talks(now)
        because = self._because
        if self._open and not talking and self._report is not None:
            because = f"its channel has been silent for {now - self._report.at:.0f} s"
        return SeenHost(
            name=self.name,
            at=self._at,
            talking=talking,
            report=self._report,
            silent_because=because,
            signs={} if talking else self._signs,
            quiet_since=self._quiet_since if talking else None,
            old_agent=self._old_agent,
            dark_since=None if talking else self._dark_since,
        )

    def _patience(self) -> float:
        return max(SILENT_AFTER * self.interval_s, LEAST_PATIENCE_S)
