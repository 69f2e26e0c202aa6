"""Compare what a host says of its cards with what the inventory counts on.

A budget holds only as long as the cards that are there are those that were counted, with those caps. So
named are: a card that is declared and missing, a card that is there and was never counted, a cap that is not
the declared one (somebody set it by hand, or it was lost), and a card that may draw more than was counted.
What the host's own report found wrong with cards, drivers and caps is passed on.

When unsure a card counts as present: one that sleeps or hangs does not tell its name, so it stands for any
declared card of its vendor that nothing else was found for. Where a driver does not answer at all, nothing
is said about its cards but that. Cards of one model that nothing tells apart are taken in their order, so
which of them is missing cannot be said. A report is a stranger's text: what has not the expected form is not
known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from labctl.domain.budget_shortage import listed
from labctl.domain.capping import (
    TOLERANCE_W,
    Card,
    Declared,
    Matched,
    match,
    reached,
    replaced,
    same,
    same_address,
)

VENDORS = ("nvidia", "amd")
_PASSED_ON = (*VENDORS, "caps")
# What the last run of ``caps`` found, and this report shows better: how it is now.
_SEEN_HERE = ("missing", "undeclared-card", "replaced-card", "hang", "blocked")
_SEEN_HERE_TOO = ("driver-", "gpu-")
Code = Literal["missing", "not-declared", "replaced", "cap-differs", "uncounted", "finding"]
State = Literal["ok", "asleep", "silent", "missing", "not-declared", "differs", "unknown"]


@dataclass(frozen=True, slots=True)
class Expected:
    """A card as the inventory counts on it: ``counted_w`` are its watts in the budget."""

    vendor: str
    declared: Declared
    counted_w: int

    @property
    def own_name(self) -> str:
        """Return what the inventory calls the card, or nothing where it is one of several alike."""
        return self.declared.slot or self.declared.pci or self.declared.uuid or ""

    def name(self, card: Card | None = None) -> str:
        """Return what people call the card, which may have to be where ``card`` sits."""
        found = (card.pci or card.uuid) if card else None
        return self.own_name or found or self.declared.model


@dataclass(frozen=True, slots=True)
class CardSeen:
    """One card, declared or found: what it draws and what it is capped at, in watts; None is not known."""

    name: str
    model: str
    state: State
    power_w: float | None = None
    cap_w: float | None = None
    declared_w: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Wrong:
    """Something that is not as declared: ``code`` for scripts, the rest for people."""

    code: Code
    what: str
    hint: str = ""
    card: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a host's cards show, and all that is not as declared."""

    cards: tuple[CardSeen, ...]
    wrong: tuple[Wrong, ...]

    @property
    def draw_w(self) -> float | None:
        """What its cards draw together; None unless every card that is there tells it."""
        there = [card for card in self.cards if card.state not in ("missing", "asleep")]
        told = [card.power_w for card in there if card.power_w is not None]
        return sum(told) if told and len(told) == len(there) else None

    @property
    def declared(self) -> int:
        """How many cards the inventory gives the host."""
        return sum(1 for card in self.cards if card.state != "not-declared")

    @property
    def present(self) -> int | None:
        """How many of those are there; None where a driver does not tell."""
        if any(card.state == "unknown" for card in self.cards):
            return None
        return sum(1 for card in self.cards if card.state not in ("missing", "not-declared"))


def look(host: str, expected: Sequence[Expected], report: Mapping[str, Any]) -> Seen:
    """Return what is to be said about a host's cards, given its report.

    Cards of vendors that no driver can be asked about (see ``VENDORS``) are not expected here.
    """
    cards: list[CardSeen] = []
    wrong: list[Wrong] = []
    for vendor in VENDORS:
        wanted = [one for one in expected if one.vendor == vendor]
        entries = _entries(report.get(vendor))
        if entries is None:
            cards += [_card(one, "unknown") for one in wanted]
            if wanted:
                wrong.append(_silent(vendor, report))
            continue
        seen, found = _compare(host, wanted, [(_real(vendor, entry), entry) for entry in entries], report)
        cards += seen
        wrong += found
    wrong += _passed_on(report, wrong)
    return Seen(tuple(cards), tuple(wrong))


def _entries(section: object) -> list[dict[str, Any]] | None:
    gpus = section.get("gpus") if isinstance(section, Mapping) else None
    if not isinstance(gpus, list) or not all(isinstance(gpu, dict) for gpu in gpus):
        return None
    return gpus


def _silent(vendor: str, report: Mapping[str, Any]) -> Wrong:
    errors = report.get("errors")
    said = errors.get(vendor) if isinstance(errors, Mapping) else None
    if isinstance(said, Mapping):
        return Wrong("finding", str(said.get("what", "")), str(said.get("hint") or ""))
    return Wrong("finding", f"its report says nothing of {vendor} cards")


def _passed_on(report: Mapping[str, Any], known: Iterable[Wrong]) -> Iterator[Wrong]:
    """Yield the report's own findings about cards and caps, and those of the last run of ``caps``."""
    told = {one.what for one in known}
    outcome = report.get("caps")
    for source in (report, outcome):
        findings = source.get("findings") if isinstance(source, Mapping) else None
        for one in findings if isinstance(findings, list) else ():
            if not isinstance(one, Mapping) or (source is report and one.get("section") not in _PASSED_ON):
                continue
            what, code = str(one.get("what", "")), str(one.get("code") or "")
            old = source is outcome and (code in _SEEN_HERE or code.startswith(_SEEN_HERE_TOO))
            if old or what in told:
                continue
            told.add(what)
            yield Wrong("finding", what, str(one.get("hint") or ""), str(one.get("card") or ""))


# --- one vendor's cards ---


def _compare(
    host: str,
    expected: Sequence[Expected],
    found: Sequence[tuple[Card, Mapping[str, Any]]],
    report: Mapping[str, Any],
) -> tuple[list[CardSeen], list[Wrong]]:
    entry_of = {id(card): entry for card, entry in found}
    by_declared = {id(one.declared): one for one in expected}
    matched = match([one.declared for one in expected], [card for card, _ in found])
    pairs, missing, extra = _given_benefit(matched)
    cards: dict[int, CardSeen] = {}
    wrong: list[Wrong] = []
    for declared, card in pairs:
        one, entry = by_declared[id(declared)], entry_of[id(card)]
        differs = _differs(host, one, card, _by_hand(report, card))
        cards[id(one)] = _card(one, "differs" if differs else _state(entry), card, _power(entry))
        wrong += [differs] if differs else []
        if replaced(declared, card):
            what = f"{one.name(card)} is another card than declared: {card.uuid}"
            wrong.append(Wrong("replaced", what, "correct its uuid in the inventory", one.name(card)))
    lost = [by_declared[id(declared)] for declared in missing]
    cards.update((id(one), _card(one, "missing")) for one in lost)
    seen = [cards[id(one)] for one in expected]
    seen += [_stranger(card, _power(entry_of[id(card)])) for card in extra]
    strangers = (one for card in extra for one in _uncounted(card))
    return seen, [*_missing(expected, lost), *wrong, *strangers]


def _by_hand(report: Mapping[str, Any], card: Card) -> str:
    """Return who set the cap that a card has, if an order that lasts did: who, why and how long."""
    outcome = report.get("caps")
    orders = outcome.get("overrides") if isinstance(outcome, Mapping) else None
    for one in orders if isinstance(orders, list) else ():
        if not isinstance(one, Mapping) or not _is_about(one, card):
            continue
        watts = _number(one.get("watts"))
        if watts is not None and reached(card.limit_w, watts):
            why = _text(one.get("words")) or _text(one.get("reason"))
            return "".join(
                (
                    # Which process it was helps in a journal, and nobody here.
                    f" by {(_text(one.get('by')) or 'somebody').partition(' pid ')[0]}",
                    _until(one.get("until")),
                    f' because "{why}"' if why else "",
                )
            )
    return ""


def _is_about(order: Mapping[str, Any], card: Card) -> bool:
    uuid, pci = _text(order.get("uuid")), _text(order.get("pci"))
    return same(uuid, card.uuid) if uuid and card.uuid else same_address(pci, card.pci)


def _until(seconds: object) -> str:
    try:
        return f" until {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return ""


def _state(entry: Mapping[str, Any]) -> State:
    if entry.get("asleep") is True:
        return "asleep"
    return "silent" if entry.get("code") else "ok"


def _real(vendor: str, entry: Mapping[str, Any]) -> Card:
    name, device = _text(entry.get("name")), _text(entry.get("device_id"))
    if name is None and vendor == "amd" and device is not None:
        name = f"1002:{device.removeprefix('0x').lower()}"
    return Card(
        vendor,
        uuid=_text(entry.get("uuid")),
        pci=_text(entry.get("pci")),
        name=name,
        limit_w=_number(entry.get("cap_w")),
        default_w=_number(entry.get("cap_default_w")),
    )


def _given_benefit(
    matched: Matched,
) -> tuple[list[tuple[Declared, Card]], list[Declared], list[Card]]:
    """Let cards that tell no name stand for declared ones that may be any card of their model."""
    pairs, missing, extra = list(matched.pairs), list(matched.missing), list(matched.extra)
    for card in matched.extra:
        declared = next((one for one in missing if not one.uuid and not one.pci), None)
        if card.name is None and declared is not None:
            pairs.append((declared, card))
            missing.remove(declared)
            extra.remove(card)
    return pairs, missing, extra


def _missing(expected: Sequence[Expected], lost: Sequence[Expected]) -> Iterator[Wrong]:
    for model in dict.fromkeys(one.declared.model for one in lost):
        of_it = [one for one in lost if one.declared.model == model]
        total = sum(1 for one in expected if one.declared.model == model)
        verb = "is" if len(of_it) == 1 else "are"
        what = f"{len(of_it)} of {total} {model} {verb} missing"
        hint = "power cycle the host; then look at its seat, riser and power cable"
        if all(one.declared.uuid or one.declared.pci for one in of_it):
            names = listed([one.name() for one in of_it])
            yield Wrong("missing", f"{what} ({names})", hint, names)
        else:
            # A guess would send a person to the wrong card.
            hint += "; give its cards uuid= or pci=, and labctl can tell which one it is"
            yield Wrong("missing", what, hint)


def _differs(host: str, one: Expected, card: Card, by_hand: str) -> Wrong | None:
    has, declared = card.limit_w, one.declared
    if has is None:
        return None
    name = one.name(card)
    back = f"labctl powercap --reset {host}" + (f"/{one.own_name}" if one.own_name else "")
    if declared.cap_w is not None:
        if reached(has, declared.cap_w):
            return None
        what = f"{name} is capped at {has:g} W{by_hand}, declared are {declared.cap_w} W"
        why = f" ({declared.reason})" if declared.reason else ""
        return Wrong("cap-differs", what + why, f"back to what is declared: {back}", name)
    if has > one.counted_w + TOLERANCE_W:
        what = f"{name} may draw {has:g} W, and the budget counts {one.counted_w} W"
        return Wrong("uncounted", what, f"give it cap_w={one.counted_w}, or tdp_w={has:.0f}", name)
    if card.default_w is not None and not reached(has, card.default_w):
        what = f"{name} is capped at {has:g} W{by_hand or ' by hand'}, and the inventory declares no cap"
        return Wrong("cap-differs", what, f"declare it with cap_w, or drop it: {back}", name)
    return None


def _uncounted(card: Card) -> Iterator[Wrong]:
    if card.limit_w is None:
        return  # built into a processor, whose watts are part of base_w; or it does not tell
    where = card.pci or card.uuid or "an unknown place"
    yield Wrong(
        "not-declared",
        f"{card.name or 'a card'} at {where} is not in the inventory and may draw {card.limit_w:g} W",
        "add a Gpu(...) for it, since the budget does not count it",
        card.pci or card.uuid or "",
    )


def _card(one: Expected, state: State, card: Card | None = None, power_w: float | None = None) -> CardSeen:
    declared = one.declared
    limit = card.limit_w if card else None
    return CardSeen(one.name(card), declared.model, state, power_w, limit, declared.cap_w, declared.reason)


def _stranger(card: Card, power_w: float | None) -> CardSeen:
    name = card.pci or card.uuid or "?"
    return CardSeen(name, card.name or "", "not-declared", power_w, card.limit_w)


def _power(entry: Mapping[str, Any]) -> float | None:
    return _number(entry.get("power_w"))


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
