"""What a gateway serves: every model of the rack that its host can reach, and why the others are left out.

A model is asked for at the service that runs it, under the address by which the gateway's host reaches that.
Where only a llama-swap in front of it can be reached, which passes requests on, it is asked for there. What
can be reached by neither is left out, with the reason: a gateway that lists a model which it cannot serve is
worse than one that does not know it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from labctl.inventory.coldstart import cold_start
from labctl.inventory.endpoints import Endpoint, Served, address_from, base_url, endpoints
from labctl.inventory.gatewaying import Gateway
from labctl.inventory.hosts import Host
from labctl.inventory.rack import Rack
from labctl.inventory.services import OthersGateway


@dataclass(frozen=True, slots=True)
class Upstream:
    """A service that a gateway asks: ``name`` is unique in the gateway, ``url`` has no path."""

    name: str
    endpoint: Endpoint
    url: str
    models: tuple[Served, ...]

    @property
    def first_byte_s(self) -> int:
        """Return the seconds that its slowest model may take to begin to answer."""
        return max(cold_start(served).first_byte_s for served in self.models)

    @property
    def whole_s(self) -> int:
        """Return the seconds that a whole answer of its slowest model may take."""
        return max(cold_start(served).whole_s for served in self.models)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A service whose models a gateway cannot serve, and the reason."""

    endpoint: Endpoint
    models: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"{', '.join(self.models)} of {self.endpoint.name}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Reach:
    """What a gateway serves, and what it cannot."""

    upstreams: tuple[Upstream, ...]
    left_out: tuple[LeftOut, ...]


def reach(rack: Rack, host: Host, gateway: OthersGateway | Gateway) -> Reach:
    """Return what a gateway on ``host`` serves of the hosts that it is for."""
    wanted = gateway.hosts or [one.name for one in rack.hosts]
    every = endpoints(rack)
    direct: list[Endpoint] = []
    shut: list[Endpoint] = []
    for endpoint in every:
        if endpoint.host.name in wanted and endpoint.own:
            (direct if address_from(endpoint, host) is not None else shut).append(endpoint)
    found = list(_named(host, [(endpoint, endpoint.own) for endpoint in direct]))
    fronts = [one for one in every if one.peers and address_from(one, host) is not None]
    passed = list(_passed_on(fronts, shut))
    found += _named(host, passed, taken=[one.name for one in found])
    served = {(one.host.name, one.engine.name) for _, models in passed for one in models}
    left_out = []
    for endpoint in shut:
        lost = [one.id for one in endpoint.own if (one.host.name, one.engine.name) not in served]
        if lost:
            left_out.append(LeftOut(endpoint, tuple(dict.fromkeys(lost)), _why(endpoint, host)))
    return Reach(tuple(found), tuple(left_out))


def _passed_on(
    fronts: Sequence[Endpoint], shut: Sequence[Endpoint]
) -> Iterator[tuple[Endpoint, tuple[Served, ...]]]:
    """Yield for each front the models that cannot be asked for directly; the first front takes them."""
    missing = {(one.host.name, one.engine.name) for endpoint in shut for one in endpoint.own}
    for front in fronts:
        models = tuple(one for one in front.peers if (one.host.name, one.engine.name) in missing)
        missing -= {(one.host.name, one.engine.name) for one in models}
        if models:
            yield front, models


def _named(
    host: Host, found: Sequence[tuple[Endpoint, tuple[Served, ...]]], taken: Sequence[str] = ()
) -> Iterator[Upstream]:
    """Yield upstreams named after their host, and their service too where a host has several."""
    hosts = [endpoint.host.name for endpoint, _ in found]
    names = list(taken)
    for endpoint, models in found:
        name = endpoint.host.name
        if hosts.count(name) > 1 or name in names:
            name = f"{name}-{endpoint.service.name}"
        while name in names:
            name += "-"
        names.append(name)
        address = address_from(endpoint, host)
        assert address is not None
        yield Upstream(name, endpoint, base_url(address, endpoint.port, ""), models)


def _why(endpoint: Endpoint, host: Host) -> str:
    listen = endpoint.service.listen
    if endpoint.on_loopback:
        return f"listens on {listen} of {endpoint.host.name}, where {host.name} cannot reach it"
    return f"listens on {listen}, a private network that {host.name} is not in"


def models_of(upstreams: Sequence[Upstream]) -> tuple[Served, ...]:
    """Return every model once, in the order in which the gateway lists them."""
    seen: dict[str, Served] = {}
    for upstream in upstreams:
        for served in upstream.models:
            seen.setdefault(served.id, served)
    return tuple(seen.values())
