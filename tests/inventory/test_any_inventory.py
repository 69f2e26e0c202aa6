# ruff: noqa: E501 - tables of values
"""Any inventory of cards, caps, cables and circuits: sound, or every mistake told where it can be mended.

The racks are made of plausible parts, so that most are wrong in a few places and some in none. What is
accepted is judged once more here, by rules written anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rack_texts import rack_text, write

from labctl.domain.problem import ExitCode, LabctlError
from labctl.inventory import Host, Rack, load_rack, profiles

A_SHARD = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=1000)

UUIDS = [f"GPU-{n * 8}-1111-1111-1111-111111111111" for n in "012"]
ENDS = ["board", "s0", "s1", "s2", "s3", UUIDS[0], "01:00.0"]
WIRED: list[list[str]] = [[], [], ["board", "s0", "s1", "s2"]]
MODELS = [row.name for row in profiles.ALL] + ["NVIDIA GeForce RTX 3090", "RTX 3900", "Voodoo 2", ""]
CAPS = [
    *["cap_w=200, cap_reason='circuit'", "cap_w=250, cap_reason='psu'", "cap_w=300, cap_reason='noise'"] * 2,
    *(f"cap_w={watts}, cap_reason='heat'" for watts in ("0", "-1", "1e9", "10**9", "'200'", "True", "float('nan')")),
    *("cap_w=50, cap_reason='heat'", "cap_w=600, cap_reason='heat'", "cap_w=200", "cap_reason='psu'"),
    "cap_w=200, cap_reason='because'",
]  # fmt: skip
ODD = {
    "gpu": [
        *("clocks_mhz=(300, 900)", "clocks_mhz=(900, 300)", "clocks_mhz=[300]", "pci='1:0'", "uuid='GPU-1'"),
        *("vendor='nvidia', tdp_w=300", "vendor='amd'", "tdp_w=-5", "cap=200"),
    ],
    "psu": ["spike_tolerance=2.0", "spike_tolerance=float('inf')", "circuit='c0'", "circuit='c9'", "efficiency=90"],
    "host": [
        *("nvidia=Nvidia(branch=590)", "nvidia=Nvidia(flavour='open')", "nvidia=Nvidia(branch=5)"),
        *("amd=Amd(rocm='10.0')", "amd=Amd(rocm=10)", "vendor_image=True", "vendor_image=1", "backend='cuda'"),
        *("backend='vulkan'", "backend='metal'", "unified_memory_gib=128", "unified_memory_gib=10**30"),
    ],
    "circuit": ["amps=32", "amps=float('nan')", "volts=-230", "continuous_share=80"],
}  # fmt: skip


def call(name: str, *fields: str) -> str:
    """Write a call; what would give a field twice is left out."""
    kept: dict[str, str] = {}
    for field in fields:
        names = re.findall(r"(\w+)=", re.sub(r"[\[(].*[\])]", "", field))
        if kept.keys().isdisjoint(names):
            kept |= dict.fromkeys(names, field)
    return f"{name}({', '.join(dict.fromkeys(kept.values()))})"


T = TypeVar("T")


@st.composite
def racks(draw: st.DrawFn) -> str:
    """A rack file with one or two hosts, each on lines of its own."""

    def pick(choices: Sequence[T]) -> T:
        return draw(st.sampled_from(choices))

    def seldom(choices: list[str], one_in: int = 6) -> list[str]:
        return [pick(choices)] if draw(st.integers(1, one_in)) == one_in else []

    def many(make: Callable[[int], str], most: int) -> str:
        return ", ".join(make(index) for index in range(draw(st.integers(0, most))))

    def card(index: int) -> str:
        fields = [f"model={pick(['RTX 3090', pick(MODELS)])!r}"]
        slot = pick([f"s{index}"] * 20 + ["s0", "board", "S 9"])
        fields += [f"slot={slot!r}", *seldom([f"uuid={uuid!r}" for uuid in UUIDS], 3)]
        fields += [*seldom([f"pci='0{n}:00.0'" for n in (1, 2)], 3), *seldom(CAPS, 3), *seldom(ODD["gpu"], 9)]
        return call("Gpu", *fields)

    def psu(index: int) -> str:
        feeds = pick([*WIRED, draw(st.lists(st.sampled_from(ENDS), max_size=4))])
        fields = [f"name='p{index}', watts=1600, feeds={feeds!r}", *seldom(ODD["psu"], 9)]
        return call("Psu", *fields)

    def host(index: int) -> str:
        fields = [
            f"name='n{index}', address='n{index}.lan'",
            f"gpus=[{many(card, 3)}]",
            f"psus=[{many(psu, 1)}]",
        ]
        return "    " + call("Host", *fields, *seldom(CAPS), *seldom(ODD["host"], 4))

    def circuit(index: int) -> str:
        fields = [
            f"name='c{index}'",
            *seldom([f"upstream='c{n}'" for n in range(4)], 2),
            *seldom(ODD["circuit"], 9),
        ]
        return "    " + call("Circuit", *fields)

    circuits = ",\n".join(circuit(index) for index in range(draw(st.integers(0, 3))))
    hosts = ",\n".join(host(index) for index in range(draw(st.integers(1, 2))))
    return rack_text(f"rack = Rack(name='r', circuits=[\n{circuits}], hosts=[\n{hosts}])")


def assert_sound(rack: Rack) -> None:
    """Check what the loader has accepted, field by field."""
    upstream = {circuit.name: circuit.upstream for circuit in rack.circuits}
    for name in upstream:
        at: str | None = name
        for _ in upstream:
            at = upstream[at] if at is not None else None
        assert at is None, "a chain is never longer than there are circuits"
    uuids = [gpu.uuid for host in rack.hosts for gpu in host.gpus if gpu.uuid]
    assert len(uuids) == len(set(uuids))
    for host in rack.hosts:
        assert_cards_are_sound(host)
        refs = {ref for gpu in host.gpus for ref in (gpu.slot, gpu.uuid, gpu.pci) if ref}
        for psu in host.psus:
            assert psu.circuit is None or psu.circuit in upstream
            assert set(psu.feeds) <= refs | {"board"}


def assert_cards_are_sound(host: Host) -> None:
    seen: dict[str, object] = {}
    for gpu in host.gpus:
        row = profiles.of(gpu)
        cap = profiles.cap_of(host, gpu)
        if cap is not None:
            assert row.cap_min_w is not None
            assert row.cap_max_w is not None
            assert row.cap_min_w <= cap.watts <= row.cap_max_w
        assert profiles.draw_w(host, gpu) == (cap.watts if cap else row.tdp_w) > 0
        if not (gpu.uuid or gpu.pci):
            assert seen.setdefault(row.name, (cap, gpu.clocks_mhz)) == (cap, gpu.clocks_mhz)


@pytest.mark.parametrize("shard", range(4))
@A_SHARD
@given(text=racks())
def test_any_inventory_is_sound_or_told_what_is_wrong_with_it(
    tmp_path_factory: pytest.TempPathFactory, shard: int, text: str
) -> None:
    path = write(tmp_path_factory.getbasetemp(), text, f"rack{shard}.py")
    try:
        assert_sound(load_rack(path).rack)
    except LabctlError as error:
        assert error.code is ExitCode.BAD_INPUT
        for problem in error.problems:
            assert problem.file == str(path)
            assert problem.line is not None
            assert problem.field
            assert problem.reason
            assert problem.hint, problem
            named = problem.host == f"n{problem.line - len(text[: text.index('hosts=[')].splitlines()) - 1}"
            assert named or not problem.field.startswith(("gpus", "psus", "cap_w"))
