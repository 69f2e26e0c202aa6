"""What keeps real hosts awake: each signal in turn, made for real, makes a watching controller see it.

One Debian 12 and one Debian 13, each watched over one SSH channel with the controller's key. Readings that
depend on the machine below (its load) are switched off in the inventory.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import paramiko
import pytest
from rack_driving import labctl

from labctl.domain.sleep.terms import Report
from labctl.domain.sleep.words import report_of
from labctl.lab import Lab, LabHost
from labctl.lab.processes import wait_until

pytestmark = pytest.mark.rack

USER = "labctl-agent"
# At 6:25 cron runs the day's jobs of the distribution.
IGNORED = '(*Signals().timers_ignored, "/etc/crontab")'
QUIET = f", idle=IdlePolicy(signals=Signals(load=False, timers_ignored={IGNORED}))"


class Watching:
    """The controller's end of one watch."""

    def __init__(self, host: LabHost, key: Path, known_hosts: Path) -> None:
        self.client = paramiko.SSHClient()
        self.client.load_host_keys(str(known_hosts))
        self.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        self.client.connect(
            host.address,
            username=USER,
            key_filename=str(key),
            allow_agent=False,
            look_for_keys=False,
            timeout=10,
            channel_timeout=10,
        )
        self.stdin, self.stdout, _ = self.client.exec_command("report --watch", timeout=20)
        self.first = self.line()
        self.ask(every_s=600)

    def ask(self, **words: Any) -> None:
        self.stdin.write(json.dumps(words) + "\n")
        self.stdin.flush()

    def line(self) -> Report:
        return report_of(json.loads(self.stdout.readline()), time.monotonic())

    def now(self) -> Report:
        self.ask(now=True)
        return self.line()

    def says(self, signal: str) -> tuple[bool | None, str]:
        found = {one.signal: one for one in self.now().readings}[signal]
        return found.busy, found.because

    def is_quiet(self, signal: str) -> bool:
        return self.says(signal)[0] is False

    def close(self) -> None:
        self.client.close()
        # In a cycle of garbage paramiko's file finds its buffer gone, and fails the run after its last test.
        for name in ("stdin", "stdout"):
            vars(self).pop(name, None)


@pytest.fixture
def controllers(
    rack: Lab, hosts: Callable[..., tuple[LabHost, ...]], rack_file: Callable[..., Path]
) -> Iterator[list[tuple[LabHost, Watching]]]:
    """A host of each Debian with the agent applied, watched."""
    chosen = (*hosts(1, suite="bookworm"), *hosts(1, suite="trixie"))
    inventory = rack_file(chosen, QUIET)
    key = inventory.parent / "keys" / "controller"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    text = inventory.read_text().replace("import Host,", "import Host, IdlePolicy, Signals,")
    inventory.write_text(
        text.replace('name="test",', 'name="test",\n    controller_key="keys/controller.pub",', 1)
    )
    done = labctl("apply", str(inventory), "--only", "agent", "--yes", "--no-diff", timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    with ExitStack() as open_ones:
        watching = []
        for host in chosen:
            one = Watching(host, key, inventory.parent / "known_hosts")
            open_ones.callback(one.close)
            watching.append((host, one))
        yield watching


def test_each_signal_keeps_a_real_host_awake_and_lets_it_go(
    rack: Lab, controllers: list[tuple[LabHost, Watching]], operator_key: Path
) -> None:
    for host, watch in controllers:
        before = watch.now()
        assert [one for one in before.readings if one.busy is not False and one.signal != "network"] == []
        assert before.fingerprint is not None and host.mac in before.fingerprint.nic
        for name, reason, made in (
            ("sessions", "admin is logged in from", _logged_in(rack, host, operator_key)),
            ("sessions", "1 SSH connection from", _connected(host, 22)),
            ("inhibitors", "backup blocks sleep: it writes the tape", _inhibitor(rack, host)),
            ("packages", "holds /var/lib/dpkg/lock", rack.hold_apt_lock(host.name)),
            ("timers", "due.timer is due in", _timer(rack, host)),
            ("timers", "a job of admin's crontab is due in", _crontab(rack, host)),
            ("holds", "/run/labctl/holds/tape: the tape is being written", _file(rack, host, *HOLD)),
            ("checks", "nas: the NAS is mounted here", _file(rack, host, *CHECK)),
            ("mounts", "uses a share by SMB", _share(rack, host)),
        ):
            with made:
                busy, because = watch.says(name)
                assert (busy, reason in because) == (True, True), (host.name, name, because)
            assert wait_until(partial(watch.is_quiet, name), within=10), name
        with _file(rack, host, CHECK[0], CHECK[1], "777"):
            assert watch.says("checks") == (None, REFUSED_CHECK)
        _questions_do_not_count(rack, host, watch, operator_key)
        _nothing_is_left_behind(rack, host, watch)


HOLD = ("/run/labctl/holds/tape", "the tape is being written\n", "644")
CHECK = (
    "/etc/labctl/busy.d/nas",
    "#!/bin/sh\necho the NAS is mounted here\nid -un | grep -q labctl-agent\nexit 1\n",
    "755",
)
REFUSED_CHECK = "/etc/labctl/busy.d/nas is not run: it must be root's, and no group's or other's to write"


def _do(rack: Lab, host: LabHost, *argv: str, stdin: str = "") -> str:
    return rack.run(host.name, list(argv), stdin=stdin, check=True).stdout


@contextmanager
def _logged_in(rack: Lab, host: LabHost, key: Path) -> Iterator[None]:
    with subprocess.Popen(
        rack.ssh_argv(host.name, "echo here; exec cat", key=key),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as ssh:
        assert ssh.stdout is not None and ssh.stdout.readline() == b"here\n"
        yield
        ssh.communicate(timeout=20)


@contextmanager
def _connected(host: LabHost, port: int) -> Iterator[None]:
    with socket.create_connection((host.address, port), timeout=10):
        yield


@contextmanager
def _unit(rack: Lab, host: LabHost, *words: str, name: str = "made.service") -> Iterator[None]:
    _do(rack, host, "systemd-run", "--quiet", *words)
    try:
        yield
    finally:
        rack.run(host.name, ["systemctl", "stop", name])  # it may have ended by itself


@contextmanager
def _inhibitor(rack: Lab, host: LabHost) -> Iterator[None]:
    inhibit = ("systemd-inhibit", "--what=sleep", "--who=backup", "--why=it writes the tape", "--mode=block")
    with _unit(rack, host, "--unit=made", *inhibit, "sleep", "60"):
        assert wait_until(lambda: "backup" in _do(rack, host, "systemd-inhibit", "--list"), within=10)
        yield


def _timer(rack: Lab, host: LabHost) -> AbstractContextManager[None]:
    return _unit(rack, host, "--unit=due", "--on-active=300", "true", name="due.timer")


@contextmanager
def _crontab(rack: Lab, host: LabHost) -> Iterator[None]:
    _do(rack, host, "crontab", "-u", "admin", "-", stdin="*/5 * * * * /bin/true secret\n")
    try:
        yield
    finally:
        _do(rack, host, "crontab", "-u", "admin", "-r")


@contextmanager
def _file(rack: Lab, host: LabHost, path: str, content: str, mode: str) -> Iterator[None]:
    _do(rack, host, "sh", "-c", 'umask 077; cat >"$1" && chmod "$2" "$1"', "sh", path, mode, stdin=content)
    try:
        yield
    finally:
        _do(rack, host, "rm", path)


@contextmanager
def _share(rack: Lab, host: LabHost) -> Iterator[None]:
    """A server of files to the kernel's eye: something that listens on SMB's port."""
    listen = "import socket; s = socket.create_server(('', 445)); c, _ = s.accept(); c.recv(1)"
    with _unit(rack, host, "--unit=made", "/usr/bin/python3", "-c", listen):
        there = ("ss", "-Hltn", "sport", "=", "445")
        assert wait_until(lambda: bool(_do(rack, host, *there)), within=10)
        with _connected(host, 445):
            yield


def _questions_do_not_count(rack: Lab, host: LabHost, watch: Watching, key: Path) -> None:
    command = "env LC_ALL=C.UTF-8 sudo -H -n -- /usr/local/lib/labctl/agent.pyz report --watch"
    argv = rack.ssh_argv(host.name, command, key=key)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ssh:
        assert ssh.stdout is not None and ssh.stdout.readline()
        assert watch.says("sessions") == (False, "nobody is logged in by SSH")
        ssh.communicate(timeout=20)


def _nothing_is_left_behind(rack: Lab, host: LabHost, watch: Watching) -> None:
    def running() -> list[str]:
        return rack.run(host.name, ["pgrep", "-u", USER, "-f", "agent.pyz --forced"]).stdout.split()

    (pid,) = _do(rack, host, "pgrep", "-u", USER, "-x", "agent.pyz").split()
    status = _do(rack, host, "cat", f"/proc/{pid}/status").splitlines()
    (peak_kib,) = (int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    assert peak_kib < 25 * 1024
    _do(rack, host, "pkill", "-KILL", "-u", USER, "-x", "sshd|sshd-session")
    assert wait_until(lambda: not running(), within=5), "the watch ends with its sshd"
    watch.close()
