"""A year of 20 hosts in the energy ledger: how large the store is, and how long the dearest answers take.

The rows are put there by SQL, as many as a controller makes: three things that a host did in each hour and
day, two in each minute of the two days that minutes are kept, and three models whose tokens were counted. The
answers are those that the controller gives, with a tariff whose windows need sums by the hour of the week.

Usage: python -m bench.energy [HOSTS] [DAYS]
"""

from __future__ import annotations

import resource
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from labctl.adapters.store import open_store
from labctl.controller.energy import account_of
from labctl.domain.energy.tariff import EnergyPolicy, Price, Tariff
from labctl.domain.energy.terms import Doing, Grain
from labctl.domain.sleep.terms import Window

SIZE_LIMIT_MB = 200
ANSWER_LIMIT_S = 1.0
NOW = 1_800_000_000
_DOINGS = (Doing.BUSY, Doing.LOADED, Doing.ASLEEP)
_MODELS = ("qwen3-30b-a3b", "llama-3.3-70b", "bge-m3")
_NIGHT = Price((Window(frozenset(range(7)), 22 * 60, 6 * 60),), 0.2)
POLICY = EnergyPolicy("Europe/Berlin", Tariff(0.35, "EUR", (_NIGHT,)))


def fill(path: Path, hosts: int, days: int) -> None:
    """Put the rows there."""
    tables = (
        ("energy_minute", Grain.MINUTE, 2 * 1440, 2),
        ("energy_hour", Grain.HOUR, days * 24, 3),
        ("energy_day", Grain.DAY, days, 3),
    )
    names = [f"gpu-box-{number:02}" for number in range(hosts)]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        for table, grain, count, doings in tables:
            last = NOW - NOW % grain
            connection.executemany(
                f"INSERT INTO {table} (at, host, doing, seconds, metered_s, joules, guessed) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (last - step * grain, name, str(doing), grain / doings, grain / 3, 123456.78 + step, 9.5)
                    for step in reversed(range(count))
                    for name in names
                    for doing in _DOINGS[:doings]
                ),
            )
        for table, grain, count in (("token_hour", Grain.HOUR, days * 24), ("token_day", Grain.DAY, days)):
            last = NOW - NOW % grain
            connection.executemany(
                f"INSERT INTO {table} (at, host, model, prompt, answer) VALUES (?, ?, ?, ?, ?)",
                (
                    (last - step * grain, name, model, 90000 + step, 30000 + step)
                    for step in reversed(range(count))
                    for name in names
                    for model in _MODELS
                ),
            )
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def main(hosts: int = 20, days: int = 365) -> int:
    """Fill, measure, print, and return 0 where both limits hold."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        open_store(path, create=True).close()
        fill(path, hosts, days)
        size_mb = path.stat().st_size / 1e6
        print(f"{hosts} hosts, {days} days: {size_mb:.0f} MB (limit {SIZE_LIMIT_MB})")
        store = open_store(path, create=False)
        names = [f"gpu-box-{number:02}" for number in range(hosts)]
        worst = 0.0
        for text, for_s in (("a day", 86400), ("30 days", 30 * 86400), ("a year", 365 * 86400)):
            taken = []
            for _ in range(5):
                began = time.perf_counter()
                answer = account_of(store, POLICY, names, now=float(NOW), for_s=float(for_s))
                taken.append(time.perf_counter() - began)
            worst = max(worst, sorted(taken)[2])
            print(f"{text}: {sorted(taken)[2]:.3f} s, {answer.rack.kwh:.0f} kWh (limit {ANSWER_LIMIT_S} s)")
        store.close()
    print(f"memory at its peak: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    return 0 if size_mb < SIZE_LIMIT_MB and worst < ANSWER_LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
