"""One controller of several acts: who leads, how a standby takes over, and when a leader stops by itself.

1. The leader counts up its beat every ``BEAT_S``; a standby that saw no beat for ``LAPSE_S`` of its own
   watched time begins a new term, and does so at once where the leader's process is known to be dead (it was
   killed, and this one is its successor). Every deciding transaction names the term, so an old leader that
   comes back can change nothing.
2. What is not a write (a packet, a word to a host) is fenced by time: a leader acts only while its last beat
   that went through is younger than ``SURE_S``, which is less than ``LAPSE_S``. The clock for that counts on
   while the process is frozen and while the machine sleeps.
3. The beat stops when the loop hangs (no tick for ``HANG_S`` and four ticks): a leader that cannot act must
   not keep others from it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from labctl.controller.beats import LAPSE_S, Beats
from labctl.controller.doors import Doors
from labctl.ports.store import Leadership, StaleError, StoreError

BEAT_S = 5.0
SURE_S = 20.0
HANG_S = 60.0
HANG_TICKS = 4.0


class NotLeadingError(Exception):
    """This process does not lead, or cannot be sure any more that it does; nothing was done."""


class Leader:
    """This process as a candidate; ``name`` tells it from all others, restarts included."""

    def __init__(self, doors: Doors, name: str, tick_s: float) -> None:
        self._doors, self._name = doors, name
        self._hang_s = max(HANG_S, HANG_TICKS * tick_s)
        self._guard = threading.Lock()
        self._held: Leadership | None = None
        self._sure_until = float("-inf")
        self._ticked = doors.mono()
        self._beats = Beats(LAPSE_S, every_s=tick_s)

    @property
    def name(self) -> str:
        """This process, as others see it."""
        return self._name

    def term(self) -> int:
        """Return the term in which this process leads now.

        Raises:
            NotLeadingError: it does not, or its last beat is too old to be sure.
        """
        with self._guard:
            if self._held is None or self._doors.mono() >= self._sure_until:
                raise NotLeadingError
            return self._held.term

    def leads(self) -> bool:
        """Return whether this process leads and is sure of it."""
        try:
            self.term()
        except NotLeadingError:
            return False
        return True

    def ticked(self) -> None:
        """Say that the loop lives."""
        with self._guard:
            self._ticked = self._doors.mono()

    def beat(self) -> None:
        """Keep leading, where we do and the loop lives; lose it where somebody else leads.

        Raises:
            StoreError: the store cannot be used; we lead on for as long as we are sure.
        """
        with self._guard:
            held, asked = self._held, self._doors.mono()
            if held is None or asked - self._ticked > self._hang_s:
                return
        try:
            kept = self._doors.store.keep_leading(held, now=self._doors.wall())
        except StaleError:
            with self._guard:
                self._held = None
            return
        with self._guard:
            if self._held is not None:
                self._held, self._sure_until = kept, asked + SURE_S

    def stand(self) -> bool:
        """Look whether the lead is to be had, and take it; return whether we lead now.

        Raises:
            StoreError: the store cannot be used.
        """
        with self._guard:
            held = self._held is not None
        if held:
            if not self.leads():
                self.beat()  # we were frozen, or the store was: somebody else may lead by now
            return self.leads()
        asked, there = self._doors.mono(), self._doors.store.leading()
        beats = {} if there is None else {there.holder: (there.term, there.beat)}
        dead = self._beats.dead(beats, asked)
        if there is not None and there.holder not in dead and not self._doors.gone(there.holder):
            return False
        won = self._doors.store.lead(self._name, over=there, now=self._doors.wall())
        if won is None:
            return False
        with self._guard:
            self._held, self._sure_until, self._ticked = won, asked + SURE_S, asked
        return True

    def step_down(self) -> None:
        """Lead no more; a standby takes over at once."""
        with self._guard:
            held, self._held = self._held, None
        if held is not None:
            try:
                self._doors.store.abdicate(held, now=self._doors.wall())
            except (StaleError, StoreError):
                return  # somebody else leads already, or will when our beats are missed


class Pulse:
    """The thread that beats; ``failed`` hears of a store that cannot be used."""

    def __init__(self, leader: Leader, failed: Callable[[StoreError], None]) -> None:
        self._leader, self._failed = leader, failed
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="pulse")

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(BEAT_S):
            try:
                self._leader.beat()
            except StoreError as error:
                self._failed(error)

    def stop(self) -> None:
        """Beat no more."""
        self._over.set()
        self._thread.join(BEAT_S)
