"""The controller's key on a real host: it gets reports, and nothing else that SSH can give.

Each "may" has its "may not": the same key, the same sshd, after labctl's own deploys put them there.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import paramiko
import pytest
from rack_driving import labctl

from labctl.lab import Lab, LabHost

pytestmark = pytest.mark.rack

USER = "labctl-agent"
REFUSED = "labctl-agent: refused: this key may ask for:"
HOSTILE = [
    *(
        "id",
        "/bin/sh",
        "bash -i",
        "report; id",
        "report && id",
        "report | tee /tmp/x",
        "report\nid",
        "$(id)",
        "`id`",
    ),
    *(
        "report > /var/lib/labctl-agent/x",
        "sudo -n id",
        "sudo -n -l",
        "cat /etc/shadow",
        "REPORT",
        "report ",
        "../report",
    ),
    *(
        "suspend --force",
        "signals",
        "internal-sftp",
        "/usr/lib/openssh/sftp-server",
        "scp -t /",
        "rsync --server . /",
        "python3 -c 0",
    ),
    *(
        "LD_PRELOAD=/tmp/x report",
        "PYTHONPATH=/tmp report",
        "report --pretty --pretty",
        "--forced",
        "re''port",
    ),
]


@dataclass(frozen=True)
class Controller:
    """The controller's end: its key, and strict knowledge of the host."""

    host: LabHost
    key: Path
    known_hosts: Path

    def options(self) -> list[str]:
        return [
            *("-F", "/dev/null", "-i", str(self.key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={self.known_hosts}"),
            *("-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR"),
        ]

    def ssh(self, *command: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        argv = ["ssh", *self.options(), *flags, "--", f"{USER}@{self.host.address}", *command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    def copy(self, program: str, *rest: str) -> subprocess.CompletedProcess[str]:
        argv = [program, *self.options(), *rest]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    def connect(self) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        client.load_host_keys(str(self.known_hosts))
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        client.connect(
            self.host.address,
            username=USER,
            key_filename=str(self.key),
            allow_agent=False,
            look_for_keys=False,
            timeout=10,
            channel_timeout=10,
        )
        return client


@pytest.fixture(params=["bookworm", "trixie"])
def controller(
    request: pytest.FixtureRequest,
    rack: Lab,
    hosts: Callable[..., tuple[LabHost, ...]],
    rack_file: Callable[..., Path],
) -> Controller:
    """A clean host with labctl's base and agent applied, as the controller sees it."""
    (host,) = hosts(1, suite=request.param)
    inventory = rack_file([host])
    key = inventory.parent / "keys" / "controller"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    text = inventory.read_text().replace(
        'name="test",', 'name="test",\n    controller_key="keys/controller.pub",', 1
    )
    inventory.write_text(text)
    done = labctl("apply", str(inventory), "--only", "base,agent", "--yes", "--no-diff", timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return Controller(host, key, inventory.parent / "known_hosts")


def test_the_controllers_key_gets_reports_and_nothing_else(rack: Lab, controller: Controller) -> None:
    _gets_a_report(rack, controller)
    _runs_nothing_else(rack, controller)
    _gets_no_terminal(controller)
    _moves_no_files(rack, controller)
    _forwards_nothing(controller)
    _may_become_nobody(rack, controller)


def _gets_a_report(rack: Lab, controller: Controller) -> None:
    answer = controller.ssh("report")
    assert (answer.returncode, answer.stderr) == (0, "")
    report = json.loads(answer.stdout)
    system = report["system"]
    assert system["hostname"] == controller.host.name
    boot_id = rack.run(controller.host.name, ["cat", "/proc/sys/kernel/random/boot_id"], check=True).stdout
    assert system["boot_id"] == boot_id.strip()
    assert system["os"]["id"] == "debian"
    assert controller.host.mac.lower() in {nic["mac"] for nic in report["nics"]}
    assert report["sessions"] == {"people": 0, "others": report["sessions"]["others"]}
    assert report["errors"] == {}
    assert json.loads(controller.ssh("report --pretty").stdout)["system"]["hostname"] == system["hostname"]
    assert controller.ssh("version").stdout.startswith("labctl-agent ")


def _runs_nothing_else(rack: Lab, controller: Controller) -> None:
    before = _home(rack, controller)
    assert "authorized_keys" in before
    client = controller.connect()
    try:
        for command in HOSTILE:
            _, out, err = client.exec_command(command, timeout=30)
            said, complaint = out.read().decode(), err.read().decode()
            assert (out.channel.recv_exit_status(), said) == (126, ""), command
            assert complaint.startswith(REFUSED), command
    finally:
        client.close()
    assert controller.ssh().returncode == 126
    assert _home(rack, controller) == before


def _home(rack: Lab, controller: Controller) -> str:
    """Return every file of the agent's home with the time of its last change."""
    listing = ["find", "/var/lib/labctl-agent", "-printf", "%p %T@\\n"]
    return rack.run(controller.host.name, listing, check=True).stdout


def _gets_no_terminal(controller: Controller) -> None:
    for command in (["report"], []):
        answer = controller.ssh(*command, flags=("-tt",))
        assert "PTY allocation request failed" in answer.stderr
    assert (answer.returncode, answer.stdout) == (255, "")


def _moves_no_files(rack: Lab, controller: Controller) -> None:
    local = controller.key.with_name("payload")
    local.write_text("payload")
    there = f"{USER}@{controller.host.address}"
    assert controller.copy("scp", str(local), f"{there}:payload").returncode != 0
    assert controller.copy("scp", "-O", str(local), f"{there}:payload").returncode != 0
    assert controller.copy("scp", f"{there}:/etc/passwd", str(local.parent / "stolen")).returncode != 0
    assert controller.copy("sftp", there).returncode != 0
    assert not (local.parent / "stolen").exists()
    found = rack.run(controller.host.name, ["find", "/", "-xdev", "-name", "payload"])
    assert found.stdout == ""


def _forwards_nothing(controller: Controller) -> None:
    client = controller.connect()
    try:
        transport = client.get_transport()
        assert transport is not None
        for kind, target in (
            ("direct-tcpip", ("127.0.0.1", 22)),
            ("direct-tcpip", (controller.host.address, 22)),
        ):
            with pytest.raises(paramiko.ChannelException, match=r"[Pp]rohibited"):
                transport.open_channel(kind, target, ("127.0.0.1", 0), timeout=10)
        with pytest.raises(paramiko.SSHException, match="forwarding request denied"):
            transport.request_port_forward("", 0)
        with pytest.raises(paramiko.SSHException):
            transport.open_session().request_x11(handler=lambda *given: None)
    finally:
        client.close()
    for flags in (("-W", "127.0.0.1:22"), ("-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22")):
        assert controller.ssh(flags=flags).returncode == 255, flags
    assert controller.ssh("report", flags=("-A",)).returncode == 0


def _may_become_nobody(rack: Lab, controller: Controller) -> None:
    name = controller.host.name
    as_agent = ["runuser", "-u", USER, "--", "sudo", "-n"]
    assert rack.run(name, [*as_agent, "id"]).returncode != 0
    assert (
        rack.run(name, [*as_agent, "/usr/local/lib/labctl/agent.pyz", "report", "--pretty"]).returncode != 0
    )
    assert rack.run(name, [*as_agent, "/usr/bin/python3", "/usr/local/lib/labctl/agent.pyz"]).returncode != 0
    writable = rack.run(name, ["runuser", "-u", USER, "--", "test", "-w", "/usr/local/lib/labctl/agent.pyz"])
    assert writable.returncode == 1
