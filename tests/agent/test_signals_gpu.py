"""Cards: asked only while they are awake, and quiet only where they say so."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from host_tree import Tree

from fake_gpus import FakeNvml, MakeNvml
from labctl.agent import nvml as door
from labctl.agent.signals import gpu as module
from labctl.agent.signals.gpu import Gpu
from labctl.agent.signals.terms import Unreadable


def on_the_bus(tree: Tree, gpus: FakeNvml, *, status: str = "active", control: str = "on") -> None:
    """Have the cards on the PCI bus, too."""
    for card in gpus.cards:
        place = f"sys/bus/pci/devices/{card.pci}"
        files = {
            "vendor": "0x10de",
            "class": "0x030200",
            "power/runtime_status": status,
            "power/control": control,
        }
        tree.write({f"{place}/{name}": text for name, text in files.items()})
        driver = tree.root / "sys/bus/pci/drivers/nvidia"
        driver.mkdir(parents=True, exist_ok=True)
        link = tree.root / place / "driver"
        if not link.is_symlink():
            link.symlink_to(driver)


def gpu(tree: Tree, idle: tuple[str, ...] = (), units: tuple[str, ...] = ()) -> Gpu:
    return Gpu(tree.host, 5, idle, units)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note when the driver's library is opened and closed."""
    import pynvml

    noted: list[str] = []

    def noting(name: str, then: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            noted.append(name)
            return then(*args)

        return call

    monkeypatch.setattr(door, "opened", noting("opened", door.opened))
    monkeypatch.setattr(pynvml, "nvmlShutdown", noting("closed", pynvml.nvmlShutdown))
    return noted


def test_without_a_card_no_card_is_in_use_and_nothing_is_opened(tree: Tree, opened: list[str]) -> None:
    assert gpu(tree).look() == (False, "no card is in use")
    assert opened == []


def test_a_card_that_computes_is_named_by_its_uuid(tree: Tree, loaded_nvml: MakeNvml) -> None:
    gpus = loaded_nvml("RTX 3090", "RTX 3090")
    on_the_bus(tree, gpus)
    signal = gpu(tree)
    assert signal.look() == (False, "no card is in use")
    gpus.set(1, util_gpu=5)
    assert not signal.look().busy
    gpus.set(1, util_gpu=63)
    assert signal.look() == (True, f"card {gpus.get(1, 'uuid')} is at 63 %")


def test_a_program_that_holds_a_card_is_named(tree: Tree, loaded_nvml: MakeNvml) -> None:
    gpus = loaded_nvml("RTX 3090")
    on_the_bus(tree, gpus)
    tree.process(500, "train.py")
    gpus.set(0, procs="500:1000000:train.py")
    assert gpu(tree).look().because.startswith("train.py (500, ")
    assert gpu(tree, idle=("Xorg",)).look().busy
    tree.write({"etc/passwd": f"other:x:4711:0::/:/bin/sh\nann:x:{os.getuid()}:0::/:/bin/sh\n"})
    tree.process(500, "train.py", group="system.slice/jupyter.service")
    because = f"train.py (500, of ann, jupyter.service) holds card {gpus.get(0, 'uuid')}"
    assert gpu(tree).look() == (True, because)
    assert not gpu(tree, idle=("train.py",)).look().busy


def test_an_engine_that_says_itself_what_it_does_may_hold_a_card(tree: Tree, loaded_nvml: MakeNvml) -> None:
    gpus = loaded_nvml("RTX 3090")
    on_the_bus(tree, gpus)
    tree.process(500, "llama-server", group="system.slice/labctl-chat.service")
    gpus.set(0, procs="500:1000000:llama-server")
    assert gpu(tree).look().busy
    assert not gpu(tree, units=("labctl-chat.service",)).look().busy
    tree.process(501, "comfy", group="system.slice/labctl-comfy.service")
    gpus.set(0, procs="500:1:a,501:1:b")
    assert gpu(tree, units=("labctl-chat.service",)).look().because.startswith("comfy (501, ")


@pytest.mark.parametrize(
    ("fault", "reason"), [("lost", "GPU is lost"), ("blocked", "Restricted|blocked|permission|Operating")]
)
def test_a_card_that_does_not_say_is_no_quiet(
    tree: Tree, loaded_nvml: MakeNvml, fault: str, reason: str
) -> None:
    gpus = loaded_nvml("RTX 3090", "RTX 3090")
    on_the_bus(tree, gpus)
    gpus.fault(1, fault)
    with pytest.raises(Unreadable, match=f"(?i){reason}"):
        gpu(tree).look()


def test_a_driver_that_does_not_work_is_no_quiet(tree: Tree, loaded_nvml: MakeNvml) -> None:
    gpus = loaded_nvml("RTX 3090")
    on_the_bus(tree, gpus)
    gpus.mismatch()
    with pytest.raises(Unreadable, match="NVML does not work"):
        gpu(tree).look()


def test_fewer_cards_at_the_driver_than_on_the_bus_are_no_quiet(tree: Tree, loaded_nvml: MakeNvml) -> None:
    gpus = loaded_nvml("RTX 3090", "RTX 3090")
    on_the_bus(tree, gpus)
    gpus.fault(1, "removed")
    with pytest.raises(Unreadable, match="the driver has 1 of 2 NVIDIA cards"):
        gpu(tree).look()


def test_a_card_that_sleeps_is_quiet_and_not_touched(
    tree: Tree, loaded_nvml: MakeNvml, opened: list[str]
) -> None:
    gpus = loaded_nvml("RTX 3090")
    gpus.set(0, util_gpu=99)
    on_the_bus(tree, gpus, status="suspended", control="auto")
    assert gpu(tree).look() == (False, "no card is in use")
    assert opened == []


def test_the_library_is_let_go_once_all_cards_sleep(
    tree: Tree, loaded_nvml: MakeNvml, opened: list[str]
) -> None:
    gpus = loaded_nvml("RTX 3090")
    on_the_bus(tree, gpus)
    signal = gpu(tree)
    signal.look()
    signal.look()
    assert opened == ["opened"]
    on_the_bus(tree, gpus, status="suspended")
    signal.look()
    assert opened == ["opened", "closed"]


def test_a_card_that_may_doze_off_is_asked_once_a_minute_while_it_is_quiet(
    tree: Tree, loaded_nvml: MakeNvml, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    gpus = loaded_nvml("RTX 3090")
    on_the_bus(tree, gpus, control="auto")
    signal = gpu(tree)
    for _ in range(6):
        assert not signal.look().busy
        now += 10
    assert opened == ["opened", "closed"]
    gpus.set(0, util_gpu=50)
    for count in (4, 6, 8):  # a busy one is asked at each look
        assert signal.look().busy
        assert len(opened) == count
        now += 10


def test_cards_of_another_driver_are_not_nvidias_to_tell(tree: Tree, loaded_nvml: MakeNvml) -> None:
    gpus = loaded_nvml("RTX 3090", driver=None)
    on_the_bus(tree, gpus)
    for card in gpus.cards:
        (tree.root / f"sys/bus/pci/devices/{card.pci}/driver").unlink()
    assert not gpu(tree).look().busy


# --- AMD ---


def amd(tree: Tree, **files: str) -> Path:
    base = {
        "vendor": "0x1002",
        "uevent": "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0\n",
        "gpu_busy_percent": "0\n",
    }
    return tree.write(
        {f"sys/class/drm/card1/device/{name}": text for name, text in {**base, **files}.items()}
    )


def test_an_amd_card_says_how_busy_it_is(tree: Tree) -> None:
    amd(tree)
    assert not gpu(tree).look().busy
    amd(tree, gpu_busy_percent="40\n")
    assert gpu(tree).look() == (True, "card 0000:03:00.0 is at 40 %")
    amd(tree, gpu_busy_percent="")
    with pytest.raises(Unreadable, match="does not say how busy it is"):
        gpu(tree).look()


def test_an_amd_card_that_sleeps_is_not_asked(tree: Tree) -> None:
    amd(tree, **{"power/runtime_status": "suspended", "gpu_busy_percent": "100"})
    assert not gpu(tree).look().busy


def test_who_computes_on_amd_is_known_by_the_compute_driver(tree: Tree) -> None:
    amd(tree)
    tree.process(500, "train.py")
    tree.write({"sys/class/kfd/kfd/proc/500/pasid": "1"})
    look = gpu(tree).look()
    assert (look.busy, look.because.partition(",")[0]) == (True, "train.py (500")
    assert look.because.endswith(") holds an AMD card")
    assert not gpu(tree, idle=("train.py",)).look().busy
