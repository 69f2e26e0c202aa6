"""Short ways to bring hosts of a store where a test wants them."""

from __future__ import annotations

from labctl.domain.sleep.lifecycle import Event, Mode
from labctl.domain.sleep.terms import Attempt, Fingerprint, How, KnownHost, Order, Proof, Wish
from labctl.ports.store import Leadership, Lease, Store

NOW = 1_800_000_000.0
ORDER = Order("f" * 32, How.SUSPEND, NOW, 120.0, rtc_at=NOW + 3600)
ATTEMPT = Attempt(NOW, 2, NOW + 5, "somebody wants it")
FINGERPRINT = Fingerprint("6.1.0-25", "580.65.06", "igc 00:11:22:33:44:55", How.SUSPEND, "deep")
PROOF = Proof(FINGERPRINT, NOW, 3, 4.5, 21.0)

# How to come to each mode from UNKNOWN.
PATHS: dict[Mode, tuple[Event, ...]] = {
    Mode.UNKNOWN: (),
    Mode.VERIFYING: (Event.SEEN,),
    Mode.READY: (Event.SEEN, Event.PASSED),
    Mode.DRAINING: (Event.SEEN, Event.PASSED, Event.WENT_QUIET),
    Mode.SUSPENDING: (Event.SEEN, Event.PASSED, Event.WENT_QUIET, Event.ORDERED),
    Mode.ASLEEP: (Event.DARK,),
    Mode.WAKING: (Event.WISHED,),
    Mode.FAILED: (Event.SEEN, Event.BROKEN),
}


def row(store: Store, host: str = "box", *, now: float = NOW) -> KnownHost:
    """Return a host, by both ways to read it, which must agree."""
    found = store.known(now=now).hosts[host]
    assert store.known_host(host, now=now) == found
    return found


def leader(store: Store, name: str = "controller") -> Leadership:
    leadership = store.lead(name, over=store.leading(), now=NOW)
    assert leadership is not None
    return leadership


def step(store: Store, event: Event, *, host: str = "box", term: int = 1) -> Mode:
    """Carry out one event as the leader would."""
    version = row(store, host).version
    if event is Event.ORDERED:
        store.order(host, ORDER, "it is idle", version=version, term=term, now=NOW)
    else:
        store.move(host, event, f"because of {event}", version=version, term=term, now=NOW)
    return row(store, host).mode


def bring(store: Store, mode: Mode, *, host: str = "box") -> int:
    """Enlist a host, bring it to a mode, and return the term in which that was done."""
    store.enlist([host], now=NOW)
    leading = store.leading() or leader(store)
    for event in PATHS[mode]:
        step(store, event, host=host, term=leading.term)
    assert row(store, host).mode is mode
    return leading.term


def lease(store: Store, host: str = "box", instance: str = "gateway") -> Lease:
    """Take a lease that must be there to be had."""
    taken = store.take_lease(instance, host, now=NOW)
    assert isinstance(taken, Lease), taken
    return taken


def wish(host: str = "box", *, sleep: bool = False, until: float = NOW + 60) -> Wish:
    return Wish(0, host, "ann", "a demo", NOW, until, sleep=sleep)
