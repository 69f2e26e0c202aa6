"""The door: help, unknown commands, and every way in which a command can end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path

import click
import pytest

from labctl import __version__
from labctl.cli import lab
from labctl.cli import main as door
from labctl.cli.main import COMMANDS, Entry, cli, main
from labctl.domain.problem import ExitCode, LabctlError, Problem
from labctl.lab.spec import LabHost, LabSpec


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def _command(monkeypatch: pytest.MonkeyPatch, error: BaseException | None, result: object = None) -> None:
    """Let `labctl validate` do this."""

    @click.command()
    def played() -> object:
        if error is not None:
            raise error
        return result

    monkeypatch.setattr(door, "_played", played, raising=False)
    monkeypatch.setitem(COMMANDS, "validate", Entry("labctl.cli.main:_played", "x", "y"))


@pytest.mark.parametrize("args", [["--help"], ["-h"], []])
def test_help_names_every_command_under_a_heading_with_examples(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 0
    text = capsys.readouterr().out
    for name, entry in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(entry.help)}$", text, re.MULTILINE)
    assert "Provision it:" in text
    assert "labctl apply --limit" in text


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"labctl {__version__}\n"


def test_every_command_of_the_table_exists_and_says_the_same_of_itself() -> None:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.help


@pytest.mark.parametrize(
    ("typed", "hint"), [("aply", "labctl apply"), ("enrol", "labctl enroll"), ("xyzzy", "labctl --help")]
)
def test_an_unknown_command_names_the_likely_one(
    typed: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([typed]) == ExitCode.BAD_INPUT
    said = capsys.readouterr()
    assert typed in said.err
    assert hint in said.err
    assert said.out == ""


def test_a_wrong_option_is_explained_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--limt", "x"]) == ExitCode.BAD_INPUT
    said = capsys.readouterr().err
    assert "--limt" in said
    assert "labctl plan --help" in said


def test_an_expected_error_shows_all_its_problems_and_ends_in_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = [
        Problem("is no address", hint="write 10.0.0.1", file="rack.py", line=7, host="rig", field="address"),
        Problem("is missing", file="rack.py"),
    ]
    _command(monkeypatch, LabctlError(problems, code=ExitCode.UNREACHABLE))
    assert main(["validate"]) == ExitCode.UNREACHABLE
    assert capsys.readouterr().err == (
        "error: rack.py:7: host rig: address: is no address\n"
        "  hint: write 10.0.0.1\n"
        "error: rack.py: is missing\n"
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_ctrl_c_is_130(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _command(monkeypatch, error)
    assert main(["validate"]) == ExitCode.INTERRUPTED
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (4, 4), (ExitCode.CHANGES_PENDING, 10)])
def test_what_a_command_returns_is_the_exit_code(
    result: object, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _command(monkeypatch, None, result)
    assert main(["validate"]) == code


def test_an_unexpected_exception_is_one_sentence_and_a_file_for_us(
    own_state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _command(monkeypatch, ZeroDivisionError("division by zero"))
    assert main(["validate"]) == ExitCode.INTERNAL
    said = capsys.readouterr().err
    assert "this is a bug in labctl: ZeroDivisionError: division by zero" in said
    assert "Traceback" not in said
    (log,) = (own_state / "logs").glob("bug-*.log")
    assert str(log) in said
    assert "Traceback" in log.read_text()
    assert (own_state / "logs").stat().st_mode & 0o077 == 0


def test_a_bug_is_told_even_where_no_file_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "file"))
    _command(monkeypatch, ZeroDivisionError())
    assert main(["validate"]) == ExitCode.INTERNAL
    assert "bug in labctl" in capsys.readouterr().err


def test_a_reader_that_went_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "labctl.cli.main", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_came_closed_is_like_dev_null(closed: str, tmp_path: Path) -> None:
    line = f'exec "$1" -m labctl schema --indent 0 {closed}'
    done = subprocess.run(
        ["sh", "-c", line, "sh", sys.executable], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) is (">&-" not in closed.split())
    line = f'exec "$1" -m labctl validate "$2" {closed}'
    words = ["sh", "-c", line, "sh", sys.executable, str(tmp_path / "nothing.py")]
    failed = subprocess.run(words, capture_output=True, text=True, check=False)
    assert failed.returncode == ExitCode.BAD_INPUT
    assert "Traceback" not in failed.stderr


def test_a_full_disk_below_the_output_is_said_and_is_no_bug() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "labctl", "schema"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == ExitCode.BAD_INPUT
    assert done.stderr.startswith("error: no space is left for where labctl's output goes\n  hint: make room")


def test_an_own_directory_that_cannot_be_made_is_named_and_is_no_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "file"))
    assert main(["plan"]) == ExitCode.BAD_INPUT
    said = capsys.readouterr().err
    assert f"{tmp_path}/file/logs: cannot be made: Not a directory" in said
    assert "LABCTL_STATE=DIR" in said


@pytest.mark.parametrize("name", ["../elsewhere", "A b", "", "/abs"])
def test_a_name_that_no_lab_may_have_leaves_no_directory(
    name: str, own_state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["up"], ["down"], ["ssh", "nas"]):
        assert main(["lab", *words, "--name", name]) == ExitCode.BAD_INPUT
        assert "can't name a lab" in capsys.readouterr().err
    assert not own_state.exists()


def test_what_to_type_next_names_the_lab_where_it_is_not_the_usual_one(tmp_path: Path) -> None:
    def following(name: str) -> tuple[str, ...]:
        network = IPv4Network("10.1.2.0/24")
        spec = LabSpec(
            name, (LabHost("nas", "10.1.2.3", "52:54:00:01:02:03"),), network, tmp_path, tmp_path, "key"
        )
        return lab._next_commands(tmp_path / "rack.py", spec)

    assert following("lab")[2:] == ("labctl lab ssh nas", "labctl lab down")
    assert following("two")[2:] == ("labctl lab ssh nas --name two", "labctl lab down --name two")


def test_help_of_a_fault_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "fault", "--help"]) == 0
    said = capsys.readouterr().out
    assert "\n    freeze, thaw         stop every process where it stands, let them go on\n" in said
    assert "\\b" not in said


def test_help_costs_less_than_150_ms_and_imports_nothing_heavy() -> None:
    heavy = "{'rich', 'pydantic', 'pyinfra', 'gevent', 'paramiko', 'jinja2'}"
    code = (
        "import sys; from labctl.cli.main import main; main(['--help']);"
        f"sys.exit(len({heavy} & set(sys.modules)))"
    )
    costs = []
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        costs.append(usage.ru_utime + usage.ru_stime)
    # Processor time, which on an idle machine is the wall time: the machine that runs tests is not idle.
    assert min(costs) < 0.150, costs
