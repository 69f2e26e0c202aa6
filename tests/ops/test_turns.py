"""Turns at rebooting: one host at a time on each circuit, and nobody behind one that stayed away."""

from __future__ import annotations

import gevent

from labctl.inventory import Circuit, Host, Psu, Rack
from labctl.ops.turns import UNKNOWN, Turns, circuits_of


def rack_of(*hosts: Host) -> Rack:
    circuits = [
        Circuit(name="house"),
        Circuit(name="strip", upstream="house"),
        Circuit(name="garage"),
    ]
    return Rack(name="r", hosts=list(hosts), circuits=circuits)


def on(name: str, *circuits: str) -> Host:
    psus = [Psu(name=f"p{index}", watts=500, circuit=circuit) for index, circuit in enumerate(circuits)]
    return Host(name=name, address="10.0.0.1", psus=psus)


def test_a_host_hangs_on_its_circuits_and_on_those_that_feed_them() -> None:
    host = on("a", "strip", "garage")
    assert circuits_of(rack_of(host), host) == ("garage", "house", "strip")


def test_hosts_without_a_circuit_share_one() -> None:
    host = on("a")
    assert circuits_of(rack_of(host), host) == (UNKNOWN,)


def walk(wanted: list[tuple[str, ...]]) -> tuple[list[int], int]:
    """Let a greenlet for each entry take its turn; return the order of ends and the most at one time."""
    turns, ends, inside, most = Turns(), [], 0, 0

    def reboot(index: int) -> None:
        nonlocal inside, most
        with turns.turn(wanted[index]):
            inside += 1
            most = max(most, inside)
            gevent.sleep(0.01)
            inside -= 1
            ends.append(index)

    gevent.joinall([gevent.spawn(reboot, index) for index in range(len(wanted))], timeout=5, raise_error=True)
    return ends, most


def test_hosts_on_one_circuit_take_turns() -> None:
    ends, most = walk([("house",)] * 4)
    assert sorted(ends) == [0, 1, 2, 3] and most == 1


def test_hosts_on_different_circuits_do_not_wait_for_each_other() -> None:
    _, most = walk([("house",), ("garage",)])
    assert most == 2


def test_hosts_on_several_circuits_never_wait_in_a_circle() -> None:
    ends, _ = walk([("a", "b"), ("b", "a"), ("b", "c"), ("c", "a")])
    assert sorted(ends) == [0, 1, 2, 3]


def test_nobody_reboots_behind_a_host_that_stayed_away() -> None:
    turns = Turns()
    turns.stayed_away("rig", ("house", "strip"))
    with turns.turn(("strip",)) as away:
        assert away == "rig"
    with turns.turn(("garage",)) as away:
        assert away == ""
