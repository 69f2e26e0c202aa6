"""What one report of the agent costs a host that has 8 NVIDIA cards, as the fakes imitate them.

CPU seconds are those of the whole tree of processes, as the kernel accounts them to who waits for it. Memory
is the peak, over many looks, of what all its processes hold at one moment: as PSS (a page that several share
counts once) and as plain RSS (it counts for each). The first is what the host really gives; both are shown.

Usage: python -m bench.agent_report [CARDS] [RUNS]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from labctl import wiring
from labctl.lab.fake import boards, nvml
from labctl.render.agent_bundle import zipapp_bytes

CPU_LIMIT_S = 0.150
MEMORY_LIMIT_MB = 30
_SIZES = ("Pss", "Rss")


def main(cards: int = 8, runs: int = 15) -> int:
    """Measure, print, and return 0 where both limits hold."""
    with tempfile.TemporaryDirectory() as folder:
        argv, environment = _prepared(Path(folder), cards)
        spent = sorted(_cpu_s(argv, environment) for _ in range(runs))
        peaks = [_peak_mb(argv, environment) for _ in range(max(3, runs // 3))]
    median = statistics.median(spent)
    pss, rss = (max(peak[name] for peak in peaks) for name in _SIZES)
    print(f"report with {cards} cards, {runs} runs, load {os.getloadavg()[0]:.1f}")
    in_ms = (round(value * 1000) for value in (median, spent[0], spent[-1]))
    print("CPU of the tree: median {} ms, best {}, worst {}".format(*in_ms))
    print(f"memory of the tree at its peak: {pss:.1f} MB (PSS), {rss:.1f} MB (sum of RSS)")
    return 0 if median <= CPU_LIMIT_S and rss <= MEMORY_LIMIT_MB else 1


def _prepared(folder: Path, cards: int) -> tuple[list[str], dict[str, str]]:
    """Return the command and an environment in which it finds the fake cards."""
    agent = folder / "agent.pyz"
    agent.write_bytes(zipapp_bytes())
    state = folder / "nvidia.state"
    state.write_text("clients=keep\n" + nvml.state_text(boards.cards(("RTX 3090",) * cards)))
    library = nvml.library(wiring.cache_home() / "lab")
    environment = {
        "PATH": "/usr/bin:/bin",
        "LD_LIBRARY_PATH": str(library.parent),
        "FAKE_NVML_STATE": str(state),
    }
    return ["/usr/bin/python3", "-IS", str(agent), "report"], environment


def _started(argv: list[str], environment: dict[str, str]) -> int:
    nothing = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
    return os.posix_spawn(argv[0], argv, environment, file_actions=[nothing])


def _cpu_s(argv: list[str], environment: dict[str, str]) -> float:
    _, status, used = os.wait4(_started(argv, environment), 0)
    if status:
        raise SystemExit(f"the report failed: status {status}")
    return used.ru_utime + used.ru_stime


def _peak_mb(argv: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Return the most that the tree held, looked at every millisecond or so."""
    pid = _started(argv, environment)
    ours = Path("/proc/self/cmdline").read_bytes()
    while Path(f"/proc/{pid}/cmdline").read_bytes() == ours:
        time.sleep(0.0001)  # not yet the agent, but a copy of this process
    peak = dict.fromkeys(_SIZES, 0.0)
    while not os.waitpid(pid, os.WNOHANG)[0]:
        now = [_memory_mb(process) for process in _tree(pid)]
        for name in _SIZES:
            peak[name] = max(peak[name], sum(one[name] for one in now))
        time.sleep(0.001)
    return peak


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        except OSError:
            continue
        found += [int(child) for child in children.split()]
    return found


def _memory_mb(pid: int) -> dict[str, float]:
    found = dict.fromkeys(_SIZES, 0.0)
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return found
    for name, _, size in (line.partition(":") for line in lines):
        if name in found:
            found[name] = int(size.split()[0]) / 1024
    return found


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
