"""Look at all signals, each with a deadline; one that hangs harms none of the others.

All look in one thread, in turn. A thread that a driver holds cannot be ended, so it is left to its signal and
the rest go on in another one: that signal is not readable until its own thread comes back. So there is one
thread more for each signal that hangs, and never two for one.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from .terms import Reading, Signal, Unreadable, plain

Job = Callable[[], Any]


class _Lane:
    """A thread that does one job after another, and says how each went."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self.since = time.monotonic()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            try:
                self._answers.put((job(), None))
            except Exception as error:
                self._answers.put((None, error))

    def do(self, job: Job, limit_s: float) -> tuple[Any, BaseException | None] | None:
        """Return how a job went, or None where it is late."""
        self.since = time.monotonic()
        self._jobs.put(job)
        try:
            return self._answers.get(timeout=limit_s)
        except queue.Empty:
            return None

    def is_back(self) -> bool:
        """Return whether a job that was late has ended since; what it said is old and is forgotten."""
        return not self._answers.empty()

    def end(self) -> None:
        """Let the thread go."""
        self._jobs.put(None)


class Board:
    """The signals of a host, looked at again and again; ``begin`` is called before each look."""

    def __init__(self, signals: Sequence[Signal], begin: Callable[[], None] = lambda: None) -> None:
        self._signals = signals
        self._begin = begin
        self._lane: _Lane | None = None
        self._stuck: dict[str, _Lane] = {}

    def look(self, only: Collection[str] | None = None) -> list[Reading]:
        """Return a reading of each signal, or of those of some names, whatever hangs or fails."""
        self._begin()
        return [self._reading(signal) for signal in self._signals if only is None or signal.name in only]

    def within(self, name: str, job: Job, limit_s: float, otherwise: Any) -> Any:
        """Return what a job gives, or ``otherwise`` where it fails, is late, or is still late from before."""
        answer = self._done(name, job, limit_s)
        return otherwise if answer is None or answer[1] is not None else answer[0]

    def close(self) -> None:
        """Let the threads go that can."""
        for lane in [*self._stuck.values(), *([self._lane] if self._lane else [])]:
            lane.end()
        self._lane = None

    def _reading(self, signal: Signal) -> Reading:
        answer = self._done(signal.name, signal.look, signal.deadline_s)
        if answer is None:
            for_s = time.monotonic() - self._stuck[signal.name].since
            return Reading(signal.name, None, f"it has not answered for {for_s:.0f} s")
        value, error = answer
        if isinstance(error, Unreadable):
            return Reading(signal.name, None, plain(str(error)))
        if error is not None:
            said = plain(f"{type(error).__name__}: {error}; this may be a bug in labctl-agent")
            return Reading(signal.name, None, said)
        return Reading(signal.name, bool(value.busy), plain(value.because))

    def _done(self, name: str, job: Job, limit_s: float) -> tuple[Any, BaseException | None] | None:
        stuck = self._stuck.get(name)
        if stuck is not None:
            if not stuck.is_back():
                return None
            stuck.end()
            del self._stuck[name]
        if self._lane is None:
            self._lane = _Lane()
        answer = self._lane.do(job, limit_s)
        if answer is None:
            self._stuck[name], self._lane = self._lane, None
        return answer
