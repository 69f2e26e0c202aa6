"""Odd hosts, broken deploys and bad luck: each is survived, named, and hurts nobody else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rack_driving import LABCTL, drive, end_of, ends, labctl, write_deploy

from labctl import wiring
from labctl.lab import Lab
from labctl.provision import engine
from labctl.provision.events import Event, HostReport, Log, OpEnded, OpStarted
from labctl.provision.process import Crew

pytestmark = pytest.mark.rack

UPLOAD = """
from io import BytesIO
from pyinfra.api import FileUploadCommand, operation

@operation()
def upload():
    yield FileUploadCommand(BytesIO(bytes(8_000_000)), "/root/whole")

upload(name="upload")
"""
SLOW = """
server.shell(name="slow", commands=["sleep 3"])
server.shell(name="after", commands=["touch /root/after"])
"""


def shell(rack: Lab, host: str, script: str) -> str:
    return rack.run(host, ["sh", "-c", script], check=True).stdout


def worker_of(process: subprocess.Popen[str]) -> int:
    """Return the process id of the worker of a running command."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return next(
        int(child)
        for child in children.read_text().split()
        if b"provision.worker" in Path(f"/proc/{child}/cmdline").read_bytes()
    )


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start labctl as a person would; what still runs at the end of the test is ended."""
    started: list[subprocess.Popen[str]] = []

    def labctl_starts(*argv: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen([LABCTL, *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        return started[-1]

    yield labctl_starts
    for process in started:
        with process:
            process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    pytest.fail(f"it never said {words!r}: {said}")


def test_an_upload_that_is_cut_off_leaves_the_old_file_whole(rack, hosts, rack_file, start) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    shell(rack, one.name, "echo old >/root/whole")
    rack.slow(one.name, rate_kbit=8000)
    process = start("apply", str(inventory), str(write_deploy(inventory, UPLOAD)), "--yes")
    read_until(process, "Plan:")
    time.sleep(2)  # into the upload, which takes ten
    os.kill(worker_of(process), signal.SIGKILL)
    assert process.wait(30) == 1
    rack.mend(one.name)
    deadline = time.monotonic() + 30
    while "labctl-lock" in rack.run(one.name, ["ps", "axo", "args"]).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert shell(rack, one.name, "cat /root/whole") == "old\n"
    assert shell(rack, one.name, "ls /root /run/labctl").split() == [
        "/root:",
        "whole",
        "/run/labctl:",
        "apply.lock",
    ]


def test_an_upload_over_a_slow_line_is_not_taken_for_a_frozen_host(rack, hosts, rack_file) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    rack.slow(one.name, rate_kbit=8000)
    reports = drive(inventory, write_deploy(inventory, UPLOAD), (one.name,))
    rack.mend(one.name)
    assert ends(reports) == {one.name: ("ok", "")}
    assert shell(rack, one.name, "wc -c </root/whole") == "8000000\n"


def test_a_log_in_shell_may_greet_on_both_outputs(rack, hosts, rack_file) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    shell(rack, one.name, "sed -i '1i echo WELCOME; echo HELLO >&2' /home/admin/.bashrc")
    deploy = write_deploy(
        inventory,
        'server.shell(name="root", commands=["id -un"])\n'
        'server.shell(name="user", commands=["id -un"], _sudo=False)\n',
    )
    report = drive(inventory, deploy, (one.name,))[one.name]
    assert end_of(report).status == "ok"
    assert [op.stdout_tail for op in report.ops] == ["root", "admin"]


@pytest.mark.parametrize(
    ("break_it", "code", "words"),
    [
        ("usermod -s /usr/sbin/nologin admin", "no-shell", "not available"),
        ("usermod -s /bin/false admin", "no-shell", "without a word"),
        ("rm /usr/bin/sudo", "no-sudo", "may not become root"),
        (
            "echo MaxSessions 1 >/etc/ssh/sshd_config.d/x.conf; systemctl reload ssh",
            "op-failed",
            "MaxSessions",
        ),
    ],
)
def test_a_host_that_gives_us_too_little_says_what(
    rack, hosts, rack_file, break_it: str, code: str, words: str
) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    shell(rack, one.name, break_it)
    end = end_of(drive(inventory, write_deploy(inventory, SLOW), (one.name,))[one.name])
    assert (end.code, end.changed) == (code, 0)
    assert words in end.reason


def test_serial_stays_serial_when_another_host_fails_early(rack, hosts, rack_file) -> None:
    one, two, three = hosts(3)
    inventory = rack_file([one, two, three])
    deploy = write_deploy(inventory, f'if host.name == "{three.name}":\n    1 / 0\n{SLOW}')
    told: list[tuple[str, str]] = []

    def on_event(event: Event) -> None:
        if isinstance(event, OpStarted | OpEnded):
            told.append((event.host, type(event).__name__))

    drive(inventory, deploy, (one.name, two.name, three.name), on_event, serial=True)
    assert told == [(name, kind) for name in (one.name, two.name) for kind in ("OpStarted", "OpEnded") * 2]


def test_a_deploy_that_exits_or_raises_while_it_runs_ends_its_host_and_is_counted(
    rack, hosts, rack_file
) -> None:
    one, two, three = hosts(3)
    inventory = rack_file([one, two, three])
    deploy = write_deploy(
        inventory,
        f"""
from pyinfra.api import operation
from pyinfra.operations import python
from labctl.ops import files

@operation()
def late(dest):
    yield f"touch {{dest}}"
    raise KeyError("late")

def leave():
    exit(3)

if host.name == "{one.name}":
    exit("bye")
server.shell(name="first", commands=["true"])
if host.name == "{two.name}":
    python.call(name="leave", function=leave)
server.shell(name="last", commands=["true"])
""",
    )
    reports = drive(inventory, deploy, (one.name, two.name, three.name))
    assert {name: end_of(report).status for name, report in reports.items()} == {
        one.name: "failed",
        two.name: "failed",
        three.name: "ok",
    }
    assert "SystemExit: bye" in end_of(reports[one.name]).reason
    end = end_of(reports[two.name])
    assert (end.changed, end.failed, end.not_run) == (1, 1, 1)


def test_a_failure_that_is_allowed_is_told_and_so_is_what_a_callback_raised(rack, hosts, rack_file) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    deploy = write_deploy(
        inventory,
        """
from pyinfra.operations import python

def boom():
    raise ValueError("from the callback")

server.shell(name="allowed", commands=["echo because >&2; exit 124"], _ignore_errors=True)
python.call(name="boom", function=boom)
""",
    )
    warnings: list[str] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Log):
            warnings.append(event.message)

    report = drive(inventory, deploy, (one.name,), on_event)[one.name]
    assert warnings == ["allowed failed, which its deploy allows: because"]
    assert "from the callback" in end_of(report).reason
    assert [op.status for op in report.ops] == ["unchanged", "failed"]


def test_ctrl_c_while_connecting_or_planning_ends_at_once(rack, hosts, rack_file, start) -> None:
    one, two = hosts(2)
    inventory = rack_file([one, two])
    rack.cut(one.name)
    deploy = write_deploy(
        inventory,
        """
from pyinfra.api import FactBase

class Long(FactBase):
    def command(self):
        return "touch /run/asked; sleep 60"

host.get_fact(Long)
""",
    )
    process = start("apply", str(inventory), str(deploy), "--yes")
    deadline = time.monotonic() + 20
    while rack.run(two.name, ["test", "-e", "/run/asked"]).returncode != 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    pressed = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 130, out
    assert time.monotonic() - pressed < 5, out


def test_a_jump_of_the_clock_does_not_push_a_living_owner_aside(rack, hosts, rack_file, start) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    deploy = write_deploy(inventory, SLOW.replace("sleep 3", "sleep 12"))
    process = start("apply", str(inventory), str(deploy), "--yes")
    deadline = time.monotonic() + 20
    while rack.run(one.name, ["test", "-s", "/run/labctl/apply.pids"]).returncode != 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    shell(rack, one.name, "touch -d '1 hour ago' /run/labctl/apply.beat")
    refused = labctl("apply", str(inventory), str(deploy), "--yes")
    assert refused.returncode == 1
    assert "another apply is at work here" in refused.stdout
    assert process.wait(40) == 0, process.communicate()[0]


def test_a_run_whose_lock_is_gone_changes_nothing_more(rack, hosts, rack_file) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])

    def strike(event: Event) -> None:
        if isinstance(event, OpStarted) and event.name == "slow":
            shell(rack, one.name, "read keeper rest </run/labctl/apply.pids; kill -KILL $keeper")

    reports = drive(inventory, write_deploy(inventory, SLOW), (one.name,), strike)
    assert ends(reports) == {one.name: ("failed", "locked")}
    assert rack.run(one.name, ["test", "-e", "/root/after"]).returncode != 0


def test_what_another_apply_did_after_the_plan_was_made_is_noticed(rack, hosts, rack_file) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    shell(rack, one.name, "echo right >/etc/tried; chmod 644 /etc/tried")
    ours = """
from labctl.ops import files
files.put(name="file", dest="/etc/tried", content="right\\n")
server.shell(name="something", commands=["true"])
"""
    other = 'from labctl.ops import files\nfiles.put(name="file", dest="/etc/tried", content="wrong\\n")\n'
    deploy = write_deploy(inventory, other).rename(inventory.parent.parent / "deploys/other.py")

    def decide(reports: dict[str, HostReport]) -> bool:
        assert [op.state for op in reports[one.name].plan] == ["no-change", "change"]
        assert labctl("apply", str(inventory), str(deploy), "--yes").returncode == 0
        assert shell(rack, one.name, "cat /etc/tried") == "wrong\n"
        return True

    with tempfile.TemporaryDirectory() as logs, Crew(Path(logs), datetime.now(UTC)) as crew:
        request = engine.Request(
            inventory, (write_deploy(inventory, ours),), (one.name,), execute=True, owner="the test"
        )
        result = engine.run(request, lambda event: None, decide, crew=crew, clock=wiring.clock())
    assert [op.status for op in result.reports[one.name].ops] == ["changed", "changed"]
    assert shell(rack, one.name, "cat /etc/tried") == "right\n"


def test_hidden_words_are_in_no_process_list_and_no_event(rack, hosts, rack_file) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    deploy = write_deploy(
        inventory,
        """
from pyinfra.api import HiddenValue, StringCommand, operation

@operation()
def hide():
    yield StringCommand("W=", HiddenValue("sesame"), "; ps axww -o args; echo ${#W}", _separator="")

hide(name="root")
hide(name="user", _sudo=False)
hide(name="nobody", _sudo_user="nobody")
hide(name="in a folder", _sudo_user="nobody", _chdir="/tmp", _env={"A": HiddenValue("sesame")})
""",
    )
    done = labctl("apply", str(inventory), str(deploy), "--yes", "--json")
    assert done.returncode == 0, done.stdout
    tails = [op["stdout_tail"] for op in json.loads(done.stdout)["hosts"][0]["operations"]]
    assert [tail.splitlines()[-1] for tail in tails] == ["6"] * 4
    assert "sesame" not in done.stdout + done.stderr
    assert "sesame" not in rack.run(one.name, ["journalctl", "-b", "--no-pager"]).stdout
