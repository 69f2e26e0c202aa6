"""Who is wanted awake, by whom, and what has to be awake before.

A host is wanted by a live wish, by a window that began after the host fell asleep, or by another host that
needs it: one that depends on it, or whose wake packets it relays. A window that is on keeps its host awake,
but wakes it only once, when it begins: somebody who puts a host to sleep at noon does not find it awake a
minute later.

Nobody is put to sleep under a host that depends on it, unless that one is ASLEEP and not wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from labctl.domain.sleep import windows
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.terms import HostPolicy, Known, KnownHost, Moment, Policy, Wish

_UP = frozenset({Mode.READY, Mode.DRAINING, Mode.VERIFYING, Mode.WAKING})
"""In these a host uses what it depends on."""

_DOWN = frozenset({Mode.ASLEEP, Mode.WAKING, Mode.FAILED, Mode.UNKNOWN})
"""In these a host may need a packet."""


@dataclass(frozen=True, slots=True)
class Want:
    """Why a host is wanted, as a clause, and since when (wall); ``window``: only by a window of its own."""

    because: str
    since: float
    window: bool = False


def awake_wishes(known: KnownHost, wall: float) -> tuple[Wish, ...]:
    """Return the live wishes that a host be awake, the newest first."""
    return _live(known, wall, sleep=False)


def sleep_wish(known: KnownHost, wall: float) -> Wish | None:
    """Return the newest live wish that a host sleep; none where a newer one wants it awake."""
    asleep, awake = _live(known, wall, sleep=True), awake_wishes(known, wall)
    if not asleep or (awake and (awake[0].at, awake[0].id) > (asleep[0].at, asleep[0].id)):
        return None
    return asleep[0]


def _live(known: KnownHost, wall: float, *, sleep: bool) -> tuple[Wish, ...]:
    found = [wish for wish in known.wishes if wish.sleep is sleep and wish.until > wall]
    return tuple(sorted(found, key=lambda wish: (-wish.at, -wish.id)))


def wish_text(wish: Wish, host: str) -> str:
    """Return a wish as a clause: "anna wants gpu1 awake: a fine-tune"."""
    wanted = "asleep" if wish.sleep else "awake"
    return f"{wish.by} wants {host} {wanted}" + (f": {wish.why}" if wish.why else "")


def wants(policy: Policy, known: Known, now: Moment) -> Mapping[str, Want]:
    """Return by name all hosts that are wanted, those included that others need for it."""
    found: dict[str, Want] = {}
    for name, host in policy.hosts.items():
        row = known.hosts.get(name)
        want = _own(policy, host, row, now) if row is not None else None
        if want is not None:
            found[name] = want
    ahead = [name for name in policy.hosts if name in found or _mode(known, name) in _UP]
    visited = set(ahead)
    while ahead:
        name = ahead.pop()
        row = known.hosts.get(name)
        for needed in needs(policy.hosts[name], row.mode if row is not None else Mode.UNKNOWN):
            if needed in policy.hosts and (needed not in found or found[needed].window):
                found[needed] = _passed_on(name, found.get(name), row, needed)
            if needed in policy.hosts and needed not in visited:
                visited.add(needed)
                ahead.append(needed)
    return found


def _own(policy: Policy, host: HostPolicy, row: KnownHost, now: Moment) -> Want | None:
    wishes = awake_wishes(row, now.wall)
    if wishes:
        return Want(wish_text(wishes[0], host.name), wishes[0].at)
    span = windows.current(host.awake, policy.zone, now.wall)
    if span is not None and row.since < span.start:
        began = windows.local_text(span.start, policy.zone)
        return Want(f"{host.name} is to be awake {span.text}, which began {began}", span.start, window=True)
    return None


def _passed_on(name: str, want: Want | None, row: KnownHost | None, needed: str) -> Want:
    if want is not None:
        return Want(f"{name} needs {needed}, and {want.because}", want.since)
    mode = row.mode if row is not None else Mode.UNKNOWN
    return Want(f"{name} needs {needed}, and is {mode}", row.since if row is not None else 0.0)


def needs(host: HostPolicy, mode: Mode) -> tuple[str, ...]:
    """Return the hosts that have to be awake before a host in this mode goes on: what it uses, its relay."""
    relay = (host.relay,) if host.relay and mode in _DOWN else ()
    return tuple(dict.fromkeys((*host.depends_on, *relay)))


def missing(policy: Policy, known: Known, name: str) -> str:
    """Return which host has to be READY before another goes on, and what it is; empty when all are."""
    host, row = policy.hosts[name], known.hosts[name]
    for needed in needs(host, row.mode):
        other = known.hosts.get(needed)
        if other is None:
            return f"{name} needs {needed}, which nobody looks after"
        if other.mode is not Mode.READY:
            state = f"is {other.mode}"
            if other.quarantined:
                state = f"is quarantined ({other.quarantined})"
            elif other.paused:
                state = f"is {other.mode} and paused ({other.paused})"
            return f"{name} needs {needed}, which {state}"
    return ""


def dependants(policy: Policy, known: Known, found: Mapping[str, Want], name: str) -> Iterator[str]:
    """Yield, as clauses, the hosts under which a host may not be put to sleep."""
    for other, host in policy.hosts.items():
        if name not in host.depends_on:
            continue
        row = known.hosts.get(other)
        mode = row.mode if row is not None else Mode.UNKNOWN
        if mode is not Mode.ASLEEP:
            yield f"{other} depends on {name} and is {mode}"
        elif other in found:
            yield f"{other} depends on {name} and is wanted: {found[other].because}"


def _mode(known: Known, name: str) -> Mode:
    row = known.hosts.get(name)
    return row.mode if row is not None else Mode.UNKNOWN
