"""The alarm clock of a host that sleeps: what its real-time clock's files say and take, and the ring itself.

The manners of ``wakealarm`` are those of drivers/rtc/sysfs.c: seconds since 1970, or ``+N`` from now; a time
that is not in the future takes the alarm away; an alarm that is set refuses another (EBUSY), except ``+=N``,
which moves it.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

from labctl.ports import Clock


class Alarm:
    """One alarm clock; when it is due it is unset, and calls ``ring`` in a thread of its own."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock, self._ring = clock, ring
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self.at: int | None = None

    def now(self) -> int:
        """Return the time of day in whole seconds since 1970."""
        return int(self._clock.now().timestamp())

    def read(self) -> bytes:
        """Return what the file says: the time of the alarm, nothing where none is set."""
        return b"" if self.at is None else f"{self.at}\n".encode()

    def write(self, said: bytes) -> None:
        """Set, move or take away the alarm.

        Raises:
            OSError: EBUSY, one is set; EINVAL, no number, or none is set that could be moved.
        """
        text = said.decode("ascii", "replace").strip()
        try:
            seconds = int(text.lstrip("+="))
        except ValueError:
            raise OSError(errno.EINVAL, text) from None
        with self._lock:
            if text.startswith("+="):
                if self.at is None:
                    raise OSError(errno.EINVAL, text)
                self._set(self.at + seconds)
                return
            at = self.now() + seconds if text.startswith("+") else seconds
            if at > self.now() and self.at is not None:
                raise OSError(errno.EBUSY, text)
            self._set(at if at > self.now() else None)

    def unset(self) -> None:
        """Take the alarm away."""
        with self._lock:
            self._set(None)

    def _set(self, at: int | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.at, self._timer = at, None
        if at is not None:
            wait = at - self._clock.now().timestamp()
            self._timer = threading.Timer(max(0.0, wait), self._due, [at])
            self._timer.daemon = True
            self._timer.start()

    def _due(self, at: int) -> None:
        with self._lock:
            if self.at != at:
                return
            self.at, self._timer = None, None
        self._ring()
