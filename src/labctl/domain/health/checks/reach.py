"""The host as a whole: does it answer when it should, may it sleep, and would it come back?

Asleep is not down. Only the controller can say who sleeps; a host that is meant to sleep and does not answer,
with nobody to say that it sleeps, is UNKNOWN. One that went dark without an order is down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from ...sleep.lifecycle import Mode
from ..saying import Voice, lasting, short
from ..terms import Case, Figure, Result, Sleep

_LOOK = "look at its power, cable and console; labctl wake {host} brings a sleeping one back"


class Reachable:
    """The host answers, or does not for a good reason: it sleeps, goes to sleep, or just wakes."""

    code: ClassVar = "reachable"
    about: ClassVar = "the host answers, or sleeps on purpose"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield one result, always."""
        say, sleep = Voice(self.code, case.host), case.sleep
        if case.evidence is not None:
            yield say.ok("", "it answers")
        elif sleep is None:
            yield _without_controller(say, case)
        else:
            yield _dark(say, case, sleep)


def _without_controller(say: Voice, case: Case) -> Result:
    why = short(case.unreachable) or "it was not asked"
    cure = _LOOK.format(host=case.host)
    if not case.unreachable:
        return say.unknown("", why, "ask for it: labctl health HOST")
    if case.expected.sleeps:
        return say.unknown("", f"it does not answer ({why}); nobody can say whether it sleeps", cure)
    return say.crit("", f"it does not answer: {why}", cure)


def _dark(say: Voice, case: Case, sleep: Sleep) -> Result:
    limits, cure = case.expected.thresholds, _LOOK.format(host=case.host)
    lasts = max(0.0, case.now - sleep.since)
    because = f": {short(sleep.because)}" if sleep.because else ""
    why = f" ({short(case.unreachable)})" if case.unreachable else ""
    match sleep.mode:
        case Mode.ASLEEP if sleep.wanted:
            reason = f"it sleeps, and somebody wants it awake{because}"
            return say.warn("", reason, f"see what it waits for: labctl explain {case.host}")
        case Mode.ASLEEP:
            return say.informs("", f"it sleeps since {lasting(lasts)}{because}")
        case Mode.WAKING | Mode.VERIFYING:
            within = max(limits.waking_least_s, limits.waking_factor * sleep.waking_usual_s)
            figure = Figure("waking", lasts, "s", crit=within)
            if lasts <= within:
                return say.informs("", f"it wakes since {lasting(lasts)}", figure)
            reason = f"it should be awake, and has not come in {lasting(lasts)}{because}"
            return say.crit("", reason, cure, figure)
        case Mode.SUSPENDING if lasts <= limits.suspending_s:
            return say.informs("", f"it goes to sleep since {lasting(lasts)}{because}")
        case Mode.FAILED:
            return say.crit("", f"it did not come back{because}", cure)
        case _ if case.unreachable:
            return say.crit("", f"it does not answer, and nobody put it to sleep{why}", cure)
        case _:
            return say.unknown("", f"it is {sleep.mode} and was not asked", "ask for it: labctl health HOST")


class Quarantined:
    """The controller serves with the host: it has not given it up, nor set it apart after a failed gate."""

    code: ClassVar = "quarantined"
    about: ClassVar = "the controller has not set the host apart"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield one result where the rack has a controller."""
        say, sleep = Voice(self.code, case.host), case.sleep
        mend = f"mend it, then: labctl resume {case.host}"
        if sleep is None:
            if case.expected.controlled:
                yield say.withheld("")
        elif sleep.quarantined:
            yield say.crit("", f"it is set apart: {short(sleep.quarantined)}", mend)
        elif sleep.mode is Mode.FAILED and case.evidence is not None:
            yield say.crit("", f"it answers, and does not serve: {short(sleep.because)}", mend)
        else:
            yield say.ok("", "it is not set apart")


class WakeProof:
    """A host that may sleep has shown that it comes back, as it is now."""

    code: ClassVar = "wake-proof"
    about: ClassVar = "a host that may sleep has proven that it comes back"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield one result where the host may sleep and the rack has a controller."""
        say, sleep = Voice(self.code, case.host), case.sleep
        if not (case.expected.sleeps and case.expected.controlled):
            return
        if sleep is None:
            yield say.withheld("")
        elif sleep.proof:
            yield say.warn("", short(sleep.proof), f"prove it: labctl sleep-test {case.host}")
        else:
            yield say.ok("", "its proof holds")


class WolArmed:
    """The network card of a host that a magic packet is to wake listens for one."""

    code: ClassVar = "wol-armed"
    about: ClassVar = "the network card listens for the packet that is to wake the host"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield one result where the host is woken that way."""
        say = Voice(self.code, case.host)
        if not case.expected.armed or case.evidence is None:
            return
        if case.evidence.wol_armed is None:
            yield say.unread(case.evidence.errors, "wol_armed")
        elif case.evidence.wol_armed:
            yield say.ok("", "its network card listens for the packet")
        else:
            cure = "labctl apply arms it; look at Wake-on-LAN in the BIOS, and at ethtool"
            found = say.crit if case.expected.sleeps else say.warn
            yield found("", "no packet would wake it: its network card does not listen", cure)


class AgentOld:
    """The host's agent is of the same version as labctl."""

    code: ClassVar = "agent-old"
    about: ClassVar = "the agent on the host is of the same version as labctl"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield one result."""
        say = Voice(self.code, case.host)
        if case.evidence is None or not case.expected.agent:
            return
        has, wanted = case.evidence.agent, case.expected.agent
        if not has:
            yield say.unknown("", "its agent does not tell its version", "labctl apply --only agent")
        elif has != wanted:
            reason = f"its agent is of version {short(has)}, and labctl is {wanted}"
            yield say.warn("", reason, "labctl apply --only agent")
        else:
            yield say.ok("", f"its agent is of version {has}")
