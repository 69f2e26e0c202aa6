"""Checks across a rack: each object is valid by itself, but do they agree?

Decided from the rack alone, without files, network or clock, subject by subject: what must be unique and
what is referred to (``names``), services and their ports (``services``), builds of engines, keys and
options (``engines``), llama-swap and its peers (``llamaswap``), hosts that work together (``clusters``),
the gateway (``gateway``), the web page (``web``), other people's gateways and vector stores
(``gateways``), cards and their caps (``cards``), drivers and backends (``drivers``), circuits and power
supplies (``power``), sleeping and waking (``sleep``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from labctl.inventory.checks import (
    cards,
    clusters,
    drivers,
    engines,
    gateway,
    gateways,
    llamaswap,
    names,
    power,
    services,
    sleep,
    web,
)
from labctl.inventory.checks.finding import Finding
from labctl.inventory.rack import Rack

__all__ = ["CHECKS", "Finding", "check"]

CHECKS: tuple[Callable[[Rack], Iterator[Finding]], ...] = (
    names.names,
    names.addresses,
    cards.identities,
    cards.models,
    cards.caps,
    cards.clocks,
    cards.twins,
    drivers.nvidia_drivers,
    drivers.pointless_settings,
    drivers.backends,
    power.circuits,
    power.supplies,
    services.services,
    services.ports,
    clusters.private_networks,
    clusters.members,
    clusters.engines,
    clusters.ports,
    clusters.lenders,
    clusters.borrowers,
    gateway.gateway,
    gateways.gateways,
    web.web,
    engines.builds,
    engines.choices,
    engines.keys,
    engines.arguments,
    engines.options,
    llamaswap.llama_swaps,
    names.models,
    sleep.references,
    sleep.idle,
    sleep.circles,
    sleep.windows,
    sleep.controller,
    sleep.power_cycles,
)


def check(rack: Rack) -> list[Finding]:
    """Return everything in which the parts of the rack disagree; an empty list means that they agree."""
    return [finding for one in CHECKS for finding in one(rack)]
