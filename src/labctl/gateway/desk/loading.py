"""Tell a stream's client how far it is while its upstream loads the model.

Then the request is upstream already, and nothing comes from there. What is said after the answer's first byte
is dropped by the proxy, so this need not know when that comes; it ends with the request, with a failure of
the upstream, or when loading should be long over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from labctl.domain.gateway import waiting
from labctl.domain.gateway.table import Key, Waiting
from labctl.gateway.desk import presenting
from labctl.gateway.desk.lanes import Place
from labctl.gateway.desk.lives import Life

if TYPE_CHECKING:
    from labctl.gateway.desk.front import FrontDesk

TIMES = 3.0
"""So many times what loading may take is waited with words; then in silence."""


async def tell_of_loading(desk: FrontDesk, life: Life, place: Place, key: Key) -> None:
    """Say it, after a while and then every few seconds."""
    exchange, way = life.exchange, life.way
    ask, limits = exchange.ask, desk.limits
    style = waiting.way_of(ask.named, way.model if way is not None else None, key)
    if style not in (Waiting.COMMENTS, Waiting.LOADING):
        return
    began, pause_s = desk.mono(), limits.say_after_s
    while desk.mono() - began < TIMES * place.loads_s:
        await asyncio.sleep(pause_s)
        if exchange.begun and not life.spoke:
            return  # it was loaded, and answers
        if not exchange.begun:
            exchange.begin_stream()
        life.spoke = True
        text = waiting.of_loading(place.lane.upstream.name, ask.model, place.loads_s - (desk.mono() - began))
        exchange.say(presenting.line(ask, style, text, desk.wall()))
        pause_s = limits.say_every_s
