"""One host as a decision sees it, and the actions that can come of it."""

from __future__ import annotations

from dataclasses import dataclass

from labctl.domain.sleep import evidence, wanting
from labctl.domain.sleep.actions import Mend, Move, SendWake, Suspend, Unload, Verify, Wait
from labctl.domain.sleep.lifecycle import Event
from labctl.domain.sleep.sight import Sight
from labctl.domain.sleep.terms import HostPolicy, How, KnownHost, Moment, SeenHost
from labctl.domain.sleep.wanting import Want


@dataclass(frozen=True, slots=True)
class Case:
    """A host that has a row, and of which something was seen within the last tick."""

    sight: Sight
    policy: HostPolicy
    row: KnownHost
    look: SeenHost

    @property
    def name(self) -> str:
        """Return its name."""
        return self.policy.name

    @property
    def now(self) -> Moment:
        """Return the moment of the decision."""
        return self.sight.now

    @property
    def tick_s(self) -> float:
        """Return how often hosts are looked at, in seconds."""
        return self.sight.policy.tick_s

    @property
    def want(self) -> Want | None:
        """Return why it is wanted awake; None when nobody wants it."""
        return self.sight.wants.get(self.name)

    @property
    def hands_off(self) -> str:
        """Return why nothing may be done to it but look; empty when it may."""
        if self.sight.known.paused:
            return f"{self.name} and the whole rack are paused: {self.sight.known.paused}"
        if self.row.paused or self.row.claims.paused:
            return f"{self.name} is paused: {self.row.paused or 'it is not said why'}"
        if self.row.quarantined:
            return f"{self.name} is quarantined: {self.row.quarantined}"
        return ""

    @property
    def lost(self) -> str:
        """Return why it cannot be relied on any more, or nothing."""
        return evidence.lost_because(self.look, self.now, self.tick_s)

    @property
    def came_back(self) -> str:
        """Return how it says that it slept or booted since it was READY, or nothing."""
        return evidence.came_back(self.row, self.look)

    @property
    def missing(self) -> str:
        """Return which host has to be READY before this one goes on, or nothing."""
        return wanting.missing(self.sight.policy, self.sight.known, self.name)

    # -- what can come of it

    def answers(self) -> Move | None:
        """Return the move that its own word brings about, where it was not relied on before."""
        if came_back := self.came_back:
            return self.move(Event.CAME_BACK, came_back)
        if self.look.talking and self.look.report is not None:
            return self.move(Event.SEEN, f"{self.name} reports")
        return None

    def move(self, event: Event, because: str) -> Move:
        """Return the move by an event."""
        return Move(self.name, because, self.row.version, self.look.at, event)

    def wait(self, because: str) -> Wait:
        """Return that nothing is done for somebody who wants it."""
        return Wait(self.name, because, self.row.version, self.look.at)

    def send(self, number: int, because: str) -> SendWake:
        """Return a round of packets."""
        return SendWake(self.name, because, self.row.version, self.look.at, number)

    def verify(self, because: str) -> Verify:
        """Return the gate."""
        return Verify(self.name, because, self.row.version, self.look.at)

    def mend(self, step: str, because: str) -> Mend:
        """Return a step of the ladder."""
        return Mend(self.name, because, self.row.version, self.look.at, step)

    def unload(self, because: str) -> Unload:
        """Return that its cards are freed."""
        return Unload(self.name, because, self.row.version, self.look.at)

    def suspend(self, how: How, because: str, *, rtc_at: float | None, force: bool) -> Suspend:
        """Return the order to sleep."""
        return Suspend(self.name, because, self.row.version, self.look.at, how, rtc_at, force)
