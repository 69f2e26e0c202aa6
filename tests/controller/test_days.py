"""A day of ten hosts, ticked through: nobody is hurt, nobody waits for ever, and what is stored is true."""

from __future__ import annotations

from pathlib import Path

from month import Days


def test_a_day_of_ten_hosts_hurts_nobody(tmp_path: Path) -> None:
    life = Days(tmp_path, days=1, hosts=10, seed=20261128).run()
    assert life.wrongs == [], f"seed {life.seed}"
    assert life.sleeps >= 10 and life.served >= 5
