"""Power caps on real hosts with fake cards: over SSH, boots, a pulled card, a stubborn one, and time."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from declared import DeclaredHost, GpuHost
from rack_driving import labctl

from labctl.lab import Lab
from labctl.lab.processes import wait_until

pytestmark = pytest.mark.rack

UNIT = "labctl-caps.service"


class CappedHost:
    """A host with NVIDIA cards whose driver works and whose caps are declared and applied."""

    def __init__(self, rack: Lab, box: DeclaredHost) -> None:
        self.rack, self.box, self.name = rack, box, box.host.name

    def declare(self, cap_w: int | None, reason: str = "circuit") -> None:
        more = {} if cap_w is None else {"cap_w": cap_w, "cap_reason": reason}
        self.box.declare(fields=f"gpus=[{self.box.gpus(placed=True, **more)}], ")

    def caps(self) -> list[float | None]:
        """Return what the cards themselves say, past labctl."""
        return [card["cap_w"] for card in self.rack.gpu_state(self.name)["cards"]]

    def powercap(self, *args: str, code: int = 0) -> str:
        done = labctl("powercap", *args, "-i", str(self.box.file))
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def shown(self) -> list[dict[str, Any]]:
        """Return what ``labctl powercap`` shows of the cards."""
        document = json.loads(self.powercap("--json"))
        cards: list[dict[str, Any]] = document["hosts"][0]["cards"]
        return cards

    def unit_is_green(self) -> bool:
        said = self.box.run(
            f"systemctl show -p Result,ActiveState --value {UNIT}; systemctl is-enabled {UNIT}"
        )
        return said.split() == ["success", "inactive", "enabled"]


@pytest.fixture
def cuda(gpu_rack: Lab, gpu_host: GpuHost) -> CappedHost:
    """Four RTX 3090 on Debian 12, capped at 250 W to protect a circuit."""
    capped = CappedHost(gpu_rack, gpu_host("cuda"))
    capped.declare(250)
    capped.box.apply("agent", "nvidia")
    capped.box.reboot()
    assert capped.caps() == [350] * 4
    assert capped.box.apply("power") > 0
    assert capped.caps() == [250] * 4
    return capped


def watts(cards: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {card["slot"]: card["before_w"] for card in cards if card["status"] != "missing"}


def test_caps_are_right_after_an_order_a_pulled_card_and_a_boot(cuda: CappedHost) -> None:
    assert cuda.box.apply("agent", "nvidia", "power") == 0
    told = cuda.powercap("200")
    assert told.count("250 -> 200 W  changed") == 4
    assert "until the next boot or apply" in told
    assert cuda.caps() == [200] * 4

    cuda.rack.remove_gpu(cuda.name, 2)
    cuda.box.reboot()
    assert cuda.unit_is_green()
    assert watts(cuda.shown()) == {"slot0": 250, "slot1": 250, "slot3": 250}
    done = labctl("power", "-i", str(cuda.box.file))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 of 4 RTX 3090 is missing (slot2)" in done.stdout + done.stderr
    assert cuda.box.apply("power") == 0, "a card that is not there is no change"
    assert "missing" in cuda.powercap("200", code=4)


def test_an_order_for_good_outlives_boots_until_it_is_taken_back(cuda: CappedHost) -> None:
    cuda.powercap("200", "cuda/slot1", "--persist", "--reason", "noise")
    cuda.box.reboot()
    assert watts(cuda.shown()) == {"slot0": 250, "slot1": 200, "slot2": 250, "slot3": 250}
    assert cuda.unit_is_green()
    assert "200 W for good (noise)" in cuda.powercap()
    assert cuda.box.apply("power") == 0, "what a person set is not drift"
    cuda.powercap("--reset")
    assert cuda.caps() == [250] * 4


def test_an_order_until_a_time_ends_by_itself_also_over_a_boot(cuda: CappedHost) -> None:
    cuda.powercap("200", "--until", "8s")
    assert cuda.caps() == [200] * 4
    assert wait_until(lambda: cuda.caps() == [250] * 4, within=40)
    cuda.powercap("180", "--until", "25s")
    cuda.box.reboot()
    assert cuda.caps() == [180] * 4
    assert wait_until(lambda: cuda.caps() == [250] * 4, within=60)
    assert wait_until(cuda.unit_is_green, within=10)


def test_a_stubborn_card_keeps_no_other_from_its_cap(cuda: CappedHost) -> None:
    cuda.rack.gpu_fault(cuda.name, 1, "refuse")
    told = cuda.powercap("200", code=4)
    assert told.count("250 -> 200 W  changed") == 3
    assert "failed" in told
    assert sorted(cap or 0 for cap in cuda.caps()) == [200, 200, 200, 250]
    cuda.declare(220)
    said = cuda.box.fails("power")
    assert "not every card has its cap: NVIDIA GeForce RTX 3090 (slot" in said


def test_a_dry_run_writes_nothing_and_a_cap_that_protects_needs_words(cuda: CappedHost) -> None:
    before = cuda.box.run("cat /opt/lab/gpu/nvidia.log | wc -l")
    assert cuda.powercap("200", "--dry-run").count("250 -> 200 W  would-change") == 4
    assert "above the 250 W that protect its circuit" in cuda.powercap("300", code=2)
    assert cuda.box.run("cat /opt/lab/gpu/nvidia.log | wc -l") == before
    cuda.powercap("300", "--override", "the oven is off", "--persist")
    assert cuda.caps() == [300] * 4
    assert "the oven is off" in cuda.powercap()


def test_a_host_whose_cards_left_the_inventory_loses_unit_and_files(cuda: CappedHost) -> None:
    cuda.box.declare()
    assert cuda.box.apply("power") == 3
    cuda.box.run(
        f"! systemctl cat {UNIT} && ! ls /etc/labctl/caps.json /etc/udev/rules.d/90-labctl-caps.rules"
    )
    assert cuda.box.apply("power") == 0


def test_a_driver_that_is_not_at_work_yet_is_waited_for(gpu_rack: Lab, gpu_host: GpuHost) -> None:
    fresh = CappedHost(gpu_rack, gpu_host("cuda"))
    fresh.declare(250)
    fresh.box.apply("agent", "nvidia")
    gpu_rack.gpu_fault("cuda", None, "unloaded")
    assert fresh.box.apply("power") > 0
    assert fresh.box.apply("power") == 0
    fresh.box.reboot()
    assert fresh.caps() == [250] * 4
    assert fresh.unit_is_green()


def test_amd_cards_are_capped_through_their_own_driver(gpu_rack: Lab, gpu_host: GpuHost) -> None:
    rocm = CappedHost(gpu_rack, gpu_host("rocm"))
    rocm.declare(300, "efficiency")
    assert rocm.box.apply("agent", "power") > 0
    assert rocm.caps() == [300]
    assert rocm.box.apply("agent", "power") == 0
    rocm.powercap("280", "--persist")
    rocm.box.reboot()
    assert rocm.caps() == [280]
    assert rocm.unit_is_green()
    # The card's own range is narrower than that of all boards of its model.
    told = rocm.powercap("250", code=2)
    assert "refused" in told
    assert "272 to 348 W" in told
    assert rocm.caps() == [280]
