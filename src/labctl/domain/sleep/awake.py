"""What happens to a host that serves: READY and DRAINING.

A host that becomes quiet drains for a tick, and if the next line is quiet as well it is talked into sleep.
Whatever comes in between wins.
"""

from __future__ import annotations

from labctl.domain.sleep import idle, proofs, windows
from labctl.domain.sleep.actions import Action
from labctl.domain.sleep.case import Case
from labctl.domain.sleep.evidence import APART
from labctl.domain.sleep.lifecycle import Event
from labctl.domain.sleep.terms import How, Wish
from labctl.domain.sleep.wanting import sleep_wish
from labctl.domain.sleep.watts import Ledger

RTC_AHEAD_S = 120.0
"""A clock in the host is not set to wake it sooner than this: it would wake while it falls asleep."""


def ready(case: Case, ledger: Ledger) -> Action | None:
    """Decide about a READY host: does it still answer, and may it sleep?"""
    if unreliable := _unreliable(case):
        return unreliable
    wish = sleep_wish(case.row, case.now.wall)
    if case.hands_off or _needed(case, wish):
        return None
    reasons = idle.reasons(case.sight, case.name, wish=wish)
    way = proofs.way(case.row.proof, case.policy.how)
    if reasons and all(reason.kind in idle.NO_WAY_BACK for reason in reasons):
        return _unload(case, reasons[0].because)
    if reasons:
        return None
    because = idle.verdict(case.sight, case.name, wish=wish).because
    if way is How.UNLOAD:
        return _unload(case, because)
    return case.move(Event.WENT_QUIET, because)


def draining(case: Case, ledger: Ledger) -> Action | None:
    """Decide about a DRAINING host: is it still quiet, and is it time for the order?"""
    if unreliable := _unreliable(case):
        return unreliable
    if case.hands_off:
        return case.move(Event.NEEDED, case.hands_off)
    wish = sleep_wish(case.row, case.now.wall)
    if needed := _needed(case, wish):
        return case.move(Event.NEEDED, needed)
    verdict = idle.verdict(case.sight, case.name, wish=wish)
    if not verdict:
        return case.move(Event.NEEDED, verdict.because)
    way = proofs.way(case.row.proof, case.policy.how)
    if way is How.UNLOAD:
        return case.move(Event.NEEDED, f"{case.name} only frees its cards")
    drained = case.now.sure_s(case.row.since)
    report = case.look.report
    if drained < APART * case.tick_s or report is None or case.now.mono - report.at >= drained:
        return None
    force = wish is not None and wish.force
    return case.suspend(way, verdict.because, rtc_at=_rtc_at(case, ledger), force=force)


def _needed(case: Case, wish: Wish | None) -> str:
    """Return who wants it awake, or nothing; whoever orders it to sleep goes before its own windows."""
    want = case.want
    if want is None or (wish is not None and want.window):
        return ""
    return want.because


def _unreliable(case: Case) -> Action | None:
    if came_back := case.came_back:
        return case.move(Event.CAME_BACK, came_back)
    if lost := case.lost:
        return case.move(Event.LOST, lost)
    return None


def _unload(case: Case, because: str) -> Action | None:
    """Return that its cards are freed, once for each quiet time, whoever has asked."""
    if case.look.unloaded:
        return None
    return case.unload(f"{idle.quiet_text(case.sight, case.name)}; it stays on: {because}")


def _rtc_at(case: Case, ledger: Ledger) -> float | None:
    """Return when the host's own clock should wake it (wall), in case that we cannot.

    Nobody counts watts then, so only where the whole rack may ramp up at once.
    """
    span = windows.upcoming(case.policy.awake, case.sight.policy.zone, case.now.wall)
    if span is None or span.start - case.now.wall < RTC_AHEAD_S or not ledger.fits_whole():
        return None
    return span.start
