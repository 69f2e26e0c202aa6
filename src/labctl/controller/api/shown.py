"""What the controller answers, as the objects of JSON that docs/control-api.md describes.

Fields may be added; those here keep their names and meaning. Times are seconds since 1970.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from labctl.controller.answers import Change, Counts, Explanation, HostStatus, RackStatus, TestStep
from labctl.domain.energy.account import Account, Used
from labctl.domain.energy.terms import J_PER_KWH, Spent
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


def counts(one: Counts) -> dict[str, Any]:
    """Return what became of a host since the controller started."""
    wakes = {"bounds": list(one.bounds), "counts": list(one.wakes), "sum": one.wakes_s}
    return {"moves": dict(one.moves), "wakes": wakes}


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
        "counts": counts(one.counts),
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


def account(one: Account) -> dict[str, Any]:
    """Return what hosts used and saved."""
    return {
        "since": one.since,
        "until": one.until,
        "currency": one.currency,
        "mean_price": one.mean_price,
        "hosts": [_used(each) for each in one.hosts],
        "rack": _used(one.rack),
    }


def _used(one: Used) -> dict[str, Any]:
    saved = one.saved
    return {
        "host": one.host,
        "lines": [
            {
                "doing": str(line.doing),
                "seconds": line.seconds,
                "kwh": line.kwh,
                "estimated_kwh": line.estimated_kwh,
                "money": line.money,
            }
            for line in one.lines
        ],
        "kwh": one.kwh,
        "estimated_kwh": one.estimated_kwh,
        "money": one.money,
        "prompt_tokens": one.prompt_tokens,
        "answer_tokens": one.answer_tokens,
        "kwh_per_mtok": one.kwh_per_mtok,
        "money_per_mtok": one.money_per_mtok,
        "saved": {
            "kwh": saved.kwh,
            "money": saved.money,
            "estimated": saved.estimated,
            "wakes_kwh": saved.wakes_kwh,
            "idle_w": saved.idle_w,
            "asleep_w": saved.asleep_w,
            "because": saved.because,
        },
    }


def spent(one: Spent) -> dict[str, Any]:
    """Return what a host used in a span."""
    return {
        "at": one.at,
        "host": one.host,
        "doing": str(one.doing),
        "seconds": one.seconds,
        "kwh": (one.joules + one.guessed) / J_PER_KWH,
        "estimated_kwh": one.guessed / J_PER_KWH,
    }
