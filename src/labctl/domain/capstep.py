"""Decide how far a card steps down for the time being, so that another host may wake within the budget.

A *step* is a ceiling under what the inventory and persons want of a card: it lowers a cap, and where it is
above one it changes nothing. So whoever may order steps can never raise a card above what it would get
without them. The top is the declared cap, or the card's own default where none is declared; what is asked
above the top ends the step. Below the card's own minimum it is refused, as everywhere.

A step belongs to the wake in which it was made. Whoever counts watts gives a host that boots or resumes its
declared caps before it may come up, and steps again before the next one does; so a boot or a resume ends a
step, and so does the gate. A driver that is loaded again, or another run of ``caps``, ends none: others rely
on it while this host is awake.

This module travels to hosts: Python 3.9 and the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .capping import Card, Declared, Matched, Order, Refusal, Wish, out_of_range, same, same_address

STEP = "step"
"""What a wish says of its source where a step made it."""


@dataclass(frozen=True)
class Step:
    """A card that stepped down at ``at`` (Unix seconds); ``name`` is what whoever ordered it calls it."""

    name: str
    watts: int
    because: str
    uuid: str | None = None
    pci: str | None = None
    at: int = 0

    def is_about(self, card: Card) -> bool:
        """Return whether this is that card; by PCI address only where a UUID is missing."""
        if self.uuid and card.uuid:
            return same(self.uuid, card.uuid)
        return same_address(self.pci, card.pci)


@dataclass(frozen=True)
class StepOrder:
    """Caps for the time being, in watts by the name of the card, and why."""

    caps_w: Mapping[str, int] = field(default_factory=dict)
    because: str = ""


def of_card(steps: Iterable[Step], card: Card) -> Step | None:
    """Return the step of a card, if it has one."""
    return next((step for step in steps if step.is_about(card)), None)


def under(wish: Wish, step: Step | None, card: Card) -> Wish:
    """Return what a card should have under its step: never more than without it."""
    if step is None or _at_most(wish.watts, card, step.watts):
        return wish
    return replace(wish, watts=step.watts, source=STEP, reason=step.because)


def _at_most(wanted_w: float | None, card: Card, watts: int) -> bool:
    limit = card.default_w if wanted_w is None else wanted_w
    return limit is not None and limit <= watts


def top_of(card: Card, declared: Declared | None) -> float | None:
    """Return from how many watts on a step is none; None where nobody knows."""
    return float(declared.cap_w) if declared is not None and declared.cap_w is not None else card.default_w


def against(watts: int, card: Card, declared: Declared | None) -> Refusal | None:
    """Return why a card can't step to these watts, or None; above its top it does not step, which it can."""
    top = top_of(card, declared)
    if top is None and card.limit_w is not None:
        return Refusal("nobody knows what this card may draw at most", "declare a cap for it")
    return out_of_range(watts if top is None else min(watts, top), card)


def over_step(order: Order, step: Step | None) -> Refusal | None:
    """Return why a person's order is refused while a card has stepped down, or None."""
    if step is None or order.watts is None or order.watts <= step.watts or order.override:
        return None
    return Refusal(
        f"it stepped down to {step.watts} W for other hosts: {step.because}",
        'it steps up again by itself; if you know better, say why: --override "WORDS"',
    )


def named(name: str, cards: Sequence[Card], matched: Matched) -> Card | None:
    """Return the declared card that a step calls so: by slot, UUID or address, or by ``Declared.name``.

    A card that nobody declared weighs on no budget, so no step is about it.
    """
    for declared, card in matched.pairs:
        if card in cards and (is_called(name, declared) or same(name, card.uuid)):
            return card
    return None


def is_called(name: str, declared: Declared) -> bool:
    """Return whether a step calls a declared card so."""
    told = name in (declared.slot, declared.name)
    return told or same(name, declared.uuid) or same_address(name, declared.pci)


def replaced(steps: Iterable[Step], new: Step, card: Card) -> tuple[Step, ...]:
    """Return the steps with a card's own one replaced."""
    return (*(step for step in steps if not step.is_about(card)), new)


def without(steps: Iterable[Step], card: Card) -> tuple[Step, ...]:
    """Return the steps without a card's own one."""
    return tuple(step for step in steps if not step.is_about(card))
