"""Checks across a rack: each object is valid by itself, but do they agree?

Decided from the rack alone, without files, network or clock. A check yields ``Finding``s with the path of
the field from the rack on (``hosts``, 3, ``services``, 0, ``port``), so that the caller can find its line.
A finding that rests on a name which nothing in the rack bears keeps that name in ``unknown``: when parts of
the rack could not be read, the caller drops those, since the part may be the one that was meant.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from labctl.inventory.explain import did_you_mean
from labctl.inventory.hosts import Host
from labctl.inventory.rack import Rack
from labctl.inventory.services import LlamaServer
from labctl.inventory.wake import NoWake, WakeOnLan

Where = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement: where, why, what to do; ``unknown`` is the name that nothing bears, if that is it."""

    path: Where
    reason: str
    hint: str = ""
    unknown: str = ""


def _twice(entries: Iterable[tuple[Where, Hashable, str]], hint: str = "") -> Iterator[Finding]:
    """Yield a finding for every entry whose key an earlier one has; the text of the first tells who."""
    first: dict[Hashable, str] = {}
    for path, key, owner in entries:
        if key in first:
            yield Finding(path, f"is taken already by {first[key]}", hint)
        else:
            first[key] = owner


def _hosts(rack: Rack) -> Iterator[tuple[Where, Host]]:
    for index, host in enumerate(rack.hosts):
        yield ("hosts", index), host


def _names(rack: Rack) -> Iterator[Finding]:
    yield from _twice(((*at, "name"), host.name, "another host") for at, host in _hosts(rack))
    for field, things in (("circuits", rack.circuits), ("models", rack.models)):
        label = "id" if field == "models" else "name"
        yield from _twice(
            ((field, index, label), getattr(thing, label), f"another of {field}")
            for index, thing in enumerate(things)
        )


def _addresses(rack: Rack) -> Iterator[Finding]:
    yield from _twice(
        ((*at, "address"), (host.address, rack.ssh_for(host).port), f"host {host.name}")
        for at, host in _hosts(rack)
    )
    yield from _twice(
        ((*at, "wake", "mac"), host.wake.mac, f"host {host.name}")
        for at, host in _hosts(rack)
        if isinstance(host.wake, WakeOnLan)
    )


def _gpus(rack: Rack) -> Iterator[Finding]:
    yield from _twice(
        (
            ((*at, "gpus", index, "uuid"), gpu.uuid, f"another card of host {host.name}")
            for at, host in _hosts(rack)
            for index, gpu in enumerate(host.gpus)
            if gpu.uuid is not None
        ),
        hint="every card has its own; `nvidia-smi -L` on the host prints them",
    )
    for at, host in _hosts(rack):
        yield from _twice(
            ((*at, "gpus", index, "slot"), gpu.slot, "another card of this host")
            for index, gpu in enumerate(host.gpus)
            if gpu.slot is not None
        )


def _power(rack: Rack) -> Iterator[Finding]:
    circuits = [circuit.name for circuit in rack.circuits]
    for at, host in _hosts(rack):
        cards = [name for gpu in host.gpus for name in (gpu.slot, gpu.uuid) if name]
        yield from _twice(
            ((*at, "psus", index, "name"), psu.name, "another power supply of this host")
            for index, psu in enumerate(host.psus)
        )
        for index, psu in enumerate(host.psus):
            here = (*at, "psus", index)
            if psu.circuit is not None and psu.circuit not in circuits:
                yield _missing((*here, "circuit"), "circuit", psu.circuit, circuits)
            for place, fed in enumerate(psu.feeds):
                if fed not in (*cards, "board"):
                    yield _missing((*here, "feeds", place), "card of this host", fed, [*cards, "board"])
        yield from _unfed(at, host)


def _unfed(at: Where, host: Host) -> Iterator[Finding]:
    fed = {name for psu in host.psus for name in psu.feeds}
    if not host.psus or (len(host.psus) == 1 and not fed):
        return  # nothing declared, or one unit that feeds everything
    for index, gpu in enumerate(host.gpus):
        if not fed & {gpu.slot, gpu.uuid}:
            yield Finding(
                (*at, "gpus", index),
                f"no power supply feeds {gpu.slot or gpu.uuid}",
                "name it in `feeds` of the Psu that its cables come from",
            )
    if "board" not in fed:
        yield Finding((*at, "psus"), "no power supply feeds the board", 'add "board" to `feeds` of one Psu')


def _missing(path: Where, what: str, wanted: str, known: Iterable[str]) -> Finding:
    names = list(known)
    hint = did_you_mean(wanted, names) or f"this rack has no {what} at all"
    return Finding(path, f"there is no {what} called {wanted!r}", hint if not names or hint else "", wanted)


def _overlaps(one: str, other: str) -> bool:
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    return first == second or first.is_unspecified or second.is_unspecified


def _ports(rack: Rack) -> Iterator[Finding]:
    for at, host in _hosts(rack):
        ssh = rack.ssh_for(host).port
        taken: list[tuple[str, int, str]] = [("0.0.0.0", ssh, "sshd")]
        for index, service in enumerate(host.services):
            if service.port is None:
                continue
            path = (*at, "services", index, "port")
            owner = next(
                (who for ip, port, who in taken if port == service.port and _overlaps(ip, service.listen)),
                None,
            )
            if owner:
                yield Finding(path, f"port {service.port} is taken already by {owner}", "choose another port")
            taken.append((service.listen, service.port, f"service {service.name}"))
            outside = not ipaddress.ip_address(service.listen).is_loopback
            if outside and service.port not in host.open_ports:
                yield Finding(
                    path,
                    f"listens on {service.listen}, but the firewall keeps port {service.port} closed",
                    f'add {service.port} to `open_ports` of the host, or listen on "127.0.0.1"',
                )


def _services(rack: Rack) -> Iterator[Finding]:
    models = [name for model in rack.models for name in (model.id, *model.aliases)]
    for at, host in _hosts(rack):
        yield from _twice(
            ((*at, "services", index, "name"), service.name, "another service of this host")
            for index, service in enumerate(host.services)
        )
        cards = [name for gpu in host.gpus for name in (gpu.slot, gpu.uuid) if name]
        for index, service in enumerate(host.services):
            if not isinstance(service, LlamaServer):
                continue
            here = (*at, "services", index)
            if service.model not in models:
                yield _missing((*here, "model"), "model", service.model, models)
            for place, card in enumerate(service.gpus):
                if card not in cards:
                    yield _missing((*here, "gpus", place), "card of this host", card, cards)


def _models(rack: Rack) -> Iterator[Finding]:
    def names() -> Iterator[tuple[Where, Hashable, str]]:
        for index, model in enumerate(rack.models):
            yield ("models", index, "id"), model.id, f"model {model.id}"
        for index, model in enumerate(rack.models):
            for place, alias in enumerate(model.aliases):
                yield ("models", index, "aliases", place), alias, f"model {model.id}"

    yield from (finding for finding in _twice(names()) if finding.path[-1] != "id")
    yield from _twice(
        (
            (("models", index, "path"), model.path, f"model {model.id}")
            for index, model in enumerate(rack.models)
        ),
        hint="two models cannot lie in one file",
    )


def _references(rack: Rack) -> Iterator[Finding]:
    names = [host.name for host in rack.hosts]
    for at, host in _hosts(rack):
        for place, wanted in enumerate(host.depends_on):
            if wanted == host.name:
                yield Finding((*at, "depends_on", place), "a host cannot depend on itself", "remove it")
            elif wanted not in names:
                yield _missing((*at, "depends_on", place), "host", wanted, names)
        if isinstance(host.wake, WakeOnLan) and host.wake.relay is not None:
            if host.wake.relay == host.name:
                yield Finding(
                    (*at, "wake", "relay"),
                    "a host cannot wake itself",
                    "name a host that is always on, or none",
                )
            elif host.wake.relay not in names:
                yield _missing((*at, "wake", "relay"), "host", host.wake.relay, names)


def _sleep(rack: Rack) -> Iterator[Finding]:
    for at, host in _hosts(rack):
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


def _cycles(rack: Rack) -> Iterator[Finding]:
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


CHECKS: tuple[Callable[[Rack], Iterator[Finding]], ...] = (
    _names,
    _addresses,
    _gpus,
    _power,
    _services,
    _ports,
    _models,
    _references,
    _sleep,
    _cycles,
)


def check(rack: Rack) -> list[Finding]:
    """Return everything in which the parts of the rack disagree; an empty list means that they agree."""
    return [finding for one in CHECKS for finding in one(rack)]
