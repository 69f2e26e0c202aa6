"""Serve the application until a signal ends it: HTTP or TLS on one address, told to systemd."""

from __future__ import annotations

import asyncio
import signal
import ssl
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET, AF_INET6, create_server, socket

import uvicorn
from starlette.types import ASGIApp

from labctl.domain.problem import LabctlError
from labctl.domain.web_table import Table
from labctl.ports.notify import Notify
from labctl.web import app
from labctl.web.patience import Patient
from labctl.web.sight import Sources
from labctl.web.stream import Streams

_END_S = 3
_MOST_CONNECTIONS = 256


class Server(uvicorn.Server):
    """uvicorn's server, which tells how it is, and ends streams when it is told to end."""

    def __init__(
        self, config: uvicorn.Config, streams: Streams, notify: Notify, *, watchdog_s: float = 0.0
    ) -> None:
        super().__init__(config)
        self._streams = streams
        self._notify = notify
        self._watchdog_s = watchdog_s
        self._status = f"the rack on {_shown(config)}"

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        if self.started:
            self._notify.ready(self._status)
            if self._watchdog_s:
                self._beat(asyncio.get_running_loop())

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """End streams, which would not end by themselves, then everything."""
        self._notify.stopping()
        self._streams.stop()
        await super().shutdown(sockets)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._notify.alive(self._status)
        loop.call_later(self._watchdog_s / 3, self._beat, loop)


def _shown(config: uvicorn.Config) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"{'https' if config.is_ssl else 'http'}://{host}:{config.port}"


def serve(table: Table, folder: Path, sources: Sources, notify: Notify, *, watchdog_s: float = 0.0) -> None:
    """Serve until a signal ends it; ``folder`` holds the files that the table names.

    Raises:
        LabctlError: it would show itself to everybody, its certificate is of no use, or it cannot listen.
    """
    refuse_open_door(table)
    streams = Streams()
    config = configured(table, folder, app.make(table, sources, streams))
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "reason", None) or error.strerror
        raise LabctlError(f"the web page's certificate cannot be used: {why}") from None
    sock = listening(table)
    server = Server(config, streams, notify, watchdog_s=watchdog_s)
    # uvicorn raises the signal again when it has ended well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        asyncio.run(server.serve([sock]))


def listening(table: Table) -> socket:
    """Return the socket that it listens on.

    Raises:
        LabctlError: somebody has the port, or the address is none of this machine's.
    """
    family = AF_INET6 if ":" in table.listen else AF_INET
    try:
        return create_server((table.listen, table.port), family=family, backlog=128)
    except OSError as error:
        raise LabctlError(
            f"the web page cannot listen on {table.listen} port {table.port}: {error.strerror}",
            hint="see who does: ss -ltnp",
        ) from None


def configured(table: Table, folder: Path, serves: ASGIApp) -> uvicorn.Config:
    """Return how uvicorn serves it: it tells nothing of itself, and trusts no header of a proxy."""
    tls = bool(table.certificate)
    return uvicorn.Config(
        serves,
        host=table.listen,
        port=table.port,
        # h11 bounds the length of a head; what "auto" may choose instead does not.
        http=Patient,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_END_S,
        ssl_certfile=folder / table.certificate if tls else None,
        ssl_keyfile=folder / table.private_key if tls else None,
    )


def refuse_open_door(table: Table) -> None:
    """Refuse to listen where others come, without a key.

    Raises:
        LabctlError: everybody on the network could look.
    """
    if not table.keys and not ip_address(table.listen).is_loopback:
        raise LabctlError(
            f"the web page has no keys and would listen on {table.listen}, where others reach it",
            hint="give it keys (Web.keys), or have it listen on 127.0.0.1",
        )
