"""Any life of a rack: whatever people, gateways, hosts and clocks do, in any order, nobody's work is hurt.

The store and the tick are the real ones; the world and its clock are not. At the end of each life everything
is cured and everybody wished awake: then nobody may be stuck.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from lying_rack import Nature, Sim, doors_of, host_policy, policy_of, sim_of, world_of, wrongs

from labctl.adapters.store import open_store
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.terms import Wish
from labctl.ports.store import Lease

HOSTS = ("nas", "gpu1", "gpu2")
POLICY = policy_of(
    host_policy("nas", quiet_s=60.0, min_up_s=0.0),
    host_policy("gpu1", quiet_s=60.0, min_up_s=0.0, depends_on=("nas",)),
    host_policy("gpu2", quiet_s=60.0, min_up_s=0.0, can_cut=True),
)
host = st.sampled_from(HOSTS)


class AnyLife(RuleBasedStateMachine):
    """Everything that can happen to a rack."""

    @initialize()
    def begin(self) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.world = world_of(POLICY)
        self.sim = sim_of(Path(self.place.name), POLICY, self.world)
        self.lives = 1
        self.leases: list[Lease] = []
        self.sim.doors.store.register("gw", "gateway", now=self.world.wall)
        self.sim.gateways = {"gw"}
        self.sim.run(60)

    # -- time, and the controller

    @rule(ticks=st.integers(1, 15))
    def ticks_pass(self, ticks: int) -> None:
        for _ in range(ticks):
            self.sim.step()

    @rule()
    def the_controller_is_killed_and_started(self) -> None:
        self.lives += 1
        before = self.sim
        before.doors.store.close()
        store = open_store(Path(self.place.name) / "store.db", create=False)
        self.sim = Sim(self.world, POLICY, doors_of(self.world, store), f"life {self.lives}")
        self.sim.gateways = before.gateways

    @rule(seconds=st.integers(11, 120))
    def the_controller_is_frozen(self, seconds: int) -> None:
        self.world.advance(seconds)
        self.sim.tick(look=False)

    @rule(hours=st.sampled_from([-1, 1]))
    def the_clock_jumps(self, hours: int) -> None:
        self.world.jump(3600 * hours)

    # -- people and gateways

    @rule(name=host, sleep=st.booleans(), force=st.booleans())
    def somebody_wishes(self, name: str, sleep: bool, force: bool) -> None:
        now = self.world.wall
        wish = Wish(0, name, "anna", "a wish", now, now + 600, sleep=sleep, force=force and sleep)
        self.world.machines[name].forced |= wish.force
        self.sim.doors.store.wish(wish, now=now)

    @rule(name=host)
    def somebody_holds(self, name: str) -> None:
        now = self.world.wall
        self.sim.doors.store.hold(name, "a demo", "bob", until=now + 300, now=now)

    @rule(name=host, pause=st.booleans())
    def somebody_pauses(self, name: str, pause: bool) -> None:
        store, now = self.sim.doors.store, self.world.wall
        store.pause(name, "repairs", "bob", now=now) if pause else store.resume(name, "bob", now=now)

    @rule(name=host)
    def a_request_comes(self, name: str) -> None:
        if "gw" in self.sim.gateways:
            lease = self.sim.doors.store.take_lease("gw", name, now=self.world.wall)
            if isinstance(lease, Lease):
                self.leases.append(lease)

    @rule()
    def requests_end(self) -> None:
        for lease in self.leases:
            self.sim.doors.store.release(lease, now=self.world.wall)
        self.leases.clear()

    # -- hosts

    @rule(name=host, busy=st.booleans())
    def somebody_logs_in_or_out(self, name: str, busy: bool) -> None:
        machine = self.world.machines[name]
        if busy and machine.on and machine.going is None:
            machine.busy["sessions"] = "carol is logged in"
        elif not busy:
            machine.busy.clear()

    @rule(name=host)
    def it_wakes_by_itself(self, name: str) -> None:
        self.world.comes(self.world.machines[name])

    @rule(name=host, what=st.sampled_from(["stays", "mute", "deaf", "old_agent", "other_key", "hangs"]))
    def it_becomes_strange(self, name: str, what: str) -> None:
        nature = self.world.machines[name].nature
        setattr(nature, what, not getattr(nature, what))

    @rule(name=host, mends=st.sampled_from(["restart-engines", "reboot"]))
    def it_breaks(self, name: str, mends: str) -> None:
        nature = self.world.machines[name].nature
        nature.gates, nature.mends = [("card 0 is gone",)], mends

    # -- what must hold

    @invariant()
    def nobody_is_hurt(self) -> None:
        assert wrongs(self.sim) == []

    @invariant()
    def who_holds_a_lease_has_a_host_that_runs(self) -> None:
        for lease in self.leases:
            row, machine = self.sim.row(lease.host), self.world.machines[lease.host]
            # A reboot by the ladder waits for leases, so whatever ended it was not us.
            assert machine.on or not row.claims.leases, f"{lease.host} is {machine.power} under a lease"

    def teardown(self) -> None:
        if not hasattr(self, "sim"):
            return
        try:
            self._ends_well()
        finally:
            self.sim.doors.store.close()
            self.place.cleanup()

    def _ends_well(self) -> None:
        self.requests_end()
        store = self.sim.doors.store
        for name, machine in self.world.machines.items():
            machine.nature, machine.order = Nature(), None
            machine.busy.clear()
            store.resume(name, "bob", now=self.world.wall)
            now = self.world.wall
            store.wish(Wish(0, name, "anna", "the end", now, now + 1e5), now=now)
            # The wish ends when it comes true; whoever is first must not be asleep again before the last.
            store.hold(name, "the end", "bob", until=now + 1e5, now=now)
        came = self.sim.run(2500, lambda: all(self.sim.mode(name) is Mode.READY for name in HOSTS))
        rows = [self.sim.row(name) for name in HOSTS]
        assert came, [(row.name, row.mode, row.because) for row in rows]
        assert store.unfinished() == []
        assert wrongs(self.sim) == []


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
