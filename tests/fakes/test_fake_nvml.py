"""The fake NVML, asked through the real binding: it answers, refuses and forgets as a driver does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from fake_gpus import MakeNvml
from labctl.lab.fake import boards


@pytest.fixture
def cards(loaded_nvml: MakeNvml) -> Iterator[MakeNvml]:
    """Like ``loaded_nvml``; the binding is shut down after the test, as often as it was opened."""
    yield loaded_nvml
    while True:
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError:
            return


def test_every_nvidia_board_answers_as_its_row_says(cards: MakeNvml) -> None:
    rows = [board for board in boards.BOARDS if isinstance(board, boards.NvidiaBoard)]
    cards(*(board.model for board in rows))
    pynvml.nvmlInit()
    assert pynvml.nvmlDeviceGetCount() == len(rows)
    for index, board in enumerate(rows):
        card = pynvml.nvmlDeviceGetHandleByIndex(index)
        assert pynvml.nvmlDeviceGetName(card) == board.name
        assert pynvml.nvmlDeviceGetCudaComputeCapability(card) == board.compute
        if board.default_w is None:
            with pytest.raises(pynvml.NVMLError_NotSupported):
                pynvml.nvmlDeviceGetPowerManagementLimit(card)
            continue
        limits = pynvml.nvmlDeviceGetPowerManagementLimitConstraints(card)
        assert limits == [(board.min_w or 0) * 1000, (board.max_w or 0) * 1000]
        assert pynvml.nvmlDeviceGetPowerManagementLimit(card) == board.default_w * 1000


def test_a_cap_is_taken_in_range_and_refused_outside_of_it(cards: MakeNvml) -> None:
    gpus = cards("RTX 5090")
    pynvml.nvmlInit()
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    pynvml.nvmlDeviceSetPowerManagementLimit(card, 450_000)
    assert pynvml.nvmlDeviceGetPowerManagementLimit(card) == 450_000
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(card) == 450_000
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlDeviceSetPowerManagementLimit(card, 300_000)
    assert gpus.cap_w(0) == 450
    assert gpus.writes() == ["nvmlDeviceSetPowerManagementLimit gpu0 450000"]


def test_a_user_without_root_sets_nothing(nvml: MakeNvml) -> None:
    gpus = nvml("RTX 3090")
    gpus.change(root_uid=None)
    ask = (
        "import ctypes, os, pynvml as n; ctypes.CDLL('libnvidia-ml.so.1'); os.geteuid() or os.setuid(65534);"
        "n.nvmlInit(); h = n.nvmlDeviceGetHandleByIndex(0); print(n.nvmlDeviceGetName(h));"
        "n.nvmlDeviceSetPowerManagementLimit(h, 200000)"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        state = Path(shutil.copy(gpus.state, folder))
        done = _python(ask, gpus.env() | {"FAKE_NVML_STATE": str(state)})
        assert done.stdout == "NVIDIA GeForce RTX 3090\n", done.stderr
        assert "NVMLError_NoPermission" in done.stderr
        assert state.read_text() == gpus.state.read_text()


def test_a_lost_card_says_so_and_the_others_answer(cards: MakeNvml) -> None:
    gpus = cards("RTX 3090", "RTX 3090")
    pynvml.nvmlInit()
    gpus.fault(0, "lost")
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(1)) == gpus.cards[1].uuid


def test_a_pulled_card_is_nowhere_and_the_others_move_up(cards: MakeNvml) -> None:
    gpus = cards("RTX 3090", "RTX 4090", "RTX 3090")
    gpus.fault(0, "removed")
    pynvml.nvmlInit()
    assert pynvml.nvmlDeviceGetCount() == 2
    first = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetName(first) == "NVIDIA GeForce RTX 4090"
    assert pynvml.nvmlDeviceGetIndex(first) == 0
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetHandleByUUID(gpus.cards[0].uuid)


def test_a_card_is_found_by_either_spelling_of_its_pci_address(cards: MakeNvml) -> None:
    gpus = cards("RTX 3090", "RTX 3090")
    pynvml.nvmlInit()
    for spelling in (gpus.cards[1].pci, "0000" + gpus.cards[1].pci.upper()):
        assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByPciBusId(spelling)) == 1


def test_without_a_module_nothing_works(cards: MakeNvml) -> None:
    cards("RTX 3090", driver=None)
    with pytest.raises(pynvml.NVMLError_DriverNotLoaded):
        pynvml.nvmlInit()


def test_a_library_of_another_version_than_the_module_is_a_mismatch(cards: MakeNvml, tmp_path: Path) -> None:
    gpus = cards("RTX 3090")
    folder = tmp_path / "packaged"
    folder.mkdir()
    for version, said in (("580.95.05", "580.95.05"), ("580.105.08", "NVMLError_LibRmVersionMismatch")):
        named = folder / f"libnvidia-ml.so.{version}"
        named.write_bytes(gpus.library.read_bytes())
        (folder / "libnvidia-ml.so.1").unlink(missing_ok=True)
        (folder / "libnvidia-ml.so.1").symlink_to(named.name)
        ask = "import pynvml as n; n.nvmlInit(); print(n.nvmlSystemGetDriverVersion())"
        done = _python(ask, gpus.env() | {"LD_LIBRARY_PATH": str(folder)})
        assert said in done.stdout + done.stderr


@pytest.mark.parametrize(("persistence", "left_w"), [(0, 350), (1, 200)])
def test_without_persistence_mode_a_cap_goes_with_the_last_client(
    nvml: MakeNvml, persistence: int, left_w: int
) -> None:
    gpus = nvml("RTX 3090")
    gpus.forgetful()
    gpus.set(0, persistence=persistence)
    ask = (
        "import pynvml as n; n.nvmlInit(); h = n.nvmlDeviceGetHandleByIndex(0);"
        "n.nvmlDeviceSetPowerManagementLimit(h, 200000); print(n.nvmlDeviceGetPowerManagementLimit(h))"
    )
    assert _python(ask, gpus.env()).stdout == "200000\n"
    assert gpus.cap_w(0) == left_w


def test_locked_clocks_show_in_the_clocks_and_go_by_a_reset(cards: MakeNvml) -> None:
    gpus = cards("RTX 3090")
    gpus.set(0, clock_gr=1900, clock_sm=1900)
    pynvml.nvmlInit()
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    pynvml.nvmlDeviceSetGpuLockedClocks(card, 210, 1400)
    assert pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_SM) == 1400
    pynvml.nvmlDeviceResetGpuLockedClocks(card)
    assert pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_SM) == 1900
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlDeviceSetGpuLockedClocks(card, 1400, 210)


def test_a_card_draws_no_more_than_its_cap(cards: MakeNvml) -> None:
    gpus = cards("RTX 3090")
    gpus.set(0, power_mw=330_000)
    pynvml.nvmlInit()
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    pynvml.nvmlDeviceSetPowerManagementLimit(card, 200_000)
    assert pynvml.nvmlDeviceGetPowerUsage(card) == 200_000


def test_a_hanging_card_holds_only_its_own_calls(nvml: MakeNvml) -> None:
    gpus = nvml("RTX 3090", "RTX 3090")
    gpus.fault(0, "hang")
    ask = "import pynvml as n; n.nvmlInit(); n.nvmlDeviceGetHandleByIndex({}); print('done')"
    assert _python(ask.format(1), gpus.env()).stdout == "done\n"
    with pytest.raises(subprocess.TimeoutExpired):
        _python(ask.format(0), gpus.env(), timeout=0.7)


def _python(code: str, env: dict[str, str], timeout: float = 30) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", code]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=timeout)


def test_the_library_runs_on_the_oldest_debian_of_a_lab_wherever_it_was_built(nvml: MakeNvml) -> None:
    wanted = re.findall(rb"GLIBC_(\d+)\.(\d+)", nvml("RTX 3090").library.read_bytes())
    assert wanted
    assert max((int(major), int(minor)) for major, minor in wanted) <= (2, 36), "Debian 12 has glibc 2.36"
