"""Which back-end a host of the inventory gets, and what it is told."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from devices import Shelly1, serving

from labctl import inventory, wiring
from labctl.adapters import power
from labctl.adapters.power import outlet
from labctl.domain.failures import Failure, HostError
from labctl.domain.sleep.terms import Sign
from labctl.inventory import LoadedRack
from labctl.inventory.hosts import Host
from labctl.inventory.idle import IdlePolicy
from labctl.inventory.rack import Rack
from labctl.inventory.wake import (
    Ipmi,
    NoWake,
    Redfish,
    SmartPlug,
    WakeCommand,
    WakeOnLan,
    Webhook,
)
from labctl.ports import Said
from labctl.ports.power import PowerError

MAC = "52:54:00:12:34:56"
FILE = Path("keys/bmc")
WOL = WakeOnLan(mac=MAC)
IPMI = Ipmi(address="10.0.0.9", user="ops", password_file=FILE)
PLUG = SmartPlug(driver="shelly", address="127.0.0.1")
ALL = [
    (NoWake(), "none", False),
    (WOL, "wol", False),
    (IPMI, "ipmi", True),
    (Redfish(address="10.0.0.9", user="ops", password_file=FILE), "redfish", True),
    (PLUG, "plug", False),
    (SmartPlug(driver="tasmota", address="10.0.0.9", may_cut=True), "plug", True),
    (Webhook(on_file=FILE), "webhook", False),
    (WakeCommand(argv=("true",), off_argv=("true",)), "command", True),
]


def loaded(folder: Path, **fields: Any) -> LoadedRack:
    nas = Host(name="nas", address="127.0.0.1")
    box = Host(name="gpu-box", address="127.0.0.1", **fields)
    rack = Rack(name="lab", hosts=(nas, box))
    data = {host.name: rack.host_data(host, folder) for host in rack.hosts}
    return LoadedRack(rack, folder / "rack.py", {}, data)


@pytest.mark.parametrize(("wake", "kind", "can_cut"), ALL)
def test_each_kind_of_the_inventory_has_a_back_end(
    wake: Any, kind: str, can_cut: bool, tmp_path: Path
) -> None:
    switch = wiring.switch_for(loaded(tmp_path, wake=wake), "gpu-box")
    assert (switch.kind, switch.can_cut) == (kind, can_cut)


@pytest.mark.parametrize(
    ("wake", "power", "kind"),
    [
        (WOL, None, None),
        (NoWake(), None, None),
        (WOL, IPMI, "ipmi"),
        (IPMI, None, "ipmi"),
        (IPMI, PLUG, "plug"),
    ],
)
def test_power_is_seen_by_what_is_for_that_or_else_by_what_wakes(
    wake: Any, power: Any, kind: str | None, tmp_path: Path
) -> None:
    switch = wiring.power_of(loaded(tmp_path, wake=wake, power=power), "gpu-box")
    assert (None if switch is None else switch.kind) == kind


def test_what_only_powers_a_host_never_cuts_it_to_start_it(tmp_path: Path) -> None:
    with serving(Shelly1(on=True, watts=1.0)) as served:
        plug = SmartPlug(driver="shelly", address="127.0.0.1", port=served.port, may_cut=True)
        switch = wiring.power_of(
            loaded(tmp_path, wake=WOL, power=plug, idle=IdlePolicy(how="power-off")), "gpu-box"
        )
        assert switch is not None and switch.can_cut
        switch.wake()
        assert not any("turn=off" in target for _, target in served.seen()), "a packet may be starting it"


@pytest.mark.parametrize(("how", "restarted"), [("power-off", True), ("hibernate", True), ("suspend", False)])
def test_only_a_host_with_nothing_in_its_memory_is_restarted_by_its_plug(
    how: Any, restarted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlet, "Habits", partial(outlet.Habits, off_s=0))
    with serving(Shelly1(on=True, watts=1.0)) as served:
        plug = SmartPlug(driver="shelly", address="127.0.0.1", port=served.port, may_cut=True)
        rack = loaded(tmp_path, wake=plug, idle=IdlePolicy(how=how))
        wiring.switch_for(rack, "gpu-box").wake()
        assert any("turn=off" in target for _, target in served.seen()) == restarted


def test_a_relay_is_asked_over_ssh_as_the_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class Ssh:
        def run(self, host: str, data: Mapping[str, Any], argv: Sequence[str], **how: Any) -> Said:
            calls.append((host, data["ssh_hostname"], tuple(argv), how["root"], how["deadline_s"]))
            return Said(0, b'{"sent": 4}', "")

    monkeypatch.setattr(wiring, "remote", Ssh)
    rack = loaded(tmp_path, wake=WakeOnLan(mac=MAC, relay="nas"))
    wiring.switch_for(rack, "gpu-box").wake()
    assert calls == [("nas", "127.0.0.1", ("/usr/local/lib/labctl/agent.pyz", "relay"), False, 8.0)]


def test_a_relay_can_be_asked_in_a_way_of_ones_own_and_what_fails_is_noted(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []
    notes: list[str] = []

    def ask(host: str, verb: str, stdin: bytes, deadline_s: float) -> Said:
        asked.append((host, verb))
        raise HostError(Failure("timeout", "it sleeps", unreachable=True))

    rack = loaded(tmp_path, wake=WakeOnLan(mac=MAC, relay="nas", broadcast="127.0.0.1", port=40000))
    wiring.switch_for(rack, "gpu-box", ask=ask, note=notes.append).wake()
    assert asked == [("nas", "relay")]
    assert notes == [
        "nas sent no packet (it sleeps); it was sent from here, which wakes only hosts in our network"
    ]


def test_looks_go_to_the_hosts_of_the_rack_with_their_power(tmp_path: Path) -> None:
    with serving(Shelly1(on=False)) as served:
        plug = SmartPlug(driver="shelly", address="127.0.0.1", port=served.port)
        signs = wiring.looks(loaded(tmp_path, power=plug)).signs("gpu-box", deadline_s=10)
    assert set(signs) == {"ssh", "ping", "arp", "power"}
    assert (signs["ssh"], signs["power"]) == (Sign.ON, Sign.DARK)


def test_waking_by_packet_loads_neither_the_web_nor_ssh(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from labctl.adapters.power import Surroundings, switch_for\n"
        "from labctl.inventory.wake import WakeOnLan\n"
        "from pathlib import Path\n"
        f"switch_for(WakeOnLan(mac='{MAC}'), Surroundings(Path(), '127.0.0.1'))\n"
        "print({'httpx', 'paramiko', 'httpcore'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"


def test_an_error_of_every_kind_says_what_to_do(tmp_path: Path) -> None:
    # Nothing is there: no file, no program, no server. Each still ends in a code and a hint.
    for wake, kind, _ in ALL:
        if kind in ("wol", "command"):
            continue
        with pytest.raises(PowerError) as caught:
            wiring.switch_for(loaded(tmp_path, wake=wake), "gpu-box").wake()
        assert caught.value.code in {"unsupported", "no-secret", "refused", "no-route", "timeout"}, kind
        assert caught.value.hint, kind


def test_the_examples_of_the_page_are_what_the_inventory_takes() -> None:
    page = Path(__file__).resolve().parent.parent.parent / "docs" / "power.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    lines = [line for block in blocks for line in ast.parse(block).body]
    made = [eval(compile(ast.Expression(line.value), "page", "eval"), vars(inventory)) for line in lines]
    assert {type(one).__name__ for one in made} >= {
        *("Host", "WakeOnLan", "Ipmi", "Redfish", "SmartPlug", "Webhook", "WakeCommand")
    }


def test_every_error_has_a_code_that_the_port_names_and_a_hint() -> None:
    words = inspect.getdoc(PowerError) or ""
    named = set(re.sub(r"\s", "", words.partition("(")[2].partition(")")[0]).split(","))
    wrong = []
    for path in Path(power.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "PowerError"
            ):
                code = node.args[0]
                if isinstance(code, ast.Constant) and code.value not in named:
                    wrong.append(f"{path.name}:{node.lineno}: {code.value}")
                if len(node.args) < 3:
                    wrong.append(f"{path.name}:{node.lineno}: no hint")
    assert wrong == []
