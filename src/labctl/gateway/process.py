"""One process of the gateway: its sockets, its signals, and how it begins and ends.

The listening socket is systemd's where it passed one: it outlives the process, so that a successor accepts on
it while this one drains, and no connection is lost. Without systemd the process binds the port itself, in a
way that several processes can share it.

SIGTERM or SIGINT: nothing new is accepted, what is served goes on until it ends or ``Limits.drain_s`` is
over; a second one ends that wait. SIGHUP: certificate and key are read again. An error that nobody caught is
told by its kind and place alone, since its words could be a client's.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import ssl
import traceback
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Any, Protocol

from labctl.domain.gateway.table import Table
from labctl.domain.problem import LabctlError
from labctl.gateway.proxy.sockets import tune_listener
from labctl.ports.notify import Notify

BACKLOG = 4096
GARBAGE = (20_000, 50, 100)
"""After so many new objects the young ones are looked through, and so on; see ``gc.set_threshold``."""
HANDSHAKE_S = 10.0
"""How long a client may take to secure its connection; the proxy, with its own limits, only sees it then."""


class Runs(Protocol):
    """What a process runs; ``assembly.Gateway`` is it."""

    @property
    def tls(self) -> ssl.SSLContext | None:
        """Return what clients' connections are secured by, or None."""
        ...

    def protocol(self) -> asyncio.Protocol:
        """Return what serves one new connection."""
        ...

    async def start(self) -> None:
        """Begin."""
        ...

    def reload(self) -> None:
        """Read the certificate and its key again; raises ``LabctlError``, and keeps the old ones."""
        ...

    async def drain(self) -> None:
        """Take nothing new, and return when nothing is served any more."""
        ...

    async def close(self) -> None:
        """Cut what is left, and let go of everything."""
        ...


def own_socket(address: str, port: int) -> socket.socket:
    """Return a listening socket of our own; several processes may have one for the same port.

    Raises:
        LabctlError: the address is none of this machine, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise LabctlError(
            f"the gateway cannot listen on {address} port {port}: {error.strerror}",
            hint="see who does: ss -ltnp",
        ) from None
    return sock


def status_of(table: Table) -> str:
    """Return one line about what is served, for systemd."""
    scheme = "https" if table.certificate else "http"
    shown = f"[{table.listen}]" if ":" in table.listen else table.listen
    count = len(table.models)
    return f"{count} model{'' if count == 1 else 's'} on {scheme}://{shown}:{table.port}"


def make_room(clients: int) -> None:
    """Have room for the descriptors of so many clients, each with an upstream's, before any of them comes.

    The kernel doubles a process's table of descriptors whenever it is full. In a process with threads it
    waits for all processors then (fs/file.c, ``expand_fdtable``: an RCU grace period, 10 to 30 ms), and so do
    all streams. What has grown once stays so, at 8 bytes for each.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * clients + 512
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    first = os.open(os.devnull, os.O_RDONLY)
    os.close(os.dup2(first, wanted - 1))
    os.close(first)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in an event loop of its own: uvloop's, or Python's where that is not to be had."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


class Process:
    """Runs one gateway on listening sockets until a signal ends it.

    ``say`` gets a line that a person should see. ``watchdog_s`` is within how many seconds systemd wants to
    hear of us (0: it does not).
    """

    def __init__(
        self, gateway: Runs, notify: Notify, say: Callable[[str], None], *, watchdog_s: float = 0.0
    ) -> None:
        self._gateway = gateway
        self._notify = notify
        self._say = say
        self._watchdog_s = watchdog_s
        self._status = ""
        self._over = asyncio.Event()
        self._now = asyncio.Event()

    async def run(self, sockets: Sequence[socket.socket], status: str) -> None:
        """Serve on these sockets, which are closed here; ``status`` is one line for systemd."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._uncaught)
        self._status = status
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        servers: list[asyncio.AbstractServer] = []
        try:
            await self._gateway.start()
            tls = self._gateway.tls
            shakes_s = HANDSHAKE_S if tls is not None else None
            for one in sockets:
                if one.family != socket.AF_UNIX:
                    tune_listener(one)
                server = await loop.create_server(
                    self._gateway.protocol,
                    sock=one,
                    ssl=tls,
                    backlog=BACKLOG,
                    ssl_handshake_timeout=shakes_s,
                )
                servers.append(server)
            # What exists now lives as long as the process: it need not be looked through again and again. And
            # requests leave no cycles behind, so what comes is looked through seldom: each look stops all
            # streams, for 10 ms where there are a thousand.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GARBAGE)
            self._notify.ready(status)
            if self._watchdog_s:
                self._beat(loop)
            await self._over.wait()
            self._notify.stopping()
            _closed(servers)
            await self._drained()
        finally:
            # Whatever happened: uvloop's loop does not end while one is open.
            _closed(servers)
            await self._gateway.close()

    def stop(self) -> None:
        """Drain and end; called again, end."""
        if self._over.is_set():
            self._now.set()
        self._over.set()

    async def _drained(self) -> None:
        """Wait until nothing is served any more, or until we are told twice."""
        waits = (asyncio.ensure_future(self._gateway.drain()), asyncio.ensure_future(self._now.wait()))
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for one in waits:
            one.cancel()
        for end in await asyncio.gather(*waits, return_exceptions=True):
            if isinstance(end, Exception):
                self._say(f"draining failed: {told(end)}")

    def _reload(self) -> None:
        if self._gateway.tls is None:
            self._say("there is no certificate to be read again")
            return
        try:
            self._gateway.reload()
        except LabctlError as error:
            self._say(f"the old certificate stays in use: {error}")
        else:
            self._say("certificate and key were read again")

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._notify.alive("draining" if self._over.is_set() else self._status)
        loop.call_later(self._watchdog_s / 3, self._beat, loop)

    def _uncaught(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            self._say(f"error=uncaught {told(error)}")
        else:
            self._say("error=uncaught in the event loop")


def _closed(servers: Sequence[asyncio.AbstractServer]) -> None:
    for server in servers:
        server.close()


def told(error: BaseException) -> str:
    """Return the kind of an error and where it was raised, without its words."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{PurePath(one.filename).name}:{one.lineno}" for one in reversed(frames))
    return f"{type(error).__name__} at {where or 'an unknown place'}"
