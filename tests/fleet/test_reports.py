"""Reports of many hosts: a report or the reason why there is none, never an error."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripted import OFF, Scripted, says

from labctl.fleet import reports
from labctl.fleet.reports import Report, Unreachable
from labctl.ports import Said

AGENT = "/usr/local/lib/labctl/agent.pyz"


def ask(remote: Scripted, *hosts: str) -> dict[str, Report | Unreachable]:
    loaded: Any = SimpleNamespace(host_data={host: {} for host in hosts}, path=Path("rack.py"))
    return reports.ask(loaded, hosts, 5.0, remote)


def test_hosts_report_and_those_that_are_off_are_answers_too() -> None:
    remote = Scripted({"a": says({"format": 1})})
    assert ask(remote, "a", "b") == {"a": Report("a", {"format": 1}), "b": Unreachable("b", OFF)}
    assert {one.argv[1:] for one in remote.asked} == {("report",)}
    assert not any(one.root for one in remote.asked)


def test_a_login_shell_that_greets_is_read_past() -> None:
    remote = Scripted({"a": lambda asked: Said(0, b'Welcome to a!\n\n{"format": 1}\n', "")})
    assert ask(remote, "a") == {"a": Report("a", {"format": 1})}


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (Said(127, b"", "env: ...: No such file"), "no-agent", "not installed"),
        (Said(1, b"", f"sudo: {AGENT}: command not found"), "no-agent", "not installed"),
        (Said(2, b"", "labctl-agent: what labctl runs on"), "no-agent", "is older than this labctl"),
        (Said(1, b"", "Traceback\n  boom\n"), "op-failed", "gave no answer there: Traceback boom"),
        (Said(0, b"[1]", ""), "op-failed", "gave no answer there: [1]"),
        (Said(-1, b"", ""), "op-failed", "a signal ended it"),
        (Said(0, b"[" * 100_000, ""), "op-failed", "gave no answer"),
    ],
)
def test_what_is_no_report_is_named(said: Said, code: str, words: str) -> None:
    found = ask(Scripted({"a": lambda asked: said}), "a")["a"]
    assert isinstance(found, Unreachable)
    assert found.failure.code == code
    assert words in found.failure.reason
    assert "labctl apply --limit a" in found.failure.hint
    assert not found.failure.unreachable
