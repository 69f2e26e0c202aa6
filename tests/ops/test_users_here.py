"""The scripts behind ``users``: stand-ins change no account; keys are really written as another user."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ops_hosts import Done, Here

from labctl.ops.command import Script, content_on_stdin, text
from labctl.ops.facts_users import Group, User
from labctl.ops.users import BEGIN, END, with_keys

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOSgdXhTYQ4VhMwxhWvOcU2pZ8kQTrP0YqL6cT1cCpmz admin@laptop"
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


class Accounts:
    """A host with one user, ``admin``, whose home lies below the test's directory."""

    def __init__(self, here: Here, top: Path) -> None:
        self.here = here
        self.home = top / "home/admin"
        self.ssh = self.home / ".ssh"
        self.keys = self.ssh / "authorized_keys"
        self.log = here.root / "log"
        line = f"admin:x:{NOBODY}:{NOBODY}::{self.home}:/bin/sh"
        here.stand_in("getent", f'case "$1 $2" in "passwd admin") echo "{line}";; *) exit 2;; esac')
        for program in ("useradd", "usermod"):
            here.stand_in(program, f'printf "%s %s\\n" {program} "$*" >> {self.log}')

    def make_home(self) -> None:
        self.home.mkdir(parents=True)
        os.chown(self.home, NOBODY, NOBODY)

    def run(self, action: str = "keep", home: str = "", keys: bytes | None = None, *options: str) -> Done:
        write = ("", "") if keys is None else ("write", text("keys"))
        stdin = "" if keys is None else content_on_stdin(keys)
        return self.here.run(Script("user", "admin", action, home, *write, *options, stdin=stdin))


@pytest.fixture
def accounts(here: Here) -> Iterator[Accounts]:
    # pytest's own directories are private to root, and the user must be able to reach its home.
    with tempfile.TemporaryDirectory(prefix="labctl-test-") as top:
        Path(top).chmod(0o711)
        yield Accounts(here, Path(top))


def test_a_new_user_gets_a_group_of_its_own(accounts: Accounts) -> None:
    assert accounts.run("create", "", None, "-M", "-s", "/bin/sh").status == 0
    assert accounts.log.read_text() == "useradd -M -s /bin/sh -U -- admin\n"


def test_a_new_user_joins_a_group_of_its_name_that_exists(accounts: Accounts) -> None:
    line = f"admin:x:1:1::{accounts.home}:/bin/sh"
    accounts.here.stand_in("getent", f'case $1 in passwd) echo "{line}";; group) echo "admin:x:1:";; esac')
    assert accounts.run("create").status == 0
    assert accounts.log.read_text() == "useradd -g admin -- admin\n"


@as_root
def test_a_missing_home_is_made_from_the_skeleton(accounts: Accounts) -> None:
    assert accounts.run("keep", "make").status == 0
    seen = accounts.home.stat()
    assert (seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode)) == (NOBODY, NOBODY, 0o750)
    assert sorted(os.listdir(accounts.home)) == sorted(os.listdir("/etc/skel"))


@as_root
def test_keys_are_written_as_the_user_with_modes_that_sshd_accepts(accounts: Accounts) -> None:
    accounts.make_home()
    done = accounts.run(keys=f"{KEY}\n".encode())
    assert (done.status, done.stderr) == (0, "")
    assert accounts.keys.read_text() == f"{KEY}\n"
    for path, mode in ((accounts.ssh, 0o700), (accounts.keys, 0o600)):
        seen = path.stat()
        assert (seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode)) == (NOBODY, NOBODY, mode)
    assert os.listdir(accounts.ssh) == ["authorized_keys"]


@as_root
def test_a_link_planted_for_the_file_is_replaced_not_followed(accounts: Accounts, tmp_path: Path) -> None:
    accounts.make_home()
    prey = tmp_path / "shadow"
    prey.write_text("root's own")
    accounts.ssh.mkdir(mode=0o700)
    os.chown(accounts.ssh, NOBODY, NOBODY)
    accounts.keys.symlink_to(prey)
    assert accounts.run(keys=b"new\n").status == 0
    assert prey.read_text() == "root's own"
    assert accounts.keys.read_text() == "new\n"


@as_root
def test_a_link_planted_for_the_folder_leads_nowhere_the_user_could_not_go(
    accounts: Accounts, tmp_path: Path
) -> None:
    accounts.make_home()
    prey = tmp_path / "root"
    prey.mkdir(mode=0o700)
    accounts.ssh.symlink_to(prey)
    done = accounts.run(keys=b"new\n")
    assert done.status != 0
    assert os.listdir(prey) == []


@as_root
def test_keys_that_were_cut_off_on_their_way_change_nothing(accounts: Accounts) -> None:
    accounts.make_home()
    assert accounts.run(keys=b"old\n").status == 0
    command = Script(
        "user", "admin", "keep", "", "write", text("keys"), stdin=content_on_stdin(b"new\n" * 99)
    )
    assert accounts.here.run(command, stdin=command.stdin[:200]).status != 0
    assert accounts.keys.read_text() == "old\n"


def test_this_machine_knows_root_and_not_nosuchuser(here: Here) -> None:
    root = here.get_fact(User, user="root", keys=True)
    assert (root.exists, root.uid, root.home, root.has_home) == (True, 0, "/root", True)
    assert "root" in root.groups
    assert not here.get_fact(User, user="nosuchuser", keys=True).exists
    assert here.get_fact(Group, group="root")
    assert not here.get_fact(Group, group="nosuchgroup")


def test_granting_again_changes_nothing_and_taking_back_restores_the_file() -> None:
    mine = "# my keys\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA me@desk\n"
    granted = with_keys(mine, (KEY,))
    assert granted == f"{mine}{BEGIN}\n{KEY}\n{END}\n"
    assert with_keys(granted, (KEY,)) == granted
    assert with_keys(granted, ()) == mine


def test_a_missing_newline_does_not_join_two_keys() -> None:
    assert with_keys("ssh-rsa AAAAB3 me", (KEY,)).splitlines()[:2] == ["ssh-rsa AAAAB3 me", BEGIN]
