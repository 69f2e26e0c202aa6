"""What the controller counts from its own pictures, and what becomes of it when store or plug fail."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from labctl.adapters.store import SqlStore, open_store
from labctl.controller.board import Board, Picture
from labctl.controller.doors import Doors
from labctl.controller.energy import FORGET_S, WRITE_S, Counter, Energy, Metering, account_of
from labctl.domain.energy.tariff import EnergyPolicy, Price, Tariff
from labctl.domain.energy.terms import Doing, Grain, Spent, Tokens
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.terms import Known, KnownHost, Moment, Report, Seen, SeenHost, Window
from labctl.domain.telemetry import EngineNow, GpuNow, Telemetry
from labctl.ports.power import Draw, PowerError
from labctl.ports.store import StoreError

NOON = 1_799_625_600.0 + 12 * 3600
TICK_S = 10.0


@dataclass
class Clock:
    passed: float = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(NOON + self.passed, UTC)

    def monotonic(self) -> float:
        return 1000.0 + self.passed


@dataclass
class Refusing:
    """A store that takes nothing while ``refuses`` is set."""

    store: SqlStore
    refuses: bool = False
    forgot: int = 0

    def add_spent(self, rows: Any) -> None:
        if self.refuses:
            raise StoreError("store: there is no space left for it")
        self.store.add_spent(rows)

    def forget_energy(self, *, now: float) -> int:
        self.forgot += 1
        return self.store.forget_energy(now=now)


@dataclass
class World:
    """A host with one card, the clock, and what the controller counts of it."""

    store: SqlStore
    clock: Clock = field(default_factory=Clock)
    plugs: dict[str, Metering] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.refusing = Refusing(self.store)
        self.counter = Counter(self.doors(), TICK_S, self.plugs)
        self.mj = 0.0

    def doors(self, **more: Any) -> Doors:
        given: dict[str, Any] = dict.fromkeys(("talker", "remote", "looks", "rest", "cycle"))
        given |= {"store": self.refusing, "clock": self.clock, "switches": {}, "data": {}} | more
        return Doors(**given)

    def picture(
        self,
        mode: Mode = Mode.READY,
        *,
        says: bool = True,
        watts: float = 100.0,
        leading: bool = True,
        **how: Any,
    ) -> Picture:
        """Return a picture in which the host says that it drew so many watts since the last second."""
        mono = self.clock.monotonic()
        report = None
        if says:
            gpu = GpuNow(
                "GPU-1",
                "0000:01:00.0",
                "RTX 3090",
                False,
                watts,
                round(self.mj),
                busy_percent=how.get("busy", 0),
            )
            engines = (EngineNow("chat", "vllm", True, ("qwen",)),) if how.get("loaded") else ()
            told = None if how.get("old") else Telemetry(NOON, (gpu,), engines=engines)
            report = Report(mono, "boot-1", how.get("resumes", 0), 99.0, (), telemetry=told)
        seen = SeenHost("box", mono, talking=says, report=report)
        known = Known({"box": KnownHost("box", mode)})
        return Picture(1, Moment(NOON + self.clock.passed, mono), known, Seen({"box": seen}), leading=leading)

    def live(self, seconds: float, mode: Mode = Mode.READY, *, watts: float = 100.0, **how: Any) -> None:
        """Let so many seconds pass, tick by tick."""
        for _ in range(int(seconds / TICK_S)):
            self.clock.passed += TICK_S
            self.mj += watts * TICK_S * 1e3
            self.counter.take(self.picture(mode, watts=watts, **how))

    def flush(self) -> None:
        self.counter.write(now=self.clock.monotonic(), at_once=True)

    def kept(self) -> dict[Doing, Spent]:
        self.flush()
        return {row.doing: row for row in self.store.spans(Grain.DAY, since=0, until=2**40, hosts=[])}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    found = open_store(tmp_path / "store.db", create=True)
    assert isinstance(found, SqlStore)
    yield found
    found.close()


@pytest.fixture
def world(store: SqlStore) -> World:
    return World(store)


def test_a_day_of_a_host_is_counted_by_what_it_does(world: World) -> None:
    world.live(100, watts=25.0)
    world.live(200, watts=80.0, loaded=True)
    world.live(300, watts=300.0, busy=97)
    kept = world.kept()
    assert {doing: row.seconds for doing, row in kept.items()} == {
        Doing.EMPTY: 100.0,  # what lies between two looks is put on the earlier one
        Doing.LOADED: 200.0,
        Doing.BUSY: 290.0,
    }
    assert sum(row.joules for row in kept.values()) == pytest.approx(90 * 25 + 200 * 80 + 300 * 300)
    assert all(row.guessed == 0 and row.metered_s == row.seconds for row in kept.values())


def test_a_report_that_is_seen_again_is_counted_once(world: World) -> None:
    world.live(20)
    again = world.picture()
    for _ in range(5):
        world.counter.take(again)
    world.live(20)
    (row,) = world.kept().values()
    assert (row.seconds, row.joules) == (30.0, 3000.0)


def test_a_night_asleep_is_an_estimate_and_the_wake_is_counted(world: World) -> None:
    world.live(600, watts=90.0)
    world.live(30, Mode.SUSPENDING, says=False, watts=0.0)
    world.live(8 * 3600, Mode.ASLEEP, says=False, watts=0.0)
    world.live(40, Mode.WAKING, says=False, watts=120.0)
    world.live(600, watts=90.0, resumes=1)
    kept = world.kept()
    asleep, changing = kept[Doing.ASLEEP], kept[Doing.CHANGING]
    assert asleep.seconds == 8 * 3600
    assert (asleep.joules, asleep.metered_s) == (0.0, 0.0)
    assert asleep.guessed == pytest.approx(8 * 3600 * 3.0)
    assert changing.joules == pytest.approx(40 * 120 + 10 * 90)
    assert abs(changing.guessed) < 1e-6
    answer = account_of(world.store, EnergyPolicy(), ["box"], now=NOON + world.clock.passed, for_s=86400 * 30)
    saved = answer.hosts[0].saved
    assert saved.idle_w == pytest.approx(90, rel=0.02)
    assert saved.kwh == pytest.approx((90 - 3) * 8 / 1000 - saved.wakes_kwh, rel=0.02)
    assert saved.estimated


def test_an_agent_that_tells_no_watts_makes_time_that_nobody_saw(world: World) -> None:
    world.live(100, old=True)
    kept = world.kept()
    assert list(kept) == [Doing.UNSEEN]
    assert (kept[Doing.UNSEEN].seconds, kept[Doing.UNSEEN].joules) == (90.0, 0.0)


def test_what_the_store_does_not_take_is_kept_and_written_later(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "labctl.controller")
    logging.getLogger("labctl.controller").propagate = True
    world.refusing.refuses = True
    for _ in range(3):
        world.live(60)
        world.flush()
    said = [record.getMessage() for record in caplog.records]
    assert said == ['energy="store: there is no space left for it"']
    world.refusing.refuses = False
    (row,) = world.kept().values()
    assert row.joules == pytest.approx(170 * 100)
    assert caplog.records[-1].getMessage() == 'energy="it is written again"'


def test_it_is_written_once_a_minute_and_forgotten_once_an_hour(world: World) -> None:
    start = world.clock.monotonic()
    world.live(30)
    world.counter.write(now=start + WRITE_S - 1)
    assert world.store.spans(Grain.DAY, since=0, until=2**40, hosts=[]) == []
    world.counter.write(now=start + WRITE_S)
    assert len(world.store.spans(Grain.DAY, since=0, until=2**40, hosts=[])) == 1
    assert world.refusing.forgot == 0
    world.counter.write(now=start + FORGET_S)
    world.counter.write(now=start + FORGET_S + WRITE_S)
    assert world.refusing.forgot == 1


def test_a_controller_that_stands_by_counts_nothing(world: World) -> None:
    world.live(50)
    world.clock.passed += 500
    world.counter.take(world.picture(leading=False))
    world.mj += 9e9
    world.live(50)
    (row,) = world.kept().values()
    assert (row.seconds, row.joules) == (80.0, 8000.0)


@dataclass
class Plugged:
    """A meter that counts on, until it fails."""

    clock: Clock
    watts: float = 4.0
    fails: bool = False
    asked: threading.Event = field(default_factory=threading.Event)

    def draw(self) -> Draw:
        self.asked.set()
        if self.fails:
            raise PowerError("timeout", "the plug does not answer")
        return Draw(self.watts, self.watts * self.clock.passed)


def test_a_plug_tells_of_a_host_asleep_and_one_that_fails_makes_it_an_estimate(store: SqlStore) -> None:
    world = World(store)
    plug = Plugged(world.clock)
    world.plugs["box"] = metering = Metering(plug, world.doors(), TICK_S, "box")
    for step in range(20):
        plug.fails = step >= 10
        metering.ask()
        world.live(TICK_S, Mode.ASLEEP, says=False, watts=0.0)
    row = world.kept()[Doing.ASLEEP]
    assert row.seconds == 190.0
    assert row.metered_s < row.seconds
    assert row.joules == pytest.approx(4.0 * 90, rel=0.15)
    assert row.guessed > 0


def test_the_thread_counts_what_the_board_shows_and_writes_when_it_ends(store: SqlStore) -> None:
    world, board = World(store), Board()
    plug = Plugged(world.clock)
    energy = Energy(world.doors(meters={"box": plug}), board, TICK_S)
    energy.start()
    assert plug.asked.wait(5)
    taken = cast("list[Picture]", [])
    take = energy._counter.take
    got = threading.Semaphore(0)

    def noted(picture: Picture) -> None:
        take(picture)
        taken.append(picture)
        got.release()

    energy._counter.take = noted  # type: ignore[method-assign]
    for _ in range(3):
        world.clock.passed += TICK_S
        board.put(world.picture())
        assert got.acquire(timeout=5)
    energy.stop()
    assert not energy.is_alive()
    assert [row.seconds for row in store.spans(Grain.DAY, since=0, until=2**40, hosts=[])] == [20.0]


def test_the_answer_is_priced_by_the_windows_of_the_racks_own_clock(store: SqlStore) -> None:
    dear = Price((Window(frozenset(range(7)), 13 * 60, 14 * 60),), 1.0)
    policy = EnergyPolicy("Europe/Berlin", Tariff(0.1, "EUR", (dear,)))
    store.add_spent([Spent(int(NOON) + at, "box", Doing.BUSY, 3600, 3600, 3.6e6, 0) for at in (0, 3600)])
    store.add_tokens([Tokens(int(NOON), "box", "qwen", 1, 2_000_000)])
    answer = account_of(store, policy, ["box"], now=NOON + 7200, for_s=30 * 86400)
    assert answer.currency == "EUR"
    assert answer.hosts[0].money == pytest.approx(1.1)  # noon in UTC is one o'clock in Berlin's winter
    assert answer.hosts[0].money_per_mtok == pytest.approx(0.55)
    assert answer.mean_price is False
    old = account_of(store, policy, ["box"], now=NOON + 7200, for_s=3 * 366 * 86400)
    assert old.mean_price is True
    assert old.hosts[0].money == pytest.approx(2 * (23 * 0.1 + 1.0) / 24)


def test_tokens_of_an_hour_are_never_set_against_the_energy_of_its_last_minutes(store: SqlStore) -> None:
    hour = int(NOON) - int(NOON) % 3600
    store.add_spent([Spent(hour + at, "box", Doing.BUSY, 60, 60, 60_000, 0) for at in range(0, 3600, 60)])
    store.add_tokens([Tokens(hour, "box", "qwen", 1, 1_000_000)])
    (used,) = account_of(store, EnergyPolicy(), ["box"], now=hour + 3599.0, for_s=300.0).hosts
    assert (used.kwh, used.kwh_per_mtok) == (pytest.approx(1.0), pytest.approx(1.0))


def test_half_past_is_priced_right_where_the_clock_is_half_an_hour_ahead(store: SqlStore) -> None:
    hour = int(NOON) - int(NOON) % 3600
    past = (hour + 5 * 3600 + 1800) % 86400 // 60
    dear = Price((Window(frozenset(range(7)), past, past + 30),), 2.0)
    policy = EnergyPolicy("Asia/Kolkata", Tariff(1.0, "INR", (dear,)))
    store.add_spent([Spent(hour + at, "box", Doing.BUSY, 60, 60, 60_000, 0) for at in range(0, 3600, 60)])
    (used,) = account_of(store, policy, ["box"], now=hour + 3599.0, for_s=600.0).hosts
    assert used.money == pytest.approx(1.5)
