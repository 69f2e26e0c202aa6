"""What is known of each host during a run, built from the events of its worker.

Every host ends exactly once: by its worker's word, or, when the worker cannot speak any more, by ours,
counted from what it had told until then. An event about a host that is not the worker's own, or that has
ended, means that the worker is broken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from labctl.provision.events import (
    Connected,
    Event,
    HostEnded,
    HostReport,
    HostStatus,
    Log,
    OpEnded,
    OpStarted,
    Planned,
    WorkerEnded,
)


@dataclass(frozen=True, slots=True)
class Why:
    """How a host ends whose worker cannot say it."""

    status: HostStatus
    code: str
    reason: str
    hint: str = ""


class Ledger:
    """The reports of all hosts of a run, in the order of the rack file."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self.reports = {host: HostReport(host) for host in hosts}
        self.planned: set[str] = set()

    def record(self, event: Event, allowed: frozenset[str]) -> None:
        """Take an event of a worker which owns the hosts ``allowed``.

        Raises:
            ValueError: the event is about a host that is not the worker's, or that has already ended.
        """
        if isinstance(event, WorkerEnded):
            return
        if isinstance(event, Log):
            if event.host and event.host not in allowed:
                raise ValueError(f"it spoke of {event.host!r}, which is not its host")
            if event.host:
                self.reports[event.host].warnings.append(event.message)
            return
        if event.host not in allowed:
            raise ValueError(f"it spoke of {event.host!r}, which is not its host")
        report = self.reports[event.host]
        if report.end is not None:
            raise ValueError(f"it spoke of {event.host} after its end")
        self._note(report, event)

    def _note(self, report: HostReport, event: Connected | Planned | OpStarted | OpEnded | HostEnded) -> None:
        match event:
            case Planned():
                report.plan = event.ops
                self.planned.add(event.host)
            case OpEnded():
                report.ops.append(event)
            case HostEnded():
                report.end = event
            case Connected() | OpStarted():
                # News for whoever draws; nothing of it is kept.
                return

    def unfinished(self, hosts: Iterable[str] | None = None) -> tuple[str, ...]:
        """Return those of ``hosts`` (of all when not given) that have not ended."""
        names = self.reports if hosts is None else hosts
        return tuple(host for host in names if self.reports[host].end is None)

    def awaiting_go(self) -> tuple[str, ...]:
        """Return the hosts that have a plan and have not ended."""
        return tuple(host for host in self.unfinished() if host in self.planned)

    def all_planned(self) -> bool:
        """Return whether every host has a plan or has ended without one."""
        return set(self.unfinished()) <= self.planned

    def end(self, host: str, why: Why) -> HostEnded:
        """End a host in its worker's place, counting what it had told."""
        report = self.reports[host]
        counts = tally(report)
        report.end = HostEnded(
            host=host,
            status=why.status,
            code=why.code,
            reason=why.reason,
            hint=why.hint,
            changed=counts["changed"],
            unchanged=counts["unchanged"],
            failed=counts["failed"],
            not_run=len(not_done(report)),
            seconds=sum(op.seconds for op in report.ops),
        )
        return report.end


def tally(report: HostReport) -> dict[str, int]:
    """Return how many operations of a host had which outcome so far."""
    counts = {"changed": 0, "unchanged": 0, "failed": 0, "not-run": 0}
    for op in report.ops:
        counts[op.status] += 1
    return counts


def not_done(report: HostReport) -> tuple[str, ...]:
    """Return the names of the operations that were to change something and of which no end was told."""
    begun = {op.index for op in report.ops if op.status != "not-run"}
    return tuple(op.name for op in report.plan if op.state == "change" and op.index not in begun)
