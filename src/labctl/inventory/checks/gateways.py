"""Gateways and vector stores: do they have something to serve, and whose data lies in whose hands?

Keys, and who must have one, are checked with those of all other servers (``engines``). A gateway that is told
whose models to serve must reach them; one for the whole rack leaves out what it cannot reach, and says so in
its configuration, but must have something left.
"""

from __future__ import annotations

from collections.abc import Iterator

from labctl.inventory.checks.finding import Finding, Where, each_host, missing
from labctl.inventory.hosts import Host
from labctl.inventory.rack import Rack
from labctl.inventory.services import OthersGateway, PgVector
from labctl.inventory.upstreams import reach

_RESERVED = ("postgres", "template0", "template1", "public", "none")


def gateways(rack: Rack) -> Iterator[Finding]:
    """Yield what is wrong with gateways and vector stores."""
    for at, host in each_host(rack):
        for place, service in enumerate(host.services):
            here = (*at, "services", place)
            if isinstance(service, OthersGateway):
                yield from _served(here, rack, host, service)
        yield from _stores(at, host)


def _served(at: Where, rack: Rack, host: Host, gateway: OthersGateway) -> Iterator[Finding]:
    names = [one.name for one in rack.hosts]
    unknown = [name for name in gateway.hosts if name not in names]
    for place, name in enumerate(gateway.hosts):
        if name in unknown:
            yield missing((*at, "hosts", place), "host", name, names)
        elif name in gateway.hosts[:place]:
            yield Finding((*at, "hosts", place), f"{name} is in the list already", "remove it")
    found = reach(rack, host, gateway)
    serving = {served.host.name for upstream in found.upstreams for served in upstream.models}
    shut = {one.endpoint.host.name: one for one in reversed(found.left_out)}
    for place, name in enumerate(gateway.hosts):
        path = (*at, "hosts", place)
        if name in unknown or name in gateway.hosts[:place]:
            continue
        if name in shut:
            port = shut[name].endpoint.port
            yield Finding(
                path,
                f"cannot serve {shut[name]}",
                f'give it listen="0.0.0.0", an api_key, and open_ports=[{port}] to its host, or remove '
                f"{name} here",
            )
        elif name not in serving:
            yield Finding(path, f"{name} serves no model", "add an engine with a port there, or remove it")
    if not found.upstreams and not gateway.hosts:
        reasons = "; ".join(map(str, found.left_out)) or "no service of this rack serves a model"
        yield Finding(at, f"has nothing to serve: {reasons}", "let it reach a llama-swap, or remove it")


def _stores(at: Where, host: Host) -> Iterator[Finding]:
    for place, service in enumerate(host.services):
        if not isinstance(service, PgVector):
            continue
        if service.database in (*_RESERVED, service.user):
            reason = f"PostgreSQL has a meaning of its own for {service.database}"
            yield Finding((*at, "services", place, "database"), reason, "choose another name")
        other = next((one for one in host.services if one is not service and one.user == service.user), None)
        if other is not None:
            yield _shared((*at, "services", place), service.user, other.name)


def _shared(at: Where, user: str, other: str) -> Finding:
    return Finding(
        (*at, "user"),
        f"{user} also runs {other}; who runs as the user of a database may read all of it",
        'give each a user of its own, such as user="labctl-pg2"',
    )
