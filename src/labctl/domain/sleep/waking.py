"""Plan a wake: when to send packets, and when to give up.

The first round goes out at once. Packets get lost and a card that is just going to sleep hears none, so the
next rounds follow quickly and then ever slower; all times are counted from the round before, so that a jump
of the clock costs one round at most. A host that came up quickly ten times may boot cold the next time (its
power was cut while it slept), so what was learnt makes us wait longer, never shorter, than ``boot_s``.
"""

from __future__ import annotations

from labctl.domain.sleep.terms import Attempt, HostPolicy, KnownHost


def next_at(policy: HostPolicy, known: KnownHost, attempt: Attempt) -> float:
    """Return the wall time at which the next round, or the decision to give up, is due."""
    raise NotImplementedError


def usual_s(known: KnownHost) -> float | None:
    """Return how long a wake of the host usually takes in seconds: the median of the last; None: no idea."""
    raise NotImplementedError
