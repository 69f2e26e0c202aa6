"""A rack that lies, in one process and on a clock of its own: what the controller does is done to this.

``World`` is plain data and its rules, so it can be copied at any moment. ``doors_of`` gives the controller
ports over it, ``Sim`` a whole controller that is driven tick by tick. Hosts boot in their own time, lose
packets, acknowledge and stay awake, sleep without a word, wake by themselves, lose their card, hang, have an
old agent or another key, and fail at the gate. Whatever a host does to somebody's work is noted as a
*wrong* the moment that it happens.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labctl.adapters.power.cycle import Pace, cycle
from labctl.adapters.store import open_store
from labctl.controller.board import Board
from labctl.controller.doors import Doors, Timekeeper
from labctl.controller.fold import Fold
from labctl.controller.leader import Leader
from labctl.controller.ledger import Ledger
from labctl.controller.loop import EXPECTED, Loop
from labctl.controller.means import Means
from labctl.controller.service import Service
from labctl.domain.budget import Rack
from labctl.domain.failures import Failure, HostError
from labctl.domain.sleep.lifecycle import ADMITS, Mode
from labctl.domain.sleep.terms import (
    Fingerprint,
    HostPolicy,
    How,
    KnownHost,
    Moment,
    OrderWord,
    Policy,
    Proof,
    Reading,
    Report,
    Said,
    Seen,
    SeenHost,
    Sign,
)
from labctl.ports import Said as Spoken
from labctl.ports.power import Power, PowerError
from labctl.ports.store import Store, StoreError

START = 1_800_000_000.0
WITHIN_S = 5.0
KERNEL = "6.1.0-25-amd64"


@dataclass
class Nature:
    """What a host is like; ``loses``: the share of packets that it does not hear."""

    boot_s: float = 30.0
    resume_s: float = 5.0
    dark_s: float = 3.0
    loses: float = 0.0
    stays: bool = False  # acknowledges, and does not sleep
    mute: bool = False  # sleeps without acknowledging
    deaf: bool = False  # lost its card: hears no packet
    old_agent: bool = False
    other_key: bool = False
    hangs: bool = False  # its sshd accepts and says nothing
    meter: bool = False
    refuses: str = ""
    memory_fails: tuple[str, ...] = ()  # ways to sleep to memory at which it stays awake
    gates: list[tuple[str, ...]] = field(default_factory=list)  # what the next gates find broken
    mends: str = ""  # the step that mends it for good; empty: each gate counts down


@dataclass
class Machine:
    """A host as it really is."""

    name: str
    nature: Nature = field(default_factory=Nature)
    power: str = "on"  # on, asleep, off, coming (it boots or resumes until ``until``)
    until: float = 0.0
    boot: int = 1
    resumes: int = 0
    up_at: float = 0.0
    cold: bool = False
    busy: dict[str, str] = field(default_factory=dict)
    order: OrderWord | None = None
    ready: tuple[str, float] | None = None  # nonce and when it was said
    going: float | None = None  # when it goes dark
    gated: bool = False  # passed the gate since it came up
    caps_w: dict[str, int] = field(default_factory=dict)  # of cards that stepped down
    caps_n: int = 0
    drops_steps: str = ""  # "before" or "after" a step is made the connection ends
    packets: int = 0
    gates: int = 0
    steps: list[str] = field(default_factory=list)
    darks: int = 0
    forced: bool = False  # somebody said that what runs there does not matter

    @property
    def on(self) -> bool:
        """Whether it runs."""
        return self.power == "on"

    def step(self, caps_w: dict[str, int]) -> None:
        """Have other cards stepped down."""
        self.caps_n, self.caps_w = self.caps_n + (caps_w != self.caps_w), caps_w

    @property
    def boot_id(self) -> str:
        """The id of its boot."""
        return f"{self.boot:08x}-0000-4000-8000-{zlib.crc32(self.name.encode()):012x}"


@dataclass
class World:
    """All hosts and the time; ``wrongs`` are what must never have happened."""

    machines: dict[str, Machine]
    seed: int = 1
    mono: float = 1000.0
    wall: float = START
    wrongs: list[str] = field(default_factory=list)
    wakes: list[tuple[float, str]] = field(default_factory=list)
    orders: list[tuple[float, str]] = field(default_factory=list)
    cuts: list[tuple[float, str]] = field(default_factory=list)
    late: list[str] = field(default_factory=list)  # who was told to go when it was too late
    serial: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    # -- time

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.mono += seconds
        self.wall += seconds
        for machine in self.machines.values():
            self._age(machine)

    def jump(self, seconds: float) -> None:
        """Set the wall clock."""
        self.wall += seconds

    def _age(self, machine: Machine) -> None:
        if machine.going is not None and self.mono >= machine.going:
            machine.going = None
            if machine.on:
                self.darken(machine, "asleep")
        if machine.power == "coming" and self.mono >= machine.until:
            machine.power, machine.up_at, machine.gated = "on", machine.until, False
            if machine.cold:
                machine.boot, machine.resumes, machine.order = machine.boot + 1, 0, None
            else:
                machine.resumes += 1

    # -- what happens to hosts

    def darken(self, machine: Machine, power: str) -> None:
        """Have it go dark; whoever works on it is hurt."""
        if machine.busy and not machine.forced:
            self.wrongs.append(f"{machine.name} went {power} while {machine.busy}")
        machine.power, machine.darks, machine.gated = power, machine.darks + 1, False
        machine.step({})

    def comes(self, machine: Machine) -> None:
        """Have it wake or boot, unless it runs already."""
        if machine.power in ("asleep", "off"):
            machine.cold = machine.power == "off"
            machine.power = "coming"
            machine.until = self.mono + (machine.nature.boot_s if machine.cold else machine.nature.resume_s)

    def word(self) -> str:
        """Return a new nonce."""
        self.serial += 1
        return f"{self.serial:032x}"


# --- ports over it ----------------------------------------------------------------------------------------


@dataclass
class FakeClock:
    world: World

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.world.wall, UTC)

    def monotonic(self) -> float:
        return self.world.mono


def _silent(host: str) -> HostError:
    return HostError(Failure("timeout", f"{host} did not answer", unreachable=True))


@dataclass
class FakeTalker:
    world: World
    store: Store | None = None

    def talk(self, host: str, data: Mapping[str, Any], argv: Sequence[str], *, root: bool) -> FakeTalk:
        assert list(argv[1:]) == ["suspend"] and not root
        machine = self.world.machines[host]
        if not machine.on or machine.nature.hangs or machine.nature.other_key:
            raise _silent(host)
        return FakeTalk(self.world, machine, self.store)

    def stop(self) -> None: ...


class FakeTalk:
    """The suspend conversation of a host, as the agent holds it."""

    peer = "192.0.2.1"

    def __init__(self, world: World, machine: Machine, store: Store | None) -> None:
        self.world, self.machine, self.store = world, machine, store
        self.said: list[bytes] = []
        self.how = How.SUSPEND
        self.closed = False

    def send(self, data: bytes) -> None:
        if self.closed or not self.machine.on:
            raise HostError(Failure("connection-lost", "the connection ended"))
        order = json.loads(data)
        if "go" in order:
            self._go(order["go"])
            return
        self.how, machine = How(order["how"]), self.machine
        assert set(order) - {"mem_sleep"} == {"how", "rtc_at", "force", "lasts_s"}, order
        stays = order.get("mem_sleep", "deep") in machine.nature.memory_fails and self.how is How.SUSPEND
        machine.nature.stays = stays or (machine.nature.stays and not machine.nature.memory_fails)
        if machine.nature.old_agent:
            raise HostError(Failure("op-failed", "labctl-agent: refused"))
        why = machine.nature.refuses or (not order["force"] and "; ".join(machine.busy.values()))
        if why:
            self._say({"refused": why})
            return
        machine.ready = (self.world.word(), self.world.mono)
        self._say({"ready": True, "nonce": machine.ready[0], "within_s": WITHIN_S})

    def _go(self, nonce: str) -> None:
        world, machine = self.world, self.machine
        ready, machine.ready = machine.ready, None
        if ready is None or ready[0] != nonce or world.mono - ready[1] > WITHIN_S:
            world.late.append(machine.name)
            self._say({"refused": "too late"})
            return
        world.orders.append((world.mono, machine.name))
        if self.how is How.UNLOAD:
            self._say({"going": nonce})
            return
        self._look_at_the_store(nonce)
        machine.order = OrderWord(nonce, Said.GOING)
        if machine.nature.stays:
            machine.order = OrderWord(nonce, Said.FAILED, "systemctl suspend failed")
        else:
            machine.going = world.mono + machine.nature.dark_s
        if not machine.nature.mute:
            self._say({"going": nonce})

    def _look_at_the_store(self, nonce: str) -> None:
        """Note it as a wrong when the order reaches a host that somebody has been promised."""
        if self.store is None:
            return
        row = self.store.known(now=self.world.wall).hosts[self.machine.name]
        if row.mode is not Mode.SUSPENDING or row.order is None or row.order.nonce != nonce:
            self.world.wrongs.append(f"{row.name} was told to go while {row.mode}")
        if row.claims.leases:
            self.world.wrongs.append(f"{row.name} was told to go under {row.claims}")

    def _say(self, word: Mapping[str, Any]) -> None:
        self.said.append(json.dumps(word).encode())

    def lines(self) -> Iterator[bytes]:
        while self.said:
            yield self.said.pop(0)
        raise HostError(Failure("connection-lost", "the connection ended"))

    def finish(self) -> None: ...

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeRemote:
    world: World

    def run(
        self,
        host: str,
        data: Mapping[str, Any],
        argv: Sequence[str],
        *,
        root: bool,
        stdin: bytes,
        deadline_s: float,
    ) -> Spoken:
        machine, verb = self.world.machines[host], list(argv[1:])
        if not machine.on or machine.nature.hangs or machine.nature.other_key:
            raise _silent(host)
        if machine.nature.old_agent:
            return Spoken(126, b"", "labctl-agent: refused: this key may ask for: report, version", 0.1)
        answer = self._answer(machine, verb, json.loads(stdin))
        return Spoken(0, json.dumps(answer).encode() + b"\n", "", 0.1)

    def _answer(self, machine: Machine, verb: list[str], order: Mapping[str, Any]) -> Mapping[str, Any]:
        nature = machine.nature
        if verb == ["gate"]:
            machine.gates += 1
            broken = list(nature.gates[0]) if nature.gates else []
            if nature.gates and not nature.mends:
                nature.gates.pop(0)
            machine.gated = not broken
            machine.step({})
            return {"broken": broken, "notes": [], "caps": None}
        if verb[0] == "mend":
            step = {"--engines": "restart-engines", "--driver": "reload-driver", "--reboot": "reboot"}[
                verb[1]
            ]
            self.step(machine, step)
            return {"done": step}
        assert verb == ["caps", "--step"], verb
        if machine.drops_steps == "before":
            raise _silent(machine.name)
        machine.step({**machine.caps_w, **order["caps_w"]})
        if machine.drops_steps == "after":
            raise _silent(machine.name)
        return {"caps_w": machine.caps_w, "caps_n": machine.caps_n}

    def step(self, machine: Machine, step: str) -> None:
        """Take a step of the ladder on a host."""
        machine.steps.append(step)
        if step == machine.nature.mends:
            machine.nature.gates.clear()
        if step in ("reboot", "cold-cycle"):
            self.world.darken(machine, "off")
        if step == "reboot":
            self.world.comes(machine)

    def stop(self) -> None: ...


@dataclass
class FakeLooks:
    world: World

    def signs(self, host: str, *, deadline_s: float = 1.0) -> Mapping[str, Sign]:
        machine = self.world.machines[host]
        here = Sign.ON if machine.on else Sign.DARK
        signs = {"ssh": here, "ping": here, "arp": Sign.UNCLEAR if machine.on else Sign.DARK}
        if machine.nature.meter:
            signs["power"] = Sign.DARK if machine.power == "off" else Sign.ON
            if machine.power in ("asleep", "coming"):
                signs["power"] = Sign.UNCLEAR
        return signs


@dataclass
class FakeSwitch:
    world: World
    machine: Machine
    kind: str = "fake"
    can_cut: bool = True
    has_meter: bool = False
    fails: bool = False

    def wake(self) -> None:
        world, machine = self.world, self.machine
        if self.fails:
            raise PowerError("timeout", "it does not answer", transient=True)
        world.wakes.append((world.mono, machine.name))
        machine.packets += 1
        if machine.nature.deaf or world.rng.random() < machine.nature.loses:
            return
        world.comes(machine)

    def power(self) -> Power:
        return "unclear"

    def cut(self) -> None:
        world, machine = self.world, self.machine
        world.cuts.append((world.mono, machine.name))
        FakeRemote(world).step(machine, "cold-cycle")
        machine.nature.hangs = False


def doors_of(world: World, store: Store) -> Doors:
    """Return the controller's ports over a world."""
    pace = Pace(wait=world.advance, now=lambda: world.mono)
    return Doors(
        store=store,
        talker=FakeTalker(world, store),
        remote=FakeRemote(world),
        looks=FakeLooks(world),
        switches={name: FakeSwitch(world, machine) for name, machine in world.machines.items()},
        clock=FakeClock(world),
        data={name: {} for name in world.machines},
        rest=world.advance,
        cycle=lambda switch, verdict: cycle(switch, verdict, pace).because,
    )


# --- a controller over it -----------------------------------------------------------------------------------


class FakeObserver:
    """Sees each host as it is right now, by the controller's own folding."""

    def __init__(self, world: World, tick_s: float) -> None:
        self.world, self.tick_s = world, tick_s
        self.folds: dict[str, Fold] = {}
        self.blind: set[str] = set()
        self.fresh: tuple[float, Seen] | None = None
        self.times = Timekeeper(FakeClock(world), 0.0)
        self.ended: set[str] = set()

    def start(self) -> None:
        now = self.world.mono
        self.folds = {name: Fold(name, self.tick_s, self.tick_s, now) for name in self.world.machines}

    def stop(self) -> None:
        self.folds = {}

    def look(self) -> None:
        """See all hosts; without this, what was seen only grows older."""
        now = self.times.moment()
        for name, fold in self.folds.items():
            if name not in self.blind:
                self._look(fold, self.world.machines[name], now)
        self.fresh = (now.mono, Seen({name: fold.seen(now) for name, fold in self.folds.items()}))

    def _look(self, fold: Fold, machine: Machine, now: Moment) -> None:
        nature = machine.nature
        if not machine.on or nature.hangs:
            if fold.opened or fold.name not in self.ended:  # a channel ends once
                fold.ended("it does not answer", now)
                self.ended.add(fold.name)
            signs = FakeLooks(self.world).signs(machine.name)
            fold.looked({**signs, "ssh": Sign.UNCLEAR} if nature.hangs and machine.on else signs, now)
        elif nature.other_key:
            fold.ended("it does not prove its host key", now)
            fold.looked(FakeLooks(self.world).signs(machine.name), now)
        elif nature.old_agent:
            fold.looked(FakeLooks(self.world).signs(machine.name), now)
            fold.ended("its agent is of another version", now, old_agent=True)
        else:
            fold.heard(report_of(machine, now.mono), now)

    def seen(self) -> Seen:
        now = self.times.moment()
        if self.fresh is not None and self.fresh[0] == now.mono and self.fresh[1].hosts:
            return self.fresh[1]
        return Seen({name: fold.seen(now) for name, fold in self.folds.items()})

    def host(self, name: str) -> SeenHost:
        if name not in self.blind:
            self._look(self.folds[name], self.world.machines[name], self.times.moment())
        return self.folds[name].seen(self.times.moment())

    def pace(self, quick: Collection[str]) -> None: ...

    def ordered(self, host: str, caps_w: Mapping[str, int]) -> None:
        self.folds[host].ordered(caps_w, self.times.moment())

    def capped(self, host: str, caps_w: Mapping[str, int], n: int = 0) -> None:
        self.folds[host].capped(caps_w, n)

    def unloaded(self, host: str) -> None:
        self.folds[host].unloaded()


def report_of(machine: Machine, at: float) -> Report:
    """Return what the host says of itself."""
    readings = [Reading(signal, True, why) for signal, why in machine.busy.items()]
    return Report(
        at=at,
        boot_id=machine.boot_id,
        resumes=machine.resumes,
        up_s=max(0.0, at - machine.up_at),
        readings=(*readings, Reading("load", False, "the processors rest")),
        order=machine.order,
        fingerprint=fingerprint(),
        wol_armed=True,
        watch=f"{machine.boot}-{machine.resumes}",
        mem_sleeps=("s2idle", "deep"),
        caps_w=dict(machine.caps_w),
        caps_n=machine.caps_n,
    )


def fingerprint(kernel: str = KERNEL) -> Fingerprint:
    return Fingerprint(kernel, "580.95.05", "02:00:00:00:00:01 r8169 1", How.SUSPEND, "deep")


class Inline:
    """Runs acts one after the other, when it is told to."""

    def __init__(self) -> None:
        self.queue: list[tuple[str, str, Callable[[], None]]] = []
        self.failed: list[tuple[str, BaseException]] = []

    def free(self, host: str) -> bool:
        return all(name != host for name, _, _ in self.queue)

    def start(self, host: str, what: str, act: Callable[[], None]) -> None:
        self.queue.append((host, what, act))

    def doing(self) -> Mapping[str, str]:
        return {name: what for name, what, _ in self.queue}

    def flush(self) -> int:
        """Run what is queued; return how many that were."""
        queue, self.queue = self.queue, []
        for host, _, act in queue:
            try:
                act()
            except EXPECTED as error:
                self.failed.append((host, error))
        return len(queue)


class Sim:
    """One controller over a world; ``name`` tells it from others on the same store."""

    def __init__(self, world: World, policy: Policy, doors: Doors, name: str = "one") -> None:
        self.world, self.policy, self.doors = world, policy, doors
        self.board, self.hands = Board(), Inline()
        self.leader = Leader(doors, name, policy.tick_s)
        self.observer = FakeObserver(world, policy.tick_s)
        self.means = Means(
            doors=doors,
            policy=policy,
            leader=self.leader,
            ledger=Ledger(doors, self.leader),
            observer=self.observer,
            times=Timekeeper(doors.clock, policy.tick_s),
        )
        self.loop = Loop(self.means, self.hands, self.board)
        self.service = Service(self.means, self.board, self.hands, self.loop.nudge)
        self.gateways: set[str] = set()

    def tick(self, *, look: bool = True) -> None:
        """Beat, see, tick, and do what was decided."""
        with suppress(StoreError):
            self.leader.beat()
            for gateway in self.gateways:
                self.doors.store.beat(gateway, now=self.world.wall)
        if look:
            self.observer.look()
        self.loop.tick()
        self.hands.flush()

    def step(self, seconds: float | None = None) -> None:
        """Let time pass as the loop would, and tick."""
        self.world.advance(self.loop.pause_s() if seconds is None else seconds)
        self.tick()

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Tick for so long, or until something is true; return whether it became true."""
        end = self.world.mono + seconds
        while self.world.mono < end:
            self.step()
            if until is not None and until():
                return True
        return until is None

    def row(self, host: str) -> KnownHost:
        return self.doors.store.known(now=self.world.wall).hosts[host]

    def mode(self, host: str) -> Mode:
        return self.row(host).mode

    def until(self, host: str, mode: Mode, seconds: float = 900.0) -> None:
        """Tick until a host is in a mode; fail when it is not in so many seconds."""
        reached = self.run(seconds, lambda: self.mode(host) is mode)
        row = self.row(host)
        assert reached, f"{host} is {row.mode} after {seconds} s: {row.because}"


def host_policy(name: str, **changes: Any) -> HostPolicy:
    usual = HostPolicy(
        name, wakeable=True, sleeps=True, quiet_s=300.0, min_up_s=60.0, boot_s=60.0, can_cut=False
    )
    return replace(usual, **changes)


def policy_of(*hosts: HostPolicy, tick_s: float = 10.0, watts: Rack | None = None) -> Policy:
    return Policy({host.name: host for host in hosts}, watts or Rack(()), tick_s=tick_s)


def world_of(policy: Policy, seed: int = 1, **natures: Nature) -> World:
    return World(
        {name: Machine(name, natures.get(name.replace("-", "_"), Nature())) for name in policy.hosts},
        seed=seed,
    )


def proven(store: Store, hosts: Collection[str], now: float) -> None:
    """Have hosts that have shown that they come back."""
    for host in hosts:
        store.note_proof(host, Proof(fingerprint(), now, 3, 10.0, 20.0), "passed", now=now)


def sim_of(folder: Path, policy: Policy, world: World, *, armed: bool = True) -> Sim:
    """Return a controller over a new store, with all hosts proven."""
    store = open_store(folder / "store.db", create=True)
    store.enlist(policy.hosts, now=world.wall)
    if armed:
        proven(store, policy.hosts, world.wall)
    return Sim(world, policy, doors_of(world, store))


def wrongs(sim: Sim) -> list[str]:
    """Return all that must not be: what the world noted, and what the store promises and is not true."""
    found = list(sim.world.wrongs)
    for row in sim.doors.store.known(now=sim.world.wall).hosts.values():
        machine = sim.world.machines[row.name]
        if row.claims.leases and not machine.on and row.mode is not Mode.UNKNOWN and row.mode not in ADMITS:
            found.append(f"{row.name} is {machine.power} and {row.mode} with {row.claims.leases} leases")
    return found
