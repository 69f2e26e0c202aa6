"""What can befall a PostgreSQL: each time a reason, nothing changed, and it works once mended."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Callable, Iterator

import psycopg
import pytest
from lives import NOW, ORDER, bring, lease, row
from pg_kit import PASSWORD, PostgresKit
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from labctl.adapters.store import SqlStore, open_store
from labctl.adapters.store.database import Transaction
from labctl.adapters.store.deciding import require_term
from labctl.adapters.store.postgres import PostgresServer
from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.ports.store import StaleError, Store, StoreError


@pytest.fixture
def name(emptied: str) -> str:
    return emptied


@pytest.fixture
def store(postgres: PostgresKit, name: str) -> Iterator[SqlStore]:
    store = open_store(postgres.address_by_tcp(name), create=False)
    assert isinstance(store, SqlStore)
    bring(store, Mode.DRAINING)
    store.register("gateway", "gateway", now=NOW)
    yield store
    store.close()


def changes(store: Store) -> list[Callable[[], object]]:
    version = row(store).version
    return [
        lambda: store.order("box", ORDER, "it is idle", version=version, term=1, now=NOW),
        lambda: store.move("box", Event.NEEDED, "", version=version, term=1, now=NOW),
        lambda: store.take_lease("gateway", "box", now=NOW),
        lambda: store.hold("box", "training", "ann", until=NOW + 9, now=NOW),
    ]


def refused(acts: list[Callable[[], object]], *says: str) -> None:
    for act in acts:
        with pytest.raises(StoreError) as caught:
            act()
        for part in says:
            assert part in str(caught.value)
        assert caught.value.problems[0].hint
        assert PASSWORD not in "".join(traceback.format_exception(caught.value))


def works(store: Store) -> None:
    """Assert that nothing was changed, and that it can be now."""
    assert row(store).mode is Mode.DRAINING
    assert row(store).claims.holds == row(store).claims.leases == 0
    lease(store)
    assert row(store).mode is Mode.READY


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_a_server_that_is_down_changes_nothing(
    postgres: PostgresKit, store: SqlStore, name: str, how: signal.Signals
) -> None:
    acts = changes(store)
    postgres.stop(how)
    try:
        refused(
            [*acts, lambda: store.known(now=NOW)],
            f"store {name} on 127.0.0.1:{postgres.port}: it cannot be reached",
            "the controller tries again by itself",
        )
    finally:
        postgres.start()
    works(store)


def test_a_server_that_was_restarted_between_two_calls_is_not_even_noticed(
    postgres: PostgresKit, store: SqlStore
) -> None:
    postgres.stop()
    postgres.start()
    works(store)


def test_a_connection_that_breaks_in_a_transaction_takes_it_along(
    postgres: PostgresKit, store: SqlStore
) -> None:
    def work(transaction: Transaction) -> None:
        postgres.terminate_in_transaction()
        transaction.run(text("UPDATE host SET because = 'half done'"))

    refused([lambda: store._database.write(work)], "it was shut down, or is starting")
    works(store)


def test_a_commit_of_which_nothing_is_heard_may_have_happened(postgres: PostgresKit, store: SqlStore) -> None:
    def work(_: object) -> None:
        postgres.terminate_in_transaction()

    refused([lambda: store._database.write(work)], "it may or may not have happened", "look again")
    works(store)


def test_a_read_only_database_changes_nothing(postgres: PostgresKit, store: SqlStore, name: str) -> None:
    acts = changes(store)
    postgres.stop()
    signal_file = postgres.folder / "data" / "standby.signal"
    signal_file.touch()
    try:
        postgres.start()
        refused(acts, "it cannot be written: a standby", "name the primary")
        assert row(store).mode is Mode.DRAINING
    finally:
        postgres.stop()
        signal_file.unlink(missing_ok=True)
        postgres.start()
    works(store)


def test_a_lock_that_others_hold_is_not_waited_for_for_ever(postgres: PostgresKit, name: str) -> None:
    address = postgres.address_by_tcp(name) + "?options=-c%20lock_timeout%3D50ms"
    store = open_store(address, create=False)
    bring(store, Mode.DRAINING)
    store.register("gateway", "gateway", now=NOW)
    acts = changes(store)
    where = f"host={postgres.folder} port={postgres.port} user=labctl dbname={name}"
    with psycopg.connect(where) as other:
        other.execute("SELECT * FROM host FOR UPDATE")
        refused(acts, "another program holds a lock on it", "pg_stat_activity")
        assert row(store).mode is Mode.DRAINING
        other.rollback()
    works(store)
    store.close()


def test_a_server_without_room_for_connections_says_so(postgres: PostgresKit, name: str) -> None:
    postgres.sql(
        f"CREATE ROLE few LOGIN CONNECTION LIMIT 0 PASSWORD '{PASSWORD}'",
    )
    address = postgres.address_by_tcp(name).replace("labctl:", "few:")
    with pytest.raises(StoreError, match=r'too many connections for role "few"'):
        open_store(address, create=False)
    postgres.sql("DROP ROLE few")


def test_a_wrong_password_is_named_and_not_shown(postgres: PostgresKit, name: str) -> None:
    address = postgres.address_by_tcp(name, "hunter2-secret")
    with pytest.raises(StoreError, match=r"it does not let us in: .*the user and password") as caught:
        open_store(address, create=False)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    by_query = f"postgresql://labctl@127.0.0.1:{postgres.port}/{name}?password=hunter2-secret"
    with pytest.raises(StoreError, match="it does not let us in") as caught:
        open_store(by_query, create=False)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_database_that_is_not_there_is_named(postgres: PostgresKit) -> None:
    with pytest.raises(StoreError, match=r"there is no such database: .*createdb"):
        open_store(postgres.address_by_tcp("nowhere"), create=True)


def test_a_database_that_was_made_anew_is_refused_until_it_holds_a_store(
    postgres: PostgresKit, template: str
) -> None:
    name = postgres.database(template)
    store = open_store(postgres.address_by_tcp(name), create=False)
    bring(store, Mode.DRAINING)
    acts = changes(store)
    postgres.sql(f"DROP DATABASE {name} WITH (FORCE)")
    refused(acts, "there is no such database")
    postgres.sql(f"CREATE DATABASE {name}")
    refused(acts, "it holds no store", "labctl controller run")
    open_store(postgres.address(name), create=True).close()
    assert dict(store.known(now=NOW).hosts) == {}
    store.close()


def test_a_user_who_may_not_write_is_told_so(postgres: PostgresKit, store: SqlStore, name: str) -> None:
    postgres.sql(
        "CREATE ROLE guest LOGIN PASSWORD 'correct-horse'",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest",
        database=name,
    )
    guest = open_store(postgres.address_by_tcp(name).replace("labctl:", "guest:"), create=False)
    assert row(guest).mode is Mode.DRAINING
    refused(changes(guest), "the user may not do that", "make the user the owner of the database")
    guest.close()
    works(store)
    postgres.sql("DROP OWNED BY guest", "DROP ROLE guest", database=name)


def test_a_row_that_makes_no_sense_is_refused_and_named(
    postgres: PostgresKit, store: SqlStore, name: str
) -> None:
    postgres.sql("UPDATE host SET mode = 'dozing'", database=name)
    refused([lambda: store.known(now=NOW)], "host box: 'dozing' is no mode")
    postgres.sql("UPDATE host SET mode = 'draining'", database=name)
    works(store)


def test_an_order_waits_for_the_lease_that_came_first(
    postgres: PostgresKit, store: SqlStore, name: str
) -> None:
    """READ COMMITTED alone would let both commit: each looks before the other has written."""
    version = row(store).version
    said: list[object] = []

    def order() -> None:
        try:
            said.append(store.order("box", ORDER, "", version=version, term=1, now=NOW))
        except StaleError as error:
            said.append(error)

    where = f"host={postgres.folder} port={postgres.port} user=labctl dbname={name}"
    with psycopg.connect(where) as lessee:
        # As take_lease does it, stopped just before its commit.
        lessee.execute("SELECT * FROM host WHERE name = 'box' FOR UPDATE")
        lessee.execute("UPDATE host SET mode = 'ready', version = version + 1")
        lessee.execute("INSERT INTO lease (host, instance, since) VALUES ('box', 'gateway', 0)")
        thread = threading.Thread(target=order)
        thread.start()
        while thread.is_alive() and not postgres.someone_waits(name):
            pass
        assert said == [], "the order did not wait"
        lessee.commit()
    thread.join()
    assert "it is ready" in str(said[0])
    assert row(store).claims.leases == 1


def test_a_lease_waits_for_the_order_that_came_first(
    postgres: PostgresKit, store: SqlStore, name: str
) -> None:
    said: list[object] = []
    thread = threading.Thread(target=lambda: said.append(store.take_lease("gateway", "box", now=NOW)))
    where = f"host={postgres.folder} port={postgres.port} user=labctl dbname={name}"
    with psycopg.connect(where) as suspender:
        suspender.execute("SELECT * FROM host WHERE name = 'box' FOR UPDATE")
        suspender.execute("UPDATE host SET mode = 'suspending', sleep_order = '{}'")
        thread.start()
        while thread.is_alive() and not postgres.someone_waits(name):
            pass
        assert said == [], "the lease did not wait"
        suspender.commit()
    thread.join()
    assert said == [Mode.SUSPENDING]


def test_a_new_leader_waits_for_what_the_old_one_is_about_to_commit(
    postgres: PostgresKit, store: SqlStore, name: str
) -> None:
    """Otherwise a stale leader could commit an order after the new one has looked."""
    over = store.leading()
    said: list[object] = []
    thread = threading.Thread(target=lambda: said.append(store.lead("standby", over=over, now=NOW)))

    def work(transaction: Transaction) -> None:
        require_term(transaction, 1)
        thread.start()
        while thread.is_alive() and not postgres.someone_waits(name):
            pass
        assert said == [], "the new leader did not wait"

    store._database.write(work)
    thread.join()
    assert said == [store.leading()]


def test_an_instance_is_not_buried_while_it_takes_a_lease(
    postgres: PostgresKit, store: SqlStore, name: str
) -> None:
    said: list[object] = []
    thread = threading.Thread(target=lambda: said.append(store.bury("gateway", 0, now=NOW)))
    where = f"host={postgres.folder} port={postgres.port} user=labctl dbname={name}"
    with psycopg.connect(where) as lessee:
        lessee.execute("SELECT name FROM instance WHERE name = 'gateway' FOR KEY SHARE")
        thread.start()
        while thread.is_alive() and not postgres.someone_waits(name):
            pass
        assert said == [], "the burial did not wait"
        lessee.execute("INSERT INTO lease (host, instance, since) VALUES ('box', 'gateway', 0)")
        lessee.commit()
    thread.join()
    assert said == [True]
    assert row(store).claims.leases == 0


def test_a_pause_of_the_rack_waits_for_an_order_that_came_first(
    postgres: PostgresKit, store: SqlStore, name: str
) -> None:
    said: list[object] = []
    thread = threading.Thread(target=lambda: said.append(store.pause(None, "moving", "ann", now=NOW)))
    where = f"host={postgres.folder} port={postgres.port} user=labctl dbname={name}"
    with psycopg.connect(where) as suspender:
        suspender.execute("SELECT * FROM host WHERE name = 'box' FOR UPDATE")
        suspender.execute("SELECT paused FROM rack")
        suspender.execute("UPDATE host SET mode = 'suspending', sleep_order = '{}'")
        thread.start()
        while thread.is_alive() and not postgres.someone_waits(name):
            pass
        assert said == [], "the pause did not wait"
        suspender.commit()
    thread.join()
    assert said == [None]
    assert postgres.sql("SELECT mode FROM host", database=name) == [("suspending",)]


def test_whatever_the_driver_says_no_secret_is_in_it() -> None:
    address = "postgresql://ann:hunter2@db/labctl?sslpassword=hunter3"
    raised = DBAPIError("SELECT 1", None, Exception("cannot use hunter2 with hunter3 here"))
    said = str(PostgresServer(address).explain(raised).error)
    assert "store labctl on db: it cannot be reached: cannot use *** with *** here" in said
