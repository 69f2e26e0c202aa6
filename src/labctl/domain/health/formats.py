"""Results in the formats that other programs read: a monitoring plugin's answer, and Prometheus' text.

A plugin (Nagios, Icinga, Checkmk) says everything in one line, perhaps with more lines of text after it, and
numbers behind a bar: ``'label'=value[unit];warn;crit``. What would be read as a separator is replaced.

The textfile collector of node_exporter reads metrics without times; each name has one kind and one help.
``labctl_health_level`` has 0 OK, 1 WARN, 2 CRIT, 3 UNKNOWN, as exit codes have.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from .results import Finding, worst
from .terms import Figure, Level, Result
from .wording import about, one_line

_WORDS = {Level.OK: "OK", Level.WARN: "WARNING", Level.CRIT: "CRITICAL", Level.UNKNOWN: "UNKNOWN"}
_LOUD = 3  # results named in a plugin's first line
_LISTED = 30
# Units that plugins know; others are left out.
_UNITS = {"s": "s", "%": "%", "MiB": "MB"}
_NAMES = {"W": "watts", "C": "celsius", "MiB": "mebibytes", "s": "seconds", "%": "percent", "": ""}


def by_gravity(results: Iterable[Result]) -> list[Result]:
    """Return results, the gravest first, then by host."""
    return sorted(results, key=lambda one: (-one.level.gravity, one.host, one.code, one.subject))


def plugin(results: Sequence[Result]) -> str:
    """Return what a monitoring plugin prints; its exit status is ``int(worst(results))``."""
    bad = by_gravity(one for one in results if one.level)
    level = worst(results)
    counts = Counter(one.level for one in bad)
    summary = [
        f"{counts[each]} {each.name}" for each in (Level.CRIT, Level.WARN, Level.UNKNOWN) if counts[each]
    ]
    said = ", ".join(summary) or (f"{len(results)} checks are well" if results else "nothing was looked at")
    first = f"LABCTL {_WORDS[level]} - {said}"
    if bad:
        shown = "; ".join(f"{about(one)}: {one_line(one.reason)}" for one in bad[:_LOUD])
        first = f"{first}: {shown}"
    numbers = " ".join(_perfdata(results))
    lines = [_unbarred(first) + (f" | {numbers}" if numbers else "")]
    lines += [_unbarred(f"{one.level.name}: {about(one)}: {one_line(one.reason)}") for one in bad[:_LISTED]]
    if len(bad) > _LISTED:
        lines.append(f"... and {len(bad) - _LISTED} more")
    return "\n".join(lines)


def _unbarred(text: str) -> str:
    return text.replace("|", "/")


def _perfdata(results: Iterable[Result]) -> Iterator[str]:
    seen: set[str] = set()
    for one in sorted(results, key=lambda each: each.key):
        for figure in one.figures:
            label = re.sub(r"[^A-Za-z0-9_./:-]+", "_", "/".join((one.host or "rack", one.code, one.subject)))
            label = f"{label.rstrip('/')}/{re.sub(r'[^A-Za-z0-9_.-]+', '_', figure.label)}"
            if label not in seen:
                seen.add(label)
                yield f"'{label}'={_perf(figure)}"


def _perf(figure: Figure) -> str:
    limits = ["" if limit is None else _number(limit) for limit in (figure.warn, figure.crit)]
    return ";".join([f"{_number(figure.value)}{_UNITS.get(figure.unit, '')}", *limits]).rstrip(";")


def _number(value: float) -> str:
    """Return a number as both formats read it; never in words."""
    if value != value or value in (float("inf"), float("-inf")):
        return "0"
    return f"{value:.6f}".rstrip("0").rstrip(".") or "0"


def exposition(findings: Sequence[Finding], at: float) -> str:
    """Return the findings of a run that ended at ``at`` (wall) in Prometheus' text format."""
    # Two subjects may look alike once they are one line; a name twice would spoil the whole file.
    alike = {
        _of(one.result): one.result for one in sorted(findings, key=lambda one: one.result.level.gravity)
    }
    results = sorted(alike.values(), key=lambda one: one.key)
    levels = Counter(one.level for one in results)
    since = {one.result.key: one.since for one in findings}
    lines = [
        *_head("labctl_health_level", "How a check went: 0 OK, 1 WARN, 2 CRIT, 3 UNKNOWN."),
        *(f"labctl_health_level{{{_of(one)}}} {int(one.level)}" for one in results),
        *_head("labctl_health_level_since_seconds", "Since when that is so, in seconds since 1970."),
        *(f"labctl_health_level_since_seconds{{{_of(one)}}} {_number(since[one.key])}" for one in results),
        *_head("labctl_health_results", "How many results have a level."),
        *(f'labctl_health_results{{level="{each.name.lower()}"}} {levels[each]}' for each in Level),
        *_figures(results),
        *_head("labctl_health_run_seconds", "When the last whole run ended, in seconds since 1970."),
        f"labctl_health_run_seconds {_number(at)}",
    ]
    return "\n".join(lines) + "\n"


def _head(name: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} gauge"


def _of(one: Result) -> str:
    return f'code="{_label(one.code)}",host="{_label(one.host)}",subject="{_label(one.subject)}"'


def _label(text: str) -> str:
    return one_line(text, 200).replace("\\", "\\\\").replace('"', '\\"')


def _figures(results: Iterable[Result]) -> Iterator[str]:
    """Yield what was measured, one name for each unit."""
    by_name: dict[str, dict[str, str]] = {}
    for one in results:
        for figure in one.figures:
            unit = _NAMES.get(figure.unit, "")
            name = "_".join(part for part in ("labctl_health_figure", unit) if part)
            labels = f'{_of(one)},figure="{_label(figure.label)}"'
            by_name.setdefault(name, {}).setdefault(labels, _number(figure.value))
    for name, rows in sorted(by_name.items()):
        yield from _head(name, "What a check measured.")
        yield from (f"{name}{{{labels}}} {value}" for labels, value in rows.items())
