"""Sleeping and waking: who needs whom, and can everybody who sleeps be woken again?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from labctl.inventory.checks.finding import Finding, Where, each_host, missing
from labctl.inventory.hosts import Host
from labctl.inventory.idle import window_parts
from labctl.inventory.rack import Rack
from labctl.inventory.wake import NoWake, SmartPlug, WakeOnLan, cuts

_DAY = 1440
_WEEK = frozenset(range(7 * _DAY))
_LONGEST_TICK_S = 30
"""Half of how long a host may say nothing before its conversation counts as broken off."""


def references(rack: Rack) -> Iterator[Finding]:
    """Yield hosts that depend on, or are woken by, nobody or themselves."""
    names = [host.name for host in rack.hosts]
    for at, host in each_host(rack):
        for place, wanted in enumerate(host.depends_on):
            if wanted == host.name:
                yield Finding((*at, "depends_on", place), "a host cannot depend on itself", "remove it")
            elif wanted not in names:
                yield missing((*at, "depends_on", place), "host", wanted, names)
        if isinstance(host.wake, WakeOnLan) and ":" in (host.wake.broadcast or ""):
            yield Finding((*at, "wake", "broadcast"), "IPv6 knows no broadcast", "give an IPv4 address")
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
        if host.idle.how == "unload":
            continue  # it stays on, so nothing has to wake it
        if isinstance(host.wake, NoWake):
            yield Finding(
                (*at, "idle", "suspend"),
                "nothing could wake this host again",
                'give `wake`, or set suspend=False, or how="unload"',
            )
        elif host.idle.how == "suspend" and isinstance(host.wake, SmartPlug):
            # Power flows while it sleeps to memory, so that switching it on does nothing. A BMC may press
            # the button, which the sleep test tells.
            yield Finding(
                (*at, "idle", "how"),
                "a plug wakes no host that is suspended to memory",
                'set how="power-off", or wake it by WakeOnLan',
            )


def windows(rack: Rack) -> Iterator[Finding]:
    """Yield windows that contradict each other, or that mean nothing on their host."""
    for at, host in each_host(rack):
        idle, place = host.idle, (*at, "idle")
        if idle.awake and isinstance(host.wake, NoWake) and "always-on" not in host.roles:
            yield Finding(
                (*place, "awake"), "nothing could wake this host for it", "give `wake`, or remove it"
            )
        if idle.only_in and not idle.suspend:
            yield Finding(
                (*place, "only_in"),
                "this host never falls asleep by itself",
                "set suspend=True, or remove it",
            )
        if idle.suspend:
            yield from _never(place, host)


def _never(place: Where, host: Host) -> Iterator[Finding]:
    awake, asleep = _minutes(host.idle.awake), _minutes(host.idle.only_in)
    if awake == _WEEK:
        yield Finding(
            (*place, "awake"),
            "it is kept awake all week, so it never falls asleep",
            "leave some time out, or set suspend=False",
        )
    elif host.idle.only_in and asleep <= awake:
        yield Finding(
            (*place, "only_in"),
            "whenever it may fall asleep, `awake` keeps it awake",
            "leave some of it out of `awake`",
        )


def _minutes(texts: tuple[str, ...]) -> frozenset[int]:
    """Return the minutes of the week, from Monday on, that windows cover."""
    found: set[int] = set()
    for days, start, end in map(window_parts, texts):
        length = (end - start) % _DAY or _DAY
        for day in days:
            begin = day * _DAY + start
            found.update(minute % (7 * _DAY) for minute in range(begin, begin + length))
    return frozenset(found)


def controller(rack: Rack) -> Iterator[Finding]:
    """Yield what keeps the controller from running, or from asking the hosts."""
    if rack.controller is None:
        return
    wanted, names = rack.controller.host, [host.name for host in rack.hosts]
    place: Where = ("controller", "host")
    if wanted not in names:
        yield missing(place, "host", wanted, names)
    else:
        host = rack.host(wanted)
        if "always-on" not in host.roles:
            yield Finding(
                place,
                f"{wanted} has not the role always-on, and who wakes others must not sleep",
                'add roles=["always-on"] to it, or name another host',
            )
    if rack.controller.tick.total_seconds() > _LONGEST_TICK_S:
        yield Finding(
            ("controller", "tick"),
            f"a host that says nothing for longer than {_LONGEST_TICK_S} s is soon taken for gone",
            f'set "{_LONGEST_TICK_S}s" or less',
        )
    if rack.controller_key is None:
        yield Finding(
            ("controller",),
            "it has no key to ask the hosts with",
            'give the rack controller_key="keys/controller.pub"',
        )


def power_cycles(rack: Rack) -> Iterator[Finding]:
    """Yield hosts whose power is to be cut to mend them, and that nothing may cut."""
    for at, host in each_host(rack):
        if host.gate.power_cycle and not (cuts(host.power) or cuts(host.wake)):
            plugs = any(isinstance(one, SmartPlug) for one in (host.power, host.wake))
            yield Finding(
                (*at, "gate", "power_cycle"),
                "nothing may cut the power of this host",
                "set may_cut=True on its plug"
                if plugs
                else "give `power` a BMC or plug that may, or remove it",
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
