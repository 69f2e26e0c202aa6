"""Count what hosts use: a thread that takes in each picture of the loop, and writes once a minute.

It is none of the loop's business: a store or a plug that hangs makes nobody wait but this thread, and what
cannot be written is kept and written later. Only the controller that leads counts. What was used while none
did, nobody counted.

``account_of`` is the answer to whoever asks.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence

from labctl.controller.board import Board, Picture
from labctl.controller.doors import Doors
from labctl.domain.energy import account, counting, tariff
from labctl.domain.energy.account import Account, Priced
from labctl.domain.energy.buckets import Pending
from labctl.domain.energy.counting import Count, Look, Plug
from labctl.domain.energy.tariff import EnergyPolicy
from labctl.domain.energy.terms import Grain, SpentSum, grain_for
from labctl.domain.sleep.terms import KnownHost, SeenHost
from labctl.ports.energy import EnergyBook
from labctl.ports.power import Meter, PowerError
from labctl.ports.store import StoreError

WRITE_S = 60.0
FORGET_S = 3600.0
LONGEST = 2.0
"""How many ticks apart two looks may be, so that watts at both tell what was used in between."""

USUAL_S = 90 * 86400.0
"""How far back is looked for what a host draws while idle."""

PATIENCE_S = 1.0
_UNSEEN = SeenHost("", float("-inf"))

log = logging.getLogger("labctl.controller")


class Metering(threading.Thread):
    """Asks one host's plug once in a while; ``read`` is what it said last."""

    def __init__(self, meter: Meter, doors: Doors, every_s: float, host: str) -> None:
        super().__init__(daemon=True, name=f"meter {host}")
        self._meter, self._doors, self._every_s = meter, doors, every_s
        self._over = threading.Event()
        self._last: Plug | None = None

    def run(self) -> None:
        """Ask until it is over; a plug that does not answer is asked again the next time."""
        while True:
            self.ask()
            if self._over.wait(self._every_s):
                return

    def ask(self) -> None:
        """Ask once."""
        try:
            said = self._meter.draw()
        except PowerError:
            return
        if said.watts is not None or said.joules is not None:
            self._last = Plug(self._doors.mono(), said.watts, said.joules)

    def read(self, now: float, longest_s: float) -> Plug | None:
        """Return what it said, unless that is older than so many seconds."""
        last = self._last
        return last if last is not None and now - last.at <= longest_s else None

    def stop(self) -> None:
        """Ask no more."""
        self._over.set()


class Counter:
    """What was used by each host, from pictures; one thread."""

    def __init__(self, doors: Doors, tick_s: float, plugs: Mapping[str, Metering]) -> None:
        self._doors, self._longest_s, self._plugs = doors, tick_s * LONGEST, plugs
        self._counts: dict[str, Count] = {}
        self._reports: dict[str, float] = {}
        self._pending = Pending()
        self._wrote = self._forgot = doors.mono()
        self._trouble = ""

    def take(self, picture: Picture) -> None:
        """Take a picture in; one of a controller that only stands by ends the counting."""
        if not picture.leading:
            self._counts.clear()
            return
        for name, row in picture.known.hosts.items():
            self._look(row, picture.seen.hosts.get(name, _UNSEEN), picture)

    def _look(self, row: KnownHost, seen: SeenHost, picture: Picture) -> None:
        name, report = row.name, seen.report if seen.talking else None
        told = None if report is None else report.telemetry
        doing = counting.doing_of(row.mode, told, row.claims.leases)
        before, moment = self._counts.get(name), picture.moment
        metering, mono = self._plugs.get(name), moment.mono
        if metering is None and report is not None:
            if before is not None and report.at <= before.look.mono and doing is before.look.doing:
                return  # nothing new was said; the next report tells of all the time until then
            mono = max(report.at, mono if before is None else before.look.mono)
            if report.at == self._reports.get(name):
                told, mono = None, moment.mono
        epoch = ("", 0) if report is None else (report.boot_id, report.resumes)
        if report is None and before is not None:
            epoch = before.look.epoch
        if told is not None and report is not None:
            self._reports[name] = report.at
        plug = None if metering is None else metering.read(mono, self._longest_s)
        look = Look(moment.wall - (moment.mono - mono), mono, doing, epoch, told, plug)
        self._counts[name], slices = counting.count(before, look, self._longest_s)
        for one in slices:
            self._pending.add(name, one)

    def write(self, *, now: float, at_once: bool = False) -> None:
        """Write what is due; what the store does not take is kept."""
        if not at_once and now - self._wrote < WRITE_S:
            return
        self._wrote = now
        store = self._doors.store
        try:
            rows = self._pending.taken()
            if rows:
                store.add_spent(rows)
                self._pending.done()
            if now - self._forgot >= FORGET_S:
                self._forgot = now
                store.forget_energy(now=self._doors.wall())
        except StoreError as error:
            self._say(str(error))
        else:
            self._say("")

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            text = trouble or "it is written again"
            log.warning("energy=%s", json.dumps(text))
        self._trouble = trouble


class Energy(threading.Thread):
    """The thread that counts; ``stop`` writes what is left."""

    def __init__(self, doors: Doors, board: Board, tick_s: float) -> None:
        super().__init__(daemon=True, name="energy")
        self._doors, self._board = doors, board
        self._plugs = {
            host: Metering(meter, doors, tick_s, host) for host, meter in sorted(doors.meters.items())
        }
        self._counter = Counter(doors, tick_s, self._plugs)
        self._over = threading.Event()

    def run(self) -> None:
        """Count until it is over."""
        for plug in self._plugs.values():
            plug.start()
        number = 0
        while not self._over.is_set():
            try:
                picture = self._board.newer(number, PATIENCE_S)
                if picture is not None:
                    number = picture.number
                    self._counter.take(picture)
                self._counter.write(now=self._doors.mono())
            except Exception:  # whatever it is, hosts are looked after; the next picture is counted
                log.exception("energy: a bug in labctl")

    def stop(self, seconds: float = 5.0) -> None:
        """End it, and write what is left."""
        self._over.set()
        for plug in self._plugs.values():
            plug.stop()
        if self.ident is None:
            return
        self.join(seconds)
        if not self.is_alive():
            self._counter.write(now=self._doors.mono(), at_once=True)


def account_of(
    book: EnergyBook, policy: EnergyPolicy, hosts: Sequence[str], *, now: float, for_s: float
) -> Account:
    """Return what hosts used in the last ``for_s`` seconds, and what their sleep saved.

    It begins with a whole hour, or day where hours are forgotten: tokens are counted by the hour, and what a
    million of them took is right only where both are of the same time.

    Raises:
        StoreError: the store cannot be used.
    """
    grain = max(grain_for(now - for_s, now), Grain.HOUR)
    since = int(now - for_s)
    since -= since % grain
    until = int(now) + 1
    used, rack = account.account(
        hosts,
        [_priced(book, policy, grain, *stretch) for stretch in _stretches(policy, grain, since, until)],
        book.tokens(grain, since=since, until=until),
        _usual(book, now),
    )
    declared = policy.tariff
    rough = declared is not None and not declared.flat and grain is Grain.DAY
    return Account(since, now, "" if declared is None else declared.currency, rough, used, rack)


def _stretches(
    policy: EnergyPolicy, grain: Grain, since: int, until: int
) -> Sequence[tuple[int, int, int | None]]:
    """Return the stretches of time that are summed up apart, since hours of the week differ in them."""
    if policy.tariff is None or policy.tariff.flat or grain is Grain.DAY:
        return [(since, until, None)]
    return list(tariff.stretches(policy.zone, since, until))


def _priced(
    book: EnergyBook, policy: EnergyPolicy, grain: Grain, since: int, until: int, offset_s: int | None
) -> Priced:
    sums = book.spent(grain, since=since, until=until, offset_s=offset_s)
    if policy.tariff is None:
        return Priced(sums, None)
    if offset_s is None:
        return Priced(sums, (tariff.mean(policy.tariff),))
    return Priced(sums, tariff.by_hour(policy.tariff, offset_s))


def _usual(book: EnergyBook, now: float) -> Sequence[SpentSum]:
    """Return what hosts did lately; by days, of which there are few."""
    since = int(now - USUAL_S)
    return book.spent(Grain.DAY, since=since - since % Grain.DAY, until=int(now) + 1, offset_s=None)
