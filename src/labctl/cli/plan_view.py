"""Show plans: what would change, host by host, alike hosts together.

Only what a person has to judge is shown: changes with their diff (where no file changes, with the command
that would run), and what runs only if one of them happens.
Hosts on which the same operations would change something are one paragraph, so that a fleet of twenty alike
machines reads like one. A diff that is the same on all of them is shown once; where it differs (each host has
its own name, MAC, keys), it is shown for each set of hosts that share it, so nothing is hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from labctl.cli import printer
from labctl.domain.outcome import counted
from labctl.provision.events import HostReport, PlannedOp

_COMMAND_WIDTH = 200  # characters; what installs fifty packages would fill the screen
_DIFF_COLOURS = (("+++", "bold"), ("---", "bold"), ("@@", "cyan"), ("+", "green"), ("-", "red"))


def folded(reports: Iterable[HostReport]) -> list[list[HostReport]]:
    """Group hosts on which the same operations are due, in the order of each group's first host."""
    groups: dict[tuple[object, ...], list[HostReport]] = {}
    for report in reports:
        due = tuple((op.name, op.state) for op in report.plan if op.state != "no-change")
        groups.setdefault((len(report.plan), due), []).append(report)
    return list(groups.values())


def shared(texts: Iterable[tuple[str, str]]) -> list[tuple[list[str], str]]:
    """Group ``(host, text)`` pairs by their text, in the order of the first host of each."""
    groups: dict[str, list[str]] = {}
    for host, text in texts:
        groups.setdefault(text, []).append(host)
    return [(hosts, text) for text, hosts in groups.items()]


def show(reports: Iterable[HostReport], *, diff: bool) -> None:
    """Print the plans of these hosts."""
    for alike in folded(reports):
        _paragraph(alike, diff=diff)


def _paragraph(alike: Sequence[HostReport], *, diff: bool) -> None:
    plan = alike[0].plan
    changes = sum(op.state == "change" for op in plan)
    conditional = sum(op.state == "conditional" for op in plan)
    unchanged = len(plan) - changes - conditional
    hosts = printer.style(", ".join(report.host for report in alike), "bold")
    each = " each" if len(alike) > 1 else ""
    if not changes:
        printer.out(f"{hosts}: no changes, {unchanged + conditional} unchanged{each}")
        return
    extra = f", {conditional} conditional" if conditional else ""
    printer.out(f"{hosts}: {counted(changes, 'change')}{extra}, {unchanged} unchanged{each}")
    due = [[op for op in report.plan if op.state != "no-change"] for report in alike]
    for same_op in zip(*due, strict=True):
        op = same_op[0]
        if op.state == "conditional":
            printer.out(f"  {printer.style('conditional', 'dim')}  {printer.safe(op.name)}")
            continue
        printer.out(f"  {printer.style('change', 'yellow')}       {printer.safe(op.name)}")
        if diff:
            names = (report.host for report in alike)
            _diffs(shared(zip(names, (_detail(one) for one in same_op), strict=True)))


def _detail(op: PlannedOp) -> str:
    return op.diff or "\n".join(f"runs: {_short(command)}" for command in op.commands)


def _short(command: str) -> str:
    line = " ".join(command.split())
    return line if len(line) <= _COMMAND_WIDTH else f"{line[:_COMMAND_WIDTH]} ..."


def _diffs(groups: list[tuple[list[str], str]]) -> None:
    for hosts, text in groups:
        if len(groups) > 1:
            what = "" if text else " (nothing to show)"
            printer.out(f"      {printer.style('on ' + ', '.join(hosts) + ':', 'dim')}{what}")
        for line in printer.safe(text).splitlines():
            how = next((tone for start, tone in _DIFF_COLOURS if line.startswith(start)), "")
            printer.out(f"      {printer.style(line, how) if how else line}")
