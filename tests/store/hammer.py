"""Gateways and a controller as processes of their own on one store, as fast as they can; and who judges them.

    python tests/store/hammer.py ADDRESS [LEASES]     by hand, with as many leases as one likes

Each process writes down when a host was surely leased (from after the lease was given until before it was
given back), and when it was surely closed (from after the order was committed until before it was reopened).
All read one monotonic clock, so where two such spans of a host overlap, a request was hurt. Besides, the
controller counts the leases of each host that it has closed: there must be none.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

HOSTS = tuple(f"box{number}" for number in range(12))
GATEWAYS = 4
HELD = 2


@dataclass(frozen=True)
class Span:
    """What a process saw: a host was ``leased`` or ``closed`` for a while."""

    kind: str
    host: str
    start: float
    end: float


def gateway(address: str, name: str, leases: int) -> list[Span]:
    """Take and give back leases, now on this host, now on that, a few at a time."""
    from labctl.adapters.store import open_store
    from labctl.ports.store import Lease

    store = open_store(address, create=False)
    store.register(name, "gateway", now=0.0)
    choose = random.Random(name)
    spans: list[Span] = []
    held: deque[tuple[Lease, float]] = deque()
    while len(spans) < leases:
        lease = store.take_lease(name, choose.choice(HOSTS), now=0.0)
        if isinstance(lease, Lease):
            held.append((lease, time.monotonic()))
        if choose.random() < 0.02:
            store.beat(name, now=0.0)
        if len(held) == HELD or (held and len(spans) + len(held) >= leases):
            lease, start = held.popleft()
            spans.append(Span("leased", lease.host, start, time.monotonic()))
            store.release(lease, now=0.0)
    for lease, _ in held:
        store.release(lease, now=0.0)
    store.close()
    return spans


def controller(address: str) -> list[Span]:
    """Put hosts to sleep whenever nothing is against it, until the standard input ends."""
    import threading

    from lives import ORDER

    from labctl.adapters.store import open_store
    from labctl.domain.sleep.lifecycle import Event, Mode
    from labctl.ports.store import StaleError

    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    store = open_store(address, create=False)
    leadership = store.leading()
    assert leadership is not None
    term = leadership.term
    ways = {
        Mode.READY: Event.WENT_QUIET,
        Mode.UNKNOWN: Event.SEEN,
        Mode.VERIFYING: Event.PASSED,
        Mode.SUSPENDING: Event.CAME_BACK,
    }
    spans: list[Span] = []
    closed: dict[str, float] = {}
    choose = random.Random("controller")
    while not over.is_set():
        for name in HOSTS:
            try:
                host = store.known(now=0.0).hosts[name]
                if host.mode is Mode.SUSPENDING and host.claims.leases:
                    raise AssertionError(f"{name} is closed and leased")
                if host.mode is not Mode.DRAINING:
                    if host.mode is Mode.SUSPENDING and choose.random() < 0.5:
                        continue  # it stays closed for a while
                    end = time.monotonic()
                    store.move(name, ways[host.mode], "", version=host.version, term=term, now=0.0)
                    if host.mode is Mode.SUSPENDING and name in closed:  # else one before us closed it
                        spans.append(Span("closed", name, closed.pop(name), end))
                    if host.mode is not Mode.READY or choose.random() < 0.5:
                        continue  # it drains for a while
                    host = replace(host, version=host.version + 1)
                if store.order(name, ORDER, "", version=host.version, term=term, now=0.0):
                    closed[name] = time.monotonic()
                    if store.known(now=0.0).hosts[name].claims.leases:
                        raise AssertionError(f"{name} is closed and leased")
            except StaleError:
                continue
    store.close()
    return spans


def violations(spans: Iterable[Span]) -> list[tuple[Span, Span]]:
    """Return each pair of spans in which a host was closed and leased at once."""
    by_host: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        by_host[span.host].append(span)
    found = []
    for of_one in by_host.values():
        # Only what is closed is looked at pairwise with what is near it; both lists are in order of time.
        leased = sorted((s for s in of_one if s.kind == "leased"), key=lambda s: s.start)
        open_now: list[Span] = []
        rest = iter([*leased, None])
        upcoming = next(rest)
        for closed in sorted((s for s in of_one if s.kind == "closed"), key=lambda s: s.start):
            open_now = [span for span in open_now if span.end > closed.start]
            while upcoming is not None and upcoming.start < closed.end:
                if upcoming.end > closed.start:
                    open_now.append(upcoming)
                upcoming = next(rest)
            found += [(span, closed) for span in open_now]
    return found


def prepared(address: str) -> None:
    """Have all hosts READY."""
    from lives import bring

    from labctl.adapters.store import open_store
    from labctl.domain.sleep.lifecycle import Mode

    store = open_store(address, create=True)
    for host in HOSTS:
        bring(store, Mode.READY, host=host)
    store.close()


def hammered(address: str, leases: int) -> list[Span]:
    """Return what all processes saw while they took ``leases`` leases together."""
    prepared(address)
    start = [sys.executable, __file__, "-", address]
    suspender = _started([*start, "controller"])
    gateways = [_started([*start, f"gateway{n}", str(leases // GATEWAYS)]) for n in range(GATEWAYS)]
    try:
        said = [process.communicate(timeout=120)[0] for process in gateways]
        said.append(suspender.communicate(timeout=120)[0])
    finally:
        for process in (suspender, *gateways):
            process.kill()
            process.wait()
    assert [process.returncode for process in (suspender, *gateways)] == [0] * (1 + GATEWAYS)
    return [Span(*fields) for text in said for fields in json.loads(text)]


def _started(argv: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def main(arguments: list[str]) -> None:
    if arguments[0] == "-":
        _, address, name, *count = arguments
        spans = gateway(address, name, int(count[0])) if count else controller(address)
        json.dump([(s.kind, s.host, s.start, s.end) for s in spans], sys.stdout)
        return
    began = time.monotonic()
    spans = hammered(arguments[0], int(arguments[1]) if len(arguments) > 1 else 20_000)
    kinds = [span.kind for span in spans]
    took = time.monotonic() - began
    sys.stdout.write(f"{kinds.count('leased')} leases, {kinds.count('closed')} sleeps, ")
    sys.stdout.write(f"{len(violations(spans))} violations, {took:.1f} s\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(sys.argv[1:])
