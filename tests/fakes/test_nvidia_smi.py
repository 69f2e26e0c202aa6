"""The stand-in for nvidia-smi says, returns and changes what the real one does over the same (fake) library.

The real one comes from Debian's non-free archive into a cache, if this machine's apt knows where that is; it
is run over the fake NVML together with ``smi_table.c``. Where it can't be had, its comparisons are skipped
with the reason, and the stand-in is still held to the exit statuses.
"""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import pynvml
import pytest
from debian_programs import unpacked

from fake_gpus import FakeNvml, MakeNvml
from labctl import wiring
from labctl.lab.fake import nvml as fake
from labctl.lab.supplies import nvidia_smi

CACHE = wiring.cache_home() / "lab"
Run = Callable[..., subprocess.CompletedProcess[str]]
MODELS = ("RTX 3090", "L40S", "GB10")
COLUMNS = (
    "index,gpu_name,uuid,pci.bus_id,pci.bus,pci.device_id,serial,vbios_version,driver_version,count,persistence_mode,"
    "pcie.link.gen.current,pcie.link.gen.max,pcie.link.width.current,pcie.link.width.max,fan.speed,pstate,"
    "memory.total,memory.used,memory.free,utilization.gpu,utilization.memory,ecc.mode.current,ecc.mode.pending,"
    "ecc.errors.corrected.volatile.total,ecc.errors.uncorrected.aggregate.total,temperature.gpu,power.management,"
    "power.draw,power.limit,power.default_limit,power.min_limit,power.max_limit,clocks.gr,clocks.sm,clocks.mem,"
    "clocks.max.sm,compute_cap"
)


@pytest.fixture
def stand_in(tmp_path: Path) -> Run:
    program = tmp_path / "nvidia-smi"
    program.write_bytes(nvidia_smi())

    def run(gpus: FakeNvml, *argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(program), *argv]
        return subprocess.run(command, env=gpus.env(), capture_output=True, text=True, timeout=30)

    return run


@pytest.fixture(scope="session")
def library_for_real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake library with the table that the real program wants, and a stub for each call that it lacks."""
    if (gcc := fake.compiler()) is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("real")
    code = Path(fake.__file__).with_name("fakenvml.c").read_text()
    code += Path(__file__).with_name("smi_table.c").read_text()
    asked = set(re.findall(r'"(nvml[A-Za-z0-9_]+)"', Path(pynvml.__file__).read_text()))
    lacking = sorted(name for name in asked if not re.search(rf"\b{name}\b", code))
    code += "".join(f"ret {name}(void) {{ return NOTSUP; }}\n" for name in lacking)
    (folder / "both.c").write_text(code)
    options = ["-std=gnu11", "-O1", "-shared", "-fPIC", f"-Wl,-soname,{fake.SONAME}"]
    built = folder / fake.SONAME
    subprocess.run([gcc, *options, "-o", str(built), str(folder / "both.c")], check=True)
    return built


@pytest.fixture(scope="session")
def real_program() -> Path:
    found = unpacked(CACHE, "nvidia-smi", component="non-free")
    return next(
        path for path in found.rglob("nvidia-smi") if path.is_file() and path.parent.name == "current"
    )


@pytest.fixture
def real(library_for_real: Path, real_program: Path) -> Run:
    def run(gpus: FakeNvml, *argv: str) -> subprocess.CompletedProcess[str]:
        env = gpus.env() | {"LD_LIBRARY_PATH": str(library_for_real.parent)}
        return subprocess.run([str(real_program), *argv], env=env, capture_output=True, text=True, timeout=30)

    return run


def _well(gpus: FakeNvml) -> None:
    """Nothing is wrong."""


def _lost(gpus: FakeNvml) -> None:
    gpus.fault(1, "lost")


def _refuses(gpus: FakeNvml) -> None:
    gpus.fault(1, "refuse")


def _loses_power(gpus: FakeNvml) -> None:
    lost = {f"err.{name}": 15 for name in ("nvmlDeviceGetPowerUsage", "nvmlDeviceGetFieldValues")}
    gpus.change(**{f"gpu1.{key}": value for key, value in lost.items()})


def _none(gpus: FakeNvml) -> None:
    gpus.change(count=0)


def _pulled(gpus: FakeNvml) -> None:
    gpus.fault(0, "removed")


def _persistent(gpus: FakeNvml) -> None:
    for index in range(len(MODELS)):
        gpus.set(index, persistence=1)


SAME = [
    (_well, ["-L"]),
    (_well, [f"--query-gpu={COLUMNS}", "--format=csv"]),
    (_well, ["--query-gpu=index,power.limit", "--format=csv,noheader,nounits", "-i", "1"]),
    (_well, ["--query-gpu=index,nope", "--format=csv"]),
    (_well, ["-i", "0", "-pl", "200"]),
    (_well, ["-i", "0", "-pl", "9999"]),
    (_well, ["-i", "0", "-pl", "0"]),
    (_well, ["-pl", "abc"]),
    (_well, ["-pl", "300"]),
    (_well, ["-i", "9", "-pl", "200"]),
    (_well, ["-pm", "1"]),
    (_well, ["-i", "0", "-pm", "0"]),
    (_well, ["-pm", "2"]),
    (_well, ["-lgc", "210,1400"]),
    (_well, ["-i", "0", "-lgc", "1400,210"]),
    (_well, ["-rgc"]),
    (_well, ["--nope"]),
    (_well, ["-i", "1", "-L"]),
    (_persistent, ["-pl", "300"]),
    (_persistent, ["-lgc", "1000"]),
    (_lost, ["-L"]),
    (_lost, ["--query-gpu=index", "--format=csv"]),
    (_lost, ["-q", "-x"]),
    (_lost, ["-i", "0", "-pl", "300"]),
    (_lost, ["-i", "1", "-pl", "300"]),
    (_refuses, ["-pl", "300"]),
    (_loses_power, ["--query-gpu=index,power.draw,name", "--format=csv,noheader"]),
    (_pulled, ["-L"]),
    (_none, ["-L"]),
    (_none, ["-pl", "200"]),
    (_none, ["--query-gpu=name", "--format=csv"]),
    (FakeNvml.unload, ["-L"]),
    (FakeNvml.unload, ["-q", "-x"]),
    (FakeNvml.mismatch, ["-L"]),
]


@pytest.mark.parametrize(
    ("break_it", "argv"), SAME, ids=lambda part: getattr(part, "__name__", None) or " ".join(part)[:30]
)
def test_it_says_returns_and_changes_what_the_real_one_does(
    nvml: MakeNvml, stand_in: Run, real: Run, break_it: Callable[[FakeNvml], None], argv: list[str]
) -> None:
    results = []
    for run in (stand_in, real):
        gpus = nvml(*MODELS, driver="550.163.01")
        break_it(gpus)
        done = run(gpus, *argv)
        results.append((done.stdout, done.returncode, sorted(gpus.state.read_text().splitlines())))
    assert results[0] == results[1]


def test_its_xml_report_is_a_part_of_the_real_one(nvml: MakeNvml, stand_in: Run, real: Run) -> None:
    gpus = nvml("RTX 3090", "L40S", driver="550.163.01")
    gpus.set(0, clock_gr=1695, clock_sm=1695, util_gpu=93, power_mw=248310, temp=61)
    mine, theirs = (dict(_leaves(ET.fromstring(run(gpus, "-q", "-x").stdout))) for run in (stand_in, real))
    assert len(mine) >= 100
    for told in (mine, theirs):
        del told["timestamp"]
    # Elements come and go with versions: the draw has another name in each.
    mine = {path: told for path, told in mine.items() if path in theirs or not path.endswith("_power_draw")}
    assert {path: theirs.get(path) for path in mine} == mine


def _leaves(element: ET.Element, path: str = "") -> Iterator[tuple[str, str]]:
    cards = 0
    for child in element:
        cards += child.tag == "gpu"
        within = f"{path}/{child.tag}{cards if child.tag == 'gpu' else ''}".strip("/")
        if len(child):
            yield from _leaves(child, within)
        else:
            yield within, (child.text or "").strip()


@pytest.mark.parametrize(
    ("break_it", "argv", "status"),
    [
        (_well, ["-L"], 0),
        (_well, ["-q", "-x"], 0),
        (_well, ["-i", "0", "-pl", "9999"], 2),
        (_refuses, ["-pl", "300"], 4),
        (_none, ["-q", "-x"], 6),
        (FakeNvml.unload, ["-L"], 9),
        (_lost, ["-q", "-x"], 15),
        (FakeNvml.mismatch, ["-L"], 18),
    ],
)
def test_its_exit_status_says_what_is_wrong(
    nvml: MakeNvml, stand_in: Run, break_it: Callable[[FakeNvml], None], argv: list[str], status: int
) -> None:
    gpus = nvml(*MODELS)
    break_it(gpus)
    assert stand_in(gpus, *argv).returncode == status


def test_without_the_library_it_says_so(nvml: MakeNvml, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_bytes(nvidia_smi())
    empty = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, str(program), "-L"], env=empty, capture_output=True, text=True)
    assert (done.returncode, done.stdout[:42]) == (12, "NVIDIA-SMI couldn't find libnvidia-ml.so l")


def test_a_refusal_in_the_middle_leaves_the_cards_before_it_changed(nvml: MakeNvml, stand_in: Run) -> None:
    gpus = nvml("RTX 3090", "RTX 3090", "RTX 3090")
    gpus.fault(1, "refuse")
    assert stand_in(gpus, "-pl", "300").returncode == 4
    assert [gpus.cap_w(index) for index in range(3)] == [300, 350, 350]
