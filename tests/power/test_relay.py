"""The agent's verb `relay`: magic packets into this host's own networks, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netns import Ear, Frame, cable, in_a_new_network
from wakeonlan import create_magic_packet

from labctl.agent import magic, relay
from labctl.agent.magic import Network

MAC = "52:54:00:12:34:56"
NETWORKS = [Network("eth0", "10.9.0.1", 24), Network("eth1", "192.168.7.4", 22)]


def ways(**request: object) -> list[tuple[str, list[tuple[str, int]]]]:
    read = relay.Request({"mac": MAC, **request}, NETWORKS)
    return [(network.interface, targets) for network, targets in read.ways]


def ask(text: bytes) -> dict[str, object]:
    """Ask the verb as its standard input would."""
    reading, writing = os.pipe()
    try:
        os.write(writing, text)
        os.close(writing)
        return relay.answered(reading)
    finally:
        os.close(reading)


def test_a_packet_is_what_the_library_builds() -> None:
    assert magic.packet(MAC) == create_magic_packet(MAC)
    assert magic.packet(MAC, "00:11:22:33:44:55") == create_magic_packet(f"{MAC}/00:11:22:33:44:55")


def test_a_packet_goes_to_everybody_in_each_network_on_both_ports() -> None:
    assert ways() == [
        ("eth0", [("10.9.0.255", 9), ("255.255.255.255", 9), ("10.9.0.255", 7), ("255.255.255.255", 7)]),
        (
            "eth1",
            [("192.168.7.255", 9), ("255.255.255.255", 9), ("192.168.7.255", 7), ("255.255.255.255", 7)],
        ),
    ]


def test_a_port_of_ones_own_is_the_only_one() -> None:
    assert ways(interface="eth0", port=40000) == [
        ("eth0", [("10.9.0.255", 40000), ("255.255.255.255", 40000)])
    ]


def test_one_address_in_an_own_network_can_be_named() -> None:
    assert ways(broadcast="10.9.0.77") == [("eth0", [("10.9.0.77", 9), ("10.9.0.77", 7)])]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "must be an object of broadcast, interface, mac, port, secureon"),
        ({}, "must be an object"),
        ({"mac": MAC, "payload": "00"}, "must be an object"),
        ({"mac": None}, "mac: must be the MAC address of one network card"),
        ({"mac": "01:00:5e:00:00:01"}, "mac: must be the MAC address of one network card"),
        ({"mac": "00:00:00:00:00:00"}, "mac: must be the MAC address of one network card"),
        ({"mac": "52-54-00-12-34-56"}, "mac: must be six bytes"),
        ({"mac": MAC + "\n"}, "mac: must be six bytes"),
        ({"mac": MAC, "secureon": "secret"}, "secureon: must be six bytes"),
        ({"mac": MAC, "port": 0}, "port: must be a UDP port"),
        ({"mac": MAC, "port": True}, "port: must be a UDP port"),
        ({"mac": MAC, "port": "9"}, "port: must be a UDP port"),
        ({"mac": MAC, "interface": 0}, "interface: must be a name"),
        (
            {"mac": MAC, "interface": "lo"},
            "that interface has no network in which something can be broadcast",
        ),
        ({"mac": MAC, "broadcast": "8.8.8.8"}, "broadcast: is in none of this host's own networks"),
        ({"mac": MAC, "broadcast": "127.0.0.1"}, "broadcast: is in none of this host's own networks"),
        ({"mac": MAC, "broadcast": "224.0.0.1"}, "broadcast: is in none of this host's own networks"),
        ({"mac": MAC, "interface": "eth1", "broadcast": "10.9.0.255"}, "broadcast: is in none"),
        ({"mac": MAC, "broadcast": "nas.example"}, "broadcast: must be an IPv4 address"),
        ({"mac": MAC, "broadcast": 167837953}, "broadcast: must be an IPv4 address"),
        ({"mac": MAC, "broadcast": "fe80::1"}, "broadcast: must be an IPv4 address"),
    ],
)
def test_what_is_no_magic_packet_for_an_own_network_is_refused(document: object, words: str) -> None:
    with pytest.raises(relay.BadRequest, match=words):
        relay.Request(document, NETWORKS)


_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.ip_addresses().map(str)


@given(st.dictionaries(st.sampled_from(["mac", "broadcast", "port", "interface", "secureon", "x"]), _VALUES))
def test_whatever_is_asked_nothing_leaves_the_own_networks(document: dict[str, object]) -> None:
    document.setdefault("mac", MAC)
    try:
        request = relay.Request(document, NETWORKS)
    except relay.BadRequest:
        return
    for network, targets in request.ways:
        assert network in NETWORKS
        for address, port in targets:
            assert address == "255.255.255.255" or magic.ipaddress.ip_address(address) in network.whole
            assert 0 < port < 65536


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "it is no line of JSON"),
        (b"\xff\xfe\n", "it is no line of JSON"),
        (b"[" * 1000, "it is no line of JSON"),
        (b'{"mac": "' + b"5" * 2000 + b'"}\n', "it is longer than 1024 bytes"),
    ],
)
def test_a_line_that_is_no_request_is_refused_in_words(text: bytes, words: str) -> None:
    assert ask(text) == {"failed": f"the request is refused: {words}"}


def test_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "PATIENCE_S", 0.01)
    reading, writing = os.pipe()
    try:
        assert relay.answered(reading) == {"failed": "the request is refused: it did not come"}
    finally:
        os.close(reading)
        os.close(writing)


def test_all_of_a_hosts_addresses_are_found_and_loopback_is_none() -> None:
    def look() -> list[Network]:
        cable("near", "far", "10.9.0.1/24", "10.9.4.1/22", "10.9.8.1/32", "10.9.9.0/31")
        cable("dark", "other", "10.8.0.1/24")
        subprocess.run(["ip", "link", "set", "dev", "dark", "down"], check=True)
        return magic.networks()

    assert in_a_new_network(look) == [Network("near", "10.9.0.1", 24), Network("near", "10.9.4.1", 22)]


def test_what_leaves_a_card_is_exactly_the_packet_as_a_broadcast() -> None:
    def relayed() -> tuple[dict[str, object], list[Frame], list[Frame]]:
        cable("near", "far", "10.9.0.1/24")
        cable("else", "where", "10.8.0.1/24")
        with Ear("far") as far, Ear("where") as where:
            line = json.dumps({"mac": MAC, "interface": "near", "secureon": "aa:bb:cc:dd:ee:ff"})
            return ask(line.encode() + b"\n"), far.heard(), where.heard()

    answer, heard, elsewhere = in_a_new_network(relayed)
    assert answer == {"sent": 4}
    assert elsewhere == []
    payload = b"\xff" * 6 + bytes.fromhex("525400123456") * 16 + bytes.fromhex("aabbccddeeff")
    assert heard == [
        Frame("ff:ff:ff:ff:ff:ff", "10.9.0.1", (address, port), payload)
        for port in (9, 7)
        for address in ("10.9.0.255", "255.255.255.255")
    ]


def test_without_the_right_to_bind_to_a_device_the_source_address_picks_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As on kernels before 5.7, for users other than root.
    real = magic.socket.socket.setsockopt

    def setsockopt(self: magic.socket.socket, level: int, option: int, *value: object) -> None:
        if option == magic.socket.SO_BINDTODEVICE:
            raise PermissionError(1, "Operation not permitted")
        real(self, level, option, *value)  # type: ignore[call-overload]

    monkeypatch.setattr(magic.socket.socket, "setsockopt", setsockopt)

    def sent() -> tuple[int, int]:
        cable("else", "where", "10.8.0.1/24")
        cable("near", "far", "10.9.0.1/24")
        subprocess.run(["ip", "route", "add", "default", "dev", "else"], check=True)
        with Ear("far") as far, Ear("where") as where:
            magic.send(b"x" * 60, [(magic.EVERYWHERE, 9)], out_of=Network("near", "10.9.0.1", 24))
            return len(far.heard()), len(where.heard())

    assert in_a_new_network(sent) == (1, 0)


def test_a_host_that_cannot_send_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(magic, "networks", lambda: [Network("unplugged0", "10.9.0.1", 24)])
    answer = ask(json.dumps({"mac": MAC}).encode())
    assert answer == {"failed": "unplugged0: No such device"}


def test_the_controllers_key_may_ask_for_it(agent_pyz: Path, tmp_path: Path) -> None:
    environment = {"SSH_ORIGINAL_COMMAND": "relay", "PATH": os.environ["PATH"]}
    end = subprocess.run(
        [sys.executable, "-IS", agent_pyz, "--forced"],
        env=environment,
        input=b'{"mac": "no"}\n',
        capture_output=True,
    )
    assert (end.returncode, end.stderr) == (1, b"")
    assert json.loads(end.stdout) == {
        "failed": "the request is refused: mac: must be six bytes such as 52:54:00:12:34:56"
    }
