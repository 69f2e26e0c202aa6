"""Show plans: what would change, host by host, alike hosts together.

Only what a person has to judge is shown: changes with their diff, and what runs only if one of them happens.
Hosts whose plans are the same, diffs included, are one paragraph, so that a fleet of twenty equal machines
reads like one.
"""

from __future__ import annotations

from collections.abc import Iterable

from labctl.cli import printer
from labctl.domain.outcome import counted
from labctl.provision.events import HostReport, PlannedOp

_DIFF_COLOURS = (("+++", "bold"), ("---", "bold"), ("@@", "cyan"), ("+", "green"), ("-", "red"))


def folded(reports: Iterable[HostReport]) -> list[tuple[list[str], tuple[PlannedOp, ...]]]:
    """Group hosts by what would change on them, in the order in which each group's first host comes."""
    groups: dict[tuple[object, ...], tuple[list[str], tuple[PlannedOp, ...]]] = {}
    for report in reports:
        interesting = tuple(op for op in report.plan if op.state != "no-change")
        key = (len(report.plan), *((op.name, op.state, op.diff, op.commands) for op in interesting))
        groups.setdefault(key, ([], report.plan))[0].append(report.host)
    return list(groups.values())


def show(reports: Iterable[HostReport], *, diff: bool) -> None:
    """Print the plans of these hosts."""
    for hosts, plan in folded(reports):
        _paragraph(", ".join(hosts), plan, diff=diff)


def _paragraph(hosts: str, plan: tuple[PlannedOp, ...], *, diff: bool) -> None:
    changes = sum(op.state == "change" for op in plan)
    conditional = sum(op.state == "conditional" for op in plan)
    unchanged = len(plan) - changes - conditional
    head = printer.style(hosts, "bold")
    if not changes:
        printer.out(f"{head}: no changes, {unchanged + conditional} unchanged")
        return
    extra = f", {conditional} conditional" if conditional else ""
    printer.out(f"{head}: {counted(changes, 'change')}{extra}, {unchanged} unchanged")
    for op in plan:
        if op.state == "change":
            printer.out(f"  {printer.style('change', 'yellow')}       {printer.safe(op.name)}")
            if diff and op.diff:
                _diff(op.diff)
        elif op.state == "conditional":
            printer.out(f"  {printer.style('conditional', 'dim')}  {printer.safe(op.name)}")


def _diff(text: str) -> None:
    for line in printer.safe(text).splitlines():
        how = next((tone for start, tone in _DIFF_COLOURS if line.startswith(start)), "")
        printer.out(f"      {printer.style(line, how) if how else line}")
