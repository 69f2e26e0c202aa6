"""Send one round of whatever wakes a host; harmless when it is awake, so never held back for fresh news.

Somebody waits for the packet, so no more is written before it than must be: that the host is WAKING, which is
the intent. How far the wake is, is written after it was sent: a controller that dies in between sends the
round again.
"""

from __future__ import annotations

from labctl.controller.leader import NotLeadingError
from labctl.controller.means import Means
from labctl.domain.sleep.actions import SendWake
from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.domain.sleep.terms import Attempt, KnownHost
from labctl.ports.power import PowerError


def wake(means: Means, action: SendWake, known: KnownHost) -> None:
    """Send a round, and keep how far the wake is."""
    doors, host = means.doors, action.host
    term, now = means.leader.term(), doors.wall()
    if known.mode is not Mode.WAKING:
        began = doors.mono()
        means.move(host, Event.WISHED, action.because, version=action.version, now=now)
        means.wakes[host] = began
    if not means.leader.leads():
        raise NotLeadingError
    failed = ""
    try:
        doors.switches[host].wake()
    except PowerError as error:
        # It counts as sent all the same: the schedule goes on, and ends.
        failed = f"{error} ({error.hint})" if error.hint else str(error)
        means.happen(host, "wake", f"round {action.round} could not be sent: {failed}")
    before = known.attempt
    attempt = Attempt(
        began=now if before is None else before.began,
        sent=action.round,
        last=doors.wall(),
        why=action.because if before is None else before.why,
        asleep=known.mode is Mode.ASLEEP if before is None else before.asleep,
        failed=failed,
    )
    version = means.known(host).version
    doors.store.note_attempt(host, attempt, version=version, term=term, now=doors.wall())
