"""Say of one host in which mode it is and why, what keeps it awake, and what happens when."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, isfinite

from labctl.domain.sleep import evidence, idle, proofs, waking, wanting, windows
from labctl.domain.sleep.actions import Action, Mend, Move, SendWake, StepCaps, Suspend, Unload, Verify
from labctl.domain.sleep.lifecycle import ADMITS, Mode
from labctl.domain.sleep.sight import Sight
from labctl.domain.sleep.terms import How
from labctl.domain.sleep.wording import counted, lasting


def lines(sight: Sight, host: str, actions: list[Action]) -> Iterator[str]:
    """Yield what is to be said of a host, one thing a line; ``actions`` are what is decided about it now."""
    row = sight.row(host)
    if row is None:
        yield f"{host} is not in the store yet"
        return
    why = f": {row.because}" if row.because else ""
    yield f"{host} is {row.mode} since {windows.local_text(row.since, sight.policy.zone)}{why}"
    if sight.look(host) is None:
        seen = sight.seen.hosts.get(host)
        # One that nobody has heard since this process began was seen at no time at all.
        at = seen.at if seen is not None else -inf
        ago = f" for {lasting(sight.now.mono - at)}" if isfinite(at) else ""
        yield f"nothing was seen of {host}{ago}, so nothing is done about it"
    if want := sight.wants.get(host):
        yield want.because
    if row.mode in ADMITS:
        yield from _awake(sight, host)
    else:
        yield from _away(sight, host)
    for action in actions:
        yield f"now: {said(action)}"


def said(action: Action) -> str:
    """Return an action as a person reads it: "send round 2: no answer for 4 s"."""
    match action:
        case Move():
            what = f"it is {action.event}"
        case Suspend():
            what = f"put it to sleep ({action.how})"
        case Unload():
            what = "free its cards"
        case SendWake():
            what = f"send round {action.round}"
        case Verify():
            what = "try whether it works"
        case Mend():
            what = f"mend it ({action.step})"
        case StepCaps():
            what = "set caps"
        case _:
            what = "wait"
    return f"{what}: {action.because}"


def _awake(sight: Sight, host: str) -> Iterator[str]:
    row, policy = sight.known.hosts[host], sight.policy.hosts[host]
    wish = wanting.sleep_wish(row, sight.now.wall)
    found = idle.reasons(sight, host, wish=wish)
    yield from (f"awake: {one.because}" for one in found)
    if not found:
        yield f"nothing keeps {host} awake: {idle.verdict(sight, host, wish=wish).because}"
        return
    times = [one.for_s for one in found if one.for_s is not None]
    if len(times) < len(found):
        return  # nobody knows when the rest of it ends
    at = windows.local_text(sight.now.wall + max(times), sight.policy.zone)
    way = proofs.way(row.proof, policy.how)
    does = "its cards are freed" if way is How.UNLOAD else f"it sleeps ({way})"
    yield f"if {host} stays as quiet as now, {does} at {at}"


def _away(sight: Sight, host: str) -> Iterator[str]:
    row, policy = sight.known.hosts[host], sight.policy.hosts[host]
    if row.mode is Mode.SUSPENDING:
        order = evidence.order_of(row)
        yield f"its order is dead {lasting(order.lasts_s)} after it was given, by the clock of {host}"
    if row.mode is Mode.WAKING and row.attempt is not None:
        yield f"{counted(row.attempt.sent, 'round')} of packets sent to {host}"
    usual = waking.usual_s(row)
    if usual is not None:
        yield f"a wake of {host} usually takes {lasting(usual)}"
    if row.repair.taken:
        yield f"tried to mend {host}: {', '.join(row.repair.taken)}"
    if row.repair.broken:
        yield f"broken on {host}: {'; '.join(row.repair.broken)}"
    coming = windows.upcoming(policy.awake, sight.policy.zone, sight.now.wall)
    if coming is not None and row.mode is Mode.ASLEEP:
        at = windows.local_text(coming.start, sight.policy.zone)
        yield f"{host} is woken {at}, to be awake {coming.text}"
