"""The energy ledger in both databases: sums by span, hours of the week, retention, and a year's size."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from labctl.adapters.store import SqlStore, open_store
from labctl.domain.energy.terms import KEPT_S, Doing, Grain, Spent, Tokens
from labctl.ports.store import Store

MONDAY = 1_799_625_600  # 2027-01-11 00:00 UTC, a Monday


def busy(at: int, joules: float = 600.0, host: str = "box") -> Spent:
    return Spent(at, host, Doing.BUSY, 60.0, 60.0, joules, 1.0)


def test_what_is_added_is_in_its_minute_its_hour_and_its_day(store: SqlStore) -> None:
    store.add_spent([busy(MONDAY + 61), busy(MONDAY + 3700), busy(MONDAY + 90)])
    found = {
        grain: [
            (row.at - MONDAY, row.joules) for row in store.spans(grain, since=0, until=2 * MONDAY, hosts=[])
        ]
        for grain in Grain
    }
    assert found == {
        Grain.MINUTE: [(60, 1200.0), (3660, 600.0)],
        Grain.HOUR: [(0, 1200.0), (3600, 600.0)],
        Grain.DAY: [(0, 1800.0)],
    }


def test_hosts_and_doings_stand_apart_and_only_the_time_that_is_asked_for_counts(store: SqlStore) -> None:
    store.add_spent(
        [busy(MONDAY), busy(MONDAY, host="nas"), Spent(MONDAY, "box", Doing.ASLEEP, 60, guessed=180)]
    )
    store.add_spent([busy(MONDAY + 3600), busy(MONDAY - 3600)])
    sums = store.spent(Grain.HOUR, since=MONDAY, until=MONDAY + 3600, offset_s=None)
    assert sorted(
        (one.host, str(one.doing), one.seconds, one.metered_s, one.joules, one.guessed) for one in sums
    ) == [
        ("box", "asleep", 60.0, 0.0, 0.0, 180.0),
        ("box", "busy", 60.0, 60.0, 600.0, 1.0),
        ("nas", "busy", 60.0, 60.0, 600.0, 1.0),
    ]
    assert {one.slot for one in sums} == {None}
    (only,) = store.spans(Grain.HOUR, since=MONDAY, until=MONDAY + 60, hosts=["nas"])
    assert only.host == "nas"


def test_hours_of_the_week_are_those_of_the_racks_clock(store: SqlStore) -> None:
    store.add_spent([busy(MONDAY), busy(MONDAY + 7 * 86400 + 120), busy(MONDAY + 6 * 86400 + 23 * 3600)])
    for grain in (Grain.MINUTE, Grain.HOUR):
        slots = {
            offset: sorted(
                (one.slot, one.joules)
                for one in store.spent(grain, since=0, until=2 * MONDAY, offset_s=offset)
            )
            for offset in (0, 3600, -5 * 3600)
        }
        assert slots == {
            0: [(0, 1200.0), (167, 600.0)],
            3600: [(0, 600.0), (1, 1200.0)],
            -5 * 3600: [(162, 600.0), (163, 1200.0)],
        }


def test_tokens_add_up_by_host_and_model(store: SqlStore) -> None:
    store.add_tokens([Tokens(MONDAY + 5, "box", "qwen", 10, 20), Tokens(MONDAY + 9, "box", "phi", 1, 2)])
    store.add_tokens([Tokens(MONDAY + 3000, "box", "qwen", 100, 200)])
    for grain in Grain:
        assert store.tokens(grain, since=MONDAY, until=MONDAY + 3600) == [
            Tokens(MONDAY, "box", "phi", 1, 2),
            Tokens(MONDAY, "box", "qwen", 110, 220),
        ]
    assert store.tokens(Grain.HOUR, since=MONDAY + 3600, until=MONDAY + 7200) == []


def test_nothing_added_is_no_transaction(store: SqlStore) -> None:
    store.add_spent([])
    store.add_tokens([])
    assert store.spans(Grain.DAY, since=0, until=2 * MONDAY, hosts=[]) == []


def test_each_grain_is_forgotten_in_its_own_time(store: SqlStore) -> None:
    now = MONDAY + 500 * 86400
    old = [int(now - KEPT_S[grain]) - 2 * 86400 for grain in Grain]
    store.add_spent([busy(at) for at in (*old, now)])
    store.add_tokens([Tokens(at, "box", "qwen", 1, 1) for at in (old[1], now)])
    store.forget_energy(now=float(now))
    kept = {
        grain: [row.at for row in store.spans(grain, since=0, until=2 * now, hosts=[])] for grain in Grain
    }
    assert [len(kept[grain]) for grain in Grain] == [1, 2, 3]
    assert len(store.tokens(Grain.HOUR, since=0, until=2 * now)) == 1
    assert store.forget_energy(now=float(now)) == 0


def test_two_that_add_at_once_lose_nothing(opened: Callable[[], Store]) -> None:
    one, other = opened(), opened()
    for _ in range(3):
        one.add_tokens([Tokens(MONDAY, "box", "qwen", 1, 1), Tokens(MONDAY, "nas", "phi", 1, 1)])
        other.add_tokens([Tokens(MONDAY, "nas", "phi", 1, 1), Tokens(MONDAY, "box", "qwen", 1, 1)])
    assert [row.answer for row in one.tokens(Grain.DAY, since=MONDAY, until=MONDAY + 1)] == [6, 6]


def test_a_year_of_twenty_hosts_would_stay_below_200_mb(tmp_path: Path) -> None:
    """A twentieth of it: one host that does everything in every hour; ``bench/energy.py`` has all of it."""
    path = tmp_path / "store.db"
    store = open_store(path, create=True)
    empty = path.stat().st_size
    with closing(sqlite3.connect(path)) as connection:
        for table, grain, count in (
            ("energy_minute", 60, 2 * 1440),
            ("energy_hour", 3600, 366 * 24),
            ("energy_day", 86400, 366),
        ):
            doings = list(Doing) if grain > 60 else [Doing.BUSY, Doing.LOADED]
            rows = (
                (MONDAY + step * grain, "gpu-box-01", str(doing), 599.5, 599.5, 123456.7 + step, 12.5)
                for step in range(count)
                for doing in doings
            )
            into = f"{table} (at, host, doing, seconds, metered_s, joules, guessed)"
            connection.executemany(f"INSERT INTO {into} VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert 20 * (path.stat().st_size - empty) < 200e6
    began = time.process_time()
    sums = store.spent(Grain.HOUR, since=MONDAY, until=MONDAY + 366 * 86400, offset_s=3600)
    assert len(sums) == 168 * len(Doing)
    assert time.process_time() - began < 1.0
    store.close()
