"""Mending a host step by step, and never under somebody's hands."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sleep_cases import (
    DARK,
    NOW,
    QUIET,
    WALL,
    decide,
    host,
    is_dark,
    kinds,
    policy,
    report,
    row,
    silent,
    talks,
)

from labctl.domain.sleep import ladder
from labctl.domain.sleep.actions import GateResult, Mend, Move, Wait
from labctl.domain.sleep.lifecycle import Claims, Mode
from labctl.domain.sleep.terms import Attempt, KnownHost, Moment, Reading, Repair, SeenHost, Sign

ALL = host(can_cut=True)
BROKEN = ("no GPU-1",)


def _broken(*taken: str, **more: object) -> KnownHost:
    return row(mode=Mode.VERIFYING, repair=Repair(taken, BROKEN, WALL - 60), **more)


def _walk(want: ladder.HostPolicy) -> list[str]:
    """Return the steps until a person has to look, when none of them helps."""
    known, steps = _broken(), []
    while True:
        (action,) = decide(known, talks(), policy(want))
        if not isinstance(action, Mend):
            assert isinstance(action, Move), action
            assert action.event == "broken"
            steps.append("quarantine")
            return steps
        steps.append(action.step)
        after = ladder.after_step(known.repair, action.step, NOW)
        assert kinds(decide(replace(known, repair=after), talks(), policy(want))) == ["Verify"]
        known = replace(known, repair=ladder.after_gate(after, GateResult(BROKEN), NOW))


def test_each_step_is_taken_once_with_the_gate_after_it_and_then_a_person_looks() -> None:
    steps = ["restart-engines", "reload-driver", "reboot", "cold-cycle", "quarantine"]
    assert _walk(ALL) == steps
    assert _walk(host()) == [step for step in steps if step != "cold-cycle"]
    assert _walk(replace(ALL, may_reboot=False)) == [step for step in steps if step != "reboot"]
    assert _walk(replace(ALL, may_reload=False)) == [step for step in steps if step != "reload-driver"]


def test_a_gate_that_is_passed_forgets_the_ladder() -> None:
    assert ladder.after_gate(Repair(("reboot",), BROKEN, 5.0), GateResult(()), NOW) == Repair()


def test_the_last_word_says_what_is_broken_and_what_was_tried() -> None:
    (action,) = decide(_broken(*ladder.STEPS), talks(), policy(ALL))
    because = "gpu1: no GPU-1 (after restart-engines, reload-driver, reboot, cold-cycle)"
    assert (kinds([action]), action.because) == (["Move broken"], because)


def _reading(signal: str, busy: bool | None) -> SeenHost:
    return talks(said=report((*QUIET, Reading(signal, busy, "anna on pts/0"))))


INTERLOCKS: dict[str, tuple[str, KnownHost, SeenHost, bool]] = {
    "engines restart": ("restart-engines", _broken(), talks(), True),
    "engines restart under a hold": ("restart-engines", _broken(claims=Claims(holds=1)), talks(), True),
    "engines with a lease": ("restart-engines", _broken(claims=Claims(leases=1)), talks(), False),
    "engines with a request": ("restart-engines", _broken(), _reading("engines", True), False),
    "engines that cannot be asked": ("restart-engines", _broken(), _reading("engines", None), True),
    "engines under a session": ("restart-engines", _broken(), _reading("sessions", True), True),
    "a driver with a lease": ("reload-driver", _broken(claims=Claims(leases=1)), talks(), False),
    "a driver of a card that computes": ("reload-driver", _broken(), _reading("gpu", True), False),
    "a reboot": ("reboot", _broken(), talks(), True),
    "a reboot with a lease": ("reboot", _broken(claims=Claims(leases=1)), talks(), False),
    "a reboot under a hold": ("reboot", _broken(claims=Claims(holds=1)), talks(), False),
    "a reboot under a session": ("reboot", _broken(), _reading("sessions", True), False),
    "a reboot under who knows whom": ("reboot", _broken(), _reading("sessions", None), False),
    "a reboot with a card that is gone": ("reboot", _broken(), _reading("gpu", None), True),
    "a reboot with a card that computes": ("reboot", _broken(), _reading("gpu", True), False),
    "a cut": ("cold-cycle", _broken(), talks(), True),
    "a cut with a lease": ("cold-cycle", _broken(claims=Claims(leases=1)), talks(), False),
    "a cut under a hold": ("cold-cycle", _broken(claims=Claims(holds=1)), talks(), False),
    "a cut under a download": ("cold-cycle", _broken(), _reading("downloads", True), False),
}


@pytest.mark.parametrize(("step", "known", "look", "may"), INTERLOCKS.values(), ids=INTERLOCKS)
def test_nothing_is_mended_under_somebodys_hands(
    step: str, known: KnownHost, look: SeenHost, may: bool
) -> None:
    taken = ladder.STEPS[: ladder.STEPS.index(step)]
    known = replace(known, repair=replace(known.repair, taken=taken))
    (action,) = decide(known, look, policy(ALL))
    if may:
        assert isinstance(action, Mend)
        assert action.step == step
    else:
        assert isinstance(action, Wait)
        assert action.because.startswith(f"{step} of gpu1 waits for")


REBOOTED = Repair(("restart-engines", "reboot"), (), WALL - 400)
LAST_LINE = report(at=NOW.mono - 390)
ASLEEP_BEFORE = Attempt(WALL - 900, 30, WALL - 400, asleep=True)
HUNG: dict[str, tuple[KnownHost, SeenHost, bool]] = {
    "a host that slept and did not come": (row(mode=Mode.WAKING, attempt=ASLEEP_BEFORE), is_dark(), True),
    "the same, and its sshd answers": (
        row(mode=Mode.WAKING, attempt=ASLEEP_BEFORE),
        silent(signs={**DARK, "ssh": Sign.ON}),
        False,
    ),
    "the same, and somebody has a lease": (
        row(mode=Mode.WAKING, attempt=ASLEEP_BEFORE, claims=Claims(leases=1)),
        is_dark(),
        False,
    ),
    "a host that was not known to be asleep": (
        row(mode=Mode.WAKING, attempt=replace(ASLEEP_BEFORE, asleep=False)),
        is_dark(),
        False,
    ),
    "a host that was drained and rebooted": (
        row(mode=Mode.UNKNOWN, repair=REBOOTED),
        is_dark(report=LAST_LINE),
        True,
    ),
    "the same, a moment ago": (
        row(mode=Mode.UNKNOWN, repair=replace(REBOOTED, at=WALL - 100)),
        is_dark(report=LAST_LINE),
        False,
    ),
    "the same, and it spoke since": (
        row(mode=Mode.UNKNOWN, repair=REBOOTED),
        is_dark(report=report(at=NOW.mono - 200)),
        False,
    ),
    "the same, and the gate looked at it since": (
        row(mode=Mode.UNKNOWN, repair=replace(REBOOTED, broken=BROKEN)),
        is_dark(report=LAST_LINE),
        False,
    ),
    "the same, and this process never heard it": (
        row(mode=Mode.UNKNOWN, repair=REBOOTED),
        is_dark(),
        False,
    ),
    "a host that fell silent": (row(mode=Mode.UNKNOWN), is_dark(), False),
    "a host that failed": (row(mode=Mode.FAILED), is_dark(), False),
    "a host without power": (row(mode=Mode.FAILED), is_dark(signs={**DARK, "power": Sign.DARK}), True),
}


@pytest.mark.parametrize(("known", "look", "may"), HUNG.values(), ids=HUNG)
def test_power_is_cut_only_when_nobody_can_be_working_there(
    known: KnownHost, look: SeenHost, may: bool
) -> None:
    metered = replace(ALL, has_meter=True)
    assert ladder.may_cut(metered, known, look, NOW).yes is may
    assert not ladder.may_cut(replace(metered, can_cut=False), known, look, NOW)


def test_a_clock_that_jumped_proves_no_hang() -> None:
    known = row(mode=Mode.UNKNOWN, repair=REBOOTED)
    assert not ladder.may_cut(ALL, known, is_dark(report=LAST_LINE), Moment(WALL, NOW.mono, steady_s=100.0))
    assert not ladder.may_cut(ALL, known, is_dark(report=LAST_LINE), replace(NOW, jumped=True))


def test_a_host_that_was_asleep_and_does_not_come_is_cut_once_before_it_is_given_up() -> None:
    known = row(mode=Mode.WAKING, attempt=ASLEEP_BEFORE)
    assert kinds(decide(known, is_dark(), policy(ALL))) == ["Mend cold-cycle"]
    cut = replace(known, repair=ladder.after_step(known.repair, "cold-cycle", Moment(WALL - 10, 0)))
    assert kinds(decide(cut, is_dark(), policy(ALL))) == ["Wait"]
    later = replace(cut, repair=replace(cut.repair, at=WALL - 200))
    assert kinds(decide(later, is_dark(), policy(ALL))) == ["Move gave-up"]
    assert kinds(decide(known, is_dark(), policy(host()))) == ["Move gave-up"]


def test_a_host_that_hangs_after_our_reboot_is_cut() -> None:
    known = row(mode=Mode.UNKNOWN, repair=REBOOTED)
    assert kinds(decide(known, is_dark(report=LAST_LINE), policy(ALL))) == ["Mend cold-cycle"]
    assert kinds(decide(known, is_dark(report=LAST_LINE), policy(host()))) == []
