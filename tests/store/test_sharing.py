"""A store in a folder that a group shares, and one that comes there from where it was before."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lives import NOW

from labctl.adapters.store import move_store, open_store
from labctl.ports.store import StoreError

GROUP = 4711


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder to which every user can go: pytest's own is one user's."""
    with tempfile.TemporaryDirectory(prefix="labctl-shared-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _shared(folder: Path, group: int) -> Path:
    folder.mkdir()
    os.chown(folder, -1, group)
    folder.chmod(0o2770)
    return folder / "store.db"


def _modes(path: Path) -> dict[str, tuple[int, int]]:
    found = {one.name: one.stat() for one in path.parent.iterdir()}
    return {name: (stat.S_IMODE(one.st_mode), one.st_gid) for name, one in found.items()}


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other users")


@needs_root
def test_in_a_folder_that_a_group_shares_the_store_is_that_groups(tmp_path: Path) -> None:
    path = _shared(tmp_path / "shared", GROUP)
    umask = os.umask(0o077)
    try:
        store = open_store(path, create=True)
        store.enlist(["box"], now=NOW)
    finally:
        os.umask(umask)
    assert _modes(path) == dict.fromkeys(("store.db", "store.db-wal", "store.db-shm"), (0o660, GROUP))
    store.close()
    path.chmod(0o666)
    open_store(path, create=False).close()
    assert _modes(path)["store.db"] == (0o660, GROUP)


@needs_root
@pytest.mark.parametrize("mode", [0o770, 0o2775, 0o2750, 0o2700])
def test_any_other_folder_is_no_reason_to_let_others_in(tmp_path: Path, mode: int) -> None:
    path = _shared(tmp_path / "folder", GROUP)
    path.parent.chmod(mode)
    store = open_store(path, create=True)
    store.enlist(["box"], now=NOW)
    assert {one for one, _ in _modes(path).values()} == {0o600}
    store.close()


@needs_root
def test_a_store_of_before_is_brought_along_with_its_newest_writes(tmp_path: Path) -> None:
    old, new = tmp_path / "old" / "store.db", _shared(tmp_path / "shared", GROUP)
    old.parent.mkdir()
    used = open_store(old, create=True)
    used.enlist(["box"], now=NOW)
    assert old.with_name("store.db-wal").stat().st_size
    move_store(old, new)
    used.close()
    assert list(old.parent.iterdir()) == []
    store = open_store(new, create=True)
    assert list(store.known(now=NOW).hosts) == ["box"]
    assert set(_modes(new).values()) == {(0o660, GROUP)}
    store.close()
    # Once it was moved, what lies at the old place is none of ours.
    old.write_text("something else")
    move_store(old, new)
    assert old.read_text() == "something else"


def test_a_move_that_was_cut_short_begins_anew(tmp_path: Path) -> None:
    old, new = tmp_path / "store.db", tmp_path / "new" / "store.db"
    new.parent.mkdir()
    used = open_store(old, create=True)
    used.enlist(["box"], now=NOW)
    new.with_name("store.db.moving").write_text("half of it")
    move_store(old, new)
    used.close()
    store = open_store(new, create=False)
    assert list(store.known(now=NOW).hosts) == ["box"]
    store.close()
    assert [one.name for one in new.parent.iterdir()] == ["store.db"]
    move_store(old, new)  # there is none any more


def test_a_store_that_cannot_be_moved_says_how_to_do_it(tmp_path: Path) -> None:
    old = tmp_path / "store.db"
    open_store(old, create=True).close()
    with pytest.raises(StoreError, match=r"cannot be moved to .* No such file .*by hand"):
        move_store(old, tmp_path / "nowhere" / "store.db")
    open_store(old, create=False).close()


@contextmanager
def another(user: int, *, member: bool = True) -> Iterator[None]:
    """Be another user for a while, of the group or not."""
    groups = os.getgroups()
    os.setgroups([GROUP] if member else [])
    os.setegid(user)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@needs_root
def test_two_users_of_the_group_share_it_whoever_makes_its_log(folder: Path) -> None:
    path = _shared(folder / "shared", GROUP)
    os.chown(path.parent, 4712, -1)
    with another(4712):
        open_store(path, create=True).close()  # the last who closes it takes its log away
    assert list(_modes(path)) == ["store.db"]
    with another(4713):
        gateway = open_store(path, create=False)
        gateway.register("gateway", "gateway", now=NOW)
    assert set(_modes(path).values()) == {(0o660, GROUP)}
    with another(4712):
        controller = open_store(path, create=True)
        controller.enlist(["box"], now=NOW)
        assert [one.name for one in controller.instances()] == ["gateway"]
    with another(4713):
        assert list(gateway.known(now=NOW).hosts) == ["box"]
        gateway.close()
    with another(4712):
        controller.close()
    assert list(_modes(path)) == ["store.db"]


@needs_root
def test_a_stranger_does_not_get_in(folder: Path) -> None:
    path = _shared(folder / "shared", GROUP)
    open_store(path, create=True).close()
    with another(4713, member=False), pytest.raises(StoreError, match="cannot be opened: Permission denied"):
        open_store(path, create=False)
