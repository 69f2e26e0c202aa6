"""From the records of a run to the tables of docs/performance.md: what was measured, and what was asked.

Medians over the rounds; ratios are between medians of the same run. A target's line says yes or no, never a
rounding in our favour; what could not be measured says so and counts as missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

OURS, NGINX, LITELLM, DIRECT = "labctl", "nginx", "LiteLLM", "direct"
_ORDER = (DIRECT, NGINX, "HAProxy", OURS, LITELLM, "shared")
WOL_PROXY = 0.16  # of llama-swap's requests a second to nginx's, measured once on a machine like this one
BEGIN = "<!-- python -m bench.gateway --write-docs: begin -->"
END = "<!-- python -m bench.gateway --write-docs: end -->"
Record = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """The records of one run."""

    about: Record
    records: Sequence[Record]
    missing: dict[str, str]

    def values(self, who: str, what: str, key: str) -> list[float]:
        """Return one number of all rounds."""
        found = (record for record in self.records if record["who"] == who and record["what"] == what)
        return [record[key] for record in found if key in record]

    def mid(self, who: str, what: str, key: str) -> float | None:
        """Return the median, or None where nothing was measured."""
        values = self.values(who, what, key)
        return median(values) if values else None

    @property
    def names(self) -> list[str]:
        """Everybody who was measured, in the order of the table."""
        return sorted({record["who"] for record in self.records}, key=_ORDER.index)


def render(results: Results) -> str:
    """Return the Markdown for a run."""
    parts = [_about(results), _table(results), _targets(results)]
    shared = [record for record in results.records if record["what"] == "shared"]
    if shared:
        parts.append(_shared(shared))
    return "\n\n".join(parts) + "\n"


def write_into(page: Path, text: str) -> None:
    """Replace what stands between the marks in ``page``; raise ``ValueError`` unless each is there once."""
    whole = page.read_text()
    if whole.count(BEGIN) != 1 or whole.count(END) != 1:
        raise ValueError(f"{page} must hold each of the two marks once: {BEGIN} {END}")
    before, rest = whole.split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}")


def _about(results: Results) -> str:
    words = (
        "Measured {at} at commit {commit} on {cores} cores ({cpu}, kernel {kernel}), Python {python}.",
        "Load average {load:.1f} before; other work took {foreign:.0%} of the machine (median). {scheduling}",
        "Medians of {rounds} rounds in random order; what stands between has processor {serving}, clients",
        "and upstream share processor {asking}. Made by `{command}`.",
    )
    missing = (f"{name} is missing: {why.splitlines()[0]}" for name, why in results.missing.items())
    return "\n\n".join([" ".join(words).format(**results.about), *missing])


_Cell = tuple[str, str, str, Callable[[float], str]]
_ROWS: tuple[_Cell, ...] = (
    ("requests/s, 32 connections", "closed", "per_s", lambda v: f"{v:,.0f}"),
    ("p50 at a fixed rate, ms", "open", "took_p50", lambda v: f"{v:.3f}"),
    ("p99 at a fixed rate, ms", "open", "took_p99", lambda v: f"{v:.3f}"),
    ("share of a core then", "open", "cpu", lambda v: f"{v:.0%}"),
    ("1,000 streams: dropped", "streams", "dropped", lambda v: f"{v:.0f}"),
    ("first token p50, ms", "streams", "first_p50", lambda v: f"{v:.2f}"),
    ("first token p99, ms", "streams", "first_p99", lambda v: f"{v:.2f}"),
    ("token's way p50, ms", "streams", "way_p50", lambda v: f"{v:.2f}"),
    ("token's way p99, ms", "streams", "way_p99", lambda v: f"{v:.2f}"),
    ("jitter p99, ms", "streams", "jitter_p99", lambda v: f"{v:.2f}"),
    ("glued tokens", "streams", "glued_share", lambda v: f"{v:.2%}"),
    ("tokens over 20 ms late", "streams", "late_share", lambda v: f"{v:.2%}"),
    ("share of a core", "streams", "cpu", lambda v: f"{v:.0%}"),
    ("memory idle, MB", "idle", "memory_mb", lambda v: f"{v:.0f}"),
    ("memory at most, MB", "streams", "peak_mb", lambda v: f"{v:.0f}"),
)


def _table(results: Results) -> str:
    names = [name for name in results.names if results.values(name, "closed", "per_s")]
    lines = ["|  | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for title, what, key, told in _ROWS:
        cells = (results.mid(name, what, key) for name in names)
        lines.append(f"| {title} | " + " | ".join("–" if c is None else told(c) for c in cells) + " |")
    rates = {r["per_s_asked"] for r in results.records if r["what"] == "open" and r["who"] == LITELLM}
    if rates:
        lines += ["", f"The fixed rate is 1,000 requests/s, for LiteLLM {rates.pop()}: it serves no more."]
    return "\n".join(lines)


def _targets(results: Results) -> str:
    lines = ["| target | asked | measured | met |", "| --- | --- | --- | --- |"]
    for title, asked, measured, met in _judged(results):
        word = "not measured, **no**" if met is None else "yes" if met else "**no**"
        lines.append(f"| {title} | {asked} | {measured} | {word} |")
    return "\n".join(lines)


def all_met(results: Results) -> bool:
    """Return whether every target was measured and met."""
    return all(met for *_, met in _judged(results))


def _judged(results: Results) -> Iterator[tuple[str, str, str, bool | None]]:
    mid = results.mid
    speed = {name: mid(name, "closed", "per_s") for name in (OURS, NGINX, LITELLM)}
    for title, other, least in (
        ("requests/s at 32 connections, to nginx's", NGINX, 0.5),
        ("the same, to llama-swap's wol-proxy (0.16 of nginx's)", NGINX, 3 * WOL_PROXY),
        ("the same, to LiteLLM's", LITELLM, 100.0),
    ):
        share = ratio(speed[OURS], speed[other])
        scale = 1 / WOL_PROXY if "wol-proxy" in title else 1.0
        yield _at_least(title, share, least, scale)
    direct = mid(DIRECT, "open", "took_p50")
    added = [
        None if value is None or direct is None else value - direct
        for value in (mid(OURS, "open", "took_p50"), mid(NGINX, "open", "took_p50"))
    ]
    yield _at_most("p50 latency that it adds, to what nginx adds", ratio(*added), 2.0, "×", "{:.2f}")
    for title, key, most, unit, form in (
        ("1,000 streams at 50 tokens/s on one core: dropped, all rounds", "dropped", 0, "", "{:.0f}"),
        ("the same: glued tokens", "glued_share", 0.01, " of all", "{:.3%}"),
        ("the same: tokens over 20 ms late", "late_share", 0.01, " of all", "{:.3%}"),
        ("the same: jitter p99", "jitter_p99", 10.0, " ms", "{:.2f}"),
    ):
        values = results.values(OURS, "streams", key)
        value = (sum(values) if key == "dropped" else median(values)) if values else None
        yield _at_most(title, value, most, unit, form)
    first = ratio(mid(OURS, "streams", "first_p50"), mid(NGINX, "streams", "first_p50"))
    yield _at_most("first token p50, to nginx's", first, 2.0, "×", "{:.2f}")
    yield _at_most("memory idle", mid(OURS, "idle", "memory_mb"), 45.0, " MB", "{:.1f}")
    peaks = results.values(OURS, "streams", "peak_mb")
    yield _at_most("memory at 1,000 streams", max(peaks, default=None), 70.0, " MB", "{:.1f}")
    shared = {r["processes"]: r["per_s"] / r["cores"] for r in results.records if r["what"] == "shared"}
    scaled = ratio(shared[max(shared)], shared.get(1)) if shared else None
    yield _at_least("processes on one port: requests by processor time, to one alone", scaled, 0.8, 1.0)


def ratio(one: float | None, other: float | None) -> float | None:
    """Return one in terms of the other, where both were measured."""
    return None if one is None or not other else one / other


def _at_least(
    title: str, value: float | None, least: float, scale: float
) -> tuple[str, str, str, bool | None]:
    if value is None:
        return title, f"≥ {least * scale:g}×", "–", None
    return title, f"≥ {least * scale:g}×", f"{value * scale:.2f}×", value >= least


def _at_most(
    title: str, value: float | None, most: float, unit: str, form: str
) -> tuple[str, str, str, bool | None]:
    asked = "≤ " + (f"{most:.0%}" if "%" in form else f"{most:g}") + unit
    if value is None:
        return title, asked, "–", None
    return title, asked, form.format(value) + unit, value <= most


def _shared(records: Sequence[Record]) -> str:
    lines = [
        f"Several processes on one port, each held to {records[0]['quota']:.0%} of a processor by its "
        "control group, so that one holds several:",
        "",
        "| processes | requests/s | processors that they had | by processor time | the one that had least |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {r['processes']} | {r['per_s']:,.0f} | {r['cores']:.2f} | {r['per_s'] / r['cores']:,.0f}/s | "
            f"{r['least']:.0%} |"
            for r in records
        ),
    ]
    return "\n".join(lines)
