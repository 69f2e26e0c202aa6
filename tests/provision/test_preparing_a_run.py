"""What is found, folded and counted around a run: deploy files, plans of alike hosts, ledgers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from labctl.cli.plan_view import folded, shared
from labctl.domain.problem import LabctlError
from labctl.provision.deploys import call_order, resolve
from labctl.provision.events import (
    Connected,
    HostEnded,
    HostReport,
    Log,
    OpEnded,
    Planned,
    PlannedOp,
    PlanState,
    WorkerEnded,
)
from labctl.provision.ledger import Ledger, Why, not_done
from labctl.provision.summary import changed, plan_totals

SITE = """
from deploys.agent import agent
from deploys.base import base
from deploys import wol as wake, services

base()
if True:
    agent()
print(base)
wake.wol()
services.services()
base()
"""


def test_the_order_of_deploys_is_that_of_the_calls_in_site() -> None:
    assert call_order(ast.parse(SITE)) == ("base", "agent", "wol", "services")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site.py").write_text(SITE)
    for name in ("agent", "base", "wol", "services", "extra", "_private"):
        (tmp_path / f"{name}.py").write_text("x = 1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ([], ["site"]),
        (["agent,base"], ["base", "agent"]),
        (["services", "extra", "base"], ["base", "services", "extra"]),
        (["base,base"], ["base"]),
    ],
)
def test_only_picks_files_in_the_order_of_site(folder: Path, only: list[str], names: list[str]) -> None:
    for given in (folder, folder / "site.py"):
        assert [path.stem for path in resolve(given, only)] == names


def test_a_deploy_file_of_ones_own_is_run_alone(folder: Path) -> None:
    assert resolve(folder / "extra.py", []) == (folder / "extra.py",)


def test_a_directory_without_site_is_run_by_name(folder: Path) -> None:
    (folder / "site.py").unlink()
    assert [path.stem for path in resolve(folder, [])] == ["agent", "base", "extra", "services", "wol"]


@pytest.mark.parametrize(
    ("given", "only", "words"),
    [
        ("nowhere.py", [], "there is no deploy file"),
        (".", ["bas"], "did you mean base?"),
        (".", ["_private"], "there is no deploy '_private'"),
        (".", ["../base"], "there is no deploy '../base'"),
        (".", ["site"], "there is no deploy 'site'"),
        (".", [""], "names no deploy"),
    ],
)
def test_what_is_not_there_is_refused(folder: Path, given: str, only: list[str], words: str) -> None:
    with pytest.raises(LabctlError, match=words.replace("?", r"\?")):
        resolve(folder / given, only)


@pytest.mark.parametrize("text", [b"if:\n", b"x = '\xff'\n", b"x = 1\0\n", b"(" * 9000])
def test_a_deploy_that_is_not_python_names_its_file(folder: Path, text: bytes) -> None:
    (folder / "base.py").write_bytes(text)
    with pytest.raises(LabctlError, match=r"base\.py"):
        resolve(folder, ["base"])


def test_an_empty_directory_holds_no_deploy(tmp_path: Path) -> None:
    with pytest.raises(LabctlError, match="holds no deploy file"):
        resolve(tmp_path, [])


def _report(host: str, *states: PlanState, diff: str = "") -> HostReport:
    ops = (PlannedOp(index, f"op {index}", state, diff) for index, state in enumerate(states))
    return HostReport(host, tuple(ops))


def test_hosts_are_one_paragraph_when_the_same_operations_are_due() -> None:
    reports = [
        _report("a", "change", "no-change"),
        _report("b", "change", "no-change", diff="+x"),
        _report("c", "no-change", "change"),
        _report("d", "change", "no-change", "no-change"),
        _report("e", "change", "conditional"),
    ]
    assert [[report.host for report in alike] for alike in folded(reports)] == [
        ["a", "b"],
        ["c"],
        ["d"],
        ["e"],
    ]


def test_a_diff_is_shown_once_for_the_hosts_that_share_it() -> None:
    pairs = [("a", "+x"), ("b", "+y"), ("c", "+x")]
    assert shared(pairs) == [(["a", "c"], "+x"), (["b"], "+y")]


def test_totals_count_planned_hosts_and_say_when_one_has_no_plan() -> None:
    away = HostReport("c", end=HostEnded("c", "unreachable", "timeout", "x"))
    reports = [_report("a", "change", "change", "no-change"), _report("b", "conditional", "no-change"), away]
    totals = plan_totals({report.host: report for report in reports})
    assert str(totals) == "2 changes on 1 host, 1 conditional, 2 unchanged; 1 host without a plan"
    assert (
        str(plan_totals({"b": _report("b", "no-change")}))
        == "0 changes on 1 host, 0 conditional, 1 unchanged"
    )


def test_a_host_for_which_there_is_nothing_to_do_has_a_plan() -> None:
    done = HostReport("a", end=HostEnded("a", "ok"))
    waiting = HostReport("b")
    assert str(plan_totals({"a": done, "b": waiting})) == "0 changes on 2 hosts, 0 conditional, 0 unchanged"


def test_what_was_changed_is_counted_over_the_hosts_that_changed() -> None:
    ends = [HostEnded("a", "ok", changed=3), HostEnded("b", "ok"), HostEnded("c", "failed", changed=1)]
    assert changed(HostReport(end.host, end=end) for end in ends) == "4 changes on 2 hosts"
    assert changed([HostReport("b", end=ends[1])]) == "0 changes on 1 host"


MINE = frozenset({"a"})


@pytest.mark.parametrize(
    "event", [Connected("b", 0.1), Log("warning", "x", "b"), HostEnded("zzz", "ok"), Planned("b", (), 0.1)]
)
def test_a_worker_may_speak_of_its_own_hosts_only(event: Connected | Log | HostEnded | Planned) -> None:
    with pytest.raises(ValueError, match="not its host"):
        Ledger(["a", "b"]).record(event, MINE)


def test_a_host_ends_once() -> None:
    ledger = Ledger(["a"])
    ledger.record(HostEnded("a", "ok"), MINE)
    for late in (HostEnded("a", "failed"), OpEnded("a", 0, "op", "changed")):
        with pytest.raises(ValueError, match="after its end"):
            ledger.record(late, MINE)
    ledger.record(Log("warning", "late but harmless", "a"), MINE)
    ledger.record(WorkerEnded(0.1, 1), MINE)
    assert ledger.reports["a"].end == HostEnded("a", "ok")


def test_the_end_that_we_write_counts_what_was_told() -> None:
    ledger = Ledger(["a"])
    plan = _report("a", "change", "no-change", "change", "change", "conditional").plan
    ledger.record(Planned("a", plan, 0.1), MINE)
    ledger.record(OpEnded("a", 0, "op 0", "changed", 1.0), MINE)
    ledger.record(OpEnded("a", 1, "op 1", "unchanged", 0.5), MINE)
    ledger.record(OpEnded("a", 2, "op 2", "failed", 0.5), MINE)
    end = ledger.end("a", Why("failed", "worker-died", "it died"))
    assert (end.changed, end.unchanged, end.failed, end.not_run, end.seconds) == (1, 1, 1, 1, 2.0)
    assert not_done(ledger.reports["a"]) == ("op 3",)
    assert ledger.unfinished() == ()


def test_everybody_has_planned_when_each_has_a_plan_or_has_ended() -> None:
    ledger = Ledger(["a", "b"])
    assert not ledger.all_planned()
    ledger.record(Planned("a", (), 0.1), frozenset({"a", "b"}))
    assert not ledger.all_planned()
    ledger.record(HostEnded("b", "unreachable"), frozenset({"a", "b"}))
    assert ledger.all_planned()
    assert ledger.awaiting_go() == ("a",)
