"""What a watch costs a host: memory, and CPU time at the interval that the controller uses.

The watch runs as it does on a host, under the distribution's Python. It looks at this machine, in whose tree
only the PCI bus is another one, with fake NVIDIA cards on it and a fake driver's library. CPU seconds are
those of the process and of the children that it waited for, over a stretch after the first lines; they are
divided by the time that so many looks stand for at the interval, so that a short run says what a long one
would. Memory is the process's resident set at its peak, and its proportional share.

Usage: python -m bench.agent_watch [CARDS] [LOOKS] [INTERVAL_S]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from labctl import wiring
from labctl.lab.fake import boards, nvml
from labctl.render.agent_bundle import zipapp_bytes

RSS_LIMIT_MB = 25
CPU_LIMIT_PERCENT = 0.5
_WARM_UP = 3
_WATCH = """\
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from labctl.agent import watch
watch.watch(Path(sys.argv[2]))
"""
_TICK = os.sysconf("SC_CLK_TCK")


def main(cards: int = 4, looks: int = 200, interval_s: float = 10.0) -> int:
    """Measure, print, and return 0 where both limits hold."""
    with tempfile.TemporaryDirectory() as folder:
        argv, environment = _prepared(Path(folder), cards)
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, env=environment, stdin=pipe, stdout=pipe) as watch:
            _look(watch, _WARM_UP)
            before, began = _cpu_s(watch.pid), time.monotonic()
            _look(watch, looks)
            spent, lasted = _cpu_s(watch.pid) - before, time.monotonic() - began
            rss, pss = _memory_mb(watch.pid)
            assert watch.stdin is not None
            watch.stdin.close()
    percent = 100 * spent / (looks * interval_s)
    processes = sum(path.name.isdigit() for path in Path("/proc").iterdir())
    print(f"watch with {cards} cards on a machine with {processes} processes, load {os.getloadavg()[0]:.1f}")
    print(f"{looks} looks in {lasted:.1f} s: {1000 * spent / looks:.1f} ms of CPU each")
    print(f"CPU at {interval_s:g} s: {percent:.3f} % of one core (limit {CPU_LIMIT_PERCENT} %)")
    print(f"memory: {rss:.1f} MB resident at its peak (limit {RSS_LIMIT_MB} MB), {pss:.1f} MB proportional")
    return 0 if rss < RSS_LIMIT_MB and percent < CPU_LIMIT_PERCENT else 1


def _prepared(folder: Path, cards: int) -> tuple[list[str], dict[str, str]]:
    """Return the command and an environment in which it finds the fake cards."""
    agent = folder / "agent.pyz"
    agent.write_bytes(zipapp_bytes())
    made = boards.cards(("RTX 3090",) * cards)
    state = folder / "nvidia.state"
    state.write_text("clients=keep\n" + nvml.state_text(made))
    library = nvml.library(wiring.cache_home() / "lab")
    environment = {
        "PATH": "/usr/bin:/bin",
        "LD_LIBRARY_PATH": str(library.parent),
        "FAKE_NVML_STATE": str(state),
    }
    root = _tree(folder / "root", [card.pci for card in made])
    return ["/usr/bin/python3", "-IS", "-c", _WATCH, str(agent), str(root)], environment


def _tree(root: Path, cards: list[str]) -> Path:
    """Return this machine's files with other cards on the PCI bus."""
    bus = root / "sys/bus/pci"
    (bus / "drivers/nvidia").mkdir(parents=True)
    for path in [*Path("/").iterdir(), *Path("/sys").iterdir()]:
        if path.name not in ("sys", "bus"):
            (root / path.relative_to("/")).symlink_to(path)
    (bus / "devices").mkdir()
    for pci in cards:
        card = bus / "devices" / pci
        (card / "power").mkdir(parents=True)
        for name, text in (("vendor", "0x10de"), ("class", "0x030000"), ("power/runtime_status", "active")):
            (card / name).write_text(text)
        (card / "driver").symlink_to(bus / "drivers/nvidia")
    return root


def _look(watch: subprocess.Popen[bytes], count: int) -> None:
    assert watch.stdin is not None and watch.stdout is not None
    for _ in range(count):
        watch.stdin.write(b'{"every_s": 3600, "now": true}\n')
        watch.stdin.flush()
        readings = json.loads(watch.stdout.readline())["readings"]
    silent = [f"{one['signal']}: {one['because']}" for one in readings if one["busy"] is None]
    print(f"not readable here: {'; '.join(silent) or 'nothing'}")


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and of the children that it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICK


def _memory_mb(pid: int) -> tuple[float, float]:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    shares = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    pss = next(line for line in shares if line.startswith("Pss:"))
    return int(status["VmHWM"].split()[0]) / 1024, int(pss.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3]), *map(float, sys.argv[3:4])))
