"""Sleeping and waking: who needs whom, and can everybody who sleeps be woken again?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from labctl.inventory.checks.finding import Finding, Where, each_host, missing
from labctl.inventory.rack import Rack
from labctl.inventory.wake import NoWake, WakeOnLan


def references(rack: Rack) -> Iterator[Finding]:
    """Yield hosts that depend on, or are woken by, nobody or themselves."""
    names = [host.name for host in rack.hosts]
    for at, host in each_host(rack):
        for place, wanted in enumerate(host.depends_on):
            if wanted == host.name:
                yield Finding((*at, "depends_on", place), "a host cannot depend on itself", "remove it")
            elif wanted not in names:
                yield missing((*at, "depends_on", place), "host", wanted, names)
        if isinstance(host.wake, WakeOnLan) and host.wake.relay is not None:
            if host.wake.relay == host.name:
                yield Finding(
                    (*at, "wake", "relay"),
                    "a host cannot wake itself",
                    "name a host that is always on, or none",
                )
            elif host.wake.relay not in names:
                yield missing((*at, "wake", "relay"), "host", host.wake.relay, names)


def idle(rack: Rack) -> Iterator[Finding]:
    """Yield hosts that may sleep and must not, or that nothing could wake."""
    for at, host in each_host(rack):
        if not host.idle.suspend:
            continue
        if "always-on" in host.roles:
            yield Finding(
                (*at, "idle", "suspend"),
                "a host with the role always-on may not sleep",
                "remove the role, or set suspend=False",
            )
        if isinstance(host.wake, NoWake):
            yield Finding(
                (*at, "idle", "suspend"),
                "nothing could wake this host again",
                "give `wake`, or set suspend=False",
            )


def _needs(rack: Rack) -> dict[str, list[tuple[str, str]]]:
    """Return for each host the hosts that must be awake before it, with the field that says so."""
    always_on = {host.name for host in rack.hosts if "always-on" in host.roles}
    needs: dict[str, list[tuple[str, str]]] = {}
    for host in rack.hosts:
        found = needs.setdefault(host.name, [])
        found += [(name, "depends_on") for name in host.depends_on if name != host.name]
        relay = host.wake.relay if isinstance(host.wake, WakeOnLan) else None
        # A relay that never sleeps need not be woken, so it closes no circle.
        if relay is not None and relay != host.name and relay not in always_on:
            found.append((relay, "wake.relay"))
    return needs


def circles(rack: Rack) -> Iterator[Finding]:
    """Yield circles of hosts that wait for each other, each once."""
    needs = _needs(rack)
    index = {host.name: place for place, host in reversed(list(enumerate(rack.hosts)))}
    done: set[str] = set()
    for start in needs:
        trail: list[tuple[str, str]] = []
        on_trail: dict[str, int] = {}
        stack: list[tuple[str, str, int]] = [(start, "", 0)]
        while stack:
            name, field, depth = stack.pop()
            for left, _ in trail[depth:]:
                del on_trail[left]
                done.add(left)
            del trail[depth:]
            if name in on_trail:
                yield _circle([*trail[on_trail[name] :], (name, field)], index)
                continue
            if name in done or name not in needs:
                continue
            on_trail[name] = depth
            trail.append((name, field))
            stack += [(other, via, depth + 1) for other, via in reversed(needs[name])]
        done.update(on_trail)


def _circle(trail: list[tuple[str, str]], index: dict[str, int]) -> Finding:
    steps = [f"{one} needs {other} ({field})" for (one, _), (other, field) in pairwise(trail)]
    first, via = trail[0][0], trail[1][1]
    path: Where = ("hosts", index[first], *via.split("."))
    return Finding(
        path, "these hosts wait for each other: " + ", ".join(steps), "break the circle at one place"
    )
