"""What a check yields, and the two findings that nearly every subject has: taken twice, and not there.

A finding carries the path of the field from the rack on (``hosts``, 3, ``services``, 0, ``port``), so that
the caller can find its line. One that rests on a name which nothing in the rack bears keeps that name in
``unknown``: when parts of the rack could not be read, the caller drops those, since the part may be the one
that was meant.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

from labctl.inventory.explain import did_you_mean
from labctl.inventory.hosts import Host
from labctl.inventory.rack import Rack

Where = tuple[str | int, ...]
ANY_PART = "*"  # as `unknown`: whatever could not be read may be what is missed


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement: where, why, what to do; ``unknown`` is the name that nothing bears, if that is it."""

    path: Where
    reason: str
    hint: str = ""
    unknown: str = ""


def each_host(rack: Rack) -> Iterator[tuple[Where, Host]]:
    """Yield every host with its path."""
    for index, host in enumerate(rack.hosts):
        yield ("hosts", index), host


def twice(entries: Iterable[tuple[Where, Hashable, str]], hint: str = "") -> Iterator[Finding]:
    """Yield a finding for every entry whose key an earlier one has; the text of the first tells who."""
    first: dict[Hashable, str] = {}
    for path, key, owner in entries:
        if key in first:
            yield Finding(path, f"is taken already by {first[key]}", hint)
        else:
            first[key] = owner


def missing(path: Where, what: str, wanted: str, known: Iterable[str]) -> Finding:
    """Return the finding that nothing is called ``wanted``; ``known`` are the names there are."""
    names = list(known)
    hint = did_you_mean(wanted, names) if names else "there is none at all"
    return Finding(path, f"there is no {what} called {wanted!r}", hint, wanted)
