"""Packages, downloads, load, traffic and shares; holds and the administrator's own checks."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from host_tree import Tree

from labctl.agent.signals import children, work
from labctl.agent.signals.processes import Processes
from labctl.agent.signals.sockets import Sockets
from labctl.agent.signals.terms import AGENT_PATH, Signal, Unreadable
from labctl.agent.signals.wishes import Checks, Holds
from labctl.agent.signals.work import Downloads, Load, Mounts, Network, Packages
from labctl.weights import program


def look(signal: Signal) -> tuple[bool, str]:
    busy, because = signal.look()
    return busy, because


def lock_line(path: Path, *, major: int | None = None, minor: int | None = None, pid: int = 42) -> str:
    status = path.stat()
    major = os.major(status.st_dev) if major is None else major
    minor = os.minor(status.st_dev) if minor is None else minor
    return f"1: POSIX  ADVISORY  WRITE {pid} {major:02x}:{minor:02x}:{status.st_ino} 0 EOF\n"


# --- packages and downloads ---


@pytest.mark.parametrize(
    "name", ["var/lib/dpkg/lock-frontend", "var/lib/apt/lists/lock", "var/lib/rpm/.rpm.lock"]
)
def test_a_lock_of_the_package_managers_counts_while_it_is_held(tree: Tree, name: str) -> None:
    packages = Packages(tree.host, Processes(tree.root))
    tree.write({name: ""})
    assert look(packages) == (False, "no package manager is at work")
    tree.process(42, "apt-check")
    tree.write({"proc/locks": lock_line(tree.root / name)})
    assert look(packages) == (True, f"apt-check holds /{name}")
    tree.write({"proc/locks": lock_line(tree.root / name).replace("1: ", "1: -> ")})
    assert not look(packages)[0]


def test_where_a_file_system_makes_up_its_device_the_inode_has_to_do() -> None:
    made_up, real = (0, 186, 7), (8, 1, 7)
    status = os.stat_result((0, 7, os.makedev(0, 188), 1, 0, 0, 0, 0, 0, 0))

    class Overlay:
        def stat(self) -> os.stat_result:
            return status

    assert work.Locks({made_up: 42}).holder(Overlay()) == 42  # type: ignore[arg-type]
    assert work.Locks({real: 42}).holder(Overlay()) is None  # type: ignore[arg-type]


def test_the_one_that_counts_updates_for_a_look_at_health_does_not_count(tree: Tree) -> None:
    agent = ("/usr/bin/python3", "-IS", AGENT_PATH, "health")
    tree.process(50, "sudo", "sudo", "-H", "-n", "--", AGENT_PATH, "health")
    tree.process(53, "python3", *agent, parent=50)
    tree.process(54, "python3", *agent, parent=53)
    tree.process(55, "apt-get", "apt-get", "--simulate", "upgrade", parent=54)
    tree.process(56, "dpkg", "dpkg", "--print-foreign-architectures", parent=55)
    assert not look(Packages(tree.host, Processes(tree.root)))[0]
    tree.process(60, "apt-get", "apt-get", "upgrade", parent=50)
    running = Processes(tree.root)
    assert running.all()
    tree.remove("proc/60")
    assert not look(Packages(tree.host, running))[0], "it ended since it was listed"
    tree.process(60, "apt-get", "apt-get", "upgrade", parent=50)
    assert look(Packages(tree.host, Processes(tree.root))) == (True, "apt-get runs")


def test_a_package_manager_that_runs_counts_without_a_lock(tree: Tree) -> None:
    tree.process(42, "dnf")
    tree.process(43, "unattended-upgr")  # waits for the shutdown all day long
    assert look(Packages(tree.host, Processes(tree.root))) == (True, "dnf runs")
    tree.remove("proc/42")
    assert not look(Packages(tree.host, Processes(tree.root)))[0]


@pytest.mark.parametrize(
    "line", ["1: POSIX ADVISORY WRITE 42 what 0 EOF", "1: POSIX ADVISORY WRITE x 0:0:0 0 EOF"]
)
def test_a_list_of_locks_that_is_not_understood_is_no_quiet(tree: Tree, line: str) -> None:
    tree.write({"proc/locks": line})
    with pytest.raises(Unreadable, match="list of file locks is not understood"):
        look(Packages(tree.host, Processes(tree.root)))
    tree.remove("proc/locks")
    with pytest.raises(Unreadable, match="does not list file locks"):
        look(Downloads(tree.host, Processes(tree.root)))


def test_labctl_itself_counts_while_it_applies_or_brings_models(tree: Tree) -> None:
    downloads = Downloads(tree.host, Processes(tree.root))
    tree.write({work.APPLY_LOCK: ""})
    assert look(downloads) == (False, "labctl brings nothing")
    tree.write({"proc/locks": lock_line(tree.root / work.APPLY_LOCK, pid=-1)})
    assert look(downloads) == (True, "labctl applies changes to this host")
    tree.write({"proc/locks": ""})
    tree.process(60, "python3", *program.ARGV)
    assert look(Downloads(tree.host, Processes(tree.root))) == (
        True,
        "labctl brings models to this host or from it",
    )


# --- load, network, shares ---


def test_the_load_counts_by_processors(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    tree.write({"proc/loadavg": "2.00 9 9 1/100 42\n"})
    assert look(Load(tree.host, 25)) == (False, "the load is 2 on 8 processors, 25 %; 25 % are quiet")
    tree.write({"proc/loadavg": "2.10 0 0 1/100 42\n"})
    assert look(Load(tree.host, 25))[0]
    tree.write({"proc/loadavg": "what"})
    with pytest.raises(Unreadable, match="the load cannot be read"):
        look(Load(tree.host, 25))


def traffic(tree: Tree, **cards: int) -> None:
    lines = [f"{name}: {count} 1 0 0 0 0 0 0 {count} 1 0 0 0 0 0 0\n" for name, count in cards.items()]
    tree.write({"proc/net/dev": "Inter-|\n face |\n" + "".join(lines)})


def test_traffic_is_known_from_the_second_look_on(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(work.time, "monotonic", lambda: now)
    traffic(tree, lo=0, enp1s0=0, br0=0)
    tree.write({"sys/class/net/enp1s0/device/vendor": "0x8086"})
    network = Network(tree.host, 500)
    with pytest.raises(Unreadable, match="only once so far"):
        look(network)
    now += 0.5
    traffic(tree, lo=10**9, enp1s0=10**6, br0=10**9)
    with pytest.raises(Unreadable, match="only once so far"):
        look(network)
    now += 9.5
    assert look(network) == (False, "200 kB/s go over the network; 500 are quiet")
    now += 0.5
    assert look(network) == (False, "200 kB/s go over the network; 500 are quiet")
    now += 0.5
    traffic(tree, enp1s0=2 * 10**6)
    assert look(network) == (True, "2000 kB/s go over the network; 500 are quiet")
    now += 10
    traffic(tree, enp1s0=5, wlan0=10**9)  # counted anew; and one that came
    assert look(network) == (False, "0 kB/s go over the network; 500 are quiet")


@pytest.mark.parametrize(("port", "kind"), [(2049, "NFS"), (445, "SMB")])
def test_a_share_that_another_machine_uses_counts(tree: Tree, port: int, kind: str) -> None:
    mounts = Mounts(tree.host, Sockets(tree.root))
    assert look(mounts) == (False, "no share is in use")
    here = ("10.0.0.5", port)
    tree.connections((here, ("10.0.0.9", 800)), (here, ("10.0.0.8", 801)))
    assert look(Mounts(tree.host, Sockets(tree.root))) == (
        True,
        f"10.0.0.8 and 1 other uses a share by {kind}",
    )
    tree.connections((("127.0.0.1", port), ("127.0.0.1", 800)), (here, ("10.0.0.5", 801)))
    assert not look(Mounts(tree.host, Sockets(tree.root)))[0]


def test_a_client_of_nfs_counts_where_its_connection_is_not_seen(tree: Tree) -> None:
    tree.write({"proc/fs/nfsd/clients/3/info": ""})
    assert look(Mounts(tree.host, Sockets(tree.root))) == (True, "1 NFS client of this host")


# --- holds ---


@pytest.mark.parametrize("folder", ["run/labctl/holds", "etc/labctl/holds"])
def test_a_file_holds_the_host_awake_with_its_first_line(tree: Tree, folder: str) -> None:
    holds = Holds(tree.host)
    assert look(holds) == (False, "no file holds it awake")
    tree.write({f"{folder}/.hidden": "x", f"{folder}/tape": "the tape is\x07 written\nfor alice\n"})
    assert look(holds) == (True, f"/{folder}/tape: the tape is? written")
    tree.write({f"{folder}/tape": ""})
    assert look(holds) == (True, f"/{folder}/tape")


@pytest.mark.parametrize(
    ("until", "holds"),
    [
        ("2001-01-01", False),
        ("2001-01-01T08:00", False),
        ("2001-01-01T08:00:00+02:00", False),
        ("2001-01-01T08:00:00Z", False),
        ("978336000", False),
        ("2999-01-01T08:00", True),
        ("32472144000", True),
        ("tomorrow", True),
        ("9" * 30, True),
        ("", True),
    ],
)
def test_a_hold_ends_by_itself_where_it_says_so_and_can_be_read(tree: Tree, until: str, holds: bool) -> None:
    tree.write({"etc/labctl/holds/a": f"backup\nuntil {until}\n", "etc/labctl/holds/b": "until 2001-01-01\n"})
    assert look(Holds(tree.host))[0] is holds


def test_a_folder_of_holds_that_cannot_be_read_is_no_quiet(tree: Tree) -> None:
    (tree.root / "etc/labctl").mkdir(parents=True)
    (tree.root / "etc/labctl/holds").symlink_to("holds")
    with pytest.raises(Unreadable, match="holds cannot be read"):
        look(Holds(tree.host))


# --- checks of the administrator's ---


def check(tree: Tree, name: str, script: str, mode: int = 0o755) -> None:
    tree.write({f"checks/{name}": f"#!/bin/sh\n{script}\n"})
    (tree.root / "checks" / name).chmod(mode)


def checks(tree: Tree) -> tuple[bool, str]:
    # The folders of tests are root's alone to enter, so these run as root; see tests/rack for the user.
    return look(Checks(tree.host._replace(agent_uid=0), "/checks"))


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root's files are run")


def test_without_the_folder_there_is_no_check(tree: Tree) -> None:
    assert checks(tree) == (False, "there is no check")


@root_only
def test_a_check_that_ends_with_other_than_0_is_the_reason_by_its_first_line(tree: Tree) -> None:
    check(tree, "10-fine", "exit 0")
    check(tree, "README", "not run", 0o644)
    check(tree, "old.bak", "exit 9")
    assert checks(tree) == (False, "no check objects")
    check(tree, "20-nas", "echo; echo the NAS is mounted; echo more; exit 1")
    assert checks(tree) == (True, "20-nas: the NAS is mounted")
    check(tree, "20-nas", "exit 3")
    assert checks(tree) == (True, "20-nas: it ended with 3")
    check(tree, "20-nas", "kill -9 $$")
    assert checks(tree) == (True, "20-nas: it ended with -9")


@root_only
def test_root_has_checks_run_by_the_agents_user(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(argv: list[str], limit_s: float, *, user: int | None) -> children.Done:
        asked.append(user)
        return children.Done(0, "")

    monkeypatch.setattr(children, "run", run)
    check(tree, "nas", "exit 0")
    assert look(Checks(tree.host, "/checks")) == (False, "no check objects")
    monkeypatch.setattr(os, "geteuid", lambda: 987)
    assert not look(Checks(tree.host, "/checks"))[0]
    assert asked == [tree.host.agent_uid, None]


@root_only
def test_a_check_runs_with_nothing_in_its_hands(tree: Tree) -> None:
    check(
        tree,
        "who",
        'echo "$(id -u) $(id -G) $PWD $(ls /proc/self/fd | wc -l) ${SSH_CONNECTION-none}"; exit 1',
    )
    assert checks(tree) == (True, "who: 0 0 / 4 none")


@root_only
@pytest.mark.parametrize("what", ["file", "folder", "owner", "link"])
def test_what_others_could_have_written_is_not_run(tree: Tree, what: str) -> None:
    check(tree, "nas", f"touch {tree.root}/ran")
    path, folder = tree.root / "checks/nas", tree.root / "checks"
    if what == "file":
        path.chmod(0o775)
    elif what == "folder":
        folder.chmod(0o777)
    elif what == "owner":
        os.chown(path, 1000, 0)
    else:
        path.rename(tree.root / "elsewhere")
        os.chown(tree.root / "elsewhere", 1000, 0)
        path.symlink_to(tree.root / "elsewhere")
    with pytest.raises(Unreadable, match="is not run: it must be root's"):
        checks(tree)
    assert not (tree.root / "ran").exists()


@root_only
@pytest.mark.parametrize("mode", [0o4755, 0o2755])
def test_a_check_that_would_become_somebody_else_is_not_run(tree: Tree, mode: int) -> None:
    check(tree, "nas", f"touch {tree.root}/ran", mode)
    with pytest.raises(Unreadable, match="is not run: it would run as another user"):
        checks(tree)
    assert not (tree.root / "ran").exists()


@root_only
def test_a_check_that_does_not_end_is_killed_with_all_that_it_started(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labctl.agent.signals.wishes._CHECK_FOR_S", 0.3)
    check(tree, "hangs", "sleep 61.25 & wait")
    with pytest.raises(Unreadable, match=r"hangs did not end within 0\.3 s"):
        checks(tree)
    assert not any(b"61.25" in _words(path) for path in Path("/proc").glob("[0-9]*/cmdline"))
    check(tree, "objects", "echo no; exit 1")
    assert checks(tree) == (True, "objects: no")


def _words(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_program_that_never_stops_printing_is_ended() -> None:
    began = time.monotonic()
    done = children.run(["/usr/bin/yes"], 20)
    assert len(done.output) >= 1 << 20 and done.status == -9 and time.monotonic() - began < 20


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(Unreadable, match="/nowhere/x"):
        children.run(["/nowhere/x"], 5)
