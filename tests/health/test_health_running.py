"""A run of ``--cron``: silent unless something changed, and whatever happens to it, nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_world import World

from labctl.adapters import keepsake
from labctl.adapters.keepsake import Keepsake, alone
from labctl.domain.health.flaps import Kind
from labctl.domain.health.outbox import Box, Line
from labctl.domain.health.results import results_of
from labctl.domain.health.terms import Level
from labctl.health.sending import number_of
from labctl.ports.letters import CourierError, Letter

OK, WARN, CRIT = Level.OK, Level.WARN, Level.CRIT
HERE = Path(__file__).parent


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def titles(letters: list[list[str]]) -> list[str]:
    return [title for _, _, title, _ in letters]


def test_a_rack_that_stays_as_it_is_says_nothing_and_tells_nobody(world: World) -> None:
    assert [world.run(OK) for _ in range(5)] == [OK] * 5
    assert (world.said, world.warned, world.ntfy.letters, world.hook.letters) == ([], [], [], [])
    assert world.ping.heard == [False] * 5


def test_what_lasts_is_told_once_to_everybody_and_its_end_too(world: World) -> None:
    levels = [world.run(level) for level in (OK, CRIT, CRIT, CRIT, OK, OK, OK)]
    assert levels == [OK, CRIT, CRIT, CRIT, OK, OK, OK]
    began = "CRIT: rig xid slot0: Xid 79 CRIT -> reboot"
    over = "OK (was CRIT for 20 min): rig xid slot0"
    assert world.said == [began, over]
    assert titles(world.ntfy.letters) == titles(world.hook.letters) == [f"home: {began}", f"home: {over}"]
    assert world.ping.heard == [False, True, True, True, False, False, False]


def test_a_host_that_went_to_sleep_tells_nothing(world: World) -> None:
    assert [world.run(CRIT), world.run(CRIT)] == [CRIT, CRIT]
    for _ in range(9):
        world.run(None, answered=False, step_s=86_400.0)
    assert len(world.said) == 1


def test_a_notifier_for_the_worst_hears_of_nothing_else_but_of_its_end(world: World) -> None:
    world.least = "crit"
    for level in (WARN, WARN, CRIT, CRIT, OK, OK, WARN, WARN, OK, OK):
        world.run(level)
    assert [level for _, level, _, _ in world.ntfy.letters] == ["CRIT", "OK"]
    assert [level for _, level, _, _ in world.hook.letters] == ["WARN", "CRIT", "OK", "WARN", "OK"]


def test_the_results_of_a_run_lie_there_for_everybody_with_the_time_since_which_they_hold(
    world: World,
) -> None:
    world.run(OK)
    world.run(CRIT)
    began = world.now
    world.run(CRIT)
    path = world.folder / "main" / "results.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE((world.folder / "main" / "state.json").stat().st_mode) == 0o600
    found = results_of(json.loads(path.read_text()))
    assert found is not None and found.at == world.now and found.level is CRIT
    assert {one.result.code: one.since for one in found.findings}["xid"] == began
    assert {one.result.code for one in found.findings} == {"xid", "notify"}


@pytest.fixture(scope="module")
def lives() -> list[dict[str, Any]]:
    argv = [sys.executable, str(HERE / "killed_runs.py")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=HERE)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_a_run_that_is_killed_anywhere_loses_no_letter_and_repeats_none_that_can_be_known(
    lives: list[dict[str, Any]],
) -> None:
    visited = {(one["run"], one["where"]) for one in lives if one["died"]}
    for run in (2, 5):
        for place in ("before rename of state.json", "after rename of state.json", "after sending"):
            assert (run, place) in visited
    for one in lives:
        where = f"killed in run {one['run']} {one['where']}"
        once = {number: level for number, level, _, _ in one["hook"]}
        assert [level for _, level, _, _ in one["ntfy"]] == list(once.values()) == ["CRIT", "OK"], where
        assert one["waiting"] == [], where
        assert one["left"] == ["looks.json", "results.json", "state.json"], where


def test_only_a_kill_between_arrival_and_its_note_sends_a_second_copy_with_the_same_id_and_says_so(
    lives: list[dict[str, Any]],
) -> None:
    twice = [one for one in lives if len(one["hook"]) > 2]
    assert {one["where"] for one in twice} <= {"after sending", "before fsync", "before rename of state.json"}
    assert len(twice) < len(lives) / 2
    for one in twice:
        numbers = [number for number, *_ in one["hook"]]
        again = [text for number, _, _, text in one["hook"] if numbers.count(number) == 2][1]
        assert len(numbers) == 3 and "(This may have reached you before.)" in again


def full(monkeypatch: pytest.MonkeyPatch, *folders: str) -> None:
    """Have no space left in those folders."""
    real = keepsake.replace

    def replace(path: Path, data: bytes, mode: int = 0o600) -> None:
        if path.parent.name in folders:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, data, mode)

    monkeypatch.setattr(keepsake, "replace", replace)
    monkeypatch.setattr("small_world.replace", replace)


def test_on_a_full_disk_everything_is_still_told_once_and_the_run_says_unknown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run(OK)
    with monkeypatch.context() as patched:
        full(patched, "main")
        assert [world.run(CRIT) for _ in range(4)] == [Level.UNKNOWN] * 4
        assert len(world.ntfy.letters) == len(world.hook.letters) == 1
        assert "No space left on device; it is kept in memory" in world.warned[0]
        assert "the results cannot be written" in world.warned[1]
    assert world.run(CRIT) is CRIT
    assert [world.run(OK), world.run(OK)] == [OK, OK]
    assert [level for _, level, _, _ in world.hook.letters] == ["CRIT", "OK"]
    assert list((world.folder / "spare").iterdir()) == []


def test_where_nothing_can_be_noted_anywhere_news_are_told_at_the_first_look_and_nobody_is_calmed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run(OK)
    full(monkeypatch, "main", "spare")
    assert world.run(CRIT) is Level.UNKNOWN
    assert len(world.ntfy.letters) == len(world.hook.letters) == 1
    assert world.said == ["CRIT: rig xid slot0: Xid 79 CRIT -> reboot"]
    assert "it will be told again" in world.warned[0]
    assert world.ping.heard == [False], "the dead man's switch hears nothing of such a run"


def test_a_dead_notifier_keeps_nobody_else_waiting_and_gets_one_letter_when_it_is_back(world: World) -> None:
    world.ntfy.dead = "it cannot be reached"
    for level in (CRIT, CRIT, OK, OK, WARN, WARN):
        world.run(level)
    assert len(world.hook.letters) == 3 and world.ntfy.letters == []
    assert world.warned == ["ntfy: it cannot be reached; it is tried again"]
    world.ntfy.dead = ""
    world.run(WARN, step_s=3600.0)
    ((_, level, _, text),) = world.ntfy.letters
    assert (level, text) == ("WARN", "WARN: rig xid slot0: Xid 79 WARN -> reboot")
    assert world.warned[1:] == ["ntfy: letters arrive again"]


@pytest.mark.parametrize("method", ["send", "has"])
def test_a_notifier_that_fails_in_a_way_nobody_foresaw_keeps_no_other_from_telling(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def fails(_: object) -> bool:
        raise RuntimeError("canary-7f3a9c")

    world.ntfy.dead, world.ntfy.certain = "silence", False
    world.run(CRIT)
    world.run(CRIT)
    monkeypatch.setattr(world.ntfy, method, fails)
    assert [world.run(WARN), world.run(WARN)] == [WARN, WARN]
    assert [level for _, level, _, _ in world.hook.letters] == ["CRIT", "WARN"]
    assert not any("canary" in one for one in world.warned)
    monkeypatch.undo()
    world.ntfy.dead = ""
    for _ in range(8):
        world.run(WARN)
    assert [level for _, level, _, _ in world.ntfy.letters] == ["CRIT", "WARN"]


def test_other_ways_tell_of_a_notifier_that_stays_dead(world: World) -> None:
    world.ntfy.dead = "it wants a token"
    for level in (CRIT, CRIT, *[CRIT] * 12):
        world.run(level)
    assert any("notify ntfy: nothing has arrived for" in text for *_, text in world.hook.letters)


def test_a_letter_that_perhaps_arrived_is_not_sent_again_where_that_can_be_known(world: World) -> None:
    real = world.ntfy.send

    def send(letter: Letter) -> None:
        real(letter)
        raise CourierError("no answer within 15 s", certain=False)

    world.ntfy.send = send  # type: ignore[method-assign]
    world.run(CRIT)
    world.run(CRIT)
    world.ntfy.send = real  # type: ignore[method-assign]
    world.run(CRIT)
    assert len(world.ntfy.letters) == 1


def test_when_no_way_has_worked_for_an_hour_the_ping_falls_silent(world: World) -> None:
    world.ntfy.dead = world.hook.dead = "it cannot be reached"
    for _ in range(30):
        world.run(CRIT)
    assert 0 < len(world.ping.heard) < 20
    assert "so the ping is left out" in world.warned[-1]


def test_a_ping_that_is_not_heard_is_said_and_harms_nothing(world: World) -> None:
    world.ping.dead = True
    assert world.run(OK) is OK
    assert world.warned == ["ping: it cannot be reached"]


@pytest.mark.parametrize(
    "broken", [b"", b"{", b"[]", b'{"format": 7}', b'{"format": 1, "standings": 3, "boxes": {}}']
)
def test_a_state_that_cannot_be_read_is_put_aside_and_what_is_wrong_told_once_more(
    world: World, broken: bytes
) -> None:
    world.run(CRIT)
    world.run(CRIT)
    (world.folder / "main" / "state.json").write_bytes(broken)
    assert [world.run(CRIT), world.run(CRIT)] == [CRIT, CRIT]
    assert titles(world.hook.letters)[1] == "home: 1 CRIT, 1 WARN"
    assert (world.folder / "main" / "state.json.broken").read_bytes() == broken
    assert "health-state: what was told before could not be read" in str(world.hook.letters[-1])
    (world.folder / "main" / "state.json.broken").unlink()
    assert [world.run(CRIT), world.run(CRIT)] == [CRIT, CRIT]
    assert world.hook.letters[-1][2] == "home: OK (was WARN for 15 min): health-state"


def test_of_two_places_the_newer_content_counts(tmp_path: Path) -> None:
    main, spare = tmp_path / "main", tmp_path / "spare"
    main.mkdir()
    kept = Keepsake(main, spare, "state.json")
    assert kept.load() == {}
    kept.save({"of": "the first"})
    old = (main / "state.json").read_bytes()
    spare.mkdir()
    kept.save({"of": "the second"})
    (spare / "state.json").write_bytes((main / "state.json").read_bytes())
    (main / "state.json").write_bytes(old)
    again = Keepsake(main, spare, "state.json")
    assert again.load()["of"] == "the second"
    again.save({"of": "the third"})
    assert (
        not (spare / "state.json").exists()
        and Keepsake(main, spare, "state.json").load()["of"] == "the third"
    )


def test_a_lock_is_held_by_one_alone(tmp_path: Path) -> None:
    with alone(tmp_path / "lock") as first, alone(tmp_path / "lock") as second:
        assert first and not second
    with alone(tmp_path / "lock") as third:
        assert third


def test_on_a_disk_that_can_only_be_read_the_lock_can_still_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with alone(tmp_path / "lock"):
        pass
    real = os.open

    def opens(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", opens)
    with alone(tmp_path / "lock") as first, alone(tmp_path / "lock") as second:
        assert first and not second


def test_a_file_that_cannot_be_replaced_stays_and_nothing_is_left_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "labctl.prom"
    path.write_bytes(b"old")

    def fsync(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(keepsake.os, "fsync", fsync)  # type: ignore[attr-defined]
        with pytest.raises(OSError, match="No space"):
            keepsake.replace(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_the_same_lines_by_the_same_way_make_the_same_letter_and_others_another() -> None:
    def number(name: str, subject: str, at: float) -> str:
        line = Line(("xid", "rig", subject), Kind.BEGAN, CRIT, "", at)
        return number_of(name, Box(waiting=(line,)))

    one = number("ntfy", "slot0", 5.0)
    assert one == number("ntfy", "slot0", 5.0)
    others = {number("mail", "slot0", 5.0), number("ntfy", "slot0", 6.0), number("ntfy", "slot1", 5.0)}
    assert len(others | {one}) == 4
