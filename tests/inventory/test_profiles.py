"""The table of cards: every name that people and drivers use leads to one complete row."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from labctl.domain.drivers import architecture
from labctl.domain.gpus import Cap, GpuProfile
from labctl.inventory import Gpu, Host, profiles

NAMES = [
    ("RTX 3090", "RTX 3090"),
    ("rtx3090", "RTX 3090"),
    ("  GeForce  RTX 3090 ", "RTX 3090"),
    ("NVIDIA GeForce RTX 3090", "RTX 3090"),
    ("NVIDIA GeForce RTX 3090 Ti", "RTX 3090 Ti"),
    ("NVIDIA GeForce RTX 4060 Ti", "RTX 4060 Ti"),
    ("RTX 4060 Ti 16 GB", "RTX 4060 Ti 16GB"),
    ("NVIDIA GeForce RTX 4070 Ti SUPER", "RTX 4070 Ti Super"),
    ("NVIDIA GeForce RTX 4090", "RTX 4090"),
    ("NVIDIA GeForce RTX 5090", "RTX 5090"),
    ("NVIDIA RTX A6000", "RTX A6000"),
    ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
    ("RTX PRO 6000 Blackwell", "RTX PRO 6000 Blackwell"),
    ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000 Blackwell"),
    ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 Blackwell Max-Q"),
    ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000 Blackwell Server"),
    ("NVIDIA RTX PRO 4000 Blackwell", "RTX PRO 4000 Blackwell"),
    ("NVIDIA RTX PRO 4000 Blackwell SFF Edition", "RTX PRO 4000 Blackwell SFF"),
    ("NVIDIA L4", "L4"),
    ("NVIDIA L40S", "L40S"),
    ("A100", "A100"),
    ("NVIDIA A100-PCIE-40GB", "A100 PCIe 40GB"),
    ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
    ("NVIDIA A100-SXM4-40GB", "A100 SXM4 40GB"),
    ("NVIDIA A100-SXM4-80GB", "A100 SXM4 80GB"),
    ("NVIDIA H100 PCIe", "H100 PCIe"),
    ("NVIDIA H100 80GB HBM3", "H100 SXM5"),
    ("NVIDIA H100 NVL", "H100 NVL"),
    ("NVIDIA H200", "H200"),
    ("NVIDIA H200 NVL", "H200 NVL"),
    ("Tesla P40", "P40"),
    ("Tesla P100-PCIE-16GB", "P100"),
    ("Tesla T4", "T4"),
    ("Tesla V100-PCIE-16GB", "V100 PCIe"),
    ("Tesla V100-SXM2-32GB", "V100 SXM2"),
    ("NVIDIA TITAN V", "Titan V"),
    ("NVIDIA GB10", "GB10"),
    ("DGX Spark", "GB10"),
    ("Radeon RX 7900 XTX", "RX 7900 XTX"),
    ("AMD Radeon RX 7900 XT", "RX 7900 XT"),
    ("AMD Radeon PRO W7900", "W7900"),
    ("Radeon RX 9070 XT", "RX 9070 XT"),
    ("AMD Radeon AI PRO R9700", "R9700"),
    ("AMD Instinct MI300X", "MI300X"),
    ("Radeon 8060S", "Strix Halo"),
    ("AMD Radeon 8060S Graphics", "Strix Halo"),
    ("AMD Radeon Graphics", "Strix Halo"),
    ("1002:1586", "Strix Halo"),
    ("Ryzen AI Max+ 395", "Strix Halo"),
    ("AMD Ryzen AI Max+ PRO 395", "Strix Halo"),
    ("Radeon 890M", "Strix Point"),
    ("Intel Arc B580 Graphics", "Arc B580"),
    ("Apple M4 Max", "Apple M4 Max"),
    ("M2 Ultra", "Apple M2 Ultra"),
    ("Huawei Atlas 300I Duo", "Atlas 300I Duo"),
]
# What a driver calls by one name: the memory of the first, or the first of one PCI id.
TWINS = {
    ("RTX 4060 Ti", "RTX 4060 Ti 16GB"),
    ("RTX 5060 Ti", "RTX 5060 Ti 16GB"),
    ("RX 9060 XT", "RX 9060 XT 16GB"),
    ("RX 7900 XTX", "RX 7900 XT"),
}


@pytest.mark.parametrize(("name", "row"), NAMES)
def test_a_card_is_found_by_the_names_that_people_and_drivers_use(name: str, row: str) -> None:
    found = profiles.find(name)
    assert found is not None
    assert found.name == row


@pytest.mark.parametrize("name", ["", "x", "RTX", "RTX 3091", "3090 Ti Super", "RTX 3090\0", "a" * 5000])
def test_a_card_that_no_row_knows_is_not_guessed(name: str) -> None:
    assert profiles.find(name) is None


def _matches(name: str, row: GpuProfile) -> bool:
    return any(re.fullmatch(pattern, name, re.IGNORECASE) for pattern in row.patterns)


def test_no_name_leads_to_two_rows_but_where_drivers_do_not_tell_them_apart() -> None:
    every = {row.name for row in profiles.ALL} | {name for name, _ in NAMES}
    both = {tuple(row.name for row in profiles.ALL if _matches(name, row)) for name in every}
    assert {rows for rows in both if len(rows) > 1} <= TWINS
    for one, other in TWINS:
        rows = [row for row in profiles.ALL if row.name in (one, other)]
        assert not set(rows[0].patterns).isdisjoint(rows[1].patterns)


@pytest.mark.parametrize("row", profiles.ALL, ids=lambda row: row.name)
def test_a_row_is_complete_and_agrees_with_itself(row: GpuProfile) -> None:
    assert profiles.find(row.name) is row
    assert _matches(row.name, row)
    assert len(row.source) > 20
    assert row.bandwidth_gb_s > 50
    assert 1 <= row.spike <= 2
    assert (row.memory_gib is None) == row.unified
    assert (row.cap_min_w is None) == (row.cap_max_w is None)
    if row.cap_min_w is not None and row.cap_max_w is not None:
        assert 0 < row.cap_min_w < row.tdp_w <= row.cap_max_w
        assert row.vendor in ("nvidia", "amd")
    assert (row.compute is not None) == (row.vendor == "nvidia")
    assert (row.gfx is not None) == (row.vendor == "amd")
    if row.vendor == "nvidia":
        assert architecture(row.architecture) == row.architecture
    for pattern in row.patterns:
        # Hosts with Python 3.9 match with them too: it knows neither atomic groups nor possessive repeats.
        assert not re.search(r"\(\?>|[*+?}]\+", pattern)


def test_the_closest_names_come_first() -> None:
    assert "RTX 3090" in profiles.closest("RTX 3900")
    assert profiles.closest("rx 9070xtx")[0] == "RX 9070 XT"
    assert profiles.closest("qqqq") == ()


def test_an_unknown_card_is_what_the_inventory_says_and_no_more() -> None:
    row = profiles.of(Gpu(model="Voodoo (9)", slot="s", vendor="nvidia", tdp_w=300))
    assert (row.vendor, row.tdp_w, row.cap_min_w, row.cap_max_w) == ("nvidia", 300, 1, 300)
    assert _matches("voodoo (9)", row)
    assert row.spike >= max(known.spike for known in profiles.ALL)
    intel = profiles.of(Gpu(model="Arc Z1", slot="s", vendor="intel", tdp_w=300))
    assert (intel.cap_min_w, intel.cap_max_w) == (None, None)
    with pytest.raises(LookupError, match="Voodoo 9"):
        profiles.of(Gpu(model="Voodoo 9", slot="s", vendor="nvidia"))


def test_the_watts_that_the_inventory_gives_go_before_the_row_s() -> None:
    assert profiles.of(Gpu(model="RTX 3090", slot="s")).tdp_w == 350
    assert profiles.of(Gpu(model="RTX 3090", slot="s", tdp_w=390)).tdp_w == 390


def test_a_card_has_its_own_cap_else_its_host_s_else_none() -> None:
    own = Gpu(model="RTX 3090", slot="s0", cap_w=250, cap_reason="noise")
    plain = Gpu(model="RTX 3090", slot="s1")
    chip = Gpu(model="Radeon 8060S", slot="igpu")
    host = Host(name="a", address="x", gpus=[own, plain, chip], cap_w=200, cap_reason="circuit")
    assert [profiles.cap_of(host, gpu) for gpu in host.gpus] == [Cap(250, "noise"), Cap(200, "circuit"), None]
    assert [profiles.draw_w(host, gpu) for gpu in host.gpus] == [250, 200, 120]
    uncapped = Host(name="a", address="x", gpus=[plain])
    assert profiles.cap_of(uncapped, plain) is None
    assert profiles.draw_w(uncapped, plain) == 350


def test_commands_that_need_no_card_do_not_read_the_table() -> None:
    program = "import sys; import labctl.cli.main; print('labctl.inventory.profiles' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


def test_a_card_is_told_apart_by_uuid_address_or_as_the_only_one_of_its_model() -> None:
    twins = [Gpu(model="RTX 3090", slot=f"slot{n}") for n in range(2)]
    placed = Gpu(model="RTX 3090", slot="slot2", pci="0000:3b:00.0")
    alone = Gpu(model="GB10", slot="soc")
    host = Host(name="rig", address="10.0.0.1", gpus=[*twins, placed, alone])
    assert [profiles.is_told_apart(host, gpu) for gpu in host.gpus] == [False, False, True, True]
    by_elimination = Host(name="rig", address="10.0.0.1", gpus=[twins[0], placed])
    assert profiles.is_told_apart(by_elimination, twins[0])
