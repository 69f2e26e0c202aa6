# ruff: noqa: E501 - one case a line reads best
"""Checks of a host's cards: known, apart, within their range, and served by one set of drivers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rack_texts import problems, rack_text, write


def on_a_host(text: str) -> str:
    return f'rack = Rack(name="r", hosts=[\n    Host(name="a", address="10.0.0.1",\n        {text}),\n])'


def told(folder: Path, text: str) -> list[tuple[str, str, str]]:
    """Return field, reason and hint of what is wrong with a host of these words; all on lines 6 and 7."""
    found = problems(write(folder, rack_text(on_a_host(text))))
    assert all(problem.host == "a" and problem.line in (6, 7) for problem in found), found
    return [(problem.field, problem.reason, problem.hint) for problem in found]


def test_an_unknown_card_is_told_with_names_that_are_close_and_with_a_way_out(tmp_path: Path) -> None:
    ((field, _, hint),) = told(tmp_path, 'gpus=[Gpu(model="RTX 3900", slot="s")]')
    assert (field, hint.split("?")[0].count("RTX 3090")) == ("gpus[0].model", 1)
    assert hint.endswith('add vendor="nvidia" and tdp_w=300')
    ((_, _, hint),) = told(tmp_path, 'gpus=[Gpu(model="RTX 3900", slot="s", vendor="nvidia")]')
    assert hint.endswith("add tdp_w=300")
    assert told(tmp_path, 'gpus=[Gpu(model="RTX 3900", slot="s", vendor="nvidia", tdp_w=333)]') == []


def test_eight_unknown_cards_of_one_line_are_one_problem(tmp_path: Path) -> None:
    ((_, reason, _),) = told(tmp_path, 'gpus=[Gpu(model="x", slot=f"s{n}") for n in range(8)]')
    assert reason.endswith("(7 more from this line)")


@pytest.mark.parametrize(
    ("model", "watts", "reason", "hint"),
    [
        ("RTX 5090", 300, "RTX 5090 takes a cap of 400 to 600 W, not 300 W", "clocks_mhz=(210, 1500)"),
        (
            "NVIDIA GeForce RTX 5090",
            700,
            "RTX 5090 takes a cap of 400 to 600 W, not 700 W",
            "write 600 or less",
        ),
        ("GB10", 100, "GB10 has no power cap", "remove `cap_w`"),
        ("Radeon 8060S", 100, "Strix Halo has no power cap", "remove `cap_w`"),
        ("Apple M4 Max", 100, "Apple M4 Max has no power cap", "remove `cap_w`"),
    ],
)
def test_a_cap_that_no_card_of_the_model_takes_is_told_with_the_range(
    model: str, watts: int, reason: str, hint: str, tmp_path: Path
) -> None:
    ((field, said, advice),) = told(
        tmp_path, f'gpus=[Gpu(model="{model}", slot="s", cap_w={watts}, cap_reason="noise")]'
    )
    assert (field, said) == ("gpus[0].cap_w", reason)
    assert hint in advice
    ((field, _, _),) = told(
        tmp_path, f'gpus=[Gpu(model="{model}", slot="s")], cap_w={watts}, cap_reason="heat"'
    )
    assert field == "cap_w"


def test_a_chip_without_memory_of_its_own_is_given_none(tmp_path: Path) -> None:
    (found,) = told(tmp_path, 'gpus=[Gpu(model="Strix Halo", slot="s", memory_gib=96)]')
    reason = "is of a card of its own, and a Strix Halo has the machine's memory"
    assert found == ("gpus[0].memory_gib", reason, "state unified_memory_gib of the host")


def test_clocks_are_offered_only_for_cards_whose_clocks_can_be_locked(tmp_path: Path) -> None:
    for model in ("P40", "RX 9070 XT"):
        low = f'gpus=[Gpu(model="{model}", slot="s", cap_w=1, cap_reason="noise")]'
        for _, _, hint in told(tmp_path, low):
            assert "clocks" not in hint
        ((field, _, _),) = told(tmp_path, f'gpus=[Gpu(model="{model}", slot="s", clocks_mhz=(300, 900))]')
        assert field == "gpus[0].clocks_mhz"
    assert told(tmp_path, 'gpus=[Gpu(model="RTX 5090", slot="s", clocks_mhz=(300, 900))]') == []


def test_a_host_s_cap_is_for_the_cards_that_have_one(tmp_path: Path) -> None:
    cards = 'Gpu(model="Radeon 8060S", slot="igpu"), Gpu(model="RX 7900 XTX", slot="egpu")'
    assert told(tmp_path, f'gpus=[{cards}], cap_w=300, cap_reason="noise"') == []


def test_a_card_of_which_only_the_watts_are_known_takes_no_cap_above_them(tmp_path: Path) -> None:
    card = 'Gpu(model="Voodoo 9", slot="s", vendor="nvidia", tdp_w=300, cap_w={}, cap_reason="noise")'
    assert told(tmp_path, f"gpus=[{card.format(300)}]") == []
    ((field, reason, _),) = told(tmp_path, f"gpus=[{card.format(301)}]")
    assert (field, reason) == ("gpus[0].cap_w", "Voodoo 9 takes a cap of 1 to 300 W, not 301 W")


TWINS = [
    ('Gpu(model="RTX 3090", slot="s0")', 'Gpu(model="RTX 3090", slot="s1")', None),
    ('Gpu(model="RTX 3090", slot="s0", {200})', 'Gpu(model="RTX3090", slot="s1", {200})', None),
    ('Gpu(model="RTX 3090", slot="s0", {200})', 'Gpu(model="RTX3090", slot="s1", {250})', "gpus[1].cap_w"),
    ('Gpu(model="RTX 3090", slot="s0", {200})', 'Gpu(model="RTX 3090", slot="s1")', "gpus[1].cap_w"),
    ('Gpu(model="RTX 3090", slot="s0")', 'Gpu(model="RTX 3090", slot="s1", clocks_mhz=(300, 900))', "gpus[1].clocks_mhz"),
    ('Gpu(model="RTX 3090", slot="s0", {200})', 'Gpu(model="RTX 3090", pci="01:00.0", {250})', None),
    ('Gpu(model="RTX 3090", slot="s0", {200})', 'Gpu(model="RTX 4090", slot="s1", {250})', None),
    ('Gpu(model="RTX 4060 Ti", slot="s0", {150})', 'Gpu(model="RTX 4060 Ti 16GB", slot="s1", {160})', "gpus[1].cap_w"),
    ('Gpu(model="RX 7900 XT", slot="s0")', 'Gpu(model="RX 7900 XTX", slot="s1")', None),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "field"), TWINS)
def test_cards_that_nothing_tells_apart_cannot_be_set_differently(
    one: str, other: str, field: str | None, tmp_path: Path
) -> None:
    cards = re.sub(r"\{(\d+)\}", r'cap_w=\1, cap_reason="noise"', f"gpus=[{one}, {other}]")
    found = told(tmp_path, cards)
    assert [where for where, _, _ in found] == ([field] if field else [])
    assert all("nothing tells them apart" in reason and "`uuid`" in hint for _, reason, hint in found)


DRIVERS = [
    ("", "P40", "RTX 3090", None),
    ("", "V100", "RTX 5090", "gpus"),
    ("nvidia=Nvidia(manage=False), ", "V100", "RTX 5090", None),
    ("vendor_image=True, ", "V100", "RTX 5090", None),
    ("nvidia=Nvidia(branch=590), ", "P40", "RTX 3090", "nvidia.branch"),
    ("nvidia=Nvidia(branch=580), ", "P40", "RTX 3090", None),
    ('nvidia=Nvidia(flavour="open"), ', "P40", "RTX 3090", "nvidia.flavour"),
    ('nvidia=Nvidia(flavour="proprietary"), ', "RTX 5090", "RTX 3090", "nvidia.flavour"),
    ("nvidia=Nvidia(branch=550), ", "RTX 5090", "RTX 3090", "nvidia.branch"),
    ("", "RTX 5090", "RX 7900 XTX", None),
]


@pytest.mark.parametrize(("settings", "one", "other", "field"), DRIVERS)
def test_a_host_whose_cards_no_driver_serves_is_told(
    settings: str, one: str, other: str, field: str | None, tmp_path: Path
) -> None:
    found = told(tmp_path, f'{settings}gpus=[Gpu(model="{one}", slot="s0"), Gpu(model="{other}", slot="s1")]')
    assert [where for where, _, _ in found] == ([field] if field else [])


@pytest.mark.parametrize(
    ("model", "backend", "able"),
    [
        ("RTX 3090", "cuda", ""),
        ("RTX 3090", "rocm", '"cuda" or "vulkan"'),
        ("RX 7900 XTX", "rocm", ""),
        ("RX 7900 XTX", "cuda", '"rocm" or "vulkan"'),
        ("Arc B580", "vulkan", ""),
        ("Arc B580", "cuda", '"vulkan"'),
        ("Atlas 300I Duo", "vulkan", "leave it out"),
    ],
)
def test_a_backend_that_the_cards_cannot_do_is_told_with_those_that_they_can(
    model: str, backend: str, able: str, tmp_path: Path
) -> None:
    found = told(tmp_path, f'gpus=[Gpu(model="{model}", slot="s")], backend="{backend}"')
    assert [where for where, _, _ in found] == (["backend"] if able else [])
    assert all(able in hint for _, _, hint in found)


def test_a_card_is_fed_by_any_of_its_names(tmp_path: Path) -> None:
    cards = 'gpus=[Gpu(model="RTX 3090", pci="3B:00.0"), Gpu(model="RTX 3090", slot="s1")]'
    feeds = 'psus=[Psu(name="p", watts=1600, feeds=["board", "0000:3b:00.0", "s1"])]'
    assert told(tmp_path, f"{cards}, {feeds}") == []
