"""``labctl status``: cells and sentences, eighty columns, a pipe, and the same again with --watch."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from powercap_rack import KEY, Hosts

from labctl import wiring
from labctl.cli import modes, status_view, status_watch
from labctl.cli.findings import Kept
from labctl.cli.main import main
from labctl.cli.modes import Modes
from labctl.cli.status_rows import HostStatus, notes, of_report, of_telemetry
from labctl.cli.status_view import Look
from labctl.domain.failures import Failure, HostError
from labctl.domain.health.results import Finding, Findings, document_of
from labctl.domain.health.terms import Level, Result
from labctl.domain.problem import LabctlError
from labctl.inventory import load_rack
from labctl.inventory.health import RESULTS
from labctl.ports import Said

RACK = """\
from labctl.inventory import Command, Controller, Gpu, Health, Host, IdlePolicy, Rack, WakeOnLan

rack = Rack(name="desk", controller=Controller(host="nas"), controller_key="c.pub", health=Health(), hosts=[
    Host(name="gpu-box", address="10.0.0.1", wake=WakeOnLan(mac="52:54:00:12:34:56"),
         idle=IdlePolicy(suspend=True),
         gpus=[Gpu(model="RTX 3090", slot="slot0"), Gpu(model="RTX 3090", slot="slot1")],
         services=[Command(name="chat", argv=["/bin/true"], port=8000)]),
    Host(name="nas", address="10.0.0.2", roles=["always-on"]),
])
globals().update(rack.groups())
"""
NOW = 1_800_000_000.0
CARD = {"name": "NVIDIA GeForce RTX 3090", "asleep": False, "power_w": 27.4, "cap_w": 280.0}
CHAT = {"service": "chat", "active": True, "models": ["qwen3-30b"], "running": 2, "waiting": 1}
BAD = Result("pcie-width", Level.CRIT, "gpu-box", "slot0", "runs at x4 instead of x16", "reseat it")


def row(mode: str = "ready", **more: Any) -> dict[str, Any]:
    telemetry = {"wall": NOW, "gpus": [CARD, CARD], "engines": [CHAT]}
    return {
        "host": "gpu-box", "mode": mode, "since": NOW - 7200, "because": "the gate has passed",
        "talking": True, "telemetry": telemetry, "holds": [], "proof": "", **more,
    }  # fmt: skip


NAS = {
    "host": "nas", "mode": "ready", "since": NOW - 60, "because": "it serves", "talking": True,
    "telemetry": {"wall": NOW, "gpus": [], "engines": []},
}  # fmt: skip


def told(*rows: dict[str, Any], **more: Any) -> Modes:
    return Modes(True, {one["host"]: one for one in rows}, at=NOW, **more)


def found(*results: Result) -> Findings:
    well = Result("reachable", Level.OK, "nas", "", "it answers")
    return Findings(NOW - 30, tuple(Finding(one, NOW - 60) for one in (well, *results)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "rack.py").write_text(RACK)
    (tmp_path / "known_hosts").write_text(f"10.0.0.1,10.0.0.2 ssh-ed25519 {KEY}\n")
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"LABCTL_{name}", str(tmp_path / name))
    monkeypatch.setenv("LABCTL_INVENTORY", str(tmp_path / "rack.py"))
    return tmp_path


@pytest.fixture
def look(folder: Path) -> Callable[..., Look]:
    loaded = load_rack(folder / "rack.py")

    def made(box: dict[str, Any], *results: Result, nas: HostStatus | None = None) -> Look:
        heard = of_telemetry("gpu-box", ("chat",), box)
        hosts = [heard or HostStatus("gpu-box", asleep=True), nas or of_telemetry("nas", (), NAS)]
        kept = Kept(found(*results), every_s=300.0)
        return Look(loaded, told(box, NAS), [one for one in hosts if one], kept, NOW)

    return made


def text_of(lines: Iterator[tuple[tuple[str, str], ...]]) -> list[str]:
    return ["".join(words for words, _ in line).rstrip() for line in lines]


def test_a_person_sees_a_row_for_each_host_and_its_reasons_below(look: Callable[..., Look]) -> None:
    box = row(holds=[{"by": "ann", "why": "a fine-tune"}], proof="the kernel changed")
    head, cells, *said = text_of(status_view.lines(look(box, BAD), 100))
    assert head.split() == ["HOST", "STATE", "SINCE", "GPUS", "WATTS", "REQ", "MODELS"]
    assert re.split(" {2,}", cells) == [
        "gpu-box", "ready", "2 h", "2 RTX 3090", "55/560", "2+1", "qwen3-30b"
    ]  # fmt: skip
    assert said[:4] == [
        "  the gate has passed",
        "  held by ann: a fine-tune",
        "  wake proof: the kernel changed",
        "  CRIT pcie-width slot0: runs at x4 instead of x16",
    ]
    assert said[4].split() == ["nas", "ready", "60", "s", "-", "-", "-", "-"]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(look: Callable[..., Look], width: int) -> None:
    long = {**CHAT, "models": [f"a-model-with-a-long-name-{n}" for n in range(4)]}
    box = row(
        "verifying", because="the gate looks whether each of its cards computes " * 3,
        telemetry={"gpus": [CARD, {**CARD, "name": "NVIDIA RTX PRO 6000 Blackwell"}], "engines": [long]},
    )  # fmt: skip
    lines = text_of(status_view.lines(look(box, BAD), width))
    assert max(map(len, lines)) <= max(width, 60)
    assert "…" in lines[1]


def test_the_live_view_is_the_same_lines_in_a_terminal_of_any_width(look: Callable[..., Look]) -> None:
    from rich.console import Console

    looked = look(row(because="[red]no markup[/red] " * 9), BAD)
    for width in (60, 80):
        screen = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
        screen.print(status_view.drawn(looked, width), end="")
        assert isinstance(screen.file, io.StringIO)
        drawn = [line.rstrip() for line in screen.file.getvalue().splitlines()]
        assert drawn == text_of(status_view.lines(looked, width))


@pytest.mark.parametrize(
    ("gpus", "watts"),
    [
        ([CARD, CARD], "55/560"),
        ([CARD, {**CARD, "power_w": None}], "27+?/560"),
        ([{**CARD, "power_w": None}], "?/280"),
        ([{**CARD, "asleep": True, "power_w": None, "cap_w": None}], "asleep"),
        ([CARD, {**CARD, "asleep": True, "power_w": None, "cap_w": None}], "27/280"),
        ([], "-"),
        ([{**CARD, "power_w": "9\x1b[2J"}], "?/280"),
    ],
)
def test_watts_that_are_not_known_are_a_question_mark_and_never_nothing(
    look: Callable[..., Look], gpus: list[Any], watts: str
) -> None:
    _, cells, *_ = text_of(status_view.lines(look(row(telemetry={"gpus": gpus, "engines": [CHAT]})), 100))
    assert watts in cells.split("  ")


@pytest.mark.parametrize(
    "heard",
    [
        row(talking=False), row(telemetry=None), row(telemetry="busy"), row(telemetry={"gpus": []}),
        row(telemetry={"engines": [{**CHAT, "service": "other"}]}),
        row(telemetry={"engines": [{**CHAT, "active": False}]}), {},
    ],
)  # fmt: skip
def test_what_the_controller_does_not_hear_whole_is_asked_of_the_host(heard: dict[str, Any]) -> None:
    assert of_telemetry("gpu-box", ("chat",), heard) is None


def test_a_report_tells_of_cards_as_well() -> None:
    document = {
        "engines": [],
        "nvidia": {"gpus": [CARD]},
        "amd": {"gpus": [{"name": "Radeon", "code": "asleep"}, {"name": None, "gfx": "gfx1151"}]},
    }
    cards = of_report("rig", (), document).gpus
    assert cards is not None
    assert [(card.name, card.power_w, card.asleep) for card in cards] == [
        ("NVIDIA GeForce RTX 3090", 27.4, False),
        ("Radeon", None, True),
        ("gfx1151", None, False),
    ]
    assert of_report("rig", (), {"engines": []}).gpus is None


def test_a_card_that_does_not_answer_is_wrong_and_said() -> None:
    lost = of_report("rig", (), {"engines": [], "nvidia": {"gpus": [CARD, {"code": "gpu-is-lost"}]}})
    assert lost.status == "wrong"
    assert "a card does not answer (gpu-is-lost): labctl health rig" in tuple(notes(lost))


def test_old_findings_and_none_are_said(look: Callable[..., Look]) -> None:
    old = Kept(Findings(NOW - 4000, found(BAD).findings), every_s=300.0)
    looked = look(row())
    aged = Look(looked.loaded, looked.told, looked.hosts, old, NOW)
    assert "labctl health looked 67 min ago; does its timer run?" in text_of(status_view.lines(aged, 100))[0]
    away = Look(looked.loaded, looked.told, looked.hosts, Kept(away="nas did not answer"), NOW)
    assert "what labctl health found is not known: nas did not answer" in text_of(
        status_view.lines(away, 100)
    )


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    plays = {"nas": lambda asked: Said(0, json.dumps(document_of(found(BAD))).encode(), "")}
    made = Hosts(plays)
    monkeypatch.setattr(wiring, "remote", lambda: made)
    monkeypatch.setattr(wiring, "controller_is_here", lambda: False)
    return made


def test_no_host_is_asked_where_the_controller_hears_all_but_the_findings_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hosts: Hosts
) -> None:
    monkeypatch.setattr(modes, "known", lambda aim: told(row(), NAS))
    assert main(["status"]) == 0
    assert [(one.host, one.argv) for one in hosts.asked] == [("nas", ("cat", RESULTS))]
    _, box, nas = capsys.readouterr().out.splitlines()
    assert "CRIT pcie-width slot0: runs at x4 instead of x16" in box
    assert "chat active" in box
    assert nas.split()[-7:] == ["-", "-", "0", "none", "-", "it", "serves"]
    assert main(["status", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    box = document["hosts"][0]
    assert (box["source"], box["services"][0]["running"], box["gpus"][0]["cap_w"]) == ("controller", 2, 280.0)
    assert box["findings"][0]["cure"] == "reseat it"
    assert document["findings"] == {"at": NOW - 30, "failure": ""}
    hosts.asked.clear()
    hosts.plays["gpu-box"] = lambda asked: Said(0, b'{"engines": []}', "")
    assert main(["status", "--ask"]) == 1
    assert {one.host for one in hosts.asked} == {"gpu-box", "nas"}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Said(1, b"", "cat: no such file"), f"nas has no {RESULTS} yet; labctl apply sets its timer up"),
        (Said(0, b"{}", ""), "is not what labctl health --cron writes"),
        (Said(0, b"[" * 9999, ""), "is not what labctl health --cron writes"),
        (None, "nas: it is off"),
    ],
)
def test_findings_that_cannot_be_had_are_said_and_cost_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hosts: Hosts,
    said: Said | None, words: str,
) -> None:  # fmt: skip
    def play(asked: Any) -> Said:
        if said is None:
            raise HostError(Failure("timeout", "it is off", unreachable=True))
        return said

    hosts.plays["nas"] = play
    monkeypatch.setattr(modes, "known", lambda aim: told(row(), NAS))
    assert main(["status"]) == 0
    assert words in capsys.readouterr().out


class Script:
    """Plays the controller's answers one after the other; Ctrl-C comes when it is over."""

    def __init__(self, *answers: Modes | LabctlError) -> None:
        self.answers = list(answers)
        self.waited: list[float] = []

    def modes(self) -> Modes:
        if not self.answers:
            raise KeyboardInterrupt
        answer = self.answers.pop(0)
        if isinstance(answer, LabctlError):
            raise answer
        return answer

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *unused: object) -> None:
        pass


@pytest.fixture
def watching(folder: Path, monkeypatch: pytest.MonkeyPatch, hosts: Hosts) -> Callable[..., int]:
    def watched(*args: str, script: Script) -> int:
        monkeypatch.setattr(status_watch, "Teller", lambda aim: script)
        monkeypatch.setattr(status_watch, "pause", script.waited.append)
        return main(["status", "--watch", *args])

    return watched


def test_watching_a_pipe_tells_changes_only_and_ctrl_c_is_a_good_end(
    watching: Callable[..., int], capsys: pytest.CaptureFixture[str], hosts: Hosts
) -> None:
    same, sleeps = told(row(), NAS), told(row("asleep", because="idle for 30 min"), NAS)
    script = Script(same, same, sleeps, sleeps)
    assert watching("--every", "5s", script=script) == 0
    *_, last = lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert last.endswith("  gpu-box: asleep: idle for 30 min: CRIT pcie-width")
    assert script.waited == [5.0] * 4
    assert len(hosts.asked) == 1, "the findings are read again only after half a minute"


def test_watching_in_json_is_one_document_a_line(
    watching: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert watching("--json", script=Script(told(row(), NAS), told(row("asleep"), NAS))) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert [one["hosts"][0]["status"] for one in (first, second)] == ["ok", "asleep"]


def test_watching_goes_on_while_the_controller_is_away(
    watching: Callable[..., int], capsys: pytest.CaptureFixture[str], hosts: Hosts
) -> None:
    script = Script(told(row(), NAS), LabctlError("it hung up"), told(row(), NAS))
    assert watching(script=script) == 0
    assert "gpu-box: unreachable" in capsys.readouterr().out
    assert script.answers == []
