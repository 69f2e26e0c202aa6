"""Look whether a host that is back really works, and only then let it serve.

The gate runs on the host; what it found is believed for the boot and the sleep that the host was in when it
ran. What was found is kept before the mode moves, so a controller that dies in between runs the gate again.
"""

from __future__ import annotations

from labctl.controller.means import Means
from labctl.domain.failures import HostError
from labctl.domain.sleep import ladder
from labctl.domain.sleep.actions import GateResult, Verify
from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.domain.sleep.terms import KnownHost, Repair, Report

DEADLINE_S = 900.0
_MOST = 40
_LONGEST = 300


def verify(means: Means, action: Verify) -> None:
    """Run the gate, and keep what it found."""
    host, report = action.host, means.observer.host(action.host).report
    if report is None:
        return
    began = means.known(host)
    with means.ledger.effect(host, "gate", action.because) as note:
        try:
            result = result_of(means.ask(host, "gate", order={}, deadline_s=DEADLINE_S))
        except HostError as error:
            if error.failure.unreachable or error.failure.code != "op-failed":
                raise
            result = GateResult((f"the gate could not be run: {error}",))
        note.outcome = "; ".join(result.broken) or "passed"
    now = means.observer.host(host).report
    if now is not None and (now.boot_id, now.resumes) != (report.boot_id, report.resumes):
        return  # it booted or slept meanwhile; the next tick looks at it anew
    known = means.known(host)
    if known.mode is not Mode.VERIFYING or known.since != began.since:
        return
    if result.broken:
        repair = ladder.after_gate(known.repair, result, means.times.moment())
        term, wall = means.leader.term(), means.doors.wall()
        means.doors.store.note_repair(host, repair, known.quarantined, term=term, now=wall)
    else:
        _passed(means, known, report, result)


def _passed(means: Means, known: KnownHost, report: Report, result: GateResult) -> None:
    host, store, term, now = known.name, means.doors.store, means.leader.term(), means.doors.wall()
    store.note_boot(host, report.boot_id, report.resumes, term=term, now=now)
    if known.repair != Repair() or known.quarantined:
        store.note_repair(host, Repair(), "", term=term, now=now)
    because = "; ".join(("it passed the gate", *result.notes[:1]))
    version = means.known(host).version
    means.move(host, Event.PASSED, because, version=version, now=now)
    began = means.wakes.pop(host, None)
    if began is not None:
        took_s = means.doors.mono() - began
        store.note_came_up(host, took_s, term=term, now=now)
        means.tally.came_up(host, took_s)


def result_of(said: dict[str, object]) -> GateResult:
    """Return what the gate found; what cannot be read is a broken gate."""
    broken, notes = said.get("broken"), said.get("notes", [])
    if not isinstance(broken, list) or not isinstance(notes, list):
        return GateResult(("the gate's answer cannot be read",))
    return GateResult(_texts(broken), _texts(notes))


def _texts(found: list[object]) -> tuple[str, ...]:
    return tuple("".join(c for c in str(one)[:_LONGEST] if c.isprintable()) for one in found[:_MOST])
