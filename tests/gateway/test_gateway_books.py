"""Leases, beats, the world and wishes, on a real store with clocks of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
from books_kit import NOW, Site, bring, host, site_at, site_on

from labctl.domain.sleep.lifecycle import ADMITS, Event, Mode
from labctl.domain.sleep.terms import Attempt, Fingerprint, How, Proof
from labctl.gateway.books.books import BEAT_S, FROZEN_S, STUCK_S
from labctl.gateway.books.seats import LINGER_S
from labctl.gateway.books.vigils import RENEW_S
from labctl.gateway.terms import Books, HostNow, Refused

Story = Callable[[Site], Coroutine[None, None, None]]


def told(site: Site, story: Story) -> None:
    """Run a story after the first look."""

    async def run() -> None:
        site.books.tick()
        site.clerk.rounds()
        await story(site)

    asyncio.run(run())


async def heard() -> None:
    """Let everybody hear what was told."""
    for _ in range(5):
        await asyncio.sleep(0)


# --- leases ---


def test_books_are_what_the_desk_expects(tmp_path: Path) -> None:
    books: Books = site_at(tmp_path).books
    assert not books.enter("gpu1")


def test_the_first_request_takes_a_lease_and_the_next_only_count(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        assert not site.books.enter("gpu1")
        assert await site.books.lease("gpu1") is None
        assert site.leases() == 1
        version = site.clerk.waiting
        assert site.books.enter("gpu1")
        assert await site.books.lease("gpu1") is None
        assert (site.leases(), site.clerk.waiting) == (1, version)

    told(site_at(tmp_path), story)


def test_requests_that_come_at_once_take_one_lease(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        assert await asyncio.gather(*(site.books.lease("gpu1") for _ in range(200))) == [None] * 200
        assert site.leases() == 1
        for _ in range(200):
            site.books.leave("gpu1")
        with pytest.raises(RuntimeError, match="gpu1: more requests left than came"):
            site.books.leave("gpu1")

    told(site_at(tmp_path), story)


def test_a_lease_is_given_back_a_little_after_the_last_request(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.books.lease("gpu1")
        site.books.enter("gpu1")
        site.pass_s(LINGER_S * 3)
        assert site.leases() == 1
        site.books.leave("gpu1")
        site.books.leave("gpu1")
        site.pass_s(LINGER_S - 0.1)
        assert site.leases() == 1
        assert site.books.enter("gpu1")
        site.books.leave("gpu1")
        site.pass_s(LINGER_S - 0.1)
        assert site.leases() == 1
        site.pass_s(0.2)
        assert site.leases() == 0
        assert not site.books.enter("gpu1")
        assert await site.books.lease("gpu1") is None

    told(site_at(tmp_path), story)


def test_a_request_brings_a_draining_host_back(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        assert site.books.world.hosts["gpu1"].mode is Mode.DRAINING
        assert await site.books.lease("gpu1") is None
        assert site.books.world.hosts["gpu1"].mode is site.row().mode is Mode.READY

    told(site_at(tmp_path, {"gpu1": Mode.DRAINING}), story)


@pytest.mark.parametrize("mode", sorted(set(Mode) - ADMITS))
def test_other_modes_give_no_lease_and_say_so(tmp_path: Path, mode: Mode) -> None:
    async def story(site: Site) -> None:
        refused = await site.books.lease("gpu1")
        assert refused == Refused(mode, f"it is {mode}")
        assert not site.books.enter("gpu1")
        assert site.leases() == 0

    told(site_at(tmp_path, {"gpu1": mode}), story)


def test_a_refusal_shows_the_mode_that_the_store_has(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        site.move(Event.WENT_QUIET)
        assert site.order()
        assert site.books.world.hosts["gpu1"].mode is Mode.READY
        assert await site.books.lease("gpu1") == Refused(Mode.SUSPENDING, "it is suspending")
        assert site.books.world.hosts["gpu1"].mode is Mode.SUSPENDING

    told(site_at(tmp_path), story)


def test_a_host_that_nobody_knows_gives_no_lease(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        refused = await site.books.lease("nas")
        assert refused == Refused(Mode.UNKNOWN, "the gateway's table has no host nas")
        assert await site.books.lease("new") == Refused(Mode.UNKNOWN, "it is unknown")
        assert "apply --only controller" in site.books.world.hosts["new"].refused

    told(site_at(tmp_path, None, host(), host("new")), story)


def test_under_a_lease_nobody_is_let_in_while_the_mode_does_not_admit(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.books.lease("gpu1")
        site.move(Event.LOST)
        site.pass_s(1.0)
        assert not site.books.enter("gpu1")
        assert await site.books.lease("gpu1") == Refused(Mode.UNKNOWN, "it is unknown")
        assert site.leases() == 1  # who is in, is in
        site.move(Event.SEEN)
        site.move(Event.PASSED)
        site.pass_s(1.0)
        assert site.books.enter("gpu1")

    told(site_at(tmp_path), story)


def test_who_goes_while_he_waits_for_a_lease_is_not_counted(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        site.clerk.lag = True
        tasks = [asyncio.create_task(site.books.lease("gpu1")) for _ in range(3)]
        await heard()
        tasks[0].cancel()
        await heard()
        site.clerk.rounds()
        tasks[1].cancel()  # it was told, and has not heard it
        assert await asyncio.gather(*tasks, return_exceptions=True) != [None] * 3
        assert [task.cancelled() for task in tasks] == [True, True, False]
        site.books.leave("gpu1")
        with pytest.raises(RuntimeError):
            site.books.leave("gpu1")
        site.pass_s(LINGER_S)
        assert site.leases() == 0

    told(site_at(tmp_path), story)


def test_an_order_and_a_lease_are_never_both_given(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        site.move(Event.WENT_QUIET)
        site.clerk.lag = True
        first = asyncio.create_task(site.books.lease("gpu1"))
        await heard()
        assert site.order()  # it came before
        site.clerk.rounds()
        assert await first == Refused(Mode.SUSPENDING, "it is suspending")
        site.move(Event.REFUSED)
        site.move(Event.WENT_QUIET)
        site.pass_s(1.0)
        second = asyncio.create_task(site.books.lease("gpu1"))
        await heard()
        site.clerk.rounds()
        assert await second is None
        assert site.row().mode is Mode.READY

    told(site_at(tmp_path), story)


# --- beats, and what becomes of a process that did not beat ---


def beat_of(site: Site, name: str = "gateway") -> int:
    return next(one.beat for one in site.store.instances() if one.name == name)


def test_it_registers_and_beats_every_few_seconds(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        assert [(one.name, one.kind) for one in site.store.instances()] == [("gateway", "gateway")]
        before = beat_of(site)
        for _ in range(10):
            site.pass_s(1.0)
        assert beat_of(site) == before + 10 // BEAT_S

    told(site_at(tmp_path), story)


def test_who_was_taken_for_dead_takes_leases_again_for_hosts_with_requests(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.books.lease("gpu1")
        await site.books.lease("gpu2")
        site.books.leave("gpu2")
        assert site.store.bury("gateway", beat_of(site), now=site.clock.wall())
        site.pass_s(BEAT_S)
        assert (site.leases("gpu1"), site.leases("gpu2")) == (1, 0)
        assert site.books.enter("gpu1")
        assert not site.books.enter("gpu2")
        assert beat_of(site) == 0

    told(site_at(tmp_path, {"gpu1": Mode.READY, "gpu2": Mode.READY}), story)


def test_a_dead_one_whose_host_went_to_sleep_lets_nobody_in_there(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.books.lease("gpu1")
        site.store.bury("gateway", beat_of(site), now=site.clock.wall())
        site.move(Event.WENT_QUIET)
        assert site.order()
        site.pass_s(BEAT_S)
        assert not site.books.enter("gpu1")
        assert await site.books.lease("gpu1") == Refused(Mode.SUSPENDING, "it is suspending")
        site.books.leave("gpu1")

    told(site_at(tmp_path), story)


def test_a_lease_that_is_asked_for_by_a_dead_one_comes_with_its_next_life(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        site.store.bury("gateway", beat_of(site), now=site.clock.wall())
        task = asyncio.create_task(site.books.lease("gpu1"))
        await heard()
        site.clerk.rounds()
        assert await task is None
        assert site.leases() == 1

    told(site_at(tmp_path), story)


def test_after_a_standstill_nobody_is_let_in_before_the_store_was_asked(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.books.lease("gpu1")
        site.clerk.lag = True
        site.clock.passed += FROZEN_S + 1
        site.books.tick()
        assert not site.books.enter("gpu1")
        task = asyncio.create_task(site.books.lease("gpu1"))
        await heard()
        assert not task.done()
        site.clerk.rounds()
        assert await task is None
        assert site.books.enter("gpu1")

    told(site_at(tmp_path), story)


def test_who_ends_gives_all_back_and_is_forgotten(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.books.lease("gpu1")
        site.books.want("gpu2", "gateway ann", "m was asked for", until=NOW + 60)
        site.clerk.rounds()
        assert site.row("gpu2").wishes
        await site.books.close()
        assert (site.leases("gpu1"), site.store.instances(), site.row("gpu2").wishes) == (0, [], ())
        assert await site.books.lease("gpu1") == Refused(None, "the gateway is about to end")

    told(site_at(tmp_path, {"gpu1": Mode.READY, "gpu2": Mode.ASLEEP}), story)


# --- the world ---


def test_nothing_is_known_before_the_first_look(tmp_path: Path) -> None:
    site = site_at(tmp_path, {"gpu1": Mode.ASLEEP}, host(), host("box", wakeable=False))
    now = site.books.world.hosts["gpu1"]
    assert now == HostNow("gpu1", Mode.UNKNOWN, 0.0, "the store was not looked at yet", 90.0)
    assert site.books.world.hosts["box"].refused == "nothing wakes it"


def test_a_look_that_finds_nothing_new_changes_nothing(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        before = site.books.world
        site.pass_s(1.0)
        after = site.books.world
        assert after.hosts is before.hosts
        assert after.at == before.at + 1.0

    told(site_at(tmp_path), story)


def test_how_long_a_wake_takes_is_learnt_and_counted_down(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        store, world = site.store, lambda: site.books.world.hosts["gpu1"]
        leading = store.leading()
        assert leading is not None
        assert (world().comes_s, world().left_s) == (90.0, 0.0)
        print_ = Fingerprint("6.1", "580", "igc", How.SUSPEND, "deep")
        store.note_proof("gpu1", Proof(print_, NOW, 3, 4.0, 25.0), "passed", now=NOW)
        site.pass_s(1.0)
        assert world().comes_s == 25.0
        for took in (30.0, 20.0, 22.0):
            store.note_came_up("gpu1", took, term=leading.term, now=NOW)
        site.pass_s(1.0)
        assert world().comes_s == 22.0
        site.move(Event.WISHED)
        began = site.clock.wall()
        version = site.row().version
        attempt = Attempt(began, 1, began, "")
        store.note_attempt("gpu1", attempt, version=version, term=leading.term, now=began)
        site.pass_s(5.0)
        assert (world().mode, world().left_s) == (Mode.WAKING, 17.0)
        site.move(Event.SEEN)
        site.pass_s(5.0)
        assert (world().mode, world().left_s) == (Mode.VERIFYING, 12.0)
        site.pass_s(60.0)
        assert world().left_s == 0.0
        site.clock.passed -= 3600.0  # the clock goes back
        site.books.tick()
        site.clerk.rounds()
        assert world().left_s == 22.0

    told(site_at(tmp_path, {"gpu1": Mode.ASLEEP}), story)


def test_who_must_not_be_woken_is_shown_with_the_reason(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        def refused() -> str:
            site.pass_s(1.0)
            return site.books.world.hosts["gpu1"].refused

        assert refused() == ""
        site.store.pause(None, "moving house", "ann", now=NOW)
        assert refused() == "the rack is paused: moving house (ann)"
        assert site.books.world.paused == "moving house (ann)"
        site.store.pause("gpu1", "new fans", "ann", now=NOW)
        assert refused() == "it is paused: new fans (ann)"
        site.store.resume(None, "ann", now=NOW)
        site.store.resume("gpu1", "ann", now=NOW)
        assert refused() == ""
        leading = site.store.leading()
        assert leading is not None
        repair = site.row().repair
        site.store.note_repair("gpu1", repair, "card 0 is gone", term=leading.term, now=NOW)
        assert refused() == "it is quarantined: card 0 is gone"

    told(site_at(tmp_path, {"gpu1": Mode.ASLEEP}), story)


def test_looking_writes_nothing(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        site.pass_s(BEAT_S)
        path = tmp_path / "store.db-wal"
        before = path.read_bytes()
        for _ in range(100):
            site.pass_s(0.04)
        assert path.read_bytes() == before

    told(site_at(tmp_path), story)


# --- wishes ---


def test_five_hundred_who_wait_make_one_wish_and_one_nudge(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        want = site.books.want
        waiters = [want("gpu1", f"gateway k{n}", "m was asked for", until=NOW + 300) for n in range(500)]
        tasks = [asyncio.create_task(waiter.changed(60.0)) for waiter in waiters]
        site.clerk.rounds()
        await heard()
        (wish,) = site.row().wishes
        assert (wish.by, wish.why, wish.until) == ("gateway k0", "m was asked for", NOW + 300)
        assert site.nudged == ["gpu1"]
        site.pass_s(1.0)
        await heard()
        assert not any(task.done() for task in tasks)
        site.move(Event.WISHED, because="round 1 was sent")
        site.pass_s(1.0)
        now = await asyncio.gather(*tasks)
        assert {(one.mode, one.because) for one in now} == {(Mode.WAKING, "round 1 was sent")}
        for waiter in waiters[1:]:
            waiter.leave()
            waiter.leave()
        site.clerk.rounds()
        assert len(site.row().wishes) == 1
        waiters[0].leave()
        site.clerk.rounds()
        assert site.row().wishes == ()
        kinds = [one.kind for one in site.store.happenings(host="gpu1")]
        assert kinds.count("wish") == 1

    told(site_at(tmp_path, {"gpu1": Mode.ASLEEP}), story)


def test_a_change_between_two_calls_is_not_missed(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        waiter = site.books.want("gpu1", "gateway ann", "m", until=NOW + 300)
        site.clerk.rounds()
        assert (await waiter.changed(0.0)).mode is Mode.ASLEEP  # nothing changed in this time
        site.move(Event.WISHED)
        site.pass_s(1.0)
        site.move(Event.SEEN)
        site.pass_s(1.0)
        assert (await asyncio.wait_for(waiter.changed(60.0), 5)).mode is Mode.VERIFYING
        waiter.leave()

    told(site_at(tmp_path, {"gpu1": Mode.ASLEEP}), story)


def test_who_leaves_while_he_waits_is_told_at_once(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        waiter = site.books.want("gpu1", "gateway ann", "m", until=NOW + 300)
        task = asyncio.create_task(waiter.changed(60.0))
        await heard()
        waiter.leave()
        assert (await asyncio.wait_for(task, 5)).mode is Mode.ASLEEP
        with pytest.raises(RuntimeError, match="told nothing"):
            await waiter.changed(1.0)

    told(site_at(tmp_path, {"gpu1": Mode.ASLEEP}), story)


def test_a_wish_that_is_nearly_over_is_made_anew_while_somebody_waits(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        first = site.books.want("gpu1", "gateway ann", "m", until=NOW + 60)
        site.clerk.rounds()
        second = site.books.want("gpu1", "gateway bob", "m", until=NOW + 300)
        site.clerk.rounds()
        assert [one.until for one in site.row().wishes] == [NOW + 60]
        site.pass_s(60 - RENEW_S + 1)
        assert [one.until for one in site.row().wishes] == [NOW + 300]
        first.leave()
        site.pass_s(250.0)
        assert site.row().wishes == ()  # nobody waits longer than that
        second.leave()

    told(site_at(tmp_path, {"gpu1": Mode.ASLEEP}), story)


def test_a_wish_that_somebody_takes_back_is_made_anew_while_somebody_waits(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        waiter = site.books.want("gpu1", "gateway ann", "m", until=NOW + 300)
        site.clerk.rounds()
        (wish,) = site.row().wishes
        site.store.end_wish(wish.id, now=NOW)
        site.pass_s(1.0)
        (again,) = site.row().wishes
        assert again.id != wish.id
        waiter.leave()
        site.clerk.rounds()
        assert site.row().wishes == ()

    told(site_at(tmp_path, {"gpu1": Mode.ASLEEP}), story)


def test_a_wish_that_came_true_is_left_to_the_controller(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        waiter = site.books.want("gpu1", "gateway ann", "m", until=NOW + 300)
        site.clerk.rounds()
        for event in (Event.WISHED, Event.SEEN, Event.PASSED):
            site.move(event)
        (wish,) = site.row().wishes
        site.store.end_wish(wish.id, now=NOW)
        for _ in range(3):
            site.pass_s(1.0)
        assert site.row().wishes == ()
        assert site.nudged == ["gpu1"]
        waiter.leave()

    told(site_at(tmp_path, {"gpu1": Mode.ASLEEP}), story)


def test_who_leaves_before_the_wish_is_written_leaves_none_behind(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        site.clerk.lag = True
        site.books.want("gpu1", "gateway ann", "m", until=NOW + 300).leave()
        site.clerk.rounds()
        assert site.row().wishes == ()

    told(site_at(tmp_path, {"gpu1": Mode.ASLEEP}), story)


def test_a_wish_for_a_host_that_the_store_does_not_know_troubles_nobody(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        waiter = site.books.want("new", "gateway ann", "m", until=NOW + 300)
        for _ in range(5):
            site.pass_s(1.0)
        assert site.books.world.trouble == ""
        assert site.nudged == []
        bring(site.store, "new", Mode.ASLEEP)
        waiter.leave()
        again = site.books.want("new", "gateway ann", "m", until=NOW + 300)
        site.clerk.rounds()
        assert len(site.row("new").wishes) == 1
        again.leave()

    told(site_at(tmp_path, None, host(), host("new")), story)


def test_two_gateways_have_a_wish_and_a_lease_each(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        other = site_on(site.store, tmp_path / "store.db", host(), name="other")
        other.books.tick()
        other.clerk.rounds()
        assert await site.books.lease("gpu1") is None
        assert await other.books.lease("gpu1") is None
        assert site.leases() == 2
        site.books.leave("gpu1")
        site.pass_s(LINGER_S)
        assert site.leases() == 1
        site.move(Event.LOST)
        waiters = [one.books.want("gpu1", "gateway ann", "m", until=NOW + 300) for one in (site, other)]
        other.pass_s(1.0)
        site.pass_s(1.0)
        assert len(site.row().wishes) == 2
        for waiter in waiters:
            waiter.leave()

    told(site_at(tmp_path), story)


def test_a_note_is_kept(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        site.books.note("gpu1", "wake", "the key ann woke it")
        site.clerk.rounds()
        last = site.store.happenings(host="gpu1")[-1]
        assert (last.kind, last.text) == ("wake", "the key ann woke it")

    told(site_at(tmp_path), story)


def test_a_store_that_does_not_answer_is_a_trouble_and_its_answer_ends_it(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        site.clerk.lag = True
        task = asyncio.create_task(site.books.lease("gpu1"))
        await heard()
        site.clerk.busy_since = site.clock.mono()
        site.clock.passed += STUCK_S + 0.1
        site.books.tick()
        assert await task == Refused(None, "the store does not answer")
        assert await site.books.lease("gpu1") == Refused(None, "the store does not answer")
        site.clerk.busy_since = None
        site.clerk.rounds()
        site.pass_s(1.0)
        assert site.books.world.trouble == ""
        site.clerk.lag = False
        assert await site.books.lease("gpu1") is None

    told(site_at(tmp_path), story)
