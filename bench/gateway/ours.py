"""labctl's gateway as its unit runs it: a key, a lease on a host that sleeps, a store, metrics, a log line.

The host is READY in the store, as a controller would have left it; nobody tends it meanwhile, and so nobody
buries the gateway or puts the host to sleep.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import msgspec
from bench.gateway.peers import KEY, MODEL, Around, Start

from labctl.domain.budget import Rack
from labctl.domain.gateway.table import Host, Key, Kind, Model, Served, Table, Upstream
from labctl.domain.sleep.lifecycle import Event

HOST = "box"


def labctl(around: Around, port: int) -> Start:
    """Return how the gateway is started on a port."""
    folder = around.work / f"labctl-{port}"
    folder.mkdir(exist_ok=True)
    place = around.work / "store.db"
    if not place.exists():
        _store(place)
    (folder / "table.json").write_bytes(msgspec.json.encode(_table(around.upstream, port, place)))
    program = (sys.executable, "-I", "-OO", "-m", "labctl.cli.gateway_run")
    return Start((*program, str(folder / "table.json")), {**os.environ, "MALLOC_ARENA_MAX": "1"})


def _table(upstream: int, port: int, store: Path) -> Table:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    return Table(
        rack="bench",
        listen="127.0.0.1",
        port=port,
        models=(Model(MODEL, "chat", wait_s=60.0),),
        upstreams=(Upstream("box-m1", HOST, Kind.VLLM, "127.0.0.1", upstream),),
        served=(Served(MODEL, "box-m1", MODEL),),
        hosts=(Host(HOST, wakeable=True, sleeps=True, boot_s=60.0),),
        watts=Rack(()),
        keys=(
            Key("bench", digest),
            *(Key(f"other{n}", hashlib.sha256(b"%d" % n).hexdigest()) for n in range(20)),
        ),
        store=str(store),
    )


def _store(place: Path) -> None:
    from labctl import wiring

    store, now = wiring.store(place, create=True), time.time()
    store.enlist([HOST], now=now)
    leadership = store.lead("bench", over=None, now=now)
    if leadership is None:
        raise RuntimeError(f"somebody leads in {place}")
    for version, event in enumerate((Event.SEEN, Event.PASSED)):
        row = store.known_host(HOST, now=now)
        assert row is not None
        store.move(HOST, event, "bench", version=row.version, term=leadership.term, now=now + version)
    store.close()
