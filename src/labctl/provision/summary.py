"""What a run comes to, in numbers and as the document of ``--json``.

The document's shape is an interface: keys may be added, none is renamed or removed within one ``format``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from labctl import __version__
from labctl.domain.outcome import Outcome, counted
from labctl.provision.engine import Result
from labctl.provision.events import HostReport
from labctl.provision.ledger import not_done

if TYPE_CHECKING:
    from labctl.provision.target import Target

FORMAT = 1


@dataclass(frozen=True, slots=True)
class PlanTotals:
    """How much the plans of a run would do."""

    changes: int
    conditional: int
    unchanged: int
    changing_hosts: int
    planned_hosts: int
    hosts: int

    def __str__(self) -> str:
        """Return ``34 changes on 7 hosts, 2 conditional, 120 unchanged``."""
        where = counted(self.changing_hosts if self.changes else self.planned_hosts, "host")
        text = f"{counted(self.changes, 'change')} on {where}"
        text += f", {self.conditional} conditional, {self.unchanged} unchanged"
        missing = self.hosts - self.planned_hosts
        return f"{text}; {counted(missing, 'host')} without a plan" if missing else text


def plan_totals(reports: Mapping[str, HostReport]) -> PlanTotals:
    """Count what the plans would do, when every host has a plan or has ended without one."""
    states = [op.state for report in reports.values() for op in report.plan]
    planned = [report for report in reports.values() if report.plan or not _ended_badly(report)]
    return PlanTotals(
        changes=states.count("change"),
        conditional=states.count("conditional"),
        unchanged=states.count("no-change"),
        changing_hosts=sum(any(op.state == "change" for op in report.plan) for report in planned),
        planned_hosts=len(planned),
        hosts=len(reports),
    )


def _ended_badly(report: HostReport) -> bool:
    # A host for which the deploys hold nothing has an empty plan, which is a plan.
    return report.end is not None and report.end.status != "ok"


def changed(reports: Iterable[HostReport]) -> str:
    """Return ``34 changes on 7 hosts``: what was really done; without any, on how many it was looked for."""
    ends = [report.end for report in reports if report.end is not None]
    total = sum(end.changed for end in ends)
    hosts = [end for end in ends if end.changed] if total else ends
    return f"{counted(total, 'change')} on {counted(len(hosts), 'host')}"


def document(command: str, target: Target, result: Result, outcome: Outcome) -> dict[str, Any]:
    """Return the whole of what a run found and did, ready for JSON."""
    totals = plan_totals(result.reports)
    return {
        "format": FORMAT,
        "labctl": __version__,
        "command": command,
        "rack": {"name": target.name, "file": str(target.rack)},
        "deploys": [str(path) for path in target.deploys],
        "exit_code": int(outcome.code),
        "because": outcome.because,
        "interrupted": result.interrupted,
        "plan": asdict(totals),
        "hosts": [_host(report) for report in result.reports.values()],
    }


def _host(report: HostReport) -> dict[str, Any]:
    end = asdict(report.end) if report.end is not None else {}
    end.pop("ev", None)
    end.pop("host", None)
    return {
        "host": report.host,
        **end,
        "plan": [asdict(op) for op in report.plan],
        "operations": [
            {key: value for key, value in asdict(op).items() if key not in ("ev", "host")}
            for op in report.ops
        ],
        "not_done": list(not_done(report)),
        "warnings": report.warnings,
    }
