"""Ctrl-C, SIGTERM and a closed terminal as something to read, instead of an exception at any line.

While ``Interrupts`` is entered, each signal becomes one byte in a pipe, and a selector sees it among the
other news. The first asks to finish, the second to end now. While a question is being asked it must break
that, so ``raising`` lets the signal be a ``KeyboardInterrupt`` for that time. What the person chose to ignore
(``nohup``) stays ignored. Outside the main thread signals cannot be caught; then nothing is ever read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """A context in which those signals are bytes to be read from ``fileno()``."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._before: dict[int, object] = {}
        self._raise = False

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a signal came."""
        return self._reader

    def take(self) -> int:
        """Return how many signals came since the last time."""
        try:
            return len(os.read(self._reader, 4096))
        except BlockingIOError:
            return 0

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Let a signal raise ``KeyboardInterrupt`` here, for as long as a person is being asked."""
        self._raise = True
        try:
            yield
        finally:
            self._raise = False

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self._raise:
            raise KeyboardInterrupt
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"!")

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._catch) for number in heeded}
        return self

    def __exit__(self, *unused: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        os.close(self._reader)
        os.close(self._writer)
