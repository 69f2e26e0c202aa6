"""``caps``: give each card the cap that it should have, and take a person's order about caps.

- ``apply`` (at boot, after a resume, when a driver was loaded, by ``labctl apply``): what the inventory
  declares, and the overrides that still hold. An order that does not last ends here. A card that stepped down
  for other hosts (see ``capsteps``) stays down, unless this is another boot or wake, or the gate.
- ``show``: the same decisions, and nothing is changed or woken.
- ``order``: what somebody wants now. Each card is done or refused on its own; others are left as they are.

The decisions are those of ``domain.capping``; here they meet the cards. A missing card is a finding and no
failure, so that a box with a dead card still comes up capped. A card that is there and does not have what it
should is a failure, and so is one that somebody ordered by name and that is not there. Every answer is one
JSON object, whose ``ok`` says whether all is as it should be; one with ``error`` means that nothing was done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..domain import cap_json, capstep
from ..domain.capping import (
    FORMAT,
    WRONG,
    Change,
    Order,
    Override,
    Refusal,
    by_time,
    effective,
    judge,
    reached,
    select,
    with_order,
)
from ..domain.capstep import Step
from . import captimer, cards
from .caplook import Host, Plan, absent_row, look, refused, row, settle, silent_row, unknown_row
from .capstate import NOT_RECORDED, Kept, Notes, Refused, State, note, writing
from .host import ROOT
from .sections import Finding


def apply(root: Path = ROOT, *, steps_end: bool = False) -> dict[str, Any]:
    """Give each card what the inventory and the overrides that hold want, and return the answer.

    With ``steps_end`` cards that stepped down are put up again first.
    """
    return answered(lambda: _apply(root, steps_end=steps_end))


def show(root: Path = ROOT) -> dict[str, Any]:
    """Return what ``apply`` would do; change nothing, and wake no card."""
    return answered(lambda: _show(root))


def order(document: Any, root: Path = ROOT) -> dict[str, Any]:
    """Do what an order wants, as far as it may be, and return the answer.

    Args:
        document: the order as JSON gives it; ``cap_json.order`` says what it may hold.
        root: where the host's file system begins.
    """
    return answered(lambda: _order(document, root))


def exit_code(answer: dict[str, Any]) -> int:
    """Return 2 where nothing was done, 1 where a card is not right, else 0; to show is no failure."""
    return 2 if "error" in answer else 0 if answer["ok"] or answer["verb"] == "show" else 1


def complaints(answer: dict[str, Any]) -> list[str]:
    """Return what a person should know of an answer, a line each: what is not right, and what was found."""
    if "error" in answer:
        found = [(answer["error"]["code"], answer["error"]["what"], answer["error"]["hint"])]
    else:
        found = [
            (f"{one['slot'] or one['pci'] or one['uuid']} ({one['name']})", one["why"], one["hint"])
            for one in answer["cards"]
            if one["status"] in WRONG
        ]
        found += [(one["code"], one["what"], one["hint"]) for one in answer["findings"]]
    return [f"{head}: {what}" + (f"; {hint}" if hint else "") for head, what, hint in found]


def answered(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the answer of a run; where nothing is done, the one that says why."""
    try:
        return run()
    except Refused as refusal:
        return refusal.as_json()
    except cap_json.Malformed as mistake:
        return Refused(str(mistake), "nothing was changed", "bad-order").as_json()


def _now() -> int:
    return int(time.time())


# --- what should be ---


def _apply(root: Path, *, steps_end: bool) -> dict[str, Any]:
    notes: Notes = []
    with State(root).locked(notes):
        host = look(root, notes, wake=True)
        if steps_end:
            host.state.save_steps((), host.steps, notes)
            host = host._replace(steps=())
        now = _now()
        sorted_out = by_time(host.overrides, now)
        plans = _plans(host, sorted_out.live, now)
        rows = done(plans, host, root) + [absent_row(one, host.survey) for one in host.matched.missing]
        # What holds is seen alive: a clock that stands before this moment later on is wrong.
        alive = tuple(replace(one, seen=max(one.seen, now)) for one in sorted_out.live)
        overrides = (*alive, *sorted_out.doubtful)
        record(host, overrides, plans, rows)
        _set_timer(host, overrides, root)
        answer = answer_of("caps", now, rows, host.notes, overrides, host.steps)
        answer["ok"] = not any(one["status"] in WRONG for one in rows)
        with writing(notes):
            host.state.save_outcome({**answer, "order": host.state.outcome().get("order")})
    return answer


def _show(root: Path) -> dict[str, Any]:
    host = look(root, [], wake=False)
    now = _now()
    sorted_out = by_time(host.overrides, now)
    rows = [_planned_row(plan, host) for plan in _plans(host, sorted_out.live, now)]
    rows += [absent_row(one, host.survey) for one in host.matched.missing]
    overrides = (*sorted_out.live, *sorted_out.doubtful)
    answer = answer_of("show", now, rows, host.notes, overrides, host.steps)
    answer["ok"] = not any(one["status"] in (*WRONG, "would-change") for one in rows)
    return answer


def _plans(host: Host, live: Sequence[Override], now: int) -> list[Plan]:
    """Return what each card needs, and note which overrides do not hold."""
    plans = []
    for seen in host.survey.seen:
        wish, ignored = effective(seen.card, host.declared_for(seen.card), live)
        plans.append(settle(seen, host.stepped(wish, seen.card), host.kept_for(seen.card)))
        for one in ignored:
            what = (
                f"{one.watts} W, ordered by {one.by or 'somebody'}, are above what protects a circuit or PSU"
            )
            finding = Finding(what, "give it again with --override", "override-ignored")
            host.notes.append(note(finding, seen.card.key))
    for one in by_time(host.overrides, now).doubtful:
        what = (
            f"a timed order waits: it is older than this host's clock, which says {captimer.until_text(now)}"
        )
        host.notes.append(note(Finding(what, "set the clock", "clock-behind"), one.uuid or one.pci))
    return plans


# --- what somebody wants ---


def _order(document: Any, root: Path) -> dict[str, Any]:
    wanted = cap_json.order(document)
    now = _now()
    if wanted.until is not None and wanted.until <= now:
        when, clock = captimer.until_text(wanted.until), captimer.until_text(now)
        raise Refused(f"{when} is over: this host's clock says {clock}", "nothing was changed", "bad-order")
    notes: Notes = []
    if wanted.dry_run:
        host, plans, absent = _wanted(wanted, root, notes)
        rows = [_planned_row(plan, host) for plan in plans] + absent
        return _order_answer(wanted, now, rows, host, host.overrides)
    with State(root).locked(notes):
        host, plans, absent = _wanted(wanted, root, notes)
        host = _stepped_up(wanted, host, plans)
        rows = done(plans, host, root)
        overrides = _overrides_after(wanted, now, host, plans, rows)
        record(host, overrides, plans, rows)
        if overrides != host.overrides:
            _set_timer(host, overrides, root)
        answer = _order_answer(wanted, now, rows + absent, host, overrides)
        with writing(notes):
            host.state.save_outcome(_outcome_after(host.state.outcome(), answer, wanted))
    return answer


def _wanted(wanted: Order, root: Path, notes: Notes) -> tuple[Host, list[Plan], list[dict[str, Any]]]:
    """Return the host, what the order means for each of its cards, and rows of those that do not answer."""
    host = look(root, notes, wake=True)
    chosen, unknown = select(wanted.cards, [seen.card for seen in host.survey.seen], host.matched)
    plans = [_wanted_of(wanted, seen, host) for seen in host.survey.seen if seen.card in chosen]
    absent = [unknown_row(name, host) for name in unknown]
    if wanted.cards is None:
        absent = [silent_row(one) for one in host.survey.silent]
    if not plans and not absent and not host.survey.blind:
        raise Refused("this host has no graphics card that labctl can cap", "nothing was changed", "no-cards")
    return host, plans, absent


def _wanted_of(wanted: Order, seen: cards.Seen, host: Host) -> Plan:
    card, before = seen.card, host.kept_for(seen.card)
    declared = host.declared_for(card)
    if wanted.reset:
        wish = host.stepped(effective(card, declared, ())[0], card)
        return settle(seen, wish, before, reset=wish.source != capstep.STEP)
    verdict = capstep.over_step(wanted, capstep.of_card(host.steps, card)) or judge(wanted, card, declared)
    if isinstance(verdict, Refusal):
        return refused(seen, verdict, before, "order")
    watts, clocks = verdict.watts, verdict.clocks_mhz
    locked = before.clocks_mhz if clocks is None else clocks if isinstance(clocks, tuple) else None
    after = Kept(before.watts if watts is None else watts, locked)
    needed = None if watts is None or reached(card.limit_w, watts) else watts
    return Plan(seen, Change(needed, clocks), watts, before, after, "order")


def _stepped_up(wanted: Order, host: Host, plans: Sequence[Plan]) -> Host:
    """Return the host without the steps that an order goes above, which takes a person's words."""
    steps = host.steps
    for plan in plans:
        step = capstep.of_card(steps, plan.seen.card)
        if step is not None and plan.watts is not None and plan.watts > step.watts:
            steps = capstep.without(steps, plan.seen.card)
    host.state.save_steps(steps, host.steps, host.notes)
    return host._replace(steps=steps)


def _overrides_after(
    wanted: Order, now: int, host: Host, plans: Sequence[Plan], rows: Sequence[dict[str, Any]]
) -> tuple[Override, ...]:
    """Return what lasts after the order: of one that lasts, the cards on which it could be done."""
    overrides = host.overrides
    for plan, shown in zip(plans, rows):  # noqa: B905
        card = plan.seen.card
        if wanted.reset:
            overrides = tuple(one for one in overrides if not one.is_about(card))
        elif wanted.lasts and shown["status"] in ("changed", "unchanged"):
            new = Override(
                uuid=card.uuid,
                pci=card.pci,
                watts=wanted.watts,
                clocks_mhz=wanted.clocks_mhz,
                reason=wanted.reason,
                until=wanted.until,
                words=wanted.override,
                by=wanted.by,
                at=now,
                seen=now,
            )
            overrides = with_order(overrides, new)
    return overrides


# --- doing ---


def done(plans: Sequence[Plan], host: Host, root: Path) -> list[dict[str, Any]]:
    """Set what is to be set, look again, and return a row for each plan."""
    changes = {
        str(at): (plan.seen, plan.target)
        for at, plan in enumerate(plans)
        if isinstance(plan.target, Change) and plan.target != Change()
    }
    errors = cards.change(changes, root) if changes else {}
    again = {seen.card.key: seen for seen in cards.survey(root, wake=True).seen} if changes else {}
    return [
        _done_row(plan, host, errors.get(str(at)), again.get(plan.seen.card.key))
        if str(at) in changes
        else _planned_row(plan, host)
        for at, plan in enumerate(plans)
    ]


def _planned_row(plan: Plan, host: Host) -> dict[str, Any]:
    """Return the row of a card on which nothing is done, or only would be."""
    card, target = plan.seen.card, plan.target
    more: dict[str, Any] = {"clocks_before": plan.before.clocks_mhz, "source": plan.source}
    if isinstance(target, Refusal):
        more.update(
            status=target.status, why=target.why, hint=target.hint, clocks_after=plan.before.clocks_mhz
        )
    elif card.limit_w is None and target == Change():
        more.update(status="no-cap", why="this card has no power cap")
    else:
        status = "would-change" if plan.is_visible else "unchanged"
        more.update(status=status, clocks_after=plan.after.clocks_mhz)
        if target.watts is not None:
            more["after_w"] = target.watts
    return row(card, host.declared_for(card), **more)


def _done_row(
    plan: Plan, host: Host, error: dict[str, str] | None, again: cards.Seen | None
) -> dict[str, Any]:
    """Return the row of a card that was set, by what it shows now."""
    card = plan.seen.card
    limit_w = again.card.limit_w if again else None
    status, why, hint = "changed" if plan.is_visible else "unchanged", "", ""
    if error:
        status, why, hint = "failed", error["what"], error.get("hint", "")
    elif again is None:
        status, why, hint = "failed", "it did not answer after it was set", "look at dmesg"
    elif plan.watts is not None and not reached(limit_w, plan.watts):
        status, why = "failed", f"it was set to {plan.watts:g} W and shows {limit_w} W"
        hint = "persistence mode is off, so it forgets" if again.persistence is False else "look at dmesg"
    elif plan.watts is not None and not plan.source:
        why = "back to its own default, since nobody asks for a cap any more"
    if again and again.persistence is False and status != "failed":
        what = "it forgets what was set when its last user goes: persistence mode cannot be switched on"
        host.notes.append(note(Finding(what, "enable nvidia-persistenced", "persistence-off"), card.key))
    kept = plan.before if status == "failed" else plan.after
    more = {"why": why, "hint": hint, "after_w": limit_w, "source": plan.source}
    clocks = {"clocks_before": plan.before.clocks_mhz, "clocks_after": kept.clocks_mhz}
    return row(card, host.declared_for(card), status, **more, **clocks)


def record(
    host: Host, overrides: tuple[Override, ...], plans: Sequence[Plan], rows: Sequence[dict[str, Any]]
) -> None:
    """Keep which overrides hold, and what labctl has set on the cards."""
    kept = dict(host.kept)
    for plan, shown in zip(plans, rows):  # noqa: B905
        if shown["status"] != "failed":
            kept[plan.seen.card.key] = plan.after
        elif plan.watts is not None and reached(shown["after_w"], plan.watts):
            kept[plan.seen.card.key] = plan.before._replace(watts=plan.watts)
    with writing(host.notes):
        if overrides != host.overrides:
            host.state.save_overrides(overrides)
        if kept != host.kept:
            host.state.save_kept(kept)


def _set_timer(host: Host, overrides: Iterable[Override], root: Path) -> None:
    """Arm the timer for the first override that ends, where there is or was one."""
    ends = [one.until for one in overrides if one.until is not None]
    if ends or any(one.until is not None for one in host.overrides):
        trouble = captimer.arm(min(ends, default=None), root)
        if trouble is not None:
            host.notes.append(note(trouble))


# --- what is said ---


def answer_of(
    verb: str,
    now: int,
    rows: list[dict[str, Any]],
    notes: Notes,
    overrides: Iterable[Override],
    steps: Iterable[Step],
) -> dict[str, Any]:
    """Return an answer that says that all is as it should be."""
    return {
        "format": FORMAT,
        "verb": verb,
        "at": now,
        "ok": True,
        "cards": rows,
        "findings": notes,
        "overrides": cap_json.overrides_document(overrides)["overrides"],
        "steps": cap_json.steps_document(steps),
        "until": None,
    }


def _order_answer(
    wanted: Order, now: int, rows: list[dict[str, Any]], host: Host, overrides: Iterable[Override]
) -> dict[str, Any]:
    bad = WRONG if wanted.cards is None else (*WRONG, "missing", "no-cap")
    lost = wanted.lasts and any(one["code"] == NOT_RECORDED for one in host.notes)
    ok = not lost and not host.survey.blind and not any(one["status"] in bad for one in rows)
    answer = answer_of("order", now, rows, host.notes, overrides, host.steps)
    return {**answer, "ok": ok, "until": wanted.until}


def _outcome_after(outcome: dict[str, Any], answer: dict[str, Any], wanted: Order) -> dict[str, Any]:
    """Return the last outcome with the cards that an order was about, and the order itself."""
    about = {one["uuid"] or one["pci"]: one for one in answer["cards"]}
    others = [one for one in outcome.get("cards", []) if (one.get("uuid") or one.get("pci")) not in about]
    summary = {
        "at": answer["at"],
        "ok": answer["ok"],
        **{name: value for name, value in cap_json.order_document(wanted).items() if name != "format"},
    }
    return {**answer, "cards": [*others, *about.values()], "order": summary}
