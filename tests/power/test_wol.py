"""Magic packets leave from the right interface, to the right addresses, or by way of another host."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from netns import Ear, Frame, cable, in_a_new_network, ip

from labctl.adapters.power import wol
from labctl.adapters.power.wol import Way, WolSwitch, ways
from labctl.agent.magic import Network
from labctl.domain.failures import Failure, HostError
from labctl.inventory.wake import WakeOnLan
from labctl.ports import Said
from labctl.ports.power import PowerError

MAC = "52:54:00:12:34:56"
PAYLOAD = b"\xff" * 6 + bytes.fromhex("525400123456") * 16
ETH0, ETH1 = Network("eth0", "10.9.0.1", 24), Network("eth1", "192.168.7.4", 22)
BOTH = [ETH0, ETH1]
Secret = Callable[[str, str], Path]


def everybody(network: Network, *ports: int) -> Way:
    return Way(
        network, [(address, port) for port in ports for address in (network.broadcast, "255.255.255.255")]
    )


@pytest.mark.parametrize(
    ("fields", "known", "nearest", "expected"),
    [
        ({}, ["10.9.0.7"], "10.9.0.1", [everybody(ETH0, 9, 7)]),
        ({}, [], None, [everybody(ETH0, 9, 7), everybody(ETH1, 9, 7)]),
        ({}, ["8.8.8.8"], "10.9.0.1", [everybody(ETH0, 9, 7), everybody(ETH1, 9, 7)]),
        ({"interface": "eth1"}, ["10.9.0.7"], "10.9.0.1", [everybody(ETH1, 9, 7)]),
        ({"port": 40000}, ["10.9.0.7"], "10.9.0.1", [everybody(ETH0, 40000)]),
        ({"port": 7}, ["10.9.0.7"], "10.9.0.1", [everybody(ETH0, 7)]),
        ({"broadcast": "10.9.0.255"}, [], None, [Way(ETH0, [("10.9.0.255", 9), ("10.9.0.255", 7)])]),
        ({"broadcast": "172.16.0.255"}, [], None, [Way(None, [("172.16.0.255", 9), ("172.16.0.255", 7)])]),
        (
            {"broadcast": "172.16.0.255", "interface": "eth1", "port": 9999},
            [],
            None,
            [Way(ETH1, [("172.16.0.255", 9999)])],
        ),
        ({"broadcast": "255.255.255.255"}, ["10.9.0.7"], "10.9.0.1", [everybody(ETH0, 9, 7)]),
        (
            {"unicast": True},
            ["10.9.0.7", "fd00::7"],
            "10.9.0.1",
            [everybody(ETH0, 9, 7), Way(None, [("10.9.0.7", 9), ("10.9.0.7", 7)])],
        ),
    ],
)
def test_where_packets_go(
    fields: dict[str, Any], known: list[str], nearest: str | None, expected: list[Way]
) -> None:
    assert ways(WakeOnLan(mac=MAC, **fields), BOTH, known, nearest) == expected


def test_ipv6_has_no_broadcast() -> None:
    with pytest.raises(PowerError, match="IPv6 knows no broadcast"):
        ways(WakeOnLan(mac=MAC, broadcast="ff02::1"), BOTH, [], None)


def test_one_round_is_exactly_these_packets_out_of_the_interface_to_the_host(tmp_path: Path) -> None:
    def woken() -> tuple[list[Frame], list[Frame]]:
        cable("near", "far", "10.9.0.1/24")
        cable("else", "where", "10.8.0.1/24")
        with Ear("far") as far, Ear("where") as where:
            WolSwitch(WakeOnLan(mac=MAC), "10.9.0.7", tmp_path).wake()
            return far.heard(), where.heard()

    heard, elsewhere = in_a_new_network(woken)
    everyone = "ff:ff:ff:ff:ff:ff"
    assert heard == [
        Frame(everyone, "10.9.0.1", (address, port), PAYLOAD)
        for port in (9, 7)
        for address in ("10.9.0.255", "255.255.255.255")
    ]
    assert elsewhere == []


def test_a_host_behind_a_router_can_be_called_at_its_own_address(tmp_path: Path) -> None:
    def woken() -> list[Frame]:
        cable("near", "far", "10.9.0.1/24")
        ip("neigh add 10.9.0.254 lladdr 52:54:00:00:00:fe dev near", "route add default via 10.9.0.254")
        with Ear("far") as far:
            WolSwitch(WakeOnLan(mac=MAC, unicast=True), "192.168.44.7", tmp_path).wake()
            return [frame for frame in far.heard() if frame.to_mac == "52:54:00:00:00:fe"]

    assert in_a_new_network(woken) == [
        Frame("52:54:00:00:00:fe", "10.9.0.1", ("192.168.44.7", port), PAYLOAD) for port in (9, 7)
    ]


def test_the_secureon_password_comes_last_and_from_its_file(tmp_path: Path, secret: Secret) -> None:
    file = secret("secureon", "AA-BB-CC-DD-EE-FF\n")
    with listening() as door:
        port = door.getsockname()[1]
        spec = WakeOnLan(mac=MAC, secureon_file=file, broadcast="127.0.0.1", port=port)
        WolSwitch(spec, "127.0.0.1", tmp_path).wake()
        assert door.recv(2048) == PAYLOAD + bytes.fromhex("aabbccddeeff")


@contextlib.contextmanager
def listening() -> Any:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.settimeout(10)
        door.bind(("127.0.0.1", 0))
        yield door


def test_a_secureon_password_that_is_none_is_refused_and_not_shown(tmp_path: Path, secret: Secret) -> None:
    spec = WakeOnLan(mac=MAC, secureon_file=secret("secureon", "sesame"))
    with pytest.raises(PowerError, match="is no SecureOn password") as caught:
        WolSwitch(spec, "10.9.0.7", tmp_path).wake()
    assert (caught.value.code, "sesame" in str(caught.value)) == ("no-secret", False)


def test_an_interface_that_is_missing_or_down_is_named(tmp_path: Path) -> None:
    switch = WolSwitch(WakeOnLan(mac=MAC, interface="nope0"), "10.9.0.7", tmp_path)
    with pytest.raises(PowerError, match="the interface nope0 of this machine has no network") as caught:
        switch.wake()
    assert (caught.value.code, caught.value.transient) == ("no-route", True)


def test_a_machine_without_any_network_says_so(tmp_path: Path) -> None:
    def woken() -> None:
        WolSwitch(WakeOnLan(mac=MAC), "10.9.0.7", tmp_path).wake()

    with pytest.raises(PowerError, match="no packet could be sent: this machine is in no network"):
        in_a_new_network(woken)


def test_a_name_that_nobody_resolves_in_time_delays_no_packet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("10.9.0.7", 0))]
    over = wol.threading.Event()

    def slow(*_: object) -> object:
        over.wait(30)
        return answer

    monkeypatch.setattr(wol.socket, "getaddrinfo", slow)
    monkeypatch.setattr(wol, "RESOLVE_S", 0.001)

    def woken() -> tuple[int, int]:
        cable("near", "far", "10.9.0.1/24")
        cable("else", "where", "10.8.0.1/24")
        with Ear("far") as far, Ear("where") as where:
            WolSwitch(WakeOnLan(mac=MAC), "gpu-box.lan", tmp_path).wake()
            return len(far.heard()), len(where.heard())

    try:
        assert in_a_new_network(woken) == (4, 4), "it is called in all networks"
    finally:
        over.set()


def test_packets_cannot_see_or_cut(tmp_path: Path) -> None:
    switch = WolSwitch(WakeOnLan(mac=MAC), "10.9.0.7", tmp_path)
    assert (switch.can_cut, switch.has_meter, switch.power()) == (False, False, "unclear")
    with pytest.raises(PowerError, match="a magic packet cannot cut power"):
        switch.cut()


class RelayHost:
    """Another host's agent, as SSH lets us reach it."""

    def __init__(self, says: Said | HostError) -> None:
        self.says = says
        self.orders: list[tuple[Any, float]] = []

    def __call__(self, stdin: bytes, deadline_s: float) -> Said:
        assert stdin.endswith(b"\n")
        self.orders.append((json.loads(stdin), deadline_s))
        if isinstance(self.says, HostError):
            raise self.says
        return self.says


def relayed(relay: RelayHost, tmp_path: Path, port: int, notes: list[str], **fields: Any) -> None:
    spec = WakeOnLan(mac=MAC, relay="nas", broadcast="127.0.0.1", port=port, **fields)
    WolSwitch(spec, "127.0.0.1", tmp_path, relay=relay, relay_s=3, note=notes.append).wake()


def test_a_relay_sends_for_us_and_nothing_leaves_from_here(tmp_path: Path, secret: Secret) -> None:
    relay, notes = RelayHost(Said(0, b'{"sent": 2}\n', "")), list[str]()
    with listening() as door:
        port = door.getsockname()[1]
        relayed(relay, tmp_path, port, notes, secureon_file=secret("s", "aa:bb:cc:dd:ee:ff"))
        door.setblocking(False)
        with pytest.raises(BlockingIOError):
            door.recv(2048)
    order = {"mac": MAC, "broadcast": "127.0.0.1", "port": port, "secureon": "aa:bb:cc:dd:ee:ff"}
    assert (relay.orders, notes) == ([(order, 3)], [])


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (HostError(Failure("timeout", "it does not answer within 3 s")), "it does not answer within 3 s"),
        (Said(1, b'{"failed": "eth0: Network is down"}\n', ""), "eth0: Network is down"),
        (Said(126, b"", "labctl-agent: refused"), "its agent ends with 126"),
        (Said(0, b'{"sent": 0}', ""), "it sent none"),
        (Said(0, b"[" * 100000, ""), "its agent ends with 0"),
    ],
)
def test_if_the_relay_cannot_the_packet_leaves_from_here_and_that_is_said(
    says: Said | HostError, reason: str, tmp_path: Path
) -> None:
    notes: list[str] = []
    with listening() as door:
        relayed(RelayHost(says), tmp_path, door.getsockname()[1], notes)
        assert door.recv(2048) == PAYLOAD
    assert notes == [
        f"nas sent no packet ({reason}); it was sent from here, which wakes only hosts in our network"
    ]


def test_if_neither_can_both_reasons_are_said(tmp_path: Path) -> None:
    notes: list[str] = []
    relay = RelayHost(Said(1, b'{"failed": "eth0: Network is down"}', ""))
    with pytest.raises(PowerError, match=r"nas sent no packet \(eth0: Net.*\), and from here: the interf"):
        relayed(relay, tmp_path, 9, notes, interface="nope0")
    assert notes == []


def test_what_a_relay_is_asked_for_is_what_the_agent_takes(tmp_path: Path) -> None:
    from labctl.agent import relay as agent

    asked = RelayHost(Said(0, b'{"sent": 2}', ""))
    WolSwitch(WakeOnLan(mac=MAC, relay="nas"), "10.9.0.7", tmp_path, relay=asked).wake()
    assert agent.Request(asked.orders[0][0], BOTH).ports == (9, 7)


def test_no_process_is_started_for_a_packet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a process takes longer than the packet may")

    monkeypatch.setattr(subprocess, "Popen", refused)
    with listening() as door:
        spec = WakeOnLan(mac=MAC, broadcast="127.0.0.1", port=door.getsockname()[1])
        WolSwitch(spec, "127.0.0.1", tmp_path).wake()
        assert door.recv(2048) == PAYLOAD
