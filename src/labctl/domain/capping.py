"""Decide which cap each card of a host gets, and whether somebody's order about caps may be done.

Three voices speak about a card: the inventory (*declared*), a person who set a cap that lasts (*override*,
until a time or for good), and the order of this moment. An override beats the inventory, a timed one beats a
lasting one, and where none of them says anything the card is left alone.

A declared card is found by its UUID; else by its PCI address; one that has neither stands for any card of its
model that nobody else has claimed. At a declared PCI address a card with another UUID is a replaced card: it
gets the cap where its name fits the model, since the watts are what must hold, and the caller hears of it.

A cap whose reason is ``circuit`` or ``psu`` protects what can burn or trip: nothing goes above it without
words from a person. A card's own range always wins over the inventory and over everybody's words. In doubt
about time (a clock that stands before the order was given) a timed override does not hold: what is declared
does.

This module travels to hosts: Python 3.9 and the standard library, no time of day, no file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from .pci import address as address

FORMAT = 1
REASONS = ("circuit", "psu", "efficiency", "noise", "heat")
HARD_REASONS = ("circuit", "psu")
TOLERANCE_W = 1.0
"""A limit nearer than this to the wish is the wish: drivers round."""

WRONG = ("refused", "failed")
"""With one of these, a card does not have what was wanted."""

RESET = "reset"
"""In place of two clocks: no lock."""


@dataclass(frozen=True)
class Declared:
    """A card as the inventory states it; ``patterns`` match the driver's name of it.

    ``name`` is what the budget calls a card that has no slot here, since nothing tells it from those alike.
    """

    model: str
    slot: str | None = None
    uuid: str | None = None
    pci: str | None = None
    patterns: tuple[str, ...] = ()
    cap_w: int | None = None
    reason: str | None = None
    clocks_mhz: tuple[int, int] | None = None
    name: str | None = None


@dataclass(frozen=True)
class Card:
    """A card as its driver shows it now; None is what it does not have or would not tell.

    ``limit_w`` None means that it has no power cap at all. ``device`` are its PCI ids (``1002:1586``), by
    which a card is known whose driver does not name it.
    """

    vendor: str
    uuid: str | None = None
    pci: str | None = None
    name: str | None = None
    limit_w: float | None = None
    min_w: float | None = None
    max_w: float | None = None
    default_w: float | None = None
    device: str | None = None

    @property
    def key(self) -> str:
        """Return what the card is known by in files: its UUID, else its PCI address."""
        return self.uuid or self.pci or ""


@dataclass(frozen=True)
class Order:
    """What somebody wants now.

    ``cards`` None means all of them; ``until`` is in Unix seconds; ``override`` is the words of a person who
    goes above a circuit's or PSU's cap; ``by`` says who asks.
    """

    watts: int | None = None
    clocks_mhz: tuple[int, int] | str | None = None
    reset: bool = False
    cards: tuple[str, ...] | None = None
    reason: str | None = None
    until: int | None = None
    persist: bool = False
    override: str | None = None
    dry_run: bool = False
    by: str = ""

    @property
    def lasts(self) -> bool:
        """Return whether the order outlives the next run of ``caps``."""
        return self.persist or self.until is not None


@dataclass(frozen=True)
class Override:
    """An order that lasts, about one card: until a time, or for good where ``until`` is None.

    ``seen`` is the latest time of day at which it was found alive; a clock that stands before it is wrong.
    """

    uuid: str | None = None
    pci: str | None = None
    watts: int | None = None
    clocks_mhz: tuple[int, int] | str | None = None
    reason: str | None = None
    until: int | None = None
    words: str | None = None
    by: str = ""
    at: int = 0
    seen: int = 0

    def is_about(self, card: Card) -> bool:
        """Return whether this is that card; by PCI address only where a UUID is missing."""
        if self.uuid and card.uuid:
            return same(self.uuid, card.uuid)
        return same_address(self.pci, card.pci)


@dataclass(frozen=True)
class Wish:
    """What a card should have, and who says so: ``override``, ``declared``, or nobody (empty)."""

    watts: int | None = None
    clocks_mhz: tuple[int, int] | str | None = None
    source: str = ""
    reason: str | None = None


@dataclass(frozen=True)
class Change:
    """Set the card to this; None leaves that part alone."""

    watts: float | None = None
    clocks_mhz: tuple[int, int] | str | None = None


@dataclass(frozen=True)
class Refusal:
    """Leave the card as it is; ``status`` is "refused", or "no-cap" where there is nothing to set."""

    why: str
    hint: str = ""
    status: str = "refused"


class Matched(NamedTuple):
    """Declared cards with the real ones found for them, and what is left over on either side."""

    pairs: tuple[tuple[Declared, Card], ...]
    missing: tuple[Declared, ...]
    extra: tuple[Card, ...]

    def declared_for(self, card: Card) -> Declared | None:
        """Return what the inventory says about a card, if anything."""
        return next((declared for declared, found in self.pairs if found is card), None)


class Sorted(NamedTuple):
    """Overrides by what time does to them."""

    live: tuple[Override, ...]
    expired: tuple[Override, ...]
    doubtful: tuple[Override, ...]


def same(one: str | None, other: str | None) -> bool:
    """Return whether two UUIDs are given and the same, however they are written."""
    return bool(one and other) and str(one).casefold() == str(other).casefold()


def same_address(one: str | None, other: str | None) -> bool:
    """Return whether two PCI addresses are given and the same, however they are written."""
    return address(one) is not None and address(one) == address(other)


def fits_model(declared: Declared, card: Card) -> bool:
    """Return whether the driver's name of a card, or its PCI ids, are among the declared model's."""
    known_as = [name for name in (card.name, card.device) if name]
    return any(
        re.fullmatch(pattern, name, re.IGNORECASE) for pattern in declared.patterns for name in known_as
    )


def match(declared: Iterable[Declared], cards: Iterable[Card]) -> Matched:
    """Return which real card each declared one is: by UUID, else address, else a free one of its model."""
    left = sorted(cards, key=lambda card: (address(card.pci) or "~", card.uuid or ""))
    wanted = list(declared)
    found: dict[int, Card] = {}

    def claim(fits: Callable[[Declared, Card], bool]) -> None:
        for at, one in enumerate(wanted):
            card = next((card for card in left if at not in found and fits(one, card)), None)
            if card is not None:
                found[at] = card
                left.remove(card)

    claim(lambda one, card: same(one.uuid, card.uuid))
    claim(_sits_there)
    claim(lambda one, card: not one.uuid and not one.pci and fits_model(one, card))
    return Matched(
        tuple((one, found[at]) for at, one in enumerate(wanted) if at in found),
        tuple(one for at, one in enumerate(wanted) if at not in found),
        tuple(left),
    )


def _sits_there(declared: Declared, card: Card) -> bool:
    """Return whether a card at the declared address is the declared one, or one of its model in its place."""
    if not same_address(declared.pci, card.pci):
        return False
    return not (declared.uuid and card.uuid) or fits_model(declared, card)


def replaced(declared: Declared, card: Card) -> bool:
    """Return whether a card was taken for the declared one though its UUID is another."""
    return bool(declared.uuid and card.uuid) and not same(declared.uuid, card.uuid)


def select(
    names: Sequence[str] | None, cards: Sequence[Card], matched: Matched
) -> tuple[tuple[Card, ...], tuple[str, ...]]:
    """Return the cards that the names (UUID, PCI address or slot) mean, and the names that mean none."""
    if names is None:
        return tuple(cards), ()
    chosen: list[Card] = []
    unknown = []
    for name in names:
        card = next((card for card in cards if _is_called(name, card, matched)), None)
        if card is None:
            unknown.append(name)
        elif card not in chosen:
            chosen.append(card)
    return tuple(card for card in cards if card in chosen), tuple(unknown)


def _is_called(name: str, card: Card, matched: Matched) -> bool:
    declared = matched.declared_for(card)
    slot = declared.slot if declared else None
    return same(name, card.uuid) or same_address(name, card.pci) or (slot is not None and slot == name)


def by_time(overrides: Iterable[Override], now: int) -> Sorted:
    """Return which overrides hold now, which are over, and which nobody can tell.

    A clock that stands before an override was given, or before a time at which it was already seen alive, is
    wrong (a board without a battery starts in the past): then a timed override holds no longer, but it is not
    forgotten either, and comes back with the right time. So no wrong clock can stretch one for ever.
    """
    live, expired, doubtful = [], [], []
    for one in overrides:
        if one.until is not None and now >= one.until:
            expired.append(one)
        elif one.until is not None and now < max(one.at, one.seen):
            doubtful.append(one)
        else:
            live.append(one)
    return Sorted(tuple(live), tuple(expired), tuple(doubtful))


def with_order(overrides: Iterable[Override], new: Override) -> tuple[Override, ...]:
    """Return the overrides after a new one that lasts.

    A new one for good ends all earlier ones about the same thing (watts or clocks) of the same card; a timed
    one ends only timed ones, so that a lasting one shows again after it.
    """
    kept = []
    for old in overrides:
        if (same(old.uuid, new.uuid) or same_address(old.pci, new.pci)) and (new.until is None or old.until):
            old = replace(
                old,
                watts=old.watts if new.watts is None else None,
                clocks_mhz=old.clocks_mhz if new.clocks_mhz is None else None,
            )
        if old.watts is not None or old.clocks_mhz is not None:
            kept.append(old)
    return (*kept, new)


def over_hard_cap(watts: float, declared: Declared | None) -> bool:
    """Return whether the watts are above a cap that protects a circuit or a PSU."""
    return (
        declared is not None
        and declared.cap_w is not None
        and declared.reason in HARD_REASONS
        and watts > declared.cap_w
    )


def effective(
    card: Card, declared: Declared | None, overrides: Iterable[Override]
) -> tuple[Wish, tuple[Override, ...]]:
    """Return what the card should have, and the overrides about it that are ignored.

    Ignored are those above a circuit's or PSU's cap without words; the inventory may have got that cap after
    the override was given.

    Args:
        card: as it is now.
        declared: what the inventory says about it, if anything.
        overrides: those that are live, about any card.
    """
    watts = declared.cap_w if declared else None
    clocks: tuple[int, int] | str | None = declared.clocks_mhz if declared else None
    source = "declared" if watts is not None or clocks is not None else ""
    reason = declared.reason if declared else None
    ignored = []
    # The last word counts: first those for good, then the timed ones, each in the order in which they came.
    for one in sorted(overrides, key=lambda one: one.until is not None):
        if not one.is_about(card):
            continue
        if one.watts is not None and over_hard_cap(one.watts, declared) and not one.words:
            ignored.append(one)
            continue
        watts = one.watts if one.watts is not None else watts
        clocks = one.clocks_mhz if one.clocks_mhz is not None else clocks
        source, reason = "override", one.reason or one.words
    return Wish(watts, clocks, source, reason), tuple(ignored)


def range_text(card: Card) -> str:
    """Return the card's range for people, such as "100 to 400 W"; "" where it does not tell."""
    if card.min_w is None or card.max_w is None:
        return ""
    return f"{card.min_w:g} to {card.max_w:g} W"


def out_of_range(watts: float, card: Card) -> Refusal | None:
    """Return why the card cannot have these watts, or None; clocks can lower what a cap cannot reach."""
    if card.limit_w is None:
        return Refusal("this card has no power cap", _clocks_hint(card), "no-cap")
    if card.min_w is not None and watts < card.min_w:
        return Refusal(f"{watts:g} W is below what this card takes: {range_text(card)}", _clocks_hint(card))
    if card.max_w is not None and watts > card.max_w:
        return Refusal(f"{watts:g} W is above what this card takes: {range_text(card)}")
    return None


def _clocks_hint(card: Card) -> str:
    return "lock its clocks instead: --lock-clocks MIN,MAX" if card.vendor == "nvidia" else ""


def judge(order: Order, card: Card, declared: Declared | None) -> Change | Refusal:
    """Return what the order means for this card, or why it is refused; ``reset`` is not judged here."""
    if order.clocks_mhz is not None and card.vendor != "nvidia":
        return Refusal("labctl locks clocks on NVIDIA cards only", "cap its watts instead")
    if order.watts is None:
        return Change(None, order.clocks_mhz)
    if refusal := out_of_range(order.watts, card):
        return refusal
    if over_hard_cap(order.watts, declared) and not order.override and declared is not None:
        return Refusal(
            f"{order.watts} W is above the {declared.cap_w} W that protect its {declared.reason}",
            'if you know better, say why: --override "WORDS"',
        )
    return Change(order.watts, order.clocks_mhz)


def reached(limit_w: float | None, wanted_w: float) -> bool:
    """Return whether a limit is the wanted one, as far as drivers round."""
    return limit_w is not None and abs(limit_w - wanted_w) < TOLERANCE_W
