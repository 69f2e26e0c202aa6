# ruff: noqa: E501 - one case a line reads best
"""Checks across the rack: parts that are valid alone and do not agree, each told where it can be mended."""

from __future__ import annotations

from pathlib import Path

import pytest
from rack_texts import loaded, problems, rack_text, write

# A rack that agrees with itself; each case below puts one line in or changes one word.
SOUND = """\
rack = Rack(name="r",
    circuits=[Circuit(name="office", upstream="house"), Circuit(name="cellar"), Circuit(name="house")],
    models=[
        Model(id="m1", source="file:///srv/m1", path="/m/1", aliases=["small"]),
        Model(id="m2", source="file:///srv/m2", path="/m/2"),
    ],
    hosts=[
        Host(name="a", address="10.0.0.1",
            gpus=[Gpu(model="RTX 3090", slot="s0"), Gpu(model="RTX 3090", slot="s1", uuid="GPU-11111111-1111-1111-1111-111111111111")],
            psus=[Psu(name="p0", watts=500, circuit="office", feeds=["board", "s0"]),
                  Psu(name="p1", watts=500, circuit="cellar", feeds=["s1"])],
            services=[LlamaServer(name="chat", model="small", port=8080, gpus=["s0"]),
                      Command(name="web", argv=["/bin/true"], port=8081)],
            wake=WakeOnLan(mac="52:54:00:00:00:01", relay="c")),
        Host(name="b", address="10.0.0.2", depends_on=["a"],
            wake=WakeOnLan(mac="52:54:00:00:00:02"), idle=IdlePolicy(suspend=True)),
        Host(name="c", address="10.0.0.3", roles=["always-on"]),
    ])
"""

CASES = [
    ("two hosts of one name", 'name="b"', 'name="a"', 19, "a", "name", "taken already"),
    ("two hosts at one address", '"10.0.0.2"', '"10.0.0.1"', 19, "b", "address", "taken already by host a"),
    ("two cards with one MAC", "00:00:02", "00:00:01", 20, "b", "wake.mac", "taken already by host a"),
    ("one MAC in another spelling", "52:54:00:00:00:02", "5254.0000.0001", 20, "b", "wake.mac", "taken already"),
    ("two power supplies of one name", 'name="p1"', 'name="p0"', 15, "a", "psus[1].name", "taken already"),
    ("two cards in one slot", 'slot="s1"', 'slot="s0"', 13, "a", "gpus[1].slot", "taken already"),
    ("two services of one name", 'name="web"', 'name="chat"', 17, "a", "services[1].name", "taken already"),
    ("two services on one port", "port=8081", "port=8080", 17, "a", "services[1].port", "by service chat"),
    ("a service on sshd's port", "port=8081", "port=22", 17, "a", "services[1].port", "by sshd"),
    ("two models of one id", 'id="m2"', 'id="m1"', 9, "", "models[1].id", "taken already"),
    ("an alias that is a model", '"small"]', '"m2"]', 8, "", "models[0].aliases[0]", "taken already by model m2"),
    ("two models in one file", '"/m/2"', '"/m/1"', 9, "", "models[1].path", "taken already by model m1"),
    ("an unknown circuit", 'circuit="office"', 'circuit="ofice"', 14, "a", "psus[0].circuit", "no circuit called 'ofice'"),
    ("a cable to no card", '"board", "s0"', '"board", "s0", "s7"', 14, "a", "psus[0].feeds[2]", "no card of this host called 's7'"),
    ("a card without power", 'feeds=["s1"]', "feeds=[]", 13, "a", "gpus[1]", "no power supply feeds s1"),
    ("a board without power", '"board", "s0"', '"s0"', 14, "a", "psus", "no power supply feeds the board"),
    ("an unknown card", 'model="RTX 3090", slot="s1"', 'model="RTX 3099", slot="s1"', 13, "a", "gpus[1].model", "knows no card called 'RTX 3099'"),
    ("a card of which half is said", 'model="RTX 3090", slot="s1"', 'model="Voodoo 2", vendor="nvidia", slot="s1"', 13, "a", "gpus[1].model", "knows no card called 'Voodoo 2'"),
    ("a card by another vendor", 'model="RTX 3090", slot="s1"', 'model="RTX 3090", vendor="amd", slot="s1"', 13, "a", "gpus[1].vendor", "RTX 3090 is a card by nvidia"),
    ("two cards at one bus address", 'slot="s0"), Gpu(model="RTX 3090"', 'slot="s0", pci="0000:3B:00.0"), Gpu(model="RTX 3090", pci="3b:00.0"', 13, "a", "gpus[1].pci", "taken already"),
    ("a card that is called board", 'slot="s1"', 'slot="board"', 13, "a", "gpus[1].slot", "means the mainboard"),
    ("a cap below the card's range", 'slot="s1"', 'slot="s1", cap_w=50, cap_reason="noise"', 13, "a", "gpus[1].cap_w", "RTX 3090 takes a cap of 100 to"),
    ("a cap above the card's range", 'slot="s1"', 'slot="s1", cap_w=900, cap_reason="noise"', 13, "a", "gpus[1].cap_w", "not 900 W"),
    ("a host's cap below the cards' range", 'address="10.0.0.1",', 'address="10.0.0.1", cap_w=50, cap_reason="heat",', 12, "a", "cap_w", "RTX 3090 takes a cap of 100 to"),
    ("a cap of nothing", 'address="10.0.0.2",', 'address="10.0.0.2", cap_w=50, cap_reason="heat",', 19, "b", "cap_w", "caps nothing: this host has no cards"),
    ("a cable to a bus address that no card has", '"board", "s0"', '"board", "s0", "0000:ff:00.0"', 14, "a", "psus[0].feeds[2]", "no card of this host called '0000:ff:00.0'"),
    ("a cable to a uuid that no card has", '"board", "s0"', '"board", "s0", "GPU-22222222-1111-1111-1111-111111111111"', 14, "a", "psus[0].feeds[2]", "no card of this host called 'GPU-2222"),
    ("two cables to one card", 'feeds=["s1"]', 'feeds=["s1", "GPU-11111111-1111-1111-1111-111111111111"]', 15, "a", "psus[1].feeds[1]", "fed by this power supply already as 's1'"),
    ("a circuit behind none", 'upstream="house"', 'upstream="hous"', 6, "", "circuits[0].upstream", "no circuit called 'hous'"),
    ("a circuit behind itself", 'upstream="house"', 'upstream="office"', 6, "", "circuits[0].upstream", "cannot feed itself"),
    ("two circuits behind each other", 'Circuit(name="house")', 'Circuit(name="house", upstream="office")', 6, "", "circuits[0].upstream", "house feeds office, office feeds house"),
    ("driver settings without cards", 'address="10.0.0.2",', 'address="10.0.0.2", nvidia=Nvidia(branch=580),', 19, "b", "nvidia", "this host has no NVIDIA card"),
    ("AMD's settings for NVIDIA's cards", 'address="10.0.0.1",', 'address="10.0.0.1", amd=Amd(rocm="10.0"),', 12, "a", "amd", "this host has no AMD card"),
    ("a backend of another vendor's cards", 'address="10.0.0.1",', 'address="10.0.0.1", backend="rocm",', 12, "a", "backend", "no card of this host computes with rocm"),
    ("a backend without cards", 'address="10.0.0.2",', 'address="10.0.0.2", backend="vulkan",', 19, "b", "backend", "this host has no cards"),
    ("an unknown model", 'model="small"', 'model="smal"', 16, "a", "services[0].model", "no model called 'smal'"),
    ("an unknown card of a service", 'gpus=["s0"]', 'gpus=["s9"]', 16, "a", "services[0].gpus[0]", "no card of this host called 's9'"),
    ("a dependency on nobody", 'depends_on=["a"]', 'depends_on=["x"]', 19, "b", "depends_on[0]", "no host called 'x'"),
    ("a dependency on itself", 'depends_on=["a"]', 'depends_on=["b"]', 19, "b", "depends_on[0]", "cannot depend on itself"),
    ("an unknown relay", 'relay="c"', 'relay="d"', 18, "a", "wake.relay", "no host called 'd'"),
    ("a host that wakes itself", 'relay="c"', 'relay="a"', 18, "a", "wake.relay", "cannot wake itself"),
    ("a relay that needs the host", 'relay="c"', 'relay="b"', 18, "a", "wake.relay", "a needs b (wake.relay), b needs a (depends_on)"),
    ("sleep on an always-on host", 'roles=["always-on"]', 'roles=["always-on"], wake=WakeOnLan(mac="52:54:00:00:00:03"), idle=IdlePolicy(suspend=True)', 21, "c", "idle.suspend", "always-on may not sleep"),
    ("sleep without a way to wake", 'wake=WakeOnLan(mac="52:54:00:00:00:02"), ', "", 20, "b", "idle.suspend", "nothing could wake"),
    ("a service behind a closed firewall", "port=8081", 'port=8081, listen="0.0.0.0"', 17, "a", "services[1].port", "keeps port 8081 closed"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "line", "host", "field", "reason"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_parts_that_do_not_agree_are_told(
    old: str, new: str, line: int, host: str, field: str, reason: str, tmp_path: Path
) -> None:
    assert SOUND.count(old) == 1
    found = problems(write(tmp_path, rack_text(SOUND.replace(old, new))))
    # What follows from it (nobody feeds a card that lost its slot) may be told too.
    told = {(p.line, p.host, p.field): p.reason for p in found}
    assert reason in told.get((line, host, field), ""), found
    assert len(found) <= 2


def test_a_rack_that_agrees_with_itself_has_no_problem(tmp_path: Path) -> None:
    assert loaded(tmp_path, SOUND).rack.model("small").id == "m1"


def test_every_disagreement_is_told_at_once(tmp_path: Path) -> None:
    body = SOUND
    for _, old, new, *_ in CASES[:3]:
        body = body.replace(old, new)
    fields = {problem.field for problem in problems(write(tmp_path, rack_text(body)))}
    assert fields == {"name", "address", "wake.mac", "depends_on[0]"}


def test_a_circle_of_dependencies_is_named_in_full_and_once(tmp_path: Path) -> None:
    body = """\
rack = Rack(name="r", hosts=[
    Host(name="x", address="10.0.0.9", depends_on=["a"]),
    Host(name="a", address="10.0.0.1", depends_on=["b"]),
    Host(name="b", address="10.0.0.2", depends_on=["c"]),
    Host(name="c", address="10.0.0.3", depends_on=["a"]),
])
"""
    (found,) = problems(write(tmp_path, rack_text(body)))
    assert "a needs b (depends_on), b needs c (depends_on), c needs a (depends_on)" in found.reason
    assert (found.line, found.host) == (7, "a")


def test_a_long_chain_of_dependencies_is_no_circle(tmp_path: Path) -> None:
    body = """\
rack = Rack(name="r", hosts=[
    Host(name=f"n{i}", address=f"n{i}.lan", depends_on=[f"n{j}" for j in range(i + 1, min(i + 3, 1500))])
    for i in range(1500)])
"""
    assert problems(write(tmp_path, rack_text(body))) == []


def test_a_relay_that_is_always_on_closes_no_circle(tmp_path: Path) -> None:
    body = SOUND.replace('roles=["always-on"]', 'roles=["always-on"], depends_on=["a"]')
    assert problems(write(tmp_path, rack_text(body))) == []


def test_one_power_supply_without_a_list_feeds_everything(tmp_path: Path) -> None:
    body = """\
rack = Rack(name="r", hosts=[
    Host(name="a", address="10.0.0.1", gpus=[Gpu(model="RTX 3090", slot="s0")], psus=[Psu(name="p", watts=500)]),
])
"""
    assert problems(write(tmp_path, rack_text(body))) == []


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "0.0.0.0", True),
        ("::", "127.0.0.1", True),
        ("::1", "127.0.0.1", False),
    ],
)
def test_a_port_is_taken_only_where_the_addresses_overlap(
    first: str, second: str, *, clash: bool, tmp_path: Path
) -> None:
    services = [
        f'Command(name="s{n}", argv=["/b"], port=80, listen="{ip}")' for n, ip in enumerate((first, second))
    ]
    body = f'rack = Rack(name="r", hosts=[Host(name="a", address="x", open_ports=[80], services=[{",".join(services)}])])'
    assert bool(problems(write(tmp_path, rack_text(body)))) is clash


def test_the_same_address_with_another_port_is_another_host(tmp_path: Path) -> None:
    body = """\
rack = Rack(name="r", hosts=[
    Host(name="a", address="gate.lan"), Host(name="b", address="gate.lan", ssh=Ssh(port=2222)),
])
"""
    found = loaded(tmp_path, body)
    assert [found.host_data[name]["ssh_port"] for name in "ab"] == [22, 2222]


def test_a_circle_of_circuits_is_named_in_full_and_once(tmp_path: Path) -> None:
    body = """\
rack = Rack(name="r", hosts=[], circuits=[
    Circuit(name="strip", upstream="ups"), Circuit(name="other", upstream="ups"),
    Circuit(name="ups", upstream="wall"),
    Circuit(name="wall", upstream="ups"),
])
"""
    (found,) = problems(write(tmp_path, rack_text(body)))
    assert found.reason == "these circuits feed each other: wall feeds ups, ups feeds wall"
    assert (found.line, found.field) == (7, "circuits[2].upstream")


def test_a_long_chain_of_circuits_is_no_circle(tmp_path: Path) -> None:
    body = """\
rack = Rack(name="r", hosts=[], circuits=[
    Circuit(name=f"c{i}", upstream=f"c{i + 1}" if i < 999 else None) for i in range(1000)])
"""
    assert problems(write(tmp_path, rack_text(body))) == []


def test_among_many_names_the_hint_does_not_claim_that_there_are_none(tmp_path: Path) -> None:
    body = """\
rack = Rack(name="r", hosts=[Host(name="a", address="x", psus=[Psu(name="p", watts=500, circuit="zzz")])],
    circuits=[Circuit(name=f"c{i}") for i in range(100)])
"""
    (found,) = problems(write(tmp_path, rack_text(body)))
    assert (found.field, found.hint) == ("psus[0].circuit", "")
