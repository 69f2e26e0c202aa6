"""Keep the schema of a release as SQL, with a row of everything, so that later versions can be tried on it.

    .venv/bin/python tests/store/keep_schema.py

writes ``schemas/NNNN.sql`` (SQLite) and ``schemas/NNNN.postgres.sql``. Run it once, before a release whose
``tables.SCHEMA`` is new, and never again for that number: what is kept is what users have.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from lives import ATTEMPT, NOW, PROOF, bring, lease, row, wish
from pg_kit import postgres_kit, programs

from labctl.adapters.store import open_store
from labctl.adapters.store.tables import SCHEMA
from labctl.domain.energy.terms import Doing, Spent, Tokens
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.terms import Repair
from labctl.ports.store import Store

SCHEMAS = Path(__file__).parent / "schemas"


def fill(store: Store) -> None:
    """Have a row of everything."""
    term = bring(store, Mode.READY)
    bring(store, Mode.WAKING, host="waking")
    bring(store, Mode.SUSPENDING, host="suspending")
    store.register("gateway", "gateway", now=NOW)
    lease(store)
    store.hold("box", "training", "ann", until=NOW + 9, now=NOW)
    store.wish(wish(), now=NOW)
    store.wish(wish("waking", sleep=True), now=NOW)
    store.pause("suspending", "a new fan", "ann", now=NOW)
    store.pause(None, "moving house", "ann", now=NOW)
    store.note_attempt("waking", ATTEMPT, version=row(store, "waking").version, term=term, now=NOW)
    store.note_boot("box", "boot-1", 3, term=term, now=NOW)
    store.note_came_up("box", 21.5, term=term, now=NOW)
    store.note_proof("box", PROOF, "three cycles passed", now=NOW)
    store.note_repair("waking", Repair(("reboot",), ("GPU-1 is missing",), NOW), "GPU-1", term=term, now=NOW)
    store.add_spent([Spent(int(NOW), "box", Doing.BUSY, 60.0, 60.0, 18000.0, 0.0)])
    store.add_tokens([Tokens(int(NOW), "box", "qwen", 900, 1200)])
    store.intend("box", "wake", "ann wants it", term=term, now=NOW)


def main() -> int:
    """Write both files, unless they are there."""
    for_sqlite, for_postgres = SCHEMAS / f"{SCHEMA}.sql", SCHEMAS / f"{SCHEMA}.postgres.sql"
    if for_sqlite.exists() or for_postgres.exists():
        sys.stderr.write(f"schema {SCHEMA} is kept already\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        store = open_store(path, create=True)
        fill(store)
        store.close()
        with closing(sqlite3.connect(path)) as connection:
            mark = connection.execute("PRAGMA application_id").fetchone()[0]
            lines = [f"PRAGMA application_id={mark};", *connection.iterdump()]
        for_sqlite.write_text("\n".join(lines) + "\n")
    with postgres_kit() as kit:
        name = kit.database()
        store = open_store(kit.address(name), create=True)
        fill(store)
        store.close()
        argv = [str(programs() / "pg_dump"), "--inserts", "--no-owner", "-h", str(kit.folder)]
        argv += ["-p", str(kit.port), "-U", "labctl", name]
        dump = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        # psql's own commands, and settings of the server that wrote it.
        kept = [line for line in dump.splitlines() if not line.startswith(("\\", "--", "SET ")) and line]
        for_postgres.write_text("\n".join(line for line in kept if "set_config" not in line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
