"""Talk a host into sleep: its last look, our commit, and only then the word.

1. The agent looks a last time, and answers with a nonce that is good for seconds by its own clock, or
   refuses. Up to here nothing has happened, and whoever comes wins.
2. The store closes admission, in one transaction that fails if a lease, hold, wish or pause came first.
3. ``go`` with the nonce. If we were frozen in between, the nonce is too old and so is our lead: neither is
   tried.

From step 2 on only the host's own word opens admission again: its answer here, or its reports later. No
answer means that it stays SUSPENDING until it is seen dark, or reports after the order has died.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from labctl.controller.doors import AGENT
from labctl.controller.means import Means, document, line
from labctl.domain.failures import Failure, HostError
from labctl.domain.sleep.actions import Suspend, Unload
from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.domain.sleep.terms import How, Order
from labctl.ports import Conversation
from labctl.ports.store import StaleError

LASTS_S = 120.0
"""How long an order lives by the host's own clock."""

AGAIN_S = 300.0
WITHIN_S = 5.0
MARGIN_S = 0.5
_NONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)


def suspend(means: Means, action: Suspend) -> None:
    """Have a DRAINING host go to sleep, or bring it back to READY with its reason."""
    host, rung = action.host, means.rungs.get(action.host)
    if rung is not None:
        action = replace(action, how=rung.how)
    with means.ledger.effect(host, f"{action.how}", action.because) as note:
        talk = means.doors.talker.talk(host, means.doors.data[host], (AGENT, "suspend"), root=False)
        try:
            note.outcome = _conversation(means, action, talk)
        finally:
            talk.close()


def unload(means: Means, action: Unload) -> None:
    """Have a host free its cards; it stays on, and decides by its own last look.

    One that did not is asked again only after ``AGAIN_S``: it is decided anew in each tick.
    """
    host, now = action.host, means.doors.mono()
    if now < means.unloads.get(host, now):
        return
    means.unloads[host] = now + AGAIN_S
    with means.ledger.effect(host, "unload", action.because) as note:
        talk = means.doors.talker.talk(host, means.doors.data[host], (AGENT, "suspend"), root=False)
        try:
            talk.send(line(_wanted(How.UNLOAD, None, force=False)))
            said = talk.lines()
            nonce, refused = _ready(said)
            if nonce:
                talk.send(line({"go": nonce}))
                refused = _answer(said)
            note.outcome = f"refused: {refused}" if refused else "done"
            if not refused:
                means.observer.unloaded(host)
                means.unloads.pop(host, None)
            means.happen(host, "unload", note.outcome)
        finally:
            talk.close()


def _conversation(means: Means, action: Suspend, talk: Conversation) -> str:
    doors, host = means.doors, action.host
    wanted = _wanted(action.how, action.rtc_at, force=action.force)
    if memory := _memory(means, action):
        wanted["mem_sleep"] = memory
    talk.send(line(wanted))
    said = talk.lines()
    nonce, refused = _ready(said)
    heard = doors.mono()
    if not nonce:
        means.move(host, Event.REFUSED, refused, version=action.version, now=doors.wall())
        return f"refused: {refused}"
    order = Order(nonce, action.how, doors.wall(), LASTS_S, action.rtc_at)
    verdict = doors.store.order(
        host, order, action.because, version=action.version, term=means.leader.term(), now=doors.wall()
    )
    means.tally.moved(host, Event.ORDERED if verdict else Event.NEEDED)
    if not verdict:
        return f"not ordered: {verdict.because}"
    if doors.mono() - heard > WITHIN_S - MARGIN_S or not means.leader.leads():
        return "not sent: too much time had passed since the host's last look"
    talk.send(line({"go": nonce}))
    try:
        refused = _answer(said)
    except HostError as error:
        return f"sent, and no answer heard: {error}"
    if not refused:
        return "going"
    _reopen(means, host, nonce, refused)
    return f"refused: {refused}"


def _memory(means: Means, action: Suspend) -> str:
    """Return how it shall sleep to memory, where that is not how it would by itself: as tested, or proven."""
    if action.how is not How.SUSPEND:
        return ""
    rung = means.rungs.get(action.host)
    if rung is not None:
        return rung.mem_sleep
    proof, report = means.known(action.host).proof, means.observer.host(action.host).report
    if proof is None or proof.fingerprint.how is not How.SUSPEND:
        return ""
    own = report.fingerprint.mem_sleep if report is not None and report.fingerprint is not None else ""
    return proof.fingerprint.mem_sleep if proof.fingerprint.mem_sleep != own else ""


def _reopen(means: Means, host: str, nonce: str, refused: str) -> None:
    """Take the host's own word that it will not obey this order."""
    known = means.known(host)
    if known.mode is not Mode.SUSPENDING or known.order is None or known.order.nonce != nonce:
        raise StaleError(f"{host} is {known.mode}, under another order or none")
    means.move(host, Event.REFUSED, refused, version=known.version, now=means.doors.wall())


def _wanted(how: How, rtc_at: float | None, *, force: bool) -> dict[str, object]:
    return {
        "how": how.value,
        "rtc_at": None if rtc_at is None else int(rtc_at),
        "force": force,
        "lasts_s": int(LASTS_S),
    }


def _ready(said: Iterator[bytes]) -> tuple[str, str]:
    """Return the nonce, or why the host refuses."""
    word = _next(said)
    if isinstance(refused := word.get("refused"), str):
        return "", refused
    nonce = word.get("nonce")
    if word.get("ready") is not True or not isinstance(nonce, str) or not _NONCE.fullmatch(nonce):
        raise HostError(Failure("op-failed", "its agent neither is ready nor refuses"))
    return nonce, ""


def _answer(said: Iterator[bytes]) -> str:
    """Return why the host refuses after all, or nothing: it goes."""
    word = _next(said)
    if isinstance(refused := word.get("refused"), str):
        return refused or "it does not say why"
    if "going" not in word:
        raise HostError(Failure("op-failed", "its agent neither goes nor refuses"))
    return ""


def _next(said: Iterator[bytes]) -> dict[str, object]:
    for text in said:
        if text.strip():
            return document(text)
    raise HostError(Failure("connection-lost", "it ended the conversation"))
