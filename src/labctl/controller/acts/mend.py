"""Take one step of the ladder; the gate is run again after it.

That the step was taken is kept before it is: a controller that dies in it goes on with the next one, and no
crash makes a host reboot for ever. Power is cut only when a look that is fresh says once more that nobody can
be working there (``ladder.may_cut``), and it is given again whatever else goes wrong.
"""

from __future__ import annotations

from contextlib import suppress

from labctl.controller.leader import NotLeadingError
from labctl.controller.ledger import Note
from labctl.controller.means import Means
from labctl.domain.failures import HostError
from labctl.domain.sleep import ladder
from labctl.domain.sleep.terms import Mend
from labctl.ports.power import PowerError
from labctl.ports.store import StaleError

FLAGS = {"restart-engines": "--engines", "reload-driver": "--driver", "reboot": "--reboot"}
DEADLINE_S = 600.0
OFF_S = 10.0
GOING_DOWN_S = 120.0
COLD = "cold-cycle"
_TRIES = 5


def mend(means: Means, action: Mend) -> None:
    """Take the step."""
    host, store = action.host, means.doors.store
    known = means.known(host)
    repair = ladder.after_step(known.repair, action.step, means.times.moment())
    store.note_repair(host, repair, known.quarantined, term=means.leader.term(), now=means.doors.wall())
    with means.ledger.effect(host, action.step, action.because) as note:
        if action.step == COLD:
            _cold_cycle(means, host, note)
        elif action.step == "reboot":
            _reboot(means, host, note)
        else:
            said = means.ask(host, "mend", FLAGS[action.step], order={}, deadline_s=DEADLINE_S)
            note.outcome = str(said.get("failed") or "done")


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
    while waited < GOING_DOWN_S:
        now = means.observer.host(host)
        if not now.talking or now.report is None or before is None or now.report.boot_id != before.boot_id:
            return
        means.doors.rest(1.0)
        waited += 1.0


def _cold_cycle(means: Means, host: str, note: Note) -> None:
    seen, moment = means.observer.host(host), means.times.moment()
    if moment.mono - seen.at > means.policy.tick_s:
        raise StaleError(f"{host} was last seen {moment.mono - seen.at:.0f} s ago")
    verdict = ladder.may_cut(means.host(host), means.known(host), seen, moment)
    if not verdict:
        note.outcome = f"not done: {verdict.because}"
        return
    switch = means.doors.switches[host]
    if not means.leader.leads():
        raise NotLeadingError
    switch.cut()
    try:
        means.doors.rest(OFF_S)
    finally:
        for left in reversed(range(_TRIES)):
            try:
                switch.wake()
                break
            except PowerError:
                if not left:
                    raise
                with suppress(PowerError):
                    means.doors.rest(OFF_S)
