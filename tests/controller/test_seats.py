"""Whether another controller's process is dead is known for certain, or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from labctl.adapters.seats import Seats

SITS = """
import sys, time
from pathlib import Path
from labctl.adapters.seats import Seats
Seats(Path(sys.argv[1])).sit("hub 1")
print("sits", flush=True)
time.sleep(600)
"""


def test_a_process_that_lives_or_is_frozen_keeps_its_seat_and_one_that_is_killed_does_not(
    tmp_path: Path,
) -> None:
    seats = Seats(tmp_path / "seats")
    argv = [sys.executable, "-c", SITS, str(tmp_path / "seats")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "sits\n"
            assert not seats.empty("hub 1")
            other.send_signal(signal.SIGSTOP)
            assert not seats.empty("hub 1")
            with pytest.raises(BlockingIOError):
                seats.sit("hub 1")
        finally:
            other.kill()
    assert seats.empty("hub 1")


def test_of_a_process_that_never_sat_here_nothing_is_known(tmp_path: Path) -> None:
    assert not Seats(tmp_path / "nowhere").empty("hub 1")
    (tmp_path / "kept").mkdir()
    seats = Seats(tmp_path)
    seats.sit("hub 2")
    assert not any(seats.empty(name) for name in ("hub 1", "hub 2", "kept", "../kept", ""))
    seats.leave()
    assert seats.empty("hub 2")


def test_a_process_that_fails_at_each_start_does_not_fill_the_folder(tmp_path: Path) -> None:
    for number in range(40):
        seats = Seats(tmp_path)
        seats.sit(f"hub {number}")
        for path in tmp_path.iterdir():
            os.utime(path, (0, path.stat().st_mtime_ns / 1e9 - 1))
        seats.leave()
    assert len(list(tmp_path.iterdir())) <= 17
    assert Seats(tmp_path).empty("hub 39")
