"""The watch: lines as the controller reads them, whatever hangs, and an end that leaves nothing behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host_tree import Tree
from hypothesis import given
from hypothesis import strategies as st

from labctl.agent import vitals, watch
from labctl.agent.signals.board import Board
from labctl.agent.signals.terms import TEXT_MAX, Signal, Unreadable, Verdict, plain
from labctl.agent.vitals import Clocks
from labctl.domain.sleep import words
from labctl.domain.sleep.terms import How, OrderWord, Reading, Said

NONCE = "0123456789abcdef0123456789abcdef"
BOOT = "0b6a5b0e-3f0e-4c3f-9d59-1a2b3c4d5e6f"


# --- the board ---


class Says(Signal):
    def __init__(self, name: str, verdict: Any, deadline_s: float = 5.0) -> None:
        self.name, self.verdict, self.deadline_s = name, verdict, deadline_s
        self.looks = 0

    def look(self) -> Verdict:
        self.looks += 1
        if isinstance(self.verdict, Exception):
            raise self.verdict
        if isinstance(self.verdict, threading.Event):
            self.verdict.wait(30)
            return Verdict(False, "back")
        return Verdict(*self.verdict)


def test_each_signal_is_a_reading_whatever_happens_in_it() -> None:
    board = Board(
        [
            Says("busy", (True, "a\nb\x00")),
            Says("quiet", (False, "x" * 999)),
            Says("blind", Unreadable("no eyes")),
            Says("broken", ZeroDivisionError("by zero")),
        ]
    )
    busy, quiet, blind, broken = board.look()
    board.close()
    assert busy == ("busy", True, "a b?")
    assert (quiet.busy, len(quiet.because)) == (False, TEXT_MAX)
    assert blind == ("blind", None, "no eyes")
    assert broken.busy is None and broken.because.startswith("ZeroDivisionError: by zero")


def test_one_that_hangs_is_not_readable_and_stops_no_other_and_is_not_asked_twice() -> None:
    release = threading.Event()
    hangs, after = Says("hangs", release, 0.05), Says("after", (False, "fine"))
    board = Board([hangs, after])
    before = threading.active_count()
    for _ in range(3):
        first, second = board.look()
        assert (first.busy, second) == (None, ("after", False, "fine"))
        assert first.because.startswith("it has not answered for")
    assert (hangs.looks, after.looks) == (1, 3)
    assert threading.active_count() <= before + 2
    release.set()
    stuck = board._stuck["hangs"]
    while not stuck.is_back():
        release.wait(0.01)
    assert board.look()[0] == ("hangs", False, "back")
    board.close()


def test_what_is_late_beside_the_signals_is_what_was_given_instead() -> None:
    board = Board([])
    release = threading.Event()
    assert board.within("vitals", lambda: 1, 5, None) == 1
    assert board.within("vitals", lambda: 1 / 0, 5, "else") == "else"
    assert board.within("vitals", lambda: release.wait(30), 0.05, "late") == "late"
    assert board.within("vitals", lambda: 2, 0.05, "late") == "late"
    release.set()
    board.close()


@given(st.text())
def test_any_text_is_one_printable_line(text: str) -> None:
    line = plain(text)
    assert line.isprintable() and len(line) <= TEXT_MAX


# --- vitals ---


def host(tree: Tree, **more: str) -> Tree:
    tree.write(
        {
            "proc/sys/kernel/random/boot_id": f"{BOOT}\n",
            "proc/sys/kernel/osrelease": "6.1.0-26-amd64\n",
            "sys/power/mem_sleep": "s2idle [deep]\n",
            "sys/class/net/enp3s0/address": "52:54:00:66:00:11\n",
            "sys/class/net/enp3s0/device/power/wakeup": "enabled\n",
            "sys/class/net/wlan0/address": "52:54:00:66:00:12\n",
            "sys/class/net/wlan0/device/power/wakeup": "disabled\n",
            "proc/net/route": "Iface\tDestination\tGateway\nwlan0\t00000000\t0100000A\n",
            "sys/module/nvidia/version": "580.95.05\n",
            "sys/bus/pci/devices/0000:3b:00.0/class": "0x030200\n",
            "sys/bus/pci/devices/0000:00:1f.0/class": "0x060100\n",
            **more,
        }
    )
    for name, place in (
        ("nvidia", "sys/bus/pci/devices/0000:3b:00.0"),
        ("r8169", "sys/class/net/enp3s0/device"),
    ):
        driver = tree.root / "sys/bus/pci/drivers" / name
        driver.mkdir(parents=True, exist_ok=True)
        if not (tree.root / place / "driver").is_symlink():
            (tree.root / place / "driver").symlink_to(driver)
    return tree


SLEEP = {"how": "suspend", "wol": {"mac": "52:54:00:66:00:11"}}


def test_the_fingerprint_is_of_the_card_that_wakes_the_host(tree: Tree) -> None:
    root = host(tree).root
    assert vitals.fingerprint(root, SLEEP) == {
        "kernel": "6.1.0-26-amd64",
        "driver": "nvidia 580.95.05",
        "nic": "52:54:00:66:00:11 r8169",
        "how": "suspend",
        "mem_sleep": "deep",
    }
    assert vitals.fingerprint(root, {})["nic"] == "52:54:00:66:00:12"
    assert vitals.fingerprint(root, {**SLEEP, "how": "power-off"})["mem_sleep"] == ""
    assert vitals.fingerprint(root, {**SLEEP, "wol": {"mac": "00:00:00:00:00:01"}})["nic"] == ""
    assert vitals.fingerprint(root, {"how": "nap"})["how"] == "suspend"


def test_whether_it_is_armed_is_told_of_that_card_too(tree: Tree) -> None:
    root = host(tree).root
    assert vitals.wol_armed(root, SLEEP) is True
    assert vitals.wol_armed(root, {}) is False
    assert vitals.wol_armed(root, {"wol": {"mac": "00:00:00:00:00:01"}}) is None


def test_a_sleep_raises_the_count_and_begins_the_uptime_anew(tree: Tree) -> None:
    tree.write({"sys/power/suspend_stats/success": "0\n"})
    uptime = vitals.Uptime(tree.root, Clocks(500.0, 500.0))
    assert uptime.look(Clocks(600.0, 600.0)) == (0, 600.0)
    tree.write({"sys/power/suspend_stats/success": "1\n"})
    assert uptime.look(Clocks(900.0, 620.0)) == (281, 0.0)
    assert uptime.look(Clocks(930.0, 650.0)) == (281, 30.0)


def test_where_the_kernel_counts_no_sleeps_the_clocks_tell(tree: Tree) -> None:
    uptime = vitals.Uptime(tree.root, Clocks(500.0, 500.0))
    assert uptime.look(Clocks(500.4, 500.0)) == (0, 500.4)
    assert uptime.look(Clocks(600.0, 510.0)) == (90, 0.0)


def test_of_a_sleep_before_the_first_look_nobody_knows_when_it_ended(tree: Tree) -> None:
    tree.write({"sys/power/suspend_stats/success": "3\n"})
    uptime = vitals.Uptime(tree.root, Clocks(500.0, 500.0))
    assert uptime.look(Clocks(510.0, 510.0)) == (3, 10.0)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (json.dumps({"nonce": NONCE, "said": "going"}), {"nonce": NONCE, "said": "going", "because": ""}),
        (
            json.dumps({"nonce": NONCE, "said": "failed", "because": "no\nway", "at": 5}),
            {"nonce": NONCE, "said": "failed", "because": "no way"},
        ),
        (json.dumps({"nonce": NONCE, "said": "slept"}), None),
        (json.dumps({"nonce": "x", "said": "going"}), None),
        (json.dumps({"nonce": 5, "said": "going"}), None),
        (json.dumps({"said": "going"}), None),
        ("[]", None),
        ("{", None),
        ("", None),
    ],
)
def test_the_hosts_word_on_an_order_is_told_only_where_it_is_one(tree: Tree, text: str, found: Any) -> None:
    assert vitals.order(tree.root) is None
    tree.write({vitals.ORDER: text})
    assert vitals.order(tree.root) == found


# --- a line ---


def test_a_line_is_what_the_controller_reads(tree: Tree) -> None:
    host(tree)
    tree.write(
        {
            vitals.ORDER: json.dumps({"nonce": NONCE, "said": "refused", "because": "alice came"}),
            "etc/labctl/agent.json": json.dumps({"format": 1, "sleep": SLEEP, "signals": {"timers": False}}),
            "etc/labctl/holds/tape": "until tomorrow\nthe tape\n",
        }
    )
    looking = watch.Watch(tree.root)
    first = words.report_of(json.loads(json.dumps(looking.line())), 1.0)
    second = words.report_of(looking.line(), 2.0)
    assert (first.boot_id, first.watch, second.watch) == (BOOT, second.watch, first.watch)
    assert first.order == OrderWord(NONCE, Said.REFUSED, "alice came")
    assert first.fingerprint is not None and first.fingerprint.how is How.SUSPEND
    assert first.wol_armed is True
    assert first.mem_sleeps == ("s2idle", "deep")
    readings = {one.signal: one for one in first.readings}
    assert "timers" not in readings and readings["settings"].busy is False
    assert readings["holds"] == Reading("holds", True, "/etc/labctl/holds/tape: the tape")
    names = (
        "settings holds sessions console inhibitors packages downloads mounts load network engines gpu checks"
    )
    assert list(readings) == names.split()


def test_a_new_configuration_counts_from_the_next_line_on(tree: Tree) -> None:
    host(tree)
    off = dict.fromkeys(("timers", "load", "network", "gpu", "checks", "engines"), False)
    place = tree.root / "etc/labctl/agent.json"
    tree.write({"etc/labctl/agent.json": json.dumps({"format": 1, "signals": off})})
    looking = watch.Watch(tree.root)
    assert "holds" in {one["signal"] for one in looking.line()["readings"]}
    new = place.with_name("new")
    new.write_text(json.dumps({"format": 1, "signals": {**off, "holds": False}}))
    new.replace(place)
    assert "holds" not in {one["signal"] for one in looking.line()["readings"]}
    place.write_text("{")
    settings = looking.line()["readings"][0]
    assert (settings["signal"], settings["busy"]) == ("settings", None)
    assert settings["because"].startswith("/etc/labctl/agent.json cannot be read")


# --- what the other end says ---


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "Expecting"),
        (b"[]", "it is no JSON object"),
        (b'{"every_s": "5"}', "every_s is no number"),
        (b'{"every_s": true}', "every_s is no number"),
        (b'{"every_s": 0}', "every_s is not from"),
        (b'{"every_s": 1e9}', "every_s is not from"),
        (b'{"every_s": NaN}', "every_s is not from"),
        (b"[" * 100_000, "nested too deeply|recursion"),
    ],
)
def test_what_is_not_understood_is_refused(line: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        watch.Wishes(0).take(line)


def test_what_a_newer_controller_says_besides_is_passed_over() -> None:
    wishes = watch.Wishes(0)
    wishes.take(b'{"mood": "fine"}')
    wishes.take(b'{"every_s": 600, "now": true}')
    began = time.monotonic()
    wishes.wait(began)  # at once
    assert time.monotonic() - began < 30


# --- as a program ---


class Program:
    """A watch that runs, with pipes as sshd gives it."""

    def __init__(self, argv: list[str]) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, stderr=pipe, env={"PATH": "/usr/bin:/bin"}
        )
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.stdin, self.stdout, self.stderr = self.process.stdin, self.process.stdout, self.process.stderr

    def line(self) -> dict[str, Any]:
        assert select.select([self.stdout], [], [], 30)[0], "no line came"
        found: dict[str, Any] = json.loads(self.stdout.readline())
        return found

    def ask(self, text: str) -> None:
        self.stdin.write(text.encode() + b"\n")
        self.stdin.flush()

    def end(self) -> int:
        return self.process.wait(30)


@pytest.fixture
def program(agent_pyz: Path, tmp_path: Path) -> Iterator[Program]:
    copy = tmp_path / "agent.pyz"
    copy.write_bytes(agent_pyz.read_bytes())
    copy.chmod(0o755)
    made = Program([str(copy), "report", "--watch"])
    yield made
    made.process.kill()
    made.process.wait()
    for pipe in (made.stdin, made.stdout, made.stderr):
        try:
            pipe.close()
        except BrokenPipeError:
            continue


def test_it_speaks_at_once_and_when_it_is_asked(program: Program) -> None:
    first = program.line()
    program.ask('{"every_s": 600}')
    program.ask('{"now": true}')
    second = program.line()
    assert (first["n"], second["n"], second["watch"]) == (1, 2, first["watch"])
    assert words.report_of(second, 0.0).boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    program.ask('{"every_s": 0.1}')
    assert [program.line()["n"] for _ in range(2)] == [3, 4]
    program.stdin.close()
    assert program.end() == 0


def test_it_ends_with_its_input_whatever_it_is_at(program: Program) -> None:
    program.stdin.close()
    assert program.end() == 0


def test_it_ends_when_nobody_reads_it_any_more(program: Program) -> None:
    program.line()
    program.stdout.close()
    program.ask('{"every_s": 0.1}')
    assert program.end() == 0


def test_words_that_are_none_end_it_with_a_reason(program: Program) -> None:
    program.line()
    program.ask("rm -rf /")
    assert program.end() == 2
    assert program.stderr.read().startswith(b"labctl-agent: what was said is not understood: ")


def test_a_line_that_never_ends_is_not_kept(program: Program) -> None:
    program.line()
    program.stdin.write(b"x" * 20_000)
    program.stdin.flush()
    assert program.end() == 2


def test_it_ends_when_its_program_is_replaced(program: Program, tmp_path: Path) -> None:
    program.line()
    new = tmp_path / "new"
    new.write_bytes((tmp_path / "agent.pyz").read_bytes())
    new.chmod(0o755)
    new.replace(tmp_path / "agent.pyz")
    program.ask('{"now": true}')
    assert program.end() == 0
    assert b"the agent was replaced" in program.stderr.read()


def test_it_ends_with_its_parent_though_its_input_stays_open(agent_pyz: Path) -> None:
    there, here = os.pipe()
    reader, writer = os.pipe()
    argv = [str(agent_pyz), "report", "--watch"]
    parent = os.fork()
    if parent == 0:
        child = subprocess.Popen(argv, stdin=there, stdout=writer, stderr=subprocess.DEVNULL)
        os.write(writer, f"{child.pid}\n".encode())
        signal.pause()
        os._exit(0)
    os.close(there)
    os.close(writer)
    with os.fdopen(reader, "rb") as lines:
        assert lines.readline().strip().isdigit()
        assert json.loads(lines.readline())["n"] == 1
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        assert select.select([lines], [], [], 30)[0], "it lives on"
        assert lines.read() == b""
    os.close(here)


def test_one_process_does_it_all(program: Program) -> None:
    program.line()
    children = Path(f"/proc/{program.process.pid}/task/{program.process.pid}/children")
    program.ask('{"every_s": 600}')
    for _ in range(3):
        program.ask('{"now": true}')
        program.line()
        assert children.read_text() == ""


def test_a_look_loads_what_it_needs_before_the_first_line(agent_pyz: Path) -> None:
    """A new agent.pyz takes the old one's place while it runs; what was not loaded would be read from it."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from labctl.agent import watch\n"
        "looking = watch.Watch(Path('/'))\n"
        "looking.line(); before = set(sys.modules)\n"
        "looking.line(); print(sorted(set(sys.modules) - before))\n"
    )
    argv = ["/usr/bin/python3", "-IS", "-c", script, str(agent_pyz)]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "[]\n"
