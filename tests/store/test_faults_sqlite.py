"""What can befall the file of a store: each time a reason, nothing changed, and it works once mended."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from lives import NOW, ORDER, bring, leader, lease, row
from sqlalchemy import event

from labctl.adapters.store import SqlStore, open_store, store_at
from labctl.adapters.store.sqlite import SqliteFile
from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.ports.store import StaleError, Store, StoreError

NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a directory that others than its owner can reach, as pytest's own cannot."""
    with tempfile.TemporaryDirectory(prefix="labctl-store-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@dataclass
class Box:
    """A store with one host that drains, as the leader of term 1 and as a gateway see it."""

    path: Path
    store: SqlStore

    def changes(self) -> list[Callable[[], object]]:
        version = row(self.store).version
        store = self.store
        return [
            lambda: store.order("box", ORDER, "it is idle", version=version, term=1, now=NOW),
            lambda: store.move("box", Event.NEEDED, "", version=version, term=1, now=NOW),
            lambda: store.take_lease("gateway", "box", now=NOW),
            lambda: store.hold("box", "training", "ann", until=NOW + 9, now=NOW),
            lambda: store.beat("gateway", now=NOW),
            lambda: store.prune(before=NOW + 1),
        ]


@pytest.fixture
def box(folder: Path) -> Iterator[Box]:
    path = folder / "store.db"
    store = store_at(SqliteFile(path, busy_s=0.02), create=True)
    bring(store, Mode.DRAINING)
    store.register("gateway", "gateway", now=NOW)
    yield Box(path, store)
    store.close()


def refused(acts: list[Callable[[], object]], *says: str) -> None:
    for act in acts:
        with pytest.raises(StoreError) as caught:
            act()
        for part in says:
            assert part in str(caught.value)
        assert caught.value.problems[0].hint


def works(store: Store) -> None:
    """Assert that nothing was changed, and that it can be now."""
    assert row(store).mode is Mode.DRAINING
    assert row(store).claims.holds == row(store).claims.leases == 0
    lease(store)
    assert row(store).mode is Mode.READY


# --- locked ---


def test_a_locked_store_can_be_read_and_not_changed(box: Box) -> None:
    changes = box.changes()
    with closing(sqlite3.connect(box.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused(changes, f"store {box.path}: it is locked by another program", f"fuser {box.path}")
        assert row(box.store).mode is Mode.DRAINING
    works(box.store)


def test_a_writer_of_the_same_process_waits_its_turn_and_not_for_ever(box: Box) -> None:
    place = box.store._database._place
    assert isinstance(place, SqliteFile)
    changes = box.changes()
    place._busy_s = -2.98  # what is waited for a turn is 3 s longer
    with place.turn():
        refused(changes[:1], "other threads write for too long")
    works(box.store)


# --- it cannot be written ---


@contextmanager
def _as_nobody(box: Box) -> Iterator[None]:
    """Let root feel what a file's mode says; others feel it anyway."""
    box.store.close()
    if os.geteuid() != 0:
        yield
        return
    for path in (box.path.parent, *box.path.parent.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
        box.store.close()
    finally:
        os.seteuid(0)


def test_a_store_that_is_read_only_says_so(box: Box) -> None:
    changes = box.changes()
    with _as_nobody(box):
        box.path.chmod(0o400)
        refused(changes, "it cannot be written", f"ls -ld {box.path.parent}")
        box.path.chmod(0o600)
        works(box.store)


def test_a_store_that_may_not_even_be_read_says_so(box: Box) -> None:
    changes = box.changes()
    with _as_nobody(box):
        box.path.chmod(0)
        refused([*changes, lambda: box.store.known(now=NOW)], "it cannot be opened")
        box.path.chmod(0o600)
        works(box.store)


def test_a_directory_that_is_read_only_says_so(box: Box) -> None:
    changes = box.changes()
    with _as_nobody(box):
        box.path.parent.chmod(0o500)
        refused(changes, f"ls -ld {box.path.parent}")
        box.path.parent.chmod(0o700)
        works(box.store)


# --- no space ---


def test_a_full_store_changes_nothing(box: Box) -> None:
    store = box.store
    store.close()
    limit = {"pages": 1}

    def limited(connection: sqlite3.Connection, _record: object) -> None:
        # SQLite never sets it below what there is: then no page can be added.
        connection.execute(f"PRAGMA max_page_count={limit['pages']}")

    event.listen(store._database.engine, "connect", limited)
    version = row(store).version
    with pytest.raises(StoreError, match=rf"no space left for it .*df -h {box.path.parent}"):
        for _ in range(1000):
            store.happen("box", "test", "x" * 500, now=NOW)
    filled = len(store.happenings(most=2000))
    long = "x" * 9000
    for act in (
        lambda: store.order("box", ORDER, long, version=version, term=1, now=NOW),
        lambda: store.hold("box", long, "ann", until=NOW + 9, now=NOW),
    ):
        refused([act], "there is no space left for it")
    assert len(store.happenings(most=2000)) == filled
    limit["pages"] = 100_000
    store.close()
    works(store)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_changes_nothing(folder: Path) -> None:
    mount = folder / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mount)], check=True)
    try:
        store = store_at(SqliteFile(mount / "store.db", busy_s=0.02), create=True)
        bring(store, Mode.DRAINING)
        store.register("gateway", "gateway", now=NOW)
        version = row(store).version
        filler = mount / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
        with pytest.raises(StoreError, match="there is no space left for it"):
            for _ in range(100):
                store.happen("box", "test", "x" * 500, now=NOW)
        with pytest.raises(StoreError, match="there is no space left for it"):
            store.order("box", ORDER, "x" * 9000, version=version, term=1, now=NOW)
        filler.unlink()
        works(store)
        store.close()
        assert _sound(mount / "store.db")
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def _sound(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# --- gone, or another one ---


def test_a_store_that_is_gone_takes_nothing_until_it_is_back(box: Box) -> None:
    changes = box.changes()
    away = box.path.with_name("away.db")
    box.path.rename(away)
    look = [lambda: box.store.known(now=NOW)]
    refused([*changes, *look], f"store {box.path}: the file is gone", "put a backup there")
    assert not box.path.exists()
    away.rename(box.path)
    works(box.store)


def test_a_directory_that_is_gone_is_a_store_that_is_gone(box: Box) -> None:
    changes = box.changes()
    away = box.path.parent.with_name(f"{box.path.parent.name}-away")
    box.path.parent.rename(away)
    refused(changes, "the file is gone")
    away.rename(box.path.parent)
    works(box.store)


def _another(box: Box) -> Path:
    path = box.path.with_name("other.db")
    another = open_store(path, create=True)
    bring(another, Mode.ASLEEP)
    another.close()
    return path


def _log_removed(box: Box) -> None:
    for end in ("-wal", "-shm"):
        box.path.with_name(box.path.name + end).unlink()


def test_nothing_is_decided_on_a_file_that_was_replaced(box: Box) -> None:
    """The old file takes writes that nobody ever sees again."""
    other, changes = _another(box), box.changes()
    other.replace(box.path)
    _log_removed(box)
    refused(changes[:1], "the file was replaced by another one while it was in use", "with the new file")
    assert row(box.store).mode is Mode.ASLEEP
    with pytest.raises(StaleError, match="taken for dead"):
        box.store.take_lease("gateway", "box", now=NOW)


def test_the_log_of_the_old_file_is_not_applied_to_the_new_one(box: Box) -> None:
    other, changes = _another(box), box.changes()
    other.replace(box.path)
    refused(changes[:1], "the file was replaced by another one")
    refused(changes, "store.db-wal is of the file that was there before", f"remove {box.path}-wal")
    _log_removed(box)
    assert row(box.store).mode is Mode.ASLEEP


def test_the_log_of_a_file_that_comes_back_is_applied_to_it(box: Box) -> None:
    other, changes = _another(box), box.changes()
    away = box.path.with_name("away.db")
    box.path.rename(away)
    refused(changes[:1], "the file is gone")
    other.rename(box.path)
    refused(changes[:1], "is of the file that was there before")
    away.replace(box.path)
    works(box.store)


def test_a_file_that_is_replaced_within_a_transaction_gets_none_of_it(box: Box) -> None:
    other = _another(box)

    def replace(*_: object) -> None:
        if other.exists():
            other.replace(box.path)

    event.listen(box.store._database.engine, "after_cursor_execute", replace)
    refused([lambda: box.store.enlist(["new"], now=NOW)], "the file was replaced")
    _log_removed(box)
    assert {name: host.mode for name, host in box.store.known(now=NOW).hosts.items()} == {"box": Mode.ASLEEP}


def test_a_file_of_something_else_in_its_place_is_refused(box: Box, folder: Path) -> None:
    changes = box.changes()
    other = folder / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE something (else_)")
    other.replace(box.path)
    _log_removed(box)
    refused(changes[:1], "the file was replaced")
    refused(changes, "it is an SQLite file of something else")


# --- damaged ---


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"this is no database, whatever its name says\n" * 200, "it is no SQLite file"),
        (b"", "it holds no store"),
    ],
    ids=["text", "empty"],
)
def test_a_file_with_other_content_in_its_place_is_refused(box: Box, content: bytes, says: str) -> None:
    good = _kept(box)
    changes = box.changes()
    box.store.close()
    box.path.write_bytes(content)
    refused([*changes, lambda: box.store.known(now=NOW)], says)
    with pytest.raises(StoreError, match=says):
        open_store(box.path, create=False)
    _put_back(good, box.path)
    works(box.store)


@pytest.mark.parametrize("page", range(2, 12))
def test_a_damaged_page_is_found_before_anything_is_decided(box: Box, page: int) -> None:
    good = _kept(box)
    changes = box.changes()
    box.store.close()
    with box.path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\x5a" * 4096)
    refused([*changes, lambda: box.store.known(now=NOW)], "it is damaged", "put a backup in its place")
    _put_back(good, box.path)
    works(box.store)


def test_a_file_that_was_cut_off_while_in_use_is_found(box: Box) -> None:
    good = _kept(box)
    changes = box.changes()
    box.store.close()
    row(box.store)
    os.truncate(box.path, 4096 * 3)
    box.store._database.engine.dispose()
    with pytest.raises(StoreError, match=r"damaged|disk does not"):
        changes[0]()
    _put_back(good, box.path)
    works(box.store)


def test_a_row_that_makes_no_sense_is_refused_and_named(box: Box) -> None:
    for column, value, says in (
        ("mode", "dozing", "'dozing' is no mode"),
        ("proof", '{"cycles": 3}', "its row cannot be read"),
        ("proof", "{half", "Expecting property name"),
    ):
        with closing(sqlite3.connect(box.path, isolation_level=None)) as other:
            (before,) = other.execute(f"SELECT {column} FROM host").fetchone()
            other.execute(f"UPDATE host SET {column} = ?", [value])
            with pytest.raises(StoreError, match=says):
                box.store.known(now=NOW)
            other.execute(f"UPDATE host SET {column} = ?", [before])
    works(box.store)


def _kept(box: Box) -> Path:
    box.store.close()
    good = box.path.with_name("good.db")
    shutil.copyfile(box.path, good)
    return good


def _put_back(good: Path, path: Path) -> None:
    """As the hint says: without what SQLite wrote beside the damaged one."""
    for left in ("-wal", "-shm"):
        path.with_name(path.name + left).unlink(missing_ok=True)
    good.replace(path)


# --- what is no fault of the file ---


def test_a_path_that_is_a_directory_is_refused(folder: Path) -> None:
    for create in (True, False):
        with pytest.raises(StoreError, match=f"store {folder}: .*cannot be opened"):
            open_store(folder, create=create)


def test_a_place_below_a_file_is_refused(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(StoreError, match="cannot be opened: "):
        open_store(folder / "file" / "store.db", create=True)


def test_no_transaction_is_left_open_by_a_failure(box: Box) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        box.store._database.write(broken)
    works(box.store)
    assert leader(box.store, "standby").term == 2
