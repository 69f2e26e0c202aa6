"""A store of any age: made, migrated in one transaction, or refused with both versions named."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from keep_schema import SCHEMAS
from lives import ATTEMPT, NOW, ORDER, PROOF, row
from pg_kit import PostgresKit
from sqlalchemy import text

from conftest import KINDS
from labctl import __version__
from labctl.adapters.store import SqlStore, open_store, store_at, tables
from labctl.adapters.store.database import Database
from labctl.adapters.store.postgres import PostgresServer
from labctl.adapters.store.schema import OURS, Steps
from labctl.adapters.store.sqlite import SqliteFile
from labctl.domain.energy.terms import Doing, Grain
from labctl.domain.sleep.lifecycle import Claims, Event, Mode
from labctl.domain.sleep.terms import Repair
from labctl.ports.store import Happening, StoreError

Place = SqliteFile | PostgresServer
NextStep = Callable[..., Steps]

GOOD_STEP = """
    with op.batch_alter_table("host") as host:
        host.add_column(sa.Column("shelf", sa.Text, nullable=False, server_default="top"))
        host.alter_column("because", new_column_name="reason")
"""
BAD_STEP = """
    op.execute("UPDATE host SET because = 'half done'")
    op.execute("UPDATE nothing SET nothing = 1")
"""
ORPHANS = """
    op.execute("DELETE FROM host")
"""


@pytest.fixture
def next_step(tmp_path: Path) -> NextStep:
    """Return what makes the migrations of a labctl to come: ours, and one more."""

    def make(body: str) -> Steps:
        folder = tmp_path / "migrations"
        shutil.copytree(OURS.folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
        number = f"{int(OURS.newest) + 1:04}"
        head = f'"""Next."""\nimport sqlalchemy as sa\nfrom alembic import op\nrevision = "{number}"\n'
        (folder / f"r{number}.py").write_text(
            f'{head}down_revision = "{OURS.newest}"\n\ndef upgrade():{body}'
        )
        return Steps(folder, number)

    return make


def place_of(address: str) -> Place:
    return PostgresServer(address) if "://" in address else SqliteFile(Path(address))


@pytest.fixture(params=KINDS)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a store of the first release."""
    if request.param == "sqlite":
        path = tmp_path / "store.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript((SCHEMAS / "0001.sql").read_text())
        return str(path)
    kit: PostgresKit = request.getfixturevalue("postgres")
    name = kit.database()
    kit.sql((SCHEMAS / "0001.postgres.sql").read_text(), database=name)
    return kit.address(name)


# --- what we ship ---


def test_the_newest_migration_is_the_schema_that_the_code_speaks() -> None:
    script = ScriptDirectory(str(OURS.folder), version_locations=[str(OURS.folder)])
    assert script.get_heads() == [tables.SCHEMA]
    numbers = [revision.revision for revision in script.walk_revisions()]
    assert numbers == [f"{n:04}" for n in range(len(numbers), 0, -1)]


def test_the_migrations_make_the_tables_that_the_code_uses(store: SqlStore) -> None:
    with store._database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": tables.VERSION_TABLE})
        assert compare_metadata(context, tables.metadata) == []


def test_each_released_schema_is_kept() -> None:
    numbers = [f"{n:04}" for n in range(1, int(tables.SCHEMA) + 1)]
    assert sorted(path.name for path in SCHEMAS.iterdir()) == sorted(
        f"{number}{end}" for number in numbers for end in (".sql", ".postgres.sql")
    )


@pytest.mark.parametrize("number", [f"{n:04}" for n in range(1, int(tables.SCHEMA) + 1)])
def test_each_kept_schema_is_brought_up_and_keeps_what_it_held(tmp_path: Path, number: str) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((SCHEMAS / f"{number}.sql").read_text())
    store = open_store(path, create=False)
    assert row(store).mode is Mode.READY
    kept = [
        (one.host, one.doing, one.joules) for one in store.spans(Grain.HOUR, since=0, until=2**40, hosts=[])
    ]
    assert kept == ([] if number == "0001" else [("box", Doing.BUSY, 18000.0)])
    store.close()


# --- made ---


def test_a_new_file_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "labctl" / "store.db"
    store = open_store(path, create=True)
    store.enlist(["box"], now=NOW)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.close()
    path.chmod(0o644)
    open_store(path, create=False).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_create_there_must_be_a_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with pytest.raises(StoreError, match=f"store {path}: there is none .*labctl controller run"):
        open_store(path, create=False)
    assert list(tmp_path.iterdir()) == []
    path.touch()
    with pytest.raises(StoreError, match="it holds no store yet"):
        open_store(path, create=False)
    # As a crash between the making of the file and of the tables leaves it.
    open_store(path, create=True).close()


def test_without_create_a_database_must_hold_a_store(postgres: PostgresKit) -> None:
    address = postgres.address(postgres.database())
    with pytest.raises(StoreError, match=r"it holds no store yet .*labctl controller run"):
        open_store(address, create=False)
    assert postgres.sql("SELECT 1 FROM pg_tables WHERE schemaname = 'public'") == []


def test_the_address_of_a_file_may_be_written_as_one_of_a_database(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path}/store.db", create=True).close()
    open_store(tmp_path / "store.db", create=False).close()


@pytest.mark.parametrize("kind", KINDS)
def test_many_who_make_it_at_once_make_one(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if kind == "sqlite":
        address = str(tmp_path / "store.db")
    else:
        kit: PostgresKit = request.getfixturevalue("postgres")
        address = kit.address(kit.database())
    failures: list[BaseException] = []
    together = threading.Barrier(4)

    def make(number: int) -> None:
        try:
            together.wait(30)
            store = open_store(address, create=True)
            store.enlist([f"box{number}"], now=NOW)
            store.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    store = open_store(address, create=False)
    assert sorted(store.known(now=NOW).hosts) == ["box0", "box1", "box2", "box3"]
    store.close()


# --- of somebody else ---


def test_a_file_of_something_else_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "photos.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE host (name)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"an SQLite file of something else .*name a file of its own"):
        open_store(path, create=True)
    assert path.read_bytes() == before


def test_a_database_with_tables_of_something_else_is_not_touched(postgres: PostgresKit) -> None:
    name = postgres.database()
    postgres.sql("CREATE TABLE host (name text)", database=name)
    with pytest.raises(StoreError, match=r"tables of something else .*a database of its own"):
        open_store(postgres.address(name), create=True)
    rows = postgres.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database=name)
    assert rows == [("host",)]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("mysql://ann:hunter2@db/labctl", "not of PostgreSQL"),
        ("postgresql+asyncpg://ann:hunter2@db/labctl", "not of PostgreSQL"),
        ("postgresql://ann:hunter2@db:port/labctl", "cannot be read"),
        ("://hunter2", "cannot be read"),
        ("postgresql://ann:horse@hunter2@db/labctl", "an @ too many"),
    ],
)
def test_an_address_of_another_kind_is_refused_and_not_repeated(address: str, says: str) -> None:
    with pytest.raises(StoreError, match=says) as caught:
        open_store(address, create=False)
    assert "hunter2" not in str(caught.value)
    assert "postgresql+psycopg://USER:PASSWORD@HOST/NAME" in str(caught.value)


# --- of another age ---


def test_a_store_of_the_first_release_is_read_as_it_was_written(kept: str) -> None:
    store = open_store(kept, create=False)
    box, waking, suspending = (row(store, name) for name in ("box", "waking", "suspending"))
    assert (box.mode, box.claims) == (Mode.READY, Claims(1, 1, 1, paused=True))
    assert (box.boot_id, box.resumes, box.came_up_s, box.proof) == ("boot-1", 3, (21.5,), PROOF)
    assert (waking.mode, waking.attempt, waking.quarantined) == (Mode.WAKING, ATTEMPT, "GPU-1")
    assert waking.repair == Repair(("reboot",), ("GPU-1 is missing",), NOW)
    assert waking.wishes[0].sleep
    assert (suspending.mode, suspending.order) == (Mode.SUSPENDING, ORDER)
    assert suspending.paused == "a new fan (ann)"
    assert store.known(now=NOW).paused == "moving house (ann)"
    assert [intent.action for intent in store.unfinished()] == ["wake"]
    assert store.happenings()[0] == Happening(1, NOW, "", "leader", "controller leads, in term 1")
    leading = store.leading()
    assert leading is not None
    store.move("box", Event.LOST, "", version=box.version, term=leading.term, now=NOW)
    assert store.wish(waking.wishes[0], now=NOW).id > waking.wishes[0].id
    store.close()


def test_an_older_store_is_migrated_and_a_newer_one_refused(kept: str, next_step: NextStep) -> None:
    later = next_step(GOOD_STEP)
    place = place_of(kept)
    store_at(place, create=False, steps=later).close()
    with pytest.raises(StoreError) as caught:
        open_store(kept, create=False)
    assert f"it has schema {later.newest}, made by labctl {__version__}" in str(caught.value)
    assert f"this is labctl {__version__}, which knows schema {OURS.newest}" in str(caught.value)
    assert f"use labctl {__version__} or newer here too" in str(caught.value)
    database = Database(place, lambda connection: None)
    rows = database.read(lambda work: work.run(text("SELECT name, reason, shelf FROM host")).all())
    assert sorted(rows) == [
        ("box", "because of passed", "top"),
        ("suspending", "it is idle", "top"),
        ("waking", "because of wished", "top"),
    ]
    database.drop()


def test_a_running_labctl_notices_that_its_store_was_migrated(kept: str, next_step: NextStep) -> None:
    old = open_store(kept, create=False)
    later = next_step(GOOD_STEP)
    store_at(place_of(kept), create=False, steps=later).close()
    for act in (lambda: old.known(now=NOW), lambda: old.hold("box", "", "ann", until=NOW + 9, now=NOW)):
        with pytest.raises(StoreError, match=f"it has schema {later.newest}"):
            act()
    old.close()


@pytest.mark.parametrize("body", [BAD_STEP, ORPHANS], ids=["half done", "orphans"])
def test_a_migration_that_fails_changes_nothing(kept: str, next_step: NextStep, body: str) -> None:
    with pytest.raises(StoreError, match="this is a bug in labctl"):
        store_at(place_of(kept), create=False, steps=next_step(body))
    store = open_store(kept, create=False)
    assert row(store).because == "because of passed"
    store.close()


def test_a_file_is_copied_before_it_is_migrated(tmp_path: Path, next_step: NextStep) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((SCHEMAS / "0001.sql").read_text())
    store_at(SqliteFile(path), create=False, steps=next_step(GOOD_STEP)).close()
    backup = tmp_path / "store.db.schema-0001"
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    store = open_store(backup, create=False)
    assert row(store).because == "because of passed"
    store.close()
    # To go back, put the copy there.
    backup.replace(path)
    store = open_store(path, create=False)
    assert row(store).mode is Mode.READY
    store.close()


def test_a_file_that_cannot_be_copied_is_not_migrated(tmp_path: Path, next_step: NextStep) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((SCHEMAS / f"{tables.SCHEMA}.sql").read_text())
    (tmp_path / f"store.db.schema-{tables.SCHEMA}").mkdir()
    with pytest.raises(StoreError, match=r"no backup .*Is a directory.* only migrated once it is backed up"):
        store_at(SqliteFile(path), create=False, steps=next_step(GOOD_STEP))
    store = open_store(path, create=False)
    assert row(store).mode is Mode.READY
    store.close()
    assert not (tmp_path / f"store.db.schema-{tables.SCHEMA}.new").exists()
