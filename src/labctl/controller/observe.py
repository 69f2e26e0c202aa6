"""See every host: hear those that talk, and look from outside at those that do not.

Each host has one thread. As long as a conversation (``report --watch``) is open the thread reads its lines;
else it looks from outside once an interval, and tries to open a conversation only when a look says that its
SSH port answers. So a host that is off costs one cheap look an interval, nothing here can wake it, and a host
that refuses us is asked ever more rarely.

A host in flux is looked at every second or so, also while its channel is formally open: one that just fell
asleep leaves a channel that says nothing at all.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

from labctl.controller.doors import AGENT, Doors, Timekeeper
from labctl.controller.fold import Fold
from labctl.controller.means import line
from labctl.domain.failures import Failure, HostError
from labctl.domain.sleep.terms import Moment, Seen, SeenHost, Sign
from labctl.domain.sleep.words import NotAReport, report_of
from labctl.ports import Conversation

QUICK_S = 1.0
SHARE = 0.8
"""A line is asked for after this share of a tick, so that the newest is never older than a tick."""

LOOK_SHARE = 0.6
"""One that does not talk is looked at after this share of a tick, since a look takes its time too."""

LOOK_S = 2.0
FIRST_LINE_S = 20.0
LEAST_PAUSE_S = 0.05
WORST_PAUSE_S = 60.0
_STRANGE = "op-failed"
_STACK = 256 * 1024


class Watch(threading.Thread):
    """The thread of one host; ``news`` is called with its name when something is not as it was."""

    def __init__(self, doors: Doors, host: str, tick_s: float, news: Callable[[str], None]) -> None:
        super().__init__(daemon=True, name=f"watch {host}")
        self._doors, self._host, self._news = doors, host, news
        self._tick_s, self._usual_s = tick_s, tick_s * SHARE
        self._fold = Fold(host, tick_s, self._usual_s, doors.mono())
        self._times = Timekeeper(doors.clock, 0.0)
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._turn = threading.Event()
        self._talk: Conversation | None = None
        self._began = float("-inf")
        self._quick = False
        self._failures = 0
        self._not_before = float("-inf")

    # -- what other threads ask

    def seen(self) -> SeenHost:
        """Return the host as it is seen now."""
        with self._guard:
            return self._fold.seen(self._times.moment())

    def note(self, take_in: Callable[[Fold, Moment], None]) -> None:
        """Take in what an act brings about."""
        with self._guard:
            take_in(self._fold, self._times.moment())

    def pace(self, *, quick: bool) -> None:
        """Look every second or so, or as usual; the host is told to report as often."""
        with self._guard:
            if quick == self._quick:
                return
            self._quick = quick
            self._fold.interval_s = self._interval()
            talk, self._not_before = self._talk, float("-inf")
        self._turn.set()
        if talk is not None:
            with suppress(HostError):
                talk.send(line({"every_s": self._interval()}))

    def stop(self) -> None:
        """End it; what it waits for ends too."""
        self._over.set()
        self._turn.set()
        with self._guard:
            talk = self._talk
        if talk is not None:
            talk.close()

    def hang_up(self) -> None:
        """Close the conversation if it has fallen silent."""
        with self._guard:
            now, talk = self._times.moment(), self._talk
            slow = not self._fold.opened and now.mono - self._began <= FIRST_LINE_S
            if talk is None or slow or self._fold.talks(now):
                return
        talk.close()

    # -- the thread

    def run(self) -> None:
        """Look, and talk when there is somebody to talk to."""
        while not self._over.is_set():
            began = self._doors.mono()
            answers, due = self.look(), began + min(self._interval(), self._tick_s * LOOK_SHARE)
            if answers:
                due = min(due, self._not_before)
            if answers and self._doors.mono() >= self._not_before:
                try:
                    self._converse()
                except Exception as bug:  # one host that nobody foresaw must not be lost for ever
                    self._failed(f"labctl failed at it: {type(bug).__name__}: {bug}")
                continue
            self._turn.wait(max(LEAST_PAUSE_S, due - self._doors.mono()))
            self._turn.clear()

    def look(self) -> bool:
        """Look from outside; return whether its SSH port answers, or may."""
        try:
            signs = self._doors.looks.signs(self._host, deadline_s=min(LOOK_S, self._usual_s))
        except Exception as error:  # a look that breaks says nothing of the host
            self._ended(f"it cannot be looked at: {error}")
            return True
        with self._guard:
            news = self._fold.looked(signs, self._times.moment())
        if news:
            self._news(self._host)
        return signs.get("ssh", Sign.UNCLEAR) is not Sign.DARK

    def _converse(self) -> None:
        heard, old = 0, False
        try:
            talk = self._doors.talker.talk(
                self._host, self._doors.data[self._host], (AGENT, "report", "--watch"), root=False
            )
        except HostError as error:
            self._failed(str(error))
            return
        try:
            with self._guard:
                self._talk, self._began = talk, self._doors.mono()
            if self._over.is_set():
                return  # whoever said so found no conversation to close
            talk.send(line({"every_s": self._interval()}))
            for text in talk.lines():
                if self._over.is_set():
                    return
                if text.strip():
                    self._hear(text, first=not heard)
                    heard += 1
            because = "its agent ended the conversation"
        except NotAReport as error:
            because, old = f"its agent does not say what is understood: {error}", True
        except HostError as error:
            because = str(error)
            old = not heard and error.failure.code == _STRANGE
        finally:
            with self._guard:
                self._talk = None
            talk.close()
        if old:
            because = f"its agent is of another version ({because}); labctl apply brings the right one"
        self._failed(because, old=old, heard=heard)

    def _hear(self, text: bytes, *, first: bool) -> None:
        """Take in a line; raise ``NotAReport``, and ``HostError`` where nobody can tell how old it is."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise NotAReport("the line is no JSON") from None
        with self._guard:
            now = self._times.moment()
            if first and now.mono - self._began > FIRST_LINE_S:
                raise HostError(Failure("timeout", f"its first line came only after {FIRST_LINE_S:.0f} s"))
            news = self._fold.heard(report_of(document, now.mono), now)
        self._failures = 0
        if news:
            self._news(self._host)

    def _failed(self, because: str, *, old: bool = False, heard: int = 0) -> None:
        """Take in that the conversation ended, and wait longer each time that not one line was heard."""
        if self._over.is_set():
            return
        self._failures = 0 if heard else self._failures + 1
        pause = QUICK_S if heard else min(WORST_PAUSE_S, self._interval() * 2 ** min(self._failures - 1, 8))
        self._not_before = self._doors.mono() + pause
        self._ended(because, old=old)

    def _ended(self, because: str, *, old: bool = False) -> None:
        with self._guard:
            self._fold.ended(because, self._times.moment(), old_agent=old)
        self._news(self._host)

    def _interval(self) -> float:
        return min(QUICK_S, self._usual_s) if self._quick else self._usual_s


class Watches:
    """All hosts; ``news`` is called, in any thread, with the name of a host that is not as it was."""

    def __init__(self, doors: Doors, tick_s: float, news: Callable[[str], None]) -> None:
        self._doors, self._tick_s, self._news = doors, tick_s, news
        self._watches: dict[str, Watch] = {}
        self._over = threading.Event()
        self._tender: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch every host that has connection data."""
        self._over.clear()
        before = threading.stack_size(_STACK)
        try:
            for host in self._doors.data:
                self._watches[host] = watch = Watch(self._doors, host, self._tick_s, self._news)
                watch.start()
            self._tender = threading.Thread(target=self._tend, daemon=True, name="watches")
            self._tender.start()
        finally:
            threading.stack_size(before)

    def _tend(self) -> None:
        """Close what fell silent; here, because it may take a moment that the loop does not have."""
        watches = list(self._watches.values())
        while not self._over.wait(QUICK_S):
            for watch in watches:
                watch.hang_up()

    def seen(self) -> Seen:
        """Return what was seen of every host, as it is now."""
        return Seen({name: watch.seen() for name, watch in self._watches.items()})

    def host(self, name: str) -> SeenHost:
        """Return what was seen of one host, as it is now: nothing, where it is not watched (any more)."""
        watch = self._watches.get(name)
        return watch.seen() if watch is not None else SeenHost(name, float("-inf"))

    def pace(self, quick: Collection[str]) -> None:
        """Look at these hosts every second or so, and at the others as usual."""
        for name, watch in self._watches.items():
            watch.pace(quick=name in quick)

    def ordered(self, host: str, caps_w: Mapping[str, int]) -> None:
        """Take in that a host is about to be told these caps."""
        self._note(host, lambda fold, now: fold.ordered(caps_w, now))

    def capped(self, host: str, caps_w: Mapping[str, int], n: int = 0) -> None:
        """Take in the caps that a host read back after its change ``n``."""
        self._note(host, lambda fold, now: fold.capped(caps_w, n))

    def unloaded(self, host: str) -> None:
        """Take in that a host's cards were freed."""
        self._note(host, lambda fold, now: fold.unloaded())

    def _note(self, host: str, take_in: Callable[[Fold, Moment], None]) -> None:
        if (watch := self._watches.get(host)) is not None:  # nobody is looked at after the end
            watch.note(take_in)

    def stop(self, seconds: float = 5.0) -> None:
        """End all of it, and wait so long for all of its threads: hosts that hang must not hold up a tick."""
        self._over.set()
        watches, self._watches = list(self._watches.values()), {}
        for watch in watches:
            watch.stop()
        end = self._doors.mono() + seconds
        for thread in (*watches, self._tender):
            if thread is not None:
                thread.join(max(0.0, end - self._doors.mono()))
