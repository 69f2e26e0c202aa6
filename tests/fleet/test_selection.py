"""Which cards a person may name alone: those that labctl can find."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.domain.problem import LabctlError
from labctl.fleet import selection
from labctl.inventory import LoadedRack, load_rack

RACK = """\
from labctl.inventory import Gpu, Host, Rack

rack = Rack(name="r", hosts=[Host(name="rig", address="10.0.0.1", gpus=[
    Gpu(model="RTX 3090", slot="slot0"),
    Gpu(model="RTX 3090", slot="slot1"),
    Gpu(model="RTX 3090", slot="slot2", pci="0000:3b:00.0"),
    Gpu(model="RTX 5090", slot="top"),
])])
globals().update(rack.groups())
"""


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedRack:
    (tmp_path / "rack.py").write_text(RACK)
    return load_rack(tmp_path / "rack.py")


@pytest.mark.parametrize("name", ["slot2", "3b:00.0", "0000:3B:00.0", "top"])
def test_a_card_that_can_be_found_is_chosen_alone(loaded: LoadedRack, name: str) -> None:
    ((target),) = selection.choose(loaded, [f"rig/{name}"])
    assert target.named
    assert [gpu.slot for gpu in target.gpus] == ["top" if name == "top" else "slot2"]


def test_a_card_that_could_be_any_of_its_model_is_not_chosen_by_a_guess(loaded: LoadedRack) -> None:
    with pytest.raises(LabctlError) as caught:
        selection.choose(loaded, ["rig/slot1"])
    (problem,) = caught.value.problems
    assert problem.reason == "nothing tells slot1 from the other RTX 3090, so it could be any of them"
    assert "labctl powercap rig shows them" in problem.hint


def test_only_cards_that_can_be_found_are_suggested(loaded: LoadedRack) -> None:
    assert selection.card_names(loaded.rack) == ("rig/slot2", "rig/top")
