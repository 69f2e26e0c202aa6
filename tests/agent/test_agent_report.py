"""The report comes in time and in one piece, whatever the host's drivers do."""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

from labctl.agent import amd, host, nics, nvidia, nvml, report
from labctl.agent.sections import Finding, More, gather


def forever(*_: object) -> None:
    while True:
        signal.pause()


def deaf_forever() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    forever()


# --- one section never harms another ---


def test_sections_that_hang_crash_or_fail_are_named_and_the_others_are_whole() -> None:
    def crashes() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def exits() -> None:
        sys.exit(3)

    def finds() -> None:
        raise Finding("the fan is off", "switch it on")

    def breaks() -> None:
        raise ZeroDivisionError("by zero")

    def talks() -> str:
        os.write(1, b"to stdout")
        os.write(2, b"to stderr")
        sys.stdout.write("more")
        return os.readlink("/proc/self/fd/1")

    began = time.monotonic()
    values, findings = gather(
        {
            "good": lambda: {"a": None, "b": [1.5]},
            "large": lambda: "x" * 3_000_000,
            "hangs": forever,
            "deaf": deaf_forever,
            "crashes": crashes,
            "exits": exits,
            "finds": finds,
            "breaks": breaks,
            "odd": lambda: object(),
            "talks": talks,
        },
        2,
    )
    assert time.monotonic() - began < 6
    assert values["good"] == {"a": None, "b": [1.5]}
    assert len(values["large"]) == 3_000_000
    assert values["talks"] == "/dev/null"
    assert findings["hangs"]["what"] == findings["deaf"]["what"] == "did not answer within 2 s"
    assert findings["crashes"]["what"] == "the process that looked was ended by signal 9"
    assert findings["exits"]["what"] == "gave no answer"
    assert findings["finds"] == {"what": "the fan is off", "hint": "switch it on"}
    assert findings["breaks"]["what"] == "ZeroDivisionError: by zero"
    assert "not JSON serializable" in findings["odd"]["what"]
    assert {name for name, value in values.items() if value is None} == set(findings)


def test_no_process_is_left_behind() -> None:
    # Other tests in this process may have children of their own.
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text()
    gather({"hangs": deaf_forever, "good": lambda: 1}, 0.2)
    assert children.read_text() == before


def test_a_section_whose_reader_was_killed_ends_itself(tmp_path: Path) -> None:
    told = tmp_path / "pid"

    def tells_and_hangs() -> None:
        told.write_text(str(os.getpid()))
        forever()

    reader = os.fork()
    if reader == 0:
        gather({"hangs": tells_and_hangs}, 0.3)
        os._exit(0)
    while not (told.exists() and told.read_text()):
        assert os.waitpid(reader, os.WNOHANG) == (0, 0)
    os.kill(reader, signal.SIGKILL)
    os.waitpid(reader, 0)
    deadline = time.monotonic() + 10
    while _alive(int(told.read_text())):
        assert time.monotonic() < deadline, "the orphan lives on"
        threading.Event().wait(0.05)


def _alive(pid: int) -> bool:
    """Return whether the process still runs; an orphan may stay a zombie where PID 1 collects none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_whole_report_keeps_its_deadline_when_everything_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "SECTIONS", dict.fromkeys(report.SECTIONS, forever))
    began = time.monotonic()
    found = report.collect(1.0)
    assert time.monotonic() - began < 6
    assert set(found["errors"]) == set(report.SECTIONS)
    assert json.loads(report.as_json(found))["system"] is None


def test_this_machine_reports_itself() -> None:
    found = report.collect(10)
    assert found["system"]["kernel"] == os.uname().release
    assert found["system"]["uptime_s"] > 0
    assert found["system"]["memory"]["total_mib"] > 100
    assert "lo" not in {nic["name"] for nic in found["nics"]}
    assert found["agent"]["format"] == 1


# --- the host ---


@pytest.fixture
def root(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Return a function that writes a file tree and gives its root."""

    def write(files: dict[str, str]) -> Path:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return write


Tree = Callable[[dict[str, str]], Path]


def amd_of(root: Path) -> dict[str, Any]:
    """Return the AMD section as the report shows it, looked at in this process."""
    found = amd.amd(root)
    return amd.assembled({name: section() for name, section in found.sections.items()}, {}, root)


def nvidia_of(root: Path) -> dict[str, Any]:
    """Return the NVIDIA section as the report shows it, looked at in this process."""
    found = nvidia.nvidia(root)
    if not isinstance(found, More):
        return found
    return nvidia.assembled(found.value, {name: section() for name, section in found.sections.items()}, {})


def test_an_empty_tree_gives_nulls_and_no_zero(root: Tree) -> None:
    found = host.system(root({}))
    assert (found["uptime_s"], found["load"], found["boot_id"]) == (None, None, None)
    assert found["memory"] == {"total_mib": None, "available_mib": None}
    assert found["os"] == {"id": None, "version_id": None, "pretty_name": None}


def test_an_arm_board_names_itself_by_its_device_tree(root: Tree) -> None:
    tree = {
        "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 2000.00\n",
        "proc/device-tree/model": "NVIDIA DGX Spark\0",
    }
    assert host.system(root(tree))["cpu"]["model"] == "NVIDIA DGX Spark"


def test_a_pending_reboot_names_its_packages(root: Tree) -> None:
    assert host.upkeep(root({"run/utmp": ""})) == {"reboot_pending": False, "reboot_because": []}
    tree = {
        "run/reboot-required": "*** System restart required ***\n",
        "run/reboot-required.pkgs": "linux\nlibc6\nlinux\n",
    }
    assert host.upkeep(root(tree)) == {"reboot_pending": True, "reboot_because": ["libc6", "linux"]}


def test_the_clock_section_asks_the_kernel_and_changes_nothing() -> None:
    found = host.clock()
    assert (found["synchronised"] is None) == (found["because"] is not None)


# --- network cards ---


def _nic_tree(**more: str) -> dict[str, str]:
    files = {
        "sys/class/net/enp3s0/type": "1\n",
        "sys/class/net/enp3s0/address": "52:54:00:66:00:11\n",
        "sys/class/net/enp3s0/operstate": "up\n",
        "sys/class/net/enp3s0/speed": "2500\n",
        "sys/class/net/enp3s0/device/vendor": "0x10ec\n",
        "sys/class/net/lo/type": "772\n",
        "sys/class/net/docker0/type": "1\n",
        "sys/class/net/docker0/speed": "-1\n",
    }
    return {**files, **{f"sys/class/net/enp3s0/{name}": text for name, text in more.items()}}


def _ioctl(error: int = 0, supported: int = 0, enabled: int = 0) -> Callable[[Any, int, bytes], int]:
    """Return a stand-in for the kernel's answer to ETHTOOL_GWOL, written to where the request points."""

    def answer(door: Any, request: int, ifreq: bytes) -> int:
        import ctypes

        if error:
            raise OSError(error, os.strerror(error))
        assert request == 0x8946
        _, address = struct.unpack("16sP16x", ifreq)
        (command,) = struct.unpack("I", ctypes.string_at(address, 4))
        assert command == 5
        ctypes.memmove(address + 4, struct.pack("II", supported, enabled), 8)
        ctypes.memmove(address + 12, b"SECRET", 6)
        return 0

    return answer


def test_an_armed_card_is_told_from_one_that_is_not(root: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nics.fcntl, "ioctl", _ioctl(supported=0b111111, enabled=0b100000))
    real, virtual = nics.nics(root(_nic_tree()))
    assert (real["name"], real["mac"], real["speed_mbit"]) == ("enp3s0", "52:54:00:66:00:11", 2500)
    assert (real["physical"], virtual["physical"], virtual["speed_mbit"]) == (True, False, None)
    assert real["wol"] == {"armed": True, "source": "ethtool", "supported": "pumbag", "enabled": "g"}
    monkeypatch.setattr(nics.fcntl, "ioctl", _ioctl(supported=0b111111))
    assert nics.nics(root({}))[0]["wol"]["armed"] is False


def test_the_secureon_password_never_enters_the_report(root: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nics.fcntl, "ioctl", _ioctl(supported=0b1111111, enabled=0b1000000))
    found = json.dumps(nics.nics(root(_nic_tree())))
    assert '"enabled": "s"' in found
    assert "SECRET" not in found and "53:45:43" not in found


@pytest.mark.parametrize(("said", "armed"), [("enabled\n", True), ("disabled\n", False)])
def test_without_root_sysfs_tells_whether_the_card_may_wake_the_host(
    root: Tree, monkeypatch: pytest.MonkeyPatch, said: str, armed: bool
) -> None:
    monkeypatch.setattr(nics.fcntl, "ioctl", _ioctl(error=1))
    found = nics.nics(root(_nic_tree(**{"device/power/wakeup": said})))[0]["wol"]
    assert (found["armed"], found["source"], found["enabled"]) == (armed, "sysfs", None)


def test_what_nobody_tells_is_null_with_a_reason(root: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nics.fcntl, "ioctl", _ioctl(error=1))
    found = nics.nics(root(_nic_tree()))[0]["wol"]
    assert (found["armed"], found["because"]) == (None, "ethtool: Operation not permitted")


# --- AMD ---


def _amd_tree(card: str, **files: str) -> dict[str, str]:
    base = {"vendor": "0x1002", "device": "0x744c", "uevent": "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0\n"}
    return {f"sys/class/drm/{card}/device/{name}": text for name, text in {**base, **files}.items()}


def test_an_amd_card_shows_its_memory_and_cap_in_watts(root: Tree) -> None:
    tree = _amd_tree(
        "card1",
        **{
            "mem_info_vram_total": "25753026560",
            "hwmon/hwmon3/power1_average": "187500000",
            "hwmon/hwmon3/power1_cap": "300000000",
            "hwmon/hwmon3/power1_cap_min": "0",
        },
    )
    (gpu,) = amd_of(root({**tree, "sys/class/drm/card1-DP-1/status": "connected"}))["gpus"]
    assert (gpu["pci"], gpu["driver"], gpu["vram_mib"]) == ("0000:03:00.0", "amdgpu", 24560)
    assert (gpu["power_w"], gpu["cap_w"], gpu["cap_min_w"], gpu["cap_max_w"]) == (187.5, 300.0, 0.0, None)


def test_a_strix_halo_without_a_cap_has_null_and_not_zero(root: Tree) -> None:
    tree = _amd_tree("card0", **{"hwmon/hwmon1/power1_input": "9000000", "mem_info_gtt_total": str(96 << 30)})
    (gpu,) = amd_of(root(tree))["gpus"]
    assert (gpu["power_w"], gpu["cap_w"], gpu["vram_mib"], gpu["gtt_mib"]) == (9.0, None, None, 96 << 10)


def test_cards_of_other_makers_are_no_amd_cards(root: Tree) -> None:
    assert amd_of(root(_amd_tree("card0", vendor="0x10de"))) == {"gpus": []}


# --- NVIDIA: the real binding over a library made of Python functions ---


class FakeNvml:
    """Stands in for libnvidia-ml: functions by name, arguments as the binding gives them to C."""

    def __init__(self, *, cards: int = 1, init: int = 0, fail: dict[str, int] | None = None) -> None:
        self.cards, self.init, self.fail = cards, init, fail or {}

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def call(*args: Any) -> int:
            if name.startswith("nvmlInit"):
                return self.init
            if name in self.fail:
                return self.fail[name]
            answer = _ANSWERS.get(name)
            if name == "nvmlDeviceGetCount_v2":
                args[0]._obj.value = self.cards
                return 0
            if answer is None:
                return pynvml.NVML_ERROR_NOT_SUPPORTED
            answer(*args)
            return 0

        return call


def _buffer(text: bytes) -> Callable[..., None]:
    def fill(*args: Any) -> None:
        args[-2].value = text

    return fill


def _value(number: int) -> Callable[..., None]:
    def fill(*args: Any) -> None:
        args[-1]._obj.value = number

    return fill


def _fields(**values: Any) -> Callable[..., None]:
    def fill(*args: Any) -> None:
        for name, value in values.items():
            setattr(args[-1]._obj, name, value)

    return fill


def _range(card: Any, low: Any, high: Any) -> None:
    low._obj.value, high._obj.value = 100_000, 400_000


_ANSWERS: dict[str, Callable[..., None]] = {
    "nvmlSystemGetDriverVersion": _buffer(b"580.95.05"),
    "nvmlSystemGetNVMLVersion": _buffer(b"13.580.95.05"),
    "nvmlSystemGetCudaDriverVersion": _value(13010),
    "nvmlDeviceGetHandleByIndex_v2": lambda index, handle: None,
    "nvmlDeviceGetUUID": _buffer(b"GPU-11111111-2222-3333-4444-000000000000"),
    "nvmlDeviceGetName": _buffer(b"NVIDIA GeForce RTX 3090"),
    "nvmlDeviceGetPciInfo_v3": _fields(busId=b"00000000:3B:00.0"),
    "nvmlDeviceGetMemoryInfo": _fields(total=24 << 30, free=20 << 30, used=4 << 30),
    "nvmlDeviceGetUtilizationRates": _fields(gpu=37, memory=12),
    "nvmlDeviceGetTemperature": _value(61),
    "nvmlDeviceGetPowerUsage": _value(248_310),
    "nvmlDeviceGetPowerManagementLimit": _value(200_000),
    "nvmlDeviceGetPowerManagementDefaultLimit": _value(350_000),
    "nvmlDeviceGetPowerManagementLimitConstraints": _range,
}


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[FakeNvml], None]]:
    """Return a function that installs a driver library."""

    def install(library: FakeNvml) -> None:
        monkeypatch.setattr(nvml.ctypes, "CDLL", lambda name, **_: library)
        monkeypatch.setattr(pynvml, "nvmlLib", library)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})

    return install


Driver = Callable[[FakeNvml], None]
CARD = {
    "sys/bus/pci/devices/0000:3b:00.0/vendor": "0x10de",
    "sys/bus/pci/devices/0000:3b:00.0/class": "0x030200",
}


def test_an_nvidia_card_is_told_by_uuid_with_its_cap_in_watts(root: Tree, driver: Driver) -> None:
    driver(FakeNvml())
    found = nvidia_of(root(CARD))
    assert (found["driver"], found["cuda"]) == ("580.95.05", "13.1")
    assert found["gpus"] == [
        {
            "index": 0,
            "uuid": "GPU-11111111-2222-3333-4444-000000000000",
            "name": "NVIDIA GeForce RTX 3090",
            "pci": "0000:3b:00.0",
            "asleep": False,
            "code": None,
            "vram_mib": 24 << 10,
            "vram_used_mib": 4 << 10,
            "busy_percent": 37,
            "temperature_c": 61,
            "power_w": 248.3,
            "cap_w": 200.0,
            "cap_default_w": 350.0,
            "cap_min_w": 100.0,
            "cap_max_w": 400.0,
            "cap_enforced_w": None,
            "persistence": None,
            "compute_capability": None,
            "architecture": None,
            "pcie": None,
            "clocks": None,
            "ecc": None,
            "nvlink": None,
            "errors": {},
        }
    ]


def test_what_a_card_does_not_have_is_null_and_no_error(root: Tree, driver: Driver) -> None:
    unsupported = pynvml.NVML_ERROR_NOT_SUPPORTED
    names = [
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetPowerManagementLimit",
        "nvmlDeviceGetPowerManagementDefaultLimit",
        "nvmlDeviceGetPowerManagementLimitConstraints",
    ]
    driver(FakeNvml(fail=dict.fromkeys(names, unsupported)))
    (gpu,) = nvidia_of(root(CARD))["gpus"]
    assert [gpu[key] for key in ("vram_mib", "cap_w", "cap_default_w", "cap_min_w")] == [None] * 4
    assert gpu["errors"] == {}


def test_a_lost_card_stays_in_the_list_with_its_error(root: Tree, driver: Driver) -> None:
    driver(FakeNvml(cards=2, fail={"nvmlDeviceGetHandleByIndex_v2": pynvml.NVML_ERROR_GPU_IS_LOST}))
    found = nvidia_of(root(CARD))["gpus"]
    assert [gpu["uuid"] for gpu in found] == [None, None]
    assert "lost" in found[0]["errors"]["card"].lower()


def test_a_value_that_fails_is_null_with_its_reason(root: Tree, driver: Driver) -> None:
    driver(FakeNvml(fail={"nvmlDeviceGetPowerUsage": pynvml.NVML_ERROR_UNKNOWN}))
    (gpu,) = nvidia_of(root(CARD))["gpus"]
    assert gpu["power_w"] is None and gpu["cap_w"] == 200.0
    assert set(gpu["errors"]) == {"power_w"}


def test_a_driver_that_was_updated_under_its_module_asks_for_a_reboot(root: Tree, driver: Driver) -> None:
    driver(FakeNvml(init=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH))
    with pytest.raises(Finding, match="NVML does not work") as caught:
        nvidia.nvidia(root(CARD))
    assert "reboot the host" in caught.value.hint


def test_a_library_without_cards_is_no_finding(root: Tree, driver: Driver) -> None:
    driver(FakeNvml(init=pynvml.NVML_ERROR_DRIVER_NOT_LOADED))
    assert nvidia_of(root({}))["gpus"] == []
    with pytest.raises(Finding, match="NVML does not work"):
        nvidia.nvidia(root(CARD))


def test_a_card_without_a_driver_is_a_finding_and_no_card_is_none(
    root: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str, **_: object) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(nvml.ctypes, "CDLL", absent)
    assert nvidia_of(root({})) == {"driver": None, "nvml": None, "cuda": None, "gpus": []}
    with pytest.raises(Finding, match=r"card at 0000:3b:00\.0, but the driver's library"):
        nvidia.nvidia(root(CARD))
