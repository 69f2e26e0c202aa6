"""The newest findings as a document: what ``labctl health --cron`` leaves for everybody who shows them.

``labctl status``, the web page and the metrics read this document and never run checks themselves, so that
looking costs nothing. It holds every result of the last whole run, the good ones too, since a check that
vanished is not a check that passed::

    {"format": 1, "at": 1764400000.0,
     "results": [{"code": "gpu-present", "level": "CRIT", "host": "rig", "subject": "slot0",
                  "reason": "...", "cure": "...", "informs": false, "since": 1764390000.0,
                  "figures": [{"label": "...", "value": 81.0, "unit": "C", "warn": 80.0, "crit": null}]}]}

``since`` is the wall time at which that level was first seen, looks that did not count yet included. Reading
is strict: a document that is not whole is None, and whoever reads says that nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .terms import Figure, Level, Result

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """A result, and since when (wall, seconds) its level is what it is."""

    result: Result
    since: float


@dataclass(frozen=True, slots=True)
class Findings:
    """All results of one run, which ended at the wall time ``at``."""

    at: float
    findings: tuple[Finding, ...] = ()

    @property
    def level(self) -> Level:
        """Return the gravest level; UNKNOWN where nothing was looked at."""
        return worst(one.result for one in self.findings)

    def of(self, host: str) -> tuple[Finding, ...]:
        """Return the findings of a host that are not well, the gravest first."""
        bad = [one for one in self.findings if one.result.host == host and one.result.level]
        return tuple(sorted(bad, key=lambda one: (-one.result.level.gravity, one.result.key)))


def worst(results: Iterable[Result]) -> Level:
    """Return the gravest level of results; UNKNOWN where there are none."""
    return max((one.level for one in results), key=lambda level: level.gravity, default=Level.UNKNOWN)


def document_of(found: Findings) -> dict[str, Any]:
    """Return the document, for JSON."""
    return {"format": FORMAT, "at": found.at, "results": [_shown(one) for one in found.findings]}


def results_of(document: object) -> Findings | None:
    """Return what a document holds; None: it is of another form, or not whole."""
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        return None
    listed = document.get("results")
    try:
        if not isinstance(listed, list):
            return None
        return Findings(_number(document.get("at")), tuple(_finding(one) for one in listed))
    except (KeyError, TypeError, ValueError):
        return None


def result_shown(one: Result) -> dict[str, Any]:
    """Return a result, for JSON."""
    return {
        "code": one.code,
        "level": one.level.name,
        "host": one.host,
        "subject": one.subject,
        "reason": one.reason,
        "cure": one.cure,
        "informs": one.informs,
        "figures": [
            {
                "label": each.label,
                "value": each.value,
                "unit": each.unit,
                "warn": each.warn,
                "crit": each.crit,
            }
            for each in one.figures
        ],
    }


def _shown(one: Finding) -> dict[str, Any]:
    return {**result_shown(one.result), "since": one.since}


def _finding(shown: Mapping[str, Any]) -> Finding:
    words = {name: _text(shown[name]) for name in ("code", "host", "subject", "reason", "cure")}
    figures = tuple(_figure(each) for each in shown.get("figures", ()))
    informs = shown.get("informs") is True
    result = Result(level=Level[_text(shown["level"])], figures=figures, informs=informs, **words)
    return Finding(result, _number(shown["since"]))


def _figure(shown: Mapping[str, Any]) -> Figure:
    warn, crit = (None if shown[name] is None else _number(shown[name]) for name in ("warn", "crit"))
    return Figure(_text(shown["label"]), _number(shown["value"]), _text(shown["unit"]), warn, crit)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a text: {type(value).__name__}")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"not a number: {type(value).__name__}")
    return float(value)
