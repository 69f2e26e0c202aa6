"""One look at a host for the sake of its caps: files and cards, who is who, and how that is shown.

A declared card that no card answers for is *missing*, unless something is there that may be it: a card on the
bus whose driver does not work, or one that hangs. Then it *failed*, since nobody knows what it draws.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..domain import capstep
from ..domain.capping import (
    RESET,
    Card,
    Change,
    Declared,
    Matched,
    Override,
    Refusal,
    Wish,
    address,
    match,
    out_of_range,
    reached,
    replaced,
    same,
    same_address,
)
from . import cards, nvml
from .capstate import Kept, Notes, State, note
from .sections import Finding

ASLEEP = "asleep"
_GONE = ("missing", "this host has no such card", "check its seat and power, or correct the inventory")


class Host(NamedTuple):
    """What a run knows of its host before it decides."""

    state: State
    declared: tuple[Declared, ...]
    overrides: tuple[Override, ...]
    kept: dict[str, Kept]
    survey: cards.Survey
    matched: Matched
    notes: Notes
    steps: tuple[capstep.Step, ...] = ()

    def declared_for(self, card: Card) -> Declared | None:
        """Return what the inventory says about a card."""
        return self.matched.declared_for(card)

    def kept_for(self, card: Card) -> Kept:
        """Return what labctl set last on a card."""
        return self.kept.get(card.key, Kept())

    def stepped(self, wish: Wish, card: Card) -> Wish:
        """Return what a card should have as long as it has stepped down for other hosts."""
        return capstep.under(wish, capstep.of_card(self.steps, card), card)


class Plan(NamedTuple):
    """What is to be done with one card.

    ``watts`` is what it must show afterwards, if anything; ``before`` and ``after`` are what labctl remembers
    to have set, then and now.
    """

    seen: cards.Seen
    target: Change | Refusal
    watts: float | None
    before: Kept
    after: Kept
    source: str

    @property
    def is_visible(self) -> bool:
        """Return whether the card would be another one afterwards; a lock that is only renewed is none."""
        if isinstance(self.target, Refusal):
            return False
        clocks = self.target.clocks_mhz
        differ = clocks is not None and (None if clocks == RESET else clocks) != self.before.clocks_mhz
        return self.target.watts is not None or differ


def look(root: Path, notes: Notes, *, wake: bool) -> Host:
    """Read the files, ask the cards, and find out which is which.

    Raises:
        Refused: nobody knows what is declared.
    """
    state = State(root)
    declared = state.declared()
    overrides: tuple[Override, ...] = ()
    try:
        overrides = state.overrides()
    except Finding as finding:
        notes.append(note(finding))
    steps: tuple[capstep.Step, ...] = ()
    try:
        steps = state.steps().steps
    except Finding as finding:
        notes.append(note(finding))
    survey = cards.survey(root, wake=wake)
    matched = match(declared, (seen.card for seen in survey.seen))
    notes += map(note, survey.blind.values())
    for one in survey.silent:
        if one.code != ASLEEP:
            notes.append(note(Finding(one.what, nvml.hint_of(one.code), one.code), one.pci))
    for wanted, card in matched.pairs:
        if replaced(wanted, card):
            what = f"another card than {wanted.uuid} sits at {card.pci}; it gets the same cap"
            notes.append(note(Finding(what, "correct the inventory", "replaced-card"), card.key))
    for card in matched.extra if declared else ():
        what = f"the inventory does not know this card: {card.name or card.key}"
        notes.append(note(Finding(what, "add it to the inventory", "undeclared-card"), card.key))
    for wanted in matched.missing:
        if absence(wanted, survey) == _GONE:
            named = wanted.slot or wanted.uuid or wanted.pci
            which = f"{wanted.model} {named}" if named else f"one {wanted.model}"
            notes.append(note(Finding(f"{which} is not on this host", _GONE[2], "missing-card"), named))
    return Host(state, declared, overrides, state.kept(), survey, matched, notes, steps)


def settle(seen: cards.Seen, wish: Wish, before: Kept, *, reset: bool = False) -> Plan:
    """Return what a card needs to have what is wished; where nothing is, what labctl had set is undone.

    Args:
        seen: the card.
        wish: what it should have.
        before: what labctl set last on it.
        reset: a person wants it back at its default, whoever had set it.
    """
    card = seen.card
    watts: float | None = wish.watts
    clocks = wish.clocks_mhz
    kept = Kept(watts, clocks if isinstance(clocks, tuple) else None)
    if watts is not None and (refusal := out_of_range(watts, card)):
        return refused(seen, Refusal(refusal.why, refusal.hint), before, wish.source)
    if clocks is not None and card.vendor != "nvidia":
        refusal = Refusal("labctl locks clocks on NVIDIA cards only", "cap its watts instead")
        return refused(seen, refusal, before, wish.source)
    if watts is None and (reset or (before.watts is not None and reached(card.limit_w, before.watts))):
        watts = card.default_w
    if clocks is None and before.clocks_mhz:
        clocks = RESET
    needed = watts if watts is not None and not reached(card.limit_w, watts) else None
    return Plan(seen, Change(needed, clocks), watts, before, kept, wish.source)


def refused(seen: cards.Seen, refusal: Refusal, before: Kept, source: str) -> Plan:
    """Return the plan to leave a card as it is."""
    return Plan(seen, refusal, None, before, before, source)


def absence(declared: Declared, survey: cards.Survey) -> tuple[str, str, str]:
    """Return status, why and hint for a declared card that no card answers for."""
    for one in survey.silent:
        if same_address(one.pci, declared.pci):
            return _silence(one)
    maker = _maker(declared, survey)
    for vendor, finding in survey.blind.items():
        if maker in (None, vendor):
            return "failed", str(finding), finding.hint
    for one in survey.silent:
        if maker in (None, one.vendor) and (one.pci is None or declared.pci is None):
            status, why, hint = _silence(one)
            return status, f"a card that does not answer may be this one: {why}", hint
    if any(same_address(pci, declared.pci) for pci in survey.bus):
        return "failed", "it is on the bus, but its driver does not show it", "look at dmesg"
    return _GONE


def is_gone(declared: Declared, survey: cards.Survey) -> bool:
    """Return whether a declared card is surely not there, and not only silent."""
    return absence(declared, survey) == _GONE


def _silence(one: cards.Silent) -> tuple[str, str, str]:
    status = {ASLEEP: "unchanged", nvml.LOST: "missing"}.get(one.code, "failed")
    return status, one.what, nvml.hint_of(one.code)


def _maker(declared: Declared, survey: cards.Survey) -> str | None:
    if declared.uuid:
        return "nvidia" if declared.uuid.upper().startswith("GPU-") else "amd"
    return "nvidia" if any(same_address(pci, declared.pci) for pci in survey.bus) else None


def unknown_row(name: str, host: Host) -> dict[str, Any]:
    """Return the row of a card that somebody named and that does not answer."""
    for declared in host.matched.missing:
        if name == declared.slot or same(name, declared.uuid) or same_address(name, declared.pci):
            return absent_row(declared, host.survey)
    for one in host.survey.silent:
        if same_address(name, one.pci):
            return silent_row(one)
    ghost = Card("", name if address(name) is None else None, address(name))
    return row(
        ghost, None, "missing", why=f"this host has no card {name}", hint="labctl powercap shows which it has"
    )


def row(card: Card, declared: Declared | None, status: str, **more: Any) -> dict[str, Any]:
    """Return a card as answers show it; null is what it does not have or nobody knows."""
    shown = {
        "vendor": card.vendor,
        "uuid": card.uuid,
        "pci": card.pci,
        "name": card.name,
        "slot": declared.slot if declared else None,
        "before_w": card.limit_w,
        "after_w": card.limit_w,
        "min_w": card.min_w,
        "max_w": card.max_w,
        "default_w": card.default_w,
        "declared_w": declared.cap_w if declared else None,
        "declared_reason": declared.reason if declared else None,
        "status": status,
        "why": "",
        "hint": "",
        "clocks_before": None,
        "clocks_after": None,
        "source": "",
        **more,
    }
    pairs = {name: list(shown[name]) for name in ("clocks_before", "clocks_after") if shown[name]}
    return {**shown, **pairs}


def absent_row(declared: Declared, survey: cards.Survey) -> dict[str, Any]:
    """Return the row of a declared card that no card answers for."""
    status, why, hint = absence(declared, survey)
    ghost = Card(_maker(declared, survey) or "", declared.uuid, declared.pci, declared.model)
    return row(ghost, declared, status, why=why, hint=hint)


def silent_row(one: cards.Silent) -> dict[str, Any]:
    """Return the row of a card that does not answer and that nobody declared."""
    status, why, hint = _silence(one)
    return row(Card(one.vendor, None, one.pci), None, status, why=why, hint=hint)
