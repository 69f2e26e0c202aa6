"""How a broken host is mended: one step at a time, the gate after each, and in the end a person.

restart-engines, reload-driver, reboot, cold-cycle, quarantine. Steps that the inventory forbids are left out,
and none is taken twice before the host passed the gate again. Each step has an interlock, since a host whose
admission is closed may still be in use: by requests from before, by people, by a download.

==============  ==========================================================================================
step            not while
==============  ==========================================================================================
restart-engines a lease is on the host, or an engine has a request
reload-driver   the same, or a card computes
reboot          a lease or hold is on it, or a signal is busy; what cannot be read counts as busy, but for
                cards, engines and load, which are what is broken
cold-cycle      the same; and of a host that does not talk, only when it is proven to hang (``may_cut``)
==============  ==========================================================================================
"""

from __future__ import annotations

from dataclasses import replace

from labctl.domain.sleep import waking
from labctl.domain.sleep.actions import GateResult
from labctl.domain.sleep.lifecycle import Mode, Verdict
from labctl.domain.sleep.terms import HostPolicy, KnownHost, Moment, Repair, SeenHost, Sign
from labctl.domain.sleep.wording import counted, lasting

RESTART, RELOAD, REBOOT, CUT = STEPS = ("restart-engines", "reload-driver", "reboot", "cold-cycle")

GOING_DOWN_S = 120.0
"""How long a host may go on talking after it was told to reboot."""

_BROKEN_ITSELF = frozenset({"gpu", "engines", "load"})
"""Signals that a broken host cannot be asked for, and must not be for want of them."""


def steps(policy: HostPolicy) -> tuple[str, ...]:
    """Return the steps that the inventory allows, in their order."""
    allowed = {RESTART: True, RELOAD: policy.may_reload, REBOOT: policy.may_reboot, CUT: policy.can_cut}
    return tuple(step for step in STEPS if allowed[step])


def next_step(policy: HostPolicy, known: KnownHost) -> tuple[str, str]:
    """Return the next step, empty when the ladder is used up, and why."""
    broken = "; ".join(known.repair.broken)
    left = [step for step in steps(policy) if step not in known.repair.taken]
    if left:
        number = len(known.repair.taken) + 1
        return left[0], f"{policy.name}: {broken} (step {number}, {left[0]})"
    done = ", ".join(known.repair.taken) or "0 steps"
    return "", f"{policy.name}: {broken} (after {done})"


def may_take(step: str, policy: HostPolicy, known: KnownHost, seen: SeenHost, now: Moment) -> Verdict:
    """Return whether a step may be taken now: its interlock."""
    if step == CUT:
        return may_cut(policy, known, seen, now)
    claims = known.claims
    if claims.leases:
        return Verdict(False, f"{step} of {policy.name} waits for {counted(claims.leases, 'lease')}")
    if step == REBOOT:
        return _drained(step, known, seen)
    harmed = {RESTART: {"engines"}, RELOAD: {"engines", "gpu"}}[step]
    for reading in seen.report.readings if seen.report is not None else ():
        if reading.busy and reading.signal in harmed:
            return Verdict(
                False, f"{step} of {policy.name} waits for its {reading.signal}: {reading.because}"
            )
    return Verdict(True, f"nobody uses what {step} of {policy.name} interrupts")


def may_cut(policy: HostPolicy, known: KnownHost, seen: SeenHost, now: Moment) -> Verdict:
    """Return whether the power of a host may be cut now: it is drained, or proven to hang.

    Proven to hang is one that does not talk, at whose sshd nobody answers, and that nobody can have worked on
    since: it was seen dark after an order to sleep and did not come up in its time, or it was rebooted when
    it was drained and was not heard since, in its time and by this process, or no power flows into it anyway.
    """
    name = policy.name
    if not policy.can_cut:
        return Verdict(False, f"nothing may cut the power of {name}")
    if seen.talking:
        return _drained(CUT, known, seen)
    if known.claims.leases or known.claims.holds:
        return _drained(CUT, known, seen)
    if seen.old_agent or seen.signs.get("ssh") is Sign.ON:
        return Verdict(
            False, f"{name} does not report, and its sshd answers, so somebody may be working on it"
        )
    if policy.has_meter and seen.signs.get("power") is Sign.DARK:
        return Verdict(True, f"no power flows into {name}")
    time_s = waking.time_s(policy, known)
    if known.mode is Mode.WAKING and known.attempt is not None and known.attempt.asleep:
        rounds = counted(known.attempt.sent, "round")
        return Verdict(True, f"{name} was asleep, and did not come up within {lasting(time_s)} of {rounds}")
    if known.repair.taken[-1:] == (REBOOT,):
        passed = now.sure_s(known.repair.at)
        if came_up := _came_up(known, seen, now, passed):
            return Verdict(False, came_up)
        if passed > time_s and not now.jumped:
            return Verdict(
                True, f"{name} was drained and rebooted {lasting(passed)} ago, and did not come up"
            )
        return Verdict(False, f"{name} was rebooted {lasting(passed)} ago, and has {lasting(time_s)}")
    return Verdict(False, f"{name} does not talk, and nothing proves that it hangs")


def _came_up(known: KnownHost, seen: SeenHost, now: Moment, passed: float) -> str:
    """Return that a host was heard after its reboot, or may have been: who came then may still be there."""
    name = known.name
    if known.repair.broken:
        return f"{name} came up from its reboot, and fell silent later, so somebody may be working on it"
    if seen.report is None:
        return f"{name} was rebooted, and nobody knows whether it came up since"
    if now.mono - seen.report.at < passed - GOING_DOWN_S:
        return f"{name} spoke after its reboot, so somebody may be working on it"
    return ""


def after_gate(repair: Repair, result: GateResult, now: Moment) -> Repair:
    """Return what to keep after the gate ran: nothing if all is well, else what is broken."""
    return replace(repair, broken=result.broken, at=now.wall) if result.broken else Repair()


def after_step(repair: Repair, step: str, now: Moment) -> Repair:
    """Return what to keep before a step is taken, whatever will come of it: then the gate is next."""
    return Repair((*repair.taken, step), (), now.wall)


def _drained(step: str, known: KnownHost, seen: SeenHost) -> Verdict:
    name, claims = known.name, known.claims
    for count, what in ((claims.leases, "lease"), (claims.holds, "hold")):
        if count:
            return Verdict(False, f"{step} of {name} waits for {counted(count, what)}")
    if seen.report is None or not seen.talking:
        return Verdict(False, f"{step} of {name} waits until it reports")
    for reading in seen.report.readings:
        if reading.busy or (reading.busy is None and reading.signal not in _BROKEN_ITSELF):
            return Verdict(False, f"{step} of {name} waits for its {reading.signal}: {reading.because}")
    return Verdict(True, f"{name} is drained")
