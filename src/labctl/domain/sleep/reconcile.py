"""Turn what is wanted, known and seen into what to do next.

``decide`` is pure and starts from nothing but its arguments: called again after any part of its actions was
carried out, or after a restart, it finds the right thing to do next. It rests on four rules.

1. What was not seen within a tick, or before the clock jumped, moves nothing.
2. Unknown is awake and busy. A host is dark only by more than one sign in more than one tick, and admission
   opens again only on its own word.
3. Who is wanted (by a wish, a window, or a host that depends on it) is not put to sleep; who is paused or
   quarantined is only observed.
4. Watts are taken before they flow: a wake or a gate that does not fit waits, and says for what.

Actions of one call do not depend on each other. A Verify or Mend is decided in each tick until its outcome
is stored; whoever acts runs one at a time for each host. How outcomes are stored:

- SendWake: ``note_attempt`` with one more ``sent`` (round 1 first moves by WISHED, ``asleep`` says from where).
- Verify: passed is ``note_boot``, ``note_came_up``, ``note_repair`` (empty), then the move PASSED; broken is
  ``note_repair`` with ``ladder.after_gate``, and nothing else: the next call decides how to mend it.
- Mend: ``note_repair`` with ``ladder.after_step`` before the step is taken.
- Move with BROKEN: ``note_repair`` with ``quarantined`` first, then the move.
- StepCaps and Unload: ``caps_w`` and ``unloaded`` of the host's ``SeenHost``.
"""

from __future__ import annotations

from labctl.domain.sleep.terms import Action, Known, Moment, Policy, Seen, Wish


def decide(policy: Policy, known: Known, seen: Seen, now: Moment) -> list[Action]:
    """Return what to do next, each with its reason; at most one action for each host besides StepCaps."""
    raise NotImplementedError


def overtaken(known: Known) -> tuple[Wish, ...]:
    """Return the wishes to end: awake ones whose host is READY, and those that a newer one contradicts."""
    raise NotImplementedError


def explain(policy: Policy, known: Known, seen: Seen, now: Moment, host: str) -> tuple[str, ...]:
    """Return, line by line, in which mode a host is and why, what keeps it awake, and what happens when."""
    raise NotImplementedError
