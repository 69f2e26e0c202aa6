"""Let a host show that it sleeps and comes back: cycles of suspend, dark, wake and gate, then a proof.

The test is a person who wishes: it writes wishes to sleep and to wake, and reads the board. Leases, holds,
pauses and the host's own last look win over it as over anybody. What fails at a way to sleep goes on with the
next one (``proofs.ladder``); a host that does not come back ends the test, since it needs a person first.

``_Script`` is the whole of it, as a generator that gets pictures and never waits; a thread feeds it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial

from labctl.controller import statuses
from labctl.controller.answers import TestStep
from labctl.controller.board import Board, Picture
from labctl.controller.means import Means
from labctl.domain.problem import LabctlError
from labctl.domain.sleep import proofs
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.proofs import Rung
from labctl.domain.sleep.terms import How, KnownHost, Proof, Wish

READY_S = 1800.0
DARK_S = 420.0
"""Drain, last look, unloading, the life of an order and two looks."""

SETTLES_S = 300.0
"""How long a host may be in use after a wake of the test's own, by what a boot stirs up."""

TRIES = 3
"""How often a way is tried that came to nothing before the order."""

_LOOK_S = 1.0
_Waiting = Generator[None, Picture, KnownHost | None]


class _RungFailedError(Exception):
    """This way to sleep does not work; the next may."""


class _BouncedError(Exception):
    """It served again before it was ordered to sleep: somebody needed it for a moment, or it refused."""


class _EndError(Exception):
    """The test cannot go on."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """Whose test it is, how many cycles it has, and who wants it."""

    host: str
    cycles: int
    by: str


class _Script:
    """One test, step by step; ``say`` takes what happens, ``nudge`` makes the loop look at once."""

    def __init__(
        self, means: Means, asked: _Asked, say: Callable[[TestStep], None], nudge: Callable[[], None]
    ) -> None:
        self._means, self._tell, self._nudge = means, say, nudge
        self._host, self._cycles, self._by = asked.host, asked.cycles, asked.by
        self._cycle = 0
        self._wish: Wish | None = None

    def run(self) -> Generator[None, Picture, None]:
        """Do the test; whatever ends it, its last wish ends too."""
        wanted = self._means.host(self._host).how
        try:
            yield from self._begin()
            tried: list[tuple[Rung, str]] = []
            for rung in proofs.ladder(wanted):
                if rung.how is How.UNLOAD:
                    break
                try:
                    proof = yield from self._rung(rung)
                except _RungFailedError as error:
                    tried.append((rung, str(error)))
                    self._say(f"{rung}: {error}")
                    continue
                tried.append((rung, ""))
                self._keep(proof, proofs.chosen(self._host, tried, wanted)[1], ok=True)
                return
            self._keep(None, proofs.chosen(self._host, tried, wanted)[1], ok=False)
        except _EndError as error:
            self._end_wish()
            self._say(str(error), ok=False)
        finally:
            self._means.rungs.pop(self._host, None)
            self._end_wish()

    def _begin(self) -> Generator[None, Picture, None]:
        policy = self._means.host(self._host)
        if not policy.wakeable:
            raise _EndError(f"nothing can wake {self._host}, so it is not put to sleep: set Host(wake=...)")
        self._say("waiting for it to be ready")
        yield from self._awake()

    def _rung(self, rung: Rung) -> Generator[None, Picture, Proof]:
        dark, ready = [], []
        for cycle in range(1, self._cycles + 1):
            self._cycle = cycle
            self._means.rungs[self._host] = yield from self._asked(rung)
            dark.append((yield from self._slept()))
            self._say(f"dark after {dark[-1]:.0f} s")
            ready.append((yield from self._awake()))
            self._say(f"ready after {ready[-1]:.0f} s")
        picture = yield
        report = picture.seen.hosts[self._host].report
        fingerprint = None if report is None else report.fingerprint
        if fingerprint is None:
            raise _EndError(f"{self._host} does not tell its kernel, driver and network card")
        if fingerprint.how is not rung.how or rung.mem_sleep not in ("", fingerprint.mem_sleep):
            fingerprint = replace(fingerprint, how=rung.how, mem_sleep=rung.mem_sleep)
        return Proof(fingerprint, self._means.doors.wall(), self._cycles, max(dark), max(ready))

    def _asked(self, rung: Rung) -> Generator[None, Picture, Rung]:
        """Return what is to be asked of the host: nothing special where it sleeps that way by itself."""
        picture = yield
        report = picture.seen.hosts[self._host].report
        own = report.fingerprint.mem_sleep if report is not None and report.fingerprint is not None else ""
        return replace(rung, mem_sleep="") if rung.mem_sleep == own else rung

    def _slept(self) -> Generator[None, Picture, float]:
        """Have it sleep, and try again where somebody came in between: that says nothing of the way."""
        for _ in range(TRIES - 1):
            try:
                return (yield from self._asleep())
            except _BouncedError as bounced:
                self._say(f"it is tried again: {bounced}")
        try:
            return (yield from self._asleep())
        except _BouncedError as bounced:
            raise _RungFailedError(str(bounced)) from None

    def _asleep(self) -> Generator[None, Picture, float]:
        """Wish it asleep and wait until it is; return how many seconds that took."""
        began, wish = self._means.doors.mono(), self._new_wish(sleep=True)
        ordered = False
        while True:
            picture = yield
            row, now = picture.known.hosts[self._host], self._means.doors.mono()
            if picture.moment.mono < began:
                continue
            if row.mode is Mode.ASLEEP:
                return now - began
            if row.mode is Mode.FAILED or row.quarantined:
                raise _EndError(f"{self._host} failed: {row.quarantined or row.because}")
            ordered = ordered or row.mode is Mode.SUSPENDING
            if row.mode is Mode.READY and row.since > wish.at:
                raise _RungFailedError(row.because) if ordered else _BouncedError(row.because)
            if row.mode is Mode.READY:
                verdict = statuses.judged(self._means.policy, picture, self._host, wish)
                if not verdict and (self._cycle == 1 or now - began > SETTLES_S):
                    raise _EndError(f"not now: {verdict.because}")
            if now - began > DARK_S:
                raise _RungFailedError(f"it was not seen dark within {DARK_S:.0f} s")

    def _awake(self) -> Generator[None, Picture, float]:
        """Wish it awake and wait until it is ready; return how many seconds that took."""
        began, wish = self._means.doors.mono(), self._new_wish(sleep=False)
        while True:
            picture = yield
            row, now = picture.known.hosts[self._host], self._means.doors.mono()
            if picture.moment.mono < began:
                continue
            if row.mode is Mode.READY:
                return now - began
            if row.quarantined or (row.mode is Mode.FAILED and row.since >= wish.at):
                raise _EndError(f"{self._host} did not come back: {row.quarantined or row.because}")
            if now - began > READY_S:
                raise _EndError(f"{self._host} was not ready within {READY_S:.0f} s: {row.because}")

    def _new_wish(self, *, sleep: bool) -> Wish:
        self._end_wish()
        now = self._means.doors.wall()
        why = f"sleep test, cycle {self._cycle} of {self._cycles}" if self._cycle else "sleep test"
        lasts = DARK_S if sleep else READY_S
        wish = Wish(0, self._host, self._by, why, now, now + lasts, sleep=sleep)
        self._wish = kept = self._means.doors.store.wish(wish, now=now)
        self._nudge()
        return kept

    def _end_wish(self) -> None:
        wish, self._wish = self._wish, None
        if wish is not None:
            self._means.doors.store.end_wish(wish.id, now=self._means.doors.wall())

    def _keep(self, proof: Proof | None, because: str, *, ok: bool) -> None:
        self._end_wish()
        self._means.doors.store.note_proof(self._host, proof, because, now=self._means.doors.wall())
        self._nudge()
        self._tell(TestStep(self._host, self._cycle, self._cycles, because, ok))  # the store has kept it

    def _say(self, text: str, *, ok: bool | None = None) -> None:
        self._tell(TestStep(self._host, self._cycle, self._cycles, text, ok))
        self._means.happen(self._host, "sleep-test", text)


class SleepTest:
    """A test that runs, or ran; who wants to know its steps asks as often as they like."""

    def __init__(self, means: Means, board: Board, asked: _Asked, nudge: Callable[[], None]) -> None:
        self._board, self._host, self._cycles = board, asked.host, asked.cycles
        self._script = _Script(means, asked, self._say, nudge).run()
        self._bell = threading.Condition()
        self._steps: list[TestStep] = []
        self._over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True, name=f"sleep-test {asked.host}")

    def doing(self) -> str:
        """Return what it does, empty once it ended."""
        with self._bell:
            step = self._steps[-1] if self._steps else None
        if step is None:
            return "sleep test"
        return "" if step.ok is not None else f"sleep test, cycle {step.cycle} of {step.of}"

    def stop(self) -> None:
        """Have it end soon."""
        self._over.set()

    def steps(self, patience_s: float) -> Iterator[TestStep | None]:
        """Yield all steps from the first, and None when none came for so long."""
        told = 0
        while True:
            with self._bell:
                if len(self._steps) == told:
                    self._bell.wait(patience_s)
                fresh = self._steps[told:]
            if not fresh:
                yield None
            for step in fresh:
                told += 1
                yield step
                if step.ok is not None:
                    return

    def _run(self) -> None:
        number = 0
        try:
            next(self._script)
            while not self._over.is_set():
                picture = self._board.newer(number, _LOOK_S)
                if picture is not None:
                    number = picture.number
                    if not picture.leading:
                        self._script.close()
                        self._finish(f"{picture.leader or 'nobody'} leads now: ask there, once more")
                        return
                    if not picture.store:
                        self._script.send(picture)
            self._script.close()
            self._finish("the test was stopped")
        except StopIteration:
            self._finish("the test ended")
        except LabctlError as error:
            self._finish(str(error))
        except Exception as bug:
            self._finish(f"labctl failed, which is a bug: {type(bug).__name__}: {bug}")

    def _finish(self, text: str) -> None:
        """See that the last step says that it is the last."""
        if not self._steps or self._steps[-1].ok is None:
            self._say(TestStep(self._host, 0, self._cycles, text, ok=False))

    def _say(self, step: TestStep) -> None:
        with self._bell:
            self._steps.append(step)
            self._bell.notify_all()


class SleepTests:
    """The tests of a process, one a host."""

    def __init__(self, means: Means, board: Board, nudge: Callable[[str], None]) -> None:
        self._means, self._board, self._nudge = means, board, nudge
        self._guard = threading.Lock()
        self._tests: dict[str, SleepTest] = {}

    def begin(self, host: str, cycles: int, by: str) -> SleepTest:
        """Begin a test.

        Raises:
            LabctlError: one runs on the host already, or this process does not lead.
        """
        picture = self._board.picture()
        if not picture.leading:
            raise LabctlError(
                f"{picture.leader or 'nobody'} leads, and this controller stands by", hint="ask it there"
            )
        with self._guard:
            running = self._tests.get(host)
            if running is not None and running.doing():
                raise LabctlError("a sleep test of it runs already", host=host, hint="wait for it, or end it")
            asked, nudge = _Asked(host, cycles, by), partial(self._nudge, host)
            self._tests[host] = test = SleepTest(self._means, self._board, asked, nudge)
        test.thread.start()
        self._nudge(host)
        return test

    def end(self, host: str, by: str) -> bool:
        """Stop a test; return whether one ran."""
        with self._guard:
            test = self._tests.get(host)
        if test is None or not test.doing():
            return False
        test.stop()
        self._means.happen(host, "sleep-test", f"stopped by {by}")
        return True

    def doing(self) -> dict[str, str]:
        """Return what tests do, by host."""
        with self._guard:
            return {host: said for host, test in self._tests.items() if (said := test.doing())}

    def stop(self) -> None:
        """End all of them."""
        with self._guard:
            tests = list(self._tests.values())
        for test in tests:
            test.stop()
        for test in tests:
            test.thread.join(2 * _LOOK_S)
