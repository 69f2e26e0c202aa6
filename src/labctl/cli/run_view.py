"""Tell how a run goes while it goes.

In a terminal each host has a bar (where it is, how far, for how long) and only what matters is printed above
the bars: plans, failures with the end of their output, warnings. In a pipe every outcome is one plain line.
The plan of a host is always shown before the first word about what was done there: before the question if
there is one, else as soon as all hosts have planned or the first outcome arrives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from labctl.cli import plan_view, printer
from labctl.domain.outcome import counted
from labctl.domain.problem import Problem
from labctl.provision.events import (
    Connected,
    Event,
    HostEnded,
    HostReport,
    Log,
    OpEnded,
    OpStarted,
    Planned,
    WorkerEnded,
)
from labctl.provision.ledger import not_done
from labctl.provision.summary import plan_totals

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bars:
    """One moving line per host; exists only in a terminal."""

    def __init__(self, hosts: Sequence[str]) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = printer.console()
        self._crowded = len(hosts) > console.height - 6
        self.progress: Progress = Progress(
            TextColumn("{task.fields[host]}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        width = max(len(host) for host in hosts)
        self._tasks: dict[str, TaskID] = {
            host: self.progress.add_task("connecting", host=host.ljust(width), total=None) for host in hosts
        }

    def on_event(self, event: Event) -> None:
        """Move the bar of the event's host."""
        if isinstance(event, Connected):
            self.progress.update(self._tasks[event.host], description="planning")
        elif isinstance(event, Planned):
            total = max(1, len(event.ops))
            self.progress.update(self._tasks[event.host], description="planned", total=total)
        elif isinstance(event, OpStarted):
            self.progress.update(self._tasks[event.host], description=printer.safe(event.name))
        elif isinstance(event, OpEnded) and event.status != "not-run":
            self.progress.advance(self._tasks[event.host])
        elif isinstance(event, HostEnded):
            self._finish(event)

    def _finish(self, end: HostEnded) -> None:
        task = self._tasks[end.host]
        said = f"{counted(end.changed, 'change')}" if end.status == "ok" else end.status
        if end.status == "ok":
            self.progress.update(task, completed=self.progress.tasks[task].total or 0)
        self.progress.update(task, description=said, visible=not self._crowded)
        self.progress.stop_task(task)


class RunView:
    """The listener of a run: prints what a person should know, in the order in which it makes sense."""

    def __init__(self, hosts: Sequence[str], *, execute: bool, diff: bool) -> None:
        self._execute = execute
        self._diff = diff
        self._reports = {host: HostReport(host) for host in hosts}
        self._unshown: list[str] = []
        self._awaited = set(hosts)
        self._bars = Bars(hosts) if printer.interactive() else None
        self.declined = False
        """Whether the person said no: then no host has anything to tell of its end."""

    def __enter__(self) -> RunView:
        if self._bars:
            self._bars.progress.start()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._bars:
            self._bars.progress.stop()

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Take the bars away while something is printed or asked; nested use is harmless."""
        if self._bars is None or not self._bars.progress.live.is_started:
            yield
            return
        self._bars.progress.stop()
        try:
            yield
        finally:
            self._bars.progress.start()

    def on_event(self, event: Event) -> None:
        """Take note of an event, and say what is worth saying."""
        if self._bars:
            self._bars.on_event(event)
        match event:
            case Planned():
                self._reports[event.host].plan = event.ops
                self._unshown.append(event.host)
                self._heard_of(event.host)
            case OpEnded():
                self._outcome(event)
            case HostEnded():
                self._reports[event.host].end = event
                self._end(event)
                self._heard_of(event.host)
            case Log():
                with self.standing_still():
                    problem = Problem(event.message, host=event.host)
                    printer.show_problems([problem], severity=event.level)
            case Connected() | OpStarted() | WorkerEnded():
                # Only the bars have something to show of these.
                return

    def _heard_of(self, host: str) -> None:
        if host not in self._awaited:
            return
        self._awaited.discard(host)
        if not self._awaited:
            with self.standing_still():
                self._show_plans()
                printer.out(printer.style(f"Plan: {plan_totals(self._reports)}", "bold"))

    def _show_plans(self) -> None:
        order = [report for host, report in self._reports.items() if host in self._unshown]
        self._unshown = []
        plan_view.show(order, diff=self._diff)

    def _outcome(self, op: OpEnded) -> None:
        # What changed nothing is told by its count at the end, what is not run by its name.
        if op.status in ("unchanged", "not-run") or (op.status == "changed" and self._bars):
            return
        with self.standing_still():
            self._show_plans()
            tone = "red" if op.status == "failed" else "green"
            name = printer.safe(op.name)
            printer.out(f"{op.host}: {printer.style(op.status, tone)}  {name} ({op.seconds:.1f}s)")
            if op.status == "failed":
                _tail("stdout", op.stdout_tail)
                _tail("stderr", op.stderr_tail)

    def _end(self, end: HostEnded) -> None:
        if self.declined or (end.status == "ok" and (self._bars or not self._execute)):
            return
        with self.standing_still():
            if self._execute:
                self._show_plans()
            if end.status == "ok":
                said = f"{end.changed} changed, {end.unchanged} unchanged ({end.seconds:.1f}s)"
            else:
                said = printer.safe(_why(end))
            tone = "green" if end.status == "ok" else "red"
            printer.out(f"{end.host}: {printer.style(end.status, tone)}  {said}")


def _why(end: HostEnded) -> str:
    reason = "" if end.reason == end.status else end.reason
    hint = f"({end.hint})" if end.hint else ""
    return " ".join(part for part in (reason, hint) if part)


def _tail(name: str, text: str) -> None:
    for line in printer.safe(text).splitlines():
        printer.out(f"    {printer.style(name, 'dim')} {line}")


def show_results(reports: dict[str, HostReport]) -> None:
    """Print the table at the end, and for each host that did not finish what was not done."""
    rows = []
    for report in reports.values():
        end = report.end
        if end is None:
            continue
        counts = (end.changed, end.unchanged, end.failed, end.not_run)
        rows.append((end.host, end.status, *counts, f"{end.seconds:.1f}", _why(end)))
    printer.out()
    printer.table(("host", "status", "changed", "unchanged", "failed", "not run", "seconds", "reason"), rows)
    _show_unfinished(reports.values())


def _show_unfinished(reports: Iterable[HostReport]) -> None:
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for report in reports:
        left = not_done(report)
        if report.end is None or report.end.status == "ok" or not left:
            continue
        total = sum(op.state == "change" for op in report.plan)
        failed = sum(op.status == "failed" for op in report.ops)
        words = f"{total - len(left) - failed} of {counted(total, 'change')} done"
        words += f", {failed} failed" if failed else ""
        alike.setdefault((words, left), []).append(report.host)
    for (words, left), hosts in alike.items():
        printer.out(f"{', '.join(hosts)}: {words}; not done:")
        for name in left:
            printer.out(f"  {printer.safe(name)}")
