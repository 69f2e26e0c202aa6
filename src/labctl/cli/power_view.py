"""Show a budget and what hosts say: tables in the order of the rack file, then what is wrong and what to do.

What is over is marked by a word in its row, so that a pipe and a colour-blind person see it too. Tables fit
into 80 columns as long as names are short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import floor
from typing import TYPE_CHECKING, Any

from labctl.cli import printer
from labctl.domain.budget import SLACK_W
from labctl.domain.outcome import counted
from labctl.domain.problem import Problem
from labctl.inventory import watts
from labctl.inventory.report import in_short

if TYPE_CHECKING:
    from labctl.cli.power import HostRow
    from labctl.domain.budget import Line, Report
    from labctl.domain.budget_change import Change
    from labctl.inventory import LoadedRack

_SPIKES = ("headroom", "spike", "spike limit")


def show_budget(report: Report, change: Change | None, notes: Sequence[str]) -> None:
    """Print what each power supply and circuit has to bear, and the cheapest change if that is too much."""
    if not report.lines:
        printer.out("No power supply and no circuit is declared, so there is no budget.")
        printer.out("Add circuits=[Circuit(...)] to the rack and psus=[Psu(...)] to its hosts.")
    if report.supplies:
        rows: list[tuple[Any, ...]] = [
            (f"{line.meter.host} {line.meter.name}", line.output_w, line.limit_w, *_rest(line), line.steady_w)
            for line in report.supplies
        ]
        _table(("supply", "output", "limit", *_SPIKES, "at the wall"), rows, report.supplies)
    if report.circuits:
        if report.supplies:
            printer.out()
        rows = [(line.meter.name, line.steady_w, line.limit_w, *_rest(line)) for line in report.circuits]
        _table(("circuit", "steady", "limit", *_SPIKES), rows, report.circuits)
    for note in notes:
        printer.out(f"note: {note}")
    if change is not None:
        printer.out()
        for line in report.over:
            printer.out(printer.style(f"over: {line.meter.title} {line.because}", "bold red"))
        lead = "" if change.shortages else "cheapest change that fits: "
        if change.caps:
            printer.out(f"{lead}{replace(change, shortages=()).text}")
        for shortage in change.shortages:
            printer.out(shortage.text)


def _rest(line: Line) -> tuple[float, float, float]:
    # Rounded down: what is over by half a watt has no room, and what has 1 W of room has all of it.
    return floor(line.headroom_w + SLACK_W), line.spike_w, line.peak_w


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]], lines: Sequence[Line]) -> None:
    """Print watts aligned to the right, and for each row in a word whether it fits."""
    texts = [[row[0], *(f"{watts:.0f} W" for watts in row[1:])] for row in rows]
    widths = [max(len(text[place]) for text in texts) for place in range(len(columns))]
    cells = [
        [text[0], *(cell.rjust(width) for cell, width in zip(text[1:], widths[1:], strict=True))]
        for text in texts
    ]
    verdicts = ["over" if line.over_w else "fits" for line in lines]
    printer.table((*columns, ""), [(*cell, word) for cell, word in zip(cells, verdicts, strict=True)])


def show_hosts(rows: Sequence[HostRow]) -> None:
    """Print what each host's cards draw, then everything that is not as declared."""
    printer.out()
    printer.table(("host", "cards", "draw", "status", "why"), [_host_row(row) for row in rows])
    for row in rows:
        if row.seen is not None:
            problems = [Problem(one.what, one.hint, host=row.host) for one in row.seen.wrong]
            printer.show_problems(problems, severity="warning")
        elif row.failure is not None and row.status == "failed":
            printer.show_problems([Problem(row.failure.reason, row.failure.hint, host=row.host)])


def _host_row(row: HostRow) -> tuple[str, str, str, str, str]:
    seen = row.seen
    if seen is None:
        return row.host, "?", "?", row.status, row.failure.reason if row.failure else ""
    if not seen.cards and not seen.wrong:
        return row.host, "none", "", row.status, ""
    cards = f"{'?' if seen.present is None else seen.present} of {seen.declared}"
    draw = "?" if seen.draw_w is None else f"{seen.draw_w:.0f} W"
    first = seen.wrong[0].what if seen.wrong else ""
    more = f" (and {counted(len(seen.wrong) - 1, 'more finding')})" if len(seen.wrong) > 1 else ""
    return row.host, cards, draw, row.status, first + more


# --- the document ---


def document(
    loaded: LoadedRack, report: Report, change: Change | None, rows: Sequence[HostRow] | None
) -> dict[str, Any]:
    """Return the JSON document; ``cli.power`` describes it."""
    wrong = [row for row in rows or () if row.status not in ("ok", "unreachable")]
    psus = {(host.name, psu.name): psu for host in loaded.rack.hosts for psu in host.psus}
    circuits = {circuit.name: circuit for circuit in loaded.rack.circuits}
    return {
        "ok": report.fits and not wrong,
        "file": in_short(loaded.path),
        "rack": loaded.rack.name,
        "fits": report.fits,
        "psus": [
            {
                "host": line.meter.host,
                "name": line.meter.name,
                "circuit": psus[line.meter.host, line.meter.name].circuit,
                "output_w": _watts(line.output_w),
                **_line(line),
            }
            for line in report.supplies
        ],
        "circuits": [
            {"name": line.meter.name, "upstream": circuits[line.meter.name].upstream, **_line(line)}
            for line in report.circuits
        ],
        "change": None if change is None else _change(change),
        "notes": list(watts.uncounted(loaded.rack)),
        "hosts": None if rows is None else [_host(row) for row in rows],
    }


def _watts(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _line(line: Line) -> dict[str, Any]:
    return {
        "steady_w": _watts(line.steady_w),
        "limit_w": _watts(line.limit_w),
        "headroom_w": _watts(line.headroom_w),
        "spike_w": _watts(line.spike_w),
        "spike_limit_w": _watts(line.peak_w),
        "spike_headroom_w": _watts(line.spike_headroom_w),
        "over_w": line.over_w,
        "because": line.because,
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "text": change.text,
        "taken_w": change.taken_w,
        "caps": [
            {
                "kind": cap.kind,
                "cards": [f"{host}/{card}" for host, card in cap.cards],
                "before_w": cap.before_w,
                "watts": cap.watts,
            }
            for cap in change.caps
        ],
        "shortages": [
            {
                "at": one.meter.title,
                "short_w": one.short_w,
                "move": list(one.move),
                "to": one.to,
                "text": one.text,
            }
            for one in change.shortages
        ],
    }


def _host(row: HostRow) -> dict[str, Any]:
    failure, seen = row.failure, row.seen
    return {
        "host": row.host,
        "status": row.status,
        "failure": None
        if failure is None
        else {"code": failure.code, "reason": failure.reason, "hint": failure.hint},
        "draw_w": _watts(seen.draw_w) if seen else None,
        "declared": seen.declared if seen else None,
        "present": seen.present if seen else None,
        "cards": [
            {
                "name": card.name,
                "model": card.model,
                "state": card.state,
                "power_w": _watts(card.power_w),
                "cap_w": _watts(card.cap_w),
                "declared_w": card.declared_w,
                "reason": card.reason,
            }
            for card in (seen.cards if seen else ())
        ],
        "wrong": [
            {"code": one.code, "what": one.what, "hint": one.hint, "card": one.card}
            for one in (seen.wrong if seen else ())
        ],
    }
