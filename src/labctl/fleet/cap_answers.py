"""What became of an order about power caps: host by host, card by card, and one exit code for all of it.

The rules, read from the top; the first that fits decides:

=====================================================================  ====
the person stopped it (Ctrl-C)                                          130
every card is as ordered (a card without a cap that nobody named counts)  0
some cards are as ordered, others are not, are missing or unreachable     4
nothing was done, because every card refused what was ordered             2
no host could be reached                                                  3
something else: hosts failed, or cards did, or are missing                1
=====================================================================  ====

What a host says is checked as far as it is used; the texts in it are a stranger's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from labctl.agent.capstate import NOT_RECORDED
from labctl.domain.capping import Card, Declared, match
from labctl.domain.failures import Failure
from labctl.domain.outcome import Outcome, counted
from labctl.domain.problem import ExitCode
from labctl.fleet.reports import document_of
from labctl.fleet.sessions import INTERRUPTED, Answer

_DONE = ("changed", "unchanged", "would-change")
_WRONG = ("refused", "failed", "missing")
_NAMES = ("uuid", "pci", "slot", "name")


@dataclass(frozen=True, slots=True)
class HostCaps:
    """What a host said of its cards, or in ``failure`` why it said nothing.

    ``overrides`` are the orders that last there, ``steps`` the cards that stepped down for others. ``ok`` is
    its own judgement, which also covers what is not about a card: a driver that does not work, an order
    that could not be recorded.
    """

    host: str
    cards: tuple[Mapping[str, Any], ...] = ()
    findings: tuple[Mapping[str, Any], ...] = ()
    overrides: tuple[Mapping[str, Any], ...] = ()
    steps: tuple[Mapping[str, Any], ...] = ()
    ok: bool = True
    failure: Failure | None = None
    seconds: float | None = None

    @property
    def status(self) -> str:
        """Return the host's state in a word: ok, wrong, failed, unreachable or interrupted."""
        if self.failure is None:
            return "ok" if self.ok and not any(card["status"] in _WRONG for card in self.cards) else "wrong"
        if self.failure.code == INTERRUPTED:
            return INTERRUPTED
        return "unreachable" if self.failure.unreachable else "failed"

    @property
    def forgets(self) -> bool:
        """Return whether the host could not record what was ordered."""
        return any(finding.get("code") == NOT_RECORDED for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the plain JSON form."""
        failure = self.failure
        why = {"code": failure.code, "reason": failure.reason, "hint": failure.hint} if failure else None
        return {
            "host": self.host,
            "status": self.status,
            "failure": why,
            "seconds": self.seconds,
            "cards": [dict(card) for card in self.cards],
            "findings": [dict(finding) for finding in self.findings],
            "overrides": [dict(override) for override in self.overrides],
            "steps": [dict(step) for step in self.steps],
        }


def read(answer: Answer) -> HostCaps:
    """Return what a host answered to an order or to ``--show``."""
    document = document_of(answer)
    if isinstance(document, Failure):
        return HostCaps(answer.host, failure=document)
    seconds = round(answer.said.seconds, 3) if answer.said else None
    return replace(of_document(answer.host, document), seconds=seconds)


def of_document(host: str, document: Mapping[str, Any]) -> HostCaps:
    """Return what the agent's JSON says; one that it refused to work on is a failure."""
    error = document.get("error")
    if isinstance(error, dict):
        code, what, hint = (str(error.get(key) or "") for key in ("code", "what", "hint"))
        return HostCaps(host, failure=Failure(code, what, hint))
    cards, findings = _objects(document.get("cards")), _objects(document.get("findings"))
    if cards is None or any(not isinstance(card.get("status"), str) for card in cards):
        reason = "labctl's agent there answered in a way that this labctl does not know"
        return HostCaps(host, failure=Failure("op-failed", reason, f"labctl apply --limit {host}"))
    findings, ok = findings or (), document.get("ok") is not False
    if not cards and not ok:
        worst = findings[0] if findings else {}
        what = str(worst.get("what") or "no card of it answers")
        return HostCaps(host, failure=Failure("driver", what, str(worst.get("hint") or "")))
    overrides, steps = (_objects(document.get(name)) or () for name in ("overrides", "steps"))
    return HostCaps(host, cards, findings, overrides, steps, ok)


def with_missing(found: HostCaps, declared: Sequence[Declared]) -> HostCaps:
    """Return what a host said, and a row for each declared card that none of its cards can be.

    A card that does not tell its name may be any of them, so each of those excuses one.
    """
    if found.failure is not None:
        return found
    named = [_card(row) for row in found.cards if row.get("name")]
    nameless = len(found.cards) - len(named)
    missing = match(declared, named).missing[nameless:]
    rows = tuple(
        {
            "slot": one.slot,
            "uuid": one.uuid,
            "pci": one.pci,
            "name": one.model,
            "declared_w": one.cap_w,
            "declared_reason": one.reason,
            "status": "missing",
            "why": "the host has no such card",
            "hint": "check its seat and power, or correct the inventory",
        }
        for one in missing
    )
    return replace(found, cards=(*found.cards, *rows))


def _card(row: Mapping[str, Any]) -> Card:
    uuid, pci, name = (str(row[key]) if row.get(key) else None for key in ("uuid", "pci", "name"))
    return Card(str(row.get("vendor") or ""), uuid, pci, name)


def _objects(value: object) -> tuple[Mapping[str, Any], ...] | None:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        return None
    return tuple(
        {key: None if key in _NAMES and not isinstance(said, str) else said for key, said in one.items()}
        for one in value
    )


def judge(hosts: Sequence[HostCaps]) -> Outcome:
    """Return how it ended, by the rules above."""
    cards = [(host.host, card) for host in hosts for card in host.cards]
    done = [card for _, card in cards if card["status"] in _DONE]
    wrong = [(host, card) for host, card in cards if card["status"] in _WRONG]
    silent = [host for host in hosts if host.failure is not None]
    uneasy = [
        host.host for host in hosts if not host.ok and all(one["status"] in _DONE for one in host.cards)
    ]
    would = "would be " if any(card["status"] == "would-change" for card in done) else ""
    said = f"{len(done)} of {counted(len(done) + len(wrong), 'card')} {would}as ordered"
    cards_named = [f"{host}/{card_name(card)}" for host, card in wrong]
    names = ", ".join([*cards_named, *(one.host for one in silent), *uneasy])
    if any(one.status == INTERRUPTED for one in silent):
        return Outcome(ExitCode.INTERRUPTED, f"interrupted; {said if cards else 'no host had answered'}")
    if not wrong and not silent and not uneasy:
        return Outcome(ExitCode.OK, said if cards else "there was nothing to do")
    if done:
        return Outcome(ExitCode.PARTIAL, f"{said}; not done: {names}")
    if wrong and not silent and all(card["status"] == "refused" for _, card in wrong):
        return Outcome(ExitCode.BAD_INPUT, f"nothing was changed; refused: {names}")
    if not wrong and all(one.status == "unreachable" for one in silent):
        return Outcome(ExitCode.UNREACHABLE, f"no host could be reached: {names}")
    return Outcome(ExitCode.HOST_FAILED, f"nothing was done: {names}")


def judge_shown(hosts: Sequence[HostCaps]) -> Outcome:
    """Return how it ended where hosts were only asked: what they say, however bad, was to be shown."""
    silent = [host for host in hosts if host.failure is not None]
    names = ", ".join(host.host for host in silent)
    if any(one.status == INTERRUPTED for one in silent):
        return Outcome(ExitCode.INTERRUPTED, "interrupted")
    if not silent:
        return Outcome(ExitCode.OK, f"{counted(len(hosts), 'host')} asked")
    if len(silent) < len(hosts):
        return Outcome(ExitCode.PARTIAL, f"no answer: {names}")
    if all(one.status == "unreachable" for one in silent):
        return Outcome(ExitCode.UNREACHABLE, f"no host could be reached: {names}")
    return Outcome(ExitCode.HOST_FAILED, f"no answer: {names}")


def card_name(card: Mapping[str, Any]) -> str:
    """Return what a person calls a card that a host spoke of."""
    known = next((str(card[key]) for key in ("slot", "pci", "uuid") if card.get(key)), "")
    return known or f"one {card.get('name') or 'card'}"
