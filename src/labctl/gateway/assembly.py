"""Put the parts of the gateway together.

``assemble`` builds everything from a table, in the event loop that will run it, and contacts nobody yet. Who
runs it then does::

    gateway = assemble(table, folder, Around(instance, wall, open_store, ...))
    await gateway.start()                                  # the store's thread, the first look at the world
    server = await loop.create_server(gateway.protocol, sock=..., ssl=gateway.tls)
    ...
    server.close()                                         # others listen on the same socket meanwhile
    await gateway.drain()                                  # until nothing is served, or Limits.drain_s
    await gateway.close()                                  # leases go back, the log is written out

The parts know each other by the protocols of ``terms`` alone; here is the one place that knows all of them.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from labctl.domain.gateway.table import Key, Table, Upstream
from labctl.domain.problem import LabctlError
from labctl.domain.sleep.lifecycle import ADMITS
from labctl.gateway import books, pages
from labctl.gateway.access.keys import Keys
from labctl.gateway.access.tls import Certificate
from labctl.gateway.desk import FrontDesk, Parts
from labctl.gateway.meters.counts import Counts
from labctl.gateway.meters.lines import Lines
from labctl.gateway.nudge import Nudger
from labctl.gateway.proxy import Proxy
from labctl.gateway.terms import Answer, Ask, Reading
from labctl.ports.store import Store

GLANCE_S = 0.5
"""How often it is looked whether a host stopped serving, so that connections to it are closed."""

TALLY_S = 60.0
"""How often tokens are written to the store, for ``labctl energy``."""

CUT_ROUNDS = 50
"""How often within ``GLANCE_S`` it is looked whether connections that were cut are gone."""


@dataclass(frozen=True, slots=True)
class Around:
    """What the gateway takes from outside of it.

    ``instance`` is its name in the store, which no other process has or had; ``wall`` tells seconds since
    1970; ``open_store`` is called in the store's thread, and again after each ``StoreError``; ``log`` is the
    file descriptor that gets a line for each request (-1: nobody wants them); ``mono`` runs as the loop's
    clock does, and may be finer.
    """

    instance: str
    wall: Callable[[], float]
    open_store: Callable[[], Store]
    log: int = 1
    mono: Callable[[], float] = time.monotonic


class Gateway:
    """All parts of a running gateway, in one event loop."""

    def __init__(self, table: Table, folder: Path, around: Around) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._certificate = _certificate(table, folder)
        self._nudger = Nudger(table.controller)
        self._lines = Lines(around.log, loop.call_later)
        self._books = books.StoreBooks(
            table,
            books.Around(
                around.open_store, around.instance, around.wall, around.mono, nudge=self._nudger.ring
            ),
        )
        self._access = Keys(table, self._books.note)
        meters = self._meters = Counts(table, self._lines, around.instance.rpartition(" ")[2])
        own = _LatePages()
        keys = {upstream.name: _key_of(upstream, folder) for upstream in table.upstreams}
        self._desk = FrontDesk(
            table, Parts(self._access, self._books, meters, own, keys, around.wall, around.mono)
        )
        try:
            self._proxy = Proxy(self._desk, table, folder, mono=around.mono)
        except OSError as error:
            raise LabctlError(
                f"{folder}: the certificates of an upstream cannot be read: {error.strerror or error}"
            ) from None
        self._pages = own.pages = pages.OwnPages(
            table,
            pages.Around(
                self._books,
                self._access,
                meters,
                around.wall,
                around.mono,
                self._desk.loaded,
                lambda: self._proxy.draining,
                self._gauges,
                lambda: self._desk.wanted,
            ),
        )
        self._seen = self._books.world
        self._glance_at: asyncio.TimerHandle | None = None
        self._tally_at: asyncio.TimerHandle | None = None

    @property
    def tls(self) -> ssl.SSLContext | None:
        """Return what clients' connections are secured by, or None."""
        return self._certificate.context if self._certificate is not None else None

    def protocol(self) -> asyncio.Protocol:
        """Return what serves one new connection; for ``loop.create_server``."""
        return self._proxy.protocol()

    async def start(self) -> None:
        """Begin: register in the store and look at the world once; a store that is away only delays that."""
        await self._books.start()
        self._glance()
        self._tally()

    def reload(self) -> None:
        """Read the certificate and its key again.

        Raises:
            LabctlError: they are not what they should be; the old ones stay.
        """
        if self._certificate is not None:
            self._certificate.reload()

    async def drain(self) -> None:
        """Take nothing new, and return when nothing is served any more or ``Limits.drain_s`` is over."""
        await self._proxy.drain()

    async def close(self) -> None:
        """Cut what is left, give all leases back, write the log out and end the store's thread."""
        if self._glance_at is not None:
            self._glance_at.cancel()
        if self._tally_at is not None:
            self._tally_at.cancel()
        self._proxy.close()
        for _ in range(CUT_ROUNDS):
            if not self._proxy.clients:
                break
            await asyncio.sleep(GLANCE_S / CUT_ROUNDS)  # the desk is told, and gives its leases back
        self._pages.close()
        await self._desk.close()
        await self._nudger.close()
        self._books.count_tokens(self._meters.tokens())
        await self._books.close()
        self._lines.close()

    def _glance(self) -> None:
        """Close connections to hosts that serve no more: behind them a sleeping host would look alive."""
        before, now = self._seen.hosts, self._books.world.hosts
        if now is not before:
            for name, host in now.items():
                if host.mode not in ADMITS and before[name].mode in ADMITS:
                    self._proxy.drop(name)
        self._seen = self._books.world
        self._glance_at = self._loop.call_later(GLANCE_S, self._glance)

    def _tally(self) -> None:
        """Have the tokens of the last minute in the energy ledger."""
        self._books.count_tokens(self._meters.tokens())
        self._tally_at = self._loop.call_later(TALLY_S, self._tally)

    def _gauges(self) -> Mapping[str, Mapping[str, float]]:
        inside = self._access.inside().items()
        refused = self._proxy.refused.items()
        return {
            **self._desk.gauges(),
            "connections": {"": float(len(self._proxy.clients))},
            "held_bytes": {"": float(self._proxy.held)},
            "key_requests": {f'key="{name}"': float(many) for name, many in inside},
            "unread": {f'code="{code}"': float(many) for code, many in refused},
        }


class _LatePages:
    """Pages and desk each need the other; whoever asks before both are there is a bug."""

    pages: pages.OwnPages

    def page(self, ask: Ask) -> Reading | None:
        """Return what the pages say; see ``Pages``."""
        return self.pages.page(ask)

    def open_to_all(self, ask: Ask) -> bool:
        """Return what the pages say; see ``Pages``."""
        return self.pages.open_to_all(ask)

    def answer(self, ask: Ask, key: Key | None) -> Answer:
        """Return what the pages say; see ``Pages``."""
        return self.pages.answer(ask, key)


def assemble(table: Table, folder: Path, around: Around) -> Gateway:
    """Return a gateway that is ready to start; ``folder`` holds the files that the table names.

    It is called in the event loop that will run it.

    Raises:
        LabctlError: a file that the table names cannot be read, or is not what it should be.
    """
    return Gateway(table, folder, around)


def _certificate(table: Table, folder: Path) -> Certificate | None:
    if not table.certificate:
        return None
    return Certificate(folder / table.certificate, folder / table.private_key)


def _key_of(upstream: Upstream, folder: Path) -> str:
    """Return the key that an upstream asks for, which becomes a line of a head.

    Raises:
        LabctlError: its file cannot be read, or holds what is no key.
    """
    if not upstream.key_file:
        return ""
    file = folder / upstream.key_file
    try:
        key = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        key = ""
    # Never with its words: it is a secret.
    if not key or not key.isprintable() or " " in key:
        raise LabctlError(f"{file}: holds no key for {upstream.name}", hint="one line, without spaces")
    return key
