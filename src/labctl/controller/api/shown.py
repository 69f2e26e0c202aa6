"""What the controller answers, as the objects of JSON that docs/control-api.md describes.

Fields may be added; those here keep their names and meaning. Times are seconds since 1970.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from labctl.controller.answers import Change, Explanation, HostStatus, RackStatus, TestStep
from labctl.domain.sleep.terms import Hold, Wish
from labctl.ports.store import Happening


def hold(one: Hold) -> dict[str, Any]:
    """Return a hold."""
    return {"hold": one.id, "until": one.until, "why": one.why, "by": one.by}


def wish(one: Wish) -> dict[str, Any]:
    """Return a wish."""
    return {
        "wish": one.id,
        "wants": "asleep" if one.sleep else "awake",
        "until": one.until,
        "why": one.why,
        "by": one.by,
    }


def host(one: HostStatus) -> dict[str, Any]:
    """Return a host's status."""
    return {
        "host": one.host,
        "mode": str(one.mode),
        "since": one.since,
        "because": one.because,
        "next": one.next,
        "doing": one.doing,
        "talking": one.talking,
        "paused": one.paused,
        "quarantined": one.quarantined,
        "holds": [hold(each) for each in one.holds],
        "wishes": [wish(each) for each in one.wishes],
        "leases": one.leases,
        "proof": one.proof,
        "usual_s": one.usual_s,
        "telemetry": None if one.telemetry is None else asdict(one.telemetry),
    }


def rack(one: RackStatus, hosts: tuple[HostStatus, ...]) -> dict[str, Any]:
    """Return the rack's status with these of its hosts."""
    return {
        "at": one.at,
        "leader": one.leader,
        "leading": one.leading,
        "store": one.store,
        "paused": one.paused,
        "ticked_s": one.ticked_s,
        "hosts": [host(each) for each in hosts],
    }


def explanation(one: Explanation) -> dict[str, Any]:
    """Return why a host is as it is."""
    return {
        **host(one.status),
        "verdict": one.verdict,
        "may_sleep": one.may_sleep,
        "against": list(one.against),
        "readings": [
            {"signal": each.signal, "busy": each.busy, "because": each.because} for each in one.readings
        ],
        "report_age_s": one.report_age_s,
        "signs": list(one.signs),
        "recent": [{"at": at, "text": text} for at, text in one.recent],
        "lines": list(one.lines),
        "blocks": [
            {"kind": each.kind, "because": each.because, "until": each.until, "remedy": each.remedy}
            for each in one.blocks
        ],
        "refused": None if one.refused is None else {"at": one.refused[0], "text": one.refused[1]},
        "next_look_s": one.next_look_s,
    }


def change(one: Change) -> dict[str, Any]:
    """Return a host's new mode and reason."""
    return {
        "host": one.host,
        "mode": str(one.mode),
        "because": one.because,
        "usual_s": one.usual_s,
        "ok": one.ok,
    }


def step(one: TestStep) -> dict[str, Any]:
    """Return how far a sleep test is."""
    return {"host": one.host, "cycle": one.cycle, "of": one.of, "because": one.text, "ok": one.ok}


def event(one: Happening) -> dict[str, Any]:
    """Return a line of the kept log."""
    return {"event": one.id, "at": one.at, "host": one.host, "kind": one.kind, "text": one.text}
