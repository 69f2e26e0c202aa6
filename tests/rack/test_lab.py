"""The virtual rack itself: its hosts are real, its faults bite and heal, and nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from time import monotonic

import pytest

import labctl
from labctl.domain.problem import LabctlError
from labctl.inventory import load_rack
from labctl.lab import Lab, LabHost, LabSpec
from labctl.lab.cgroups import Groups
from labctl.lab.preflight import lacks_for_machines
from labctl.lab.processes import Process, command_name, wait_until
from labctl.lab.record import Record
from labctl.lab.spec import PROXY_PORT, mac_for

pytestmark = pytest.mark.rack

Lend = Callable[..., tuple[LabHost, ...]]
ANSWER_S = 60.0


def shell(rack: Lab, host: LabHost, script: str, timeout: float = 60) -> str:
    return rack.run(host.name, ["sh", "-c", script], timeout=timeout, check=True).stdout.strip()


def boot_id(rack: Lab, host: LabHost) -> str:
    try:
        return shell(rack, host, "cat /proc/sys/kernel/random/boot_id")
    except LabctlError:
        return ""


def greeting(host: LabHost, patience: float = 2) -> bytes:
    with socket.create_connection((host.address, 22), patience) as link:
        return link.recv(4)


def greets(host: LabHost) -> bool:
    try:
        return greeting(host) == b"SSH-"
    except OSError:
        return False


# What a host is.


def test_a_host_that_never_sleeps_has_no_faults_of_sleep(rack: Lab, hosts: Lend) -> None:
    (host,) = hosts(1)
    with pytest.raises(LabctlError, match="no sleep that could break"):
        rack.sleep_fault(host.name, "deaf")


def test_hosts_of_both_suites_boot_without_a_failed_unit(rack: Lab, hosts: Lend) -> None:
    for host in (*hosts(1, suite="bookworm"), *hosts(1, suite="trixie")):
        failed = rack.run(host.name, ["systemctl", "--failed", "--plain", "--no-legend"]).stdout
        assert (shell(rack, host, "systemctl is-system-running --wait"), failed) == ("running", ""), host
        assert shell(rack, host, ". /etc/os-release; echo $VERSION_CODENAME") == host.suite


def test_every_host_is_a_machine_of_its_own(rack: Lab, hosts: Lend) -> None:
    lent = hosts(5)
    for path in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id", "/etc/hostname"):
        assert len({shell(rack, host, f"cat {path}") for host in lent}) == len(lent), path
    for host in lent:
        assert shell(rack, host, "cat /sys/class/net/eth0/address") == host.mac
    assert len({rack.host_key(host.name) for host in lent}) == len(lent)


def test_the_key_that_a_host_shows_is_the_one_that_the_lab_tells(rack: Lab, hosts: Lend) -> None:
    (host,) = hosts(1)
    for kind in ("ed25519", "ecdsa"):
        shown = subprocess.run(
            ["ssh-keyscan", "-t", kind, host.address], capture_output=True, text=True, check=True
        )
        assert " ".join(shown.stdout.split()[1:3]) == rack.host_key(host.name, kind)


def test_the_operator_logs_in_by_key_and_becomes_root_without_a_password(
    rack: Lab, hosts: Lend, operator_key: Path
) -> None:
    (host,) = hosts(1)
    argv = rack.ssh_argv(host.name, "id -un; sudo -n id -un; loginctl --no-legend | wc -l", key=operator_key)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["admin", "root", "1"], done.stderr


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_a_host_installs_a_package_without_a_way_to_the_world(rack: Lab, hosts: Lend, suite: str) -> None:
    (host,) = hosts(1, suite=suite)
    assert "hello" not in rack.packages(host.name)
    shell(rack, host, "apt-get install -qy hello", timeout=120)
    assert "hello" in rack.packages(host.name)
    assert list((rack.spec.cache_dir / "packages").glob("*_hello_*.deb"))
    assert rack.run(host.name, ["ping", "-c1", "-W1", "192.0.2.1"]).returncode != 0


def test_the_proxy_fetches_nothing_but_the_archives_of_apt(rack: Lab, hosts: Lend) -> None:
    (host,) = hosts(1)
    proxy = f"http://{rack.spec.uplink}:{PROXY_PORT}"
    archive = shell(rack, host, "awk '/^deb /{print $2; exit}' /etc/apt/sources.list")
    for url in (
        "http://example.org/",
        f"{archive}/../secret",
        f"{archive}/%2e%2e/secret",
        "http://127.0.0.1/",
    ):
        argv = ["curl", "-s", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", "-x", proxy, url]
        assert rack.run(host.name, argv).stdout == "403", url


def test_apt_can_refresh_its_lists(rack: Lab, hosts: Lend) -> None:
    (host,) = hosts(1)
    shell(rack, host, "apt-get update -q -o APT::Update::Error-Mode=any", timeout=120)


# Boots.


def test_a_host_that_reboots_comes_back_with_another_boot_id(rack: Lab, hosts: Lend) -> None:
    (host,) = hosts(1)
    before = boot_id(rack, host)
    shell(rack, host, "echo kept > /root/mark; nft add table inet old; systemctl reboot")
    assert wait_until(lambda: boot_id(rack, host) not in ("", before) and greets(host), within=ANSWER_S)
    assert shell(rack, host, "cat /root/mark") == "kept"
    assert "old" not in shell(rack, host, "nft list tables"), "a reboot forgets the firewall"


def test_a_host_that_powers_off_stays_off_until_it_is_started(rack: Lab, hosts: Lend) -> None:
    (host,) = hosts(1)
    shell(rack, host, "systemctl poweroff")
    assert wait_until(lambda: rack.hosts()[host.name]["state"] == "off", within=ANSWER_S)
    with pytest.raises(LabctlError, match="is off"):
        rack.run(host.name, ["true"])
    rack.start(host.name)
    assert greets(host)


def test_a_power_cut_keeps_what_was_written(rack: Lab, hosts: Lend) -> None:
    (host,) = hosts(1)
    shell(rack, host, "echo kept > /root/mark")
    rack.kill(host.name)
    assert rack.hosts()[host.name]["state"] == "off"
    assert not greets(host)
    rack.start(host.name)
    assert shell(rack, host, "cat /root/mark") == "kept"


def test_an_orderly_stop_tells_the_services(rack: Lab, hosts: Lend) -> None:
    (host,) = hosts(1)
    unit = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStop=/bin/touch /root/told\n"
    rack.run(host.name, ["tee", "/etc/systemd/system/tell.service"], stdin=unit, check=True)
    shell(rack, host, "systemctl daemon-reload; systemctl start tell")
    rack.stop(host.name)
    assert (rack.root(host.name) / "root/told").exists()


def test_reset_restores_every_file_and_keeps_the_identity(rack: Lab, hosts: Lend) -> None:
    (host,) = hosts(1)
    looked_at = {"roots": ("/etc", "/usr", "/home", "/root", "/opt")}
    fresh, machine, key = (
        rack.digest(host.name, **looked_at),
        shell(rack, host, "cat /etc/machine-id"),
        greets(host),
    )
    shell(rack, host, "rm -rf /usr/share/doc /etc/ssh; echo x > /opt/x; chmod 700 /home/admin; userdel admin")
    assert rack.digest(host.name, **looked_at) != fresh
    rack.freeze(host.name)
    rack.cut(host.name)
    rack.reset(host.name)
    assert rack.digest(host.name, **looked_at) == fresh
    assert rack.hosts()[host.name] == {"state": "running", "faults": []}
    assert (shell(rack, host, "cat /etc/machine-id"), greets(host)) == (machine, key)


def test_a_reinstalled_host_shows_another_key_and_machine_id(
    rack: Lab, hosts: Lend, operator_key: Path
) -> None:
    (host,) = hosts(1)
    key, machine = rack.host_key(host.name), shell(rack, host, "cat /etc/machine-id")
    rack.reset(host.name, new_host_key=True)
    assert rack.host_key(host.name) != key
    assert shell(rack, host, "cat /etc/machine-id") != machine
    done = subprocess.run(rack.ssh_argv(host.name, "true", key=operator_key), capture_output=True, timeout=30)
    assert done.returncode == 0


# Faults.


def test_a_cut_cable_swallows_packets_and_a_mended_one_delivers_them(rack: Lab, hosts: Lend) -> None:
    host, other = hosts(2)
    with socket.create_connection((host.address, 22), 5) as link:
        link.settimeout(0.5)
        stream = link.makefile("rb", buffering=0)
        assert stream.readline().startswith(b"SSH-")
        rack.cut(host.name)
        link.sendall(b"SSH-2.0-test\r\n")
        with pytest.raises(TimeoutError):
            link.recv(1)
        with pytest.raises(OSError):
            greeting(host, 1)
        assert rack.run(host.name, ["true"]).returncode == 0, "run needs no network"
        assert greets(other)
        rack.mend(host.name)
        link.settimeout(ANSWER_S)
        assert link.recv(1), "the connection outlived the cut"
    assert wait_until(lambda: greets(host), within=ANSWER_S)


def test_a_frozen_host_answers_nobody_and_goes_on_when_thawed(rack: Lab, hosts: Lend) -> None:
    (host,) = hosts(1)
    before = boot_id(rack, host)
    rack.freeze(host.name)
    assert rack.hosts()[host.name]["state"] == "frozen"
    with pytest.raises(TimeoutError):
        greeting(host, 1)
    with pytest.raises(LabctlError, match="frozen"):
        rack.start(host.name)
    rack.thaw(host.name)
    assert (greets(host), boot_id(rack, host)) == (True, before)


def test_a_stopped_sshd_takes_connections_and_says_nothing(
    rack: Lab, hosts: Lend, operator_key: Path
) -> None:
    (host,) = hosts(1)
    argv = rack.ssh_argv(host.name, "read line; echo got $line", key=operator_key)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
        assert wait_until(lambda: shell(rack, host, "loginctl --no-legend | wc -l") != "0", within=ANSWER_S)
        rack.stop_sshd(host.name)
        with pytest.raises(TimeoutError):
            greeting(host, 1)
        with pytest.raises(subprocess.TimeoutExpired):
            session.communicate("word\n", timeout=1)
        rack.cont_sshd(host.name)
        assert session.communicate(timeout=30)[0] == "got word\n"
    assert greets(host)


def test_a_full_disk_takes_no_byte_until_it_is_freed(rack: Lab, hosts: Lend) -> None:
    host, other = hosts(2)
    rack.fill_disk(host.name)
    full = rack.run(host.name, ["cp", "/etc/passwd", "/root/x"])
    assert (full.returncode != 0, "No space left" in full.stderr) == (True, True)
    shell(rack, other, "echo x > /root/x")
    rack.free_disk(host.name)
    shell(rack, host, "echo x > /root/x; head -c 10M /dev/zero > /root/y")


def test_a_slow_cable_is_slow_and_a_mended_one_is_fast(rack: Lab, hosts: Lend, operator_key: Path) -> None:
    (host,) = hosts(1)
    argv = rack.ssh_argv(host.name, "head -c 150000 /dev/zero", key=operator_key)

    def seconds() -> float:
        start = monotonic()
        subprocess.run(argv, capture_output=True, check=True, timeout=60)
        return monotonic() - start

    rack.slow(host.name, rate_kbit=800)
    slow = seconds()
    rack.mend(host.name)
    assert slow > 1.2 > seconds()


def test_a_kernel_that_can_not_delay_packets_is_named(rack: Lab, hosts: Lend) -> None:
    (host,) = hosts(1)
    try:
        rack.slow(host.name, delay_ms=300)
    except LabctlError as error:
        assert "sch_netem" in str(error)
        assert rack.hosts()[host.name]["faults"] == []
    else:
        start = monotonic()
        assert greets(host)
        assert monotonic() - start > 0.3


def test_a_held_apt_lock_keeps_apt_out(rack: Lab, hosts: Lend) -> None:
    (host,) = hosts(1)
    install = ["apt-get", "install", "-qy", "hello"]
    with rack.hold_apt_lock(host.name):
        refused = rack.run(host.name, install)
        assert (refused.returncode, "Could not get lock" in refused.stderr) == (100, True)
        assert rack.run(host.name, ["apt-get", "update"]).returncode == 100
        with pytest.raises(LabctlError, match="somebody else"), rack.hold_apt_lock(host.name):
            pytest.fail("two hold the lock")
    assert rack.run(host.name, install, timeout=120).returncode == 0


# Looking.


def test_a_digest_sees_content_mode_and_owner_but_not_times(rack: Lab, hosts: Lend) -> None:
    (host,) = hosts(1)
    shell(rack, host, "mkdir /opt/d; echo a > /opt/d/f; ln -s f /opt/d/l")
    seen = [rack.digest(host.name, ["/opt"])]
    shell(rack, host, "touch -d 2001-01-01 /opt/d/f")
    assert rack.digest(host.name, ["/opt"]) == seen[0]
    for change in (
        "echo b > /opt/d/f",
        "chmod 600 /opt/d/f",
        "chown 7 /opt/d/f",
        "ln -sf g /opt/d/l",
        "rm /opt/d/l",
    ):
        shell(rack, host, change)
        seen.append(rack.digest(host.name, ["/opt"]))
    assert len(set(seen)) == len(seen)
    assert rack.digest(host.name, ["/opt"], exclude=["/opt/d"]) != seen[-1]
    assert rack.digest(host.name, ["/opt/none"]) == rack.digest(host.name, ["/opt/none"])


def test_a_command_that_takes_too_long_is_ended(rack: Lab, hosts: Lend) -> None:
    (host,) = hosts(1)
    with pytest.raises(LabctlError, match="did not end within 1 s"):
        rack.run(host.name, ["sleep", "1234"], timeout=1)
    assert wait_until(lambda: rack.run(host.name, ["pgrep", "-f", "sleep 1234"]).returncode == 1, within=10)


# Ends.


@pytest.fixture
def small(spec: LabSpec, network: IPv4Network, tmp_path: Path) -> Iterator[LabSpec]:
    """A lab of two hosts on a network of its own, not up; whatever the test leaves of it is ended."""
    network = list(network.subnets(new_prefix=25))[3]
    hosts = tuple(
        LabHost(
            f"s{index}", str(network[index]), mac_for(str(network[index])), suite, sleeps=suite == "trixie"
        )
        for index, suite in ((20, "bookworm"), (21, "trixie"))
    )
    small = replace(spec, name="small", hosts=hosts, network=network, state_dir=tmp_path)
    # Groups bear the network's name: an earlier run that was killed as a whole may have left some.
    Groups.below_mine(f"labctl-{small.uplink_interface}").sweep()
    yield small
    Lab(small).down()


def traces(spec: LabSpec) -> dict[str, object]:
    """What a lab could leave behind on this machine."""
    mark = f"labctl-{spec.uplink_interface}"
    processes = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "cgroup").read_text() or str(spec.home) in (entry / "cmdline").read_text():
                processes.append(entry.name)
        except OSError:
            continue
    return {
        "processes": processes,
        "mounts": sorted(Path("/proc/self/mountinfo").read_text().splitlines()),
        "links": [name for name in os.listdir("/sys/class/net") if name == spec.uplink_interface],
        "namespaces": subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout,
        "groups": [str(path) for path in _groups() if path.name == mark],
        "tmp": [name for name in os.listdir("/tmp") if name.startswith("nspawn")],
    }


def _groups() -> Iterator[Path]:
    for top, directories, _ in os.walk("/sys/fs/cgroup"):
        yield from (Path(top, name) for name in directories)


def first_process(spec: LabSpec) -> Process:
    found = Record.read(spec.home).sandbox
    assert found is not None
    return found


def test_teardown_leaves_nothing_behind(small: LabSpec) -> None:
    before = traces(small)
    with Lab(small) as lab:
        lab.freeze("s20")
        lab.cut("s21")
        during = traces(small)
        assert during["links"] and during["groups"] and during["processes"]
    assert traces(small) == before
    assert not lab.is_up()


@pytest.mark.parametrize("victim", ["daemon", "sandbox"])
def test_a_killed_lab_is_gone_and_the_next_command_sweeps_the_rest(small: LabSpec, victim: str) -> None:
    before = traces(small)
    lab = Lab(small).up(stays=True)
    lab.fill_disk("s20")
    lab.run("s21", ["systemctl", "suspend"], check=True)
    lab.await_state("s21", "asleep")
    record, inside = Record.read(small.home), first_process(small)
    os.kill(record.daemon.pid if victim == "daemon" else inside.pid, signal.SIGKILL)
    assert wait_until(lambda: not inside.is_alive(), within=20), "the sandbox dies with its daemon"
    assert wait_until(lambda: not traces(small)["links"], within=20)
    lab.down()
    assert traces(small) == before


@pytest.mark.skipif(bool(lacks_for_machines()), reason="this machine lacks QEMU")
def test_a_virtual_machine_dies_with_its_lab(small: LabSpec) -> None:
    machine = replace(small, hosts=(replace(small.hosts[0], machine="qemu"), *small.hosts[1:]))
    before = traces(machine)
    lab = Lab(machine).up(stays=True, hosts=())

    def press() -> None:
        with contextlib.suppress(LabctlError):
            lab.start("s20")

    pressed = threading.Thread(target=press)
    pressed.start()
    # Where a state of it was saved before, it is up in a moment.
    assert wait_until(lambda: lab.hosts()["s20"]["state"] in ("booting", "running"), within=60)
    groups = Record.read(machine.home).groups
    assert wait_until(lambda: any("qemu" in command_name(pid) for pid in groups.pids("s20")), within=20)
    os.kill(Record.read(machine.home).daemon.pid, signal.SIGKILL)
    pressed.join()
    assert wait_until(lambda: not traces(machine)["links"], within=20)
    lab.down()
    assert traces(machine) == before


@pytest.mark.parametrize("moment_s", [0.0, 0.15, 0.4, 0.8])
def test_a_command_killed_while_the_rack_boots_leaves_nothing_that_down_does_not_sweep(
    small: LabSpec, moment_s: float
) -> None:
    before = traces(small)
    script = (
        "import sys; from labctl.lab import Lab, LabSpec; "
        "Lab(LabSpec.parse(sys.argv[1])).up(lambda line: print(line, flush=True), stays=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, small.dump()], stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline().startswith("starting")
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(moment_s)
        command.kill()
    lab = Lab(small)

    def is_settled() -> bool:
        # The daemon may be on its way still: it has the lock, but no record yet.
        lab.down()
        return traces(small) == before

    assert wait_until(is_settled, within=30)


def test_a_new_lab_starts_over_the_remains_of_a_killed_one(small: LabSpec) -> None:
    before = traces(small)
    lab = Lab(small).up(stays=True)
    inside = first_process(small)
    os.kill(Record.read(small.home).daemon.pid, signal.SIGKILL)
    assert wait_until(lambda: not lab.is_up() and not inside.is_alive(), within=20)
    with pytest.raises(LabctlError, match="not up"):
        lab.hosts()
    with Lab(small) as again:
        assert {host["state"] for host in again.hosts().values()} == {"running"}
    lab.down()
    assert traces(small) == before


def test_a_lab_ends_with_the_process_that_wanted_it_for_itself(small: LabSpec) -> None:
    before = traces(small)
    script = (
        "import sys; from labctl.lab import Lab, LabSpec; "
        "Lab(LabSpec.parse(sys.argv[1])).__enter__(); print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, small.dump()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        owner.kill()
    assert wait_until(lambda: traces(small) == before, within=20)


def test_a_network_that_is_in_use_is_refused(rack: Lab, small: LabSpec) -> None:
    network = rack.spec.network
    hosts = tuple(replace(h, address=str(network[200 + i])) for i, h in enumerate(small.hosts))
    with pytest.raises(LabctlError, match=f"{network} overlaps"):
        Lab(replace(small, network=network, hosts=hosts)).up()


def test_a_lab_that_is_up_is_not_started_twice(rack: Lab) -> None:
    assert Lab(rack.spec).up().is_up()
    changed = replace(rack.spec, login_user="somebody")
    with pytest.raises(LabctlError, match="with other hosts"):
        Lab(changed).up()


# The machine.

ELSEWHERE = """
import contextlib
import json
import time
from ipaddress import IPv4Network
from pathlib import Path
from labctl.lab import Lab, LabHost, LabSpec, launch
from labctl.lab.record import Record
from labctl.lab.spec import mac_for

launch.base = lambda *_: Path("/opt/tree/root")
hosts = tuple(LabHost(f"in{n}", f"10.55.0.{n}", mac_for(f"10.55.0.{n}")) for n in (11, 12))
spec = LabSpec("inner", hosts, IPv4Network("10.55.0.0/24"), Path("/var/lib/labs"), Path("/opt/cache"), "key")
with Lab(spec) as lab:
    record = Record.read(spec.home)
    told = {"legacy": record.groups.legacy is not None, "group": str(record.groups.unified)}
    told["states"] = [host["state"] for host in lab.hosts().values()]
    lab.freeze("in11")
    lab.kill("in12")
    told["damaged"] = [host["state"] for host in lab.hosts().values()]
    lab.thaw("in11")
    lab.reset("in12")
    told["healed"] = [lab.run(host.name, ["systemctl", "is-system-running"]).stdout.strip() for host in hosts]
# systemd removes an empty scope a moment after its last process.
deadline = time.monotonic() + 10
while list(Path("/sys/fs/cgroup").rglob("labctl*")) and time.monotonic() < deadline:
    time.sleep(0.1)
left = [str(path) for path in Path("/sys/fs/cgroup").rglob("labctl*")]
left += [name for name in Path("/sys/class/net").iterdir() if name.name.startswith("lab")]
print(json.dumps(told | {"left": left}))
"""


def test_the_lab_runs_where_systemd_and_cgroup_v2_rule(rack: Lab, hosts: Lend) -> None:
    """A lab inside of a lab host: a machine with systemd 257, Python 3.13 and nothing but cgroup v2."""
    (host,) = hosts(1, suite="trixie")
    shell(rack, host, "apt-get install -qqy mmdebstrap systemd-container openssh-client", timeout=300)
    opt = rack.root(host.name) / "opt"
    source = Path(labctl.__file__).parent.parent
    shutil.copytree(source, opt / "src", ignore=shutil.ignore_patterns("__pycache__"))
    tree = Path(Record.read(rack.spec.home).trees["trixie"]).parent
    subprocess.run(["cp", "-a", str(tree), str(opt / "tree")], check=True)
    argv = ["env", "PYTHONPATH=/opt/src", "python3", "-c", ELSEWHERE]
    told = json.loads(rack.run(host.name, argv, timeout=180, check=True).stdout)
    assert told.pop("group").startswith("/sys/fs/cgroup/system.slice/labctl-"), "a delegated scope"
    assert told == {
        "legacy": False,
        "states": ["running", "running"],
        "damaged": ["frozen", "off"],
        "healed": ["running", "running"],
        "left": [],
    }


# The commands.


def test_a_newcomer_boots_lists_breaks_and_ends_a_rack_by_commands(tmp_path: Path, spec: LabSpec) -> None:
    name = f"cli-{spec.uplink_interface}"

    def labctl(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "labctl.cli.main", "lab", *words],
            capture_output=True,
            text=True,
            env={**os.environ, "LABCTL_STATE": str(tmp_path)},
            timeout=120,
        )
        assert done.returncode == status, done.stderr
        return done

    try:
        said = labctl("up", "--hosts", "2", "--name", name).stdout
        rack_file = tmp_path / "lab" / name / "rack" / "inventory" / "rack.py"
        assert str(rack_file) in said
        loaded = load_rack(rack_file)
        assert (rack_file.parent / "keys/operator").stat().st_mode & 0o777 == 0o600
        rows = json.loads(labctl("ls", "--json").stdout)
        assert [(row["host"], row["address"], row["mac"]) for row in rows] == [
            (host.name, host.address, host.wake.mac) for host in loaded.rack.hosts if host.wake.kind == "wol"
        ]
        first = rows[0]["host"]
        assert labctl("ssh", first, "--name", name, "--", "hostname").stdout.strip() == first
        labctl("ssh", first, "--name", name, "--", "exit 7", status=7)
        labctl("fault", first, "kill", "--name", name)
        assert json.loads(labctl("ls", "--json").stdout)[0]["state"] == "off"
        labctl("up", "--hosts", "2", "--name", name)
        labctl("fault", first, "loses-packets", "--value", "100", "--name", name)
        assert json.loads(labctl("ls", "--json").stdout)[0]["faults"] == ["loses-packets"]
        assert json.loads(labctl("packets", "--json", "--name", name).stdout) == []
        labctl("reset", first, "--name", name)
        assert json.loads(labctl("ls", "--json").stdout)[0]["state"] == "running"
        wrong = labctl("fault", "nobody", "cut", "--name", name, status=2)
        assert "no host 'nobody'" in wrong.stderr
    finally:
        labctl("down", "--all")
    assert json.loads(labctl("ls", "--json").stdout)[0]["state"] == "off"
