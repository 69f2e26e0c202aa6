"""From the records of a run to the tables of docs/performance.md.

Medians over the turns; ratios are between medians of the same run. A line of the targets says what was asked,
what was measured, and yes or no, never a rounding in our favour.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

BEGIN = "<!-- bench/run.py --write-docs: begin -->"
END = "<!-- bench/run.py --write-docs: end -->"
PHASES = {"again": "No change", "first": "First run"}
NAMES = {"labctl": "labctl", "pyinfra": "pyinfra `-y`", "ansible": "Ansible, tuned", "floor": "floor"}
# Phase, against whom, number of hosts: how many times faster labctl shall be.
TARGETS = {
    ("again", "ansible", 5): 15.0,
    ("again", "ansible", 20): 30.0,
    ("again", "pyinfra", 5): 2.5,
    ("again", "pyinfra", 20): 7.0,
    ("first", "ansible", 0): 10.0,
    ("first", "pyinfra", 0): 3.0,
}
Record = dict[str, Any]


class Results:
    """The records of one run, asked by tool, number of hosts and phase."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.about: dict[str, Any] = document["about"]
        self._records: list[Record] = document["records"]

    def of(self, tool: str, hosts: int, phase: str) -> list[Record]:
        """Return the records of one cell."""
        wanted = (tool, hosts, phase)
        return [r for r in self._records if (r["tool"], r["hosts"], r["phase"]) == wanted]

    def median(self, tool: str, hosts: int, phase: str, key: str = "wall_s") -> float | None:
        """Return the median of one cell, or None where nothing was measured."""
        values = [record[key] for record in self.of(tool, hosts, phase)]
        return median(values) if values else None

    @property
    def counts(self) -> list[int]:
        """The numbers of hosts, smallest first."""
        return sorted({record["hosts"] for record in self._records if record["hosts"]})


def render(document: dict[str, Any]) -> str:
    """Return the Markdown for a run."""
    results = Results(document)
    parts = [_about(results)]
    for phase, title in PHASES.items():
        parts += [f"### {title}", _table(results, phase)]
    parts += ["### Memory and start-up", _memory(results), "### Targets", _targets(results)]
    return "\n\n".join(parts) + "\n"


def write_into(page: Path, text: str) -> None:
    """Replace what stands between the marks in ``page``; raise ``ValueError`` unless each is there once."""
    whole = page.read_text()
    if whole.count(BEGIN) != 1 or whole.count(END) != 1:
        raise ValueError(f"{page} must hold each of the two marks once: {BEGIN} {END}")
    before, rest = whole.split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}")


def _about(results: Results) -> str:
    about = results.about
    versions = ", ".join(about["versions"].values())
    return (
        f"Measured {about['when']} at commit {about['commit']} on {about['cores']} cores ({about['cpu']},"
        f" kernel {about['kernel']}), shared by the tool and all hosts. Python {about['python']}; {versions}."
        f" Login as `{about['user']}`. Made by `{about['command']}`: medians of {about['repeat']}."
    )


def _rows(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _table(results: Results, phase: str) -> str:
    header = ["wall (fastest) · client CPU · host CPU, s", *(_hosts(n) for n in results.counts)]
    rows = []
    for tool, name in NAMES.items():
        cells = [_cell(results.of(tool, n, phase)) for n in results.counts]
        if any(cell != "–" for cell in cells):
            rows.append([name, *cells])
    if phase == "again":
        alone = [results.median("floor", n, phase, "net_s") for n in results.counts]
        rows.append(["floor, network only", *("–" if s is None else f"{s:.2f}" for s in alone)])
        over = [_times(_ratio(results, phase, "labctl", n, to="floor")) for n in results.counts]
        rows.append(["labctl : floor", *over])
    for tool in ("ansible", "pyinfra"):
        ratios = [_times(_ratio(results, phase, tool, n)) for n in results.counts]
        rows.append([f"{NAMES[tool]} : labctl", *ratios])
    others = [
        max(record["foreign"] for tool in NAMES for record in results.of(tool, n, phase))
        for n in results.counts
    ]
    rows.append(["most that other work took of the machine", *(f"{share:.0%}" for share in others)])
    return _rows(header, rows)


def _hosts(number: int) -> str:
    return f"{number} host" if number == 1 else f"{number} hosts"


def _cell(records: list[Record]) -> str:
    if not records:
        return "–"
    wall = [record["wall_s"] for record in records]
    client, served = (median(record[key] for record in records) for key in ("client_cpu_s", "host_cpu_s"))
    return f"**{median(wall):.2f}** ({min(wall):.2f}) · {client:.2f} · {served:.2f}"


def _ratio(results: Results, phase: str, tool: str, hosts: int, to: str = "labctl") -> float | None:
    other, own = results.median(tool, hosts, phase), results.median(to, hosts, phase)
    return other / own if other and own else None


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"**{ratio:.1f}×**"


def _memory(results: Results) -> str:
    header = ["", *(_hosts(n) for n in results.counts)]
    rows = []
    for phase, title in (("again", "no change"), ("first", "first run")):
        for role, name in (("main", "parent"), ("worker", "largest worker")):
            cells = [_mib(results, "labctl", n, f"{phase}-memory", role) for n in results.counts]
            rows.append([f"labctl, {title}: {name}, MiB", *cells])
    for tool in ("labctl", "pyinfra", "ansible"):
        cells = [_mib(results, tool, n, "again-memory", None) for n in results.counts]
        rows.append([f"{NAMES[tool]}, no change: all its processes at their peak (PSS), MiB", *cells])
    return _rows(header, rows)


def _mib(results: Results, tool: str, hosts: int, phase: str, role: str | None) -> str:
    peaks = [record["peak"] for record in results.of(tool, hosts, phase)]
    values = [peak["together"] if role is None else peak["by_role"].get(role) for peak in peaks]
    known = [value for value in values if value is not None]
    return f"{max(known):.0f}" if known else "–"


def _targets(results: Results) -> str:
    header = ["target", "asked", "measured", "met"]
    return _rows(header, [*_speed_targets(results), *_start_targets(results), *_size_targets(results)])


def _speed_targets(results: Results) -> Iterator[list[str]]:
    for (phase, tool, asked_at), least in TARGETS.items():
        for hosts in [asked_at] if asked_at else results.counts:
            ratio = _ratio(results, phase, tool, hosts)
            if ratio is not None:
                what = f"{PHASES[phase].lower()}, {_hosts(hosts)}: faster than {NAMES[tool]}"
                yield [what, f"≥ {least:g}×", f"{ratio:.1f}×", _met(ratio >= least)]


def _start_targets(results: Results) -> Iterator[list[str]]:
    for name, most in (("--help", 150), ("validate 100 hosts", 500)):
        took = results.median(f"labctl {name}", 0, "start")
        if took is not None:
            yield [f"`labctl {name}`", f"≤ {most} ms", f"{took * 1000:.0f} ms", _met(took * 1000 <= most)]
    cpu = [(n, results.median("labctl", n, "again", "client_cpu_s")) for n in results.counts]
    known = [(n, seconds) for n, seconds in cpu if seconds is not None]
    if len(known) > 1:
        slope, fixed = linear_regression(*zip(*known, strict=True))
        yield ["client CPU, fixed", "≤ 0.5 s", f"{fixed:.2f} s", _met(fixed <= 0.5)]
        yield ["client CPU for each host", "≤ 50 ms", f"{slope * 1000:.0f} ms", _met(slope <= 0.05)]


def _size_targets(results: Results) -> Iterator[list[str]]:
    for hosts in results.counts:
        for role, name in (("main", "parent"), ("worker", "worker")):
            looks = [
                record["peak"]
                for phase in PHASES
                for record in results.of("labctl", hosts, f"{phase}-memory")
            ]
            if looks:
                # Hosts are dealt out evenly over the workers.
                share = ceil(hosts / max(1, *(look["workers"] for look in looks)))
                most = 80.0 if role == "main" else 60 + 0.5 * share
                peak = max(look["by_role"].get(role, 0.0) for look in looks)
                what = f"{name}'s memory, {_hosts(hosts)}"
                yield [what, f"≤ {most:g} MiB", f"{peak:.1f} MiB", _met(peak <= most)]


def _met(yes: bool) -> str:  # noqa: FBT001
    return "yes" if yes else "**no**"
