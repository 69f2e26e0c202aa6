"""Who uses a host, as the script behind a reboot tells it: here with stand-ins for those who are asked."""

from __future__ import annotations

import os
import shutil

import pytest
from ops_hosts import Done, Here

from labctl.ops.command import Script

BACKUP = "A backup to tape 0 root 3242 systemd-inhibit sleep:shutdown because 12 is not 13 block"
UPGRADES = "Unattended Upgrades Shutdown 0 root 974 unattended-upgr shutdown Stop before shutdown delay"
LID = "UPower 0 root 700 upowerd handle-lid-switch Lid is no shutdown of ours block"


@pytest.fixture
def quiet(here: Here) -> Here:
    """A machine that nobody uses."""
    for program in ("loginctl", "systemd-inhibit", "ss", "find"):
        here.stand_in(program, "exit 0")
    return here


def drained(here: Here, *ports: str) -> Done:
    return here.run(Script("drain", "0", *ports))


def test_a_host_that_nobody_uses_may_go(quiet: Here) -> None:
    assert drained(quiet, "8080").status == 0


@pytest.mark.parametrize(
    ("listed", "said"),
    [(BACKUP, "A backup to tape (process 3242) forbids a shutdown"), (UPGRADES, ""), (LID, "")],
)
def test_who_forbids_a_shutdown_is_named_whole_and_who_only_delays_it_is_not(
    quiet: Here, listed: str, said: str
) -> None:
    quiet.stand_in("systemd-inhibit", f"echo '{listed}'")
    done = drained(quiet)
    assert (done.status, said in done.stderr) == (1 if said else 0, True)


@pytest.mark.parametrize(
    ("name", "counts"), [("python3", True), ("nvidia-powerd", False), ("nv-hostengine", False)]
)
def test_a_program_on_a_card_counts_and_the_drivers_own_daemons_do_not(
    quiet: Here, name: str, *, counts: bool
) -> None:
    program = quiet.root / name
    shutil.copy("/bin/sleep", program)
    pid = os.posix_spawn(str(program), [name, "60"], {})
    try:
        quiet.stand_in("find", f"echo /proc/{pid}/fd/3")
        done = drained(quiet)
        assert (done.status, f"process {pid} ({name}) uses a graphics card" in done.stderr) == (
            counts,
            counts,
        )
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_a_client_of_a_service_counts(quiet: Here) -> None:
    quiet.stand_in("ss", 'case $* in *":8080"*) echo one; echo two ;; esac')
    assert drained(quiet, "9090").status == 0
    assert "2 clients are connected to port 8080" in drained(quiet, "9090", "8080").stderr


def test_without_logind_a_terminal_still_counts(quiet: Here) -> None:
    quiet.stand_in("loginctl", "exit 1")
    quiet.stand_in("who", "echo 'eve      tty1         2026-11-21 09:00'")
    assert "user eve is logged in (tty1)" in drained(quiet).stderr
