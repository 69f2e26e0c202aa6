"""What a look from outside says: of machines that answer or are silent, and when we are cut off."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from netns import Machine, cable, in_a_new_network, ip, setting

from labctl.adapters import looks
from labctl.adapters.looks import Target, Views, neighbours
from labctl.adapters.looks.neighbours import FAILED, INCOMPLETE, REACHABLE, Neighbour
from labctl.domain.sleep.terms import Sign
from labctl.ports.power import Power, PowerError

ON, DARK, UNCLEAR = Sign.ON, Sign.DARK, Sign.UNCLEAR
NETWORK = ("ssh", "ping", "arp")
HOST = "10.9.0.7"
PROMPT_S = 10.0  # for looks that are over long before


def look(target: Target, deadline_s: float = PROMPT_S) -> Mapping[str, Sign]:
    return Views({"gpu-box": target}).signs("gpu-box", deadline_s=deadline_s)


def seen(signs: Mapping[str, Sign]) -> tuple[Sign, ...]:
    return tuple(signs[name] for name in NETWORK)


def with_a_machine(
    do: Callable[[Machine], Mapping[str, Sign]], *addresses: str, ours: str = "10.9.0.1/24"
) -> Mapping[str, Sign]:
    """Do something in a network with another machine in it, which has these addresses."""

    def inside() -> Mapping[str, Sign]:
        setting("net.ipv4.ping_group_range", "0 2147483647")
        cable("near", "far", ours)
        for kind in ("ipv4", "ipv6"):  # the kernel's own patience, made short
            setting(f"net.{kind}.neigh.near.retrans_time_ms", "10")
        with Machine() as machine:
            machine.plug_in("far", *addresses)
            return do(machine)

    return in_a_new_network(inside)


def listening(machine: Machine, address: str = HOST) -> tuple[socket.socket, int]:
    def listen() -> socket.socket:
        return socket.create_server(
            (address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET
        )

    door = machine.do(listen)
    return door, door.getsockname()[1]


@pytest.mark.parametrize(("address", "ours"), [(HOST, "10.9.0.1/24"), ("fd00::7", "fd00::1/64")])
def test_a_machine_that_is_awake_is_seen_in_all_ways(address: str, ours: str) -> None:
    def do(machine: Machine) -> Mapping[str, Sign]:
        door, port = listening(machine, address)
        with door:
            return look(Target(address, port))

    prefix = ours.partition("/")[2]
    assert seen(with_a_machine(do, f"{address}/{prefix}", ours=ours)) == (ON, ON, ON)


def test_a_machine_without_sshd_still_refuses_and_that_is_life() -> None:
    assert seen(with_a_machine(lambda _: look(Target(HOST, 22)), f"{HOST}/24")) == (ON, ON, ON)


@pytest.mark.parametrize(("address", "ours"), [(HOST, "10.9.0.1/24"), ("fd00::7", "fd00::1/64")])
def test_a_machine_that_is_off_is_dark_in_all_ways(address: str, ours: str) -> None:
    assert seen(with_a_machine(lambda _: look(Target(address, 22)), ours=ours)) == (DARK, DARK, DARK)


def test_a_machine_that_swallows_everything_is_dark_when_the_time_is_over() -> None:
    def do(machine: Machine) -> Mapping[str, Sign]:
        ip(f"neigh add {HOST} lladdr 52:54:00:00:00:07 dev near")
        return look(Target(HOST, 22), 0.1)

    assert seen(with_a_machine(do)) == (DARK, DARK, UNCLEAR), "a MAC that was written down by hand is no sign"


def test_a_mac_that_is_only_remembered_is_no_sign_of_life() -> None:
    def do(machine: Machine) -> Mapping[str, Sign]:
        ip(f"neigh add {HOST} lladdr 52:54:00:00:00:07 dev near nud stale")
        return look(Target(HOST, 22), 0.1)

    assert seen(with_a_machine(do)) == (DARK, DARK, UNCLEAR)


def test_when_our_own_cable_is_out_silence_means_nothing() -> None:
    def do(machine: Machine) -> Mapping[str, Sign]:
        machine.do(lambda: ip("link set dev far down"))
        return look(Target(HOST, 22), 0.1)

    assert seen(with_a_machine(do, f"{HOST}/24")) == (UNCLEAR, UNCLEAR, UNCLEAR)


@pytest.mark.parametrize("address", [HOST, "fd00::7"])
def test_without_a_route_silence_means_nothing(address: str) -> None:
    assert seen(in_a_new_network(lambda: look(Target(address, 22)))) == (UNCLEAR, UNCLEAR, UNCLEAR)


def test_a_kernel_that_allows_no_echo_leaves_ping_unclear() -> None:
    def do(machine: Machine) -> Mapping[str, Sign]:
        setting("net.ipv4.ping_group_range", "1 0")
        return look(Target(HOST, 22))

    assert seen(with_a_machine(do, f"{HOST}/24")) == (ON, UNCLEAR, ON)


def test_a_machine_behind_a_router_has_no_arp_for_us() -> None:
    def do(machine: Machine) -> Mapping[str, Sign]:
        ip("route add 172.16.0.0/24 via 10.9.0.7")
        machine.do(lambda: ip("addr add 172.16.0.5/24 dev far"))
        return look(Target("172.16.0.5", 22))

    assert seen(with_a_machine(do, f"{HOST}/24")) == (ON, ON, UNCLEAR)


def test_a_router_that_says_there_is_no_such_machine_is_believed() -> None:
    def do(machine: Machine) -> Mapping[str, Sign]:
        ip("route add 172.16.0.0/24 via 10.9.0.7")
        machine.do(lambda: setting("net.ipv4.ip_forward", "1"))
        machine.do(lambda: ip("route add unreachable 172.16.0.0/24"))
        return look(Target("172.16.0.5", 22))

    assert seen(with_a_machine(do, f"{HOST}/24")) == (DARK, DARK, UNCLEAR)


def test_this_machine_itself_is_awake() -> None:
    def do() -> Mapping[str, Sign]:
        return look(Target("127.0.0.1", 1))

    assert seen(in_a_new_network(do)) == (ON, UNCLEAR, UNCLEAR)


class Back:
    """A power back-end that says one thing."""

    kind = "plug"
    can_cut = False

    def __init__(self, says: Power | Exception, *, has_meter: bool = True) -> None:
        self.has_meter = has_meter
        self.says = says
        self.over = threading.Event()
        self.over.set()

    def power(self) -> Power:
        self.over.wait(30)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def wake(self) -> None: ...

    def cut(self) -> None: ...


@pytest.mark.parametrize(
    ("says", "has_meter", "sign"),
    [
        ("on", True, ON),
        ("on", False, UNCLEAR),
        ("off", True, DARK),
        ("off", False, DARK),
        ("unclear", True, UNCLEAR),
        (PowerError("timeout", "it does not answer"), True, UNCLEAR),
        (ZeroDivisionError(), True, UNCLEAR),
    ],
)
def test_power_is_a_sign_of_life_only_where_watts_are_seen(
    says: Power | Exception, has_meter: bool, sign: Sign
) -> None:
    assert look(Target("127.0.0.1", 1, Back(says, has_meter=has_meter)))["power"] == sign


def test_without_a_back_end_power_is_unclear() -> None:
    assert look(Target("127.0.0.1", 1))["power"] == UNCLEAR


def test_a_back_end_that_hangs_costs_the_deadline_and_one_thread() -> None:
    back = Back("off")
    back.over.clear()
    views = Views({"gpu-box": Target("127.0.0.1", 1, back)})
    before = threading.active_count()
    try:
        for _ in range(3):
            assert views.signs("gpu-box", deadline_s=0.02)["power"] == UNCLEAR
        assert threading.active_count() == before + 1
    finally:
        back.over.set()


def test_a_name_is_remembered_for_when_nobody_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    views = Views({"gpu-box": Target("gpu-box.lan", 1)})
    answers: list[Any] = [
        [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))],
        socket.gaierror(-2),
    ]

    def getaddrinfo(*_: object, **__: object) -> object:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(looks.socket, "getaddrinfo", getaddrinfo)
    assert views.signs("gpu-box", deadline_s=PROMPT_S)["ssh"] == ON
    assert views.signs("gpu-box", deadline_s=PROMPT_S)["ssh"] == ON
    assert answers == []


def test_a_name_that_nobody_knows_leaves_everything_unclear(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object, **__: object) -> object:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(looks.socket, "getaddrinfo", getaddrinfo)
    assert seen(look(Target("gpu-box.lan", 22))) == (UNCLEAR, UNCLEAR, UNCLEAR)


def test_a_look_that_breaks_has_seen_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(looks.socket, "socket", broken)
    assert seen(look(Target("127.0.0.1", 22))) == (UNCLEAR, UNCLEAR, UNCLEAR)


@pytest.mark.parametrize(
    ("neighbour", "looked_s", "sign"),
    [
        (None, 5, UNCLEAR),
        (Neighbour(FAILED, 100), 0.5, DARK),
        (Neighbour(INCOMPLETE, 100), 0.5, UNCLEAR),
        (Neighbour(INCOMPLETE, 100), 1.0, DARK),
        (Neighbour(REACHABLE, 0.3), 0.5, ON),
        (Neighbour(REACHABLE, 20), 0.5, UNCLEAR),
        (Neighbour(0x04, 0.1), 0.5, UNCLEAR),  # stale
        (Neighbour(0x10, 0.1), 0.5, UNCLEAR),  # probe
        (Neighbour(0x80, 0.0), 0.5, UNCLEAR),  # permanent
    ],
)
def test_what_a_neighbour_is_a_sign_of(neighbour: Neighbour | None, looked_s: float, sign: Sign) -> None:
    assert neighbours.sign(neighbour, looked_s) == sign


def test_the_kernels_table_is_read_as_the_kernels_own_tool_reads_it() -> None:
    def read() -> tuple[int | None, int | None, str]:
        cable("near", "far", "10.9.0.1/24", "fd00::1/64")
        many = [f"neigh add 10.9.0.{n} lladdr 52:54:00:00:00:07 dev near nud stale" for n in range(20, 250)]
        ip(*many, "neigh add fd00::9 lladdr 52:54:00:00:00:09 dev near nud reachable")
        shown = subprocess.run(["ip", "-6", "neigh", "show"], capture_output=True, text=True, check=True)
        first, last = neighbours.neighbour("10.9.0.249"), neighbours.neighbour("fd00::9")
        return first and first.state, last and last.state, shown.stdout

    stale, reachable, shown = in_a_new_network(read)
    assert (stale, reachable) == (0x04, REACHABLE)
    assert "fd00::9" in shown and "REACHABLE" in shown


def test_a_card_that_says_its_mac_for_a_host_that_sleeps_is_no_sign_of_life() -> None:
    def do(machine: Machine) -> Mapping[str, Sign]:
        # All that the host itself would answer is lost; what remains is as a card's own ARP offload.
        machine.do(lambda: ip("route add blackhole 10.9.0.1 table local"))
        return look(Target(HOST, 22), 0.1)

    assert seen(with_a_machine(do, f"{HOST}/24")) == (DARK, DARK, UNCLEAR)
