"""The one thread that touches the store: one piece of work after the other, in the order of asking.

What comes back is told in the event loop in the same order, so no news overtakes an older one. The store is
opened here too, at the first piece of work and again with each until it opens. Whatever fails is told as a
text that a person can act on; a fault of ours is such a text as well, since a thread that died would leave
everybody waiting.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Protocol, TypeVar

from labctl.domain.problem import LabctlError
from labctl.ports.store import StaleError, Store, StoreError

SWITCH_S = 0.0005
"""How long this thread may keep the interpreter from the event loop; a token of a stream comes as much later.
Python's default is ten times as long."""

T = TypeVar("T")


class Failed(Exception):
    """The store cannot be used; the text says why, and what to do."""


class Denied(Exception):
    """The store works and will not do it; the text says why."""


class Buried(Exception):
    """The store took this instance for dead; it holds no lease any more."""


Done = Callable[[T | Exception], None]
"""Gets what a piece of work returned, or ``Failed``, ``Denied`` or ``Buried``; called in the event loop."""


class Clerk(Protocol):
    """Who does pieces of work on a store one after the other."""

    def do(self, work: Callable[[Store], T], done: Done[T]) -> None:
        """Do a piece of work, after all that were asked for before."""
        ...

    @property
    def busy_since(self) -> float | None:
        """Return when the piece of work began that is being done (mono), or None."""
        ...

    @property
    def waiting(self) -> int:
        """Return how many pieces of work have not begun."""
        ...

    def stop(self) -> None:
        """End when all that was asked for is done; never waits."""
        ...


class StoreThread:
    """A ``Clerk`` with a thread of its own; it begins with the first piece of work, in the running loop."""

    def __init__(self, open_store: Callable[[], Store], mono: Callable[[], float]) -> None:
        self._open, self._mono = open_store, mono
        self._store: Store | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._since: float | None = None

    def do(self, work: Callable[[Store], T], done: Done[T]) -> None:
        """Do a piece of work; see ``Clerk``."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            sys.setswitchinterval(SWITCH_S)
            # A daemon: a store that hangs must not keep the process from ending.
            threading.Thread(target=self._run, name="store", daemon=True).start()
        self._asked.put(lambda: self._do(work, done))

    @property
    def busy_since(self) -> float | None:
        """Return when the piece of work began that is being done; see ``Clerk``."""
        return self._since

    @property
    def waiting(self) -> int:
        """Return how many pieces of work have not begun."""
        return self._asked.qsize()

    def stop(self) -> None:
        """End when all that was asked for is done; see ``Clerk``."""
        self._asked.put(None)

    def _run(self) -> None:
        while (piece := self._asked.get()) is not None:
            self._since = self._mono()
            piece()
            self._since = None
        if self._store is not None:
            with suppress(LabctlError):
                self._store.close()

    def _do(self, work: Callable[[Store], T], done: Done[T]) -> None:
        came = attempted(self._opened, work)
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
                self._loop.call_soon_threadsafe(done, came)

    def _opened(self) -> Store:
        if self._store is None:
            self._store = self._open()
        return self._store


def attempted(opened: Callable[[], Store], work: Callable[[Store], T]) -> T | Exception:
    """Return what a piece of work returns, or why it could not be done."""
    try:
        return work(opened())
    except StaleError as error:
        return Buried(str(error))
    except LabctlError as error:
        first = error.problems[0]
        text = f"{first.reason} ({first.hint})" if first.hint else first.reason
        return Failed(text) if isinstance(error, StoreError) else Denied(text)
    except Exception as error:
        return Failed(f"this is a bug in labctl: {type(error).__name__}: {error}")
