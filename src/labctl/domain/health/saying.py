"""How checks say what they found: one voice, so that all findings read alike.

Words of a host (names of units, the kernel's lines) go into reasons as they came; whoever shows them to
people makes them safe. Here they are only kept short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from ..sleep import wording
from .terms import Figure, Level, Result

_MOST_NAMES = 5
_MOST_LETTERS = 120


@dataclass(frozen=True, slots=True)
class Voice:
    """Says what one check found of one host; ``host`` is empty for the rack."""

    code: str
    host: str

    def ok(self, subject: str, reason: str, *figures: Figure) -> Result:
        """Return that it is well."""
        return Result(self.code, Level.OK, self.host, subject, reason, "", figures)

    def informs(self, subject: str, reason: str, *figures: Figure) -> Result:
        """Return that it is well, and worth telling people who look."""
        return Result(self.code, Level.OK, self.host, subject, reason, "", figures, informs=True)

    def warn(self, subject: str, reason: str, cure: str, *figures: Figure) -> Result:
        """Return that it needs a look."""
        return Result(self.code, Level.WARN, self.host, subject, reason, cure, figures)

    def crit(self, subject: str, reason: str, cure: str, *figures: Figure) -> Result:
        """Return that something does not work, or is about to break."""
        return Result(self.code, Level.CRIT, self.host, subject, reason, cure, figures)

    def unknown(self, subject: str, reason: str, cure: str, *figures: Figure) -> Result:
        """Return that nobody can tell."""
        return Result(self.code, Level.UNKNOWN, self.host, subject, reason, cure, figures)

    def withheld(self, subject: str) -> Result:
        """Return that nothing can be said now, so that what was found before still stands."""
        return Result(self.code, Level.UNKNOWN, self.host, subject, "nothing can be said now", informs=True)

    def at(self, level: Level, subject: str, reason: str, cure: str, *figures: Figure) -> Result:
        """Return it at a level; when it is well, there is nothing to cure."""
        return Result(self.code, level, self.host, subject, reason, cure if level else "", figures)

    def unread(self, errors: Mapping[str, str], section: str, subject: str = "") -> Result:
        """Return that a section of the host's document is missing, and why."""
        why = short(errors.get(section, "")) or "its agent said nothing of it"
        return self.unknown(
            subject,
            f"not known: {why}",
            f"see its report: labctl bundle {self.host}; an old agent: labctl apply",
        )


def over(value: float, warn: float, crit: float) -> Level:
    """Return the level of a number that is bad when it is high."""
    return Level.CRIT if value >= crit else Level.WARN if value >= warn else Level.OK


def under(value: float, warn: float, crit: float) -> Level:
    """Return the level of a number that is bad when it is low."""
    return Level.CRIT if value <= crit else Level.WARN if value <= warn else Level.OK


def gravest(*levels: Level) -> Level:
    """Return the worst of levels; OK where there are none."""
    return max(levels, key=lambda level: level.gravity, default=Level.OK)


def few(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    shown = [short(name) for name in names[:_MOST_NAMES]]
    if len(names) > _MOST_NAMES:
        shown.append(f"{len(names) - _MOST_NAMES} more")
    return wording.listed(shown) if shown else "none"


def short(text: str) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST_LETTERS else f"{line[: _MOST_LETTERS - 3]}..."


def lasting(seconds: float) -> str:
    """Return a length of time as a person says it; a host may state any number."""
    return wording.lasting(seconds) if isfinite(seconds) else "a time that is no number"
