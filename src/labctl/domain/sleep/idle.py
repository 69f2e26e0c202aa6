"""Decide whether a host is unused, and say what keeps it awake.

The rule, in one breath: a host may sleep when every signal has been quiet for its quiet time without a gap,
nothing claims it, nobody depends on it, and it has shown that it comes back. What cannot be read counts as
use, so a broken sensor costs electricity, never someone's work.

``fold`` keeps the time since when a host has been quiet. It begins anew with everything that makes a hole in
the chain of evidence: a busy or unreadable signal, a signal that used to be reported and is not any more, a
line that came late, a new watch, a boot or a sleep of the host, a jump of our clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from labctl.domain.sleep.lifecycle import Verdict
from labctl.domain.sleep.terms import Known, Moment, Policy, Seen, SeenHost, Wish

GAP_TICKS = 2.5
"""A line that comes later than this many ticks after the one before it makes a gap."""

DARK_SIGNS = 2
"""So many independent signs must say that a host is off; and none may say that it is on."""


@dataclass(frozen=True, slots=True)
class Against:
    """One thing that keeps a host awake, as a clause; ``kind`` is a stable name, ``for_s`` how much longer."""

    kind: str
    because: str
    for_s: float | None = None


def fold(before: SeenHost | None, fresh: SeenHost, now: Moment, *, tick_s: float) -> SeenHost:
    """Return ``fresh`` with what has been true for a while: quiet since, dark since, caps, unloaded.

    Call it for each line of a report and for each tick; the same line twice is harmless.

    Args:
        before: what this returned last for the host; None at first.
        fresh: what was just observed; it needs none of the four.
        now: the moment of the call.
        tick_s: how often lines come.
    """
    raise NotImplementedError


def against(
    policy: Policy, known: Known, seen: Seen, now: Moment, host: str, *, wish: Wish | None = None
) -> tuple[Against, ...]:
    """Return every single thing that keeps a host awake, the strongest first.

    With a ``wish`` that it sleep, times, windows and proof do not count, and with one by force neither do
    readings; claims and whoever depends on it always do.
    """
    raise NotImplementedError


def judge(
    policy: Policy, known: Known, seen: Seen, now: Moment, host: str, *, wish: Wish | None = None
) -> Verdict:
    """Return whether a host may be put to sleep now, with the strongest reason against it or how quiet it is."""
    raise NotImplementedError
