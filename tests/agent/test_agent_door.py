"""The agent does its few orders and nothing else, whatever the other end of the session says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostile_commands import HOSTILE
from labctl.agent import main as door
from labctl.render import access

ROOT = {
    "caps",
    "caps --show",
    "caps --step",
    "suspend",
    "gate",
    "mend --engines",
    "mend --driver",
    "mend --reboot",
    "health",
}
HARMLESS = {"report", "report --pretty", "version", "caps --show"}
ALLOWED = ROOT | HARMLESS | {"report --watch", "relay"}
KNOWN = (
    b"labctl-agent: refused: this key may ask for: "
    b"report, caps, relay, suspend, health, gate, mend, version\n"
)


def forced(agent_pyz: Path, command: str | None, home: Path) -> subprocess.CompletedProcess[bytes]:
    """Run the agent as sshd does: the shell runs the forced command, the wish is in the environment."""
    environment = {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    if command is not None:
        environment["SSH_ORIGINAL_COMMAND"] = command
    argv = ["/bin/sh", "-c", f"{agent_pyz} --forced"]
    return subprocess.run(argv, env=environment, cwd=home, capture_output=True, stdin=subprocess.DEVNULL)


def test_the_corpus_is_large_enough_and_holds_no_order() -> None:
    assert len(HOSTILE) >= 200
    assert not ALLOWED & set(HOSTILE)


def test_no_hostile_command_is_run(agent_pyz: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    canary = tmp_path / "canary"
    commands = [text.replace("CANARY", str(canary)) for text in HOSTILE]
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda text: forced(agent_pyz, text, home), commands))
    wrong = [
        (command, end)
        for command, end in zip(commands, ends, strict=True)
        if (end.returncode, end.stdout) != (126, b"") or end.stderr != KNOWN
    ]
    assert wrong == []
    assert not canary.exists()
    assert list(home.iterdir()) == []


def test_a_session_without_a_command_is_refused(agent_pyz: Path, tmp_path: Path) -> None:
    assert forced(agent_pyz, None, tmp_path).returncode == 126


def test_bytes_that_are_no_text_are_refused(agent_pyz: Path, tmp_path: Path) -> None:
    environment = {b"SSH_ORIGINAL_COMMAND": b"report\xff\xfe", b"PATH": b"/usr/bin:/bin", b"LC_ALL": b"C"}
    end = subprocess.run([agent_pyz, "--forced"], env=environment, capture_output=True)
    assert (end.returncode, end.stdout) == (126, b"")


@pytest.mark.parametrize("order", sorted(HARMLESS))
def test_each_order_is_done(agent_pyz: Path, tmp_path: Path, order: str) -> None:
    end = forced(agent_pyz, order, tmp_path)
    assert (end.returncode, end.stderr) == (0, b"")
    if order.startswith("report"):
        assert json.loads(end.stdout)["agent"]["version"]


@pytest.mark.parametrize("extra", [["report"], ["--forced"], ["--pretty"], ["-h"], [""]])
def test_nothing_beside_forced_is_believed(agent_pyz: Path, tmp_path: Path, extra: list[str]) -> None:
    environment = {"SSH_ORIGINAL_COMMAND": "report", "PATH": os.environ["PATH"]}
    end = subprocess.run([agent_pyz, "--forced", *extra], env=environment, capture_output=True)
    assert (end.returncode, end.stdout) == (126, b"")


@given(st.text(max_size=120))
@example("report\n")
@example("report --pretty\n")
def test_any_other_text_is_no_order(text: str) -> None:
    if text not in ALLOWED:
        with pytest.raises(door.Refusal):
            door.parse(text, forced=True)


_WORDS = [
    *("report", "version", "caps", "suspend", "gate", "mend", "sleep", "signals", "", " ", "\n"),
    *("--pretty", "--show", "--order", "--forced", "--engines", "--driver", "--reboot", "--over"),
    *("--watch", "--crontabs", "--unload", "--step"),
]


@given(st.lists(st.sampled_from(_WORDS), max_size=5))
def test_no_arrangement_of_its_own_words_is_an_order_but_the_orders(words: list[str]) -> None:
    line = " ".join(words)
    if line in ALLOWED:
        door.parse(line, forced=True)
    else:
        with pytest.raises(door.Refusal):
            door.parse(line, forced=True)


def test_numbers_of_somebody_are_the_operators_and_not_the_controllers() -> None:
    door.parse("caps --order")
    with pytest.raises(door.Refusal):
        door.parse("caps --order", forced=True)


def test_at_the_door_a_verb_for_root_goes_through_sudo_as_one_whole_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[list[str]] = []

    def execv(path: str, argv: list[str]) -> None:
        called.append([path, *argv])
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(os, "geteuid", lambda: 997)
    for line in sorted(ROOT):
        monkeypatch.setenv("SSH_ORIGINAL_COMMAND", line)
        with pytest.raises(SystemExit):
            door.main(["--forced"])
    assert all(door.parse(verb, forced=True) for verb in access.ROOT_VERBS), "nothing else is permitted"
    sudoers = access.agent_sudoers(access.ROOT_VERBS)
    for path, name, flag, *words in called:
        assert (path, name, flag) == ("/usr/bin/sudo", "/usr/bin/sudo", "-n")
        assert f"NOPASSWD: {' '.join(words)}\n" in sudoers
    assert len(called) == len(ROOT) == len(access.ROOT_VERBS)


def test_a_person_gets_the_orders_explained(agent_pyz: Path) -> None:
    shown = subprocess.run([agent_pyz, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert all(verb in shown.stdout for verb in door.ORDERS)
    wrong = subprocess.run([agent_pyz, "reprot"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "report" in wrong.stderr


def test_a_reader_that_goes_away_gets_no_traceback(agent_pyz: Path) -> None:
    with subprocess.Popen([agent_pyz, "report"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as agent:
        assert agent.stdout and agent.stderr
        agent.stdout.close()
        assert agent.stderr.read() == b""


def test_a_person_who_interrupts_it_gets_no_traceback(agent_pyz: Path) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([agent_pyz, "report", "--watch"], stdin=pipe, stdout=pipe, stderr=pipe) as agent:
        assert agent.stdout and agent.stderr
        agent.stdout.readline()
        agent.send_signal(signal.SIGINT)
        assert agent.stderr.read() == b""
    assert agent.returncode == 130


def test_without_sudo_a_verb_for_root_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(door, "SUDO", "/nowhere/sudo")
    monkeypatch.setattr(os, "geteuid", lambda: 997)
    monkeypatch.setenv("SSH_ORIGINAL_COMMAND", "gate")
    assert door.main(["--forced"]) == 1
    said = "labctl-agent: /nowhere/sudo cannot be run (No such file or directory): run labctl apply\n"
    assert capsys.readouterr().err == said


def test_what_the_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("labctl.agent.sleeper.obey", lambda *, path: full(path))
    assert door.main(["sleep"]) == 1
    assert capsys.readouterr().err == "labctl-agent: sleep: [Errno 28] No space left on device\n"
