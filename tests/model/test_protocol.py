"""No interleaving of requests, messages, naps and crashes puts a host to sleep under a request, or loses one.

The graph of all states is walked to its end: from every state that can come about, nothing bad is one step
away, and something good can still happen. Each mutant takes one safeguard away, and the walk must notice; it
prints how few steps it takes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import protocol
import pytest
from protocol import (
    SERVES,
    UNTRIED,
    WAITS,
    Rules,
    State,
    explore,
    serves_untried,
    sleeps_under_a_lease,
    unsafe,
)

from labctl.domain.sleep import evidence, idle, lifecycle, waking, wanting
from labctl.domain.sleep.actions import Action
from labctl.domain.sleep.case import Case
from labctl.domain.sleep.lifecycle import Event, Mode, Verdict
from labctl.domain.sleep.terms import KnownHost, Order, SeenHost
from labctl.domain.sleep.waking import Due

_WRONG = {SERVES: sleeps_under_a_lease, UNTRIED: serves_untried}


def test_no_interleaving_sleeps_under_a_request_or_loses_one() -> None:
    found = explore(Rules())
    assert (found.wrong, found.way) == ("", ())
    assert found.states > 5000  # or the world of the walk has become too small to mean anything


def test_the_walk_goes_through_the_table() -> None:
    taken: set[tuple[Mode, Event]] = set()

    def watch(before: State, what: str, after: State) -> str:
        if what.startswith("moved by") and before.mode is not after.mode:
            taken.add((before.mode, Event(what.removeprefix("moved by "))))
        return ""

    explore(Rules(), watch)
    left = set(lifecycle.NEXT) - taken
    # Made by the store and the acts themselves, not by a move of a decision.
    left -= {(Mode.DRAINING, Event.NEEDED), (Mode.DRAINING, Event.ORDERED), (Mode.VERIFYING, Event.PASSED)}
    left -= {(mode, Event.WISHED) for mode in Mode} | {(Mode.DRAINING, Event.REFUSED)}
    # The host of the walk has no meter, never breaks, tells its boot, and sleeps only when it is told to.
    left -= {(Mode.UNKNOWN, Event.DARK), (Mode.VERIFYING, Event.BROKEN)}
    left -= {(Mode.ASLEEP, Event.SEEN), (Mode.DRAINING, Event.CAME_BACK)}
    assert left == set()


# --- one safeguard gone ------------------------------------------------------------------------------------


def _restart_assumes_awake(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    rules.assume_awake = True


def _a_timer_opens_admission(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    def by_timer(order: Order, seen: SeenHost, *rest: object) -> str:
        return f"{seen.name} had an order" if order.nonce else ""

    patch.setattr(evidence, "dead_because", by_timer)


def _one_lost_ping_means_off(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    patch.setattr(evidence, "DARK_SIGNS", 1)
    patch.setattr(evidence, "APART", 0.0)


def _drain_and_order_ignore_leases(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    patch.setattr(lifecycle, "_unclaimed", lambda claims: Verdict(True, "who cares"))
    patch.setattr(idle, "_claims", lambda row, now: ())


def _check_then_act(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    rules.unguarded = True


def _one_packet_and_no_resend(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    def once(policy: object, known: KnownHost, *rest: object) -> Due:
        sent = known.attempt is not None
        return Due("wait" if sent else "send", 1, 60.0, "1 packet is enough")

    patch.setattr(waking, "due", once)


def _commit_after_send(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    rules.send_first = True


def _an_order_never_dies_on_the_host(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    rules.no_deadline = True


def _go_names_no_nonce(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    rules.no_nonce = True


def _whoever_talks_is_awake(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    """SEEN alone opens admission, also while an order is alive."""
    patch.setitem(lifecycle.NEXT, (Mode.SUSPENDING, Event.SEEN), Mode.READY)
    real = protocol.reconcile._BY_MODE[Mode.SUSPENDING]

    def hasty(case: Case, ledger: object) -> Action | None:
        return case.move(Event.SEEN, "it talks") if case.look.talking else real(case, ledger)  # type: ignore[arg-type]

    patch.setitem(protocol.reconcile._BY_MODE, Mode.SUSPENDING, hasty)


def _silence_means_off(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    patch.setattr(evidence, "dark_because", lambda seen, *rest: "" if seen.talking else "it is silent")


def _a_word_on_an_older_order_counts(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    real = evidence.word_against

    def any_word(order: Order, seen: SeenHost) -> str:
        word = seen.report.order if seen.report is not None else None
        return real(Order(word.nonce, order.how, order.at, order.lasts_s), seen) if word is not None else ""

    patch.setattr(evidence, "word_against", any_word)


def _sleeps_are_not_counted(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    patch.setattr(evidence, "came_back", lambda known, seen: "")


def _a_waking_host_is_given_requests(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    patch.setattr(lifecycle, "ADMITS", lifecycle.ADMITS | {Mode.WAKING})


def _a_request_during_an_order_is_forgotten(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    patch.setattr(wanting, "awake_wishes", lambda known, wall: ())


def _giving_up_is_for_ever(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    patch.setitem(protocol.reconcile._BY_MODE, Mode.FAILED, lambda case, ledger: None)


def _nothing_leads_out_of_failure(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    """A host that once failed is never looked at again."""
    gone = [(Mode.FAILED, event) for event in (Event.SEEN, Event.CAME_BACK, Event.WISHED)]
    # Not taken out of the table itself: what comes back stands at its end, and the table's order is drawn.
    patch.setattr(lifecycle, "NEXT", {way: to for way, to in lifecycle.NEXT.items() if way not in gone})


def _a_lost_host_stays_lost(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    patch.setitem(protocol.reconcile._BY_MODE, Mode.UNKNOWN, lambda case, ledger: None)


def _a_host_that_woke_by_itself_is_ready(patch: pytest.MonkeyPatch, rules: Rules) -> None:
    """A lost gate: nothing that ever slept would be tried again."""
    patch.setitem(lifecycle.NEXT, (Mode.SUSPENDING, Event.CAME_BACK), Mode.READY)
    patch.setitem(lifecycle.NEXT, (Mode.ASLEEP, Event.CAME_BACK), Mode.READY)


MUTANTS: tuple[tuple[Callable[[pytest.MonkeyPatch, Rules], None], str], ...] = (
    (_restart_assumes_awake, SERVES),
    (_a_timer_opens_admission, SERVES),
    (_one_lost_ping_means_off, SERVES),
    (_drain_and_order_ignore_leases, SERVES),
    (_check_then_act, SERVES),
    (_one_packet_and_no_resend, WAITS),
    (_commit_after_send, SERVES),
    (_an_order_never_dies_on_the_host, SERVES),
    (_go_names_no_nonce, SERVES),
    (_whoever_talks_is_awake, SERVES),
    (_silence_means_off, SERVES),
    (_a_word_on_an_older_order_counts, SERVES),
    (_sleeps_are_not_counted, UNTRIED),
    (_a_waking_host_is_given_requests, SERVES),
    (_a_request_during_an_order_is_forgotten, WAITS),
    (_giving_up_is_for_ever, WAITS),
    (_nothing_leads_out_of_failure, WAITS),
    (_a_lost_host_stays_lost, WAITS),
    (_a_host_that_woke_by_itself_is_ready, UNTRIED),
)


@pytest.mark.parametrize(
    ("mutant", "wrong"), MUTANTS, ids=[mutant.__name__.strip("_") for mutant, _ in MUTANTS]
)
def test_the_walk_notices_a_safeguard_that_is_gone(
    mutant: Callable[[pytest.MonkeyPatch, Rules], None],
    wrong: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rules = Rules()
    mutant(monkeypatch, rules)
    found = explore(rules, _WRONG.get(wrong, unsafe))
    with capsys.disabled():
        name = mutant.__name__.strip("_")
        sys.stdout.write(f"\n  {name}: {found.wrong or 'not noticed'}, in {len(found.way)} steps")
    assert found.wrong == wrong, "\n".join(found.way)
