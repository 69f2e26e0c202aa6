"""Time leases of the store against the same statements by plain ``sqlite3``, in one run.

    .venv/bin/python bench/store.py [--leases 5000] [--url postgresql+psycopg://...]

A lease is what a gateway pays for before it may send a request to a host: taken, and given back. Measured are
one process alone, then four at once with a fifth that looks at everything all the time. The floor does what a
lease must do in SQL, one connection, one transaction each, without SQLAlchemy and without looking whether
file and schema are still the same. Turns of both alternate, so that a busy machine slows both alike.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from labctl import wiring
from labctl.domain.sleep.lifecycle import Event
from labctl.ports.store import Lease, Store

HOSTS = tuple(f"box{number}" for number in range(50))
PROCESSES = 4
TURNS = 5


def prepare(address: str) -> None:
    """Have hosts that admit requests."""
    store = wiring.store(address, create=True)
    store.enlist(HOSTS, now=0.0)
    leadership = store.lead("bench", over=store.leading(), now=0.0)
    if leadership is None:
        sys.exit("somebody else leads in that store: name one of its own")
    for name, host in store.known(now=0.0).hosts.items():
        for step, event in enumerate((Event.SEEN, Event.PASSED)):
            store.move(name, event, "", version=host.version + step, term=leadership.term, now=0.0)
    store.close()


def by_store(store: Store, name: str, number: int) -> None:
    """Take a lease and give it back."""
    lease = store.take_lease(name, HOSTS[number % len(HOSTS)], now=0.0)
    if not isinstance(lease, Lease):
        sys.exit(f"no lease: the host is {lease}")
    store.release(lease, now=0.0)


def by_hand(connection: sqlite3.Connection, name: str, number: int) -> None:
    """Do the same in plain SQL."""
    host = HOSTS[number % len(HOSTS)]
    connection.execute("BEGIN IMMEDIATE")
    (mode,) = connection.execute("SELECT mode FROM host WHERE name = ?", [host]).fetchone()
    alive = connection.execute("SELECT 1 FROM instance WHERE name = ?", [name]).fetchone()
    if mode != "ready" or not alive:
        sys.exit(f"no lease: the host is {mode}")
    insert = "INSERT INTO lease (host, instance, since) VALUES (?, ?, 0) RETURNING id"
    (lease,) = connection.execute(insert, [host, name]).fetchone()
    connection.execute("COMMIT")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM lease WHERE id = ? AND host = ? AND instance = ?", [lease, host, name])
    connection.execute("COMMIT")


def timed(act: Callable[[int], None], times: int) -> list[float]:
    """Return the seconds that each of ``times`` took."""
    took = []
    for number in range(times):
        start = time.perf_counter()
        act(number)
        took.append(time.perf_counter() - start)
    return took


def show(name: str, took: list[float], wall_s: float) -> None:
    """Print one line of the table."""
    in_order = sorted(took)
    print(
        f"{name:<28} {len(took) / wall_s:>8.0f}/s   p50 {statistics.median(took) * 1e3:>7.3f} ms   "
        f"p99 {in_order[int(len(took) * 0.99)] * 1e3:>7.3f} ms"
    )


def alone(address: str, leases: int, *, floor: bool) -> None:
    """Measure one process, in turns with the floor where there is one."""
    store = wiring.store(address)
    store.register("alone", "bench", now=0.0)
    connection = sqlite3.connect(address, isolation_level=None) if floor else None
    if connection:
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
    ours, plain = [], []
    for _ in range(TURNS):
        ours += timed(lambda number: by_store(store, "alone", number), leases // TURNS)
        if connection:
            plain += timed(lambda number: by_hand(connection, "alone", number), leases // TURNS)
    store.close()
    show("one process", ours, sum(ours))
    if connection:
        connection.close()
        show("the same by plain sqlite3", plain, sum(plain))
        print(f"ratio of medians: {statistics.median(ours) / statistics.median(plain):.1f}")


def together(address: str, leases: int) -> None:
    """Measure several processes at once, with one that looks at everything all the time."""
    argv = [sys.executable, __file__, "--url", address, "--leases", str(leases // PROCESSES), "--as"]
    watcher = subprocess.Popen([*argv, "watcher"], stdin=subprocess.PIPE)
    start = time.perf_counter()
    takers = [
        subprocess.Popen([*argv, f"taker{number}"], stdout=subprocess.PIPE) for number in range(PROCESSES)
    ]
    took = [second for taker in takers for second in json.loads(taker.communicate()[0])]
    wall_s = time.perf_counter() - start
    watcher.communicate()
    show(f"{PROCESSES} processes and a watcher", took, wall_s)


def role(address: str, name: str, leases: int) -> None:
    """Be one of the processes: ``watcher``, or one that takes leases and prints how long each took."""
    import threading

    store = wiring.store(address)
    if name != "watcher":
        store.register(name, "bench", now=0.0)
        json.dump(timed(lambda number: by_store(store, name, number), leases), sys.stdout)
    else:
        over = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
        while not over.is_set():
            store.known(now=0.0)
    store.close()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leases", type=int, default=5000)
    parser.add_argument("--url", default="", help="an empty database; default: an SQLite file")
    parser.add_argument("--as", dest="name", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.name:
        role(options.url, options.name, options.leases)
        return
    with tempfile.TemporaryDirectory() as folder:
        address = options.url or f"{folder}/store.db"
        prepare(address)
        alone(address, options.leases, floor=not options.url)
        together(address, options.leases)


if __name__ == "__main__":
    main()
