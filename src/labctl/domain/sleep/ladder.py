"""How a broken host is mended: one step at a time, the gate after each, and in the end a person.

restart-engines, reload-driver, reboot, cold-cycle, quarantine. Steps that the inventory forbids are left out.
A cold cycle needs an interlock: nobody can be working on the host, because it is drained, or because it is
proven to hang (see ``may_cut``).
"""

from __future__ import annotations

from labctl.domain.sleep.lifecycle import Verdict
from labctl.domain.sleep.terms import GateResult, HostPolicy, KnownHost, Moment, Repair, SeenHost

STEPS = ("restart-engines", "reload-driver", "reboot", "cold-cycle")


def next_step(policy: HostPolicy, known: KnownHost, seen: SeenHost, now: Moment) -> tuple[str, str]:
    """Return the next step, empty when the ladder is used up, and why it is that one."""
    raise NotImplementedError


def may_cut(policy: HostPolicy, known: KnownHost, seen: SeenHost, now: Moment) -> Verdict:
    """Return whether the power of a host may be cut now: the interlock."""
    raise NotImplementedError


def after_gate(repair: Repair, result: GateResult, now: Moment) -> Repair:
    """Return what to keep after the gate ran: nothing if all is well, else what is broken."""
    raise NotImplementedError


def after_step(repair: Repair, step: str, now: Moment) -> Repair:
    """Return what to keep after a step was taken, whatever came of it: the gate is next."""
    raise NotImplementedError
