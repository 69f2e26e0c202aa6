"""What hosts draw while they sleep, wake and work, so that ramps never overlap beyond the limit.

``domain.budget_states`` decides; here is only which mode draws what. Whatever is not known to be off is
counted. A host that booted or woke a moment ago is counted with its spike until it is READY, since its
engines may load models by themselves; one that was up all the while ramps only when it goes through the gate.
A host that cannot be told another cap now keeps its own, and the gate sets the declared ones.

==========================  =========  ==================================================================
mode                        phase      why
==========================  =========  ==================================================================
ASLEEP                      asleep     seen dark; but leaving, as soon as it answers
WAKING                      ramping
VERIFYING                   ramping    if it came up a moment ago; else leaving, until its gate begins
READY, DRAINING             awake      if it talks and is not paused: its caps may step down for others
all others                  leaving    it may be on, and hears nothing
==========================  =========  ==================================================================

Whoever asks first gets the watts. Hosts at the gate ask before those that sleep. If nothing but other hosts
at the gate is in the way of one of them, it goes on: nobody may use those, so their cards are idle, and if
each waited for the other none would ever serve again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from labctl.domain import budget_states
from labctl.domain.budget import Budget, budget_of
from labctl.domain.budget_states import Phase, State
from labctl.domain.sleep import waking
from labctl.domain.sleep.lifecycle import ADMITS, Mode, Verdict
from labctl.domain.sleep.sight import Sight
from labctl.domain.sleep.terms import Sign
from labctl.domain.sleep.wording import listed


def phase_of(sight: Sight, host: str) -> Phase:
    """Return what a host does with watts, as far as anybody knows."""
    row, seen = sight.row(host), sight.seen.hosts.get(host)
    if row is None:
        return Phase.LEAVING
    if row.mode is Mode.ASLEEP:
        answers = seen is not None and (seen.talking or seen.old_agent or seen.signs.get("ssh") is Sign.ON)
        return Phase.LEAVING if answers else Phase.ASLEEP
    if row.mode is Mode.WAKING or (row.mode is Mode.VERIFYING and came_up_now(sight, host)):
        return Phase.RAMPING
    look = sight.look(host)
    hears = look is not None and look.talking and not (sight.known.paused or row.paused)
    return Phase.AWAKE if row.mode in ADMITS and hears else Phase.LEAVING


def came_up_now(sight: Sight, host: str) -> bool:
    """Return whether a host booted or woke so lately that it may still be loading what it starts with."""
    look, row = sight.look(host), sight.known.hosts[host]
    report = look.report if look is not None and look.talking else None
    return report is None or report.up_s < waking.time_s(sight.policy.hosts[host], row)


def state_of(sight: Sight, table: Budget) -> State:
    """Return the phase of every host, and the caps in force as far as they were read back."""
    names = dict.fromkeys((*(host.name for host in sight.policy.watts.hosts), *sight.policy.hosts))
    phases = {name: phase_of(sight, name) for name in names}
    caps = []
    for bunch in table.bunches:
        seen = sight.look(bunch.host) if phases[bunch.host] is Phase.AWAKE else None
        read = seen.caps_w if seen is not None else {}
        caps.append(float(max(read.get(card, bunch.watts) for card in bunch.cards)))
    return State(phases, tuple(caps))


@dataclass(slots=True)
class Ledger:
    """Gives out watts within one decision: whoever asks first gets them, and those after see it.

    ``lower`` holds the caps that have to go down before somebody who asked can ramp, by bunch. Until they
    have, the watts are kept for that host: the ones after it do not get them.
    """

    sight: Sight
    table: Budget = field(init=False)
    state: State = field(init=False)
    lower: dict[int, int] = field(init=False, default_factory=dict)
    refused: bool = field(init=False, default=False)
    _kept: State = field(init=False)

    def __post_init__(self) -> None:
        self.table = budget_of(self.sight.policy.watts)
        self.state = self._kept = state_of(self.sight, self.table)

    @property
    def _priorities(self) -> Mapping[str, int]:
        return {name: host.priority for name, host in self.sight.policy.hosts.items()}

    def may_wake(self, host: str) -> Verdict:
        """Give a host the watts to wake, or say which limit they would exceed."""
        return self._give(host, Phase.ASLEEP, "")

    def may_verify(self, host: str) -> Verdict:
        """Give a host the watts to go through the gate, or say which limit they would exceed."""
        given = self._give(host, self.state.phase(host), "the gate of ")
        if given or self.lower or any(row.mode in ADMITS for row in self.sight.known.hosts.values()):
            return given
        rows = self.sight.known.hosts.values()
        others = {row.name for row in rows if row.mode is Mode.VERIFYING} - {host}
        if any(self.state.phase(name) is Phase.RAMPING for name in others):
            return given
        pairs = zip(self.table.bunches, self.state.caps, strict=True)
        idle = tuple(0.0 if bunch.host in others else cap for bunch, cap in pairs)
        if budget_states.over(self.table, replace(self.state, caps=idle).entering(host, Phase.RAMPING)):
            return given
        self.state = self.state.entering(host, Phase.RAMPING)
        return Verdict(True, f"{host} goes first of those at the gate")

    def _give(self, host: str, phase: Phase, what: str) -> Verdict:
        kept = budget_states.waking(self.table, self._kept.entering(host, phase), host)
        planned = budget_states.caps_for(self.table, kept, self._priorities)
        if not planned.fits:
            self.refused = True
            return Verdict(False, f"{what}{host} waits for watts: {planned.because}")
        lower = {
            place: new
            for place, (old, new) in enumerate(zip(kept.caps, planned.watts, strict=True))
            if new < old and self.table.bunches[place].host != host
        }
        lowest = (float(min(old, new)) for old, new in zip(kept.caps, planned.watts, strict=True))
        self._kept = replace(kept, caps=tuple(lowest))
        if lower:
            self.refused = True
            self.lower = self.lower or lower
            return Verdict(False, f"{what}{host} waits until caps step down: {self.caps_text(lower)}")
        then = budget_states.waking(self.table, self.state.entering(host, phase), host)
        if over := budget_states.over(self.table, then):
            self.refused = True
            return Verdict(False, f"{what}{host} waits for watts: {over}")
        self.state = then
        return Verdict(True, f"every limit is held with the full spike of {host}")

    def settle(self) -> tuple[Mapping[int, int], str]:
        """Return the caps to set now, by bunch, and why: down for who asked, or as high as all may be."""
        if self.lower:
            return self.lower, "caps step down for who waits"
        if self.refused:
            return {}, ""
        step = budget_states.next_step(self.table, self.state, (), self._priorities)
        return (step.caps, step.because) if step.do in ("lower", "raise") else ({}, "")

    def caps_text(self, caps: Mapping[int, int]) -> str:
        """Return caps as a person reads them: "gpu1 300 W -> 200 W"."""
        bunches = self.table.bunches
        parts = (f"{bunches[at].host} {self.state.caps[at]:.0f} W -> {new} W" for at, new in caps.items())
        return listed(list(parts))

    def fits_whole(self) -> bool:
        """Return whether the whole rack may ramp up at once with its declared caps."""
        phases = dict.fromkeys(self.state.phases, Phase.RAMPING)
        return not budget_states.over(self.table, State(phases, tuple(map(float, self.table.declared))))
