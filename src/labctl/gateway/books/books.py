"""``Books`` over a store; see the package's text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labctl.domain.gateway.table import Table
from labctl.gateway.terms import Refused, Waiter, World
from labctl.ports.store import Store


@dataclass(frozen=True, slots=True)
class Around:
    """What books need from outside.

    ``open_store`` is called in the store's thread, and again after each ``StoreError`` of it. ``instance`` is
    a name that no other process has or had. ``wall`` and ``mono`` are clocks (the store's and the loop's).
    ``nudge`` tells the controller at once that a host is wished for; it never waits and never fails.
    """

    open_store: Callable[[], Store]
    instance: str
    wall: Callable[[], float]
    mono: Callable[[], float]
    nudge: Callable[[str], None] = lambda host: None


class StoreBooks:
    """``Books`` of one process; ``start`` and everything else is called in the event loop."""

    def __init__(self, table: Table, around: Around) -> None:
        """Begin nothing yet."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin: look at the store, register, beat. The world is empty until the first look is over."""
        raise NotImplementedError

    async def close(self) -> None:
        """Give back all leases, end all wishes, and leave the store; nothing is counted any more."""
        raise NotImplementedError

    @property
    def world(self) -> World:
        """Return what was last seen; never waits."""
        raise NotImplementedError

    def enter(self, host: str) -> bool:
        """Count a request in under a lease that we surely hold."""
        raise NotImplementedError

    async def lease(self, host: str) -> Refused | None:
        """Take a lease and count a request in under it."""
        raise NotImplementedError

    def leave(self, host: str) -> None:
        """Count a request out."""
        raise NotImplementedError

    def want(self, host: str, by: str, why: str, *, until: float) -> Waiter:
        """Wish that a host be awake, and wait for it."""
        raise NotImplementedError

    def note(self, host: str, kind: str, text: str) -> None:
        """Write a line to the log that is kept."""
        raise NotImplementedError
