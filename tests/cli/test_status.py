"""``labctl status``: what hosts say, and what that comes to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from powercap_rack import KEY, Hosts

from labctl import wiring
from labctl.cli.main import main
from labctl.domain.failures import Failure, HostError
from labctl.ports import Said

RACK = """\
from labctl.inventory import Command, Host, Rack

rack = Rack(name="home", hosts=[
    Host(name="rig", address="10.0.0.1", services=[Command(name="docs", argv=["/bin/true"], port=8000)]),
    Host(name="nas", address="10.0.0.2"),
])
globals().update(rack.groups())
"""
HEAD = [
    "HOST", "STATUS", "MODE", "SINCE", "GPUS", "WATTS", "MODELS", "REQUESTS",
    "PROOF", "HOLDS", "FINDINGS", "SERVICES", "NOTES",
]  # fmt: skip
OFF = Failure("timeout", "10.0.0.2:22 did not answer within 10 s", "is it on?", unreachable=True)


def unit(**more: Any) -> dict[str, Any]:
    return {
        "unit": "labctl-docs.service", "service": "docs", "active": "active", "sub": "running",
        "since": "Mon", "restarts": 0, "answer": 200, "models": [{"model": "qwen", "state": "ready"}], **more,
    }  # fmt: skip


def said(*units: dict[str, Any], **more: Any) -> Any:
    document = {"engines": list(units), "forced": None, "errors": {}, **more}
    return lambda asked: Said(0, json.dumps(document).encode(), "")


def off(asked: object) -> Said:
    raise HostError(OFF)


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    (tmp_path / "rack.py").write_text(RACK)
    (tmp_path / "known_hosts").write_text(f"10.0.0.1 ssh-ed25519 {KEY}\n10.0.0.2 ssh-ed25519 {KEY}\n")
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"LABCTL_{name}", str(tmp_path / name))
    monkeypatch.setenv("LABCTL_INVENTORY", str(tmp_path / "rack.py"))

    def asked(*args: str, **hosts: Any) -> tuple[int, str]:
        monkeypatch.setattr(wiring, "remote", lambda: Hosts(hosts))
        code = main(["status", *args])
        return code, capsys.readouterr().out

    return asked


def test_a_row_for_each_host_with_services_models_and_what_was_forced(ask: Any) -> None:
    note = {
        "words": "card two is lent",
        "who": "ann@desk",
        "when": "2026-01-02T03:04:05+00:00",
        "what": ["x"],
    }
    code, text = ask(rig=said(unit(restarts=3), forced=note), nas=off)
    assert code == 4
    head, rig, nas, hint = text.splitlines()
    assert head.split() == HEAD
    assert rig.split()[:8] == ["rig", "ok", "-", "-", "-", "-", "qwen", "-"]
    assert "docs active" in rig
    assert rig.endswith(
        'docs was restarted 3 times; forced by ann@desk at 2026-01-02T03:04: "card two is lent"'
    )
    assert nas.split()[:2] == ["nas", "unreachable"]
    assert hint == "nas: is it on?"


@pytest.mark.parametrize(
    ("rig", "code", "words"),
    [
        (said(unit()), 0, "rig   ok"),
        (said(unit(active="failed")), 1, "docs failed"),
        (said(), 1, "missing: docs"),
        (said(unit(models=[{"model": "qwen", "state": "starting"}])), 0, "qwen starting"),
        (said(unit(models=None, answer=401)), 0, "docs wants a key"),
        (said(errors={"engines": {"what": "systemctl does not answer"}}, engines=None), 1, "does not answer"),
        (said(engines=None), 1, "its agent is older than this labctl"),
        (said(unit(service="\x1b[2Jdocs", models=3, restarts="x")), 1, "missing: docs"),
        (lambda asked: Said(127, b"", "not found"), 1, "agent is not installed"),
    ],
)
def test_what_a_host_says_decides_the_exit_code(ask: Any, rig: Any, code: int, words: str) -> None:
    found, text = ask("rig", rig=rig)
    assert (found, words in text) == (code, True), text
    assert "\x1b" not in text


def test_what_one_host_says_never_looks_like_a_row_of_another(ask: Any) -> None:
    note = {"words": "lent\nnas   ok\u2028x", "who": "ann", "when": "now"}
    _, text = ask(rig=said(unit(), forced=note), nas=off)
    assert [line.split()[0] for line in text.splitlines()] == ["HOST", "rig", "nas", "nas:"]


def test_json_is_one_document(ask: Any) -> None:
    code, text = ask("--json", rig=said(unit()), nas=off)
    document = json.loads(text)
    rig, nas = document["hosts"]
    assert (code, document["ok"]) == (4, False)
    assert rig["services"][0]["models"] == [{"model": "qwen", "state": "ready"}]
    assert (rig["status"], rig["missing"], rig["forced"]) == ("ok", [], None)
    assert nas["failure"]["code"] == "timeout"


def test_nobody_reached_is_3(ask: Any) -> None:
    assert ask(rig=off, nas=off)[0] == 3
