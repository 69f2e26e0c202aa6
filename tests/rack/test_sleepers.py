"""Hosts that sleep: dark until a packet, an alarm or a button wakes them, and only if they listen."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from declared import DeclaredHost

from labctl.domain.problem import LabctlError
from labctl.lab import Lab, LabHost
from labctl.lab.preflight import lacks_for_machines
from labctl.lab.processes import wait_until
from labctl.lab.supplies import mirror_folder

pytestmark = pytest.mark.rack

Lend = Callable[..., LabHost]
NOTHING_COMES_S = 0.5
IS_ARMED = "ethtool eth0 | grep -q '^[[:space:]]*Wake-on: g'"
HOOK = "/usr/lib/systemd/system-sleep/note"


@pytest.fixture(scope="module", autouse=True)
def booting_meanwhile(sleep_rack: Lab, request: pytest.FixtureRequest) -> None:
    """Let the virtual machine boot while the other hosts are tried."""
    wanted = any("virtual_machine" in item.name for item in request.session.items)
    if wanted and not lacks_for_machines():
        request.getfixturevalue("machine")


def shell(rack: Lab, host: LabHost, script: str, timeout: float = 60) -> str:
    return rack.run(host.name, ["sh", "-c", script], timeout=timeout, check=True).stdout.strip()


def boot_id(rack: Lab, host: LabHost) -> str:
    return shell(rack, host, "cat /proc/sys/kernel/random/boot_id")


def arm(rack: Lab, host: LabHost) -> None:
    shell(rack, host, f"ethtool -s eth0 wol g && {IS_ARMED}")


def suspend(rack: Lab, host: LabHost) -> None:
    # logind refuses while it is not done with the wake-up before.
    assert wait_until(lambda: rack.run(host.name, ["systemctl", "suspend"]).returncode == 0, within=30)
    rack.await_state(host.name, "asleep", 60)


def power_off(rack: Lab, host: LabHost) -> None:
    # A machine that powers off may take the answer with it.
    with suppress(LabctlError):
        shell(rack, host, "systemctl poweroff")
    rack.await_state(host.name, "off", 120)


def magic(mac: str, password: str = "") -> bytes:
    return b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) * 16 + bytes.fromhex(password.replace(":", ""))


def send(rack: Lab, payload: bytes, port: int = 9) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        link.sendto(payload, (str(rack.spec.network.broadcast_address), port))


def send_frame(rack: Lab, payload: bytes) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((rack.spec.uplink_interface, 0))
        link.send(b"\xff" * 6 + link.getsockname()[4] + b"\x08\x42" + payload)


def outcome(rack: Lab, host: LabHost, number: int) -> str:
    """Return what came of the last of so many packets for a host, when that many were seen."""
    assert wait_until(lambda: len(rack.packets(host.name)) >= number, within=10)
    seen = rack.packets(host.name)
    assert len(seen) == number, seen
    return str(seen[-1]["outcome"])


def pings(host: LabHost) -> bool:
    asked = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, 1)
    total = sum(struct.unpack("!4H", asked))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as link:
        link.settimeout(NOTHING_COMES_S)
        try:
            link.connect((host.address, 0))
            link.send(asked[:2] + struct.pack("!H", checksum) + asked[4:])
            return bool(link.recv(256))
        except OSError:
            return False


def greets(host: LabHost) -> bool:
    try:
        with socket.create_connection((host.address, 22), NOTHING_COMES_S) as link:
            link.settimeout(NOTHING_COMES_S)
            return link.recv(4) == b"SSH-"
    except OSError:
        return False


def is_dark(host: LabHost) -> bool:
    return not pings(host) and not greets(host)


@contextmanager
def logged_in(rack: Lab, host: LabHost, key: Path) -> Iterator[Callable[[str], str]]:
    """Yield what sends a line through an SSH connection that stays open, and returns what comes back."""
    argv = rack.ssh_argv(host.name, "cat", key=key)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as login:

        def echo(line: str) -> str:
            assert login.stdin is not None and login.stdout is not None
            login.stdin.write(f"{line}\n")
            return login.stdout.readline().strip()

        try:
            yield echo
        finally:
            login.kill()


# To sleep and back.


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_a_suspended_host_is_dark_until_its_magic_packet_and_then_goes_on(
    sleep_rack: Lab, sleeper: Lend, operator_key: Path, suite: str
) -> None:
    host = sleeper("nspawn", suite)
    arm(sleep_rack, host)
    shell(
        sleep_rack,
        host,
        f"mkdir -p {Path(HOOK).parent}; printf '#!/bin/sh\\necho $1 $2 >>/noted\\n' >{HOOK}; chmod +x {HOOK}",
    )
    shell(sleep_rack, host, "systemd-run --unit=tuner --quiet sleep infinity")
    before, tuner = boot_id(sleep_rack, host), shell(sleep_rack, host, "systemctl show -P MainPID tuner")
    noted = sleep_rack.root(host.name) / "noted"
    with logged_in(sleep_rack, host, operator_key) as echo:
        assert echo("before") == "before"
        assert pings(host)

        suspend(sleep_rack, host)
        assert is_dark(host)
        # Every process stands still: what would be written next is not.
        assert noted.read_text() == "pre suspend\n"
        seen = len(sleep_rack.packets())
        send(sleep_rack, magic("52:54:00:ff:fe:fd"))
        assert wait_until(lambda: len(sleep_rack.packets()) > seen, within=10)
        assert (sleep_rack.packets()[-1]["outcome"], sleep_rack.packets()[-1]["host"]) == ("nobody's", None)
        assert sleep_rack.hosts()[host.name]["state"] == "asleep"

        number = len(sleep_rack.packets(host.name))
        send(sleep_rack, magic(host.mac))
        assert outcome(sleep_rack, host, number + 1) == "wakes"
        sleep_rack.await_state(host.name, "running", 10)
        assert wait_until(lambda: noted.read_text() == "pre suspend\npost suspend\n", within=10)
        assert wait_until(lambda: greets(host), within=10) and pings(host)
        assert echo("after") == "after"

    assert boot_id(sleep_rack, host) == before
    assert shell(sleep_rack, host, "systemctl show -P MainPID tuner") == tuner
    assert shell(sleep_rack, host, "cat /sys/power/suspend_stats/success") == "1"
    assert shell(sleep_rack, host, "systemctl --failed --plain --no-legend") == ""
    assert sleep_rack.run(host.name, ["sh", "-c", IS_ARMED]).returncode == 0


def test_a_host_that_did_not_arm_its_card_sleeps_on_until_somebody_presses_its_button(
    sleep_rack: Lab, sleeper: Lend
) -> None:
    host = sleeper("nspawn")
    number = len(sleep_rack.packets(host.name))
    suspend(sleep_rack, host)
    send(sleep_rack, magic(host.mac))
    assert outcome(sleep_rack, host, number + 1) == "not armed"
    assert is_dark(host)
    for impossible in (sleep_rack.stop, sleep_rack.freeze):
        with pytest.raises(LabctlError, match="it is asleep"):
            impossible(host.name)
    sleep_rack.start(host.name)
    assert shell(sleep_rack, host, "cat /sys/power/suspend_stats/success") == "1"


def test_a_magic_packet_counts_however_it_comes(sleep_rack: Lab, sleeper: Lend) -> None:
    host, relay = sleeper("nspawn"), sleeper("nspawn")
    number = len(sleep_rack.packets(host.name))
    password = "01:02:03:04:05:06"
    by_socket = (
        "python3 -c 'import socket, sys\n"
        "link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\n"
        f'link.sendto(bytes.fromhex("{magic(host.mac).hex()}"), '
        f'("{sleep_rack.spec.network.broadcast_address}", 9))\''
    )
    ways: dict[str, Callable[[], object]] = {
        "port 7": lambda: send(sleep_rack, magic(host.mac), 7),
        "port 40000": lambda: send(sleep_rack, magic(host.mac), 40000),
        "a frame": lambda: send_frame(sleep_rack, magic(host.mac)),
        "a password that nobody asked for": lambda: send(sleep_rack, magic(host.mac, password)),
        "another host": lambda: shell(sleep_rack, relay, by_socket),
    }
    arm(sleep_rack, host)
    for way, go in ways.items():
        suspend(sleep_rack, host)
        go()
        number += 1
        assert outcome(sleep_rack, host, number) == "wakes", way
        sleep_rack.await_state(host.name, "running", 10)
    shell(sleep_rack, host, f"ethtool -s eth0 wol s sopass {password}")
    suspend(sleep_rack, host)
    for secret, expected in (
        ("", "wrong password"),
        ("06:05:04:03:02:01", "wrong password"),
        (password, "wakes"),
    ):
        send(sleep_rack, magic(host.mac, secret))
        number += 1
        assert outcome(sleep_rack, host, number) == expected
    send(sleep_rack, magic(host.mac))
    assert outcome(sleep_rack, host, number + 1) == "awake"


# Off and back.


def test_a_host_that_is_off_boots_at_a_packet_if_its_card_was_armed(sleep_rack: Lab, sleeper: Lend) -> None:
    host = sleeper("nspawn")
    number = len(sleep_rack.packets(host.name))
    before = boot_id(sleep_rack, host)
    power_off(sleep_rack, host)
    assert is_dark(host)
    send(sleep_rack, magic(host.mac))
    assert outcome(sleep_rack, host, number + 1) == "not armed"

    sleep_rack.start(host.name)
    arm(sleep_rack, host)
    power_off(sleep_rack, host)
    send(sleep_rack, magic(host.mac))
    assert outcome(sleep_rack, host, number + 2) == "wakes"
    sleep_rack.await_state(host.name, "running", 60)
    assert boot_id(sleep_rack, host) != before

    # The boot took the setting away, as it does from a real card.
    assert shell(sleep_rack, host, "cat /sys/class/net/eth0/device/power/wakeup") == "disabled"
    arm(sleep_rack, host)
    sleep_rack.kill(host.name)
    send(sleep_rack, magic(host.mac))
    assert outcome(sleep_rack, host, number + 3) == "not armed", "a card without power remembers nothing"


def test_labctl_arms_the_card_now_and_for_every_boot(
    sleep_rack: Lab, sleeper: Lend, sleep_rack_file: Callable[..., Path]
) -> None:
    host = sleeper("nspawn")
    declared = DeclaredHost(sleep_rack, host, sleep_rack_file([host]))
    assert declared.apply("wol") == 2
    assert declared.apply("wol") == 0
    declared.reboot()
    assert sleep_rack.run(host.name, ["sh", "-c", IS_ARMED]).returncode == 0
    assert declared.apply("wol") == 0


def test_the_alarm_clock_wakes_a_host_from_sleep_and_from_being_off(sleep_rack: Lab, sleeper: Lend) -> None:
    host = sleeper("nspawn")
    alarm = "/sys/class/rtc/rtc0/wakealarm"
    shell(sleep_rack, host, f"echo +2 >{alarm}")
    refused = sleep_rack.run(host.name, ["bash", "-c", f"echo +9 >{alarm}"])
    assert "busy" in refused.stderr
    suspend(sleep_rack, host)
    sleep_rack.await_state(host.name, "running", 10)
    assert shell(sleep_rack, host, f"cat {alarm}") == ""
    before = boot_id(sleep_rack, host)
    shell(sleep_rack, host, f"echo $(($(cat /sys/class/rtc/rtc0/since_epoch) + 3)) >{alarm}")
    power_off(sleep_rack, host)
    sleep_rack.await_state(host.name, "running", 30)
    assert boot_id(sleep_rack, host) != before


# What goes wrong.


def test_a_host_that_does_not_sleep_says_so_and_stays_up(sleep_rack: Lab, sleeper: Lend) -> None:
    host = sleeper("nspawn")
    sleep_rack.sleep_fault(host.name, "no-suspend")
    assert sleep_rack.hosts()[host.name]["faults"] == ["no-suspend"]
    shell(sleep_rack, host, "systemctl suspend")
    failed = "systemctl is-failed --quiet systemd-suspend.service"
    assert wait_until(lambda: sleep_rack.run(host.name, ["sh", "-c", failed]).returncode == 0, within=20)
    assert (sleep_rack.hosts()[host.name]["state"], greets(host)) == ("running", True)
    stats = shell(sleep_rack, host, "cd /sys/power/suspend_stats; cat success fail").split()
    # systemd tries "freeze" after "mem".
    assert stats == ["0", "2"]
    sleep_rack.sleep_fault(host.name, "sleep-heal")
    suspend(sleep_rack, host)


def test_packets_are_in_vain_for_a_host_that_is_deaf_unplugged_or_misses_them(
    sleep_rack: Lab, sleeper: Lend
) -> None:
    host = sleeper("nspawn")
    number = len(sleep_rack.packets(host.name))
    arm(sleep_rack, host)
    suspend(sleep_rack, host)
    for kind, value, expected in (("deaf", None, "deaf"), ("loses-packets", 100, "lost")):
        sleep_rack.sleep_fault(host.name, kind, value)
        send(sleep_rack, magic(host.mac))
        number += 1
        assert outcome(sleep_rack, host, number) == expected
        sleep_rack.sleep_fault(host.name, "sleep-heal")
    sleep_rack.cut(host.name)
    send(sleep_rack, magic(host.mac))
    assert outcome(sleep_rack, host, number + 1) == "unplugged"
    sleep_rack.mend(host.name)
    assert is_dark(host), "mending the cable of a sleeping host must not wake its network"
    send(sleep_rack, magic(host.mac))
    assert outcome(sleep_rack, host, number + 2) == "wakes"


def test_a_host_wakes_by_itself_and_another_takes_its_time_to_boot(sleep_rack: Lab, sleeper: Lend) -> None:
    restless, slow = sleeper("nspawn"), sleeper("nspawn")
    number = len(sleep_rack.packets(restless.name))
    sleep_rack.sleep_fault(restless.name, "wakes-itself", 1)
    suspend(sleep_rack, restless)
    sleep_rack.await_state(restless.name, "running", 10)
    assert len(sleep_rack.packets(restless.name)) == number

    arm(sleep_rack, slow)
    power_off(sleep_rack, slow)
    sleep_rack.sleep_fault(slow.name, "slow-boot", 300)
    send(sleep_rack, magic(slow.mac))
    sleep_rack.await_state(slow.name, "booting", 10)
    assert is_dark(slow)
    sleep_rack.kill(slow.name)
    assert sleep_rack.hosts()[slow.name]["state"] == "off"


# Many at once.


def test_ten_hosts_sleep_and_wake_at_once(sleep_rack: Lab, sleeper: Lend) -> None:
    hosts = sleep_rack.spec.hosts
    fleet = [host for host in hosts if host.machine == "nspawn"]
    assert len(fleet) == 10
    with ThreadPoolExecutor(4) as pool:
        lent = list(pool.map(lambda _: sleeper("nspawn"), fleet))
        assert len({host.name for host in lent}) == 10
        list(pool.map(lambda host: arm(sleep_rack, host), lent))
        before = list(pool.map(lambda host: boot_id(sleep_rack, host), lent))
        list(pool.map(lambda host: suspend(sleep_rack, host), lent))
        assert all(pool.map(is_dark, lent))
        for host in lent:
            send(sleep_rack, magic(host.mac))
        for host in lent:
            sleep_rack.await_state(host.name, "running", 20)
        assert list(pool.map(lambda host: boot_id(sleep_rack, host), lent)) == before


# A machine with a kernel of its own.


def test_a_virtual_machine_truly_suspends_and_wakes_by_a_packet_if_it_armed_its_card(
    sleep_rack: Lab, sleeper: Lend, operator_key: Path
) -> None:
    host = sleeper("qemu")
    number = len(sleep_rack.packets(host.name))
    before = boot_id(sleep_rack, host)
    with logged_in(sleep_rack, host, operator_key) as echo:
        assert echo("before") == "before"
        suspend(sleep_rack, host)
        assert is_dark(host)
        with pytest.raises(LabctlError, match="the host is asleep"):
            boot_id(sleep_rack, host)
        send(sleep_rack, magic(host.mac))
        assert outcome(sleep_rack, host, number + 1) == "not armed"
        assert is_dark(host)
        sleep_rack.start(host.name)
        assert echo("woken by its button") == "woken by its button"

        arm(sleep_rack, host)
        suspend(sleep_rack, host)
        send_frame(sleep_rack, magic(host.mac))
        assert outcome(sleep_rack, host, number + 2) == "wakes"
        sleep_rack.await_state(host.name, "running", 60)
        assert echo("woken by a packet") == "woken by a packet"
    assert boot_id(sleep_rack, host) == before
    assert shell(sleep_rack, host, "cat /sys/power/suspend_stats/success") == "2"
    assert sleep_rack.run(host.name, ["sh", "-c", IS_ARMED]).returncode != 0, "this driver forgets"
    assert "PM: suspend entry (deep)" in shell(sleep_rack, host, "dmesg")
    # The kernel's clocks part while it sleeps, which a host in a container can't show.
    clocks = "import time; print(time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic() > 0.5)"
    assert shell(sleep_rack, host, f"python3 -c '{clocks}'") == "True"


def test_a_virtual_machine_is_an_ordinary_host_that_wakes_by_its_alarm_clock_and_boots_by_a_packet(
    sleep_rack: Lab, sleeper: Lend, operator_key: Path
) -> None:
    host = sleeper("qemu")
    number = len(sleep_rack.packets(host.name))
    assert shell(sleep_rack, host, "hostname; systemctl --failed --plain --no-legend") == host.name
    argv = sleep_rack.ssh_argv(host.name, "id -un; sudo -n id -un", key=operator_key)
    assert subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout.split() == [
        "admin",
        "root",
    ]
    shell(sleep_rack, host, "apt-get install -qy hello", timeout=300)
    mirror = shell(sleep_rack, host, "ls -A /opt/lab/mirror; touch /opt/lab/mirror/it 2>&1 || :")
    assert set(os.listdir(mirror_folder(sleep_rack.spec.cache_dir))) <= set(mirror.split())
    assert mirror.endswith("Read-only file system")
    shell(sleep_rack, host, "echo +5 >/sys/class/rtc/rtc0/wakealarm")
    suspend(sleep_rack, host)
    sleep_rack.await_state(host.name, "running", 60)

    before = boot_id(sleep_rack, host)
    link = f"[Match]\\nPermanentMACAddress={host.mac}\\n[Link]\\nWakeOnLan=magic\\n"
    shell(sleep_rack, host, f"printf '{link}' >/etc/systemd/network/50-wol.link")
    arm(sleep_rack, host)
    power_off(sleep_rack, host)
    assert is_dark(host)
    send(sleep_rack, magic(host.mac))
    assert outcome(sleep_rack, host, number + 1) == "wakes"
    sleep_rack.await_state(host.name, "running", 400)
    assert sleep_rack.run(host.name, ["sh", "-c", IS_ARMED]).returncode == 0, "as the .link file says"
    assert boot_id(sleep_rack, host) != before
    assert shell(sleep_rack, host, "hello -g 'the disk kept it'") == "the disk kept it"
