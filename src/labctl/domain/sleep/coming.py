"""What happens to a host on its way up: WAKING and VERIFYING."""

from __future__ import annotations

from labctl.domain.sleep import ladder, waking
from labctl.domain.sleep.actions import Action
from labctl.domain.sleep.case import Case
from labctl.domain.sleep.lifecycle import Event
from labctl.domain.sleep.watts import Ledger


def waking_up(case: Case, ledger: Ledger) -> Action | None:
    """Decide about a WAKING host: it speaks, the next packet is due, or its time is up.

    One that was asleep and does not come has its power cut and given again once, where that is allowed.
    """
    if answer := case.answers():
        return answer
    if case.look.old_agent:
        return case.move(Event.SEEN, f"{case.name} answers, though its agent is too old to report")
    if case.hands_off:
        return case.wait(case.hands_off)
    due = waking.due(case.policy, case.row, case.now)
    if due.do == "send":
        return case.send(due.round, due.because)
    if due.do == "wait":
        return case.wait(due.because)
    if case.now.jumped:
        return case.wait(f"{due.because}, or so a clock says that jumped")
    if ladder.CUT not in case.row.repair.taken:
        verdict = ladder.may_cut(case.policy, case.row, case.look, case.now)
        if verdict:
            return case.mend(ladder.CUT, verdict.because)
    return case.move(Event.GAVE_UP, due.because)


def verifying(case: Case, ledger: Ledger) -> Action | None:
    """Decide about a VERIFYING host: through the gate, up the ladder, or into quarantine."""
    if lost := case.lost:
        return case.move(Event.LOST, lost)
    if case.row.quarantined:
        return case.move(Event.BROKEN, case.hands_off)
    if case.hands_off:
        return case.wait(case.hands_off)
    if case.look.old_agent:
        return case.wait(f"the agent of {case.name} is too old for the gate: `labctl apply` brings a new one")
    if not case.look.talking:
        return None
    if missing := case.missing:
        return case.wait(missing)
    if not case.row.repair.broken:
        return _with_watts(case, ledger, case.verify(f"{case.name} is up"))
    step, because = ladder.next_step(case.policy, case.row)
    if not step:
        return case.move(Event.BROKEN, because)
    allowed = ladder.may_take(step, case.policy, case.row, case.look, case.now)
    return _with_watts(case, ledger, case.mend(step, because)) if allowed else case.wait(allowed.because)


def _with_watts(case: Case, ledger: Ledger, action: Action) -> Action:
    """Return an action if there are watts for it: the gate and each repair have engines load models."""
    verdict = ledger.may_verify(case.name)
    return action if verdict else case.wait(verdict.because)
