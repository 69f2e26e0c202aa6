"""The byte path of the gateway: what all connections share."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

from labctl.domain.gateway.table import Limits, Table, Upstream
from labctl.gateway.proxy.client import Client
from labctl.gateway.proxy.exchange import Exchange
from labctl.gateway.proxy.outbox import Outbox
from labctl.gateway.proxy.upstream import Pool
from labctl.gateway.proxy.watch import Round
from labctl.gateway.refusals import problem
from labctl.gateway.terms import Answer, Ask, Desk, End, Failure, Reading

_SWEEP_S = 1.0
_LOOK_S = 1.0  # how late a deadline may be noticed


class Proxy:
    """See the module's text. It is made in the event loop that runs it."""

    __slots__ = (
        *("_closed", "_count", "_desk", "_empty", "_pools", "_prefix", "_sweeper", "clients", "draining"),
        *("held", "limits", "loop", "mono", "outbox", "refused", "round"),
    )

    def __init__(
        self,
        desk: Desk,
        table: Table,
        folder: Path,
        *,
        prefix: str = "",
        mono: Callable[[], float] | None = None,
    ) -> None:
        """Take what all connections need; ``folder`` has the table's certificates.

        ``prefix`` begins the ids of requests; ``mono`` is a finer clock than the loop's own, of its time.

        Raises:
            OSError: a certificate cannot be read, or is none.
        """
        self.loop = asyncio.get_running_loop()
        self.mono = mono or self.loop.time
        self.limits: Limits = table.limits
        self.clients: set[Client] = set()
        self.outbox = Outbox(self.loop, self.mono)
        self.held = 0  # bytes of bodies that are kept now
        self.refused: dict[str, int] = {}  # what never came to the desk, by its code
        self.draining = False
        self._desk = desk
        self._prefix = prefix
        self._count = 0
        self._pools = {
            upstream.name: Pool(self.loop, upstream, _trust(upstream, folder), self.outbox)
            for upstream in table.upstreams
        }
        shortest = min(self.limits.head_s, self.limits.body_s, self.limits.idle_s)
        self.round = Round(self.loop, min(_LOOK_S, shortest / 4))
        self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep)
        self._empty: asyncio.Event | None = None

    # --- for who runs it

    def protocol(self) -> asyncio.Protocol:
        """Return what serves one new connection; for ``loop.create_server``."""
        return Client(self)

    def drop(self, host: str) -> None:
        """Close the connections to a host that is going to sleep; what is under way goes on."""
        for pool in self._pools.values():
            if pool.upstream.host == host:
                pool.drop()

    async def drain(self) -> None:
        """Let clients go as soon as they have their answers, and return then, or after ``drain_s``."""
        self.draining = True
        self._empty = asyncio.Event()
        for client in tuple(self.clients):
            client.drain()
        if self.clients:
            try:
                async with asyncio.timeout(self.limits.drain_s):
                    await self._empty.wait()
            except TimeoutError:
                pass
        self.close()

    def close(self) -> None:
        """Cut what is left."""
        self.draining = True
        for client in tuple(self.clients):
            client.transport.abort()
        for pool in self._pools.values():
            pool.drop()
        self.round.stop()
        self._sweeper.cancel()

    # --- for its connections

    def next_id(self) -> str:
        """Return the id of a next request."""
        self._count += 1
        return f"{self._prefix}{self._count:x}"

    def pool(self, upstream: Upstream) -> Pool:
        """Return the connections to an upstream of the table."""
        return self._pools[upstream.name]

    def gone(self, client: Client) -> None:
        """Forget a client that went away."""
        self.clients.discard(client)
        if self._empty is not None and not self.clients:
            self._empty.set()

    def head(self, ask: Ask) -> Reading | Answer:
        """Ask the desk; whatever goes wrong there is an answer too."""
        try:
            return self._desk.head(ask)
        except Exception as error:
            return self._bug(error)

    def unread(self, ask: Ask, answer: Answer) -> None:
        """Tell the desk of a request whose body was refused."""
        try:
            self._desk.unread(ask, answer)
        except Exception as error:
            self._bug(error)

    def start(self, exchange: Exchange) -> None:
        """Tell the desk of a request that was read."""
        try:
            self._desk.start(exchange)
        except Exception as error:
            exchange.answer(self._bug(error))

    def failed(self, exchange: Exchange, failure: Failure) -> None:
        """Tell the desk of an upstream that failed."""
        try:
            self._desk.failed(exchange, failure)
        except Exception as error:
            exchange.answer(self._bug(error))

    def ended(self, exchange: Exchange, end: End) -> None:
        """Tell the desk of the end."""
        try:
            self._desk.ended(exchange, end)
        except Exception as error:
            self._bug(error)

    def _bug(self, error: Exception) -> Answer:
        self.loop.call_exception_handler({"message": "a bug in the gateway's desk", "exception": error})
        return problem(
            500, "internal-error", "the gateway has a bug; its log says where", hint="please report it"
        )

    def _sweep(self) -> None:
        self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep)
        now = self.mono()
        for pool in self._pools.values():
            pool.sweep(now)


def _trust(upstream: Upstream, folder: Path) -> ssl.SSLContext | None:
    """Return what an upstream's certificate is checked by."""
    if not upstream.tls:
        return None
    context = ssl.create_default_context(cafile=folder / upstream.ca_file if upstream.ca_file else None)
    context.set_alpn_protocols(["http/1.1"])
    return context
