"""`labctl apply` in a terminal: the question, the bars, Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

from conftest import Desk  # isort: skip


def test_the_plan_is_shown_in_colour_then_a_yes_is_asked_for(desk: Desk) -> None:
    terminal = desk.terminal("apply")
    before = terminal.read_until(r"Apply 6 changes on 3 hosts\? \[y/N\]")
    assert "\nPlan: 6 changes on 3 hosts" in before
    assert "\x1b[32m+new\x1b[0m" in terminal.shown
    assert not desk.notes("do", "go")
    terminal.type("y\n")
    assert terminal.wait() == 0
    assert "Result: 6 changes on 3 hosts" in terminal.text()
    assert re.search(r"gpu-box +ok +2 +3 +0 +0 +1\.5", terminal.text())


def test_enter_means_no_and_changes_nothing(desk: Desk) -> None:
    terminal = desk.terminal("apply")
    terminal.read_until(r"\[y/N\]")
    terminal.type("\n")
    assert terminal.wait() == 130
    assert "Nothing was changed." in terminal.text()
    assert "nas: interrupted" not in terminal.text()
    assert not desk.notes("do", "go")


def test_an_unclear_answer_is_asked_again_and_the_end_of_input_is_a_no(desk: Desk) -> None:
    terminal = desk.terminal("apply")
    terminal.read_until(r"\[y/N\]")
    terminal.type("maybe\n")
    terminal.read_until(r"please answer y or n\n.*\[y/N\]")
    terminal.type("\x04")
    assert terminal.wait() == 130
    assert not desk.notes("do", "go")


def test_a_signal_in_the_moment_before_the_answer_is_read_is_not_lost() -> None:
    program = (
        "import os, signal, sys\n"
        "from labctl.cli import printer\n"
        # select is the last thing before the wait: here is where a Ctrl-C used to vanish.
        "real = printer.select.select\n"
        "def late(*given):\n"
        "    signal.raise_signal(signal.SIGUSR1)\n"
        "    return real(*given)\n"
        "printer.select.select = late\n"
        "came = []\n"
        "signal.signal(signal.SIGUSR1, lambda number, frame: came.append(number) or exit_now())\n"
        "def exit_now():\n"
        "    if len(came) == 3: raise KeyboardInterrupt\n"
        "try:\n"
        "    printer.confirm('well?')\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(7)\n"
    )
    reader, writer = os.pipe()
    done = subprocess.run(
        [sys.executable, "-c", program], stdin=reader, capture_output=True, timeout=30, check=False
    )
    os.close(reader)
    os.close(writer)
    assert (done.returncode, done.stderr) == (7, b"well? [y/N]: \n")


def test_ctrl_c_at_the_question_changes_nothing(desk: Desk) -> None:
    terminal = desk.terminal("apply")
    terminal.read_until(r"\[y/N\]")
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert not desk.notes("do", "go")
    assert "Traceback" not in terminal.text()


def test_each_host_has_a_bar_that_names_what_runs(desk: Desk) -> None:
    desk.play(gpu_box={"fault": "slow"})
    terminal = desk.terminal("apply", "--yes", "--limit", "gpu-box")
    terminal.read_until(r"gpu-box .*1/5 .*Base \| step 1")
    terminal.type("\x03")
    assert terminal.wait() == 130


def test_the_first_ctrl_c_finishes_and_the_second_ends_what_runs(desk: Desk) -> None:
    desk.play(gpu_box={"fault": "stubborn", "changes": 3})
    terminal = desk.terminal("apply", "--yes", "--limit", "gpu-box,nas")
    terminal.read_until(r"Base \| step 2")
    terminal.type("\x03")
    terminal.read_until("press Ctrl-C again to end them now")
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert [order["grace_s"] for order in desk.notes("do", "cancel")] == [10, 0]
    assert "ending the running operations now" in terminal.text()


def test_ctrl_c_reaches_the_parent_alone(desk: Desk) -> None:
    desk.play(gpu_box={"fault": "slow"})
    terminal = desk.terminal("apply", "--yes", "--limit", "gpu-box")
    terminal.read_until(r"Base \| step 1")
    worker = desk.notes("started")[0]["started"]
    assert os.getsid(worker) == worker
    terminal.type("\x03")
    assert terminal.wait() == 130
    # The fake dies of SIGINT at once; that it ended its operation shows that none reached it.
    assert re.search(r"gpu-box +interrupted", terminal.text())


def test_a_failure_is_printed_above_the_bars_as_it_happens(desk: Desk) -> None:
    desk.play(nas={"fault": "fail"})
    terminal = desk.terminal("apply", "--yes", "--limit", "nas")
    assert terminal.wait() == 1
    assert (
        "nas: failed  Base | step 1 (0.3s)\n    stdout some output\n    stderr E: it broke\n"
        in terminal.text()
    )


def test_no_colour_means_no_colour(desk: Desk) -> None:
    terminal = desk.terminal("plan", NO_COLOR="1")
    assert terminal.wait() == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", terminal.shown)
    assert "+new" in terminal.shown


def test_a_dumb_terminal_gets_plain_lines(desk: Desk) -> None:
    terminal = desk.terminal("apply", "--yes", TERM="dumb")
    assert terminal.wait() == 0
    assert "\x1b" not in terminal.shown
    assert "gpu-box: changed  Base | step 0 (0.1s)" in terminal.text()


def test_sigterm_is_like_ctrl_c(desk: Desk) -> None:
    desk.play(gpu_box={"fault": "slow"})
    terminal = desk.terminal("apply", "--yes", "--limit", "gpu-box")
    terminal.read_until(r"Base \| step 1")
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.wait() == 130


def test_the_hosts_of_a_big_rack_do_not_flood_a_small_terminal(desk: Desk) -> None:
    terminal = desk.terminal("apply", "--yes", LINES="8")
    assert terminal.wait() == 0
    assert "Result: 6 changes on 3 hosts" in terminal.text()


def test_a_terminal_too_narrow_for_the_table_gets_a_line_a_host(desk: Desk) -> None:
    terminal = desk.terminal("apply", "--yes", "--no-diff", COLUMNS="40")
    assert terminal.wait() == 0
    assert "gpu-box: status ok, changed 2, unchanged 3, failed 0, not run 0, seconds 1.5" in terminal.text()
