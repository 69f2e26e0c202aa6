"""The virtual rack itself: its hosts are real, its faults bite and heal, and nothing is left behind."""

from __future__ import annotations

import pytest

from labctl.lab import Lab

pytestmark = pytest.mark.rack


def test_hosts_of_both_suites_boot_without_a_failed_unit(rack: Lab) -> None:
    for host in rack.spec.hosts:
        state = rack.run(host.name, ["systemctl", "is-system-running"]).stdout.strip()
        failed = rack.run(host.name, ["systemctl", "--failed", "--plain", "--no-legend"]).stdout
        assert (state, failed) == ("running", ""), host
        release = rack.run(host.name, ["sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME"]).stdout
        assert release.strip() == host.suite


def test_every_host_is_its_own_machine(rack: Lab) -> None:
    for path in (
        "/proc/sys/kernel/random/boot_id",
        "/etc/machine-id",
        "/etc/hostname",
        "/sys/class/net/eth0/address",
    ):
        seen = {rack.run(host.name, ["cat", path], check=True).stdout for host in rack.spec.hosts}
        assert len(seen) == len(rack.spec.hosts), path
    assert len({rack.host_key(host.name) for host in rack.spec.hosts}) == len(rack.spec.hosts)
