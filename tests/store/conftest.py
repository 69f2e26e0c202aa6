"""Stores for tests: each test of the contract runs on SQLite and on a real PostgreSQL.

All tests of PostgreSQL run on one xdist worker (tests/conftest.py tells them by their names), so that one
server serves them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pg_kit import PostgresKit, postgres_kit

from labctl.adapters.store import SqlStore, open_store
from labctl.ports.store import Store

KINDS = [pytest.param("sqlite", id="sqlite"), pytest.param("postgres", id="postgres")]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresKit]:
    with postgres_kit() as kit:
        yield kit


@pytest.fixture(scope="session")
def template(postgres: PostgresKit) -> str:
    """Return a database with our schema, which is lent to one test after the other."""
    name = postgres.database()
    open_store(postgres.address(name), create=True).close()
    return name


@pytest.fixture
def emptied(postgres: PostgresKit, template: str) -> str:
    """Return a database that holds an empty store: making one for each test fills a disk."""
    tables = ("lease", "hold", "wish", "instance", "host", "intent", "happening")
    tables += ("energy_minute", "energy_hour", "energy_day", "token_hour", "token_day")
    postgres.sql(
        *(f"DELETE FROM {table}" for table in tables),
        "UPDATE leader SET holder = NULL, term = 0, beat = 0",
        "UPDATE rack SET paused = ''",
        database=template,
    )
    return template


@pytest.fixture(params=KINDS)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a store that is there and empty."""
    if request.param == "sqlite":
        path = tmp_path / "store.db"
        open_store(path, create=True).close()
        return str(path)
    kit: PostgresKit = request.getfixturevalue("postgres")
    return kit.address(request.getfixturevalue("emptied"))


@pytest.fixture
def opened(address: str) -> Iterator[Callable[[], Store]]:
    """Return what opens the same store once more, as another process would."""
    stores: list[Store] = []

    def one() -> Store:
        stores.append(open_store(address, create=False))
        return stores[-1]

    yield one
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[[], Store]) -> SqlStore:
    store = opened()
    assert isinstance(store, SqlStore)
    return store
