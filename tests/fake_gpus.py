"""Fake graphics cards for tests that run on this machine: a fake NVML, an AMD tree, and cards to fill them.

    def test_a_cap(nvml):
        gpus = nvml("RTX 3090", "RTX 5090")   # a fresh FakeNvml each time
        run([...], env=gpus.env())            # for subprocesses: LD_LIBRARY_PATH and the state's place
        gpus.set(0, power_limit_mw=200000)    # change a card under a running process
        gpus.set(1, err=15)                   # GPU is lost; gpus.fault(1, "lost") is the same
        assert gpus.writes() == []            # nobody set anything

    def test_an_amd_cap(amd_fuse):
        root = amd_fuse("RX 7900 XTX", "Radeon 8060S")    # a root folder: root / "sys/class/drm/card0/..."
        (root / "sys/class/drm/card0/device/hwmon/hwmon3/power1_cap").write_text("250000000")

``amd_tree`` is the same as plain files, which refuse nothing. Both hold NVIDIA cards too, on the PCI bus.
``loaded_nvml`` makes the same for this process's own pynvml. The fixtures skip, with the reason, where
there is no C compiler. Keys of cards are those of ``labctl/lab/fake/fakenvml.c``.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labctl import wiring
from labctl.lab.fake import boards, sysfs
from labctl.lab.fake import nvml as fake
from labctl.lab.fake.mount import Mounted, lacking

FAULTS: dict[str, dict[str, str | int]] = {
    "lost": {"err": 15},
    "hang": {"delay": 600_000},
    "refuse": {"err.nvmlDeviceSetPowerManagementLimit": 4, "err.nvmlDeviceSetPowerManagementLimit_v2": 4},
    "removed": {"removed": 1},
    "blocked": {"err": 17},
}


class FakeNvml:
    """A fake ``libnvidia-ml.so.1`` with a state file of its own; every card is as after a boot."""

    def __init__(
        self, library: Path, folder: Path, cards: tuple[boards.Card, ...], driver: str | None
    ) -> None:
        self.library = library
        self.cards = cards
        self.state = folder / "nvidia.state"
        self.log = folder / "nvidia.log"
        folder.mkdir(parents=True, exist_ok=True)
        text = fake.state_text(cards, driver=driver)
        # Settings outlive a client, so that tests can look at them by another process.
        self.state.write_text(f"root_uid={os.geteuid()}\nclients=keep\n{text}")
        self.log.touch()

    def env(self) -> dict[str, str]:
        """Return an environment in which a process finds this library and this state."""
        here = {
            "LD_LIBRARY_PATH": str(self.library.parent),
            "FAKE_NVML_STATE": str(self.state),
            "FAKE_NVML_LOG": str(self.log),
        }
        return {**os.environ, **here}

    def change(self, **values: str | int | None) -> None:
        """Set keys of the file; None takes one away; ``__`` is a dot: ``err__nvmlInitWithFlags=9``."""
        with self.state.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            text = fake.changed(file.read(), **values)
            file.seek(0)
            file.truncate()
            file.write(text)

    def set(self, index: int, **values: str | int | None) -> None:
        """Set keys of one card (its place, as before any removal); None takes one away."""
        self.change(**{f"gpu{index}.{key}": value for key, value in values.items()})

    def get(self, index: int, key: str) -> str | None:
        """Return one value of a card."""
        return fake.parse(self.state.read_text()).get(f"gpu{index}.{key}")

    def cap_w(self, index: int) -> float:
        """Return the cap of a card in watts."""
        return int(self.get(index, "power_limit_mw") or 0) / 1000

    def fault(self, index: int, kind: str) -> None:
        """Break a card: lost, hang, refuse (a cap), removed, blocked."""
        self.change(**{f"gpu{index}.{key}": value for key, value in FAULTS[kind].items()})

    def unload(self) -> None:
        """Take the driver's kernel module away: NVML 9."""
        self.change(driver=None)

    def mismatch(self) -> None:
        """Let the library be another version than the kernel module: NVML 18."""
        self.change(err__nvmlInitWithFlags=18)

    def forgetful(self) -> None:
        """Forget settings of cards without persistence mode when the last client goes, as real drivers do."""
        self.change(clients=None)

    def writes(self) -> list[str]:
        """Return what was set, one line for each call: ``FUNCTION gpuN VALUE``."""
        return self.log.read_text().splitlines()


MakeNvml = Callable[..., FakeNvml]


@pytest.fixture(scope="session")
def nvml_library() -> Path:
    """The fake library, built once for each version of its source."""
    if fake.compiler() is None:
        pytest.skip("no C compiler, which builds the fake NVML: apt-get install gcc libc6-dev")
    return fake.library(wiring.cache_home() / "lab")


@pytest.fixture
def nvml(nvml_library: Path, tmp_path: Path) -> MakeNvml:
    """Make fake cards: ``nvml("RTX 3090", "RTX 3090")``; ``driver=None``: no kernel module is loaded."""
    made: list[FakeNvml] = []

    def make(*models: str, driver: str | None = fake.DRIVER) -> FakeNvml:
        folder = tmp_path / f"nvml{len(made)}"
        made.append(FakeNvml(nvml_library, folder, boards.cards(models), driver))
        return made[-1]

    return make


@pytest.fixture
def loaded_nvml(nvml: MakeNvml, monkeypatch: pytest.MonkeyPatch) -> MakeNvml:
    """Like ``nvml``, and this process's own pynvml sees the cards until the test ends."""

    def make(*models: str, driver: str | None = fake.DRIVER) -> FakeNvml:
        gpus = nvml(*models, driver=driver)
        monkeypatch.setenv("FAKE_NVML_STATE", str(gpus.state))
        monkeypatch.setenv("FAKE_NVML_LOG", str(gpus.log))
        ctypes.CDLL(str(gpus.library))
        return gpus

    return make


MakeTree = Callable[..., Path]


@pytest.fixture
def amd_tree(tmp_path: Path) -> MakeTree:
    """Make a root folder with ``sys`` and ``proc`` of a host with these cards: plain files, no manners."""
    made: list[Path] = []

    def make(*models: str) -> Path:
        made.append(tmp_path / f"root{len(made)}")
        sysfs.build(made[-1], boards.cards(models))
        return made[-1]

    return make


@pytest.fixture
def amd_fuse(amd_tree: MakeTree) -> Iterator[MakeTree]:
    """Like ``amd_tree``, but writes are taken or refused as the kernel does; for root, with libfuse3."""
    reason = lacking()
    if reason:
        pytest.skip(reason)
    mounted: list[Mounted] = []

    def make(*models: str) -> Path:
        mounted.append(Mounted(amd_tree(*models)))
        return mounted[-1].path

    yield make
    for one in mounted:
        one.end()
