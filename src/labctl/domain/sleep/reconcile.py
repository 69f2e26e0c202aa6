"""Turn what is wanted, known and seen into what to do next.

``decide`` is pure and starts from nothing but its arguments: called again after any part of its actions was
carried out, or after a restart, it finds the right thing to do next. It rests on four rules.

1. What was not seen within a tick moves nothing; times that a jump of the clock may have made up count not.
2. Unknown is awake and busy. A host is dark only by more than one sign in more than one tick, and admission
   opens again only on its own word.
3. Who is wanted (by a wish, a window, or a host that depends on it) is not put to sleep; who is paused or
   quarantined is only observed.
4. Watts are taken before they flow: a wake, gate or repair that does not fit waits, and says for what.

Actions of one call do not depend on each other. A Verify, Mend or Suspend is decided in each tick until its
outcome is stored; whoever acts runs one at a time for each host. The moves of one call are stored before the
next call, or two hosts might be given the same watts. How outcomes are stored:

- SendWake: round 1 moves the host by WISHED, unless it is WAKING already; then the packets; then
  ``note_attempt`` with one more ``sent``, and ``asleep`` where it was ASLEEP.
- Verify: passed is ``note_boot``, ``note_came_up``, ``note_repair`` (empty), then the move PASSED; broken is
  ``note_repair`` with ``ladder.after_gate``, and nothing else: the next call decides how to mend it.
- Mend: ``note_repair`` with ``ladder.after_step`` before the step is taken.
- Move with BROKEN: ``note_repair`` with ``quarantined`` first, then the move.
- StepCaps: ``caps_w`` of its ``SeenHost``; while the order is under way, the higher of old and new.
- Unload: ``unloaded`` of its ``SeenHost``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from labctl.domain.sleep import asleep, awake, coming, explaining
from labctl.domain.sleep.actions import Action, StepCaps
from labctl.domain.sleep.case import Case
from labctl.domain.sleep.lifecycle import ADMITS, Mode
from labctl.domain.sleep.sight import Sight, sight_of
from labctl.domain.sleep.terms import Known, Moment, Policy, Seen, Wish
from labctl.domain.sleep.watts import Ledger, came_up_now

_BY_MODE: dict[Mode, Callable[[Case, Ledger], Action | None]] = {
    Mode.UNKNOWN: asleep.unknown,
    Mode.READY: awake.ready,
    Mode.DRAINING: awake.draining,
    Mode.SUSPENDING: asleep.suspending,
    Mode.ASLEEP: asleep.asleep,
    Mode.WAKING: coming.waking_up,
    Mode.VERIFYING: coming.verifying,
    Mode.FAILED: asleep.failed,
}


def decide(policy: Policy, known: Known, seen: Seen, now: Moment) -> list[Action]:
    """Return what to do next, each with its reason; at most one action for each host besides StepCaps."""
    sight = sight_of(policy, known, seen, now)
    ledger = Ledger(sight)
    found = [_decide(case, ledger) for case in cases(sight)]
    return [action for action in (*found, *_caps(sight, ledger)) if action is not None]


def cases(sight: Sight) -> list[Case]:
    """Return all hosts of which enough is known and seen, in the order in which they are given watts."""
    found = []
    for name, policy in sight.policy.hosts.items():
        row, look = sight.row(name), sight.look(name)
        if row is not None and look is not None:
            found.append(Case(sight, policy, row, look))
    return sorted(found, key=_turn)


def _turn(case: Case) -> tuple[int, float, float, str]:
    """Return whose turn it is: who just came up, who is at the gate, then priority, then who came first."""
    if case.row.mode is Mode.VERIFYING:
        return int(not came_up_now(case.sight, case.name)), 0.0, case.row.since, case.name
    since = case.want.since if case.want is not None else 0.0
    return 2, -case.policy.priority, since, case.name


def _decide(case: Case, ledger: Ledger) -> Action | None:
    return _BY_MODE[case.row.mode](case, ledger)


def _caps(sight: Sight, ledger: Ledger) -> Iterator[StepCaps]:
    caps, because = ledger.settle()
    by_host: dict[str, dict[int, int]] = {}
    for place, watts in caps.items():
        by_host.setdefault(ledger.table.bunches[place].host, {})[place] = watts
    for host, own in by_host.items():
        row, look = sight.row(host), sight.look(host)
        if row is not None and look is not None:
            cards = {
                card: watts for place, watts in own.items() for card in ledger.table.bunches[place].cards
            }
            yield StepCaps(host, f"{because}: {ledger.caps_text(own)}", row.version, look.at, cards)


def overtaken(policy: Policy, known: Known, now: Moment) -> tuple[Wish, ...]:
    """Return the live wishes to end: they came true, or a newer one wants the contrary.

    A wish to sleep is true when the host is ASLEEP, one to be awake as soon as it has become READY; whoever
    wishes for a host that is READY already has it for as long as if they had woken it.
    """
    found = []
    for row in known.hosts.values():
        host = policy.hosts.get(row.name)
        kept_s = host.min_up_s if host is not None else 0.0
        newest = {
            sleep: max(((one.at, one.id) for one in row.wishes if one.sleep is sleep), default=(0.0, 0))
            for sleep in (False, True)
        }
        for wish in row.wishes:
            contrary = newest[not wish.sleep] > (wish.at, wish.id)
            if wish.sleep:
                over = row.mode is Mode.ASLEEP or contrary
            else:
                came_up = row.since >= wish.at
                over = row.mode in ADMITS and (came_up or contrary or now.sure_s(wish.at) >= kept_s)
            if over:
                found.append(wish)
    return tuple(found)


def explain(policy: Policy, known: Known, seen: Seen, now: Moment, host: str) -> tuple[str, ...]:
    """Return, line by line, in which mode a host is and why, what keeps it awake, and what happens when."""
    actions = [action for action in decide(policy, known, seen, now) if action.host == host]
    return tuple(explaining.lines(sight_of(policy, known, seen, now), host, actions))
