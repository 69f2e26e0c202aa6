"""Enrolling real sshds: what is pinned lets apply in, and a host with new keys is refused until confirmed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from rack_driving import drive, ends, labctl, write_deploy

from labctl.inventory.known_hosts import load
from labctl.lab import Lab, LabHost

pytestmark = pytest.mark.rack

TOUCH = 'server.shell(name="touch", commands=["touch /root/touched"])\n'


def fingerprint_on_console(rack: Lab, host: LabHost) -> str:
    """Return what a person reads on the host's own console, without ssh."""
    listed = ["ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub"]
    return rack.run(host.name, listed, check=True).stdout.split()[1]


def enroll(inventory: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return labctl("enroll", "--inventory", str(inventory), *args)


def test_hosts_are_enrolled_by_the_fingerprint_on_their_console(
    rack: Lab, hosts: Callable[..., tuple[LabHost, ...]], rack_file: Callable[..., Path]
) -> None:
    one, two = hosts(1, suite="bookworm") + hosts(1, suite="trixie")
    inventory = rack_file([one, two])
    known = inventory.parent / "known_hosts"
    known.unlink()
    deploy = write_deploy(inventory, TOUCH)
    strangers = ends(drive(inventory, deploy, (one.name, two.name)))
    assert {code for _, code in strangers.values()} == {"host-key"}

    read = [f"--fingerprint={host.name}={fingerprint_on_console(rack, host)}" for host in (one, two)]
    done = enroll(inventory, "--all", *read, "--json")
    assert done.returncode == 0, done.stderr
    assert {each["outcome"] for each in json.loads(done.stdout)["hosts"]} == {"enrolled"}
    assert {(entry.names, entry.keytype) for entry in load(known)} == {
        ((host.address,), "ssh-ed25519") for host in (one, two)
    }
    assert set(ends(drive(inventory, deploy, (one.name, two.name))).values()) == {("ok", "")}


def test_a_host_with_new_keys_is_refused_until_its_fingerprint_is_confirmed(
    rack: Lab, hosts: Callable[..., tuple[LabHost, ...]], rack_file: Callable[..., Path]
) -> None:
    (one,) = hosts(1)
    inventory = rack_file([one])
    known = inventory.parent / "known_hosts"
    before = known.read_bytes()
    rack.reset(one.name, new_host_key=True)

    refused = enroll(inventory, one.name, "--yes")
    assert refused.returncode == 1
    assert "HAS ANOTHER KEY THAN THE PINNED ONE" in refused.stderr
    assert known.read_bytes() == before

    read = fingerprint_on_console(rack, one)
    assert enroll(inventory, one.name, "--replace", "--fingerprint", read).returncode == 0
    assert known.read_bytes() != before
    deploy = write_deploy(inventory, TOUCH)
    assert ends(drive(inventory, deploy, (one.name,))) == {one.name: ("ok", "")}


def test_a_host_that_is_off_does_not_keep_the_others_from_being_enrolled(
    rack: Lab, hosts: Callable[..., tuple[LabHost, ...]], rack_file: Callable[..., Path]
) -> None:
    one, two = hosts(2)
    inventory = rack_file([one, two])
    known = inventory.parent / "known_hosts"
    known.unlink()
    rack.kill(one.name)
    done = enroll(inventory, "--all", "--yes")
    rack.start(one.name)
    assert done.returncode == 4
    assert f"host {one.name}: " in done.stderr and f"{one.address} port 22" in done.stderr
    assert {entry.names for entry in load(known)} == {(two.address,)}
