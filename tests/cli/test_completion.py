"""Completion: names from the rack file without running it, silently."""

from __future__ import annotations

import subprocess
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import click
import pytest

from labctl.cli import completion
from labctl.cli.main import cli, main
from labctl.lab.spec import LabHost, LabSpec

from conftest import Desk  # isort: skip


def _complete(desk: Desk, line: str) -> list[str]:
    words = line.split(" ")
    done = desk.run(_LABCTL_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    assert (done.code, done.err) == (0, "")
    return [item.partition(",")[2] for item in done.out.splitlines() if item]


def test_commands_are_completed(desk: Desk) -> None:
    assert _complete(desk, "labctl a") == ["apply"]
    assert set(_complete(desk, "labctl ")) >= {"plan", "apply", "enroll"}


def test_options_are_completed(desk: Desk) -> None:
    assert _complete(desk, "labctl apply --fail") == ["--fail-percent"]
    assert "--version" in _complete(desk, "labctl --")


def test_hosts_and_groups_are_completed_for_limit(desk: Desk) -> None:
    assert _complete(desk, "labctl apply --limit ") == [
        "always_on",
        "gpu",
        "gpu-box",
        "mini",
        "nas",
        "storage",
    ]
    assert _complete(desk, "labctl apply --limit gp") == ["gpu", "gpu-box"]


def test_where_only_hosts_may_stand_groups_are_not_suggested(desk: Desk) -> None:
    assert desk.run("plan").code == 0  # now the cache holds the groups, too
    assert _complete(desk, "labctl enroll ") == ["gpu-box", "mini", "nas"]
    assert _complete(desk, "labctl enroll nas ") == ["gpu-box", "mini"]
    assert _complete(desk, "labctl enroll g") == ["gpu-box"]


def test_deploys_are_completed_for_only(desk: Desk) -> None:
    assert _complete(desk, "labctl plan --only ba") == ["backend", "base"]
    assert _complete(desk, "labctl plan --only base,re") == ["base,restart"]
    assert _complete(desk, "labctl plan --only base,wo") == ["base,wol"]


def test_hosts_of_a_lab_are_completed(desk: Desk) -> None:
    assert _complete(desk, "labctl lab ssh ") == []
    home = desk.folder / "state" / "lab" / "lab"
    home.mkdir(parents=True)
    host = LabHost("nas", "10.1.2.3", "52:54:00:01:02:03")
    network = IPv4Network("10.1.2.0/24")
    spec = LabSpec("lab", (host,), network, desk.folder / "state" / "lab", desk.folder / "cache", "key")
    (home / "spec.json").write_text(spec.dump())
    for words in ("ssh", "fault", "reset"):
        assert _complete(desk, f"labctl lab {words} n") == ["nas"]


def test_the_last_part_of_a_list_is_completed_without_what_is_in_it(desk: Desk) -> None:
    assert _complete(desk, "labctl plan --limit nas,gpu,") == [
        "nas,gpu,always_on",
        "nas,gpu,gpu-box",
        "nas,gpu,mini",
        "nas,gpu,storage",
    ]


def test_a_rack_file_that_was_named_is_the_one_that_is_read(desk: Desk, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text("Host('elsewhere', '10.0.0.9')")
    assert _complete(desk, f"labctl plan {other} --limit e") == ["elsewhere"]


def test_pressing_tab_runs_nothing_of_the_rack_file(desk: Desk) -> None:
    marker = desk.folder / "was-run"
    desk.rack.write_text(f"open({str(marker)!r}, 'w')\nHost(name='trap')\n")
    assert _complete(desk, "labctl plan --limit t") == ["trap"]
    assert not marker.exists()


@pytest.mark.parametrize("text", ["def", "\0", "x = " + "(" * 5000, "", "Host(**{})", "Host(f'a{1}')"])
def test_a_rack_file_that_cannot_be_read_gives_no_names_and_no_noise(desk: Desk, text: str) -> None:
    desk.rack.write_text(text)
    assert _complete(desk, "labctl plan --limit x") == []


def test_no_rack_file_gives_no_names(desk: Desk) -> None:
    desk.rack.unlink()
    assert _complete(desk, "labctl plan --limit x") == []


def test_names_that_a_loop_makes_are_known_after_the_first_real_load(desk: Desk) -> None:
    loop = "[Host(name=f'node{i}', address=f'10.0.1.{i}') for i in (1, 2)]"
    desk.rack.write_text(
        "from labctl.inventory import Host, Rack\n"
        f"rack = Rack(name='desk', hosts={loop})\nglobals().update(rack.groups())\n"
    )
    assert _complete(desk, "labctl plan --limit no") == []
    line = desk.known_hosts.read_text().split()[2]
    desk.known_hosts.write_text(f"10.0.1.1,10.0.1.2 ssh-ed25519 {line}\n")
    assert desk.run("plan").code == 0
    assert _complete(desk, "labctl plan --limit no") == ["node1", "node2"]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_script_of_each_shell_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_LABCTL_COMPLETE" in capsys.readouterr().out


def test_the_bash_script_is_bash(capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    script = capsys.readouterr().out
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_login_shell_is_meant_when_none_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert main(["completion"]) == 0
    assert "fish" in capsys.readouterr().out
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert main(["completion"]) == 2
    assert "bash, zsh, fish" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_not_worth_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABCTL_CACHE", str(tmp_path / "file"))
    completion.remember(tmp_path / "rack.py", ["a"])
    assert (tmp_path / "file").read_text() == ""


def test_completion_is_offered_where_hosts_are_named() -> None:
    context = click.Context(cli)
    for name in ("plan", "apply"):
        command: Any = cli.get_command(context, name)
        (limit,) = (option for option in command.params if option.name == "limit")
        assert limit._custom_shell_complete is completion.complete_hosts
