"""An order about power caps: what of it can be judged before any host is asked, and what goes to each host.

What the table of cards and the inventory already tell is refused here, all of it at once and before anything
is contacted: watts that no board of the model takes, watts above a cap that protects a circuit or a PSU, a
card without a cap that was named. A card without one that was merely among a host's cards is left out and
said. What only the card knows (its own range, what is on the host) is judged there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from labctl.agent.access import AGENT_PATH as AGENT
from labctl.domain import cap_json
from labctl.domain.capping import Declared, Order, over_hard_cap
from labctl.domain.problem import LabctlError, Problem
from labctl.fleet.selection import Target, name_of, reference
from labctl.fleet.sessions import Question
from labctl.inventory import Gpu, Host, profiles

DEADLINE_S = 100.0
"""For one host; a card that hangs costs the agent 25 s at each of up to three looks before it goes on."""

SHOW = Question((AGENT, "caps", "--show"), root=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask which host, on which of them all cards are meant, and what was left out and why.

    ``cards`` are those that an order is about, by host.
    """

    questions: Mapping[str, Question]
    cards: Mapping[str, tuple[Gpu, ...]] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _No:
    """Why an order can't be about a card; ``impossible``: the card lacks what it is about."""

    reason: str
    hint: str = ""
    impossible: bool = False


def plan(order: Order, targets: Iterable[Target]) -> Plan:
    """Return the order for each host.

    Raises:
        LabctlError: something in it can be known to be wrong; nothing was contacted.
    """
    questions, about, whole, left_out, problems = {}, {}, set(), [], []
    for target in targets:
        wrong: dict[_No, list[Gpu]] = {}
        for gpu in target.gpus:
            if found := _refusal(order, target.host, gpu):
                wrong.setdefault(found, []).append(gpu)
        for no, gpus in wrong.items():
            names = ", ".join(map(name_of, gpus))
            if no.impossible and not target.named:
                left_out.append(f"{target.host.name}/{names}: {no.reason}")
            else:
                problems.append(Problem(no.reason, hint=no.hint, host=target.host.name, field=names))
        skipped = [gpu for gpus in wrong.values() for gpu in gpus]
        kept = tuple(gpu for gpu in target.gpus if gpu not in skipped)
        if kept:
            cards = tuple(map(reference, kept)) if skipped or target.named else None
            whole |= {target.host.name} if cards is None else set()
            questions[target.host.name] = question(replace(order, cards=cards))
            about[target.host.name] = kept
    if problems:
        raise LabctlError(problems)
    if not questions:
        raise LabctlError([Problem(reason) for reason in left_out] or "the rack has no card to cap")
    return Plan(questions, about, frozenset(whole), tuple(left_out))


def question(order: Order) -> Question:
    """Return what carries the order to a host."""
    document = json.dumps(cap_json.order_document(order), ensure_ascii=True)
    return Question((AGENT, "caps", "--order"), document.encode() + b"\n", root=True)


def raised(order: Order, targets: Iterable[Target]) -> Iterator[str]:
    """Yield, for a person to confirm, what the order lifts above a cap that protects something."""
    for target in targets:
        gpus = [gpu for gpu in target.gpus if _protected(order, target.host, gpu)]
        if gpus:
            yield f"{target.host.name}/{', '.join(map(name_of, gpus))}"


def _refusal(order: Order, host: Host, gpu: Gpu) -> _No | None:
    profile = profiles.of(gpu)
    if order.clocks_mhz is not None and profile.vendor != "nvidia":
        return _No(f"labctl locks clocks on NVIDIA cards only, not on {gpu.model}", impossible=True)
    if order.watts is None:
        return None
    lock = "lock its clocks instead: --lock-clocks MIN,MAX" if profile.vendor == "nvidia" else ""
    if profile.cap_min_w is None or profile.cap_max_w is None:
        return _No(f"{gpu.model} has no power cap", lock, impossible=True)
    allowed = f"{gpu.model} takes {profile.cap_min_w} to {profile.cap_max_w} W"
    if order.watts < profile.cap_min_w:
        return _No(f"{order.watts} W is too little: {allowed}", lock)
    if order.watts > profile.cap_max_w:
        return _No(f"{order.watts} W is too much: {allowed}")
    cap = profiles.cap_of(host, gpu)
    if cap is not None and _protected(order, host, gpu) and not order.override:
        return _No(
            f"{order.watts} W is above the {cap.watts} W that protect its {cap.reason}",
            'if you know better, say why: --override "WORDS"',
        )
    return None


def _protected(order: Order, host: Host, gpu: Gpu) -> bool:
    cap = profiles.cap_of(host, gpu)
    if order.watts is None or cap is None:
        return False
    return over_hard_cap(order.watts, Declared(gpu.model, cap_w=cap.watts, reason=cap.reason))
