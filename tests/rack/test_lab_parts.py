"""The parts of the virtual rack that need neither root nor a host."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.domain.problem import LabctlError
from labctl.inventory import load_rack
from labctl.lab import Lab, LabHost, LabSpec, aptsources, preflight, rackfile
from labctl.lab.aptsources import Allowed, Archive
from labctl.lab.processes import Process
from labctl.lab.spec import MAX_HOSTS, mac_for

NET = IPv4Network("10.0.0.0/24")
HOMES = rackfile.Homes(Path("/s"), Path("/c"))
KEY = "ssh-ed25519 AAAA operator"


def host(number: int, **other: str) -> LabHost:
    address = str(NET[number])
    return replace(LabHost(f"h{number}", address, mac_for(address)), **other)


def spec(*hosts: LabHost, **other: object) -> LabSpec:
    made = {"network": NET, "state_dir": Path("/s"), "cache_dir": Path("/c"), "operator_pubkey": KEY, **other}
    return LabSpec("lab", hosts, **made)  # type: ignore[arg-type]


# The spec.


@pytest.mark.parametrize(
    ("hosts", "other", "reason"),
    [
        ((), {}, "1 to 30 hosts"),
        (tuple(host(n) for n in range(1, MAX_HOSTS + 2)), {}, "1 to 30 hosts"),
        ((host(1), host(2, name="h1")), {}, "2 hosts have the same name h1"),
        ((host(1), host(2, address="10.0.0.1")), {}, "same address"),
        ((host(1), host(2, mac=host(1).mac)), {}, "same mac"),
        ((host(1, name="Bad_Name"),), {}, "can't be a host name"),
        ((host(1, name="../x"),), {}, "can't be a host name"),
        ((host(1, address="10.1.0.1"),), {}, "no host address of 10.0.0.0/24"),
        ((host(1, address="10.0.0.255"),), {}, "no host address"),
        ((host(1, address="nas.local"),), {}, "no IPv4 address"),
        ((host(1, mac="01:00:5e:00:00:01"),), {}, "no MAC of one machine"),
        ((host(1, suite="sid"),), {}, "no Debian suite"),
        ((host(1, machine="xen"),), {}, "no machine 'xen' here"),
        ((host(1),), {"login_user": "root; reboot"}, "login name"),
        ((host(1),), {"state_dir": Path("/run/x")}, "can't keep its files"),
        ((host(1),), {"network": IPv4Network("10.0.0.0/30")}, "too small"),
    ],
)
def test_a_spec_that_can_not_be_booted_is_refused(
    hosts: tuple[LabHost, ...], other: dict[str, object], reason: str
) -> None:
    with pytest.raises(LabctlError, match=reason):
        spec(*hosts, **other)


def test_all_faults_of_a_spec_are_told_at_once() -> None:
    with pytest.raises(LabctlError) as caught:
        spec(host(1, mac="x"), host(2, suite="sid"), host(3, address="?"))
    assert {problem.host for problem in caught.value.problems} == {"h1", "h2", "h3"}


@given(st.sets(st.integers(1, 254), min_size=1, max_size=MAX_HOSTS))
def test_gateway_and_uplink_never_take_the_address_of_a_host(numbers: set[int]) -> None:
    made = spec(*map(host, numbers))
    own = {made.gateway, made.uplink}
    assert len(own) == 2
    assert own.isdisjoint(IPv4Address(h.address) for h in made.hosts)
    assert own <= set(NET.hosts())


@given(st.sets(st.integers(1, 254), min_size=1, max_size=MAX_HOSTS), st.sampled_from(["bookworm", "trixie"]))
def test_a_spec_survives_its_way_to_the_daemon(numbers: set[int], suite: str) -> None:
    made = spec(*(host(n, suite=suite) for n in numbers), operator_key=Path("/k"))
    assert LabSpec.parse(made.dump()) == made


# What may be fetched.

ALLOWED = Allowed(("https://deb.example/debian/", "http://deb.example/sec/", "http://other.example:8080/"))


@pytest.mark.parametrize(
    ("asked", "fetched"),
    [
        (
            "http://deb.example/debian/dists/trixie/InRelease",
            "https://deb.example/debian/dists/trixie/InRelease",
        ),
        ("http://deb.example/debian/pool/a_1%2b2.deb", "https://deb.example/debian/pool/a_1%2b2.deb"),
        ("http://deb.example/sec/x", "http://deb.example/sec/x"),
        ("http://other.example:8080/x", "http://other.example:8080/x"),
        ("http://other.example/x", None),
        ("http://deb.example/debianx", None),
        ("http://deb.example/", None),
        ("http://deb.example/debian/../etc", None),
        ("http://deb.example/debian/%2e%2e/etc", None),
        ("http://deb.example/debian//x", None),
        ("http://deb.example/debian/x?y", None),
        ("http://user@deb.example/debian/x", None),
        ("https://deb.example/debian/x", None),
        ("http://deb.example.evil/debian/x", None),
        ("/debian/x", None),
        ("file:///etc/passwd", None),
        ("http://[::1", None),
        ("", None),
    ],
)
def test_only_what_apt_may_fetch_is_fetched(asked: str, fetched: str | None) -> None:
    assert ALLOWED.upstream(asked) == fetched


@given(st.text())
def test_no_request_makes_the_proxy_stumble(asked: str) -> None:
    fetched = ALLOWED.upstream(f"http://deb.example/{asked}")
    assert fetched is None or fetched.startswith(("https://deb.example/debian/", "http://deb.example/sec/"))


def test_debian_trees_come_from_the_archives_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    archives = (
        Archive("stable", "main", "https://vendor.example/"),
        Archive("bookworm", "main", "http://a.example/debian/"),
        Archive("bookworm", "contrib", "http://b.example/debian/"),
        Archive("bookworm-updates", "main", "http://a.example/debian/"),
        Archive("bookworm-security", "main", "http://s.example/sec/"),
    )
    monkeypatch.setattr(aptsources, "machine_archives", lambda: archives)
    running = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
    monkeypatch.setattr(aptsources.platform, "freedesktop_os_release", lambda: running)
    assert aptsources.debian_lines("trixie") == (
        "deb http://a.example/debian/ trixie main",
        "deb http://a.example/debian/ trixie-updates main",
        "deb http://s.example/sec/ trixie-security main",
    )
    running["ID"] = "ubuntu"
    assert aptsources.debian_lines("trixie") == (), "elsewhere mmdebstrap knows its own archive"
    assert aptsources.debian_lines("trixie", "http://m.example/")[0] == "deb http://m.example/ trixie main"


# Can this machine?


def test_missing_tools_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = {"mmdebstrap", "systemd-nspawn", "tc"}
    monkeypatch.setattr(preflight, "find", lambda tool: None if tool in lacking else f"/bin/{tool}")
    with pytest.raises(LabctlError) as caught:
        preflight.require_able()
    hints = [problem.hint for problem in caught.value.problems if "lacks" in problem.reason]
    assert "apt-get install --no-install-recommends iproute2 mmdebstrap systemd-container" in hints


def test_virtual_machines_need_more_and_only_who_wants_some_is_asked_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preflight, "find", lambda tool: None if "qemu" in tool else f"/bin/{tool}")
    with pytest.raises(LabctlError) as caught:
        preflight.require_able(machines=True)
    hints = [problem.hint for problem in caught.value.problems if "lacks" in problem.reason]
    assert hints == ["apt-get install --no-install-recommends qemu-system-x86 qemu-utils"]
    assert preflight.lacks_for_machines() == ("qemu-system-x86", "qemu-utils")
    try:
        preflight.require_able()
    except LabctlError as other:
        assert not [problem for problem in other.problems if "qemu" in problem.reason]


def test_without_root_the_lab_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.os, "geteuid", lambda: 1000)
    with pytest.raises(LabctlError, match="needs root"):
        preflight.require_able()


def test_a_command_that_the_machine_can_not_carry_ends_with_2_and_no_traceback(tmp_path: Path) -> None:
    """Seen from outside: without privileges nothing is made and the reason stands there."""
    script = (
        "import os, sys; from labctl.lab import preflight; preflight.find = lambda tool: None; "
        "from labctl.cli.main import main; sys.exit(main(['lab', 'up']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "LABCTL_STATE": str(tmp_path)},
        timeout=60,
    )
    assert (done.returncode, "apt-get install" in done.stderr, "Traceback" in done.stderr) == (2, True, False)
    assert list(tmp_path.iterdir()) == []


# Rack files.


@pytest.mark.parametrize("number", [1, 5, 30])
def test_a_written_rack_file_is_valid_and_boots_what_it_says(tmp_path: Path, number: int) -> None:
    path = tmp_path / "inventory" / "rack.py"
    assert rackfile.write_rack_file(path, number)
    loaded = load_rack(path)
    made = rackfile.spec_of(loaded, "lab", "mixed", HOMES)
    assert len(made.hosts) == number
    assert [(h.name, h.address) for h in made.hosts] == [(h.name, h.address) for h in loaded.rack.hosts]
    assert len({h.suite for h in made.hosts}) == min(number, 2)
    key = tmp_path / "inventory" / "keys" / "operator"
    assert (key.stat().st_mode & 0o777, made.operator_key) == (0o600, key)
    assert made.operator_pubkey.split()[:2] == key.with_suffix(".pub").read_text().split()[:2]


def test_a_rack_file_of_the_user_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "rack.py"
    path.write_text("mine")
    assert not rackfile.write_rack_file(path, 3)
    assert path.read_text() == "mine"


def test_what_the_lab_can_not_imitate_is_refused_with_the_host(tmp_path: Path) -> None:
    path = tmp_path / "rack.py"
    path.write_text(
        "from labctl.inventory import Host, Rack, Ssh\n"
        "rack = Rack(name='r', hosts=[Host(name='a', address='a.lan'),"
        " Host(name='b', address='10.0.0.2', ssh=Ssh(port=2222)),"
        " Host(name='c', address='10.0.0.3', ssh=Ssh(user='other'))])\n"
        "globals().update(rack.groups())\n"
    )
    with pytest.raises(LabctlError) as caught:
        rackfile.spec_of(load_rack(path), "lab", "trixie", HOMES)
    assert {(p.host, p.field) for p in caught.value.problems} == {
        ("a", "address"),
        ("b", "ssh.port"),
        ("c", "ssh"),
    }


def test_hosts_that_wake_by_packets_sleep_and_some_may_be_virtual_machines(tmp_path: Path) -> None:
    path = tmp_path / "inventory" / "rack.py"
    path.parent.mkdir()
    path.write_text(
        "from labctl.inventory import Gpu, Host, Rack, WakeOnLan\n"
        "gpus = [Gpu(model='RTX 3090', slot='a')]\n"
        "rack = Rack(name='r', hosts=[Host(name='a', address='10.0.0.1', gpus=gpus),"
        " Host(name='b', address='10.0.0.2', gpus=gpus, wake=WakeOnLan(mac='52:54:00:00:00:02'))])\n"
        "globals().update(rack.groups())\n"
    )
    loaded = load_rack(path)
    plain = rackfile.spec_of(loaded, "lab", "trixie", HOMES).hosts
    assert [(h.sleeps, h.machine, len(h.gpus)) for h in plain] == [(False, "nspawn", 1), (True, "nspawn", 1)]
    made = rackfile.spec_of(loaded, "lab", "trixie", HOMES, machines=("b",)).hosts
    assert [(h.sleeps, h.machine, len(h.gpus)) for h in made] == [(False, "nspawn", 1), (True, "qemu", 0)]
    with pytest.raises(LabctlError, match="no host 'c' is there to be a virtual machine"):
        rackfile.spec_of(loaded, "lab", "trixie", HOMES, machines=("c",))


# Whose process is it?


def test_a_process_with_the_same_number_but_another_start_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        seen = Process.see(child.pid)
        stranger = replace(seen, started=seen.started - 1)
        other_boot = replace(seen, boot_id="another")
        assert seen.is_alive()
        for wrong in (stranger, other_boot):
            assert not wrong.is_alive()
            assert wrong.end(9, within=1)
        assert child.poll() is None
        assert not seen.end(0, within=0), "it lives"
        seen.end(15, within=5)
        assert child.wait() == -15
        assert not seen.is_alive()


def test_a_lab_that_never_was_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(LabctlError, match="there is no lab 'x'"):
        Lab.attach(tmp_path, "x")
