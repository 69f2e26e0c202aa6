"""What happens to a host that does not serve and is not on its way: UNKNOWN, SUSPENDING, ASLEEP, FAILED.

A host in one of these modes is left alone until it speaks, is seen dark, or is wanted.
"""

from __future__ import annotations

from labctl.domain.sleep import evidence, ladder
from labctl.domain.sleep.actions import Action
from labctl.domain.sleep.case import Case
from labctl.domain.sleep.lifecycle import Event
from labctl.domain.sleep.watts import Ledger
from labctl.domain.sleep.wording import lasting

RETRY_S = 60.0
"""How long a host that failed to come up is left alone, before somebody who still wants it tries again."""


def unknown(case: Case, ledger: Ledger) -> Action | None:
    """Decide about an UNKNOWN host: it speaks, a meter says that it is off, or somebody wants it."""
    if answer := case.answers():
        return answer
    meter = case.policy.has_meter
    if off := evidence.off_because(case.look, case.now, case.tick_s, has_meter=meter):
        return case.move(Event.DARK, off)
    if case.hands_off:
        return case.wait(case.hands_off) if case.want is not None else None
    if case.row.repair.taken[-1:] == (ladder.REBOOT,):
        verdict = ladder.may_cut(case.policy, case.row, case.look, case.now)
        if verdict:
            given = ledger.may_wake(case.name)
            return case.mend(ladder.CUT, verdict.because) if given else case.wait(given.because)
    return wake(case, ledger)


def suspending(case: Case, ledger: Ledger) -> Action | None:
    """Decide about a SUSPENDING host: only its own word opens admission again, and only darkness is sleep."""
    order, came_back = evidence.order_of(case.row), case.came_back
    if came_back and not evidence.up_since_before(order, case.look, case.now):
        return case.move(Event.CAME_BACK, came_back)
    stays = evidence.word_against(order, case.look) or evidence.dead_because(order, case.look, case.now)
    if stays:
        # Without a boot to compare with nobody knows whether it slept meanwhile, so it goes through the gate.
        known = case.row.boot_id and not came_back
        return case.move(Event.REFUSED if known else Event.CAME_BACK, stays)
    if dark := evidence.dark_because(case.look, case.now, case.tick_s):
        return case.move(Event.DARK, dark)
    if not case.hands_off and (mute := evidence.speechless_because(order, case.look, case.now)):
        return case.move(Event.GAVE_UP, mute)
    if case.want is None:
        return None
    return case.wait(
        f"{case.name} was told to sleep, and may do so within {lasting(order.lasts_s)};"
        " it is woken as soon as it is seen dark"
    )


def asleep(case: Case, ledger: Ledger) -> Action | None:
    """Decide about an ASLEEP host: it woke by itself, or somebody wants it."""
    if answer := case.answers():
        return answer
    if case.look.old_agent:
        return case.move(Event.SEEN, f"{case.name} answers, though its agent is too old to report")
    return wake(case, ledger)


def failed(case: Case, ledger: Ledger) -> Action | None:
    """Decide about a FAILED host: it speaks after all, or somebody still wants it."""
    if case.row.quarantined:
        return case.wait(case.hands_off) if case.want is not None else None
    if answer := case.answers():
        return answer
    if case.want is None or case.hands_off:
        return wake(case, ledger)
    passed = case.now.sure_s(case.row.since)
    if case.want.since <= case.row.since and passed < RETRY_S:
        return case.wait(f"{case.row.because}; {case.name} is tried again after {lasting(RETRY_S)}")
    return wake(case, ledger)


def wake(case: Case, ledger: Ledger) -> Action | None:
    """Decide whether a host that is wanted gets its first packet now; None when nobody wants it."""
    if case.want is None:
        return None
    if case.hands_off:
        return case.wait(case.hands_off)
    if not case.policy.wakeable:
        return case.wait(f"nothing can wake {case.name}: {case.want.because}")
    if missing := case.missing:
        return case.wait(missing)
    verdict = ledger.may_wake(case.name)
    return case.send(1, case.want.because) if verdict else case.wait(verdict.because)
