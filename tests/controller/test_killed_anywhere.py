"""kill -9 at every numbered effect, then a restart: no host off with a lease, none stuck, modes true.

One life of a controller is run, and before each of its effects the world and the store's file are copied:
that is exactly what a kill at that point leaves behind. Then every copy gets a new controller. A step of the
ladder that was written down and then not taken counts as taken, so such a host may end with a person.
"""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from effects import Counter, counted
from lying_rack import (
    Nature,
    Policy,
    Sim,
    World,
    doors_of,
    host_policy,
    policy_of,
    proven,
    world_of,
    wrongs,
)

from labctl.adapters.store import open_store
from labctl.domain.sleep.lifecycle import ADMITS, Mode
from labctl.domain.sleep.terms import Wish

ASLEEP_OK = {"asleep", "off", "coming"}


@dataclass
class Left:
    """What a kill left behind."""

    number: int
    effect: str
    folder: Path
    world: World


def copied(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    for name in ("store.db", "store.db-wal"):
        if (source / name).exists():
            shutil.copy(source / name, target / name)


def a_night(sim: Sim) -> None:
    """gpu1 sleeps, is wanted, wakes; gpu2 serves a request all the while."""
    sim.until("gpu1", Mode.READY)
    sim.until("gpu2", Mode.READY)
    sim.doors.store.register("gw", "gateway", now=sim.world.wall)
    sim.gateways.add("gw")
    sim.doors.store.take_lease("gw", "gpu2", now=sim.world.wall)
    sim.until("gpu1", Mode.ASLEEP)
    wished(sim)
    sim.until("gpu1", Mode.READY)


def a_bad_morning(sim: Sim) -> None:
    """gpu1 is wanted, comes up broken, and is mended only by having its power cut."""
    sim.until("gpu1", Mode.READY)
    sim.until("gpu1", Mode.ASLEEP)
    nature = sim.world.machines["gpu1"].nature
    nature.gates, nature.mends = [("card 0 is gone",)], "cold-cycle"
    wished(sim)
    sim.until("gpu1", Mode.READY, 1800)


def wished(sim: Sim) -> None:
    now = sim.world.wall
    sim.doors.store.wish(Wish(0, "gpu1", "anna", "a fine-tune", now, now + 14400), now=now)


LIVES: dict[str, tuple[Policy, Callable[[Sim], None]]] = {
    "a night": (policy_of(host_policy("gpu1", quiet_s=60), host_policy("gpu2", quiet_s=60)), a_night),
    "a bad morning": (
        policy_of(host_policy("gpu1", quiet_s=60, can_cut=True, may_reload=False)),
        a_bad_morning,
    ),
}


def lived(folder: Path, name: str) -> list[Left]:
    """Run a life, and return what a kill before each of its effects would have left behind."""
    policy, life = LIVES[name]
    (folder / "one").mkdir(mode=0o700)
    world, left = world_of(policy), []
    store = open_store(folder / "one" / "store.db", create=True)
    store.enlist(policy.hosts, now=world.wall)
    proven(store, policy.hosts, world.wall)

    def at(number: int, effect: str) -> None:
        if name == "a bad morning" and not world.machines["gpu1"].nature.gates:
            return  # so far it is the other life
        copied(folder / "one", folder / str(number))
        left.append(Left(number, effect, folder / str(number), copy.deepcopy(world)))

    sim = Sim(world, policy, counted(doors_of(world, store), Counter(at)))
    life(sim)
    assert not wrongs(sim)
    store.close()
    return left


def judged(left: Left, policy: Policy) -> list[str]:
    """Start a new controller on what was left; return what went wrong."""
    store = open_store(left.folder / "store.db", create=False)
    sim = Sim(left.world, policy, doors_of(left.world, store), "two")
    sim.gateways = {one.name for one in store.instances()}
    found: list[str] = []
    if not sim.run(60, sim.leader.leads):
        found.append("it does not take over")
    sim.step()
    sim.step()
    known = store.known(now=sim.world.wall)
    for row in known.hosts.values():
        power = sim.world.machines[row.name].power
        if (row.mode in ADMITS and power != "on") or (row.mode is Mode.ASLEEP and power == "on"):
            found.append(f"{row.name} is {row.mode} and {power} two ticks later")
    wanted = [name for name, row in known.hosts.items() if row.wishes or row.claims.leases]
    if not sim.run(1200, lambda: settled(sim, wanted)):
        found += [f"{name} is stuck {sim.mode(name)}: {sim.row(name).because}" for name in wanted]
    if store.unfinished():
        found.append(f"left open: {[one.action for one in store.unfinished()]}")
    store.close()
    return [f"{left.number} before {left.effect}: {one}" for one in found + wrongs(sim)]


def settled(sim: Sim, wanted: list[str]) -> bool:
    """Return whether everybody who is wanted is ready, everybody else somewhere, and nothing is left open."""
    known = sim.board.picture().known
    calm = all(row.mode in (Mode.READY, Mode.ASLEEP) or row.quarantined for row in known.hosts.values())
    ready = all(
        known.hosts[name].mode is Mode.READY or "cold-cycle" in known.hosts[name].quarantined
        for name in wanted
    )
    return calm and ready and not sim.doors.store.unfinished()


EFFECTS = {
    "a night": {"talk", "send", "run", "wake", "order", "intend suspend", "note_attempt", "move passed"},
    "a bad morning": {"cut", "intend restart-engines", "intend reboot", "intend cold-cycle", "note_repair"},
}


@pytest.mark.parametrize("name", LIVES)
def test_a_kill_before_any_effect_hurts_nobody_and_leaves_nobody_stuck(name: str, tmp_path: Path) -> None:
    policy, left = LIVES[name][0], lived(tmp_path, name)
    assert EFFECTS[name] <= {one.effect for one in left}
    assert [wrong for one in left for wrong in judged(one, policy)] == []


_KILL = signal.SIGKILL


def dies(folder: Path, number: int) -> World:
    """Run a life in a process that kills itself before an effect; return the world as it then was."""
    policy, life = LIVES["a night"]
    folder.mkdir(mode=0o700)
    child = os.fork()
    if child == 0:
        world = world_of(policy)
        store = open_store(folder / "store.db", create=True)
        store.enlist(policy.hosts, now=world.wall)
        proven(store, policy.hosts, world.wall)

        def at(now: int, effect: str) -> None:
            if now == number:
                (folder / "world").write_bytes(pickle.dumps(world))
                os.kill(os.getpid(), _KILL)

        try:
            life(Sim(world, policy, counted(doors_of(world, store), Counter(at))))
        finally:
            sys.stderr.write("it was not killed\n")
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -_KILL
    return pickle.loads((folder / "world").read_bytes())


def test_a_process_that_is_really_killed_leaves_no_more_than_that(tmp_path: Path) -> None:
    policy, _ = LIVES["a night"]
    for number in (5, 17, 29, 37):
        world = dies(tmp_path / str(number), number)
        left = Left(number, "SIGKILL", tmp_path / str(number), world)
        assert judged(left, policy) == []


def test_a_world_that_is_hurt_is_noticed() -> None:
    """The tests above can fail: a host that goes dark under somebody's work is a wrong."""
    policy = policy_of(host_policy("gpu1"))
    world = world_of(policy, gpu1=Nature())
    world.machines["gpu1"].busy["sessions"] = "anna is logged in"
    world.darken(world.machines["gpu1"], "asleep")
    assert world.wrongs
