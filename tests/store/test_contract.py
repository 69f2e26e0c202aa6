"""What ``ports.store.Store`` promises, on SQLite and on PostgreSQL: decisions, claims, terms, the log."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from lives import ATTEMPT, NOW, ORDER, PATHS, PROOF, bring, leader, lease, row, step, wish

from labctl.domain.problem import LabctlError
from labctl.domain.sleep.lifecycle import ADMITS, NEXT, Claims, Event, Mode, Verdict, after
from labctl.domain.sleep.terms import Attempt, KnownHost, Repair, Wish
from labctl.ports.store import Lease, Sought, StaleError, Store

Opened = Callable[[], Store]


# --- hosts and moves ---


def test_a_new_host_is_unknown_and_an_old_one_stays_as_it_is(store: Store) -> None:
    bring(store, Mode.READY)
    store.enlist(["nas", "box"], now=NOW + 1)
    assert row(store).mode is Mode.READY
    assert row(store, "nas") == KnownHost("nas", since=NOW + 1, because="nothing is known of it yet")


@pytest.mark.parametrize("mode", list(Mode))
def test_a_move_follows_the_table_or_is_refused(store: Store, mode: Mode) -> None:
    for event in set(Event) - {Event.ORDERED}:
        host = f"box-{event}"
        term = bring(store, mode, host=host)
        before = row(store, host)
        wanted = after(mode, event)
        if wanted is None:
            with pytest.raises(StaleError, match="leads nowhere"):
                step(store, event, host=host, term=term)
            assert row(store, host) == before
        else:
            assert step(store, event, host=host, term=term) is wanted
            assert row(store, host).because == f"because of {event}"
            assert row(store, host).version == before.version + 1


def test_an_order_is_no_plain_move(store: Store) -> None:
    term = bring(store, Mode.DRAINING)
    with pytest.raises(StaleError, match="only an order"):
        store.move("box", Event.ORDERED, "", version=row(store).version, term=term, now=NOW)
    assert row(store).mode is Mode.DRAINING


def test_a_decision_on_an_older_version_is_stale(store: Store) -> None:
    term = bring(store, Mode.READY)
    old = row(store).version
    step(store, Event.WENT_QUIET, term=term)
    step(store, Event.NEEDED, term=term)
    for act in (
        lambda: store.move("box", Event.WENT_QUIET, "", version=old, term=term, now=NOW),
        lambda: store.order("box", ORDER, "", version=old, term=term, now=NOW),
        lambda: store.note_attempt("box", ATTEMPT, version=old, term=term, now=NOW),
    ):
        with pytest.raises(StaleError, match=f"not {old}: it is ready"):
            act()


def test_a_host_without_a_row_is_stale_for_the_leader_and_unknown_to_people(store: Store) -> None:
    term = leader(store).term
    with pytest.raises(StaleError, match="no host ghost"):
        store.move("ghost", Event.SEEN, "", version=0, term=term, now=NOW)
    with pytest.raises(LabctlError, match="host ghost: the store does not know it"):
        store.hold("ghost", "why", "ann", until=NOW + 1, now=NOW)
    store.register("gateway", "gateway", now=NOW)
    assert store.take_lease("gateway", "ghost", now=NOW) is Mode.UNKNOWN


def test_an_order_closes_admission_and_is_kept_until_the_mode_is_left(store: Store) -> None:
    term = bring(store, Mode.DRAINING)
    said = store.order("box", ORDER, "it is idle", version=row(store).version, term=term, now=NOW)
    assert said == Verdict(True, "nothing claims it")
    assert (row(store).mode, row(store).order) == (Mode.SUSPENDING, ORDER)
    store.register("gateway", "gateway", now=NOW)
    assert store.take_lease("gateway", "box", now=NOW) is Mode.SUSPENDING
    step(store, Event.DARK, term=term)
    assert (row(store).mode, row(store).order) == (Mode.ASLEEP, None)


def test_an_order_for_a_host_that_does_not_drain_is_stale(store: Store) -> None:
    term = bring(store, Mode.READY)
    with pytest.raises(StaleError, match="it is ready, not draining"):
        store.order("box", ORDER, "", version=row(store).version, term=term, now=NOW)


def _claim_by_lease(store: Store) -> None:
    store.register("gateway", "gateway", now=NOW)
    lease(store)


CLAIMS: dict[str, tuple[Callable[[Store], object], str]] = {
    "lease": (_claim_by_lease, "1 lease is on it"),
    "hold": (lambda s: s.hold("box", "training", "ann", until=NOW + 9, now=NOW), "1 hold is on it"),
    "wish": (lambda s: s.wish(wish(), now=NOW), "1 wish that it be awake is on it"),
    "pause": (lambda s: s.pause("box", "a new fan", "ann", now=NOW), "it is paused"),
    "pause of the rack": (lambda s: s.pause(None, "moving", "ann", now=NOW), "it is paused"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_claims_a_host_keeps_it_from_draining(store: Store, claim: str) -> None:
    make, because = CLAIMS[claim]
    term = bring(store, Mode.READY)
    make(store)
    before = row(store)
    with pytest.raises(StaleError, match=because):
        step(store, Event.WENT_QUIET, term=term)
    assert row(store) == before


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_claims_a_host_that_drains_brings_it_back(store: Store, claim: str) -> None:
    make, _ = CLAIMS[claim]
    bring(store, Mode.DRAINING)
    version = row(store).version
    make(store)
    assert row(store).mode is Mode.READY
    assert row(store).version > version


@pytest.mark.parametrize("claim", sorted(set(CLAIMS) - {"lease"}))
def test_what_claims_a_host_is_seen_by_the_order_even_if_it_still_drains(store: Store, claim: str) -> None:
    """Draining is left by whoever claims; were that forgotten, the order would still see the claim."""
    make, because = CLAIMS[claim]
    term = bring(store, Mode.READY)
    store.move("box", Event.WENT_QUIET, "", version=row(store).version, term=term, now=NOW)
    make(store)
    _draining_again(store)
    said = store.order("box", ORDER, "", version=row(store).version, term=term, now=NOW)
    assert said == Verdict(False, because)
    assert (row(store).mode, row(store).because) == (Mode.READY, because)


def _draining_again(store: Store) -> None:
    from sqlalchemy import update

    from labctl.adapters.store import SqlStore, tables

    assert isinstance(store, SqlStore)
    store._database.write(lambda work: work.run(update(tables.host).values(mode=Mode.DRAINING)))


@pytest.mark.parametrize("mode", sorted(set(Mode) - ADMITS))
@pytest.mark.parametrize("claim", ["hold", "wish"])
def test_a_claim_moves_no_host_but_one_that_drains(store: Store, mode: Mode, claim: str) -> None:
    bring(store, mode)
    CLAIMS[claim][0](store)
    assert row(store).mode is mode


def test_claims_that_are_over_do_not_count(store: Store) -> None:
    term = bring(store, Mode.READY)
    store.hold("box", "training", "ann", until=NOW + 9, now=NOW)
    store.wish(wish(until=NOW + 9), now=NOW)
    assert row(store, now=NOW + 8).claims == Claims(0, 1, 1)
    assert row(store, now=NOW + 9) == replace(row(store), claims=Claims(), holds=(), wishes=())
    store.move("box", Event.WENT_QUIET, "", version=row(store).version, term=term, now=NOW + 9)


# --- what is noted on the way ---


def test_what_is_noted_is_read_back_as_it_was(store: Store) -> None:
    term = bring(store, Mode.WAKING)
    store.note_attempt("box", ATTEMPT, version=row(store).version, term=term, now=NOW)
    assert row(store).attempt == ATTEMPT
    step(store, Event.SEEN, term=term)
    assert row(store).attempt is None
    repair = Repair(("restart-engines", "reboot"), ("GPU-1 is missing",), NOW)
    store.note_repair("box", repair, "GPU-1 is missing", term=term, now=NOW)
    store.note_boot("box", "boot-1", 3, term=term, now=NOW)
    store.note_proof("box", PROOF, "three cycles passed", now=NOW)
    for seconds in range(30):
        store.note_came_up("box", float(seconds), term=term, now=NOW)
    host = row(store)
    assert (host.repair, host.quarantined) == (repair, "GPU-1 is missing")
    assert (host.boot_id, host.resumes) == ("boot-1", 3)
    assert host.proof == PROOF
    assert host.came_up_s == tuple(float(n) for n in range(10, 30))
    assert host.woke_at == (NOW,) * 20
    store.note_proof("box", None, "kernel 6.1.0-25 -> 6.1.0-26", now=NOW)
    assert row(store).proof is None


def test_a_wake_is_only_kept_of_a_host_that_wakes(store: Store) -> None:
    term = bring(store, Mode.READY)
    with pytest.raises(StaleError, match="no wake is under way"):
        store.note_attempt("box", ATTEMPT, version=row(store).version, term=term, now=NOW)


def test_a_version_rises_by_one_with_each_change_and_not_without(store: Store) -> None:
    term = bring(store, Mode.WAKING)
    repair = Repair(("reboot",), ("no answer",), NOW)
    notes: list[Callable[[], object]] = [
        lambda: store.note_attempt("box", ATTEMPT, version=row(store).version, term=term, now=NOW),
        lambda: store.note_boot("box", "boot-1", 3, term=term, now=NOW),
        lambda: store.note_repair("box", repair, "why", term=term, now=NOW),
        lambda: store.note_proof("box", PROOF, "passed", now=NOW),
        lambda: store.pause("box", "a new fan", "ann", now=NOW),
    ]
    for note in notes:
        before = row(store).version
        note()
        note()
        assert row(store).version == before + 1


# --- leases and instances ---


@pytest.mark.parametrize("mode", list(Mode))
def test_a_lease_is_given_where_the_mode_admits_it(store: Store, mode: Mode) -> None:
    bring(store, mode)
    store.register("gateway", "gateway", now=NOW)
    got = store.take_lease("gateway", "box", now=NOW)
    assert isinstance(got, Lease) if mode in ADMITS else got is mode
    assert row(store).claims.leases == (mode in ADMITS)
    assert row(store).mode is (Mode.READY if mode is Mode.DRAINING else mode)


def test_leases_are_counted_and_given_back_once(store: Store) -> None:
    term = bring(store, Mode.READY)
    store.register("gateway", "gateway", now=NOW)
    first, second = lease(store), lease(store)
    store.release(first, now=NOW)
    store.release(first, now=NOW)
    assert row(store).claims.leases == 1
    store.release(replace(second, instance="somebody else"), now=NOW)
    assert row(store).claims.leases == 1
    store.release(second, now=NOW)
    assert step(store, Event.WENT_QUIET, term=term) is Mode.DRAINING


def test_an_id_is_never_given_twice(store: Store) -> None:
    bring(store, Mode.READY)
    store.register("gateway", "gateway", now=NOW)
    first = lease(store)
    store.release(first, now=NOW)
    assert lease(store).id > first.id


def test_an_instance_lives_as_long_as_its_beat_changes(store: Store) -> None:
    bring(store, Mode.READY)
    store.register("gateway", "gateway", now=NOW)
    lease(store)
    (seen,) = store.instances()
    store.beat("gateway", now=NOW)
    assert not store.bury("gateway", seen.beat, now=NOW)
    assert row(store).claims.leases == 1
    (seen,) = store.instances()
    assert store.bury("gateway", seen.beat, now=NOW)
    assert store.bury("gateway", seen.beat, now=NOW), "somebody else did it already"
    assert (row(store).claims.leases, list(store.instances())) == (0, [])
    for act in (
        lambda: store.beat("gateway", now=NOW),
        lambda: store.take_lease("gateway", "box", now=NOW),
    ):
        with pytest.raises(StaleError, match="taken for dead"):
            act()
    assert store.happenings(most=1)[0].text == "gateway is dead: 1 of its leases ended"


def test_an_instance_keeps_the_leases_that_it_knows_of_and_gives_back_all_others(store: Store) -> None:
    bring(store, Mode.READY)
    for name in ("gateway", "other"):
        store.register(name, "gateway", now=NOW)
    kept, _, _ = lease(store), lease(store), lease(store, instance="other")
    store.keep_leases("gateway", [kept])
    assert row(store).claims.leases == 2
    store.release(kept, now=NOW)
    assert row(store).claims.leases == 1
    store.keep_leases("other", ())
    assert row(store).claims.leases == 0


def test_an_instance_that_retires_is_forgotten_with_its_leases_and_nobody_is_told_that_it_died(
    store: Store,
) -> None:
    bring(store, Mode.READY)
    store.register("gateway", "gateway", now=NOW)
    lease(store)
    before = store.happenings()
    store.retire("gateway", now=NOW)
    store.retire("gateway", now=NOW)
    assert (row(store).claims.leases, list(store.instances())) == (0, [])
    assert store.happenings() == before
    with pytest.raises(StaleError):
        store.beat("gateway", now=NOW)


def test_an_instance_that_registers_again_loses_its_leases(store: Store) -> None:
    bring(store, Mode.READY)
    store.register("gateway", "gateway", now=NOW)
    old = lease(store)
    store.register("gateway", "gateway", now=NOW)
    assert row(store).claims.leases == 0
    lease(store)
    store.release(old, now=NOW)
    assert row(store).claims.leases == 1


# --- holds, wishes, hands off ---


def test_holds_end_one_by_one_or_all_at_once(store: Store) -> None:
    bring(store, Mode.READY)
    one = store.hold("box", "training", "ann", until=NOW + 9, now=NOW)
    store.hold("box", "apply", "bob", until=NOW + 99, now=NOW)
    store.hold("box", "a demo", "bob", until=NOW + 99, now=NOW)
    assert row(store).holds[0] == one
    assert store.release_hold("nas", hold=one.id, by="ann", now=NOW) == 0
    assert store.release_hold("box", hold=one.id, by="ann", now=NOW) == 1
    assert store.release_hold("box", hold=one.id, by="ann", now=NOW) == 0
    assert [hold.why for hold in row(store).holds] == ["apply", "a demo"]
    assert store.release_hold("box", by="ann", now=NOW) == 2
    assert row(store).holds == ()


def test_a_wish_to_sleep_claims_nothing(store: Store) -> None:
    term = bring(store, Mode.READY)
    kept = store.wish(replace(wish(sleep=True), force=True), now=NOW)
    assert row(store).wishes == (kept,)
    assert kept == replace(wish(sleep=True), id=kept.id, force=True)
    assert row(store).claims == Claims()
    assert step(store, Event.WENT_QUIET, term=term) is Mode.DRAINING
    store.wish(wish(sleep=True), now=NOW)
    assert row(store).mode is Mode.DRAINING


def test_a_wish_ends(store: Store) -> None:
    bring(store, Mode.READY)
    kept = store.wish(wish(), now=NOW)
    store.end_wish(kept.id, now=NOW)
    store.end_wish(kept.id, now=NOW)
    assert row(store).wishes == ()


def test_a_pause_says_why_and_by_whom_and_ends_with_the_quarantine(store: Store) -> None:
    term = bring(store, Mode.READY)
    store.pause("box", "a new fan", "ann", now=NOW)
    store.note_repair("box", Repair(), "GPU-1 is missing", term=term, now=NOW)
    assert row(store).paused == "a new fan (ann)"
    assert row(store).claims.paused
    store.resume("box", "bob", now=NOW)
    assert (row(store).paused, row(store).quarantined, row(store).claims) == ("", "", Claims())


def test_a_pause_of_the_rack_holds_for_all_hosts(store: Store) -> None:
    bring(store, Mode.DRAINING)
    bring(store, Mode.ASLEEP, host="nas")
    store.pause(None, "moving house", "ann", now=NOW)
    known = store.known(now=NOW)
    assert known.paused == "moving house (ann)"
    assert all(host.claims.paused and not host.paused for host in known.hosts.values())
    assert (row(store).mode, row(store, "nas").mode) == (Mode.READY, Mode.ASLEEP)
    store.resume(None, "ann", now=NOW)
    assert (store.known(now=NOW).paused, row(store).claims.paused) == ("", False)


# --- who leads ---


def test_one_leads_until_it_is_known_to_be_dead_or_gives_up(store: Store) -> None:
    assert store.leading() is None
    first = store.lead("one", over=None, now=NOW)
    assert first is not None
    assert (first, first.term) == (store.leading(), 1)
    assert store.lead("two", over=None, now=NOW) is None
    beaten = store.keep_leading(first, now=NOW)
    assert beaten.beat != first.beat
    assert store.lead("two", over=first, now=NOW) is None, "it has beaten since"
    second = store.lead("two", over=beaten, now=NOW)
    assert second is not None
    assert (second.holder, second.term) == ("two", 2)
    with pytest.raises(StaleError, match=r"term 1 is over; now it is term 2"):
        store.keep_leading(beaten, now=NOW)
    store.abdicate(beaten, now=NOW)
    assert store.leading() == second, "the old leader cannot end the lead of the new one"
    store.abdicate(second, now=NOW)
    assert store.leading() is None
    with pytest.raises(StaleError):
        store.keep_leading(second, now=NOW)
    third = store.lead("one", over=None, now=NOW)
    assert third is not None
    assert third.term == 3


def test_a_stale_leader_changes_nothing(store: Store, opened: Opened) -> None:
    term = bring(store, Mode.DRAINING)
    old, new = store, opened()
    taken_over = new.lead("standby", over=new.leading(), now=NOW)
    assert taken_over is not None
    before = row(old)
    version = before.version
    for act in (
        lambda: old.move("box", Event.NEEDED, "", version=version, term=term, now=NOW),
        lambda: old.order("box", ORDER, "", version=version, term=term, now=NOW),
        lambda: old.note_attempt("box", Attempt(NOW), version=version, term=term, now=NOW),
        lambda: old.note_boot("box", "x", 1, term=term, now=NOW),
        lambda: old.note_came_up("box", 1.0, term=term, now=NOW),
        lambda: old.note_repair("box", Repair(("reboot",)), "", term=term, now=NOW),
        lambda: old.intend("box", "wake", "", term=term, now=NOW),
    ):
        with pytest.raises(StaleError, match=f"the lead of term {term} is over"):
            act()
    assert row(old) == before
    new.move("box", Event.NEEDED, "", version=version, term=taken_over.term, now=NOW)
    new.abdicate(taken_over, now=NOW)
    with pytest.raises(StaleError):
        new.note_boot("box", "x", 1, term=taken_over.term, now=NOW)


# --- intents and the log ---


def test_an_intent_is_unfinished_until_its_outcome(store: Store) -> None:
    term = bring(store, Mode.READY)
    first = store.intend("box", "wake", "ann wants it", term=term, now=NOW)
    second = store.intend("box", "suspend", "it is idle", term=term, now=NOW + 1)
    assert [(i.id, i.action, i.outcome) for i in store.unfinished()] == [
        (first, "wake", None),
        (second, "suspend", None),
    ]
    store.outcome(first, "done", now=NOW + 2)
    assert [i.id for i in store.unfinished()] == [second]


def test_the_log_gives_the_newest_lines_oldest_first(store: Store) -> None:
    for number in range(5):
        store.happen("box" if number % 2 else "nas", "test", f"line {number}", now=NOW + number)
    assert [line.text for line in store.happenings(most=2)] == ["line 3", "line 4"]
    assert [line.text for line in store.happenings(host="box")] == ["line 1", "line 3"]
    last = store.happenings()[-1]
    assert store.happenings(after=last.id) == []
    assert (last.at, last.host, last.kind) == (NOW + 4, "nas", "test")


def test_the_log_gives_only_what_is_sought(store: Store) -> None:
    for number, text in enumerate(("Woken for ann", "100% of it", "woken_for ben", "asleep")):
        store.happen("box", "wish" if number % 2 else "mode", text, now=NOW + number)

    def found(host: str | None = "box", **only: Any) -> list[str]:
        return [line.text for line in store.happenings(host=host, only=Sought(**only))]

    assert found(since=NOW + 1, until=NOW + 3) == ["100% of it", "woken_for ben"]
    assert found(kinds=("wish",)) == ["100% of it", "asleep"]
    assert found(text="WOKEN") == ["Woken for ann", "woken_for ben"]
    assert found(text="n_f") == ["woken_for ben"]
    assert found(text="%") == ["100% of it"]
    assert found(host="nas", text="woken") == []
    newest = store.happenings(host="box", most=1, only=Sought(kinds=("mode",)))
    assert [line.text for line in newest] == ["woken_for ben"]


def test_every_move_is_in_the_log(store: Store) -> None:
    bring(store, Mode.SUSPENDING)
    moves = [line.text.partition(":")[0] for line in store.happenings(host="box") if line.kind == "mode"]
    mode, expected = Mode.UNKNOWN, []
    for event in PATHS[Mode.SUSPENDING]:
        expected.append(f"{mode} -> {NEXT[mode, event]}")
        mode = NEXT[mode, event]
    assert moves == expected


def test_pruning_forgets_what_is_over_and_keeps_what_is_not(store: Store) -> None:
    term = bring(store, Mode.READY)
    store.prune(before=NOW + 1)
    store.happen("box", "test", "old", now=NOW)
    store.happen("box", "test", "new", now=NOW + 50)
    done = store.intend("box", "wake", "", term=term, now=NOW)
    store.outcome(done, "done", now=NOW)
    store.intend("box", "suspend", "", term=term, now=NOW)
    store.wish(wish(until=NOW + 5), now=NOW + 50)
    store.wish(wish(until=NOW + 500), now=NOW + 50)
    assert store.prune(before=NOW + 20) == 3
    assert "old" not in [line.text for line in store.happenings()]
    assert [intent.action for intent in store.unfinished()] == ["suspend"]
    assert len(row(store, now=NOW).wishes) == 1
    assert store.prune(before=NOW + 20) == 0


# --- two at once ---


def test_what_one_commits_the_other_sees_at_once(store: Store, opened: Opened) -> None:
    term = bring(store, Mode.DRAINING)
    other = opened()
    other.register("gateway", "gateway", now=NOW)
    version = row(store).version
    lease(other)
    with pytest.raises(StaleError, match="it is ready"):
        store.order("box", ORDER, "", version=version, term=term, now=NOW)
    assert row(other) == row(store)


def _together(*acts: Callable[[], object]) -> list[object]:
    """Do things at the same moment; return what each returned or raised."""
    gate = threading.Barrier(len(acts))

    def one(act: Callable[[], object]) -> object:
        gate.wait(30)
        try:
            return act()
        except (StaleError, LabctlError) as error:
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return [done.result() for done in [pool.submit(one, act) for act in acts]]


def test_of_two_who_want_to_lead_one_does(opened: Opened) -> None:
    one, two = opened(), opened()
    over = None
    for term in range(1, 11):
        got = _together(
            lambda over=over: one.lead("one", over=over, now=NOW),
            lambda over=over: two.lead("two", over=over, now=NOW),
        )
        leads = [leadership for leadership in got if leadership is not None]
        assert leads == [one.leading()]
        over = one.leading()
        assert over is not None
        assert over.term == term


def test_of_an_order_and_a_lease_one_wins(opened: Opened) -> None:
    controller, gateway = opened(), opened()
    term = bring(controller, Mode.READY)
    gateway.register("gateway", "gateway", now=NOW)
    for _ in range(10):
        version = row(controller).version
        controller.move("box", Event.WENT_QUIET, "", version=version, term=term, now=NOW)
        ordered, leased = _together(
            lambda version=version + 1: controller.order(
                "box", ORDER, "", version=version, term=term, now=NOW
            ),
            lambda: gateway.take_lease("gateway", "box", now=NOW),
        )
        if ordered == Verdict(True, "nothing claims it"):
            assert leased is Mode.SUSPENDING
            step(controller, Event.REFUSED, term=term)
        else:
            assert isinstance(ordered, StaleError)
            assert isinstance(leased, Lease)
            gateway.release(leased, now=NOW)


def test_who_has_looked_before_sees_what_another_has_changed_since(opened: Opened) -> None:
    one, other = opened(), opened()
    bring(one, Mode.READY)
    one.register("gateway", "gateway", now=NOW)
    changes: list[Callable[[], object]] = [
        lambda: other.hold("box", "a demo", "ann", until=NOW + 60, now=NOW),
        lambda: other.wish(Wish(0, "box", "ann", "work", NOW, NOW + 30), now=NOW),
        lambda: lease(other),
        lambda: other.note_proof("box", PROOF, "passed", now=NOW),
        lambda: other.note_came_up("box", 21.0, term=1, now=NOW),
        lambda: other.pause(None, "moving house", "ann", now=NOW),
        lambda: other.resume(None, "ann", now=NOW),
        lambda: other.pause("box", "new fans", "ann", now=NOW),
        lambda: step(other, Event.LOST),
    ]
    seen = [row(one)]
    for change in changes:
        change()
        seen.append(row(one))
        assert seen[-1] == row(other) != seen[-2]
    assert (row(one, now=NOW + 31).wishes, len(row(one, now=NOW + 31).holds)) == ((), 1)
    assert one.known_host("nobody", now=NOW) is None


def test_the_same_thing_said_by_many_at_once_is_said_once(opened: Opened) -> None:
    stores = [opened() for _ in range(4)]
    assert _together(*(lambda s=s: s.enlist(["box", "nas"], now=NOW) for s in stores)) == [None] * 4
    assert len(stores[0].known(now=NOW).hosts) == 2
    said = _together(*(lambda s=s: s.register("gateway", "gateway", now=NOW) for s in stores))
    assert said == [None] * 4
    assert len(stores[0].instances()) == 1
    beaten = _together(*(lambda s=s: s.beat("gateway", now=NOW) for s in stores))
    assert beaten == [None] * 4
    assert stores[0].instances()[0].beat == 4


def test_a_buried_instance_and_its_lease_never_both_last(opened: Opened) -> None:
    controller, gateway = opened(), opened()
    bring(controller, Mode.READY)
    for _ in range(10):
        gateway.register("gateway", "gateway", now=NOW)
        _together(
            lambda: controller.bury("gateway", 0, now=NOW),
            lambda: gateway.take_lease("gateway", "box", now=NOW),
        )
        assert row(controller).claims.leases == 0


def test_one_store_serves_many_threads(store: Store) -> None:
    bring(store, Mode.READY)
    store.register("gateway", "gateway", now=NOW)
    taken = _together(*[lambda: store.take_lease("gateway", "box", now=NOW)] * 12)
    assert len({lease.id for lease in taken if isinstance(lease, Lease)}) == 12
    assert row(store).claims.leases == 12


def test_a_pause_of_the_rack_and_an_order_never_both_hold(opened: Opened) -> None:
    controller, person = opened(), opened()
    term = bring(controller, Mode.READY)
    for _ in range(10):
        version = row(controller).version
        controller.move("box", Event.WENT_QUIET, "", version=version, term=term, now=NOW)
        ordered, _ = _together(
            lambda version=version + 1: controller.order(
                "box", ORDER, "", version=version, term=term, now=NOW
            ),
            lambda: person.pause(None, "moving", "ann", now=NOW),
        )
        closed = row(controller).mode is Mode.SUSPENDING
        assert closed == (ordered == Verdict(True, "nothing claims it"))
        if closed:
            step(controller, Event.REFUSED, term=term)
        person.resume(None, "ann", now=NOW)
