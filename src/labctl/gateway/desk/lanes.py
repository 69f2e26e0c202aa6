"""Upstreams as they are now, and the ways of a model through them.

What an upstream has loaded is known from what it served last, and from what it says itself (``running``).
Where nothing is known, nothing counts as loaded: that costs a better choice, never a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from labctl.domain.gateway.picking import averaged
from labctl.domain.gateway.routes import GENERATING, Choice, Route
from labctl.domain.gateway.slots import Slots
from labctl.domain.gateway.table import Model, Served, Upstream
from labctl.gateway.desk.rewriting import renamed
from labctl.gateway.terms import Ask, Target

if TYPE_CHECKING:
    from labctl.gateway.desk.search import Search

AVOID_S = 5.0
"""How long others are asked first, after one did not answer."""

USUAL_S = 10.0
"""How long an answer is taken to last as long as an upstream gave none."""

AGAIN = frozenset({503})
"""By these an upstream says itself that it did not take a request: it loads, or it is full."""

NEVER: frozenset[int] = frozenset()


class Lane:
    """One upstream now; ``host`` is empty outside of the rack. ``avoid_until`` and ``asked_at`` are mono."""

    __slots__ = ("asked_at", "avoid_until", "host", "key", "loaded", "slots", "upstream", "usual_s")

    def __init__(self, upstream: Upstream, key: str) -> None:
        self.upstream = upstream
        self.host = upstream.host
        self.key = key
        self.slots: Slots[Search] = Slots(upstream.slots, upstream.queue)
        self.avoid_until = 0.0
        self.usual_s = USUAL_S
        self.loaded: frozenset[str] = frozenset()
        self.asked_at = 0.0

    def served(self, asked_as: str, seconds: float) -> None:
        """Learn from an answer that came whole."""
        self.usual_s = averaged(self.usual_s, seconds)
        if asked_as and asked_as not in self.loaded:
            # Whether the others stayed is not known; it says so when it is asked.
            self.loaded = frozenset((asked_as,))

    def free(self) -> None:
        """Give a slot back; whoever is next in line has it then."""
        if (search := self.slots.leave()) is not None:
            search.granted(self)


class Place:
    """A model at an upstream."""

    __slots__ = ("_targets", "asked_as", "lane", "loads_s", "served")

    def __init__(self, served: Served, lane: Lane) -> None:
        self.served = served
        self.lane = lane
        self.asked_as = served.asked_as
        self.loads_s = served.load_s
        self._targets: dict[tuple[str, bool, bool], Target] = {}

    def target(self, ask: Ask, path: str, *, again: bool) -> Target:
        """Return where a request goes; the same object for requests that are sent on as they are."""
        named = bool(self.asked_as) and ask.model != self.asked_as
        if named:
            body, path = renamed(ask, path, self.asked_as)
            return self._made(path, body, again=again, stream=ask.stream)
        found = self._targets.get((path, again, ask.stream))
        if found is None:
            found = self._made(path, None, again=again, stream=ask.stream)
            if path in GENERATING:  # whatever a client can invent is not kept
                self._targets[path, again, ask.stream] = found
        return found

    def _made(self, path: str, body: bytes | None, *, again: bool, stream: bool) -> Target:
        upstream, served = self.lane.upstream, self.served
        return Target(
            upstream,
            upstream.base_path + path,
            self.lane.key,
            body,
            AGAIN if again else NEVER,
            # An answer that is not streamed has its first byte when it is whole.
            served.first_byte_s if stream else served.whole_s,
            served.whole_s,
        )


class Way:
    """A model's ways: ``only`` is the one place of a model that one host alone serves, else None.

    Below /hosts/ there is no model: ``id`` is empty then, and the way leads to one upstream. ``outside``: not
    all of its places are in the rack.
    """

    __slots__ = ("id", "last", "model", "only", "outside", "places", "wait_s")

    def __init__(
        self, model: Model | None, places: tuple[Place, ...], last: tuple[Place, ...] = (), wait_s: float = 0
    ) -> None:
        self.model = model
        self.id = model.id if model is not None else ""
        self.wait_s = model.wait_s if model is not None else wait_s
        self.places = places
        self.last = last
        self.outside = not all(place.lane.host for place in places)
        self.only = places[0] if len(places) == 1 and places[0].lane.host and not last else None


def ways_of(routes: Mapping[str, Route], lanes: Mapping[str, Lane]) -> dict[str, Way]:
    """Return the way of each name that a model is asked for by; its aliases share it."""

    def place(choice: Choice) -> Place:
        return Place(choice.served, lanes[choice.upstream.name])

    made: dict[str, Way] = {}
    for route in routes.values():
        if route.model.id not in made:
            places = tuple(place(choice) for choice in route.choices)
            made[route.model.id] = Way(route.model, places, tuple(place(choice) for choice in route.last))
    return {name: made[route.model.id] for name, route in routes.items()}
