"""`labctl plan` and `labctl apply` in a pipe: what is said, in which order, and the exit code."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from conftest import Desk, ended  # isort: skip


def test_a_plan_shows_alike_hosts_together_with_their_diff_and_a_summary(desk: Desk) -> None:
    desk.play(nas={"changes": 1, "conditional": 1, "unchanged": 4})
    done = desk.run("plan")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "gpu-box, mini: 2 changes, 3 unchanged each",
        *["  change       Base | step 0", *_DIFF, "  change       Base | step 1", *_DIFF],
        "nas: 1 change, 1 conditional, 4 unchanged",
        *["  change       Base | step 0", *_DIFF, "  conditional  Base | step 1"],
        "Plan: 5 changes on 3 hosts, 1 conditional, 10 unchanged",
    ]
    assert not desk.notes("do", "go")


_DIFF = [
    "      --- /etc/motd",
    "      +++ /etc/motd",
    "      @@ -1 +1 @@",
    "      -old",
    "      +new",
]


def test_alike_hosts_with_different_diffs_show_each_diff_with_its_hosts(desk: Desk) -> None:
    desk.play(nas={"diff": "+name=nas", "changes": 1}, mini={"changes": 1}, gpu_box={"changes": 1})
    lines = desk.run("plan").out.splitlines()
    assert lines == [
        "gpu-box, nas, mini: 1 change, 3 unchanged each",
        "  change       Base | step 0",
        "      on gpu-box, mini:",
        *_DIFF,
        "      on nas:",
        "      +name=nas",
        "Plan: 3 changes on 3 hosts, 0 conditional, 9 unchanged",
    ]


def test_a_change_without_a_diff_shows_what_it_would_run(desk: Desk) -> None:
    desk.play(nas={"diff": "", "changes": 1})
    lines = desk.run("plan", "--limit", "nas").out.splitlines()
    assert lines[1:3] == ["  change       Base | step 0", "      runs: sh"]
    assert "runs:" not in desk.run("plan", "--limit", "nas", "--no-diff").out


def test_diffs_can_be_left_out(desk: Desk) -> None:
    done = desk.run("plan", "--no-diff")
    assert "step 0" in done.out
    assert "motd" not in done.out
    assert desk.notes("do", "job")[0]["diff"] is False


NOTHING = {"changes": 0, "unchanged": 4}


def test_pending_changes_are_exit_10_only_when_asked_for(desk: Desk) -> None:
    assert desk.run("plan").code == 0
    assert desk.run("plan", "--exit-code").code == 10
    desk.play(gpu_box=NOTHING, nas=NOTHING, mini=NOTHING)
    done = desk.run("plan", "--exit-code")
    assert done.code == 0
    assert "Plan: 0 changes on 3 hosts, 0 conditional, 12 unchanged" in done.out


def test_a_host_that_cannot_be_planned_counts_more_than_pending_changes(desk: Desk) -> None:
    desk.play(nas={"fault": "unreachable"})
    done = desk.run("plan", "--exit-code")
    assert done.code == 4
    assert "nas: unreachable  no answer within 10 s (is it on?)" in done.out
    assert "; 1 host without a plan" in done.out


def test_apply_without_changes_asks_nothing_and_says_0_changes(desk: Desk) -> None:
    desk.play(gpu_box=NOTHING, nas=NOTHING, mini=NOTHING)
    done = desk.run("apply")
    assert done.code == 0
    assert "gpu-box, nas, mini: no changes, 4 unchanged each" in done.out
    assert "Result: 0 changes on 3 hosts in" in done.out


def test_apply_without_a_terminal_needs_yes_and_changes_nothing(desk: Desk) -> None:
    done = desk.run("apply")
    assert done.code == 2
    assert "Plan: 6 changes" in done.out
    assert "there is no terminal to ask on" in done.err
    assert "--yes" in done.err
    assert not desk.notes("do", "go")


def test_apply_with_yes_shows_the_plan_then_each_outcome_then_a_table(desk: Desk) -> None:
    done = desk.run("apply", "--yes", "--no-diff")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines.index("gpu-box, nas, mini: 2 changes, 3 unchanged each") < lines.index(
        "gpu-box: changed  Base | step 0 (0.1s)"
    )
    assert "mini: ok  2 changed, 3 unchanged (1.5s)" in lines
    table = lines[lines.index("") + 1 :]
    assert table[0].split() == [
        "HOST",
        "STATUS",
        "CHANGED",
        "UNCHANGED",
        "FAILED",
        "NOT",
        "RUN",
        "SECONDS",
        "REASON",
    ]
    assert table[1].split() == ["gpu-box", "ok", "2", "3", "0", "0", "1.5"]
    assert table[-1].startswith("Result: 6 changes on 3 hosts in ")
    assert desk.notes("do", "job")[0]["wait_for_go"] is False


def test_check_changes_nothing(desk: Desk) -> None:
    done = desk.run("apply", "--check", "--yes")
    assert done.code == 0
    assert "Plan: 6 changes" in done.out
    assert "Result" not in done.out
    assert desk.notes("do", "job")[0]["execute"] is False


def test_a_failure_shows_the_end_of_its_output_without_control_characters(desk: Desk) -> None:
    desk.play(nas={"fault": "fail", "changes": 3})
    done = desk.run("apply", "--yes")
    assert done.code == 1
    lines = done.out.splitlines()
    at = lines.index("nas: failed  Base | step 2 (0.3s)")
    assert lines[at + 1 : at + 3] == ["    stdout some output", "    stderr E: it broke"]
    assert "nas: failed  it broke (mend it)" in lines
    assert lines[-1].endswith("1 of 3 hosts failed: nas")


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        ({}, 0),
        ({"nas": "fail"}, 1),
        ({"nas": "fail", "mini": "unreachable"}, 1),
        ({"nas": "unreachable"}, 4),
        ({"nas": "unreachable", "mini": "unreachable", "gpu_box": "unreachable"}, 3),
    ],
)
def test_the_exit_code_says_how_it_went(desk: Desk, faults: dict[str, str], code: int) -> None:
    desk.play(**{host: {"fault": fault} for host, fault in faults.items()})
    assert desk.run("apply", "--yes").code == code


def test_a_worker_that_dies_is_told_with_its_log(desk: Desk) -> None:
    desk.play(nas={"fault": "complain-and-die"})
    done = desk.run("apply", "--yes")
    assert done.code == 1
    assert "MemoryError: no memory left" in done.out
    log = done.out.split("what the worker said: ")[1].split(")")[0]
    assert "MemoryError" in Path(log).read_text()


def test_a_warning_goes_to_stderr_with_its_host(desk: Desk) -> None:
    desk.play(nas={"warns": True})
    assert desk.run("plan").err == "warning: host nas: its clock is wrong\n"


@pytest.mark.parametrize(
    ("args", "hosts"),
    [
        ([], ["gpu-box", "nas", "mini"]),
        (["--limit", "nas"], ["nas"]),
        (["--limit", "mini,gpu-box"], ["gpu-box", "mini"]),
        (["--limit", "gpu"], ["gpu-box", "mini"]),
        (["--limit", "always-on"], ["nas"]),
        (["--limit", "mi*", "--limit", "nas"], ["nas", "mini"]),
    ],
)
def test_limit_chooses_the_hosts(desk: Desk, args: list[str], hosts: list[str]) -> None:
    assert desk.run("plan", *args).code == 0
    assert desk.notes("do", "job")[0]["hosts"] == hosts


def test_an_unknown_name_in_limit_contacts_nobody(desk: Desk) -> None:
    done = desk.run("plan", "--limit", "nass,gpu,frob")
    assert done.code == 2
    assert "did you mean nas?" in done.err
    assert "'frob'" in done.err
    assert not desk.notes("do")


def test_an_empty_limit_never_means_everybody(desk: Desk) -> None:
    done = desk.run("apply", "--yes", "--limit", "")
    assert done.code == 2
    assert not desk.notes("do")


def test_a_host_without_a_pinned_key_stops_before_anything_is_contacted(desk: Desk) -> None:
    desk.known_hosts.write_text(desk.known_hosts.read_text().splitlines()[1] + "\n")
    done = desk.run("plan")
    assert done.code == 2
    assert "these hosts have no pinned host key: gpu-box, mini" in done.err
    assert "labctl enroll gpu-box mini" in done.err
    assert not desk.notes("do")
    assert desk.run("plan", "--limit", "nas").code == 0


def test_a_bad_line_in_known_hosts_stops_with_its_number(desk: Desk) -> None:
    with desk.known_hosts.open("a") as file:
        file.write("# a comment\nnot a key\n")
    done = desk.run("plan")
    assert done.code == 2
    assert f"{desk.known_hosts}:5: " in done.err
    assert not desk.notes("do")


def test_a_deploy_that_is_not_python_is_refused_with_its_line(desk: Desk) -> None:
    desk.deploy.write_text("x = 1\nif:\n")
    done = desk.run("plan", str(desk.rack), str(desk.deploy))
    assert done.code == 2
    assert f"{desk.deploy}:2: " in done.err
    assert not desk.notes("do")


def test_only_picks_deploys_beside_site(desk: Desk) -> None:
    assert desk.run("plan", str(desk.rack), "deploys", "--only", "base").code == 0
    assert desk.notes("do", "job")[0]["deploys"] == [str(desk.folder / "deploys" / "base.py")]
    done = desk.run("plan", str(desk.rack), "deploys", "--only", "bas")
    assert done.code == 2
    assert "did you mean base?" in done.err


def test_the_deploys_that_ship_are_used_when_none_is_named(desk: Desk) -> None:
    assert desk.run("plan").code == 0
    (site,) = desk.notes("do", "job")[0]["deploys"]
    assert site.endswith("deploys/site.py")
    assert Path(site).is_absolute()


def test_no_rack_file_says_where_it_was_looked_for(desk: Desk) -> None:
    desk.rack.unlink()
    done = desk.run("plan")
    assert done.code == 2
    assert "inventory/rack.py" in done.err
    assert "labctl init" in done.err
    assert desk.run("plan", "nowhere.py").code == 2


def test_the_environment_names_a_rack_file(desk: Desk, tmp_path: Path) -> None:
    moved = desk.rack.parent.rename(tmp_path / "elsewhere")
    assert desk.run("plan", LABCTL_INVENTORY=str(moved)).code == 0
    assert desk.notes("do", "job")[0]["rack"] == str(moved / "rack.py")


def test_every_option_reaches_the_worker(desk: Desk) -> None:
    args = ["--yes", "--parallel", "7", "--serial", "--fail-percent", "30", "--forks-per-core", "2"]
    assert desk.run("apply", *args).code == 0
    job = desk.notes("do", "job")[0]
    assert (job["parallel"], job["serial"], job["fail_percent"]) == (7, True, 30)
    assert " pid " in job["owner"]


def test_json_is_one_document_and_nothing_else(desk: Desk) -> None:
    desk.play(nas={"fault": "fail"}, mini={"warns": True})
    done = desk.run("apply", "--yes", "--json")
    document = json.loads(done.out)
    assert done.code == document["exit_code"] == 1
    assert document["command"] == "apply"
    assert document["rack"] == {"name": "desk", "file": str(desk.rack)}
    assert document["plan"]["changes"] == 6
    hosts = {host["host"]: host for host in document["hosts"]}
    assert list(hosts) == ["gpu-box", "nas", "mini"]
    assert hosts["gpu-box"]["status"] == "ok"
    assert hosts["gpu-box"]["plan"][0] == {
        "index": 0,
        "name": "Base | step 0",
        "state": "change",
        "diff": "--- /etc/motd\n+++ /etc/motd\n@@ -1 +1 @@\n-old\n+new\n",
        "commands": ["sh"],
    }
    assert hosts["nas"]["code"] == "op-failed"
    assert hosts["nas"]["operations"][-1]["status"] == "failed"


def test_a_hundred_hosts_are_one_paragraph_and_fit_into_the_memory_of_the_parent(desk: Desk) -> None:
    names = [f"node{number:03}" for number in range(100)]
    hosts = "".join(f"Host(name='{name}', address='10.0.1.{at}')," for at, name in enumerate(names, 1))
    desk.rack.write_text(
        "from labctl.inventory import Host, Rack\n"
        f"rack = Rack(name='desk', hosts=({hosts}))\nglobals().update(rack.groups())\n"
    )
    key = desk.known_hosts.read_text().split()[2]
    addresses = ",".join(f"10.0.1.{at}" for at in range(1, 101))
    desk.known_hosts.write_text(f"{addresses} ssh-ed25519 {key}\n")
    done = desk.run("apply", "--yes")
    assert (done.code, done.err) == (0, "")
    assert "Plan: 200 changes on 100 hosts" in done.out
    assert done.out.splitlines()[-1].startswith("Result: 200 changes on 100 hosts in ")


def test_json_cannot_ask(desk: Desk) -> None:
    done = desk.run("apply", "--json")
    assert (done.code, done.out) == (2, "")
    assert "--yes" in done.err
    assert desk.run("apply", "--json", "--check").code == 0


def test_what_was_not_done_is_named_for_alike_hosts_together(desk: Desk) -> None:
    desk.play(
        nas={"fault": "fail", "changes": 3, "fail_at": 1},
        mini={"fault": "fail", "changes": 3, "fail_at": 1},
        gpu_box={"fault": "die-midway", "changes": 2},
    )
    lines = desk.run("apply", "--yes", "--limit", "nas,mini").out.splitlines()
    at = lines.index("nas, mini: 1 of 3 changes done, 1 failed; not done:")
    assert lines[at + 1] == "  Base | step 2"
    lines = desk.run("apply", "--yes", "--limit", "gpu-box").out.splitlines()
    assert "gpu-box: 1 of 2 changes done; not done:" in lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_what_was_and_was_not_done(desk: Desk, number: int) -> None:
    desk.play(gpu_box={"fault": "slow", "changes": 3}, nas={}, mini={})
    process = desk.start("apply", "--yes", "--no-diff", "--limit", "gpu-box")
    assert process.stdout is not None
    desk.wait_for("running")
    os.kill(process.pid, number)
    shown = process.stdout.read()
    assert process.wait(30) == 130
    process.stdout.close()
    assert "gpu-box: changed  Base | step 2 (9.9s)" in shown
    assert "gpu-box: interrupted  " in shown
    assert "interrupted  interrupted" not in shown
    assert shown.splitlines()[-1].endswith("interrupted; 0 of 1 host finished")


def test_killing_the_parent_is_noticed_by_the_worker(desk: Desk) -> None:
    desk.play(gpu_box={"fault": "slow"})
    process = desk.start("apply", "--yes", "--limit", "gpu-box")
    desk.wait_for("running")
    process.kill()
    process.communicate(timeout=30)
    worker = desk.notes("started")[0]["started"]
    assert ended(worker)
    assert desk.notes("eof", worker)
