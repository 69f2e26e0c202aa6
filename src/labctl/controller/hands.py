"""Where slow acts run: a thread each, at most one on a host, and never so many that they crowd the box.

A tick hands an act over and goes on; whatever the act does next, the loop hears by ``done``. An act that
fails in a way nobody foresaw ends itself and is told of, and nothing else: one bad host never stops the loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Protocol

MOST = 24
"""Acts at once over the whole rack."""


class Hands(Protocol):
    """Runs acts."""

    def free(self, host: str) -> bool:
        """Return whether an act may begin on a host now."""
        ...

    def start(self, host: str, what: str, act: Callable[[], None]) -> None:
        """Begin an act on a host that is free; ``what`` is what ``doing`` tells."""
        ...

    def doing(self) -> Mapping[str, str]:
        """Return what is being done, by host."""
        ...


class Threads:
    """The ``Hands`` of a running controller; ``done`` gets host and error, in the act's thread."""

    def __init__(self, done: Callable[[str, BaseException | None], None]) -> None:
        self._done = done
        self._guard = threading.Condition()
        self._doing: dict[str, str] = {}

    def free(self, host: str) -> bool:
        """Return whether an act may begin on a host now."""
        with self._guard:
            return host not in self._doing and len(self._doing) < MOST

    def start(self, host: str, what: str, act: Callable[[], None]) -> None:
        """Begin an act on a host that is free."""
        with self._guard:
            self._doing[host] = what
        try:
            threading.Thread(target=self._run, args=(host, act), daemon=True, name=f"{what} {host}").start()
        except BaseException:  # no more threads are to be had: the host is free, for the next tick
            with self._guard:
                self._doing.pop(host, None)
            raise

    def _run(self, host: str, act: Callable[[], None]) -> None:
        error: BaseException | None = None
        try:
            act()
        except BaseException as caught:
            error = caught
        with self._guard:
            self._doing.pop(host, None)
            self._guard.notify_all()
        self._done(host, error)

    def doing(self) -> Mapping[str, str]:
        """Return what is being done, by host."""
        with self._guard:
            return dict(self._doing)

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is being done; return whether that came true."""
        with self._guard:
            return self._guard.wait_for(lambda: not self._doing, seconds)
