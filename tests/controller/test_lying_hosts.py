"""Hosts that lie, and what the controller makes of them: never more than they can be relied on for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lying_rack import Nature, Sim, wrongs

from labctl.domain.sleep.lifecycle import Mode, Verdict
from labctl.domain.sleep.terms import Wish

Rack = Callable[..., Sim]


def wish(sim: Sim, host: str = "gpu1", *, sleep: bool = False, lasts_s: float = 3600.0) -> Wish:
    now = sim.world.wall
    return sim.doors.store.wish(Wish(0, host, "anna", "a test", now, now + lasts_s, sleep=sleep), now=now)


def asleep(sim: Sim, host: str = "gpu1") -> None:
    sim.until(host, Mode.READY)
    sim.until(host, Mode.ASLEEP)


def test_a_host_sleeps_when_it_is_quiet_and_wakes_when_it_is_wanted(rack: Rack) -> None:
    sim = rack()
    asleep(sim)
    assert sim.world.machines["gpu1"].power == "asleep"
    wish(sim)
    sim.until("gpu1", Mode.READY)
    assert sim.row("gpu1").resumes == 1
    assert len(sim.row("gpu1").came_up_s) == 1 and 0 < sim.row("gpu1").came_up_s[0] < 60
    assert wrongs(sim) == []


def test_one_that_acknowledges_and_stays_awake_serves_again_on_its_own_word(rack: Rack) -> None:
    sim = rack(natures={"gpu1": Nature(stays=True)})
    sim.until("gpu1", Mode.READY)
    sim.until("gpu1", Mode.SUSPENDING)
    sim.until("gpu1", Mode.READY, 60)
    assert "systemctl suspend failed" in sim.row("gpu1").because
    assert sim.world.machines["gpu1"].darks == 0


def test_one_that_stays_awake_and_says_nothing_of_it_serves_again_once_its_order_is_dead(rack: Rack) -> None:
    sim = rack(natures={"gpu1": Nature(stays=True)})
    sim.until("gpu1", Mode.READY)
    sim.until("gpu1", Mode.SUSPENDING)
    sim.world.machines["gpu1"].order = None
    assert not sim.run(100, lambda: sim.mode("gpu1") is not Mode.SUSPENDING)
    sim.until("gpu1", Mode.READY, 120)
    assert "still talks" in sim.row("gpu1").because


def test_one_that_sleeps_without_acknowledging_is_asleep_when_it_is_dark(rack: Rack) -> None:
    sim = rack(natures={"gpu1": Nature(mute=True)})
    asleep(sim)
    assert sim.world.orders and sim.hands.failed == []


def test_one_that_refuses_at_its_last_look_stays_ready_with_its_reason(rack: Rack) -> None:
    sim = rack(natures={"gpu1": Nature(refuses="bob is logged in from 10.0.0.7")})
    sim.until("gpu1", Mode.READY)
    sim.until("gpu1", Mode.DRAINING)
    sim.until("gpu1", Mode.READY, 30)
    assert sim.row("gpu1").because == "bob is logged in from 10.0.0.7"
    assert sim.world.orders == []


def test_one_that_wakes_by_itself_goes_through_the_gate_before_it_serves(rack: Rack) -> None:
    sim = rack()
    asleep(sim)
    gates = sim.world.machines["gpu1"].gates
    sim.world.comes(sim.world.machines["gpu1"])
    sim.until("gpu1", Mode.READY)
    assert sim.world.machines["gpu1"].gates == gates + 1


def test_one_that_rebooted_by_itself_goes_through_the_gate_before_it_serves(rack: Rack) -> None:
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.world.machines["gpu1"].boot += 1
    sim.until("gpu1", Mode.VERIFYING, 30)
    assert "booted" in sim.row("gpu1").because


def test_one_that_lost_its_card_fails_in_time_and_says_so(rack: Rack) -> None:
    sim = rack(natures={"gpu1": Nature(deaf=True)})
    asleep(sim)
    wish(sim)
    sim.until("gpu1", Mode.FAILED, 900)
    assert "did not come up after" in sim.row("gpu1").because
    assert sim.world.machines["gpu1"].packets > 8


@pytest.mark.parametrize(
    ("nature", "word"),
    [
        (Nature(old_agent=True), "another version"),
        (Nature(other_key=True), "host key"),
        (Nature(hangs=True), "does not answer"),
    ],
    ids=["old agent", "changed key", "hanging sshd"],
)
def test_one_that_cannot_be_asked_is_never_put_to_sleep(rack: Rack, nature: Nature, word: str) -> None:
    sim = rack(natures={"gpu1": nature})
    wish(sim, sleep=True)
    sim.run(600)
    assert sim.mode("gpu1") in (Mode.UNKNOWN, Mode.VERIFYING)
    assert word in sim.observer.host("gpu1").silent_because
    assert sim.world.orders == sim.world.cuts == []


def test_half_of_all_packets_lost_and_a_slow_boot_still_wake_it(rack: Rack) -> None:
    sim = rack(natures={"gpu1": Nature(loses=0.5, resume_s=120.0)}, boot_s=180.0)
    asleep(sim)
    wish(sim)
    sim.until("gpu1", Mode.READY, 600)


def test_a_broken_host_is_mended_step_by_step_and_each_is_written_down(rack: Rack) -> None:
    sim = rack(natures={"gpu1": Nature(gates=[("card 0 is gone",)], mends="reboot")})
    sim.until("gpu1", Mode.READY, 900)
    assert sim.world.machines["gpu1"].steps == ["restart-engines", "reload-driver", "reboot"]
    assert sim.row("gpu1").repair.taken == ()
    assert sim.world.cuts == [] and sim.doors.store.unfinished() == []


def test_a_host_that_nothing_mends_ends_with_a_person(rack: Rack) -> None:
    sim = rack(natures={"gpu1": Nature(gates=[("card 0 is gone",)], mends="a new card")})
    sim.until("gpu1", Mode.FAILED, 900)
    assert "card 0 is gone" in sim.row("gpu1").quarantined
    wish(sim)
    sim.run(300)
    assert sim.mode("gpu1") is Mode.FAILED
    sim.world.machines["gpu1"].nature.gates.clear()
    sim.service.resume("gpu1", by="anna")
    sim.until("gpu1", Mode.READY)


def test_power_is_never_cut_where_the_inventory_does_not_say_so(rack: Rack) -> None:
    sim = rack(natures={"gpu1": Nature(gates=[("card 0 is gone",)], mends="cold-cycle")})
    sim.until("gpu1", Mode.FAILED, 900)
    assert sim.world.cuts == []


def test_power_is_not_cut_under_somebody_who_is_logged_in(rack: Rack) -> None:
    sim = rack(natures={"gpu1": Nature(gates=[("card 0 is gone",)], mends="cold-cycle")}, can_cut=True)
    sim.world.machines["gpu1"].busy["sessions"] = "anna is logged in"
    sim.run(900)
    assert sim.world.cuts == [] and wrongs(sim) == []
    sim.world.machines["gpu1"].busy.clear()
    sim.until("gpu1", Mode.READY, 900)
    assert len(sim.world.cuts) == 1


def test_a_move_that_somebody_overtook_is_dropped_and_decided_anew(rack: Rack) -> None:
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.until("gpu1", Mode.DRAINING)
    sim.doors.store.hold("gpu1", "a demo", "bob", until=sim.world.wall + 600, now=sim.world.wall)
    assert sim.mode("gpu1") is Mode.READY
    sim.run(300)
    assert sim.mode("gpu1") is Mode.READY and sim.world.orders == []


@pytest.mark.parametrize("claim", ["lease", "hold", "wish", "pause"])
def test_whoever_comes_before_the_order_wins(rack: Rack, claim: str) -> None:
    """Between the host's last look and our commit: the talk is held there, and somebody comes."""
    sim = rack()
    sim.until("gpu1", Mode.READY)
    store, now = sim.doors.store, sim.world.wall
    store.register("gw", "gateway", now=now)
    sim.gateways.add("gw")
    order = store.order

    def late(*args: object, **named: object) -> object:
        claims = {
            "lease": lambda: store.take_lease("gw", "gpu1", now=sim.world.wall),
            "hold": lambda: store.hold("gpu1", "demo", "bob", until=sim.world.wall + 600, now=sim.world.wall),
            "wish": lambda: wish(sim),
            "pause": lambda: store.pause("gpu1", "repairs", "bob", now=sim.world.wall),
        }
        claims[claim]()
        return order(*args, **named)  # type: ignore[arg-type]

    store.order = late  # type: ignore[method-assign]
    sim.until("gpu1", Mode.DRAINING)
    sim.run(60)
    assert sim.mode("gpu1") is Mode.READY
    assert sim.world.orders == [] and sim.world.machines["gpu1"].on


def test_an_order_that_the_store_does_not_make_is_not_given(rack: Rack) -> None:
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.doors.store.order = lambda *args, **named: Verdict(False, "1 hold is on it")  # type: ignore[method-assign]
    sim.until("gpu1", Mode.DRAINING)
    sim.run(60)
    assert sim.world.orders == sim.world.late == []


def test_power_is_not_cut_when_somebody_came_after_it_was_decided(rack: Rack) -> None:
    sim = rack(natures={"gpu1": Nature(gates=[("card 0 is gone",)], mends="cold-cycle")}, can_cut=True)
    for _ in range(200):
        sim.world.advance(2)
        sim.observer.look()
        sim.loop.tick()
        if "cold-cycle" in sim.hands.doing().values():
            break
        sim.hands.flush()
    sim.world.machines["gpu1"].busy["sessions"] = "anna came in between"
    assert sim.hands.flush() == 1
    assert sim.world.cuts == [] and wrongs(sim) == []


def test_what_the_gate_says_of_a_boot_that_is_over_does_not_count(rack: Rack) -> None:
    sim = rack()
    run, machine = sim.doors.remote.run, sim.world.machines["gpu1"]

    def reboots_meanwhile(*args: Any, **named: Any) -> Any:
        answer = run(*args, **named)
        if machine.gates == 1:
            machine.boot += 1
        return answer

    sim.doors.remote.run = reboots_meanwhile  # type: ignore[method-assign]
    sim.until("gpu1", Mode.READY)
    assert machine.gates == 2 and sim.row("gpu1").boot_id == machine.boot_id


def test_power_that_was_being_cut_when_a_controller_ended_is_given_again(rack: Rack) -> None:
    sim = rack(quiet_s=36000.0)
    store, now = sim.doors.store, sim.world.wall
    dead = store.lead("dead", over=None, now=now)
    assert dead is not None
    store.intend("gpu1", "cold-cycle", "it hung", term=dead.term, now=now)
    store.abdicate(dead, now=now)
    sim.world.machines["gpu1"].power = "off"
    sim.until("gpu1", Mode.READY, 600)
    assert store.unfinished() == []


def test_five_hundred_wishes_at_once_are_one_wake(rack: Rack) -> None:
    sim = rack()
    asleep(sim)
    for _ in range(500):
        wish(sim)
    sim.until("gpu1", Mode.READY)
    # The rounds of one schedule: a resume of 5 s hears two or three.
    assert 1 <= sim.world.machines["gpu1"].packets <= 5
    wakes = [line for line in sim.doors.store.happenings(most=2000) if line.text.startswith("asleep -> ")]
    assert len(wakes) == 1
    sim.step()
    assert sim.row("gpu1").wishes == ()


def test_the_table_of_events_is_all_that_moves_a_host(rack: Rack) -> None:
    sim = rack()
    asleep(sim)
    said = [line.text for line in sim.doors.store.happenings(host="gpu1") if line.kind == "mode"]
    assert [text.partition(":")[0] for text in said] == [
        "unknown -> verifying",
        "verifying -> ready",
        "ready -> draining",
        "draining -> suspending",
        "suspending -> asleep",
    ]
