"""A rack that lives: hosts that boot, obey, refuse and hang, cards with real caps, and a store.

The store's rules are those of ``lifecycle``; hosts, packets and people are dice. Whoever walks it looks at
the truth (``Truth``), not at what labctl believes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random

from budget_racks import excess, random_rack
from sleep_cases import RUNS, TICK, WALL, names_something

from labctl.domain.budget import Rack as WattRack
from labctl.domain.budget_states import Phase
from labctl.domain.sleep import idle, ladder, reconcile
from labctl.domain.sleep.actions import Action, GateResult, Mend, Move, SendWake, StepCaps, Suspend, Verify
from labctl.domain.sleep.lifecycle import NEXT, Claims, Event, Mode, may_drain, may_lease, may_order
from labctl.domain.sleep.terms import (
    Attempt,
    HostPolicy,
    Known,
    KnownHost,
    Moment,
    Order,
    Policy,
    Proof,
    Reading,
    Repair,
    Report,
    Seen,
    SeenHost,
    Sign,
    Wish,
)


class BrokenRuleError(AssertionError):
    """Something happened that must never happen."""


@dataclass
class Truth:
    """What a host really does; times are of the world's clock. ``ready_at``: it boots until then."""

    on: bool = True
    ready_at: float = 0.0
    boots: int = 0
    resumes: int = 1
    sleeps_at: float | None = None
    dies_at: float = 0.0
    busy: bool = False
    gating: bool = False
    hangs: bool = False
    idle: bool = False
    caps: dict[str, int] = field(default_factory=dict)


class World:
    """One rack, from a seed; ``watts`` makes them short."""

    def __init__(self, dice: Random, *, watts: bool = True) -> None:
        self.dice, self.at = dice, 0.0
        rack = random_rack(dice)
        self.rack = rack if watts else WattRack(())
        names = [host.name for host in rack.hosts]
        self.policy = Policy(
            {name: self._policy(name, names[:place]) for place, name in enumerate(names)},
            self.rack,
            tick_s=TICK,
        )
        self.truth = {name: Truth(on=False, caps=self._declared(name)) for name in names}
        self.rows = {name: self._row(name) for name in names}
        for name in dice.sample(names, len(names)):
            self._start_awake(name)
        self.leases = dict.fromkeys(names, 0)
        self.before: dict[str, SeenHost] = {}
        self.began = 0.0
        self.ids = 0
        self.done: set[str] = set()
        self.calm = False

    def _policy(self, name: str, earlier: list[str]) -> HostPolicy:
        needs = tuple(self.dice.sample(earlier, 1)) if earlier and self.dice.random() < 0.4 else ()
        relay = self.dice.choice(earlier) if earlier and self.dice.random() < 0.2 else ""
        return HostPolicy(
            name,
            wakeable=True,
            sleeps=self.dice.random() < 0.9,
            quiet_s=self.dice.choice((30.0, 60.0)),
            min_up_s=self.dice.choice((0.0, 30.0)),
            depends_on=needs,
            boot_s=40.0,
            priority=self.dice.randint(0, 2),
            relay=relay,
            can_cut=self.dice.random() < 0.5,
        )

    def _row(self, name: str) -> KnownHost:
        proof = Proof(RUNS, 0.0, 3, 5.0, 20.0)
        return KnownHost(name, Mode.ASLEEP, WALL - 500, boot_id="0", resumes=1, proof=proof)

    def _start_awake(self, name: str) -> None:
        if self.dice.random() < 0.5:
            return
        self.truth[name].on = True
        up = all(self.truth[other].on for other in self.policy.hosts[name].depends_on)
        if self.excess() or not up:
            self.truth[name].on = False
        else:
            mode = self.dice.choice((Mode.READY, Mode.READY, Mode.UNKNOWN))
            self.rows[name] = replace(self.rows[name], mode=mode)

    # -- what is true

    def excess(self) -> str:
        """Return which limit is exceeded now, by an oracle that shares nothing with labctl."""
        phases = {name: self._phase(name) for name in self.truth}
        # Nobody may use a host between its coming to the gate and its passing it: its cards are idle.
        waits = {name for name, truth in self.truth.items() if truth.idle and phases[name] is Phase.AWAKE}
        caps = {
            (name, card): 0 if name in waits else watts
            for name, host in self.truth.items()
            for card, watts in host.caps.items()
        }
        return excess(self.rack, phases, caps) if self.rack.hosts else ""

    def _phase(self, name: str) -> Phase:
        truth = self.truth[name]
        if not truth.on:
            return Phase.ASLEEP
        ramps = (self.at < truth.ready_at and not truth.hangs) or truth.gating
        return Phase.RAMPING if ramps else Phase.AWAKE

    def check(self, what: str) -> None:
        """Look for broken rules.

        Raises:
            BrokenRuleError: there is one.
        """
        if over := self.excess():
            raise BrokenRuleError(f"{what}: {over}")
        for name, truth in self.truth.items():
            if self.leases[name] and not truth.on:
                raise BrokenRuleError(f"{what}: {name} sleeps with {self.leases[name]} leases")
            for other in self.policy.hosts[name].depends_on:
                if self.rows[name].mode in (Mode.READY, Mode.DRAINING) and not self.truth[other].on:
                    raise BrokenRuleError(f"{what}: {other} sleeps under {name}")

    # -- what labctl knows and sees

    @property
    def now(self) -> Moment:
        """Return the moment."""
        return Moment(WALL + self.at, 1000.0 + self.at, steady_s=self.at - self.began)

    def known(self) -> Known:
        """Return what the store says, without what is over."""
        return Known({name: self._with_claims(row) for name, row in self.rows.items()})

    def _with_claims(self, row: KnownHost) -> KnownHost:
        wishes = tuple(wish for wish in row.wishes if wish.until > self.now.wall)
        awake = sum(1 for wish in wishes if not wish.sleep)
        return replace(row, wishes=wishes, claims=Claims(leases=self.leases[row.name], wishes=awake))

    def seen(self) -> Seen:
        """Look at every host; now and then a channel is lost, and a sign with it."""
        looks = {}
        for name, truth in self.truth.items():
            talks = truth.on and self.at >= truth.ready_at and (self.calm or self.dice.random() < 0.9)
            fresh = self._line(name) if talks else self._signs(name)
            looks[name] = idle.fold(self.before.get(name), fresh, self.now, tick_s=TICK)
        self.before = looks
        return Seen(looks)

    def _line(self, name: str) -> SeenHost:
        truth, now = self.truth[name], self.now
        readings = (Reading("gpu", truth.busy, "a job" if truth.busy else "0 %"),)
        report = Report(
            now.mono,
            str(truth.boots),
            truth.resumes,
            self.at - truth.ready_at + 1,
            readings,
            None,
            RUNS,
            True,
            watch="w",
        )
        return SeenHost(name, now.mono, talking=True, report=report, caps_w=dict(truth.caps))

    def _signs(self, name: str) -> SeenHost:
        dark = Sign.UNCLEAR if self.truth[name].on else Sign.DARK
        return SeenHost(
            name, self.now.mono, signs={"ssh": Sign.DARK, "ping": dark}, silent_because="no answer"
        )

    def decide(self) -> list[Action]:
        """Return what labctl does next; every reason has to name a number or a host."""
        for truth in self.truth.values():
            truth.gating = False
        found = reconcile.decide(self.policy, self.known(), self.seen(), self.now)
        for action in found:
            if not names_something(action.because, self.rows):
                raise BrokenRuleError(f"{action} says nothing")
        return found

    # -- what happens

    def restart(self) -> None:
        """Let the controller die and start again: nothing is left but the store."""
        self.before, self.began = {}, self.at

    def people(self) -> None:
        """Let somebody want something, or be done with it."""
        for name, row in self.rows.items():
            chance = self.dice.random()
            if chance < 0.05:
                self.ids += 1
                wish = Wish(
                    self.ids, name, "anna", "a job", self.now.wall, self.now.wall + 400, sleep=chance < 0.01
                )
                self.rows[name] = replace(row, wishes=(*row.wishes, wish))
            elif chance < 0.15 and may_lease(row.mode):
                self.leases[name] += 1
                if row.mode is Mode.DRAINING:
                    self.move(name, Event.NEEDED)
            elif chance < 0.4:
                self.leases[name] = 0
            elif chance < 0.45:
                self.truth[name].busy = not self.truth[name].busy
        self.check("people came")

    def pass_time(self, seconds: float) -> None:
        """Let time pass: hosts boot, and those that were told fall asleep."""
        self.at += seconds
        for name, truth in self.truth.items():
            if truth.on and truth.sleeps_at is not None and self.at >= truth.sleeps_at:
                if truth.sleeps_at <= truth.dies_at and self.at >= truth.ready_at:
                    truth.on, truth.resumes = False, truth.resumes + 1
                truth.sleeps_at = None
            self.check(f"time passed for {name}")

    def move(self, name: str, event: Event) -> None:
        """Move a row as the store does."""
        row = self.rows[name]
        mode = NEXT.get((row.mode, event))
        if mode is None or (
            event is Event.WENT_QUIET and not may_drain(row.mode, self._with_claims(row).claims)
        ):
            return
        self.done.add(event)
        if mode in (Mode.VERIFYING, Mode.READY):
            self.truth[name].idle = mode is Mode.VERIFYING
        kept = row.attempt if mode is Mode.WAKING else None
        self.rows[name] = replace(
            row,
            mode=mode,
            since=self.now.wall,
            version=row.version + 1,
            because=event,
            order=None,
            attempt=kept,
        )

    def act(self, action: Action, *, half: bool = False) -> None:
        """Carry an action out, or (``half``) let the controller die in the middle of it."""
        row = self.rows[action.host]
        if row.version != action.version:
            return
        self.done.add(type(action).__name__)
        match action:
            case Move(event=event):
                if event is Event.BROKEN:
                    self.rows[row.name] = replace(row, quarantined=action.because)
                if not (half and event is Event.BROKEN):
                    self.move(row.name, event)
            case SendWake():
                self._wake(action, half=half)
            case Suspend():
                self._suspend(action, half=half)
            case Verify():
                self._gate(row, half=half)
            case Mend(step=step):
                self.rows[row.name] = replace(row, repair=ladder.after_step(row.repair, step, self.now))
                if not half:
                    self._mend(row.name, step)
            case StepCaps(caps_w=caps):
                self._caps(row.name, caps, half=half)
        self.check(f"{action}")

    def _wake(self, action: SendWake, *, half: bool) -> None:
        name = action.host
        slept = self.rows[name].mode is Mode.ASLEEP
        if self.rows[name].mode is not Mode.WAKING:
            self.move(name, Event.WISHED)
        if half and self.dice.random() < 0.5:
            return
        if self.dice.random() < 0.6:
            self._power_on(name)
        if half:
            return
        row = self.rows[name]
        began = row.attempt or Attempt(self.now.wall, asleep=slept)
        self.rows[name] = replace(row, attempt=replace(began, sent=action.round, last=self.now.wall))

    def _power_on(self, name: str) -> None:
        truth = self.truth[name]
        if truth.on:
            return
        truth.on, truth.ready_at, truth.sleeps_at = True, self.at + self.dice.choice((5.0, 20.0, 35.0)), None
        if self.dice.random() < 0.3:
            truth.boots += 1
        if self.dice.random() < 0.15 and not self.calm:
            truth.hangs, truth.ready_at = True, float("inf")
        truth.caps = self._declared(name)

    def _declared(self, name: str) -> dict[str, int]:
        host = next((host for host in self.rack.hosts if host.name == name), None)
        return {card.name: card.watts for card in host.cards} if host is not None else {}

    def _suspend(self, action: Suspend, *, half: bool) -> None:
        name, row = action.host, self.rows[action.host]
        if self.truth[name].busy or self.dice.random() < 0.1:
            self.move(name, Event.REFUSED)
            return
        if not may_order(row.mode, self._with_claims(row).claims):
            self.move(name, Event.NEEDED)
            return
        self.move(name, Event.ORDERED)
        order = Order(f"{self.at}", action.how, self.now.wall, 120.0)
        self.rows[name] = replace(self.rows[name], order=order)
        obeys = self.dice.random() < 0.85 and not (half and self.dice.random() < 0.5)
        if obeys:
            self.truth[name].sleeps_at = self.at + self.dice.uniform(0, 100)
            self.truth[name].dies_at = self.at + 120.0

    def _gate(self, row: KnownHost, *, half: bool) -> None:
        truth = self.truth[row.name]
        if not truth.on or self.at < truth.ready_at:
            return
        truth.gating = True
        truth.caps = self._declared(row.name)
        self.check(f"the gate of {row.name}")
        if half:
            return
        broken = ("no GPU",) if self.dice.random() < 0.35 and not self.calm else ()
        self.rows[row.name] = replace(row, repair=ladder.after_gate(row.repair, GateResult(broken), self.now))
        if not broken:
            told = replace(
                self.rows[row.name], boot_id=str(truth.boots), resumes=truth.resumes, repair=Repair()
            )
            self.rows[row.name] = told
            self.move(row.name, Event.PASSED)

    def _mend(self, name: str, step: str) -> None:
        truth = self.truth[name]
        if self.leases[name]:
            raise BrokenRuleError(f"{step} of {name} under {self.leases[name]} leases")
        if step == "cold-cycle" or (step == "reboot" and not truth.hangs):
            truth.ready_at, truth.boots = self.at + 20.0, truth.boots + 1
            truth.on, truth.hangs, truth.sleeps_at = True, False, None
            truth.caps = self._declared(name)

    def calm_down(self) -> None:
        """Let everybody be done, everything work, and every host be wanted."""
        self.calm = True
        for name, truth in self.truth.items():
            truth.busy, self.leases[name] = False, 0
            if truth.hangs:
                truth.hangs, truth.ready_at = False, self.at + 20.0
            wish = Wish(10_000, name, "anna", "a job", self.now.wall, self.now.wall + 1e6)
            row = self.rows[name]
            self.rows[name] = replace(row, wishes=(wish,), quarantined="")  # a person has looked

    def _caps(self, name: str, caps: Mapping[str, int], *, half: bool) -> None:
        cards = self.dice.sample(sorted(caps), len(caps))
        for card in cards[: len(cards) // 2] if half else cards:
            self.truth[name].caps[card] = caps[card]
            self.check(f"a cap of {name}")
