"""Write down what is about to be done, and then how it went.

An intent without an outcome means that nobody knows whether it was done; a later start of the controller
then looks at the host instead of guessing. An outcome that could not be written is owed, and written with
the next tick.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from labctl.controller.doors import Doors
from labctl.controller.leader import Leader, NotLeadingError
from labctl.domain.failures import HostError
from labctl.ports.power import PowerError
from labctl.ports.store import StaleError, StoreError


@dataclass(slots=True)
class Note:
    """How an effect went, as it will be written down."""

    outcome: str = "done"


class Ledger:
    """Intents and outcomes of this process; may be used by many threads."""

    def __init__(self, doors: Doors, leader: Leader) -> None:
        self._doors, self._leader = doors, leader
        self._guard = threading.Lock()
        self._open: set[int] = set()
        self._owed: list[tuple[int, str]] = []

    @contextmanager
    def effect(self, host: str, what: str, because: str) -> Iterator[Note]:
        """Write the intent, let the caller do it, and write what it noted, or why it failed.

        Raises:
            NotLeadingError, StaleError, StoreError: nothing may be done now, and nothing was.
        """
        doors = self._doors
        intent = doors.store.intend(host, what, because, term=self._leader.term(), now=doors.wall())
        with self._guard:
            self._open.add(intent)
        note = Note()
        try:
            yield note
        except (HostError, PowerError, StaleError, StoreError, NotLeadingError) as error:
            self._close(intent, f"failed: {said_by(error)}")
            raise
        except BaseException as bug:  # nobody foresaw it, so nobody knows how far it went
            self._close(intent, f"labctl failed in it, which is a bug: {type(bug).__name__}: {bug}")
            raise
        self._close(intent, note.outcome)

    def ours(self) -> frozenset[int]:
        """Return the intents that this process still works on, or owes an outcome."""
        with self._guard:
            return frozenset(self._open)

    def pay(self) -> None:
        """Write the outcomes that could not be written before.

        Raises:
            StoreError: the store still cannot be used.
        """
        with self._guard:
            owed, self._owed = self._owed, []
        for place, (intent, outcome) in enumerate(owed):
            try:
                self._doors.store.outcome(intent, outcome, now=self._doors.wall())
            except StoreError:
                with self._guard:
                    self._owed = [*owed[place:], *self._owed]
                raise
            with self._guard:
                self._open.discard(intent)

    def _close(self, intent: int, outcome: str) -> None:
        try:
            self._doors.store.outcome(intent, outcome, now=self._doors.wall())
        except StoreError:
            with self._guard:
                self._owed.append((intent, outcome))
            return
        with self._guard:
            self._open.discard(intent)


def said_by(error: BaseException) -> str:
    """Return an expected failure as a clause."""
    if isinstance(error, NotLeadingError):
        return "this controller does not lead any more"
    return str(error) or type(error).__name__
