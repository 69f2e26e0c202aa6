"""What is kept of one request while it lives, and the line that is left of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from labctl.domain.gateway.table import Key
from labctl.gateway.desk.lanes import Place, Way
from labctl.gateway.terms import Answer, Ask, End, Exchange, Record


class Life:
    """A request from ``start`` to ``ended``.

    ``place`` is whose slot (in the rack: and lease) it holds. ``entered``: it counts for its key. ``path`` is
    what it asks of an upstream. ``out`` is who was tried or left out, and why. ``wakes``: it may wake a host.
    ``spoke``: its client has heard of the wait. ``since`` (mono): it was read then, and waits at most as long
    as its model's requests may.
    """

    __slots__ = (
        "code",
        "entered",
        "exchange",
        "key",
        "marks",
        "out",
        "over",
        "path",
        "place",
        "queued_s",
        "served_by",
        "since",
        "spoke",
        "task",
        "tries",
        "wakes",
        "way",
        "woke_s",
    )

    def __init__(self, exchange: Exchange, key: Key | None) -> None:
        self.exchange = exchange
        self.key = key
        self.since = 0.0
        self.way: Way | None = None
        self.path = ""
        self.wakes = True
        self.entered = False
        self.over = False
        self.spoke = False
        self.place: Place | None = None
        self.served_by: Place | None = None
        self.task: asyncio.Task[None] | None = None
        self.marks: Sequence[int] | None = None
        self.out: dict[Place, Answer] | None = None
        self.tries = 0
        self.queued_s = 0.0
        self.woke_s = 0.0
        self.code = ""

    def leave_out(self, place: Place, because: Answer) -> None:
        """Ask somebody no more for this request."""
        if self.out is None:
            self.out = {}
        self.out[place] = because


def record_of(life: Life, end: End, at: float) -> Record:
    """Return what is left of a request; ``at`` is the wall time of its end."""
    ask, place, way = life.exchange.ask, life.served_by, life.way
    upstream = place.lane.upstream if place is not None else None
    return Record(
        ask.id,
        at,
        life.key.name if life.key is not None else "",
        ask.client,
        ask.method,
        ask.path,
        way.id if way is not None else "",
        upstream.name if upstream is not None else "",
        upstream.host if upstream is not None else "",
        end.status,
        "refused" if life.code and end.how == "answered" else end.how,
        life.code,
        life.tries,
        life.queued_s,
        life.woke_s,
        end.first_at - ask.began if end.first_at else -1.0,
        end.ended_at - ask.began,
        bytes_in=end.bytes_in,
        bytes_out=end.bytes_out,
        stream=ask.stream,
    )


def turned_away(ask: Ask, key: str, answer: Answer, code: str, at: float) -> Record:
    """Return what is left of a request that was refused by its head."""
    return Record(
        ask.id, at, key, ask.client, ask.method, ask.path, status=answer.status, how="refused", code=code
    )
