"""Who serves steps down so that others can wake, and steps up again; in doubt the higher cap counts."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from lying_rack import FakeRemote, Machine, Nature, Sim, host_policy, policy_of, sim_of, world_of

from capped_host import Box, capped, make_box
from fake_gpus import MakeNvml
from labctl.agent import caps, capsteps, orders, vitals
from labctl.agent import main as door
from labctl.controller.fold import ORDERED_FOR_S, Fold
from labctl.domain.budget import BOARD, Card, Circuit, Host, Rack, Supply
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.terms import Moment, Reading, Report, Wish

BOTH = {"slot0": 150, "slot1": 150}
DECLARED = {"slot0": 300, "slot1": 300}


def watts(*names: str) -> Rack:
    """Return hosts of 100 W with two cards of 100 to 300 W; the circuit bears one with its full caps."""
    cards = tuple(Card(f"slot{n}", "RTX 3090", 300, 100, 1.0) for n in range(2))
    supply = Supply("psu", 2000, 1.0, 2.0, "office", (BOARD, *(card.name for card in cards)))
    return Rack(
        tuple(Host(name, 100, cards, (supply,)) for name in names), (Circuit("office", 100, 11.0, 1.0),)
    )


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Sim]:
    """Return a controller whose gpu1 serves with its full caps while gpu2 sleeps, both held as they are."""
    hosts = (host_policy("gpu1", quiet_s=60.0), host_policy("gpu2", quiet_s=60.0, priority=1))
    policy = policy_of(*hosts, watts=watts("gpu1", "gpu2"))
    made = sim_of(tmp_path, policy, world_of(policy, gpu1=Nature(), gpu2=Nature()))
    made.world.machines["gpu1"].busy["sessions"] = "anna is logged in"
    made.until("gpu1", Mode.READY)
    made.until("gpu2", Mode.ASLEEP)
    made.run(60.0)
    made.world.machines["gpu1"].step({})
    yield made
    made.doors.store.close()


def wished(sim: Sim, host: str = "gpu2") -> None:
    sim.doors.store.wish(
        Wish(0, host, "bob", "work", sim.world.wall, sim.world.wall + 7200), now=sim.world.wall
    )


def caps_of(sim: Sim, host: str = "gpu1") -> dict[str, int]:
    return dict(sim.world.machines[host].caps_w)


def serves_while_both_are_on(sim: Sim) -> None:
    """Wake gpu2 and have it stay."""
    sim.world.machines["gpu2"].busy["sessions"] = "bob is logged in"
    wished(sim)
    sim.until("gpu2", Mode.READY)


def test_a_host_steps_down_before_another_wakes_and_up_when_that_sleeps_again(sim: Sim) -> None:
    wished(sim)
    sim.step()
    assert sim.world.machines["gpu2"].packets == 0, "the watts come first"
    assert caps_of(sim) != {} and max(caps_of(sim).values()) < 300
    sim.until("gpu2", Mode.READY)
    sim.world.machines["gpu2"].busy["sessions"] = "bob is logged in"
    sim.run(120.0)
    assert max(caps_of(sim).values()) < 300, "as long as both are on"
    sim.world.machines["gpu2"].busy.clear()
    sim.until("gpu2", Mode.ASLEEP)
    assert sim.run(60.0, lambda: caps_of(sim) == DECLARED)


def test_a_host_that_slept_counts_with_its_declared_caps_again(sim: Sim) -> None:
    serves_while_both_are_on(sim)
    assert sim.observer.host("gpu1").caps_w
    sim.world.machines["gpu1"].busy.clear()
    sim.until("gpu1", Mode.ASLEEP)
    assert not sim.observer.host("gpu1").caps_w, "it will wake with what is declared"


def test_a_new_controller_hears_from_the_host_what_is_in_force_and_steps_it_up_again(sim: Sim) -> None:
    serves_while_both_are_on(sim)
    stepped = caps_of(sim)
    sim.observer.stop()
    sim.observer.start()  # whatever was seen is forgotten, as by a restart
    sim.observer.look()
    assert sim.observer.host("gpu1").caps_w == stepped
    sim.world.machines["gpu2"].busy.clear()
    sim.until("gpu2", Mode.ASLEEP)
    assert sim.run(60.0, lambda: caps_of(sim) == DECLARED)


@pytest.mark.parametrize("lost", ["before", "after"])
def test_a_step_up_of_which_nothing_is_heard_counts_as_done_until_it_surely_was_not(
    sim: Sim, lost: str
) -> None:
    serves_while_both_are_on(sim)
    machine = sim.world.machines["gpu1"]
    machine.drops_steps = lost
    sim.world.machines["gpu2"].busy.clear()
    sim.until("gpu2", Mode.ASLEEP)
    assert sim.run(60.0, lambda: bool(sim.hands.failed))
    assert sim.observer.host("gpu1").caps_w == DECLARED, "in doubt the higher counts"
    machine.drops_steps = ""
    assert sim.run(ORDERED_FOR_S + 60.0, lambda: caps_of(sim) == DECLARED)


def test_a_step_up_counts_from_the_tick_that_decided_it(sim: Sim) -> None:
    serves_while_both_are_on(sim)
    sim.world.machines["gpu2"].busy.clear()
    sim.until("gpu2", Mode.ASLEEP)
    while not (waiting := dict(sim.hands.doing())):
        sim.world.advance(2.0)
        sim.observer.look()
        sim.loop.tick()
        if "gpu1" not in sim.hands.doing():
            sim.hands.flush()
    assert waiting == {"gpu1": "setting its caps"}
    assert sim.observer.host("gpu1").caps_w == DECLARED
    assert caps_of(sim) != DECLARED, "and nobody has told it yet"


def test_what_a_host_did_not_take_is_told_with_its_own_words(
    sim: Sim, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"why": "90 W is below what this card takes"}, {"why": 5}, "x"]
    answer = {"caps_w": {"slot0": 300, "slot1": True}, "caps_n": 1, "cards": rows}
    monkeypatch.setattr(type(sim.means), "ask", lambda *args, **named: answer)
    outcomes: list[str] = []
    monkeypatch.setattr(
        type(sim.doors.store), "outcome", lambda self, intent, text, *, now: outcomes.append(text)
    )
    wished(sim)
    sim.step()
    assert "not taken by slot0, slot1: 90 W is below what this card takes" in outcomes
    assert sim.world.machines["gpu2"].packets == 0


# --- with the real agent, and cards that a driver shows ---


def real_caps(host: Box) -> Callable[..., Mapping[str, Any]]:
    """Return the answers of a remote whose gpu1 does ``caps`` by the agent's own door, on real files."""
    fake = FakeRemote._answer

    def answer(remote: FakeRemote, machine: Machine, verb: list[str], order: Any) -> Mapping[str, Any]:
        if machine.name != "gpu1" or verb[0] not in ("caps", "gate"):
            return fake(remote, machine, verb, order)
        if verb == ["gate"]:
            caps.apply(host.root, steps_end=True)
            said = fake(remote, machine, verb, order)
        else:
            asked, flags = door.parse(" ".join(verb), forced=True)
            assert asked.as_root and flags == {"--step"}
            said = orders.answered(
                io.BytesIO(json.dumps(order).encode()), lambda it: capsteps.step(it, host.root)
            )
        told = vitals.caps(host.root) or {}
        machine.caps_n, machine.caps_w = told["n"], told["caps_w"]
        return said

    return answer


def test_real_caps_go_down_for_another_host_and_up_again(
    sim: Sim, loaded_nvml: MakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_box(loaded_nvml, tmp_path, monkeypatch)("RTX 3090", "RTX 3090")
    host.declare(
        *(capped(card, 300, reason="efficiency", slot=f"slot{n}") for n, card in enumerate(host.gpus.cards))
    )
    host.apply()
    monkeypatch.setattr(FakeRemote, "_answer", real_caps(host))
    serves_while_both_are_on(sim)
    sim.run(60.0)
    watts_now = host.watts()
    assert max(watts_now) < 300 and dict(sim.observer.host("gpu1").caps_w) == caps_of(sim)
    host.gpus.set(0, power_limit_mw=350_000)  # its driver was loaded anew, so its unit ran
    host.apply()
    assert host.watts() == watts_now
    sim.world.machines["gpu2"].busy.clear()
    sim.until("gpu2", Mode.ASLEEP)
    assert sim.run(60.0, lambda: host.watts() == [300, 300])
    assert sim.observer.host("gpu1").caps_w in ({}, DECLARED)


# --- one host, line by line ---


class Told:
    """A host that talks; each line comes ten seconds after the last."""

    def __init__(self) -> None:
        self.fold, self.mono = Fold("gpu1", 10.0, 10.0, watched=1000.0), 1000.0

    @property
    def now(self) -> Moment:
        return Moment(1_800_000_000.0 + self.mono, self.mono)

    def line(self, n: int, resumes: int = 0, **caps_w: int) -> dict[str, int]:
        self.mono += 10.0
        readings = (Reading("load", False, ""),)
        told = {"caps_w": caps_w, "caps_n": n} if n >= 0 else {}
        report = Report(self.mono, "boot", resumes, self.mono, readings, watch="a", **told)  # type: ignore[arg-type]
        self.fold.heard(report, self.now)
        return self.caps()

    def caps(self) -> dict[str, int]:
        return dict(self.fold.seen(self.now).caps_w)


def test_an_older_line_does_not_undo_what_was_read_back() -> None:
    host = Told()
    assert host.line(1, slot0=150) == {"slot0": 150}
    host.fold.ordered({"slot0": 300}, host.now)
    assert host.line(1, slot0=150) == {"slot0": 300}, "under way"
    host.fold.capped({"slot0": 300}, 2)
    assert host.line(1, slot0=150) == {"slot0": 300}, "said before it was done"
    assert host.line(2) == {}
    host.fold.ordered({"slot0": 150}, host.now)
    assert host.line(2) == {}, "a step down counts when it was read back"
    host.fold.capped({"slot0": 150}, 3)
    assert host.caps() == {"slot0": 150}
    assert host.line(2) == {}
    assert host.line(3, slot0=150) == {"slot0": 150}


def test_what_was_told_before_a_sleep_does_not_count_after_it() -> None:
    host = Told()
    host.line(1, slot0=150)
    assert host.line(1, resumes=1) == {}
    host.line(2, resumes=1, slot0=150)
    assert host.line(-1, resumes=2) == {}, "nor where a host does not tell"
    host.fold.capped({"slot0": 120}, 3)
    assert host.line(-1, resumes=2) == {"slot0": 120}
    assert host.line(-1, resumes=3) == {}


def test_freed_cards_count_as_freed_until_somebody_uses_them() -> None:
    host = Told()
    host.line(0)
    host.line(0)
    host.fold.unloaded()
    assert host.fold.seen(host.now).unloaded
    host.mono += 10.0
    busy = Report(host.mono, "boot", 0, host.mono, (Reading("gpu", True, "it computes"),), watch="a")
    host.fold.heard(busy, host.now)
    host.line(0)
    assert not host.fold.seen(host.now).unloaded, "they are to be freed again"
