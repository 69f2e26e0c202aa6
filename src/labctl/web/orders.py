"""The orders that a page can give: what each asks back, and what it asks the controller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from labctl.web.guard import Refused
from labctl.web.metrics.reading import text
from labctl.web.view import plain

WAIT_S = 2.0
"""How long an order waits for news, so that what is refused at once is said at once."""

HOURS = (1, 2, 4, 8, 24, 72)
_LONGEST = 500


@dataclass(frozen=True, slots=True)
class Order:
    """One verb: what its button says, what is asked before, and how its fields become a request."""

    verb: str
    button: str
    question: str
    explained: str
    request: Callable[[Mapping[str, str]], dict[str, Any]]


def _why(fields: Mapping[str, str], *, needed: bool = False) -> str:
    why = " ".join(fields.get("why", "").split())
    if len(why) > _LONGEST or not why.isprintable():
        raise Refused(400, f"a reason is one line of at most {_LONGEST} letters")
    if needed and not why:
        raise Refused(
            400, "a hold needs a reason: others will read it when they wonder why the host is awake"
        )
    return why


def _wake(fields: Mapping[str, str]) -> dict[str, Any]:
    return {"why": _why(fields), "timeout_s": WAIT_S}


def _suspend(fields: Mapping[str, str]) -> dict[str, Any]:
    return {"why": _why(fields), "when_idle": fields.get("when_idle") == "yes", "timeout_s": WAIT_S}


def _hold(fields: Mapping[str, str]) -> dict[str, Any]:
    hours = fields.get("hours", "")
    if hours not in map(str, HOURS):
        raise Refused(400, f"a hold lasts one of {', '.join(map(str, HOURS))} hours")
    return {"why": _why(fields, needed=True), "for_s": int(hours) * 3600}


def _release(fields: Mapping[str, str]) -> dict[str, Any]:
    hold = fields.get("hold", "")
    if hold == "all":
        return {"all": True}
    if not hold.isascii() or not hold.isdigit() or len(hold) > 18:
        raise Refused(400, "say which hold, by its number, or all")
    return {"hold": int(hold)}


ORDERS: Mapping[str, Order] = {
    one.verb: one
    for one in (
        Order(
            "wake", "Wake", "Wake {}?", "It is woken now, and may sleep again when nothing needs it.", _wake
        ),
        Order(
            "suspend",
            "Suspend",
            "Put {} to sleep?",
            "It sleeps only if nothing speaks against it: requests, holds, people and jobs go first.",
            _suspend,
        ),
        Order(
            "hold",
            "Hold",
            "Keep {} awake?",
            "It stays awake that long. If it sleeps, it is not woken.",
            _hold,
        ),
        Order("release", "Release", "Release {}?", "What was held may sleep when it is idle.", _release),
    )
}


def told(host: str, verb: str, answer: Mapping[str, Any]) -> str:
    """Return in a sentence what the controller answered to an order for a host."""
    hosts = answer.get("hosts")
    one = hosts.get(host) if isinstance(hosts, Mapping) else None
    found: Mapping[str, Any] = one if isinstance(one, Mapping) else {}
    because, ok = plain(found.get("because")), found.get("ok")
    mode = text(found.get("mode"))
    if verb == "hold":
        return f"{host} is held."
    if verb == "release":
        return f"{host}: {because or ('released' if ok else 'nothing was released')}."
    if ok is True:
        return f"{host} is {mode}: {because}."
    if ok is False:
        return f"{host} is not {'woken' if verb == 'wake' else 'put to sleep'}: {because}."
    return f"Asked for. {host} is {mode or 'as it was'}: {because or 'nothing more is known yet'}."
