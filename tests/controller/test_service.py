"""What people may ask of the controller, and what they are told on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest
from lying_rack import KERNEL, Nature, Sim, fingerprint

from labctl.controller.answers import Change, Ticket
from labctl.controller.answers import TestStep as Step
from labctl.controller.statuses import Told
from labctl.domain.problem import LabctlError
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.terms import Proof, Wish
from labctl.ports.store import Happening

Rack = Callable[..., Sim]


def followed(sim: Sim, tickets: Sequence[Ticket]) -> list[Change]:
    changes = []
    for change in sim.service.follow(tickets, patience_s=0.0):
        if change is None:
            sim.step()
        else:
            changes.append(change)
    return changes


def proves(sim: Sim, cycles: int = 2) -> list[Step]:
    """Run a sleep test while time passes, as fast as its thread keeps up."""
    steps: list[Step] = []
    waits = 0
    for step in sim.service.sleep_test("gpu1", cycles=cycles, by="anna", patience_s=0.003):
        if step is None:
            waits += 1
            assert waits < 3000, steps
            sim.step()
        else:
            steps.append(step)
    return steps


# --- wake and suspend ---


def test_a_wake_shows_each_mode_as_it_comes_and_ends_with_ready(rack: Rack) -> None:
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.until("gpu1", Mode.ASLEEP)
    changes = followed(sim, sim.service.wake(["gpu1"], why="a demo", by="anna"))
    modes = list(dict.fromkeys(change.mode for change in changes))
    assert modes[-3:] == [Mode.WAKING, Mode.VERIFYING, Mode.READY]
    assert [change.ok for change in changes[:-1]] == [None] * (len(changes) - 1)
    assert changes[-1].ok is True
    assert any("anna wants gpu1 awake: a demo" in change.because for change in changes)
    sim.step()
    assert sim.row("gpu1").wishes == ()


def test_a_wake_of_a_host_that_does_not_come_ends_with_its_reason(rack: Rack) -> None:
    sim = rack(natures={"gpu1": Nature(deaf=True)})
    sim.until("gpu1", Mode.READY)
    sim.until("gpu1", Mode.ASLEEP)
    last = followed(sim, sim.service.wake(["gpu1"], why="a demo", by="anna", lasts_s=3600))[-1]
    assert (last.mode, last.ok) == (Mode.FAILED, False)
    assert "did not come up" in last.because


def test_a_suspend_puts_a_quiet_host_to_sleep_before_its_time(rack: Rack) -> None:
    sim = rack(quiet_s=36000.0)
    sim.until("gpu1", Mode.READY)
    sim.step()
    sim.step()
    last = followed(sim, sim.service.suspend(["gpu1"], why="the night", by="anna"))[-1]
    assert (last.mode, last.ok) == (Mode.ASLEEP, True)


@pytest.mark.parametrize(
    ("claim", "word"),
    [
        ("busy", "carol is logged in"),
        ("hold", "bob holds gpu1 awake"),
        ("lease", "1 lease is on gpu1"),
        ("pause", "paused: repairs (bob)"),
        ("refuses", "a download runs"),
    ],
)
def test_a_suspend_that_something_is_against_ends_with_that_reason(rack: Rack, claim: str, word: str) -> None:
    sim = rack(quiet_s=36000.0)
    sim.until("gpu1", Mode.READY)
    store, now = sim.doors.store, sim.world.wall
    if claim == "busy":
        sim.world.machines["gpu1"].busy["sessions"] = "carol is logged in"
    elif claim == "hold":
        sim.service.hold("gpu1", lasts_s=600, why="a demo", by="bob")
    elif claim == "lease":
        store.register("gw", "gateway", now=now)
        store.take_lease("gw", "gpu1", now=now)
    elif claim == "pause":
        sim.service.pause("gpu1", why="repairs", by="bob")
    else:
        sim.world.machines["gpu1"].nature.refuses = "a download runs"
    last = followed(sim, sim.service.suspend(["gpu1"], why="the night", by="anna"))[-1]
    assert (last.mode, last.ok) == (Mode.READY, False)
    assert word in last.because
    assert [wish for wish in sim.row("gpu1").wishes if wish.sleep] == []
    assert sim.world.orders == []


def test_whoever_wakes_a_host_that_is_about_to_sleep_has_it_for_a_while_unless_they_send_it_to_sleep(
    rack: Rack,
) -> None:
    sim = rack(quiet_s=60.0, min_up_s=60.0)
    sim.until("gpu1", Mode.READY)
    sim.run(50)
    changes = followed(sim, sim.service.wake(["gpu1"], why="a demo", by="anna"))
    assert changes[-1].ok is True
    sim.run(30)
    assert sim.mode("gpu1") is Mode.READY
    sim.until("gpu1", Mode.ASLEEP, 300)
    sim.service.wake(["gpu1"], why="a demo", by="anna")
    sim.until("gpu1", Mode.READY)
    followed(sim, sim.service.wake(["gpu1"], why="another", by="bob"))
    changes = followed(sim, sim.service.suspend(["gpu1"], why="all is said", by="bob"))
    assert changes[-1].ok is True, changes[-1]


def test_a_suspend_when_idle_waits_until_nothing_is_against_it(rack: Rack) -> None:
    sim = rack(quiet_s=36000.0)
    sim.until("gpu1", Mode.READY)
    sim.world.machines["gpu1"].busy["sessions"] = "carol is logged in"
    tickets = sim.service.suspend(["gpu1"], why="the night", by="anna", when_idle=True)
    follow = sim.service.follow(tickets, patience_s=0.0)
    for _ in range(20):
        assert (change := next(follow)) is None or change.ok is None
        sim.step()
    sim.world.machines["gpu1"].busy.clear()
    assert followed(sim, tickets)[-1].ok is True


def test_force_skips_the_signals_and_not_a_hold(rack: Rack) -> None:
    sim = rack(quiet_s=36000.0)
    sim.until("gpu1", Mode.READY)
    sim.world.machines["gpu1"].busy["load"] = "a runaway process"
    hold = sim.service.hold("gpu1", lasts_s=600, why="a demo", by="bob")
    refused = followed(sim, sim.service.suspend(["gpu1"], why="now", by="anna", force=True))[-1]
    assert refused.ok is False and "bob holds" in refused.because
    assert sim.service.release("gpu1", by="bob", hold=hold.id) == 1
    assert followed(sim, sim.service.suspend(["gpu1"], why="now", by="anna", force=True))[-1].ok is True


def test_a_name_that_nobody_knows_is_refused_with_those_that_are(rack: Rack) -> None:
    sim = rack()
    with pytest.raises(LabctlError, match=r"no host 'gpu9'.*it knows gpu1"):
        sim.service.wake(["gpu9"], why="", by="anna")


# --- what is shown ---


def test_status_shows_what_holds_a_host_and_what_is_wrong_with_its_proof(rack: Rack) -> None:
    sim = rack(armed=False)
    sim.until("gpu1", Mode.READY)
    sim.service.hold("gpu1", lasts_s=600, why="a demo", by="bob")
    sim.service.pause(None, why="power cut at noon", by="bob")
    sim.step()
    status = sim.service.status()
    (host,) = status.hosts
    assert (status.leading, status.leader, status.store) == (True, "one", "")
    assert host.talking and host.holds[0].why == "a demo"
    assert "power cut at noon" in host.paused
    assert "labctl sleep-test gpu1" in host.proof


def test_a_kernel_that_changed_disarms_idle_sleep_and_says_so(rack: Rack) -> None:
    sim = rack(armed=False)
    old = Proof(fingerprint("6.1.0-24-amd64"), sim.world.wall, 3, 10.0, 20.0)
    sim.doors.store.note_proof("gpu1", old, "passed", now=sim.world.wall)
    sim.run(900)
    assert sim.mode("gpu1") is Mode.READY and sim.world.machines["gpu1"].darks == 0
    assert f"kernel 6.1.0-24-amd64 -> {KERNEL}" in sim.service.status().hosts[0].proof


def test_explain_names_every_single_thing_that_keeps_a_host_awake(rack: Rack) -> None:
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.world.machines["gpu1"].busy["sessions"] = "carol is logged in"
    sim.service.hold("gpu1", lasts_s=600, why="a demo", by="bob")
    sim.step()
    told = sim.service.explain("gpu1")
    assert not told.may_sleep and told.report_age_s is not None
    assert any("bob holds gpu1" in one for one in told.against)
    assert any("carol is logged in" in one for one in told.against)
    assert any(reading.busy for reading in told.readings)
    assert told.recent and told.verdict
    blocks = {one.kind: one for one in told.blocks}
    assert tuple(one.because for one in told.blocks) == told.against
    assert "labctl release gpu1" in blocks["hold"].remedy and blocks["hold"].until is not None
    assert "--force" in blocks["busy"].remedy and blocks["busy"].until is None
    assert told.next_look_s is not None and 0 <= told.next_look_s <= 10
    assert told.refused is None


def test_explain_tells_when_a_host_last_turned_back_on_its_way_to_sleep() -> None:
    def line(text: str, at: float) -> Happening:
        return Happening(int(at), at, "gpu1", "mode", text)

    turns = (
        line("suspending -> ready: gpu1 refused to sleep: apt runs", 1.0),
        line("draining -> ready: a request came: chat", 2.0),
        line("verifying -> ready: the gate has passed", 3.0),
    )
    assert Told(turns=turns).refused == (2.0, "a request came: chat")
    assert Told(turns=turns[2:]).refused is None
    assert Told().refused is None


def test_watch_tells_the_modes_of_all_hosts_and_then_their_changes(rack: Rack) -> None:
    sim = rack(natures={"gpu1": Nature(), "gpu2": Nature()})
    watch = sim.service.watch([], patience_s=0.0)
    sim.step()
    first = [next(watch), next(watch)]
    assert {one.host for one in first if one} == {"gpu1", "gpu2"}
    sim.until("gpu1", Mode.READY)
    heard = []
    while (change := next(watch)) is not None:
        heard.append((change.host, change.mode))
    assert ("gpu1", Mode.READY) in heard or ("gpu1", Mode.VERIFYING) in heard


def test_one_sentence_is_said_for_each_change_and_none_when_all_is_as_it_was(
    rack: Rack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "labctl.controller")
    sim = rack(quiet_s=36000.0)
    sim.until("gpu1", Mode.READY)
    sim.step()
    caplog.clear()
    sim.run(600)
    assert caplog.messages == []
    sim.service.wake(["gpu1"], why="a demo", by="anna")
    sim.service.suspend(["gpu1"], why="the night", by="anna")
    sim.until("gpu1", Mode.ASLEEP)
    sim.step()
    said = [text.partition(" because=")[0] for text in caplog.messages if text.startswith("host=")]
    assert said == [
        "host=gpu1 mode=draining",
        "host=gpu1 mode=suspending",
        "host=gpu1 mode=asleep",
    ]


# --- sleep test ---


def test_a_sleep_test_proves_that_a_host_comes_back_and_arms_it(rack: Rack) -> None:
    sim = rack(armed=False)
    sim.until("gpu1", Mode.READY)
    steps = proves(sim, cycles=2)
    assert steps[-1].ok is True and "sleeps by suspend" in steps[-1].text
    assert [step.text.split(" after ")[0] for step in steps if " after " in step.text] == [
        "dark",
        "ready",
    ] * 2
    proof = sim.row("gpu1").proof
    assert proof is not None and proof.cycles == 2 and proof.fingerprint.kernel == KERNEL
    assert sim.world.machines["gpu1"].resumes == 2
    sim.until("gpu1", Mode.ASLEEP)


def test_a_sleep_test_waits_for_what_a_boot_stirs_up_but_not_for_what_was_there_before(rack: Rack) -> None:
    sim = rack(armed=False)
    sim.until("gpu1", Mode.READY)
    machine, since = sim.world.machines["gpu1"], 0.0
    steps: list[Step] = []
    for step in sim.service.sleep_test("gpu1", cycles=2, by="anna", patience_s=0.003):
        if step is not None:
            steps.append(step)
            if step.cycle == 1 and step.text.startswith("ready after"):
                machine.busy["packages"], since = "apt is at work", sim.world.mono
        else:
            sim.step()
            if since and sim.world.mono - since > 120:
                machine.busy.clear()
    assert steps[-1].ok is True, steps
    machine.busy["packages"] = "apt is at work"
    sim.step()
    steps = proves(sim)
    assert steps[-1].ok is False and steps[-1].text == "not now: packages of gpu1: apt is at work"


def test_a_host_that_stays_awake_at_every_way_only_frees_its_cards(rack: Rack) -> None:
    sim = rack(armed=False, natures={"gpu1": Nature(stays=True)})
    sim.until("gpu1", Mode.READY)
    steps = proves(sim, cycles=1)
    assert steps[-1].ok is False and "only frees its cards" in steps[-1].text
    assert "systemctl suspend failed" in steps[-1].text
    assert sim.row("gpu1").proof is None


@pytest.mark.parametrize(
    ("fails", "how", "memory"), [(("deep",), "suspend", "s2idle"), (("deep", "s2idle"), "power-off", "")]
)
def test_what_fails_at_one_way_to_sleep_is_tried_at_the_next_and_proven_for_that(
    rack: Rack, fails: tuple[str, ...], how: str, memory: str
) -> None:
    sim = rack(armed=False, natures={"gpu1": Nature(memory_fails=fails)})
    sim.until("gpu1", Mode.READY)
    steps = proves(sim, cycles=1)
    assert steps[-1].ok is True and "suspend (deep) failed: " in steps[-1].text
    proof = sim.row("gpu1").proof
    assert proof is not None
    assert (proof.fingerprint.how, proof.fingerprint.mem_sleep) == (how, memory)


def test_who_proved_another_way_than_is_set_sleeps_by_it_again_and_again(rack: Rack) -> None:
    sim = rack(armed=False, natures={"gpu1": Nature(memory_fails=("deep",))})
    sim.until("gpu1", Mode.READY)
    assert proves(sim, cycles=1)[-1].ok is True
    for _ in range(2):  # each time the host reports "deep" again, since it puts its setting back
        sim.until("gpu1", Mode.ASLEEP, 3600.0)
        followed(sim, sim.service.wake(["gpu1"], why="a demo", by="anna"))
        (status,) = sim.service.status().hosts
        assert (status.mode, status.proof) == (Mode.READY, "")


def test_a_host_that_does_not_come_back_ends_the_test_and_gets_no_proof(rack: Rack) -> None:
    sim = rack(armed=False, natures={"gpu1": Nature(deaf=True)})
    sim.until("gpu1", Mode.READY)
    steps = proves(sim, cycles=1)
    assert steps[-1].ok is False and "did not come back" in steps[-1].text
    assert sim.row("gpu1").proof is None


def test_whoever_comes_for_a_moment_in_a_sleep_test_costs_a_try_and_not_the_way_to_sleep(rack: Rack) -> None:
    sim = rack(armed=False)
    sim.until("gpu1", Mode.READY)
    steps, came = [], False
    for step in sim.service.sleep_test("gpu1", cycles=1, by="anna", patience_s=0.003):
        if step is not None:
            steps.append(step)
            continue
        if sim.mode("gpu1") is Mode.DRAINING and not came:
            came, now = True, sim.world.wall
            sim.doors.store.hold("gpu1", "a look", "bob", until=now + 5, now=now)
        sim.step()
    assert came and any("tried again: bob holds it" in step.text for step in steps)
    assert steps[-1].ok is True and steps[-1].text == "gpu1 sleeps by suspend (deep)"


def test_a_sleep_test_ends_when_another_controller_leads_and_proves_nothing(rack: Rack) -> None:
    sim = rack(armed=False)
    sim.until("gpu1", Mode.READY)
    test = sim.service.sleep_test("gpu1", cycles=3, by="anna", patience_s=0.003)
    while sim.mode("gpu1") is not Mode.SUSPENDING:
        if next(test) is None:
            sim.step()
    sim.doors.store.lead("other", over=sim.doors.store.leading(), now=sim.world.wall)
    steps = []
    for step in test:
        if step is None:
            sim.step()
        else:
            steps.append(step)
    assert steps[-1].ok is False and "other leads now" in steps[-1].text
    assert sim.row("gpu1").proof is None and sim.row("gpu1").wishes == ()


def test_a_hold_wins_over_a_sleep_test(rack: Rack) -> None:
    sim = rack(armed=False)
    sim.until("gpu1", Mode.READY)
    sim.service.hold("gpu1", lasts_s=6000, why="a demo", by="bob")
    sim.step()
    steps = proves(sim)
    assert steps[-1].ok is False and "bob holds" in steps[-1].text
    assert sim.world.orders == [] and sim.row("gpu1").wishes == ()


def test_a_host_that_nothing_can_wake_is_not_put_to_sleep_to_try(rack: Rack) -> None:
    sim = rack(armed=False, wakeable=False)
    sim.until("gpu1", Mode.READY)
    steps = proves(sim)
    assert [step.ok for step in steps] == [False] and "nothing can wake gpu1" in steps[0].text


def test_a_second_test_of_a_host_is_refused_and_the_first_can_be_stopped(rack: Rack) -> None:
    sim = rack(armed=False)
    sim.until("gpu1", Mode.READY)
    first = sim.service.sleep_test("gpu1", cycles=9, by="anna", patience_s=1.0)
    with pytest.raises(LabctlError, match="runs already"):
        sim.service.sleep_test("gpu1", cycles=1, by="bob")
    assert sim.service.end_test("gpu1", by="bob")
    steps = [step for step in first if step is not None]
    assert steps[-1].ok is False and "stopped" in steps[-1].text
    assert not sim.service.end_test("gpu1", by="bob")
    sim.service.stop()
    assert all(not thread.name.startswith("sleep-test") for thread in threading.enumerate())


def test_a_test_is_refused_where_another_controller_leads(rack: Rack) -> None:
    sim = rack()
    sim.doors.store.lead("other", over=None, now=sim.world.wall)
    sim.tick()
    with pytest.raises(LabctlError, match="other leads"):
        sim.service.sleep_test("gpu1", by="anna")


def test_a_wish_that_is_forgotten_is_gone(rack: Rack) -> None:
    sim = rack()
    sim.until("gpu1", Mode.READY)
    sim.until("gpu1", Mode.ASLEEP)
    sim.world.machines["gpu1"].nature.deaf = True
    tickets = sim.service.wake(["gpu1"], why="a demo", by="anna")
    sim.step()
    sim.service.forget(tickets)
    assert all(not isinstance(wish, Wish) for wish in sim.row("gpu1").wishes)
