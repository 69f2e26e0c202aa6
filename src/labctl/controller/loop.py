"""Tick: look at all that is known and was seen, have the domain decide, and see that it is done.

1. A tick starts from nothing but the store and what was seen; whatever happened to the last one is forgotten.
2. Nothing is done on old news: a tick that stood still for longer than a tick does nothing, and an action
   whose observation is older than that is refused. What cannot hurt (a wake packet) needs none.
3. Changes of mode are made here, one after the other. What takes time is handed to ``Hands``, at most one act
   a host, so one bad host never holds up the others.
4. A store that cannot be used ends the tick: machines stay as they are, and the next tick looks again.

A tick comes once in ``tick_s``, every ``QUICK_S`` while a host is in flux, and at once when somebody wishes
something or a host has news.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from labctl.controller import acts
from labctl.controller.beats import Beats
from labctl.controller.board import Board, Picture
from labctl.controller.hands import Hands
from labctl.controller.leader import NotLeadingError
from labctl.controller.ledger import said_by
from labctl.controller.means import Means
from labctl.controller.recovery import Recovery
from labctl.controller.tell import Teller
from labctl.domain.failures import HostError
from labctl.domain.sleep import reconcile
from labctl.domain.sleep.actions import Action, Move, StepCaps, Wait
from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.domain.sleep.terms import Known, KnownHost, Moment, Seen
from labctl.ports.power import PowerError
from labctl.ports.store import StaleError, StoreError

QUICK_S = 2.0
LEAST_PAUSE_S = 0.01
QUICK_FOR_S = 900.0
KEEP_S = 30 * 86400.0
PRUNE_EVERY_S = 3600.0
EXPECTED = (HostError, PowerError, StaleError, StoreError, NotLeadingError)
_IN_FLUX = frozenset({Mode.DRAINING, Mode.SUSPENDING, Mode.WAKING, Mode.VERIFYING})

log = logging.getLogger("labctl.controller")


class Loop:
    """The loop of one process; ``tick`` is called by one thread, all else by any."""

    def __init__(self, means: Means, hands: Hands, board: Board) -> None:
        self._means, self._board = means, board
        self._hands = hands
        self._recovery = Recovery(means)
        self._teller = Teller()
        self._beats = Beats(every_s=means.policy.tick_s)
        self._bell = threading.Event()
        self._term: int | None = None
        self._pruned = float("-inf")
        self._quick = False

    @property
    def hands(self) -> Hands:
        """What runs the acts."""
        return self._hands

    # -- what other threads tell

    def nudge(self, host: str = "") -> None:
        """Tick at once: something about a host is not as it was."""
        self._bell.set()

    def done(self, host: str, error: BaseException | None) -> None:
        """Take in that an act ended."""
        if isinstance(error, EXPECTED):
            self._teller.act(host, said_by(error))
        elif error is not None:
            self._teller.bug(host, error)
        self._bell.set()

    # -- the loop

    def run(self, over: threading.Event, ticked: Callable[[], None]) -> None:
        """Tick until ``over``; ``ticked`` is called after each tick."""
        while not over.is_set():
            self._bell.clear()
            try:
                self.tick()
            except Exception as bug:  # whatever it is, the next tick starts from nothing
                self._teller.bug("", bug)
            ticked()
            if not over.wait(LEAST_PAUSE_S):
                self._bell.wait(self.pause_s())

    def pause_s(self) -> float:
        """Return how long the loop may wait for the next tick, unless it is nudged."""
        tick_s = self._means.policy.tick_s
        return min(QUICK_S, tick_s) if self._quick else tick_s

    def tick(self) -> None:
        """Look, decide, act; never raises what a store or a host may do."""
        means, moment = self._means, self._means.times.moment()
        try:
            if not means.leader.stand():
                self._stand_by(moment)
                return
            self._begin_term(moment)
            known = means.doors.store.known(now=moment.wall)
            means.ledger.pay()
            if self._keep_house(known, moment):
                known = means.doors.store.known(now=moment.wall)
        except (StoreError, NotLeadingError) as error:
            self._store_failed(error, moment)
            return
        finally:
            means.leader.ticked()
        seen = means.observer.seen()
        try:
            actions = reconcile.decide(means.policy, known, seen, moment)
        except Exception as bug:  # undecided is awake
            self._teller.bug("", bug)
            actions = []
        self._show(known, seen, moment, actions)
        try:
            self._recovery.resolve(known, seen, moment)
            self._carry(actions, known, moment)
        except (StoreError, NotLeadingError) as error:
            self._store_failed(error, moment)

    # -- its parts

    def _stand_by(self, moment: Moment) -> None:
        """Somebody else leads: see that nothing of ours goes on, and show what the store says."""
        means = self._means
        self._lose_term()
        leading = means.doors.store.leading()
        known = means.doors.store.known(now=moment.wall)
        name = "" if leading is None else leading.holder
        self._quick = False
        self._board.put(Picture(0, moment, known, Seen({}), {}, name, leading=False))
        self._teller.leads(name, ours=False)

    def _begin_term(self, moment: Moment) -> None:
        means = self._means
        term = means.leader.term()
        if term == self._term:
            return
        means.doors.store.enlist(means.policy.hosts.keys(), now=moment.wall)
        self._recovery.begin(moment)
        if self._term is None:
            means.observer.start()
        self._term, self._beats = term, Beats(every_s=means.policy.tick_s)
        self._teller.leads(means.leader.name, ours=True)

    def _lose_term(self) -> None:
        if self._term is not None:
            self._term = None
            self._means.observer.stop()

    def _keep_house(self, known: Known, moment: Moment) -> bool:
        """Bury instances that are dead, end wishes that came true, forget old lines; say if claims ended."""
        store, now = self._means.doors.store, moment.wall
        beats = {one.name: one.beat for one in store.instances()}
        ended = False
        for name in self._beats.dead(beats, moment.mono):
            if store.bury(name, beats[name], now=now):
                self._teller.act("", f"{name} is dead; its leases ended")
                ended = True
        for wish in reconcile.overtaken(self._means.policy, known, moment):
            store.end_wish(wish.id, now=now)
            ended = True
        if moment.mono - self._pruned > PRUNE_EVERY_S and not moment.jumped:
            store.prune(before=now - KEEP_S)
            self._pruned = moment.mono
        return ended

    def _carry(self, actions: Sequence[Action], known: Known, moment: Moment) -> None:
        for action in actions:
            if isinstance(action, Wait):
                self._waits(known.hosts[action.host])
                continue
            refused = self._refused(action, moment)
            if refused:
                self._teller.act(action.host, f"not done ({action.because}): {refused}")
                continue
            if not self._hands.free(action.host):
                continue
            try:
                self._do(action, known, moment)
            except StaleError as error:
                self._teller.stale(action.host, str(error))
                self._quick = True
            except (StoreError, NotLeadingError):
                raise
            except Exception as bug:  # one bad host never stops the others
                self._teller.bug(action.host, bug)

    def _waits(self, row: KnownHost) -> None:
        """Learn nothing from a wake that waits for people, watts or other hosts: it is not its own time."""
        if row.mode is Mode.VERIFYING:
            self._means.wakes.pop(row.name, None)

    def _refused(self, action: Action, moment: Moment) -> str:
        """Return why an action must not be done now, or nothing."""
        now, tick_s = self._means.doors.mono(), self._means.policy.tick_s
        if now - moment.mono > tick_s:
            return f"this tick stood still for {now - moment.mono:.0f} s"
        if now - action.seen_at > tick_s and not isinstance(action, acts.HARMLESS):
            return f"what it rests on is {now - action.seen_at:.0f} s old"
        return ""

    def _do(self, action: Action, known: Known, moment: Moment) -> None:
        means, row = self._means, known.hosts[action.host]
        if row.mode is Mode.WAKING and row.attempt is not None and action.host not in means.wakes:
            means.wakes[action.host] = moment.mono - max(0.0, moment.wall - row.attempt.began)
        if isinstance(action, Move):
            self._move(action, known, moment)
            return
        if isinstance(action, StepCaps):  # before the next tick gives the watts to somebody else
            means.observer.ordered(action.host, action.caps_w)
        self._hands.start(action.host, acts.names(action), lambda: self._act(action, known, moment))

    def _act(self, action: Action, known: Known, moment: Moment) -> None:
        refused = self._refused(action, moment)  # the thread may have been late
        if not refused:
            acts.carry(self._means, action, known.hosts[action.host])

    def _move(self, action: Move, known: Known, moment: Moment) -> None:
        means, row, version = self._means, known.hosts[action.host], action.version
        store, term = means.doors.store, means.leader.term()
        if action.event is Event.BROKEN:
            store.note_repair(action.host, row.repair, action.because, term=term, now=moment.wall)
            version = means.known(action.host).version
        means.move(action.host, action.event, action.because, version=version, now=moment.wall)
        if action.event in (Event.GAVE_UP, Event.LOST, Event.BROKEN):
            means.wakes.pop(action.host, None)
        self._bell.set()

    # -- telling

    def _show(self, known: Known, seen: Seen, moment: Moment, actions: Sequence[Action]) -> None:
        waits = {action.host: action.because for action in actions if isinstance(action, Wait)}
        name = self._means.leader.name
        self._board.put(Picture(0, moment, known, seen, waits, name, leading=True))
        self._teller.hosts(known, waits)
        quick = {
            row.name
            for row in known.hosts.values()
            if row.mode in _IN_FLUX and abs(moment.wall - row.since) < QUICK_FOR_S
        }
        self._quick = bool(quick)
        self._means.observer.pace(quick)

    def _store_failed(self, error: StoreError | NotLeadingError, moment: Moment) -> None:
        last = self._board.picture()
        text = said_by(error)
        self._board.put(
            Picture(0, moment, last.known, last.seen, last.waits, last.leader, last.leading, text)
        )
        self._teller.store(text)
