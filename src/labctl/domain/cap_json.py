"""Read and write orders, declared cards, overrides and steps about caps as JSON, believing nothing.

These documents come from standard input as root and from files that an older or newer labctl wrote. What is
not exactly as expected is refused whole, with the place and in words: a number in quotes, a true that stands
for 1, an unknown field, a pattern that is none. A refusal changes nothing, so it may be strict.

This module travels to hosts: Python 3.9 and the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .capping import FORMAT, REASONS, RESET, Declared, Order, Override, address
from .capstep import Step, StepOrder

WATTS_MAX = 100_000
MHZ = (100, 10_000)
SECONDS_MAX = 4_102_444_800  # the year 2100
CARDS_MAX = 256
TEXT_MAX = 500
PATTERN_MAX = 200


class Malformed(ValueError):
    """A document is not what it should be; the message names the place."""


def order(document: Any) -> Order:
    """Return the order that a document is.

    Raises:
        Malformed: it is none, or it asks for nothing, or for things that exclude each other.
    """
    found = Order(**_fields(document, "the order", _ORDER))
    if found.reset and (found.watts is not None or found.clocks_mhz is not None or found.lasts):
        raise Malformed("reset stands alone: it takes no watts, no clocks_mhz, no until and no persist")
    if not found.reset and found.watts is None and found.clocks_mhz is None:
        raise Malformed("the order asks for nothing: give watts, clocks_mhz or reset")
    if found.persist and found.until is not None:
        raise Malformed("give until or persist, not both")
    return found


def order_document(given: Order) -> dict[str, Any]:
    """Return the JSON that ``order`` reads."""
    return {
        "format": FORMAT,
        "watts": given.watts,
        "clocks_mhz": _pair(given.clocks_mhz),
        "reset": given.reset,
        "cards": None if given.cards is None else list(given.cards),
        "reason": given.reason,
        "until": given.until,
        "persist": given.persist,
        "override": given.override,
        "dry_run": given.dry_run,
        "by": given.by,
    }


def declared(document: Any) -> tuple[Declared, ...]:
    """Return the declared cards of a document, as ``caps.json`` holds it.

    Raises:
        Malformed: it holds none.
    """
    cards = _listed(document, "cards")
    return tuple(
        Declared(**_fields(card, f"cards[{at}]", _DECLARED, headed=False)) for at, card in enumerate(cards)
    )


def declared_document(cards: Iterable[Declared]) -> dict[str, Any]:
    """Return the JSON that ``declared`` reads."""
    return {
        "format": FORMAT,
        "cards": [
            {
                "slot": card.slot,
                "uuid": card.uuid,
                "pci": card.pci,
                "model": card.model,
                "patterns": list(card.patterns),
                "cap_w": card.cap_w,
                "reason": card.reason,
                "clocks_mhz": _pair(card.clocks_mhz),
                # An older agent knows no such field, and most cards need none.
                **({"name": card.name} if card.name else {}),
            }
            for card in cards
        ],
    }


def overrides(document: Any) -> tuple[Override, ...]:
    """Return the overrides of a document, as ``overrides.json`` holds it.

    Raises:
        Malformed: it holds none.
    """
    listed = _listed(document, "overrides")
    return tuple(
        Override(**_fields(one, f"overrides[{at}]", _OVERRIDE, headed=False)) for at, one in enumerate(listed)
    )


def overrides_document(given: Iterable[Override]) -> dict[str, Any]:
    """Return the JSON that ``overrides`` reads."""
    return {
        "format": FORMAT,
        "overrides": [
            {
                "uuid": one.uuid,
                "pci": one.pci,
                "watts": one.watts,
                "clocks_mhz": _pair(one.clocks_mhz),
                "reason": one.reason,
                "until": one.until,
                "words": one.words,
                "by": one.by,
                "at": one.at,
                "seen": one.seen,
            }
            for one in given
        ],
    }


def step_order(document: Any) -> StepOrder:
    """Return the order to step that a document is.

    Raises:
        Malformed: it is none, or about no card.
    """
    found = StepOrder(**_fields(document, "the order", _STEP_ORDER, headed=False))
    if not found.caps_w:
        raise Malformed("the order.caps_w names no card")
    return found


def steps(document: Any) -> tuple[Step, ...]:
    """Return the steps of a document, as ``steps.json`` holds it below ``steps``.

    Raises:
        Malformed: it holds none.
    """
    listed = _list(document, "steps")
    return tuple(Step(**_fields(one, f"steps[{at}]", _STEP, headed=False)) for at, one in enumerate(listed))


def steps_document(given: Iterable[Step]) -> list[dict[str, Any]]:
    """Return the JSON that ``steps`` reads."""
    return [
        {
            "name": one.name,
            "uuid": one.uuid,
            "pci": one.pci,
            "watts": one.watts,
            "because": one.because,
            "at": one.at,
        }
        for one in given
    ]


def _pair(clocks: Any) -> Any:
    return list(clocks) if isinstance(clocks, tuple) else clocks


def _listed(document: Any, name: str) -> list[Any]:
    found = _fields(document, "the file", {name: (_list, True)})[name]
    return list(found)


_Check = Callable[[Any, str], Any]


def _fields(
    document: Any, where: str, known: Mapping[str, tuple[_Check, bool]], *, headed: bool = True
) -> dict[str, Any]:
    """Return the fields of an object, each read by its check; a ``headed`` one opens with the format.

    A field that may be missing or null is left out then, so that the default counts.
    """
    if not isinstance(document, dict):
        raise Malformed(f"{where} is not a JSON object")
    # A message must not carry a stranger's text in any length.
    allowed = {*known, "format"} if headed else set(known)
    strangers = sorted(str(name)[:40] for name in set(document) - allowed)
    if strangers:
        raise Malformed(f"{where} has an unknown field {strangers[0]!r}")
    if headed and (document.get("format") != FORMAT or isinstance(document["format"], bool)):
        raise Malformed(f"{where} is not of format {FORMAT}; labctl here and on the host differ: apply first")
    read: dict[str, Any] = {}
    for name, (check, needed) in known.items():
        value = document.get(name)
        if value is None and needed:
            raise Malformed(f"{where} has no {name}")
        if value is not None:
            read[name] = check(value, name if headed else f"{where}.{name}")
    return read


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > CARDS_MAX:
        raise Malformed(f"{name} must be a list of at most {CARDS_MAX}")
    return value


def _whole(value: Any, name: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Malformed(f"{name} must be a whole number from {low} to {high}")
    return value


def _watts(value: Any, name: str) -> int:
    return _whole(value, name, 1, WATTS_MAX)


def _seconds(value: Any, name: str) -> int:
    return _whole(value, name, 0, SECONDS_MAX)


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise Malformed(f"{name} must be true or false")
    return value


def _words(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > TEXT_MAX or not value.isprintable():
        raise Malformed(f"{name} must be one line of text, at most {TEXT_MAX} characters")
    return value.strip()


def _by(value: Any, name: str) -> str:
    return "" if value == "" else _words(value, name)


def _names(value: Any, name: str) -> tuple[str, ...]:
    names = tuple(_words(one, f"{name}[{at}]") for at, one in enumerate(_list(value, name)))
    if not names:
        raise Malformed(f"{name} is empty; null means all cards")
    return names


def _reason(value: Any, name: str) -> str:
    if value not in REASONS or not isinstance(value, str):
        raise Malformed(f"{name} must be one of {', '.join(REASONS)}")
    return value


def _pci(value: Any, name: str) -> str:
    found = address(value) if isinstance(value, str) else None
    if found is None:
        raise Malformed(f"{name} must be a PCI address such as 0000:3b:00.0")
    return found


def _clocks(value: Any, name: str) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise Malformed(f"{name} must be the lowest and the highest clock in MHz")
    low, high = (_whole(one, name, *MHZ) for one in value)
    if low > high:
        raise Malformed(f"{name} must be the lowest clock, then the highest")
    return low, high


def _clocks_or_reset(value: Any, name: str) -> tuple[int, int] | str:
    return RESET if value == RESET else _clocks(value, name)


def _caps(value: Any, name: str) -> dict[str, int]:
    if not isinstance(value, dict) or len(value) > CARDS_MAX:
        raise Malformed(f"{name} must be an object of at most {CARDS_MAX} cards")
    return {
        _words(card, f"a name in {name}"): _watts(watts, f"a number in {name}")
        for card, watts in value.items()
    }


def _patterns(value: Any, name: str) -> tuple[str, ...]:
    for at, pattern in enumerate(_list(value, name)):
        try:
            if not isinstance(pattern, str) or len(pattern) > PATTERN_MAX:
                raise ValueError
            re.compile(pattern)
        except (ValueError, re.error, RecursionError, OverflowError):
            raise Malformed(f"{name}[{at}] is not a regular expression") from None
    return tuple(value)


_ORDER: dict[str, tuple[_Check, bool]] = {
    "watts": (_watts, False),
    "clocks_mhz": (_clocks_or_reset, False),
    "reset": (_flag, False),
    "cards": (_names, False),
    "reason": (_reason, False),
    "until": (_seconds, False),
    "persist": (_flag, False),
    "override": (_words, False),
    "dry_run": (_flag, False),
    "by": (_by, False),
}
_DECLARED: dict[str, tuple[_Check, bool]] = {
    "slot": (_words, False),
    "uuid": (_words, False),
    "pci": (_pci, False),
    "model": (_words, True),
    "patterns": (_patterns, True),
    "cap_w": (_watts, False),
    "reason": (_reason, False),
    "clocks_mhz": (_clocks, False),
    "name": (_words, False),
}
_STEP_ORDER: dict[str, tuple[_Check, bool]] = {"caps_w": (_caps, True), "because": (_words, True)}
_STEP: dict[str, tuple[_Check, bool]] = {
    "name": (_words, True),
    "uuid": (_words, False),
    "pci": (_pci, False),
    "watts": (_watts, True),
    "because": (_words, True),
    "at": (_seconds, True),
}
_OVERRIDE: dict[str, tuple[_Check, bool]] = {
    "uuid": (_words, False),
    "pci": (_pci, False),
    "watts": (_watts, False),
    "clocks_mhz": (_clocks_or_reset, False),
    "reason": (_reason, False),
    "until": (_seconds, False),
    "words": (_words, False),
    "by": (_by, False),
    "at": (_seconds, True),
    "seen": (_seconds, True),
}
