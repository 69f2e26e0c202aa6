"""Thirty simulated days of forty hosts: the real tick and store, with everything that must hold in each tick.

Usage: python -m bench.simulate [DAYS] [HOSTS] [SEED]
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "controller"))

from month import Days

LIMIT_S = 60.0


def main(days: float = 30, hosts: int = 40, seed: int | None = None) -> int:
    """Live the days, print what came of them, and return 0 if nothing was wrong and it was quick enough."""
    seed = random.SystemRandom().randrange(1 << 31) if seed is None else seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        began, spent = time.monotonic(), time.process_time()
        life = Days(Path(folder), days=days, hosts=hosts, seed=seed).run()
        took, spent = time.monotonic() - began, time.process_time() - spent
    load = os.getloadavg()[0]
    print(f"{days:g} days of {hosts} hosts in {took:.0f} s ({spent:.0f} s of CPU), load {load:.1f}")
    waited = sorted(life.waited) or [0.0]
    print(f"{life.ticks} ticks, {life.sleeps} sleeps, {life.served} guests served")
    print(f"guests waited {statistics.median(waited):.0f} s (median), {waited[-1]:.0f} s at most")
    for wrong in life.wrongs[:20]:
        print(f"WRONG: {wrong}")
    return 0 if not life.wrongs and spent <= LIMIT_S else 1


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(main(*(float(words[0]),) * bool(words), *(int(word) for word in words[1:])))
