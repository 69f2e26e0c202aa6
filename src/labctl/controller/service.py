"""What people and programs may ask of the controller; the control API and nothing else calls it.

Everything here is a wish written to the store, or a look at what is known. No method switches anything: the
loop decides, so that holds, leases, pauses and the budget win over whoever asks. Methods may be called from
any thread. Names of hosts are checked here, once.

All methods raise ``LabctlError`` (``StoreError`` among them) when they cannot do what was asked: an unknown
host, a store that cannot be written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from labctl.controller.answers import Change, Explanation, RackStatus, TestStep, Ticket
from labctl.domain.sleep.terms import Hold
from labctl.ports.store import Happening

WAKE_LASTS_S = 900.0
"""How long a wish that a host be awake lives, unless its maker says otherwise."""

IDLE_LASTS_S = 12 * 3600.0
"""How long a wish that a host sleep as soon as nothing is against it lives."""


class Asked(Protocol):
    """The facade, as the server of the control API sees it; ``Service`` is it."""

    def hosts(self) -> tuple[str, ...]:
        """Return the names of all hosts, in the order of the rack file."""
        ...

    def wake(
        self, hosts: Sequence[str], *, why: str, by: str, lasts_s: float = WAKE_LASTS_S
    ) -> tuple[Ticket, ...]:
        """Wish hosts awake for so many seconds; a wish that one sleep ends. Returns at once."""
        ...

    def suspend(
        self, hosts: Sequence[str], *, why: str, by: str, when_idle: bool = False, force: bool = False
    ) -> tuple[Ticket, ...]:
        """Wish hosts asleep; returns at once.

        With ``when_idle`` the wish waits until nothing is against it, else it ends with the first reason.
        ``force`` skips the signals of the host, never leases, holds, wishes to be awake or a pause.
        """
        ...

    def follow(self, tickets: Sequence[Ticket], *, patience_s: float = 5.0) -> Iterator[Change | None]:
        """Yield each ticket's host now and whenever its mode or reason changes, until all have an ``ok``.

        Yields None whenever nothing happened for ``patience_s``, so that the caller can look whether anybody
        still listens; closing the iterator leaves the wishes as they are (see ``forget``).
        """
        ...

    def forget(self, tickets: Sequence[Ticket]) -> None:
        """End wishes that nobody waits for any more."""
        ...

    def watch(self, hosts: Sequence[str], *, patience_s: float = 5.0) -> Iterator[Change | None]:
        """Yield each host (none named: all) now and whenever it changes, for ever; None as in ``follow``."""
        ...

    def hold(self, host: str, *, lasts_s: float, why: str, by: str) -> Hold:
        """Keep a host awake for so many seconds; it is not woken for it."""
        ...

    def release(self, host: str, *, by: str, hold: int | None = None) -> int:
        """End one hold, or all of a host; return how many ended."""
        ...

    def pause(self, host: str | None, *, why: str, by: str) -> None:
        """Hands off a host (None: all of them) until ``resume``, over restarts."""
        ...

    def resume(self, host: str | None, *, by: str) -> None:
        """End a pause, and the quarantine of a host."""
        ...

    def status(self) -> RackStatus:
        """Return the rack as it is known now; works without the store, from what was read last."""
        ...

    def explain(self, host: str) -> Explanation:
        """Return why a host is in its mode and what keeps it awake."""
        ...

    def events(self, *, host: str | None = None, after: int = 0, most: int = 100) -> Sequence[Happening]:
        """Return the newest lines of the kept log past the id ``after``, oldest first."""
        ...

    def sleep_test(
        self, host: str, *, cycles: int = 3, by: str, patience_s: float = 5.0
    ) -> Iterator[TestStep | None]:
        """Begin a sleep test and yield its steps; the last has an ``ok``. None as in ``follow``.

        The test runs in the controller: who stops listening does not stop it. One runs on a host at a time.
        """
        ...

    def end_test(self, host: str, *, by: str) -> bool:
        """Stop a host's sleep test after the step that it is in; return whether one ran."""
        ...
