"""Rebooting real hosts: only where it is needed, allowed, and disturbs nobody; one at a time on a circuit."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from rack_driving import labctl

from labctl.lab import Lab, LabHost
from labctl.lab.processes import wait_until

Lend = Callable[..., tuple[LabHost, ...]]
CIRCUIT = ', psus=[Psu(name="p", watts=500, circuit="office")]'
RESTART = ("--only=restart", "--yes")


@pytest.fixture
def circuit_file(rack_file: Callable[..., Path]) -> Callable[..., Path]:
    """Write an inventory of hosts that hang on one circuit."""

    def write(chosen: object) -> Path:
        file = rack_file(chosen, CIRCUIT)
        text = file.read_text().replace("import Host,", "import Circuit, Host, Psu,")
        file.write_text(text.replace('name="test",', 'name="test", circuits=[Circuit(name="office")],'))
        return file

    return write


def boot_id(rack: Lab, host: str) -> str:
    return rack.run(host, ["cat", "/proc/sys/kernel/random/boot_id"]).stdout


def soon(file: Path) -> Path:
    """Write a deploy that waits two seconds at most until the host is not in use."""
    deploy = file.parent.parent / "deploys" / "soon.py"
    deploy.parent.mkdir()
    deploy.write_text("from labctl.ops import reboot\nreboot.if_needed(name='reboot', drain_s=2)\n")
    return deploy


def want_reboot(rack: Lab, host: str) -> None:
    rack.run(host, ["sh", "-c", "echo linux-image >/run/reboot-required.pkgs; touch /run/reboot-required"])


def test_without_leave_a_needed_reboot_is_only_said(
    rack: Lab, hosts: Lend, circuit_file: Callable[..., Path]
) -> None:
    (host,) = hosts(1)
    file = circuit_file([host])
    want_reboot(rack, host.name)
    before = boot_id(rack, host.name)
    done = labctl("apply", str(file), *RESTART)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "needs a reboot: updated packages ask for it: linux-image" in done.stdout + done.stderr
    assert "--allow-reboot" in done.stdout + done.stderr
    assert boot_id(rack, host.name) == before


def test_hosts_on_one_circuit_reboot_one_after_the_other(
    rack: Lab, hosts: Lend, circuit_file: Callable[..., Path]
) -> None:
    lent = hosts(2, suite="bookworm")
    file = circuit_file(lent)
    before = {host.name: boot_id(rack, host.name) for host in lent}
    for host in lent:
        want_reboot(rack, host.name)
    done = labctl("apply", str(file), *RESTART, "--allow-reboot", "--json", timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    reports = json.loads(done.stdout)["hosts"]
    assert [report["changed"] for report in reports] == [1, 1]
    assert all(boot_id(rack, name) != old for name, old in before.items())
    again = labctl("apply", str(file), *RESTART, "--allow-reboot", "--json")
    assert [report["changed"] for report in json.loads(again.stdout)["hosts"]] == [0, 0]


def test_a_host_with_somebody_at_work_is_not_rebooted(
    rack: Lab, hosts: Lend, circuit_file: Callable[..., Path]
) -> None:
    (host,) = hosts(1)
    file = circuit_file([host])
    want_reboot(rack, host.name)
    before = boot_id(rack, host.name)
    key, known = file.parent / "keys/operator", file.parent / "known_hosts"
    ssh = ["ssh", "-n", "-F", "/dev/null", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
    at_work = subprocess.Popen(
        [*ssh, "-o", f"UserKnownHostsFile={known}", f"admin@{host.address}", "sleep 600"],
        stdin=subprocess.DEVNULL,
    )
    try:
        logged_in = ["sh", "-c", "loginctl list-sessions --no-legend | grep -q admin"]
        assert wait_until(lambda: rack.run(host.name, logged_in).returncode == 0, within=20)
        done = labctl("apply", str(file), str(soon(file)), "--yes", "--allow-reboot")
        assert done.returncode == 1
        assert "user admin is logged in" in done.stdout + done.stderr
        assert boot_id(rack, host.name) == before
    finally:
        at_work.terminate()
        at_work.wait(10)


def test_a_host_whose_shutdown_is_forbidden_is_not_rebooted(
    rack: Lab, hosts: Lend, circuit_file: Callable[..., Path]
) -> None:
    (host,) = hosts(1)
    file = circuit_file([host])
    want_reboot(rack, host.name)
    before = boot_id(rack, host.name)
    inhibit = ["systemd-run", "systemd-inhibit", "--what=shutdown", "--who=trainer", "--mode=block"]
    rack.run(host.name, [*inhibit, "sleep", "600"])
    listed = ["sh", "-c", "systemd-inhibit --list --no-legend | grep -q trainer"]
    assert wait_until(lambda: rack.run(host.name, listed).returncode == 0, within=20)
    done = labctl("apply", str(file), str(soon(file)), "--yes", "--allow-reboot")
    assert done.returncode == 1
    assert "trainer (process " in done.stdout + done.stderr
    assert boot_id(rack, host.name) == before
