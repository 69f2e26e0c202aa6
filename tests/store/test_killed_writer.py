"""A process that is killed in the middle takes its transaction along, and nothing that was committed."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from lives import NOW, bring, lease, row

from labctl.domain.sleep.lifecycle import Mode
from labctl.ports.store import Store

WRITER = Path(__file__).with_name("writer.py")


@pytest.mark.parametrize("seed", range(4))
def test_what_was_committed_survives_a_kill_and_the_rest_is_gone(
    store: Store, address: str, seed: int
) -> None:
    bring(store, Mode.READY)
    bring(store, Mode.READY, host="other")
    store.register("gateway", "gateway", now=NOW)
    process = subprocess.Popen([sys.executable, str(WRITER), address], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as pipe:
        said = [pipe.readline().split() for _ in range(random.Random(seed).randrange(1, 60))]
        process.kill()
        said += [words for line in pipe if len(words := line.split()) == 2]
    process.wait()
    held = [int(words[1]) for words in said if words[0] == "hold"]
    last = [Mode(words[1]) for words in said if words[0] == "mode"][-1]
    following = {
        Mode.READY: Mode.DRAINING,
        Mode.DRAINING: Mode.SUSPENDING,
        Mode.SUSPENDING: Mode.ASLEEP,
        Mode.ASLEEP: Mode.VERIFYING,
        Mode.VERIFYING: Mode.READY,
    }
    # Of the one thing under way when it died, nobody knows whether it was committed.
    box = row(store)
    assert box.mode in (last, following[last])
    assert (box.order is not None) == (box.mode is Mode.SUSPENDING)
    kept = [hold.id for hold in row(store, "other").holds]
    assert kept[: len(held)] == held
    assert len(kept) - len(held) in (0, 1)
    # Nobody waits for the dead.
    lease(store, "other")
    if "://" not in address:
        with closing(sqlite3.connect(address)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
