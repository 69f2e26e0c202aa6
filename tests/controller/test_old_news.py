"""A controller that was frozen, slept itself, lost its store or its lead: it does nothing on old news."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from lying_rack import FakeObserver, Sim, doors_of, host_policy, policy_of, sim_of, world_of, wrongs

from labctl.adapters.store import open_store, store_at
from labctl.adapters.store.sqlite import SqliteFile
from labctl.controller.beats import Beats
from labctl.controller.leader import NotLeadingError
from labctl.domain.sleep import reconcile
from labctl.domain.sleep.actions import Action, SendWake, Suspend
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.terms import Wish
from labctl.ports.store import StoreError

Rack = Callable[..., Sim]


def frozen_in(sim: Sim, seconds: float) -> Callable[[], None]:
    """Have the process stand still between what is decided and what is done, once; return what ends that."""
    decide, seen = reconcile.decide, []

    def late(*args: object) -> list[Action]:
        actions = decide(*args)  # type: ignore[arg-type]
        if actions and not seen:
            seen.extend(actions)
            sim.world.advance(seconds)
        return actions

    reconcile.decide = late  # type: ignore[assignment]
    return lambda: setattr(reconcile, "decide", decide)


@pytest.fixture
def thaw() -> Iterator[list[Callable[[], None]]]:
    ends: list[Callable[[], None]] = []
    yield ends
    for end in ends:
        end()


# --- SIGSTOP ---


@pytest.mark.parametrize("mode", [Mode.READY, Mode.DRAINING], ids=["a move", "an order"])
def test_a_tick_that_stood_still_for_a_minute_does_nothing(rack: Rack, mode: Mode, thaw: list) -> None:  # type: ignore[type-arg]
    sim = rack()
    sim.until("gpu1", mode)
    sim.world.advance(70 if mode is Mode.READY else 9)
    sim.observer.look()
    thaw.append(frozen_in(sim, 60))
    for _ in range(9):
        sim.tick()
        if sim.row("gpu1").mode is not mode or sim.world.orders:
            break
        sim.observer.look()
    before = sim.doors.store.happenings(most=500)
    assert sim.world.orders == [] and all("suspending" not in line.text for line in before)


def test_an_action_on_an_observation_older_than_a_tick_is_refused(rack: Rack) -> None:
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.world.machines["gpu1"].busy["sessions"] = "anna works"
    sim.run(120)
    version, now = sim.row("gpu1").version, sim.means.times.moment()
    old = Suspend("gpu1", "quiet", version, now.mono - 11, sim.policy.hosts["gpu1"].how)
    assert "11 s old" in sim.loop._refused(old, now)
    assert sim.loop._refused(SendWake("gpu1", "wanted", version, now.mono - 11, 1), now) == ""
    assert sim.loop._refused(SendWake("gpu1", "wanted", version, now.mono, 1), now) == ""
    sim.world.advance(11)
    assert "stood still" in sim.loop._refused(SendWake("gpu1", "wanted", version, now.mono, 1), now)


def test_a_process_that_stood_still_between_the_last_look_and_go_does_not_say_go(rack: Rack) -> None:
    sim = rack()
    sim.until("gpu1", Mode.READY)
    order = sim.doors.store.order

    def slow(*args: object, **named: object) -> object:
        verdict = order(*args, **named)  # type: ignore[arg-type]
        sim.world.advance(60)
        return verdict

    sim.doors.store.order = slow  # type: ignore[method-assign]
    sim.until("gpu1", Mode.SUSPENDING)
    assert sim.world.orders == sim.world.late == []
    sim.until("gpu1", Mode.READY, 240)
    assert sim.world.machines["gpu1"].darks == 0


def test_blind_for_a_minute_it_moves_nobody(rack: Rack) -> None:
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.observer.blind.add("gpu1")
    version = sim.row("gpu1").version
    sim.run(120)
    assert sim.row("gpu1").version == version


# --- clocks ---


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_jumps_by_an_hour_puts_nobody_to_sleep_and_gives_up_no_wake(
    rack: Rack, hours: int
) -> None:
    sim = rack(quiet_s=1800.0, min_up_s=1800.0)
    sim.until("gpu1", Mode.READY)
    sim.run(300)
    sim.world.jump(3600 * hours)
    assert not sim.run(1200, lambda: sim.mode("gpu1") is not Mode.READY)
    sim.until("gpu1", Mode.ASLEEP, 3600)
    now = sim.world.wall
    sim.doors.store.wish(Wish(0, "gpu1", "anna", "a test", now, now + 1e5), now=now)
    sim.world.machines["gpu1"].nature.resume_s = 40
    sim.step()
    sim.world.jump(3600 * hours)
    sim.until("gpu1", Mode.READY, 300)
    assert wrongs(sim) == []


def test_after_its_own_sleep_of_an_hour_it_looks_before_it_acts(rack: Rack) -> None:
    """The clock of the controller counts on in its sleep, so all that it saw before is an hour old."""
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.run(40)
    sim.world.machines["gpu1"].busy["sessions"] = "anna came while it slept"
    sim.world.advance(3600)
    sim.tick(look=False)
    sim.tick(look=False)
    assert sim.mode("gpu1") is Mode.READY
    sim.run(600)
    assert sim.mode("gpu1") is Mode.READY and wrongs(sim) == []


def test_own_sleep_buries_nobody() -> None:
    beats = Beats(30.0)
    assert beats.dead({"gw": 1}, 0.0) == ()
    assert beats.dead({"gw": 1}, 3600.0) == ()
    assert beats.dead({"gw": 2}, 3610.0) == ()


def test_a_beat_that_stays_the_same_for_half_a_minute_is_a_death() -> None:
    beats = Beats(30.0)
    told = [beats.dead({"gw": 1, "other": at}, float(at)) for at in range(0, 40, 10)]
    assert told == [(), (), (), ("gw",)]


def test_whoever_looks_only_once_a_minute_sees_a_death_too() -> None:
    beats = Beats(30.0, every_s=60.0)
    told = [beats.dead({"gw": 1, "other": at}, at) for at in (0.0, 60.0, 120.0)]
    assert told == [(), ("gw",), ("gw",)]
    assert beats.dead({"gw": 1}, 3600.0) == ()  # nobody looked meanwhile


# --- the store ---


def locked(path: Path) -> Callable[[], None]:
    held = sqlite3.connect(path, isolation_level=None)
    held.execute("BEGIN EXCLUSIVE")
    return held.close


def gone(path: Path) -> Callable[[], None]:
    aside = path.with_name("aside")
    path.rename(aside)
    return lambda: aside.replace(path) and None


def corrupt(path: Path) -> Callable[[], None]:
    wal = path.with_name(f"{path.name}-wal")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    kept = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(0)
        file.write(b"\0" * 8192)

    def mend() -> None:
        wal.unlink(missing_ok=True)
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
        new = path.with_name("new")
        new.write_bytes(kept)
        new.chmod(0o600)
        new.rename(path)

    return mend


@pytest.mark.parametrize("breaks", [gone, corrupt, locked], ids=["gone", "corrupt", "locked"])
def test_without_its_store_nobody_is_put_to_sleep_and_all_goes_on_with_the_next_tick(
    tmp_path: Path, breaks: Callable[[Path], Callable[[], None]]
) -> None:
    policy = policy_of(host_policy("gpu1", quiet_s=60))
    world = world_of(policy)
    sim_of(tmp_path, policy, world).doors.store.close()
    store = store_at(SqliteFile(tmp_path / "store.db", busy_s=0.05), create=False)
    sim = Sim(world, policy, doors_of(world, store))
    sim.until("gpu1", Mode.READY)
    sim.step()
    mend = breaks(tmp_path / "store.db")
    for _ in range(12):
        sim.world.advance(10)
        sim.tick()
    assert world.orders == []
    assert sim.service.status().store and sim.service.status().hosts[0].mode is Mode.READY
    mend()
    sim.step()
    sim.step()
    assert sim.service.status().store == ""
    sim.until("gpu1", Mode.ASLEEP)
    sim.doors.store.close()


@pytest.mark.parametrize("at", ["intend", "order", "outcome", "move"])
def test_a_store_that_fails_in_the_middle_of_an_act_says_no_go_and_heals(rack: Rack, at: str) -> None:
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.until("gpu1", Mode.DRAINING)
    inner, broken = getattr(sim.doors.store, at), [True]

    def fails(*args: object, **named: object) -> object:
        if broken[0]:
            raise StoreError("store: there is no space left for it")
        return inner(*args, **named)

    setattr(sim.doors.store, at, fails)
    sim.run(60)
    if at in ("intend", "order"):
        assert sim.world.orders == []
    broken[0] = False
    sim.until("gpu1", Mode.ASLEEP, 900)
    sim.step()
    assert sim.doors.store.unfinished() == []


# --- two controllers ---


def test_one_leads_the_other_stands_by_and_takes_over_when_it_dies(tmp_path: Path) -> None:
    policy = policy_of(host_policy("gpu1", quiet_s=600))
    world = world_of(policy)
    one = sim_of(tmp_path, policy, world)
    two = Sim(world, policy, doors_of(world, open_store(tmp_path / "store.db", create=False)), "two")
    two_leads(one, two)
    one.until("gpu1", Mode.READY)
    term = one.leader.term()
    assert two.run(120, two.leader.leads)
    assert two.leader.term() == term + 1 and two.service.status().leading
    two.until("gpu1", Mode.ASLEEP)
    close(one, two)


def two_leads(one: Sim, two: Sim) -> None:
    """Have one lead for five minutes while the other watches."""
    for _ in range(30):
        one.step()
        two.tick()
    assert one.leader.leads() and not two.leader.leads()
    status = two.service.status()
    assert (status.leader, status.leading) == ("one", False)


def test_a_frozen_leader_that_comes_back_can_do_nothing(tmp_path: Path) -> None:
    policy = policy_of(host_policy("gpu1", quiet_s=60))
    world = world_of(policy)
    one = sim_of(tmp_path, policy, world)
    two = Sim(world, policy, doors_of(world, open_store(tmp_path / "store.db", create=False)), "two")
    one.until("gpu1", Mode.READY)
    assert two.run(120, two.leader.leads)  # one is frozen all the while
    with pytest.raises(NotLeadingError):
        one.leader.term()
    orders = list(world.orders)
    one.tick()
    assert not one.leader.leads() and world.orders == orders
    assert one.service.status().leader == "two"
    assert isinstance(one.observer, FakeObserver) and one.observer.folds == {}
    close(one, two)


def test_a_leader_that_is_told_to_stop_hands_over_at_once(tmp_path: Path) -> None:
    policy = policy_of(host_policy("gpu1"))
    world = world_of(policy)
    one = sim_of(tmp_path, policy, world)
    two = Sim(world, policy, doors_of(world, open_store(tmp_path / "store.db", create=False)), "two")
    one.step()
    two.tick()
    one.leader.step_down()
    two.tick()
    assert two.leader.leads()
    close(one, two)


def test_the_successor_of_a_leader_that_is_known_to_be_dead_leads_at_once(tmp_path: Path) -> None:
    policy = policy_of(host_policy("gpu1"))
    world = world_of(policy)
    one = sim_of(tmp_path, policy, world)
    one.step()
    term, dead = one.leader.term(), set[str]()
    doors = doors_of(world, open_store(tmp_path / "store.db", create=False))
    two = Sim(world, policy, replace(doors, gone=dead.__contains__), "two")
    two.tick()
    assert not two.leader.leads()
    dead.add("one")
    two.tick()
    assert two.leader.leads() and two.leader.term() == term + 1
    close(one, two)


def test_a_loop_that_hangs_stops_its_own_beat(rack: Rack) -> None:
    sim = rack()
    sim.step()
    store, beat = sim.doors.store, sim.doors.store.leading()
    for _ in range(20):
        sim.world.advance(5)
        sim.leader.beat()
    frozen = store.leading()
    sim.world.advance(5)
    sim.leader.beat()
    assert beat != frozen == store.leading()
    assert not sim.leader.leads()


def close(*sims: Sim) -> None:
    for sim in sims:
        sim.doors.store.close()
