"""Values out of a stranger's JSON: each is of its kind, finite, short and printable, or it is None.

It never raises, so that one odd value costs that value alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

TEXT_MAX = 300
LIST_MAX = 256
_WHOLE_MAX = 2**63


def plain(text: str) -> str:
    """Return one line of text that may be shown: cut, and with "?" for what is not printable."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:TEXT_MAX])


class Told:
    """A JSON object of a stranger's; of what is none, an empty one."""

    def __init__(self, value: object) -> None:
        self.fields: Mapping[str, object] = value if isinstance(value, dict) else {}

    def get(self, name: str) -> object:
        """Return a field as it is."""
        return self.fields.get(name)

    def inner(self, name: str) -> Told:
        """Return a field that is an object."""
        return Told(self.fields.get(name))

    def text(self, name: str) -> str:
        """Return a field that is a string, "" where it is none."""
        value = self.fields.get(name)
        return plain(value) if isinstance(value, str) else ""

    def word(self, name: str) -> str | None:
        """Return a string that is not empty."""
        return self.text(name) or None

    def flag(self, name: str) -> bool | None:
        """Return a field that is true or false."""
        value = self.fields.get(name)
        return value if isinstance(value, bool) else None

    def signed(self, name: str) -> float | None:
        """Return a finite number."""
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) >= _WHOLE_MAX:
            return None
        return float(value) if math.isfinite(value) else None

    def number(self, name: str) -> float | None:
        """Return a finite number from 0."""
        value = self.signed(name)
        return None if value is None or value < 0 else value

    def whole(self, name: str) -> int | None:
        """Return a whole number from 0."""
        value = self.fields.get(name)
        whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _WHOLE_MAX
        return value if whole and isinstance(value, int) else None

    def words(self, name: str) -> tuple[str, ...]:
        """Return the strings of a list."""
        return words_of(self.fields.get(name))

    def rows(self, name: str) -> Iterator[Told]:
        """Yield the objects of a list."""
        return rows_of(self.fields.get(name))


def words_of(value: object) -> tuple[str, ...]:
    """Return the strings of a list; of what is no list, nothing."""
    listed = value[:LIST_MAX] if isinstance(value, list) else []
    return tuple(plain(word) for word in listed if isinstance(word, str))


def rows_of(value: object) -> Iterator[Told]:
    """Yield the objects of a list; of what is no list, nothing."""
    for one in value[:LIST_MAX] if isinstance(value, list) else ():
        if isinstance(one, dict):
            yield Told(one)
