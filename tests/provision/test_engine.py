"""The parent's side of a run, against a worker that plays scenarios: every way out of the loop."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labctl.adapters.clock import SystemClock
from labctl.provision import engine
from labctl.provision.events import Event, HostEnded, HostReport, Log, OpEnded, OpStarted
from labctl.provision.process import Crew

FAKE = Path(__file__).with_name("fake_worker.py")


class Stage:
    """A place to run scenarios and to look at what the workers were told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "record"
        self.events: list[Event] = []
        self.asked = 0
        self.answer: Callable[[dict[str, HostReport]], bool] = lambda reports: True
        self.listener: Callable[[Event], None] = lambda event: None

    def run(self, hosts: dict[str, dict[str, Any]], **request: Any) -> engine.Result:
        scenario = self.folder / "scenario.json"
        scenario.write_text(json.dumps({"record": str(self.record), "hosts": hosts}))
        wanted: dict[str, Any] = {"execute": True, "owner": "test", "cores": 2, **request}
        job = engine.Request(Path("/rack.py"), (Path("/site.py"),), tuple(hosts), **wanted)
        clock = SystemClock()
        with Crew(self.folder, clock.now(), (sys.executable, "-P", str(FAKE), str(scenario))) as crew:
            self.crew = crew
            return engine.run(job, self._hear, self._decide, crew=crew, clock=clock)

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self.listener(event)

    def _decide(self, reports: dict[str, HostReport]) -> bool:
        self.asked += 1
        return self.answer(reports)

    def notes(self, key: str, value: object = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.record.read_text().splitlines()]
        return [line for line in lines if key in line and (value is None or line[key] == value)]

    def statuses(self, result: engine.Result) -> dict[str, str]:
        return {name: report.end.status for name, report in result.reports.items() if report.end}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    for worker in made.crew.workers:
        with pytest.raises(ProcessLookupError):
            os.killpg(worker.pid, 0)


def test_all_hosts_are_planned_then_asked_about_once_then_executed(stage: Stage) -> None:
    seen: list[dict[str, int]] = []

    def answer(reports: dict[str, HostReport]) -> bool:
        seen.append({name: len(report.plan) for name, report in reports.items()})
        assert not any(isinstance(event, OpStarted) for event in stage.events)
        return True

    stage.answer = answer
    result = stage.run({"a": {}, "b": {"changes": 1}})
    assert seen == [{"a": 5, "b": 4}]
    assert stage.statuses(result) == {"a": "ok", "b": "ok"}
    assert [event.name for event in stage.events if isinstance(event, OpEnded) and event.host == "a"] == [
        "Base | step 0",
        "Base | step 1",
    ]
    assert stage.notes("do", "go")[0]["hosts"] == ["a", "b"]
    assert not result.interrupted
    assert not result.declined


def test_a_no_ends_every_host_without_a_change(stage: Stage) -> None:
    stage.answer = lambda reports: False
    result = stage.run({"a": {}, "b": {}})
    assert result.declined
    assert stage.statuses(result) == {"a": "interrupted", "b": "interrupted"}
    assert stage.notes("do", "cancel")[0]["grace_s"] == 0
    assert not stage.notes("do", "go")
    assert not any(isinstance(event, OpStarted) for event in stage.events)


def test_planning_asks_nothing(stage: Stage) -> None:
    result = stage.run({"a": {}}, execute=False)
    assert stage.asked == 0
    assert stage.statuses(result) == {"a": "ok"}


def test_with_a_yes_beforehand_no_host_waits_for_another(stage: Stage) -> None:
    result = stage.run({"a": {}}, wait_for_go=False)
    assert stage.asked == 0
    assert stage.notes("do", "job")[0]["wait_for_go"] is False
    assert result.reports["a"].end is not None
    assert result.reports["a"].end.changed == 2


def test_unreachable_hosts_are_not_asked_about_and_not_told_to_go(stage: Stage) -> None:
    result = stage.run({"a": {"fault": "unreachable"}, "b": {}})
    assert stage.asked == 1
    assert stage.notes("do", "go")[0]["hosts"] == ["b"]
    assert stage.statuses(result) == {"a": "unreachable", "b": "ok"}


def test_when_no_host_has_a_plan_nobody_is_asked(stage: Stage) -> None:
    result = stage.run({"a": {"fault": "unreachable"}, "b": {"fault": "unreachable"}})
    assert stage.asked == 0
    assert set(stage.statuses(result).values()) == {"unreachable"}


MANY: dict[str, dict[str, Any]] = {f"h{number:02}": {} for number in range(22)}


def test_many_hosts_are_dealt_out_over_workers_and_each_once(stage: Stage) -> None:
    result = stage.run(MANY, forks_per_core=2, parallel=10)
    jobs = stage.notes("do", "job")
    assert len(jobs) == 3
    assert sorted(host for job in jobs for host in job["hosts"]) == sorted(MANY)
    assert sorted(job["parallel"] for job in jobs) == [3, 3, 4]
    assert set(stage.statuses(result).values()) == {"ok"}
    assert stage.asked == 1


@pytest.mark.parametrize("careful", [{"serial": True}, {"fail_percent": 20}])
def test_what_needs_one_place_to_decide_gets_one_worker(stage: Stage, careful: dict[str, Any]) -> None:
    stage.run(MANY, **careful)
    assert len(stage.notes("do", "job")) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("die-before-plan", "signal 9"),
        ("half-a-line", "signal 9"),
        ("garbage", "not an event: 'Hello"),
        ("stranger", "not its host"),
        ("complain-and-die", "exit status 3): MemoryError: no memory left"),
    ],
)
def test_a_broken_worker_fails_its_own_hosts_only(stage: Stage, fault: str, words: str) -> None:
    hosts = {**MANY, "h00": {"fault": fault}}
    result = stage.run(hosts)
    mine = stage.notes("do", "job")
    broken = next(job["hosts"] for job in mine if "h00" in job["hosts"])
    fine = next(job["hosts"] for job in mine if "h00" not in job["hosts"])
    assert {stage.statuses(result)[host] for host in broken} == {"failed"}
    assert {stage.statuses(result)[host] for host in fine} == {"ok"}
    end = result.reports["h00"].end
    assert end is not None
    assert end.code == "worker-died"
    assert words in end.reason
    assert "run the same command again" in end.hint
    assert [event.host for event in stage.events if isinstance(event, HostEnded) and event.host == "h00"] == [
        "h00"
    ]


def test_the_stderr_of_a_dying_worker_is_kept_and_named(stage: Stage) -> None:
    result = stage.run({"a": {"fault": "complain-and-die"}})
    end = result.reports["a"].end
    assert end is not None
    log = Path(end.hint.split(": ")[-1])
    assert "MemoryError" in log.read_text()


def test_a_silent_worker_leaves_no_log(stage: Stage) -> None:
    stage.run({"a": {}})
    assert not list(stage.folder.glob("worker-*.log"))


def test_a_worker_that_dies_midway_is_counted_from_what_it_had_told(stage: Stage) -> None:
    result = stage.run({"a": {"changes": 4, "fault": "die-midway"}})
    end = result.reports["a"].end
    assert end is not None
    assert (end.status, end.code, end.changed, end.not_run) == ("failed", "worker-died", 3, 1)


def test_a_worker_that_says_all_but_does_not_exit_is_ended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "EXIT_GRACE_S", 0.1)
    monkeypatch.setattr(engine, "_TICK_S", 0.05)
    result = stage.run({"a": {"fault": "linger"}})
    assert stage.statuses(result) == {"a": "ok"}


def _interrupt_when(stage: Stage, when: Callable[[Event], bool], number: int = signal.SIGINT) -> None:
    def listen(event: Event) -> None:
        if when(event):
            os.kill(os.getpid(), number)

    stage.listener = listen


def _last_step_starts(event: Event) -> bool:
    return isinstance(event, OpStarted) and event.index == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_interrupt_lets_the_running_operation_finish(stage: Stage, number: int) -> None:
    _interrupt_when(stage, _last_step_starts, number)
    result = stage.run({"a": {"fault": "slow"}})
    assert result.interrupted
    assert [order["grace_s"] for order in stage.notes("do", "cancel")] == [engine.CANCEL_GRACE_S]
    assert result.reports["a"].ops[-1].status == "changed"
    assert stage.statuses(result) == {"a": "interrupted"}
    assert any(isinstance(event, Log) and "press Ctrl-C again" in event.message for event in stage.events)


def test_the_second_interrupt_ends_the_running_operation(stage: Stage) -> None:
    _interrupt_when(
        stage,
        lambda event: _last_step_starts(event) or (isinstance(event, Log) and "finishing" in event.message),
    )
    result = stage.run({"a": {"fault": "stubborn"}})
    assert [order["grace_s"] for order in stage.notes("do", "cancel")] == [engine.CANCEL_GRACE_S, 0]
    assert result.interrupted


@pytest.mark.parametrize("fault", ["deaf", "hang-before-plan"])
def test_a_worker_that_ignores_the_interrupt_is_ended_within_the_bound(
    stage: Stage, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CANCEL_GRACE_S", 0.1)
    monkeypatch.setattr(engine, "KILL_GRACE_S", 0.2)
    monkeypatch.setattr(engine, "_TICK_S", 0.05)
    if fault == "deaf":
        _interrupt_when(stage, _last_step_starts)
    else:
        _interrupt_when(stage, lambda event: isinstance(event, HostEnded))
    result = stage.run({"z": {"fault": "unreachable"}, "a": {"fault": fault, "changes": 2}})
    end = result.reports["a"].end
    assert end is not None
    assert end.status == "interrupted"
    assert result.interrupted


def test_an_interrupt_at_the_question_changes_nothing(stage: Stage) -> None:
    def answer(reports: dict[str, HostReport]) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal did not break the question")

    stage.answer = answer
    result = stage.run({"a": {}})
    assert result.interrupted
    assert not stage.notes("do", "go")
    assert stage.statuses(result) == {"a": "interrupted"}


def test_after_a_run_ctrl_c_is_again_what_it_was(stage: Stage) -> None:
    before = signal.getsignal(signal.SIGINT)
    stage.run({"a": {}})
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_the_person_ignores_stays_ignored(stage: Stage) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        _interrupt_when(stage, _last_step_starts, signal.SIGHUP)
        result = stage.run({"a": {}})
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not result.interrupted
    assert stage.statuses(result) == {"a": "ok"}


def test_a_reader_that_went_away_does_not_leave_an_operation_half_done(stage: Stage) -> None:
    def listen(event: Event) -> None:
        if _last_step_starts(event):
            raise BrokenPipeError

    stage.listener = listen
    with pytest.raises(BrokenPipeError):
        stage.run({"a": {"fault": "slow"}})
    assert [order["grace_s"] for order in stage.notes("do", "cancel")] == [engine.CANCEL_GRACE_S]


def test_a_decision_that_raises_changes_nothing_and_is_heard_after_the_end(stage: Stage) -> None:
    def answer(reports: dict[str, HostReport]) -> bool:
        raise LookupError("no terminal")

    stage.answer = answer
    with pytest.raises(LookupError):
        stage.run({"a": {}})
    assert not stage.notes("do", "go")
    assert any(isinstance(event, HostEnded) for event in stage.events) or stage.notes("do", "cancel")


def test_a_worker_without_a_job_ends_when_the_parent_leaves(stage: Stage, tmp_path: Path) -> None:
    scenario = tmp_path / "s.json"
    scenario.write_text(json.dumps({"record": str(tmp_path / "r"), "hosts": {}}))
    with Crew(tmp_path, SystemClock().now(), (sys.executable, str(FAKE), str(scenario))) as crew:
        stage.crew = crew
        crew.grow(2)
        assert len({worker.pid for worker in crew.workers}) == 2
    assert [worker.close(0) for worker in crew.workers] == [-signal.SIGKILL] * 2


def test_workers_live_in_a_session_of_their_own(stage: Stage) -> None:
    sessions: list[int] = []
    stage.listener = lambda event: sessions.extend(os.getsid(worker.pid) for worker in stage.crew.workers)
    stage.run({"a": {}}, execute=False)
    assert os.getsid(0) not in sessions


def test_only_the_newest_logs_are_kept(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"worker-2020{number:04}.log").write_text("x")
    Crew(tmp_path, SystemClock().now())
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 40
    assert left[-1] == "worker-20200059.log"
