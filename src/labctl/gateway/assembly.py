"""Put the parts of the gateway together.

``assemble`` builds everything from a table and a store, and touches nothing outside of the process yet. Who
runs it then does::

    gateway = assemble(table, folder, Around(instance, wall, open_store, ...))
    await gateway.start()                                  # the store's thread, the first look at the world
    server = await loop.create_server(gateway.protocol, sock=..., ssl=gateway.tls)
    ...
    server.close()                                         # others listen on the same socket meanwhile
    await gateway.drain()                                  # until nothing is served, or Limits.drain_s
    await gateway.close()                                  # leases go back, the log is written out
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labctl.domain.gateway.table import Table
from labctl.ports.store import Store


@dataclass(frozen=True, slots=True)
class Around:
    """What the gateway takes from outside of it.

    ``instance`` is its name in the store, which no other process has or had; ``wall`` tells seconds since
    1970; ``open_store`` is called in the store's thread, and again after each ``StoreError``; ``log`` is the
    file descriptor that gets a line for each request (-1: nobody wants them).
    """

    instance: str
    wall: Callable[[], float]
    open_store: Callable[[], Store]
    log: int = 1


class Gateway:
    """All parts of a running gateway, in one event loop."""

    @property
    def tls(self) -> ssl.SSLContext | None:
        """Return what clients' connections are secured by, or None."""
        raise NotImplementedError

    def protocol(self) -> asyncio.Protocol:
        """Return what serves one new connection; for ``loop.create_server``."""
        raise NotImplementedError

    async def start(self) -> None:
        """Begin: register in the store and look at the world once; a store that is away only delays that."""
        raise NotImplementedError

    def reload(self) -> None:
        """Read the certificate and its key again."""
        raise NotImplementedError

    async def drain(self) -> None:
        """Take nothing new, and return when nothing is served any more or ``Limits.drain_s`` is over."""
        raise NotImplementedError

    async def close(self) -> None:
        """Cut what is left, give all leases back, write the log out and end the store's thread."""
        raise NotImplementedError


def assemble(table: Table, folder: Path, around: Around) -> Gateway:
    """Return a gateway that is ready to start; ``folder`` holds the files that the table names.

    It is called in the event loop that will run it.

    Raises:
        LabctlError: a file that the table names cannot be read, or is not what it should be.
    """
    raise NotImplementedError
