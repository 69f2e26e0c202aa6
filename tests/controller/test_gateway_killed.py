"""A gateway that is killed or frozen while it serves: its host sleeps when its leases are over, not before.

The gateway is a process of its own with the real books; its clock is the controller's, which is told to it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lying_rack import Sim, wrongs

from labctl.controller.beats import LAPSE_S
from labctl.domain.sleep.lifecycle import Mode
from labctl.gateway.books.books import BEAT_S

PATIENCE_S = 60
STEP_S = 5.0
PROGRAM = """
import asyncio, sys
from labctl.adapters.store import open_store
from labctl.domain.budget import Rack
from labctl.domain.gateway.table import Host, Table
from labctl.gateway.books import Around, StoreBooks

async def main(path, now):
    table = Table("desk", "", 0, (), (), (), (Host("gpu1", True, True, 60.0),), Rack(()))
    clock = [now]
    around = Around(lambda: open_store(path, create=False), "gateway", lambda: clock[0], lambda: clock[0])
    books = StoreBooks(table, around)
    await books.start()
    loop = asyncio.get_running_loop()
    while True:
        do, *words = (await loop.run_in_executor(None, sys.stdin.readline)).split()
        if do == "at":
            clock[0] = float(words[0])
            began = clock[0]
            books.tick()
            while books.world.at < began:
                await asyncio.sleep(0.001)
            said = books.world.hosts["gpu1"].mode
        elif do == "later":
            clock[0] = said = float(words[0])
        elif do == "lease":
            refused = await books.lease("gpu1")
            said = "in" if refused is None else refused.mode
        elif do == "enter":
            said = books.enter("gpu1")
        elif do == "leave":
            said = books.leave("gpu1")
        print(said, flush=True)

asyncio.run(main(sys.argv[1], float(sys.argv[2])))
"""


@dataclass
class Gateway:
    """A gateway's process, and the rack that it lives in."""

    process: subprocess.Popen[str]
    sim: Sim

    def say(self, words: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{words}\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline().strip()
        assert said, "the gateway has ended"
        return said

    def step(self) -> str:
        """Let time pass for both; return the mode that the gateway sees."""
        self.sim.step(STEP_S)
        return self.say(f"at {self.sim.world.wall}")


@pytest.fixture
def gateway(rack: Callable[..., Sim], tmp_path: Path) -> Iterator[Gateway]:
    sim = rack(min_up_s=10.0)
    sim.until("gpu1", Mode.READY)
    argv = [sys.executable, "-c", PROGRAM, str(tmp_path / "store.db"), str(sim.world.wall)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Gateway(process, sim)
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


def until_asleep(sim: Sim) -> float:
    """Let time pass for the controller alone; return after how long the order was given."""
    began = sim.world.mono
    while sim.mode("gpu1") in (Mode.READY, Mode.DRAINING):
        sim.step(STEP_S)
        assert sim.world.mono - began < 600
    ordered = sim.world.mono - began
    sim.until("gpu1", Mode.ASLEEP)
    return ordered


def test_a_host_never_sleeps_under_a_request_and_does_after_it(gateway: Gateway) -> None:
    assert gateway.say("lease") == "in"
    for _ in range(60):
        assert gateway.step() == Mode.READY  # it is idle by all other signs
    assert gateway.say("leave")
    for _ in range(60):
        if gateway.step() == Mode.ASLEEP:
            break
    assert gateway.say("enter") == "False"
    assert gateway.say("lease") == Mode.ASLEEP
    assert wrongs(gateway.sim) == []


def test_after_kill_9_the_host_sleeps_only_when_the_leases_are_over(gateway: Gateway) -> None:
    assert gateway.say("lease") == "in"
    for _ in range(20):
        gateway.step()
    gateway.process.kill()
    gateway.process.wait(PATIENCE_S)
    ordered = until_asleep(gateway.sim)
    assert ordered >= LAPSE_S - BEAT_S
    texts = [one.text for one in gateway.sim.doors.store.happenings(most=1000)]
    assert "gateway is dead: 1 of its leases ended" in texts
    assert wrongs(gateway.sim) == []


def test_a_gateway_that_was_frozen_meanwhile_lets_nobody_in_to_a_host_that_sleeps(gateway: Gateway) -> None:
    assert gateway.say("lease") == "in"
    gateway.step()
    gateway.process.send_signal(signal.SIGSTOP)
    assert until_asleep(gateway.sim) >= LAPSE_S - BEAT_S
    gateway.process.send_signal(signal.SIGCONT)
    # What came meanwhile is read before any timer runs.
    assert gateway.say(f"later {gateway.sim.world.wall}")
    assert gateway.say("enter") == "False"
    assert gateway.say(f"at {gateway.sim.world.wall}") == Mode.ASLEEP
    assert gateway.say("enter") == "False"
    assert gateway.say("lease") == Mode.ASLEEP
    assert wrongs(gateway.sim) == []
