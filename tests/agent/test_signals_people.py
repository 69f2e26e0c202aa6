"""Who is logged in, told from labctl itself; and what blocks sleep."""

from __future__ import annotations

import os
import time

import pytest
from host_tree import AGENT_UID, SSHD, Tree

from labctl.agent.signals.people import Console, Inhibitors, Sessions
from labctl.agent.signals.processes import Processes
from labctl.agent.signals.sockets import Sockets
from labctl.agent.signals.terms import AGENT_PATH, Unreadable, this_host

PEER = "10.0.0.9"
SCOPE = "user.slice/user-1000.slice/session-5.scope"


def sessions(tree: Tree) -> tuple[bool, str]:
    # Files of this tree are all of one owner, so the agent's own processes are told apart by number there.
    host = tree.host._replace(agent_uid=AGENT_UID)
    return tuple(Sessions(host, Sockets(tree.root), Processes(tree.root), (22,)).look())  # type: ignore[return-value]


def console(tree: Tree) -> tuple[bool, str]:
    return tuple(Console(tree.host).look())  # type: ignore[return-value]


def inhibitors(tree: Tree) -> tuple[bool, str]:
    return tuple(Inhibitors(tree.host).look())  # type: ignore[return-value]


def test_where_nobody_is_it_is_quiet(tree: Tree) -> None:
    assert sessions(tree) == (False, "nobody is logged in by SSH")
    assert console(tree) == (False, "nobody is at the console")
    assert inhibitors(tree) == (False, "nothing blocks sleep")


def test_the_agents_user_is_known_by_name(tree: Tree) -> None:
    assert this_host(tree.root).agent_uid == AGENT_UID


def test_a_person_is_named_with_where_they_came_from(tree: Tree) -> None:
    tree.session("5")
    assert sessions(tree) == (True, "alice is logged in from 10.0.0.9")


@pytest.mark.parametrize("kind", ["user", "user-early", "user-incomplete", "user-light"])
def test_all_kinds_that_people_have_count(tree: Tree, kind: str) -> None:
    tree.session("5", CLASS=kind)
    assert sessions(tree)[0]


@pytest.mark.parametrize("kind", ["manager", "manager-early", "greeter", "background", "lock-screen"])
def test_managers_greeters_and_jobs_are_nobody(tree: Tree, kind: str) -> None:
    tree.session("5", CLASS=kind, REMOTE="0", REMOTE_HOST="", SERVICE="systemd-user")
    assert not sessions(tree)[0]
    assert not console(tree)[0]


def test_a_session_of_neither_network_nor_screen_counts(tree: Tree) -> None:
    tree.session("5", REMOTE="0", REMOTE_HOST="", SERVICE="machinectl")
    assert sessions(tree) == (True, "alice is logged in")


def test_who_left_something_running_counts_and_it_is_named(tree: Tree) -> None:
    tree.session("5", STATE="closing")
    tree.process(70, "tmux: server", "tmux", group=SCOPE)
    assert sessions(tree) == (True, "alice logged out from 10.0.0.9 and left tmux: server running")


MANAGER = "user.slice/user-1000.slice/user@1000.service"


@pytest.mark.parametrize(
    "unit",
    ["app.slice/run-r1.scope", "app.slice/run-u7.service", "tmux-spawn-1.scope", "app.slice/train.scope"],
)
def test_who_left_something_with_their_own_manager_counts_without_a_session(tree: Tree, unit: str) -> None:
    tree.process(70, "tmux: server", "tmux", group=f"{MANAGER}/{unit}")
    assert sessions(tree) == (True, "user 1000 is not logged in and left tmux: server running")
    tree.write({"etc/passwd": "alice:x:1000:1000::/:/bin/sh\n"})
    assert sessions(tree) == (True, "alice is not logged in and left tmux: server running")
    tree.session("5", REMOTE="0", REMOTE_HOST="", SERVICE="gdm", SEAT="seat0")
    assert not sessions(tree)[0], "that they are at the screen is for another signal to say"


@pytest.mark.parametrize(
    "unit", ["init.scope", "app.slice/syncthing.service", "user.slice/libpod-1.scope", "podman-pause-1.scope"]
)
def test_what_a_manager_runs_as_a_service_is_nobody(tree: Tree, unit: str) -> None:
    tree.process(70, "systemd", "systemd", group=f"{MANAGER}/{unit}")
    assert not sessions(tree)[0]


def test_the_agents_own_sessions_do_not_count_nor_their_connections(tree: Tree) -> None:
    for name, _port in (("7", 4000), ("8", 4001)):
        tree.session(name, uid=AGENT_UID, user="labctl-agent", REMOTE_HOST=PEER)
    tree.connections((SSHD, (PEER, 4000)), (SSHD, (PEER, 4001)))
    assert not sessions(tree)[0]


def test_one_connection_more_than_sessions_is_somebody(tree: Tree) -> None:
    tree.session("7", uid=AGENT_UID, user="labctl-agent", REMOTE_HOST=PEER)
    tree.connections((SSHD, (PEER, 4000)), (SSHD, (PEER, 4001)))
    assert sessions(tree) == (True, f"1 SSH connection from {PEER} without a session")
    tree.connections((SSHD, (PEER, 4000)), (SSHD, ("10.0.0.77", 4001)))
    assert sessions(tree) == (True, "1 SSH connection from 10.0.0.77 without a session")


@pytest.mark.parametrize(("state", "counts"), [("01", True), ("08", True), ("06", False), ("0A", False)])
def test_open_and_half_open_connections_count_and_ended_ones_do_not(
    tree: Tree, state: str, counts: bool
) -> None:
    tree.connections((SSHD, (PEER, 4000)), state=state)
    assert sessions(tree)[0] is counts


def test_connections_to_other_ports_are_not_sshs(tree: Tree) -> None:
    tree.connections((("10.0.0.5", 443), (PEER, 4000)))
    assert not sessions(tree)[0]


def test_ipv4_in_ipv6_is_the_same_peer(tree: Tree) -> None:
    tree.session("7", uid=AGENT_UID, user="labctl-agent", REMOTE_HOST=PEER)
    tree.connections((("::ffff:10.0.0.5", 22), (f"::ffff:{PEER}", 4000)))
    assert not sessions(tree)[0]
    tree.connections((("fd00::5", 22), ("fd00::9", 4000)))
    assert sessions(tree) == (True, "1 SSH connection from fd00::9 without a session")


def test_without_a_session_of_its_own_the_watch_knows_its_connection_and_port(tree: Tree) -> None:
    tree.process(os.getpid(), "python3", SSH_CONNECTION=f"{PEER} 4000 10.0.0.5 2222")
    here = ("10.0.0.5", 2222)
    tree.connections((here, (PEER, 4000)))
    assert not sessions(tree)[0]
    tree.connections((here, (PEER, 4000)), (here, (PEER, 4001)))
    assert sessions(tree) == (True, f"1 SSH connection from {PEER} without a session")


def test_a_question_of_labctls_does_not_count(tree: Tree) -> None:
    tree.session("5", user="admin")
    tree.connections((SSHD, (PEER, 4000)))
    shell = f"env -u LANGUAGE LC_ALL=C.UTF-8 sudo -H -n -- {AGENT_PATH} report"
    tree.process(50, "sshd-session", "sshd-session: admin@notty", group=SCOPE)
    tree.process(51, "bash", "bash", "-c", shell, group=SCOPE)
    tree.process(52, "sudo", "sudo", "-H", "-n", "--", AGENT_PATH, "report", group=SCOPE)
    tree.process(53, "python3", "/usr/bin/python3", "-IS", AGENT_PATH, "report", group=SCOPE)
    assert not sessions(tree)[0]
    tree.process(54, "smartctl", "smartctl", "--json", "/dev/sda", group=SCOPE, parent=53)
    assert not sessions(tree)[0], "what the agent runs to answer belongs to the question"
    tree.process(60, "rsync", "rsync", group=SCOPE, parent=51)
    assert sessions(tree)[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vim", ("vim", "/etc/fstab")),
        ("bash", ("-bash",)),
        ("python3", ("/usr/bin/python3", "-IS", "/tmp/agent.pyz")),
    ],
)
def test_a_question_beside_which_something_runs_counts(tree: Tree, name: str, words: tuple[str, ...]) -> None:
    tree.session("5", user="admin")
    tree.process(52, "sudo", "sudo", "-n", AGENT_PATH, "report", group=SCOPE)
    tree.process(60, name, *words, group=SCOPE)
    assert sessions(tree) == (True, "admin is logged in from 10.0.0.9")


def test_a_session_in_which_nothing_is_seen_counts(tree: Tree) -> None:
    tree.session("5", user="admin")
    assert sessions(tree)[0]
    tree.process(50, "sshd", "sshd: admin@notty", group=SCOPE)
    assert sessions(tree)[0]


@pytest.mark.parametrize("broken", ["", "UID=1000\n", "STATE=active\n", "what is this\n"])
def test_a_session_that_is_not_understood_is_no_quiet(tree: Tree, broken: str) -> None:
    tree.write({"run/systemd/sessions/5": broken})
    for look in (sessions, console):
        with pytest.raises(Unreadable, match="/run/systemd/sessions/5 is not understood"):
            look(tree)


def test_without_logind_or_the_kernels_list_nothing_is_known(tree: Tree) -> None:
    tree.remove("proc/net/tcp")
    with pytest.raises(Unreadable, match="does not list TCP connections"):
        sessions(tree)
    tree.remove("run/systemd/sessions")
    for look in (sessions, console):
        with pytest.raises(Unreadable, match="systemd-logind does not run"):
            look(tree)
    tree.remove("run/systemd/inhibit")
    with pytest.raises(Unreadable, match="systemd-logind does not run"):
        inhibitors(tree)


def test_pipes_and_half_written_files_beside_sessions_are_none(tree: Tree) -> None:
    os.mkfifo(tree.root / "run/systemd/sessions/5.ref")
    tree.write({"run/systemd/sessions/.#5abc": "UID=1"})
    assert not sessions(tree)[0]


# --- the console ---


def test_who_is_at_the_screen_is_named_with_how_long_they_have_been_idle(tree: Tree) -> None:
    tree.session("2", user="bob", REMOTE="0", REMOTE_HOST="", SERVICE="login", SEAT="seat0", TTY="tty9")
    assert console(tree) == (True, "bob is logged in at tty9")
    tree.write({"dev/tty9": ""})
    ago = time.time() - 7200
    os.utime(tree.root / "dev/tty9", (ago, ago))
    assert console(tree) == (True, "bob is logged in at tty9, idle for 2 h")
    assert not sessions(tree)[0]


def test_who_types_before_they_are_logged_in_counts_for_two_minutes(tree: Tree) -> None:
    tree.write({"dev/tty1": ""})
    for ago, counts in ((5, True), (110, True), (130, False), (86_400, False)):
        then = time.time() - ago
        os.utime(tree.root / "dev/tty1", (then, then))
        assert console(tree)[0] is counts, ago


def test_what_a_boot_does_to_a_terminal_is_no_typing(tree: Tree) -> None:
    tree.write({"dev/tty1": "", "proc/uptime": "100.00 180.00\n"})
    for ago, counts in ((5, True), (20, False), (99, False)):
        then = time.time() - ago
        os.utime(tree.root / "dev/tty1", (then, then))
        assert console(tree)[0] is counts, ago


# --- inhibitors ---


def _inhibit(tree: Tree, **fields: str) -> None:
    known = {"WHAT": "sleep", "MODE": "block", "UID": "0", "PID": "77", "WHO": "rsync", "WHY": "copies"}
    lines = "".join(f"{name}={value}\n" for name, value in {**known, **fields}.items() if value)
    tree.write({"run/systemd/inhibit/3": f"# This is private data. Do not parse.\n{lines}"})


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, (True, "rsync blocks sleep: copies")),
        ({"WHAT": "shutdown:sleep"}, (True, "rsync blocks shutdown, sleep: copies")),
        ({"WHAT": "idle"}, (True, "rsync blocks idle: copies")),
        ({"MODE": "block-weak"}, (True, "rsync blocks sleep: copies")),
        ({"WHO": "", "WHY": ""}, (True, "process 77 blocks sleep")),
        ({"WHO": r"a\x20b\012c", "WHY": r"d\"e"}, (True, 'a b c blocks sleep: d"e')),
        ({"MODE": "delay"}, (False, "nothing blocks sleep")),
        ({"WHAT": "handle-lid-switch:handle-power-key"}, (False, "nothing blocks sleep")),
        ({"WHO": "labctl-agent"}, (False, "nothing blocks sleep")),
    ],
)
def test_what_blocks_sleep_counts_unless_it_is_our_own(
    tree: Tree, fields: dict[str, str], found: tuple[bool, str]
) -> None:
    _inhibit(tree, **fields)
    assert inhibitors(tree) == found


def test_an_inhibitor_that_is_not_understood_is_no_quiet(tree: Tree) -> None:
    _inhibit(tree, MODE="")
    with pytest.raises(Unreadable, match="/run/systemd/inhibit/3 is not understood"):
        inhibitors(tree)
