"""``caps --step``: step down for other hosts, or up again; ``domain.capstep`` decides what that may be.

This is what the controller's key may do with numbers of its own, so it is bounded by what lies on the host:
at most the declared cap, at least the card's minimum, cards of the inventory only, and never above a
person's order. On standard input comes ``{"caps_w": {card: watts}, "because": text}``; each card is done or
refused on its own. The answer is that of an order, with ``caps_w``: what each card that was named may draw
now, read back, and ``caps_n``: the number of this change, which the watch tells with what is in force.

What is written down never promises less than a card may draw: a step up is written before it is made, and a
step down after it was read back.
"""

from __future__ import annotations

import time
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from ..domain import cap_json, capstep
from ..domain.capping import WRONG, Card, Declared, Refusal, by_time, effective, reached
from ..domain.capstep import Step, StepOrder
from . import caps, cards
from .caplook import Host, Plan, is_gone, look, refused, settle, unknown_row
from .capstate import Notes, Refused, State
from .host import ROOT


class _Named(NamedTuple):
    """A card that the order names: what is asked, the steps before and after, and what is to be done."""

    name: str
    asked_w: int
    card: Card
    old: Step | None
    new: Step | None
    plan: Plan


def step(document: Any, root: Path = ROOT) -> dict[str, Any]:
    """Step as far as may be, and return the answer.

    Args:
        document: the order as JSON gives it.
        root: where the host's file system begins.
    """
    return caps.answered(lambda: _step(cap_json.step_order(document), root))


def _now() -> int:
    return int(time.time())


def _step(wanted: StepOrder, root: Path) -> dict[str, Any]:
    notes: Notes = []
    now = _now()
    with State(root).locked(notes):
        host = look(root, notes, wake=True)
        named = _named(wanted, host, now)
        done = [one for one in named if not isinstance(one.plan.target, Refusal)]
        steps = host.steps
        for one in done:
            steps = _with(steps, _higher(one), one.card)
        number = host.state.save_steps(steps, host.steps, notes)
        plans = [one.plan for one in named]
        rows = caps.done(plans, host, root)
        caps.record(host, host.overrides, plans, rows)
        before = steps
        for one, shown in zip(named, rows):  # noqa: B905
            if one in done and shown["status"] not in WRONG:
                steps = _with(steps, one.new, one.card)
        number = max(number, host.state.save_steps(steps, before, notes))
    answer = caps.answer_of("step", now, rows, host.notes, host.overrides, steps)
    answer["caps_w"] = {
        one.name: watts
        for one, shown in zip(named, rows)  # noqa: B905
        if (watts := _may_draw(one, shown["after_w"])) is not None
    }
    _add_absent(answer, wanted, named, host)
    return {**answer, "caps_n": number, "ok": not any(_is_bad(row) for row in answer["cards"])}


def _named(wanted: StepOrder, host: Host, now: int) -> list[_Named]:
    seen_by = {seen.card: seen for seen in host.survey.seen}
    found: dict[Card, _Named] = {}
    for name, watts in wanted.caps_w.items():
        card = capstep.named(name, list(seen_by), host.matched)
        if card is None:
            continue
        if card in found:
            raise Refused(f"{found[card].name} and {name} are one card", "nothing was changed", "bad-order")
        declared, old = host.declared_for(card), capstep.of_card(host.steps, card)
        top = capstep.top_of(card, declared)
        is_step = top is not None and watts < top
        new = Step(name, watts, wanted.because, card.uuid, card.pci, now) if is_step else None
        found[card] = _Named(
            name, watts, card, old, new, _plan(watts, seen_by[card], declared, new, host, now)
        )
    return list(found.values())


def _plan(
    watts: int,
    seen: cards.Seen,
    declared: Declared | None,
    new: Step | None,
    host: Host,
    now: int,
) -> Plan:
    before = host.kept_for(seen.card)
    refusal = capstep.against(watts, seen.card, declared)
    if refusal is not None:
        return refused(seen, refusal, before, capstep.STEP)
    live = by_time(host.overrides, now).live
    return settle(seen, capstep.under(effective(seen.card, declared, live)[0], new, seen.card), before)


def _higher(one: _Named) -> Step | None:
    """Return which of the old and the new step lets the card draw more; None lets it draw most."""
    if one.old is None or one.new is None:
        return None
    return one.old if one.old.watts >= one.new.watts else one.new


def _with(steps: tuple[Step, ...], new: Step | None, card: Card) -> tuple[Step, ...]:
    return capstep.without(steps, card) if new is None else capstep.replaced(steps, new, card)


def _may_draw(one: _Named, after_w: float | None) -> int | None:
    """Return what a card may draw from now on: what was asked, unless it shows more; None: nobody knows."""
    if after_w is None:
        return None
    return one.asked_w if after_w <= one.asked_w or reached(after_w, one.asked_w) else ceil(after_w)


def _add_absent(answer: dict[str, Any], wanted: StepOrder, named: list[_Named], host: Host) -> None:
    """Say of the cards that did not answer; one that is not there draws nothing, so it is as ordered."""
    for name in wanted.caps_w.keys() - {one.name for one in named}:
        declared = next((one for one in host.matched.missing if capstep.is_called(name, one)), None)
        if declared is not None and is_gone(declared, host.survey):
            answer["caps_w"][name] = wanted.caps_w[name]
        answer["cards"].append(unknown_row(name, host))


def _is_bad(row: dict[str, Any]) -> bool:
    return row["status"] in (*WRONG, "missing", "no-cap")
