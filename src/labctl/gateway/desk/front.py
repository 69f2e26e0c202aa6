"""``Desk``: what becomes of each request, from its head to its end.

``start`` first tries the short way: somebody is awake, its lease is held, a slot is free. That is decided by
a few look-ups, and the request is on its way when ``start`` returns. All else becomes a ``Search``.

What a request holds (its place among its key's requests, a slot, a count under a lease) is given back in one
place, ``ended``, which the proxy calls once for each exchange whatever happened; a failed upstream's slot and
lease already in ``failed``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from labctl.domain.gateway import routes
from labctl.domain.gateway.picking import Ease
from labctl.domain.gateway.table import Key, Served, Table, Upstream
from labctl.domain.sleep.lifecycle import ADMITS, Mode
from labctl.gateway.desk import reasons
from labctl.gateway.desk.choosing import Choosing
from labctl.gateway.desk.lanes import AVOID_S, Lane, Place, Way, ways_of
from labctl.gateway.desk.lives import Life, record_of, turned_away
from labctl.gateway.desk.loading import tell_of_loading
from labctl.gateway.desk.running import Running
from labctl.gateway.desk.search import Search
from labctl.gateway.refusals import code_of, problem
from labctl.gateway.terms import (
    Access,
    Answer,
    Ask,
    Books,
    End,
    Exchange,
    Failure,
    HostNow,
    Meters,
    Pages,
    Reading,
    Waiter,
)

WAIT_S = 300.0
"""How long a request below /hosts/ may wait, where the upstream serves no model that says so."""

MOST_FIELDS = 50
"""Of a websocket's query."""

ELSEWHERE = frozenset({"connect", "status"})
"""After these somebody else is asked: it never got the request, or says itself that it does not serve it now.

One that is late may be at work on the answer, and one that hung up may have died of the request, as the next
would: what may have begun is not begun again.
"""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the desk stands on; ``keys`` are the upstreams' own, by their names, ``mono`` the loop's clock."""

    access: Access
    books: Books
    meters: Meters
    pages: Pages
    keys: Mapping[str, str]
    wall: Callable[[], float]
    mono: Callable[[], float]


class FrontDesk:
    """``Desk`` of one process; see the module's text."""

    def __init__(self, table: Table, parts: Parts) -> None:
        self.access, self.books, self.meters = parts.access, parts.books, parts.meters
        self.wall, self.mono = parts.wall, parts.mono
        self.limits = table.limits
        self.lanes = {one.name: Lane(one, parts.keys.get(one.name, "")) for one in table.upstreams}
        self.wanted: dict[str, int] = {}
        self._pages = parts.pages
        self._routes = routes.routes_of(table)
        self._ways = ways_of(self._routes, self.lanes)
        self._below = routes.below_hosts(table)
        self._through = {one.name: self._way_through(table, one) for one in table.upstreams}
        self._running = Running()
        self.choosing = Choosing(table, parts.books, self._running, parts.mono, parts.wall)
        self._held: dict[str, asyncio.Task[None]] = {}

    # --- the life of a request, in the order of calls

    def head(self, ask: Ask) -> Reading | Answer:
        """Return how to read the body, or what to say at once."""
        if ask.method == "POST" and ask.path in routes.GENERATING and not ask.upgrade:
            door: routes.Door | None = "model"
        else:
            reading = self._pages.page(ask)
            if reading is not None:
                return self._own_page(ask, reading)
            door = routes.door(ask.method, ask.path, upgrade=ask.upgrade)
            if door is None:
                return self._turn_away(ask, _nowhere(ask))
        key = self.access.who(ask)
        if isinstance(key, Answer):
            return self._turn_away(ask, key)
        ask.known = (door, key)
        if door != "model":
            return Reading.NONE if ask.upgrade or ask.method in ("GET", "HEAD") else Reading.FLOW
        # Where no form is taken, a server may read as JSON what we would have read as one.
        kind = b"" if ask.path in routes.GENERATING else ask.named.get(b"content-type", b"")
        return Reading.FORM if kind[:19].lower() == b"multipart/form-data" else Reading.WHOLE

    def unread(self, ask: Ask, answer: Answer) -> None:
        """Write down that a body was refused."""
        self._turn_away(ask, answer)

    def start(self, exchange: Exchange) -> None:
        """Serve it."""
        door, key = exchange.ask.known
        life = Life(exchange, key)
        exchange.life = life
        if door == "model":
            self._to_model(life, key)
        elif door == "page":
            self.answer(life, self._pages.answer(exchange.ask, key))
        elif door == "host":
            self._to_host(life, key)
        else:
            self._to_realtime(life, key)

    def failed(self, exchange: Exchange, failure: Failure) -> None:
        """Serve it elsewhere, or say why not."""
        life: Life = exchange.life
        place, way, key = life.place, life.way, life.key
        if life.over or place is None or way is None or key is None:
            return
        self._give_back(life)
        if life.task is not None:
            life.task.cancel()
            life.task = None
        if failure.kind == "connect":
            place.lane.avoid_until = self.mono() + AVOID_S
        no = reasons.upstream_failed(place.lane, failure)
        life.leave_out(place, no)
        if failure.sent or failure.kind not in ELSEWHERE:
            self.answer(life, no)
        else:
            self._look(life, way, key)

    def ended(self, exchange: Exchange, end: End) -> None:
        """Let go of everything that it held, and write down what it was."""
        life: Life = exchange.life
        if life.over:
            return
        life.over = True
        task, life.task = life.task, None
        if task is not None:
            task.cancel()
        if life.place is not None:
            self._give_back(life)
        if life.entered and life.key is not None:
            self.access.leave(life.key)
        place = life.served_by
        if place is not None and end.how == "served" and end.status == 200:
            place.lane.served(place.asked_as, end.ended_at - end.sent_at)
        self.meters.took(record_of(life, end, self.wall()), end.tail)

    # --- what searches do

    def send(self, life: Life, place: Place) -> None:
        """Send a request to a place whose slot and lease it holds."""
        way, ask = life.way, life.exchange.ask
        life.place = life.served_by = place
        if way is None or life.over:
            self._give_back(life)
            return
        again = way.only is None and self._others(life, way, place)
        try:
            target = place.target(ask, life.path, again=again)
        except ValueError:  # of names that are no text the engine could make nothing either
            self.answer(life, reasons.unreadable("its body"))
            return
        life.tries += 1
        if way.only is None:
            self.choosing.sticky.served(self.choosing.marks(life, way), place.lane.upstream.name)
        life.exchange.forward(target)
        if ask.stream and place.loads_s and place.asked_as not in place.lane.loaded and life.key is not None:
            life.task = asyncio.get_running_loop().create_task(tell_of_loading(self, life, place, life.key))

    def answer(self, life: Life, answer: Answer) -> None:
        """Answer a request by ourselves."""
        life.code = code_of(answer)
        life.exchange.answer(answer)

    def hold(self, key: Key, way: Way, place: Place, seconds: float) -> Answer:
        """Keep on waking a host for somebody who would rather come again, and say when."""
        host = self.choosing.now(place.lane.host)
        if host.name not in self._held:
            until = self.wall() + way.wait_s
            waiter = self.books.want(
                host.name, f"gateway {key.name}", f"{way.id or host.name} was asked for", until=until
            )
            self.wanted[host.name] = self.wanted.get(host.name, 0) + 1
            keeps = asyncio.get_running_loop().create_task(self._until_it_came(host, waiter, way.wait_s))
            self._held[host.name] = keeps
            # Not in a `finally` of the task: one that is cancelled before its first step runs none.
            keeps.add_done_callback(lambda _: self._let_be(host.name, waiter))
        return reasons.waking(host, seconds)

    def unwanted(self, host: str) -> None:
        """Count one out who waited for a host."""
        left = self.wanted[host] - 1
        if left:
            self.wanted[host] = left
        else:
            del self.wanted[host]

    def broke(self, error: Exception) -> None:
        """Tell whoever runs the loop of a bug of ours."""
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a request's search failed", "exception": error}
        )

    # --- what others want to know

    def loaded(self, upstream: str) -> frozenset[str]:
        """Return what an upstream has loaded as far as is known without asking it."""
        lane = self.lanes.get(upstream)
        return lane.loaded if lane is not None else frozenset()

    def gauges(self) -> Mapping[str, Mapping[str, float]]:
        """Return how many requests run and wait at each upstream now."""
        running = {f'upstream="{name}"': float(lane.slots.running) for name, lane in self.lanes.items()}
        waiting = {f'upstream="{name}"': float(lane.slots.waiting) for name, lane in self.lanes.items()}
        wanted = {f'host="{name}"': float(many) for name, many in self.wanted.items()}
        return {"running": running, "waiting": waiting, "waiting_for_host": wanted}

    async def close(self) -> None:
        """Wait for nobody any more, and ask no upstream what it has loaded."""
        for task in self._held.values():
            task.cancel()
        await asyncio.gather(*self._held.values(), return_exceptions=True)
        await self._running.close()

    # --- inside

    def _to_model(self, life: Life, key: Key) -> None:
        ask = life.exchange.ask
        way = self._ways.get(ask.model)
        if way is None:
            no = reasons.no_such_model(ask.model, routes.names_near(self._routes, ask.model, key))
            self.answer(life, no if ask.model else reasons.no_model())
            return
        life.path = ask.target
        self._enter(life, way, key)

    def _to_realtime(self, life: Life, key: Key) -> None:
        ask = life.exchange.ask
        try:
            fields = parse_qs(ask.query, keep_blank_values=True, max_num_fields=MOST_FIELDS)
        except ValueError:
            self.answer(life, reasons.unreadable("its query"))
            return
        ask.model, *others = fields.get("model", [""])
        if others:  # which of them counts is up to who reads it
            self.answer(life, problem(400, "bad-request", "the address names more than one model"))
        else:
            self._to_model(life, key)

    def _to_host(self, life: Life, key: Key) -> None:
        ask = life.exchange.ask
        name, path = routes.split(ask.path)
        upstreams = self._below.get(name)
        if upstreams is None:
            names = sorted(name for name, ups in self._below.items() if any(up.passes for up in ups))
            self.answer(life, reasons.no_such_host(name, names))
            return
        upstream = routes.let_through(upstreams, ask.method, path)
        if upstream is None:
            self.answer(life, reasons.not_let_through(name, ask.method, path, upstreams))
            return
        life.path = f"{path}?{ask.query}" if ask.query else path
        life.wakes = routes.matches(upstream.wakes, ask.method, path)
        if not life.wakes and upstream.host:
            host = self.choosing.now(upstream.host)
            if host.mode is Mode.DRAINING:  # a lease would bring it back: who only looks keeps nobody awake
                self.answer(life, reasons.does_not_wake(host))
                return
        self._enter(life, self._through[upstream.name], key)

    def _enter(self, life: Life, way: Way, key: Key) -> None:
        """Count a request in for its key, and find somebody who serves it."""
        life.way = way
        life.since = now = self.mono()
        refusal = self.access.enter(key, way.id, now)
        if refusal is not None:
            self.answer(life, refusal)
            return
        life.entered = True
        self._look(life, way, key)

    def _look(self, life: Life, way: Way, key: Key) -> None:
        place = self._at_once(life, way)
        if place is not None:
            self.send(life, place)
        else:
            life.task = asyncio.get_running_loop().create_task(Search(self, life, way, key).run())

    def _at_once(self, life: Life, way: Way) -> Place | None:
        """Return a place with a slot and a lease, where nothing has to be waited for.

        Nearly all requests go through here, so nothing is looked up twice.
        """
        place = way.only
        if place is None:
            ranked = self.choosing.ranked(life, way)
            if not ranked or ranked[0][0].ease > Ease.AWAKE:
                return None
            place = ranked[0][1]
        elif life.out:
            return None
        lane = place.lane
        slots = lane.slots
        if slots.waiting or slots.running >= slots.limit:
            return None
        if lane.host and not self.books.enter(lane.host):
            return None
        slots.running += 1
        return place

    def _give_back(self, life: Life) -> None:
        """Give slot and lease back."""
        place, life.place = life.place, None
        if place is not None:
            if place.lane.host:
                self.books.leave(place.lane.host)
            place.lane.free()

    def _others(self, life: Life, way: Way, place: Place) -> bool:
        """Return whether anybody else could be asked, if this one fails."""
        out, outside = life.out or {}, life.key is not None and life.key.outside
        others = (*way.places, *way.last) if outside else way.places
        return any(
            other is not place and other not in out and (outside or other.lane.host) for other in others
        )

    def _own_page(self, ask: Ask, reading: Reading) -> Reading | Answer:
        """Let a request for a page of ours in: with a key, or where it needs none."""
        shows = b"authorization" in ask.named or b"x-api-key" in ask.named
        open_to_all = self._pages.open_to_all(ask)
        key = self.access.who(ask) if shows or not open_to_all else None
        if isinstance(key, Answer):
            if not open_to_all:
                return self._turn_away(ask, key)
            key = None
        ask.known = ("page", key)
        return reading

    def _turn_away(self, ask: Ask, answer: Answer) -> Answer:
        key = ask.known[1] if ask.known is not None else None
        name = key.name if key is not None else ""
        self.meters.took(turned_away(ask, name, answer, code_of(answer), self.wall()), b"")
        return answer

    async def _until_it_came(self, host: HostNow, waiter: Waiter, within_s: float) -> None:
        until = self.mono() + within_s
        while (left := until - self.mono()) > 0:
            if (await waiter.changed(left)).mode in ADMITS or self.choosing.in_vain(host):
                break

    def _let_be(self, host: str, waiter: Waiter) -> None:
        waiter.leave()
        self.unwanted(host)
        del self._held[host]

    def _way_through(self, table: Table, upstream: Upstream) -> Way:
        served = Served("", upstream.name, "")
        names = {one.model for one in table.served if one.upstream == upstream.name}
        waits = [model.wait_s for model in table.models if model.id in names]
        return Way(None, (Place(served, self.lanes[upstream.name]),), wait_s=max(waits, default=WAIT_S))


def _nowhere(ask: Ask) -> Answer:
    path, method = ask.path, ask.method
    posts = path in routes.GENERATING or path.startswith(routes.GENERATING_BELOW)
    if not ask.upgrade and method != "POST" and posts:
        no = problem(405, "wrong-method", f"{path} takes POST, not {method}")
        return Answer(no.status, no.body, no.content_type, (("Allow", "POST, OPTIONS"),))
    return reasons.no_such_path(method, path)
