"""``Pages``: one door to all that the gateway answers by itself; see the package's text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from labctl.domain.gateway.table import Key, Table
from labctl.gateway.terms import Access, Answer, Ask, Books, Meters, Reading


@dataclass(frozen=True, slots=True)
class Around:
    """What pages need from the other parts.

    ``wall`` and ``mono`` are clocks. ``loaded`` tells what an upstream (by its name) has loaded as far as is
    known without asking it, in the names that it knows its models by (``Served.asked_as``). ``draining`` says
    that this process takes nothing new. ``gauges`` are the desk's numbers of now, for ``Meters.text``.
    """

    books: Books
    access: Access
    meters: Meters
    wall: Callable[[], float]
    mono: Callable[[], float]
    loaded: Callable[[str], Collection[str]] = lambda upstream: ()
    draining: Callable[[], bool] = lambda: False
    gauges: Callable[[], Mapping[str, Mapping[str, float]]] = dict


class OwnPages:
    """``Pages`` of one process; everything is called in the event loop."""

    def __init__(self, table: Table, around: Around) -> None:
        """Begin nothing."""
        raise NotImplementedError

    def page(self, ask: Ask) -> Reading | None:
        """Return how the body of a request to one of our own paths is read, or None for any other path.

        Every OPTIONS is ours, whatever its path: browsers ask with it before they ask anything else.
        """
        raise NotImplementedError

    def open_to_all(self, ask: Ask) -> bool:
        """Return whether a page needs no key."""
        raise NotImplementedError

    def answer(self, ask: Ask, key: Key | None) -> Answer:
        """Answer it; ``key`` is None where it showed none, which only pages open to all are given."""
        raise NotImplementedError

    def close(self) -> None:
        """Wait for no host any more."""
        raise NotImplementedError
