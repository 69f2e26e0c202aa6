"""The parts of a sleeping host that need no host: what wakes it, its alarm clock, its card, its monitor."""

from __future__ import annotations

import errno
import json
import random
import re
import socket
import struct
import threading
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.domain.problem import LabctlError
from labctl.lab import accel
from labctl.lab.accel import arguments
from labctl.lab.alarm import Alarm
from labctl.lab.board import FAULTS, Board, Faults, linked
from labctl.lab.guest import Guest, identity
from labctl.lab.nic import MAGIC, SECURE, Card, Hearing, Magic, magic_of, verdict
from labctl.lab.powerfs import PowerFiles
from labctl.lab.qmp import Monitor

MAC = "52:54:00:0a:00:0b"
RAW = bytes.fromhex(MAC.replace(":", ""))
SENDER = bytes.fromhex("525400000001")
PASSWORD = bytes.fromhex("010203040506")


def payload(mac: bytes = RAW, password: bytes = b"") -> bytes:
    return b"\xff" * 6 + mac * 16 + password


def ethernet(body: bytes, ethertype: int = 0x0842) -> bytes:
    return b"\xff" * 6 + SENDER + struct.pack("!H", ethertype) + body


def udp(body: bytes, port: int) -> bytes:
    ip = b"\x45" + bytes(8) + b"\x11" + bytes(10)
    return ethernet(ip + struct.pack("!HHHH", 40000, port, 8 + len(body), 0) + body, 0x0800)


# What is a magic packet.


@pytest.mark.parametrize("port", [0, 7, 9, 40000])
def test_a_magic_packet_is_known_by_its_payload_on_any_udp_port(port: int) -> None:
    assert magic_of(udp(payload(), port)) == Magic(MAC, b"", "52:54:00:00:00:01", 0x0800, port)


def test_a_magic_packet_may_come_in_a_frame_of_its_own_and_carry_a_password() -> None:
    found = magic_of(ethernet(payload(password=PASSWORD)))
    assert found == Magic(MAC, PASSWORD, "52:54:00:00:00:01", 0x0842, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff" * 300 + bytes(6),
        payload()[:-1],
        payload()[1:],
        b"\xff" * 6 + RAW * 15 + SENDER,
        b"\xff" * 5 + b"\xfe" + RAW * 16,
    ],
)
def test_what_only_resembles_a_magic_packet_wakes_nobody(body: bytes) -> None:
    found = magic_of(ethernet(body))
    assert found is None or found.mac == "ff:ff:ff:ff:ff:ff"


@given(st.binary(max_size=400))
def test_no_frame_upsets_the_card(frame: bytes) -> None:
    found = magic_of(frame)
    assert found is None or frame.count(bytes.fromhex(found.mac.replace(":", ""))) >= 1


# What comes of it.

ARMED, SECURED = Card(MAGIC), Card(SECURE, PASSWORD)
HEARD = Magic(MAC, b"", "52:54:00:00:00:01", 0x0842, None)
WITH_PASSWORD = Magic(MAC, PASSWORD, "52:54:00:00:00:01", 0x0842, None)


@pytest.mark.parametrize(
    ("magic", "state", "card", "hearing", "plugged_in", "outcome"),
    [
        (HEARD, "asleep", ARMED, Hearing(), True, "wakes"),
        (HEARD, "off", ARMED, Hearing(), True, "wakes"),
        (WITH_PASSWORD, "asleep", ARMED, Hearing(), True, "wakes"),
        (WITH_PASSWORD, "asleep", SECURED, Hearing(), True, "wakes"),
        (HEARD, "asleep", SECURED, Hearing(), True, "wrong password"),
        (HEARD, "asleep", Card(), Hearing(), True, "not armed"),
        (HEARD, "off", Card(), Hearing(), True, "not armed"),
        (HEARD, "running", ARMED, Hearing(), True, "awake"),
        (HEARD, "booting", ARMED, Hearing(), True, "awake"),
        (HEARD, "frozen", ARMED, Hearing(), True, "awake"),
        (HEARD, "asleep", ARMED, Hearing(), False, "unplugged"),
        (HEARD, "asleep", ARMED, Hearing(deaf=True), True, "deaf"),
        (HEARD, "asleep", ARMED, Hearing(loses_percent=100), True, "lost"),
    ],
)
def test_a_packet_wakes_only_who_listens(
    magic: Magic, state: str, card: Card, hearing: Hearing, plugged_in: bool, outcome: str
) -> None:
    assert verdict(magic, state, card, hearing, plugged_in=plugged_in) == outcome


def test_lost_packets_are_as_many_as_asked_for_and_the_same_ones_each_time() -> None:
    def outcomes() -> list[str]:
        hearing = Hearing(loses_percent=30, luck=random.Random("s1"))
        return [verdict(HEARD, "asleep", ARMED, hearing, plugged_in=True) for _ in range(2000)]

    assert outcomes() == outcomes()
    assert 500 < outcomes().count("lost") < 700


# The alarm clock.


class FakeClock:
    """A clock that stands still."""

    def now(self) -> datetime:
        return datetime.fromtimestamp(1_000_000, UTC)

    def monotonic(self) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("writes", "shown"),
    [
        (["1000060"], b"1000060\n"),
        (["+60"], b"1000060\n"),
        (["+60", "+=30"], b"1000090\n"),
        (["+60", "0"], b""),
        (["+60", "0", "+10"], b"1000010\n"),
        (["999999"], b""),
    ],
)
def test_the_alarm_clock_has_the_kernels_manners(writes: list[str], shown: bytes) -> None:
    alarm = Alarm(FakeClock(), lambda: None)
    for text in writes:
        alarm.write(f"{text}\n".encode())
    assert alarm.read() == shown
    alarm.unset()


@pytest.mark.parametrize(
    ("writes", "refused"),
    [(["+60", "+90"], errno.EBUSY), (["+=30"], errno.EINVAL), (["soon"], errno.EINVAL)],
)
def test_the_alarm_clock_refuses_what_the_kernel_refuses(writes: list[str], refused: int) -> None:
    alarm = Alarm(FakeClock(), lambda: None)
    with pytest.raises(OSError) as caught:
        for text in writes:
            alarm.write(text.encode())
    assert caught.value.errno == refused
    alarm.unset()


def test_the_alarm_clock_rings_once_and_is_unset_then() -> None:
    class Later(FakeClock):
        seconds = 1_000_000.0

        def now(self) -> datetime:
            return datetime.fromtimestamp(self.seconds, UTC)

    clock, rung = Later(), Event()
    alarm = Alarm(clock, rung.set)
    clock.seconds += 0.99
    alarm.write(b"1000001")
    assert rung.wait(10)
    assert alarm.read() == b""


# The card, and the files by which a host sees all this.


def board() -> Board:
    return Board(MAC, FakeClock(), lambda: None, lambda: None)


def test_a_card_is_told_and_asked_as_by_ethtool() -> None:
    made = board()
    wol = made.knobs()["nic/eth0"]
    assert wol.write is not None
    assert wol.read() == struct.pack("III6s2x", 5, MAGIC | SECURE, 0, bytes(6))
    wol.write(struct.pack("III6s2x", 6, 0, SECURE, PASSWORD))
    assert made.card == SECURED
    assert made.knobs()["power-of-card/wakeup"].read() == b"enabled\n"
    with pytest.raises(OSError):
        wol.write(struct.pack("III6s2x", 6, 0, 1, bytes(6)))
    assert made.card == SECURED


def test_only_root_may_ask_the_card_and_nobody_writes_what_is_only_shown() -> None:
    files = PowerFiles(board().knobs())
    modes = {path: files.getattr(path)["st_mode"] & 0o777 for path in ("/nic/eth0", "/power/state")}
    assert modes == {"/nic/eth0": 0o600, "/power/state": 0o644}
    assert files.getattr("/power/suspend_stats/success")["st_mode"] & 0o777 == 0o444
    assert files.readdir("/power", 0) == [".", "..", "mem_sleep", "state", "suspend_stats"]


def test_a_kernel_takes_only_the_states_that_it_shows() -> None:
    asked: list[str] = []
    made = Board(MAC, FakeClock(), lambda: asked.append("mem"), lambda: None)
    state, kind = made.knobs()["power/state"], made.knobs()["power/mem_sleep"]
    assert state.write is not None and kind.write is not None
    for said in (b"disk\n", b"", b"standby"):
        with pytest.raises(OSError):
            state.write(said)
    assert asked == []
    kind.write(b"s2idle\n")
    assert kind.read() == b"[s2idle] deep\n"
    state.write(b"mem\n")
    assert asked == ["mem"]
    made.faults.give("no-suspend", None, "")
    with pytest.raises(OSError) as caught:
        state.write(b"mem\n")
    assert (caught.value.errno, asked) == (errno.EBUSY, ["mem"])
    assert made.knobs()["power/suspend_stats/fail"].read() == b"1\n"


@pytest.mark.parametrize(
    ("texts", "card"),
    [
        ({}, Card()),
        ({"a": f"[Match]\nPermanentMACAddress={MAC}\n[Link]\nWakeOnLan=magic\n"}, ARMED),
        ({"a": f"[Match]\nMACAddress={MAC.upper()}\n[Link]\nWakeOnLan=magic\n"}, ARMED),
        ({"a": "[Match]\nMACAddress=52:54:00:00:00:01\n[Link]\nWakeOnLan=magic\n"}, Card()),
        (
            {
                "a": f"[Match]\nMACAddress={MAC}\n[Link]\nMTUBytes=1400\n",
                "b": f"[Match]\nMACAddress={MAC}\n[Link]\nWakeOnLan=magic\n",
            },
            Card(),
        ),
        (
            {
                "a": f"[Match]\nMACAddress={MAC}\n[Link]\nWakeOnLan=secureon\n"
                "WakeOnLanPassword=01:02:03:04:05:06\n"
            },
            SECURED,
        ),
        ({"a": "no link file"}, Card()),
    ],
)
def test_a_boot_arms_the_card_as_its_first_link_file_says(
    tmp_path: Path, texts: dict[str, str], card: Card
) -> None:
    for name, text in texts.items():
        (tmp_path / f"{name}.link").write_text(text)
    assert linked(tmp_path, MAC) == card


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("loses-packets", None, "give it in percent, up to 100"),
        ("loses-packets", 101, "up to 100"),
        ("slow-boot", -1, "give it in seconds"),
        ("insomnia", None, "no such fault of sleep as 'insomnia'"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(kind: str, value: float | None, reason: str) -> None:
    with pytest.raises(LabctlError, match=reason):
        Faults().give(kind, value, "s1")


def test_every_fault_is_told_and_heals() -> None:
    faults = Faults()
    for kind in FAULTS[:-1]:
        faults.give(kind, 5, "s1")
    assert sorted(faults.names()) == sorted(FAULTS[:-1])
    faults.give("sleep-heal", None, "")
    assert faults.names() == []


# A virtual machine's monitor, its identity and how it runs.

PCI = """\
  Bus  0, device   3, function 0:
    Class 0255: PCI device 1af4:1005
      BAR0: I/O at 0xc080 [0xc09f].
      id ""
  Bus  0, device   5, function 0:
    Ethernet controller: PCI device 10ec:8139
      IRQ 10, pin A
      BAR0: {bar} [0xc0ff].
      BAR1: 32 bit memory at 0xfebf1000 [0xfebf10ff].
      id "card0"
"""


class FakeQemu(threading.Thread):
    """A monitor that knows two lines, and says that it happens to suspend whenever it is asked to."""

    def __init__(self, path: Path, config3: int, bar: str = "I/O at 0xc000") -> None:
        super().__init__(daemon=True)
        self.config3, self.bar = config3, bar
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.start()

    def run(self) -> None:
        with self.listener:
            link, _ = self.listener.accept()
        with link, link.makefile("rwb", buffering=0) as stream:
            stream.write(b'{"QMP": {"version": {}}}\n')
            for line in stream:
                asked = json.loads(line)
                answer: dict[str, object] = {"return": {}}
                if asked["execute"] == "human-monitor-command":
                    text = asked["arguments"]["command-line"]
                    said = (
                        PCI.format(bar=self.bar)
                        if text == "info pci"
                        else f"portb[{text[8:]}] = {self.config3:#x}"
                    )
                    answer = {"return": said}
                elif asked["execute"] == "suspend":
                    stream.write(b'{"event": "SUSPEND", "timestamp": {}}\n')
                elif asked["execute"] == "quit":
                    return
                elif asked["execute"] != "qmp_capabilities":
                    answer = {"error": {"class": "CommandNotFound", "desc": "no such command"}}
                stream.write(json.dumps({**answer, "id": asked["id"]}).encode() + b"\n")


@pytest.mark.parametrize(
    ("config3", "bar", "options"),
    [
        (0x20, "I/O at 0xc000", MAGIC),
        (0x61, "I/O at 0xc000", MAGIC),
        (0x1, "I/O at 0xc000", 0),
        (0x20, "none", 0),
    ],
)
def test_whether_a_guest_armed_its_card_is_read_from_the_card(
    tmp_path: Path, config3: int, bar: str, options: int
) -> None:
    FakeQemu(tmp_path / "qmp", config3, bar)
    monitor = Monitor(tmp_path / "qmp", lambda event: None)
    assert monitor.options("card0") == options
    assert monitor.options("card1") == 0
    monitor.close()


def test_who_hears_an_event_may_ask_the_monitor_at_once(tmp_path: Path) -> None:
    FakeQemu(tmp_path / "qmp", 0x20)
    heard: SimpleQueue[tuple[str, int]] = SimpleQueue()
    monitor = Monitor(tmp_path / "qmp", lambda event: heard.put((event, monitor.options("card0"))))
    monitor.order("suspend")
    assert heard.get(timeout=10) == ("SUSPEND", MAGIC)
    monitor.close()


def test_a_monitor_that_refuses_or_ends_is_an_error_with_a_reason(tmp_path: Path) -> None:
    FakeQemu(tmp_path / "qmp", 0)
    monitor = Monitor(tmp_path / "qmp", lambda event: None)
    with pytest.raises(LabctlError, match="refused fly: no such command"):
        monitor.order("fly")
    with pytest.raises(LabctlError, match="does not answer"):
        monitor.order("quit")
    with pytest.raises(LabctlError, match="does not answer"):
        monitor.order("stop")
    monitor.close()


def test_an_identity_follows_the_guests_own_initial_files_with_its_modes(tmp_path: Path) -> None:
    made = Guest(tmp_path)
    made.initrd.write_bytes(b"INIT" * 2)
    upper = tmp_path / "upper"
    (upper / "etc/ssh").mkdir(parents=True)
    (upper / "etc/ssh/key").write_text("secret")
    (upper / "etc/ssh/key").chmod(0o600)
    (upper / "etc/link").symlink_to("ssh/key")
    identity(upper, tmp_path / "out", made)
    packed = (tmp_path / "out").read_bytes()
    assert packed.startswith(b"INITINIT070701")
    (tmp_path / "archive").write_bytes(packed[8:])
    names = re.findall(rb"identity[a-z/]*|TRAILER!!!", packed)
    expected = ["identity", "identity/etc", "identity/etc/link", "identity/etc/ssh", "identity/etc/ssh/key"]
    assert names == [*(name.encode() for name in expected), b"TRAILER!!!"]
    (mode,) = re.findall(rb"070701.{8}(.{8})(?:(?!070701).)*?identity/etc/ssh/key", packed, re.DOTALL)[-1:]
    assert int(mode, 16) == 0o100600


@pytest.mark.parametrize(("verdict", "expected"), [(None, "tcg"), ("tcg", "tcg"), ("kvm", "kvm")])
def test_a_guest_runs_by_kvm_only_where_one_was_seen_to(
    tmp_path: Path, verdict: str | None, expected: str
) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if verdict:
        (tmp_path / "accelerators").mkdir()
        (tmp_path / "accelerators" / boot).write_text(verdict)
    assert arguments(tmp_path)[3].split(",")[0] == expected


def test_a_machine_that_refuses_guests_is_not_believed_to_have_kvm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "_runs", lambda guest: False)
    monkeypatch.setattr(accel, "_DEVICE", tmp_path)
    assert not accel.try_kvm(Guest(tmp_path), tmp_path)
    monkeypatch.setattr(accel, "_runs", lambda guest: True)
    assert not accel.try_kvm(Guest(tmp_path), tmp_path), "the verdict stays until the next boot"
