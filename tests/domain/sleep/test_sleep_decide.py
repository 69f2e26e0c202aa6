# ruff: noqa: E501 - one case a line reads best
"""What is done about a host in each mode, for each thing that may be seen or wanted of it."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest
from sleep_cases import (
    DARK,
    MONO,
    NOW,
    PROOF,
    QUIET,
    RUNS,
    WALL,
    decide,
    host,
    is_dark,
    kinds,
    known,
    policy,
    report,
    row,
    seen,
    silent,
    talks,
    wish,
    word,
)

from labctl.domain.budget import BOARD, Card, Circuit, Supply
from labctl.domain.budget import Host as WattHost
from labctl.domain.budget import Rack as WattRack
from labctl.domain.sleep import reconcile
from labctl.domain.sleep.actions import Move, SendWake, StepCaps, Suspend, Wait
from labctl.domain.sleep.lifecycle import NEXT, Claims, Mode
from labctl.domain.sleep.terms import (
    Attempt,
    Hold,
    How,
    KnownHost,
    Moment,
    Order,
    Policy,
    Reading,
    Repair,
    Said,
    SeenHost,
    Sign,
    Window,
    Wish,
)

BUSY = talks(said=report((*QUIET, Reading("sessions", True, "anna on pts/0"))), quiet_since=None)
SLEPT, BOOTED = talks(said=report(resumes=2)), talks(said=report(boot_id="new", resumes=0))
ORDER = Order("nonce", How.SUSPEND, WALL - 60, 120.0)
OLD = replace(ORDER, at=WALL - 600)
OFF = is_dark(signs={**DARK, "power": Sign.DARK})
METER = policy(host(has_meter=True))
HOLD = Hold(1, "gpu1", "backup", "carl", WALL + 600)
WORK = Window(frozenset(range(5)), 8 * 60, 18 * 60)  # it is Monday afternoon
EVENING = Window(frozenset(range(7)), 20 * 60, 22 * 60)


def _in(mode: Mode, **more: Any) -> KnownHost:
    return row(mode=mode, **more)


def _said(said: Said, nonce: str = "nonce") -> SeenHost:
    return talks(said=report(order=word(nonce, said)))


WANTED = {"wishes": (wish(),)}
ASKED = {"wishes": (wish(sleep=True),)}

TABLE: dict[str, tuple[KnownHost, SeenHost | None, Policy | None, list[str]]] = {
    # UNKNOWN is awake and busy until it says something
    "unknown, it talks": (_in(Mode.UNKNOWN, boot_id=""), talks(), None, ["Move seen"]),
    "unknown, it talks as before": (_in(Mode.UNKNOWN), talks(), None, ["Move seen"]),
    "unknown, it booted": (_in(Mode.UNKNOWN), BOOTED, None, ["Move came-back"]),
    "unknown, dark without a meter": (_in(Mode.UNKNOWN), is_dark(), None, []),
    "unknown, a sign of power without a meter": (_in(Mode.UNKNOWN), OFF, None, []),
    "unknown, dark by its meter": (_in(Mode.UNKNOWN), OFF, METER, ["Move dark"]),
    "unknown, dark by its meter for a moment": (_in(Mode.UNKNOWN), replace(OFF, dark_since=MONO - 2), METER, []),
    "unknown, its meter is not clear": (_in(Mode.UNKNOWN), is_dark(signs={**DARK, "power": Sign.UNCLEAR}), METER, []),
    "unknown, wanted": (_in(Mode.UNKNOWN, **WANTED), silent(), None, ["SendWake 1"]),
    "unknown, an old agent": (_in(Mode.UNKNOWN), silent(old_agent=True), None, []),
    # READY
    "ready, quiet": (_in(Mode.READY), talks(), None, ["Move went-quiet"]),
    "ready, busy": (_in(Mode.READY), BUSY, None, []),
    "ready, quiet and wanted": (_in(Mode.READY, **WANTED), talks(), None, []),
    "ready, held": (_in(Mode.READY, holds=(HOLD,)), talks(), None, []),
    "ready, it slept by itself": (_in(Mode.READY), SLEPT, None, ["Move came-back"]),
    "ready, one lost line": (_in(Mode.READY), silent(report=report(at=MONO - 12)), None, []),
    "ready, lost lines": (_in(Mode.READY), silent(report=report(at=MONO - 26)), None, ["Move lost"]),
    "ready, dark in one look": (_in(Mode.READY), is_dark(report=report(at=MONO - 12), for_s=2), None, []),
    "ready, dark in two looks": (_in(Mode.READY), is_dark(report=report(at=MONO - 12)), None, ["Move lost"]),
    "ready, an old agent": (_in(Mode.READY), silent(old_agent=True), None, []),
    "ready, ordered to sleep while busy": (_in(Mode.READY, **ASKED), BUSY, None, []),
    "ready, ordered to sleep": (_in(Mode.READY, **ASKED), talks(quiet_since=MONO - 2), None, ["Move went-quiet"]),
    "ready, forced to sleep while busy": (_in(Mode.READY, wishes=(wish(sleep=True, force=True),)), BUSY, None, ["Move went-quiet"]),
    "ready, forced to sleep under a lease": (_in(Mode.READY, wishes=(wish(sleep=True, force=True),), claims=Claims(leases=1)), talks(), None, []),
    "ready, quiet without a proof": (_in(Mode.READY, proof=None), talks(), None, ["Unload"]),
    "ready, quiet without a proof, freed": (_in(Mode.READY, proof=None), talks(unloaded=True), None, []),
    "ready, quiet for a moment without a proof": (_in(Mode.READY, proof=None), talks(quiet_since=MONO - 60), None, []),
    "ready, quiet, and only to free its cards": (_in(Mode.READY, proof=None), talks(), policy(host(how=How.UNLOAD)), ["Unload"]),
    "ready, quiet, proven for nothing but freeing": (_in(Mode.READY, proof=replace(PROOF, fingerprint=replace(RUNS, how=How.UNLOAD))), talks(), None, ["Unload"]),
    # DRAINING
    "draining, still quiet": (_in(Mode.DRAINING, since=WALL - 10), talks(), None, ["Suspend suspend"]),
    "draining, for a moment": (_in(Mode.DRAINING, since=WALL - 3), talks(), None, []),
    "draining, no line since": (_in(Mode.DRAINING, since=WALL - 10), talks(said=report(at=MONO - 11)), None, []),
    "draining, busy": (_in(Mode.DRAINING, since=WALL - 10), BUSY, None, ["Move needed"]),
    "draining, wanted": (_in(Mode.DRAINING, since=WALL - 10, **WANTED), talks(), None, ["Move needed"]),
    "draining, a lease": (_in(Mode.DRAINING, since=WALL - 10, claims=Claims(leases=1)), talks(), None, ["Move needed"]),
    "draining, held": (_in(Mode.DRAINING, since=WALL - 10, holds=(HOLD,)), talks(), None, ["Move needed"]),
    "draining, paused": (_in(Mode.DRAINING, since=WALL - 10, paused="bea: fan"), talks(), None, ["Move needed"]),
    "draining, its window begins": (_in(Mode.DRAINING, since=WALL - 10), talks(), policy(host(awake=(WORK,))), ["Move needed"]),
    "draining, a window, and ordered": (_in(Mode.DRAINING, since=WALL - 10, **ASKED), talks(), policy(host(awake=(WORK,))), ["Suspend suspend"]),
    "draining, lost": (_in(Mode.DRAINING, since=WALL - 10), is_dark(), None, ["Move lost"]),
    "draining, it slept by itself": (_in(Mode.DRAINING, since=WALL - 10), SLEPT, None, ["Move came-back"]),
    "draining, after a restart": (_in(Mode.DRAINING, since=WALL - 60), talks(quiet_since=MONO - 2), None, ["Move needed"]),
    # SUSPENDING: only its own word, or darkness
    "suspending, it talks": (_in(Mode.SUSPENDING, order=ORDER), talks(), None, []),
    "suspending, it says that it goes": (_in(Mode.SUSPENDING, order=ORDER), _said(Said.GOING), None, []),
    "suspending, it refused": (_in(Mode.SUSPENDING, order=ORDER), _said(Said.REFUSED), None, ["Move refused"]),
    "suspending, it failed": (_in(Mode.SUSPENDING, order=ORDER), _said(Said.FAILED), None, ["Move refused"]),
    "suspending, it refused another order": (_in(Mode.SUSPENDING, order=ORDER), _said(Said.REFUSED, "older"), None, []),
    "suspending, it slept": (_in(Mode.SUSPENDING, order=ORDER), talks(said=report(resumes=2, up_s=5.0)), None, ["Move came-back"]),
    "suspending, it slept before the order": (_in(Mode.SUSPENDING, order=ORDER), SLEPT, None, []),
    "suspending, it slept before an order that died": (_in(Mode.SUSPENDING, order=OLD), SLEPT, None, ["Move came-back"]),
    "suspending, it refused and booted": (_in(Mode.SUSPENDING, order=ORDER), talks(said=report(boot_id="new", order=word("nonce", Said.REFUSED))), None, ["Move came-back"]),
    "suspending, it talks after the order died": (_in(Mode.SUSPENDING, order=OLD), talks(), None, ["Move refused"]),
    "suspending, it goes and does not": (_in(Mode.SUSPENDING, order=OLD), _said(Said.GOING), None, ["Move refused"]),
    "suspending, it never told its boot": (_in(Mode.SUSPENDING, order=OLD, boot_id=""), talks(), None, ["Move came-back"]),
    "suspending, silent long after the order died": (_in(Mode.SUSPENDING, order=replace(ORDER, at=WALL - 400)), silent(), None, []),
    "suspending, silent for ever": (_in(Mode.SUSPENDING, order=OLD), silent(), None, ["Move gave-up"]),
    "suspending, dark": (_in(Mode.SUSPENDING, order=ORDER), is_dark(), None, ["Move dark"]),
    "suspending, dark in one look": (_in(Mode.SUSPENDING, order=ORDER), is_dark(for_s=2), None, []),
    "suspending, one dark sign": (_in(Mode.SUSPENDING, order=ORDER), is_dark(signs={"ping": Sign.DARK}), None, []),
    "suspending, dark but for its power": (_in(Mode.SUSPENDING, order=ORDER), is_dark(signs={**DARK, "power": Sign.ON}), None, []),
    "suspending, wanted": (_in(Mode.SUSPENDING, order=ORDER, **WANTED), talks(), None, ["Wait"]),
    "suspending, without an order": (_in(Mode.SUSPENDING, since=WALL - 60), talks(), None, []),
    "suspending, without an order for long": (_in(Mode.SUSPENDING), talks(), None, ["Move refused"]),
    # ASLEEP
    "asleep": (_in(Mode.ASLEEP), is_dark(), None, []),
    "asleep, wanted": (_in(Mode.ASLEEP, **WANTED), is_dark(), None, ["SendWake 1"]),
    "asleep, held": (_in(Mode.ASLEEP, holds=(HOLD,)), is_dark(), None, []),
    "asleep, it woke by itself": (_in(Mode.ASLEEP), SLEPT, None, ["Move came-back"]),
    "asleep, it never slept": (_in(Mode.ASLEEP), talks(), None, ["Move seen"]),
    "asleep, an old agent answers": (_in(Mode.ASLEEP), silent(old_agent=True), None, ["Move seen"]),
    "asleep, its window began": (_in(Mode.ASLEEP, since=WALL - 86400), is_dark(), policy(host(awake=(WORK,))), ["SendWake 1"]),
    "asleep, put to sleep in its window": (_in(Mode.ASLEEP), is_dark(), policy(host(awake=(WORK,))), []),
    "asleep, no way to wake it": (_in(Mode.ASLEEP, **WANTED), is_dark(), policy(host(wakeable=False)), ["Wait"]),
    "asleep, wanted and paused": (_in(Mode.ASLEEP, paused="bea: fan", **WANTED), is_dark(), None, ["Wait"]),
    "asleep, wanted and quarantined": (_in(Mode.ASLEEP, quarantined="no GPU-1", **WANTED), is_dark(), None, ["Wait"]),
    # WAKING
    "waking, first round": (_in(Mode.WAKING, **WANTED), is_dark(), None, ["SendWake 1"]),
    "waking, next round": (_in(Mode.WAKING, attempt=Attempt(WALL - 9, 2, WALL - 5)), is_dark(), None, ["SendWake 3"]),
    "waking, not yet": (_in(Mode.WAKING, attempt=Attempt(WALL - 9, 2, WALL - 0.5)), is_dark(), None, ["Wait"]),
    "waking, it talks": (_in(Mode.WAKING, attempt=Attempt(WALL - 9, 2, WALL - 5)), SLEPT, None, ["Move came-back"]),
    "waking, it talks as before": (_in(Mode.WAKING, attempt=Attempt(WALL - 9, 2, WALL - 5)), talks(), None, ["Move seen"]),
    "waking, in vain": (_in(Mode.WAKING, attempt=Attempt(WALL - 900, 40, WALL - 400)), is_dark(), None, ["Move gave-up"]),
    "waking, paused": (_in(Mode.WAKING, attempt=Attempt(WALL - 9, 2, WALL - 5), paused="bea: fan"), is_dark(), None, ["Wait"]),
    # VERIFYING
    "verifying": (_in(Mode.VERIFYING), talks(), None, ["Verify"]),
    "verifying, silent for a moment": (_in(Mode.VERIFYING), silent(report=report(at=MONO - 12)), None, []),
    "verifying, lost": (_in(Mode.VERIFYING), is_dark(), None, ["Move lost"]),
    "verifying, broken": (_in(Mode.VERIFYING, repair=Repair((), ("no GPU-1",))), talks(), None, ["Mend restart-engines"]),
    "verifying, an old agent": (_in(Mode.VERIFYING), silent(old_agent=True), None, ["Wait"]),
    "verifying, paused": (_in(Mode.VERIFYING, paused="bea: fan"), talks(), None, ["Wait"]),
    "verifying, quarantined": (_in(Mode.VERIFYING, quarantined="no GPU-1"), talks(), None, ["Move broken"]),
    # FAILED
    "failed": (_in(Mode.FAILED), is_dark(), None, []),
    "failed, it talks": (_in(Mode.FAILED), talks(), None, ["Move seen"]),
    "failed, quarantined, it talks": (_in(Mode.FAILED, quarantined="no GPU-1"), BOOTED, None, []),
    "failed, wanted anew": (_in(Mode.FAILED, since=WALL - 10, **WANTED), is_dark(), None, ["SendWake 1"]),
    "failed, wanted since before": (_in(Mode.FAILED, since=WALL - 10, wishes=(wish(at=WALL - 300),)), is_dark(), None, ["Wait"]),
    "failed, still wanted": (_in(Mode.FAILED, since=WALL - 61, wishes=(wish(at=WALL - 300),)), is_dark(), None, ["SendWake 1"]),
    "failed, wanted and quarantined": (_in(Mode.FAILED, quarantined="no GPU-1", **WANTED), is_dark(), None, ["Wait"]),
}  # fmt: skip


@pytest.mark.parametrize(("one", "look", "want", "actions"), TABLE.values(), ids=TABLE)
def test_what_is_done(one: KnownHost, look: SeenHost | None, want: Policy | None, actions: list[str]) -> None:
    found = decide(one, look, want)
    assert kinds(found) == actions
    for action in found:
        assert (action.version, action.seen_at) == (one.version, look.at if look else MONO - 1)
        if isinstance(action, Move):
            assert (one.mode, action.event) in NEXT


def test_the_table_has_every_mode() -> None:
    assert {name.partition(",")[0] for name in TABLE} == {str(mode) for mode in Mode}


@pytest.mark.parametrize("name", TABLE)
def test_nothing_is_done_about_a_host_that_was_not_seen_within_a_tick(name: str) -> None:
    one, look, want, _ = TABLE[name]
    assert look is not None
    assert decide(one, replace(look, at=MONO - 10.5), want) == []
    assert decide(one, seen(talks("other")), want) == []


@pytest.mark.parametrize("name", TABLE)
def test_a_pause_leaves_nothing_but_looking(name: str) -> None:
    one, look, want, _ = TABLE[name]
    allowed = {"Wait", "Move needed", "Move broken"}
    allowed |= {f"Move {event}" for event in ("seen", "lost", "came-back", "refused", "dark")}
    assert set(kinds(decide(known(one, paused="bea: rewiring"), look and seen(look), want))) <= allowed
    assert set(kinds(decide(replace(one, paused="bea: fan"), look, want))) <= allowed


@pytest.mark.parametrize("name", TABLE)
def test_a_jump_of_the_clock_puts_nothing_to_sleep_and_gives_nothing_up(name: str) -> None:
    one, look, want, _ = TABLE[name]
    for jump_s in (3600.0, -3600.0):
        # For the minute after a jump only what happened since is sure to have passed.
        now = Moment(WALL + jump_s, MONO, jumped=True, steady_s=0.0)
        calm = replace(now, jumped=False, steady_s=30.0)
        assert not {"Suspend suspend", "Move went-quiet", "Unload", "Move gave-up"} & set(
            kinds(decide(one, look, want, now))
        )
        assert "Move gave-up" not in kinds(decide(one, look, want, calm))


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_jump_of_the_clock_does_not_make_an_order_dead(jump_s: float) -> None:
    ordered = _in(Mode.SUSPENDING, order=ORDER)
    for steady_s, does in ((0.0, []), (149.0, []), (153.0, ["Move refused"])):
        assert kinds(decide(ordered, talks(), None, Moment(WALL + jump_s, MONO, steady_s=steady_s))) == does
    for steady_s, does in ((440.0, []), (451.0, ["Move gave-up"])):
        assert kinds(decide(ordered, silent(), None, Moment(WALL + jump_s, MONO, steady_s=steady_s))) == does


def test_hosts_that_nobody_looks_after_are_left_alone() -> None:
    assert decide(known(row("stranger")), seen(talks("stranger"))) == []
    assert decide(known(row("other")), seen()) == []


# --- who needs whom ---

NAS = policy(host("gpu1", depends_on=("nas",)), host("nas"))


def _nas(mode: Mode, gpu: Mode = Mode.ASLEEP, **more: Any) -> dict[str, str]:
    """Return what is done about each when somebody wants gpu1."""
    rows = known(row("gpu1", gpu, wishes=(wish(),)), row("nas", mode, since=WALL - 600, **more))
    look = talks("nas") if mode in (Mode.READY, Mode.DRAINING, Mode.VERIFYING) else is_dark("nas")
    found = decide(rows, seen(is_dark() if gpu is Mode.ASLEEP else talks(), look), NAS)
    return {action.host: kinds([action])[0] for action in found}


def test_what_a_host_depends_on_is_woken_first() -> None:
    assert _nas(Mode.ASLEEP) == {"gpu1": "Wait", "nas": "SendWake 1"}
    assert _nas(Mode.WAKING, attempt=Attempt(WALL - 1, 1, WALL)) == {"gpu1": "Wait", "nas": "Wait"}
    assert _nas(Mode.VERIFYING) == {"gpu1": "Wait", "nas": "Verify"}
    assert _nas(Mode.READY) == {"gpu1": "SendWake 1"}
    assert _nas(Mode.FAILED, quarantined="no disk") == {"gpu1": "Wait", "nas": "Wait"}


def test_what_a_wanted_host_depends_on_does_not_drain() -> None:
    assert _nas(Mode.DRAINING) == {"gpu1": "Wait", "nas": "Move needed"}


def test_the_reason_names_who_is_waited_for() -> None:
    rows = known(row("gpu1", Mode.ASLEEP, wishes=(wish(),)), row("nas", Mode.ASLEEP))
    first, second = sorted(decide(rows, seen(is_dark(), is_dark("nas")), NAS), key=lambda one: one.host)
    assert first.because == "gpu1 needs nas, which is asleep"
    assert second.because == "gpu1 needs nas, and anna wants gpu1 awake: a fine-tune"


def test_a_host_that_woke_by_itself_waits_for_what_it_depends_on() -> None:
    rows = known(row("gpu1", Mode.VERIFYING), row("nas", Mode.ASLEEP))
    assert kinds(decide(rows, seen(talks(), is_dark("nas")), NAS)) == ["Wait", "SendWake 1"]


def test_a_relay_is_woken_for_the_packet_and_may_sleep_after_it() -> None:
    want = policy(host("gpu1", relay="pi"), host("pi"))
    rows = known(row("gpu1", Mode.ASLEEP, wishes=(wish(),)), row("pi", Mode.ASLEEP))
    assert {one.host: kinds([one])[0] for one in decide(rows, seen(is_dark(), is_dark("pi")), want)} == {
        "gpu1": "Wait",
        "pi": "SendWake 1",
    }
    rows = known(row("gpu1", Mode.READY, wishes=(wish(),)), row("pi"))
    assert {one.host: kinds([one])[0] for one in decide(rows, seen(talks(), talks("pi")), want)} == {
        "pi": "Move went-quiet"
    }


def test_a_chain_of_hosts_is_woken_from_its_far_end() -> None:
    want = policy(host("a", depends_on=("b",)), host("b", depends_on=("c",)), host("c"))
    rows = known(row("a", Mode.ASLEEP, wishes=(wish("a"),)), row("b", Mode.ASLEEP), row("c", Mode.ASLEEP))
    found = decide(rows, seen(*map(is_dark, "abc")), want)
    assert {one.host: kinds([one])[0] for one in found} == {"a": "Wait", "b": "Wait", "c": "SendWake 1"}


def test_two_hosts_that_wait_for_each_other_end_nothing() -> None:
    want = policy(host("a", depends_on=("b",)), host("b", depends_on=("a",)))
    rows = known(row("a", Mode.ASLEEP, wishes=(wish("a"),)), row("b", Mode.ASLEEP))
    assert kinds(decide(rows, seen(is_dark("a"), is_dark("b")), want)) == ["Wait", "Wait"]


# --- watts ---


def _watts(limit_w: int, *names: str) -> WattRack:
    """Return hosts of 100 W with two cards of 100 to 300 W that spike to double, on one circuit."""
    cards = tuple(Card(f"slot{n}", "RTX 3090", 300, 100, 2.0) for n in range(2))
    supply = Supply("psu", 2000, 1.0, 2.0, "office", (BOARD, "slot0", "slot1"))
    hosts = tuple(WattHost(name, 100, cards, (supply,)) for name in names)
    return WattRack(hosts, (Circuit("office", 100, limit_w / 100, 1.0),))


def _race(limit_w: int, first: Mode, priority: int = 0, **caps: int) -> dict[str, Any]:
    """Return what is done when somebody wants ``two`` while ``one`` is in a mode."""
    want = policy(host("one"), host("two", priority=priority), watts=_watts(limit_w, "one", "two"))
    rows = known(
        row("one", first, attempt=Attempt(WALL - 1, 1, WALL)), row("two", Mode.ASLEEP, wishes=(wish("two"),))
    )
    looks = {"busy": BUSY, "dark": is_dark()}["busy" if first in (Mode.READY, Mode.VERIFYING) else "dark"]
    found = decide(rows, seen(replace(looks, name="one", caps_w=caps), is_dark("two")), want)
    return {f"{one.host} {kinds([one])[0]}": one for one in found}


def test_two_hosts_ramp_together_only_with_room_for_both_spikes() -> None:
    assert "two SendWake 1" in _race(2600, Mode.WAKING)
    found = _race(2599, Mode.WAKING)
    assert found["two Wait"].because == (
        "two waits for watts: even with the lowest caps circuit office would bear 2600 W of 2599 W"
        " while one, two ramps up"
    )
    assert "two Wait" in _race(2599, Mode.VERIFYING)
    assert "two SendWake 1" in _race(2000, Mode.READY)


@pytest.mark.parametrize("mode", [Mode.UNKNOWN, Mode.SUSPENDING, Mode.FAILED])
def test_whoever_may_be_on_counts(mode: Mode) -> None:
    assert "two SendWake 1" in _race(2000, mode)
    assert "two Wait" in _race(1999, mode)


def test_a_host_that_is_seen_asleep_does_not_count() -> None:
    assert "two SendWake 1" in _race(1300, Mode.ASLEEP)
    assert "two Wait" in _race(1299, Mode.ASLEEP)


def test_a_sleeper_whose_sshd_answers_counts() -> None:
    want = policy(host("one"), host("two"), watts=_watts(1999, "one", "two"))
    rows = known(row("one", Mode.ASLEEP), row("two", Mode.ASLEEP, wishes=(wish("two"),)))
    assert kinds(decide(rows, seen(silent("one", signs={"ssh": Sign.ON}), is_dark("two")), want)) == ["Wait"]


def test_caps_of_others_step_down_first_and_the_wake_follows_when_they_were_read_back() -> None:
    found = _race(1700, Mode.READY, priority=1)
    assert set(found) == {"one StepCaps", "two Wait"}
    assert found["two Wait"].because == "two waits until caps step down: one 300 W -> 150 W"
    assert found["one StepCaps"].caps_w == {"slot0": 150, "slot1": 150}
    assert "two SendWake 1" in _race(1700, Mode.READY, priority=1, slot0=150, slot1=150)
    assert "two Wait" in _race(1700, Mode.READY, priority=1, slot0=150)  # the other card has not


def test_caps_rise_again_when_there_is_room_and_nobody_waits() -> None:
    want = policy(host("one"), host("two"), watts=_watts(2000, "one", "two"))
    rows = known(row("one"), row("two", Mode.ASLEEP))
    looks = seen(replace(BUSY, name="one", caps_w={"slot0": 150, "slot1": 150}), is_dark("two"))
    (step,) = decide(rows, looks, want)
    assert isinstance(step, StepCaps)
    assert step.caps_w == {"slot0": 300, "slot1": 300}


def test_a_paused_host_is_not_asked_to_step_down() -> None:
    want = policy(host("one"), host("two", priority=1), watts=_watts(1700, "one", "two"))
    rows = known(row("one", paused="bea: a benchmark"), row("two", Mode.ASLEEP, wishes=(wish("two"),)))
    assert kinds(decide(rows, seen(replace(BUSY, name="one"), is_dark("two")), want)) == ["Wait"]


def test_of_two_who_want_to_wake_the_more_important_one_goes_first() -> None:
    want = policy(host("one"), host("two", priority=1), watts=_watts(2000, "one", "two"))
    rows = known(*(row(name, Mode.ASLEEP, wishes=(wish(name),)) for name in ("one", "two")))
    found = decide(rows, seen(is_dark("one"), is_dark("two")), want)
    assert {one.host: kinds([one])[0] for one in found} == {"one": "Wait", "two": "SendWake 1"}


def test_gates_that_do_not_fit_together_are_passed_one_after_the_other() -> None:
    want = policy(host("one"), host("two"), watts=_watts(2000, "one", "two"))
    rows = known(row("one", Mode.VERIFYING, since=WALL - 20), row("two", Mode.VERIFYING, since=WALL - 30))
    found = decide(rows, seen(talks("one"), talks("two")), want)
    assert {one.host: kinds([one])[0] for one in found} == {"one": "Wait", "two": "Verify"}
    room = policy(host("one"), host("two"), watts=_watts(2600, "one", "two"))
    assert kinds(decide(rows, seen(talks("one"), talks("two")), room)) == ["Verify", "Verify"]


def test_a_repair_takes_watts_like_a_gate() -> None:
    want = policy(host("one"), host("two"), watts=_watts(2000, "one", "two"))
    broken = Repair((), ("no GPU-1",))
    rows = known(
        row("one", Mode.VERIFYING, since=WALL - 20, repair=broken),
        row("two", Mode.VERIFYING, since=WALL - 30),
    )
    found = decide(rows, seen(talks("one"), talks("two")), want)
    assert {one.host: kinds([one])[0] for one in found} == {"one": "Wait", "two": "Verify"}


def test_hosts_at_the_gate_do_not_wait_for_each_other_for_ever() -> None:
    want = policy(host("one"), host("two"), watts=_watts(1599, "one", "two"))  # never both under load
    rows = known(row("one", Mode.VERIFYING, since=WALL - 20), row("two", Mode.VERIFYING, since=WALL - 30))
    found = decide(rows, seen(talks("one"), talks("two")), want)
    assert {one.host: kinds([one])[0] for one in found} == {"one": "Wait", "two": "Verify"}
    rows = known(row("one", Mode.VERIFYING, since=WALL - 20), row("two", claims=Claims(leases=1)))
    (action,) = decide(rows, seen(talks("one"), talks("two", caps_w={"slot0": 100, "slot1": 100})), want)
    assert action.because == (
        "the gate of one waits for watts: even with the lowest caps circuit office would bear 1600 W of 1599 W"
        " while one ramps up"
    )


# --- orders and times ---


def _order(want: Policy, **more: Any) -> Suspend:
    (action,) = decide(_in(Mode.DRAINING, since=WALL - 10, **more), talks(), want)
    assert isinstance(action, Suspend)
    return action


def test_the_clock_of_the_host_is_set_to_its_next_window() -> None:
    order = _order(policy(host(awake=(EVENING,))))
    assert order.rtc_at is not None
    assert Moment(order.rtc_at, 0).wall % 86400 == 20 * 3600
    assert _order(policy()).rtc_at is None


def test_no_clock_wakes_a_host_where_the_watts_have_to_be_counted() -> None:
    rack = _watts(2599, "gpu1", "two")
    assert _order(policy(host(awake=(EVENING,)), host("two"), watts=rack)).rtc_at is None
    assert (
        _order(policy(host(awake=(EVENING,)), host("two"), watts=_watts(2600, "gpu1", "two"))).rtc_at
        is not None
    )


def test_an_order_by_force_says_so_and_only_that_one() -> None:
    assert _order(policy(), wishes=(wish(sleep=True, force=True),)).force
    assert not _order(policy(), wishes=(wish(sleep=True),)).force
    assert not _order(policy()).force


def test_a_host_sleeps_the_way_that_it_has_proven() -> None:
    fallen = replace(PROOF, fingerprint=replace(RUNS, how=How.POWER_OFF, mem_sleep=""))
    assert _order(policy(), proof=fallen).how is How.POWER_OFF


def test_a_newer_wish_to_be_awake_beats_an_order_to_sleep() -> None:
    both = (wish(sleep=True, at=WALL - 60), wish(number=2, at=WALL - 5))
    assert decide(_in(Mode.READY, wishes=both), talks()) == []
    assert _overtaken(row(mode=Mode.ASLEEP, wishes=both[1:])) == ()
    assert _overtaken(row(mode=Mode.WAKING, wishes=both)) == (both[0],)


def test_wishes_that_came_true_are_ended() -> None:
    awake, sleep = wish(), wish(number=2, sleep=True)
    assert _overtaken(row(since=WALL - 1, wishes=(awake,))) == (awake,)
    assert _overtaken(row(mode=Mode.ASLEEP, wishes=(sleep,))) == (sleep,)
    assert _overtaken(row(wishes=(sleep,))) == ()
    assert _overtaken(row(mode=Mode.WAKING, wishes=(awake,))) == ()


def test_whoever_wishes_for_a_host_that_is_ready_has_it_as_long_as_if_they_had_woken_it() -> None:
    ready, old = row(wishes=(wish(),)), row(wishes=(wish(at=WALL - 601),))
    assert _overtaken(ready) == () and decide(ready, talks()) == []
    assert _overtaken(old) == old.wishes
    newer = wish(number=2, sleep=True, at=WALL - 1)
    assert _overtaken(row(wishes=(*ready.wishes, newer))) == ready.wishes
    assert _overtaken(row("gone", wishes=(wish("gone"),))) != ()


def _overtaken(one: KnownHost) -> tuple[Wish, ...]:
    return reconcile.overtaken(policy(), known(one), NOW)


def test_a_wish_that_is_over_wakes_nobody() -> None:
    assert decide(_in(Mode.ASLEEP, wishes=(wish(until=WALL),), claims=Claims()), is_dark()) == []


def test_a_window_wakes_its_host_from_its_first_second_on() -> None:
    begins = WALL - WALL % 86400 + 20 * 3600
    want, sleeper = policy(host(awake=(EVENING,))), _in(Mode.ASLEEP, since=WALL)
    assert decide(sleeper, is_dark(), want, Moment(begins - 1, MONO)) == []
    (action,) = decide(sleeper, is_dark(), want, Moment(begins, MONO))
    assert isinstance(action, SendWake)
    assert action.because == "gpu1 is to be awake 20-22, which began mon 20:00"


def test_an_order_to_sleep_goes_before_a_window_and_never_before_whoever_needs_the_host() -> None:
    """nas has been up since before its window began; gpu1 is on its way up, and nas sends its packets."""
    afternoon = Window(frozenset(range(7)), 12 * 60, 20 * 60)
    want = policy(host(relay="nas"), host("nas", awake=(afternoon,)))
    nas = row("nas", since=WALL - 86400, wishes=(wish("nas", sleep=True),))
    for mode, decided in ((Mode.WAKING, []), (Mode.ASLEEP, ["Move went-quiet"])):
        rows = known(row(mode=mode), nas)
        found = decide(rows, seen(is_dark(), talks("nas")), want)
        assert kinds(action for action in found if action.host == "nas") == decided


def test_only_time_that_surely_passed_counts() -> None:
    assert Moment(WALL, MONO).sure_s(WALL - 50) == 50
    assert Moment(WALL, MONO, steady_s=20).sure_s(WALL - 50) == 20
    assert Moment(WALL, MONO, steady_s=20).sure_s(WALL + 50) == 20  # the clock went back since
    assert Moment(WALL, MONO, steady_s=90).sure_s(WALL - 50) == 50


# --- explain ---

EXPLAINED: dict[str, tuple[KnownHost, SeenHost, Policy, list[str]]] = {
    "quiet, not long enough": (
        _in(Mode.READY, because="it passed the gate"),
        talks(quiet_since=MONO - 600),
        policy(),
        [
            "gpu1 is ready since mon 12:13: it passed the gate",
            "awake: gpu1 has been quiet for 10 min, and sleeps after 30 min",
            "if gpu1 stays as quiet as now, it sleeps (suspend) at mon 14:33",
        ],
    ),
    "busy": (
        _in(Mode.READY, claims=Claims(leases=2)),
        BUSY,
        policy(),
        [
            "gpu1 is ready since mon 12:13",
            "awake: 2 leases are on gpu1",
            "awake: sessions of gpu1: anna on pts/0",
        ],
    ),
    "free to sleep": (
        _in(Mode.READY),
        talks(),
        policy(),
        [
            "gpu1 is ready since mon 12:13",
            "nothing keeps gpu1 awake: gpu1 has been quiet for 60 min, and sleeps after 30 min",
            "now: it is went-quiet: gpu1 has been quiet for 60 min, and sleeps after 30 min",
        ],
    ),
    "asleep until evening": (
        _in(Mode.ASLEEP),
        is_dark(),
        policy(host(awake=(EVENING,))),
        [
            "gpu1 is asleep since mon 12:13",
            "a wake of gpu1 usually takes 12 s",
            "gpu1 is woken mon 20:00, to be awake 20-22",
        ],
    ),
    "waking": (
        _in(Mode.WAKING, attempt=Attempt(WALL - 9, 2, WALL - 5), **WANTED),
        is_dark(),
        policy(),
        [
            "gpu1 is waking since mon 12:13",
            "anna wants gpu1 awake: a fine-tune",
            "2 rounds of packets sent to gpu1",
            "a wake of gpu1 usually takes 12 s",
            "now: send round 3: round 3 to gpu1: no answer for 5 s",
        ],
    ),
    "not seen": (
        _in(Mode.READY),
        talks(at=MONO - 45),
        policy(),
        [
            "gpu1 is ready since mon 12:13",
            "nothing was seen of gpu1 for 45 s, so nothing is done about it",
            "awake: nothing was seen of gpu1 within the last tick",
        ],
    ),
    "not seen since the controller began": (
        _in(Mode.SUSPENDING),
        SeenHost("gpu1", -inf),
        policy(),
        [
            "gpu1 is suspending since mon 12:13",
            "nothing was seen of gpu1, so nothing is done about it",
            "its order is dead 2 min after it was given, by the clock of gpu1",
            "a wake of gpu1 usually takes 12 s",
        ],
    ),
}


@pytest.mark.parametrize(("one", "look", "want", "lines"), EXPLAINED.values(), ids=EXPLAINED)
def test_a_host_is_explained_line_by_line(
    one: KnownHost, look: SeenHost, want: Policy, lines: list[str]
) -> None:
    assert list(reconcile.explain(want, known(one), seen(look), NOW, "gpu1")) == lines


@pytest.mark.parametrize("name", TABLE)
def test_every_state_of_a_host_can_be_explained(name: str) -> None:
    one, look, want, actions = TABLE[name]
    lines = reconcile.explain(want or policy(), known(one), seen(*([look] if look else [])), NOW, "gpu1")
    assert lines[0].startswith(f"gpu1 is {one.mode} since ")
    assert sum(line.startswith("now: ") for line in lines) == len(actions)


def test_waits_say_the_same_from_tick_to_tick() -> None:
    for name, (one, look, want, actions) in TABLE.items():
        if actions == ["Wait"] and look is not None and name != "waking, not yet":
            later = decide(one, replace(look, at=MONO + 1), want, Moment(WALL + 2, MONO + 2))
            assert [each.because for each in later if isinstance(each, Wait)] == [
                each.because for each in decide(one, look, want)
            ], name
