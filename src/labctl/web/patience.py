"""How long a connection may do nothing, and how many one address may have.

The server takes so many connections at a time and refuses the rest, Prometheus among them. uvicorn lets one
that never asks anything stay for ever, so that whoever reaches the port could keep everybody out with a few
hundred that say nothing, or a letter now and then. Here a whole head is due ``HEAD_S`` after the connection
was made or the answer before it was given, and one address has at most ``MOST_OF_ONE``. Loopback has as
many as there are: behind a proxy or ``ssh -L`` everybody is there.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0
MOST_OF_ONE = 64


class Patient(H11Protocol):
    """uvicorn's connection, whose patience ends."""

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless its address has enough of them."""
        super().connection_made(transport)
        if self._is_one_too_many():
            transport.abort()
            return
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Read on."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget()
        super().connection_lost(exc)

    def _is_one_too_many(self) -> bool:
        if self.client is None or _is_near(self.client[0]):
            return False
        clients = (one.client for one in self.connections if isinstance(one, H11Protocol))
        return sum(one is not None and one[0] == self.client[0] for one in clients) > MOST_OF_ONE

    def _wait(self) -> None:
        """Have patience while nothing is being answered, from the first such moment on."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self._due is None and not self.transport.is_closing():
            self._due = self.loop.call_later(HEAD_S, self.transport.abort)

    def _forget(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None


def _is_near(address: str) -> bool:
    return ip_address(address.partition("%")[0]).is_loopback
