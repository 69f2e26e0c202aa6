# ruff: noqa: E501 - one case a line reads best
"""When a host counts as unused, and everything that keeps it awake, each in its own words."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from sleep_cases import (
    DARK,
    MONO,
    NOW,
    QUIET,
    RUNS,
    TICK,
    WALL,
    host,
    is_dark,
    known,
    names_something,
    policy,
    report,
    row,
    seen,
    silent,
    talks,
    wish,
)

from labctl.domain.sleep import idle
from labctl.domain.sleep.lifecycle import Claims, Mode
from labctl.domain.sleep.terms import Hold, How, Moment, Policy, Reading, Report, SeenHost, Sign, Window

# --- fold: since when it has been quiet ---


def _line(at: float, readings: tuple[Reading, ...] = QUIET, **more: Any) -> SeenHost:
    said = report(readings, **{"at": at, "up_s": 9000.0 + at - MONO, **more})
    return SeenHost("gpu1", at, talking=True, report=said)


def _fold(*lines: SeenHost, jumped: bool = False) -> SeenHost:
    found: SeenHost | None = None
    for line in lines:
        now = Moment(WALL + line.at - MONO, line.at, jumped and line is lines[-1])
        found = idle.fold(found, line, now, tick_s=TICK)
    assert found is not None
    return found


def test_a_host_is_quiet_since_the_first_quiet_line() -> None:
    assert _fold(*(_line(MONO + 10 * n) for n in range(5))).quiet_since == MONO


def test_the_same_line_twice_changes_nothing() -> None:
    first, again = _line(MONO), replace(_line(MONO), at=MONO + 1)
    assert _fold(first, again).quiet_since == MONO


BUSY = (QUIET[0], Reading("gpu", True, "97 %"))
UNREADABLE = (QUIET[0], Reading("gpu", None, "no answer"))
HOLES: dict[str, tuple[SeenHost, float | None]] = {
    "a busy signal": (_line(MONO + 20, BUSY), None),
    "an unreadable signal": (_line(MONO + 20, UNREADABLE), None),
    "no signal at all": (_line(MONO + 20, ()), None),
    "no report": (SeenHost("gpu1", MONO + 20, talking=True), None),
    "a closed channel": (replace(_line(MONO + 20), talking=False), None),
    "an old agent": (replace(_line(MONO + 20), old_agent=True), None),
    "a line that is old": (replace(_line(MONO + 20), at=MONO + 60), None),
    "a signal that is gone": (_line(MONO + 20, QUIET[:1]), MONO + 20),
    "a late line": (_line(MONO + 40), MONO + 40),
    "a new watch": (_line(MONO + 20, watch="other"), MONO + 20),
    "a boot": (_line(MONO + 20, boot_id="other"), MONO + 20),
    "a sleep": (_line(MONO + 20, resumes=2), MONO + 20),
    "a clock of the host that goes back": (_line(MONO + 20, up_s=5.0), MONO + 20),
    "a line from before": (_line(MONO + 5), MONO + 5),
}


@pytest.mark.parametrize(("line", "since"), HOLES.values(), ids=HOLES)
def test_a_hole_in_the_evidence_begins_the_quiet_time_anew(line: SeenHost, since: float | None) -> None:
    assert _fold(_line(MONO), _line(MONO + 10), line).quiet_since == since


def test_a_jump_of_the_clock_begins_the_quiet_time_anew() -> None:
    lines = [_line(MONO + 10 * n) for n in range(3)]
    assert _fold(*lines, jumped=True).quiet_since is None
    after = idle.fold(_fold(*lines, jumped=True), _line(MONO + 30), replace(NOW, mono=MONO + 30), tick_s=TICK)
    assert after.quiet_since == MONO + 30


def test_what_is_busy_once_is_quiet_only_since_after_it() -> None:
    lines = (_line(MONO), _line(MONO + 10, BUSY), _line(MONO + 20), _line(MONO + 30))
    assert _fold(*lines).quiet_since == MONO + 20


def _dark(at: float, signs: dict[str, Sign] | None = None) -> SeenHost:
    return SeenHost("gpu1", at, signs=DARK if signs is None else signs)


DARKNESS: dict[str, tuple[tuple[SeenHost, ...], float | None]] = {
    "two looks": ((_dark(MONO), _dark(MONO + 10)), MONO),
    "one sign only": ((_dark(MONO, {"ping": Sign.DARK}),), None),
    "one sign of life": ((_dark(MONO), _dark(MONO + 10, {**DARK, "power": Sign.ON})), None),
    "an unclear sign does not count": ((_dark(MONO, {"ssh": Sign.DARK, "ping": Sign.UNCLEAR}),), None),
    "a line in between": ((_dark(MONO), _line(MONO + 10), _dark(MONO + 20)), MONO + 20),
    "nobody looked for a while": ((_dark(MONO), _dark(MONO + 60)), MONO + 60),
}


@pytest.mark.parametrize(("looks", "since"), DARKNESS.values(), ids=DARKNESS)
def test_a_host_is_dark_since_the_first_of_an_unbroken_chain(
    looks: tuple[SeenHost, ...], since: float | None
) -> None:
    assert _fold(*looks).dark_since == since


def test_caps_are_remembered_while_the_host_talks_and_does_not_sleep() -> None:
    told = replace(_line(MONO), caps_w={"slot0": 200})
    assert _fold(told, _line(MONO + 10)).caps_w == {"slot0": 200}
    assert _fold(told, _line(MONO + 10, resumes=2)).caps_w == {}
    assert _fold(told, _dark(MONO + 10), _line(MONO + 20)).caps_w == {}


def test_cards_stay_freed_as_long_as_the_host_stays_quiet() -> None:
    freed = replace(_line(MONO + 10), unloaded=True)
    assert _fold(_line(MONO), freed, _line(MONO + 20)).unloaded
    assert not _fold(_line(MONO), freed, _line(MONO + 20, BUSY), _line(MONO + 30)).unloaded


# --- against: what keeps it awake ---


def _against(
    rows: Any = None, look: SeenHost | None = None, want: Policy | None = None, now: Moment = NOW, **more: Any
) -> list[str]:
    rows = rows if rows is not None else row()
    rows = rows if not hasattr(rows, "mode") else known(rows)
    found = idle.against(want or policy(), rows, seen(look or talks()), now, "gpu1", **more)
    for one in found:
        assert names_something(one.because, rows.hosts), one
    return [f"{one.kind}: {one.because}" for one in found]


def test_a_quiet_host_with_a_proof_may_sleep() -> None:
    assert _against() == []
    verdict = idle.judge(policy(), known(), seen(), NOW, "gpu1")
    assert (verdict.yes, verdict.because) == (True, "gpu1 has been quiet for 60 min, and sleeps after 30 min")


NIGHT, WORK = Window(frozenset(range(7)), 22 * 60, 7 * 60), Window(frozenset(range(5)), 8 * 60, 18 * 60)
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "the rack is paused": ({"rows": known(row(), paused="bea: rewiring")}, "paused: the whole rack of 1 host is paused: bea: rewiring"),
    "it is paused": ({"rows": row(paused="bea: new fan")}, "paused: gpu1 is paused: bea: new fan"),
    "quarantine": ({"rows": row(quarantined="no GPU-1")}, "quarantined: gpu1 is quarantined: no GPU-1"),
    "the rack file": ({"want": policy(host(sleeps=False))}, "policy: the rack file does not let gpu1 sleep"),
    "nothing to wake it": ({"want": policy(host(wakeable=False))}, "wake: nothing can wake gpu1 again"),
    "a lease": ({"rows": row(claims=Claims(leases=1))}, "leases: 1 lease is on gpu1"),
    "leases": ({"rows": row(claims=Claims(leases=3))}, "leases: 3 leases are on gpu1"),
    "a hold": ({"rows": row(holds=(Hold(1, "gpu1", "backup", "carl", WALL + 600),))}, "hold: carl holds gpu1 awake for 10 min more: backup"),
    "a hold that is only counted": ({"rows": row(claims=Claims(holds=2))}, "hold: 2 holds on gpu1"),
    "a wish": ({"rows": row(wishes=(wish(),))}, "wish: anna wants gpu1 awake: a fine-tune"),
    "nothing seen": ({"look": talks(at=MONO - 11)}, "stale: nothing was seen of gpu1 within the last tick"),
    "silence": ({"look": silent()}, "silent: gpu1 does not report: timed out"),
    "darkness": ({"look": is_dark()}, "silent: gpu1 does not report: no route"),
    "an old agent": ({"look": talks(old_agent=True)}, "agent: the agent of gpu1 is too old to tell whether it is used"),
    "a jump": ({"now": replace(NOW, jumped=True)}, "clock: the clock jumped, so gpu1 has to be quiet anew"),
    "a busy signal": ({"look": talks(said=report(BUSY))}, "busy: gpu of gpu1: 97 %"),
    "an unreadable signal": ({"look": talks(said=report(UNREADABLE))}, "unreadable: gpu of gpu1 cannot be read, which counts as use: no answer"),
    "no signals": ({"look": talks(said=report(()))}, "unreadable: gpu1 reports no signals at all"),
    "Wake-on-LAN off": ({"look": talks(said=report(wol_armed=False))}, "wol: the network card of gpu1 is not armed to wake it"),
    "no proof": ({"rows": row(proof=None)}, "proof: gpu1 has not shown yet that it comes back: `labctl sleep-test gpu1` arms it"),
    "another kernel": ({"look": talks(said=report(fingerprint=replace(RUNS, kernel="6.1.0-26")))}, "proof: the proof of gpu1 is stale (kernel 6.1.0-25 -> 6.1.0-26): `labctl sleep-test gpu1` renews it"),
    "just came up": ({"rows": row(since=WALL - 200)}, "min-up: gpu1 has been ready for 3 min, and stays up for 10 min"),
    "too short a silence": ({"look": talks(quiet_since=MONO - 900)}, "quiet: gpu1 has been quiet for 15 min, and sleeps after 30 min"),
    "its first line": ({"look": talks(quiet_since=None)}, "quiet: gpu1 is quiet for 0 s, in its first line"),
    "an awake window": ({"want": policy(host(awake=(WORK,)))}, "window: gpu1 is to be awake mon-fri 8-18, until mon 18:00"),
    "outside of its nights": ({"want": policy(host(only_in=(NIGHT,)))}, "only-in: gpu1 may fall asleep by itself only 22-7"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "text"), CASES.values(), ids=CASES)
def test_each_thing_that_keeps_a_host_awake_is_said(given: dict[str, Any], text: str) -> None:
    assert _against(**given) == [text]


def test_everything_is_said_at_once_and_the_strongest_first() -> None:
    found = _against(row(claims=Claims(leases=2), proof=None), talks(said=report(BUSY), quiet_since=None))
    assert [one.partition(":")[0] for one in found] == ["leases", "busy", "proof"]


def test_a_host_stays_awake_under_one_that_depends_on_it() -> None:
    want = policy(host(), host("gpu2", depends_on=("gpu1",)))
    for mode in set(Mode) - {Mode.ASLEEP}:
        found = _against(known(row(), row("gpu2", mode)), want=want)
        assert found == [f"dependant: gpu2 depends on gpu1 and is {mode}"]
    assert _against(known(row(), row("gpu2", Mode.ASLEEP)), want=want) == []
    wanted = known(row(), row("gpu2", Mode.ASLEEP, wishes=(wish("gpu2"),)))
    assert _against(wanted, want=want) == [
        "dependant: gpu2 depends on gpu1 and is wanted: anna wants gpu2 awake: a fine-tune"
    ]


FLAPS = {0: 1, 1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 9: 8}


@pytest.mark.parametrize(("woke", "times"), FLAPS.items())
def test_a_host_that_woke_often_within_an_hour_waits_longer(woke: int, times: int) -> None:
    one = row(woke_at=(WALL - 4000, *(WALL - 60 * n for n in range(woke))))
    assert idle.quiet_s(host(), one, NOW)[0] == 1800.0 * times
    waits = [f"quiet: gpu1 has been quiet for 60 min, and sleeps after {times // 2} h"] if times > 2 else []
    why = f" ({times} times as long as usual, since gpu1 woke {woke} times within an hour)"
    assert _against(one) == [text + why for text in waits]


ORDERED = wish(sleep=True)
WAIVED = ("no proof", "another kernel", "just came up", "too short a silence", "an awake window")
WAIVED += ("outside of its nights", "the rack file")


@pytest.mark.parametrize("name", CASES)
def test_whoever_orders_sleep_skips_times_and_proof_and_nothing_else(name: str) -> None:
    given, text = CASES[name]
    assert _against(**given, wish=ORDERED) == ([] if name in WAIVED else [text])


@pytest.mark.parametrize("name", CASES)
def test_force_skips_the_signals_too_and_nothing_else(name: str) -> None:
    given, text = CASES[name]
    signals = ("a busy signal", "an unreadable signal", "no signals", "its first line")
    found = _against(**given, wish=replace(ORDERED, force=True))
    assert found == ([] if name in (*WAIVED, *signals) else [text])


def test_an_order_that_came_to_nothing_is_tried_again_after_a_minute() -> None:
    refused = row(since=WALL - 3, because="gpu1 refused to sleep: 1 session")
    assert _against(refused, wish=ORDERED) == [
        "again: gpu1 is asked again in 57 s: gpu1 refused to sleep: 1 session"
    ]
    assert _against(replace(refused, since=WALL - 61), wish=replace(ORDERED, at=WALL - 70)) == []


def test_a_host_that_only_frees_its_cards_needs_no_way_back() -> None:
    want = policy(host(how=How.UNLOAD, wakeable=False))
    assert _against(row(proof=None), talks(said=report(wol_armed=False)), want) == []


@pytest.mark.parametrize("busy", [True, None])
@pytest.mark.parametrize("place", range(3))
def test_one_signal_that_is_not_quiet_keeps_it_awake(busy: bool | None, place: int) -> None:
    readings = [Reading(f"signal{n}", False, "") for n in range(3)]
    readings[place] = Reading(f"signal{place}", busy, "")
    line = _line(MONO, tuple(readings))
    assert _fold(line).quiet_since is None
    assert len(_against(look=talks(said=line.report, quiet_since=None))) == 1


def test_a_report_of_nothing_but_quiet_readings_is_the_only_quiet_one() -> None:
    values: tuple[bool | None, ...] = (True, False, None)
    for one in values:
        for other in values:
            line: Report = report((Reading("a", one, ""), Reading("b", other, "")))
            quiet = one is False and other is False
            assert (_against(look=talks(said=line)) == []) is quiet


def test_a_fold_loses_nothing_of_what_was_observed() -> None:
    others = {"quiet_since", "dark_since", "caps_w", "unloaded"}
    marks = {one.name: object() for one in fields(SeenHost) if one.name not in others}
    fresh = SeenHost(**{**marks, "talking": False, "old_agent": False, "signs": {}, "report": None})  # type: ignore[arg-type]
    folded = idle.fold(None, fresh, Moment(wall=1000.0, mono=10.0), tick_s=10.0)
    assert [name for name in marks if getattr(folded, name) is not getattr(fresh, name)] == []
