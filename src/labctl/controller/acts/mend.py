"""Take one step of the ladder; the gate is run again after it.

A fresh look says once more that the step may be taken (``ladder.may_take``); what was decided a moment ago
is not enough to reboot a host, or to cut its power. Then it is kept that the step was taken, and only then
it is: a controller that dies in it goes on with the next one, and no crash makes a host reboot for ever.
"""

from __future__ import annotations

from contextlib import suppress

from labctl.controller.leader import NotLeadingError
from labctl.controller.ledger import Note
from labctl.controller.means import Means
from labctl.domain.failures import HostError
from labctl.domain.sleep import ladder
from labctl.domain.sleep.actions import Mend
from labctl.domain.sleep.lifecycle import Verdict
from labctl.domain.sleep.terms import KnownHost
from labctl.ports.power import PowerError
from labctl.ports.store import StaleError

FLAGS = {"restart-engines": "--engines", "reload-driver": "--driver", "reboot": "--reboot"}
DEADLINE_S = 600.0
GOING_DOWN_S = 120.0
COLD = "cold-cycle"


def mend(means: Means, action: Mend) -> None:
    """Take the step."""
    host, store = action.host, means.doors.store
    known, verdict = _still(means, action)
    repair = ladder.after_step(known.repair, action.step, means.times.moment())
    store.note_repair(host, repair, known.quarantined, term=means.leader.term(), now=means.doors.wall())
    with means.ledger.effect(host, action.step, action.because) as note:
        if action.step == COLD:
            if not means.leader.leads():
                raise NotLeadingError
            note.outcome = means.doors.cycle(means.doors.switches[host], verdict)
        elif action.step == "reboot":
            _reboot(means, host, note)
        else:
            said = means.ask(host, "mend", FLAGS[action.step], order={}, deadline_s=DEADLINE_S)
            note.outcome = str(said.get("failed") or "done")


def _still(means: Means, action: Mend) -> tuple[KnownHost, Verdict]:
    """Return the host as it is known now, and why the step may be taken.

    Raises:
        StaleError: it may not, after all.
    """
    host = action.host
    seen, moment = means.observer.host(host), means.times.moment()
    if moment.mono - seen.at > means.policy.tick_s:
        raise StaleError(f"{host} was last seen {moment.mono - seen.at:.0f} s ago")
    known = means.known(host)
    if known.version != action.version or known.claims.paused:
        raise StaleError(f"{host} is not as it was when {action.step} was decided")
    verdict = ladder.may_take(action.step, means.host(host), known, seen, moment)
    if not verdict:
        raise StaleError(verdict.because)
    return known, verdict


def _reboot(means: Means, host: str, note: Note) -> None:
    before = means.observer.host(host).report
    try:
        said = means.ask(host, "mend", FLAGS["reboot"], order={}, deadline_s=DEADLINE_S)
        note.outcome = str(said.get("failed") or "rebooting")
    except HostError as error:
        if error.failure.unreachable:
            raise
        note.outcome = f"asked to, and no answer heard: {error}"  # it may be down already
    waited = 0.0
    with suppress(PowerError):  # told to stop: it reboots without us
        while waited < GOING_DOWN_S:
            now = means.observer.host(host)
            if (
                not now.talking
                or now.report is None
                or before is None
                or now.report.boot_id != before.boot_id
            ):
                return
            means.doors.rest(1.0)
            waited += 1.0
