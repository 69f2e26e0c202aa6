"""Days in the life of a rack, with the real tick and store, and what must hold looked at in each tick.

People come to a host for a while, several times a day; whoever finds it asleep wishes it awake and waits.
Gateways lease hosts that are ready. Hosts lose packets, boot in 5 to 180 s, and some lie now and then. What
is read from the store is kept until something is written, else thirty days would mostly be spent on reading.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lying_rack import Machine, Nature, Sim, World, doors_of, host_policy, policy_of, proven, world_of

from labctl.adapters.store import store_at
from labctl.adapters.store.sqlite import SqliteFile
from labctl.domain.sleep.lifecycle import ADMITS, Mode
from labctl.domain.sleep.terms import Known, Wish
from labctl.ports.store import Instance, Leadership, Lease, Store

DAY_S = 86400.0
TICK_S = 240.0
FLUX_S = 40.0
TRUE_WITHIN_S = 4 * TICK_S
READY_WITHIN_S = 3600.0
_NO_CHANGE = frozenset(
    {"known_host", "leading", "unfinished", "happenings", "close", "intend", "outcome", "happen"}
)


class Kept:
    """A store of which ``known`` is read again only after something was written; its gateway never dies."""

    def __init__(self, store: Store) -> None:
        self._store, self._known, self._beat = store, None, 0
        self._until = 0.0

    def known(self, *, now: float) -> Known:
        """Return what is known; anew when a hold or wish may have ended."""
        if self._known is None or now >= self._until:
            self._known = self._store.known(now=now)
            ends = [one.until for row in self._known.hosts.values() for one in (*row.holds, *row.wishes)]
            self._until = min(ends, default=float("inf"))
        return self._known

    def instances(self) -> Sequence[Instance]:
        """Return the gateway with another beat each time."""
        self._beat += 1
        return [Instance("gw", "gateway", self._beat)]

    def keep_leading(self, leadership: Leadership, *, now: float) -> Leadership:
        """Say that the leader lives; nobody else is there to hear it."""
        return replace(leadership, beat=leadership.beat + 1)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(self._store, name)
        if name in _NO_CHANGE:
            return found

        def write(*args: Any, **named: Any) -> Any:
            self._known = None
            return found(*args, **named)

        return write


class Unflushed(SqliteFile):
    """A file that is not flushed to the disk: nobody takes its power away."""

    def begin(self, *, write: bool, sure: bool) -> dict[str, Any]:
        """Return the options of a transaction that is not flushed."""
        return super().begin(write=write, sure=False)


@dataclass
class Guest:
    """Somebody who works on a host: from when until when, and whether by a lease or logged in."""

    host: str
    begins: float
    lasts: float
    leases: bool
    wished: float | None = None
    lease: Lease | None = None
    ends: float | None = None


@dataclass
class Life:
    """What came of it."""

    days: float
    hosts: int
    seed: int
    ticks: int = 0
    sleeps: int = 0
    served: int = 0
    waited: list[float] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)


class Days:
    """The days themselves."""

    def __init__(self, folder: Path, *, days: float, hosts: int, seed: int) -> None:
        self.life, self.rng = Life(days, hosts, seed), random.Random(seed)
        names = [f"gpu{number}" for number in range(hosts)]
        policy = policy_of(
            *(
                host_policy(name, quiet_s=1800, min_up_s=600, boot_s=180, can_cut=self.rng.random() < 0.3)
                for name in names
            ),
            tick_s=TICK_S,
        )
        self.world: World = world_of(policy, seed, **{name: self._nature() for name in names})
        store = store_at(Unflushed(folder / "store.db"), create=True)
        store.enlist(names, now=self.world.wall)
        proven(store, names, self.world.wall)
        store.register("gw", "gateway", now=self.world.wall)
        self.sim = Sim(self.world, policy, doors_of(self.world, Kept(store)))  # type: ignore[arg-type]
        self.end = self.world.mono + days * DAY_S
        self.coming = [self._guest(name, self.world.mono) for name in names]
        self.false_since: dict[str, float] = {}

    def _nature(self) -> Nature:
        boot, resume = self.rng.uniform(20, 180), self.rng.uniform(5, 60)
        return Nature(boot_s=boot, resume_s=resume, loses=self.rng.choice((0.0, 0.0, 0.3)))

    def _guest(self, host: str, after: float) -> Guest:
        away = self.rng.expovariate(1 / (14 * 3600.0))
        lasts = self.rng.uniform(300, 4 * 3600)
        return Guest(host, after + away, lasts, leases=self.rng.random() < 0.4)

    def run(self) -> Life:
        """Live all of it."""
        while self.world.mono < self.end:
            flux = self.sim.loop.pause_s() < TICK_S
            self.world.advance(FLUX_S if flux else TICK_S)
            self._strange()
            for guest in self.coming:
                self._visit(guest)
            self.sim.tick()
            self.life.ticks += 1
            self._check()
        self.life.sleeps = sum(machine.darks for machine in self.world.machines.values())
        self.life.wrongs += self.world.wrongs
        self.sim.doors.store.close()
        return self.life

    def _strange(self) -> None:
        """Once in a while a host does what it should not; what was strange before is over."""
        if self.rng.random() > 0.002:
            return
        for machine in self.world.machines.values():
            machine.nature.stays = machine.nature.mute = machine.nature.hangs = False
            machine.nature.refuses = ""
        machine = self.rng.choice(list(self.world.machines.values()))
        what = self.rng.choice(("stays", "mute", "refuses", "wakes", "breaks", "jump"))
        if what == "wakes":
            self.world.comes(machine)
        elif what == "breaks":
            machine.nature.gates, machine.nature.mends = [("card 0 is gone",)], "reboot"
        elif what == "jump":
            self.world.jump(self.rng.choice((-3600, 3600)))
        elif what == "refuses":
            machine.nature.refuses = "a download runs"
        else:
            setattr(machine.nature, what, True)

    def _visit(self, guest: Guest) -> None:
        now, machine = self.world.mono, self.world.machines[guest.host]
        if guest.ends is not None:
            if now >= guest.ends:
                self._leaves(guest, machine)
            return
        if now < guest.begins:
            return
        if guest.wished is None:
            guest.wished = now
            wall = self.world.wall
            wish = Wish(0, guest.host, "anna", "work", wall, wall + READY_WITHIN_S)
            self.sim.doors.store.wish(wish, now=wall)
        elif self._enters(guest, machine):
            self.life.waited.append(now - guest.wished)
            guest.ends = now + guest.lasts
        elif now - guest.wished > READY_WITHIN_S:
            row = self.sim.row(guest.host)
            self.life.wrongs.append(f"{guest.host} is {row.mode} an hour after a wish: {row.because}")
            guest.begins, guest.wished = now + DAY_S, None

    def _enters(self, guest: Guest, machine: Machine) -> bool:
        if guest.leases:
            lease = self.sim.doors.store.take_lease("gw", guest.host, now=self.world.wall)
            guest.lease = lease if isinstance(lease, Lease) else None
            return guest.lease is not None
        if machine.on and machine.going is None and self.sim.mode(guest.host) in ADMITS:
            machine.busy["sessions"] = "anna is logged in"
        return bool(machine.busy)

    def _leaves(self, guest: Guest, machine: Machine) -> None:
        machine.busy.clear()
        if guest.lease is not None:
            self.sim.doors.store.release(guest.lease, now=self.world.wall)
        self.life.served += 1
        new = self._guest(guest.host, self.world.mono)
        guest.begins, guest.lasts, guest.leases = new.begins, new.lasts, new.leases
        guest.wished = guest.lease = guest.ends = None

    def _check(self) -> None:
        """What the store says is true, or becomes so within some ticks; who has a lease has a host."""
        known = self.sim.doors.store.known(now=self.world.wall)
        for name, row in known.hosts.items():
            machine = self.world.machines[name]
            if row.claims.leases and not machine.on:
                self.life.wrongs.append(f"{name} is {machine.power} with a lease")
            false = (row.mode in ADMITS) if not machine.on else row.mode is Mode.ASLEEP
            if not false:
                self.false_since.pop(name, None)
            elif self.world.mono - self.false_since.setdefault(name, self.world.mono) > TRUE_WITHIN_S:
                self.life.wrongs.append(f"{name} has been {row.mode} for long, and is {machine.power}")
                self.false_since.pop(name)
