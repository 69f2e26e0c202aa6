"""More lies and accidents: what was true a moment ago, what is learnt wrongly, who comes in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from lying_rack import (
    FakeRemote,
    Nature,
    Sim,
    doors_of,
    host_policy,
    policy_of,
    report_of,
    sim_of,
    world_of,
    wrongs,
)

from labctl.adapters.store import open_store
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.terms import How, Window, Wish

Rack = Callable[..., Sim]
BROKEN = [("card 0 is gone",)]


def wish(sim: Sim, host: str = "gpu1", *, sleep: bool = False, lasts_s: float = 3600.0) -> Wish:
    now = sim.world.wall
    return sim.doors.store.wish(Wish(0, host, "anna", "a test", now, now + lasts_s, sleep=sleep), now=now)


# --- cutting power ---


def test_one_that_hangs_after_a_reboot_for_repair_has_its_power_cut_and_comes_back(
    rack: Rack, monkeypatch
) -> None:
    sim = rack(natures={"gpu1": Nature(gates=list(BROKEN), mends="cold-cycle")}, can_cut=True)
    machine, step = sim.world.machines["gpu1"], FakeRemote.step

    def hangs(self: FakeRemote, found: object, name: str) -> None:
        step(self, machine, name)
        machine.nature.hangs = name == "reboot"

    monkeypatch.setattr(FakeRemote, "step", hangs)
    sim.until("gpu1", Mode.READY, 1800)
    assert len(sim.world.cuts) == 1


def test_power_is_not_cut_under_somebody_who_came_after_the_reboot(rack: Rack) -> None:
    """It came up from the reboot, a person logged in, and then its network broke."""
    sim = rack(natures={"gpu1": Nature(gates=list(BROKEN), mends="cold-cycle")}, can_cut=True)
    machine = sim.world.machines["gpu1"]
    assert sim.run(900, lambda: "reboot" in machine.steps)
    assert sim.run(300, lambda: machine.on and machine.gates >= 4)
    machine.busy["sessions"] = "anna is logged in at the console"
    sim.run(30)
    machine.nature.hangs = True
    sim.run(3600)
    assert sim.world.cuts == [] and wrongs(sim) == []


def test_a_switch_that_says_off_and_cuts_nothing_is_written_down_as_failed(rack: Rack) -> None:
    sim = rack(natures={"gpu1": Nature(gates=list(BROKEN), mends="cold-cycle")}, can_cut=True)
    switch, did = sim.doors.switches["gpu1"], []
    switch.cut, switch.power = lambda: did.append("cut"), lambda: "on"
    wake = switch.wake
    switch.wake = lambda: (did.append("on"), wake())
    ended, end = [], sim.doors.store.outcome
    sim.doors.store.outcome = lambda number, text, *, now: (ended.append(text), end(number, text, now=now))
    sim.until("gpu1", Mode.FAILED, 900)
    assert did == ["cut", "on"]
    assert any("it is not seen to be off" in text for text in ended)


# --- taking over ---


def test_who_takes_over_after_days_does_not_take_all_hosts_for_lost(tmp_path: Path) -> None:
    policy = policy_of(host_policy("gpu1", quiet_s=6000))
    world = world_of(policy)
    one = sim_of(tmp_path, policy, world)
    two = Sim(world, policy, doors_of(world, open_store(tmp_path / "store.db", create=False)), "two")
    for _ in range(40):
        one.step()
        two.tick()
    assert one.mode("gpu1") is Mode.READY
    one.leader.step_down()
    two.tick()
    assert two.leader.leads()
    # Its channel is not open yet: it was only looked at from outside.
    fold = two.observer.folds["gpu1"]
    fold.looked(two.doors.looks.signs("gpu1", deadline_s=1.0), two.means.times.moment())
    two.tick(look=False)
    assert two.mode("gpu1") is Mode.READY, two.row("gpu1").because
    one.doors.store.close()
    two.doors.store.close()


# --- windows ---


def test_somebody_may_put_a_host_to_sleep_in_a_window_that_began_while_it_was_up(rack: Rack) -> None:
    sim = rack(awake=(Window(frozenset(range(7)), 8 * 60, 18 * 60),), quiet_s=600.0)
    sim.until("gpu1", Mode.READY)
    sim.world.advance((24 + 12) * 3600 - (sim.world.wall % 86400))
    sim.run(60)
    assert sim.mode("gpu1") is Mode.READY
    wish(sim, sleep=True)
    sim.until("gpu1", Mode.ASLEEP, 300)
    sim.run(3600)
    assert sim.mode("gpu1") is Mode.ASLEEP


# --- what is learnt ---


def test_days_in_which_a_person_mended_it_are_no_boot_time(rack: Rack) -> None:
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.until("gpu1", Mode.ASLEEP)
    machine = sim.world.machines["gpu1"]
    machine.nature.gates, machine.nature.mends = list(BROKEN), "a new card"
    wish(sim)
    sim.until("gpu1", Mode.FAILED)
    sim.world.advance(2 * 86400)
    machine.nature.gates.clear()
    sim.service.resume("gpu1", by="anna")
    sim.until("gpu1", Mode.READY)
    assert max(sim.row("gpu1").came_up_s, default=0) < 3600


def test_hours_in_which_a_host_was_paused_at_its_gate_are_no_boot_time(rack: Rack) -> None:
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.until("gpu1", Mode.ASLEEP)
    wish(sim)
    sim.until("gpu1", Mode.WAKING)
    sim.service.pause("gpu1", why="a look inside", by="anna")
    sim.run(3 * 3600)
    assert sim.mode("gpu1") is Mode.VERIFYING
    sim.service.resume("gpu1", by="anna")
    sim.until("gpu1", Mode.READY)
    assert max(sim.row("gpu1").came_up_s, default=0) < 600


# --- a wake that cannot be sent ---


def test_a_wake_whose_back_end_fails_each_time_says_so_when_it_gives_up(rack: Rack) -> None:
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.until("gpu1", Mode.ASLEEP)
    sim.doors.switches["gpu1"].fails = True
    wish(sim)
    says = "could not be sent: it does not answer"
    assert sim.run(30, lambda: says in sim.board.picture().waits.get("gpu1", ""))
    sim.until("gpu1", Mode.FAILED, 900)
    assert "could not be sent" in sim.row("gpu1").because
    assert "it does not answer" in sim.row("gpu1").because


# --- orders ---


def test_a_boot_from_before_the_order_does_not_open_admission_while_the_order_lives(rack: Rack) -> None:
    """It tells another boot id, and by its own clock it was up long before the order."""
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.run(900, lambda: sim.mode("gpu1") is Mode.DRAINING)
    machine = sim.world.machines["gpu1"]
    machine.nature.dark_s = 100.0
    sim.until("gpu1", Mode.SUSPENDING, 60)
    machine.boot += 1
    sim.run(60)
    assert sim.mode("gpu1") is Mode.SUSPENDING


# --- lines that waited while we were frozen ---


def test_lines_from_before_a_sleep_that_are_read_after_it_open_no_admission(rack: Rack) -> None:
    """It unloads for long and goes dark while we are frozen; its lines are read when its order is dead."""
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.until("gpu1", Mode.DRAINING)
    machine = sim.world.machines["gpu1"]
    machine.nature.dark_s = 112.0
    sim.until("gpu1", Mode.SUSPENDING, 60)
    ordered = sim.world.mono
    sim.run(100)
    waiting = []
    while machine.on:
        waiting.append(report_of(machine, sim.world.mono))
        sim.world.advance(1.0)
    sim.world.advance(ordered + 156 - sim.world.mono)
    for report in waiting:
        late = replace(report, at=sim.world.mono)
        sim.observer.folds["gpu1"].heard(late, sim.means.times.moment())
    for _ in range(2):
        sim.tick(look=False)
        assert sim.leader.leads() and sim.mode("gpu1") is Mode.SUSPENDING, sim.row("gpu1").because
    sim.until("gpu1", Mode.ASLEEP, 60)
    assert wrongs(sim) == []


@pytest.mark.parametrize("every_s", [1.0, 8.0])
def test_a_host_whose_clock_stood_still_is_fresh_again_with_its_next_line(rack: Rack, every_s: float) -> None:
    """A virtual machine that was stopped for a minute: one line is late, then they come at their pace."""
    sim = rack()
    sim.until("gpu1", Mode.READY)
    fold, now = sim.observer.folds["gpu1"], sim.means.times.moment
    line = report_of(sim.world.machines["gpu1"], sim.world.mono)
    fold.heard(line, now())
    sim.world.advance(60)
    for made_s in (every_s, 2 * every_s):
        sim.world.advance(every_s)
        fold.heard(replace(line, at=sim.world.mono, up_s=line.up_s + made_s), now())
    assert fold.seen(now()).talking


# --- what nobody foresaw ---


def test_a_bug_in_one_act_stops_no_other_host_and_leaves_nothing_open(rack: Rack) -> None:
    sim = rack(natures={"gpu1": Nature(), "gpu2": Nature()})
    start, ask = sim.hands.start, sim.doors.remote.run

    def breaks(host: str, what: str, act: Callable[[], None]) -> None:
        if host == "gpu1":
            raise RuntimeError("can't start new thread")
        start(host, what, act)

    sim.hands.start = breaks  # type: ignore[method-assign]
    sim.until("gpu2", Mode.READY)
    sim.hands.start = start  # type: ignore[method-assign]
    sim.doors.remote.run = lambda *args, **named: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(ZeroDivisionError):
        sim.run(30)
    assert sim.doors.store.unfinished() == []
    sim.doors.remote.run = ask  # type: ignore[method-assign]
    sim.until("gpu1", Mode.READY)


def test_a_host_that_does_not_free_its_cards_is_not_asked_in_each_tick(rack: Rack) -> None:
    sim = rack(how=How.UNLOAD, natures={"gpu1": Nature(refuses="a model does not go")})
    sim.until("gpu1", Mode.READY)
    sim.run(1800)
    lines = [line for line in sim.doors.store.happenings(most=1000) if line.kind == "unload"]
    assert 4 <= len(lines) <= 7 and lines[0].text == "refused: a model does not go"
    sim.world.machines["gpu1"].nature.refuses = ""
    assert sim.run(400, lambda: sim.observer.host("gpu1").unloaded)
