"""What a llama-swap serves, which others it asks, and how long each of that may take.

The one answer to these questions, from the rack alone: configurations are rendered from it, and checked by
it. A llama-swap serves each of its engines under the id of its model and that model's aliases; a peer lists
exactly these names of another host's llama-swap. Of two networks that lead to a peer, the hosts' own private
one is taken if both are in it.

Times, all in whole seconds. Loading is predicted from the sizes of the model's files and the rate of the
host's disk, and allowed twice that; where either is unknown, ten minutes, since a time that is too long costs
nothing while a model loads well, and one that is too short stops a model that would have come. Nothing is
given less than two minutes. To a peer come its wake, its longest load, and the time until an answer begins,
which for a request without streaming is the whole answer.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from labctl.inventory.hosts import Host
from labctl.inventory.models import Model
from labctl.inventory.rack import Rack
from labctl.inventory.services import Engine, LlamaSwap, Swappable, Swapped, Vllm

OLDEST_VERSION = 250
LEAST_LOAD_S = 120
UNKNOWN_LOAD_S = 600
ANSWER_S = 600
# From the order until the host answers: out of sleep, or a cold start with its firmware's checks.
WAKE_S = {"none": 0, "wol": 120, "command": 120, "ipmi": 300, "redfish": 300, "plug": 300, "webhook": 300}


@dataclass(frozen=True, slots=True)
class Served:
    """A model of a llama-swap: the names that clients may use, and its place in ``models``."""

    id: str
    aliases: tuple[str, ...]
    place: int
    swapped: Swapped

    @property
    def names(self) -> tuple[str, ...]:
        """Return the id and the aliases."""
        return (self.id, *self.aliases)


@dataclass(frozen=True, slots=True)
class Peer:
    """Another host's llama-swap. ``address`` is "" where nobody beyond that host can reach it."""

    id: str
    host: Host
    swap: LlamaSwap
    address: str

    @property
    def url(self) -> str:
        """Return where it is asked."""
        literal = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{literal}:{self.swap.port}"


def seconds(value: timedelta | None) -> int | None:
    """Return a duration of the inventory in seconds."""
    return None if value is None else int(value.total_seconds())


def model_of(rack: Rack, engine: Swappable) -> Model | None:
    """Return the model that an engine serves, or None where there is none or nobody knows it."""
    if engine.model is None:
        return None
    return _by_name(_Same(rack.models)).get(engine.model)


@dataclass(frozen=True, slots=True, eq=False)
class _Same:
    """A tuple as a key that is equal to itself alone, so that comparing it costs nothing."""

    models: tuple[Model, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.models is self.models

    def __hash__(self) -> int:
        return id(self.models)


@lru_cache(maxsize=4)
def _by_name(key: _Same) -> dict[str, Model]:
    """Return the models of a rack by id and alias; of two with one name the first, as ``Rack.model`` does."""
    found: dict[str, Model] = {}
    for model in key.models:
        for name in (model.id, *model.aliases):
            found.setdefault(name, model)
    return found


def served(rack: Rack, swap: LlamaSwap) -> tuple[Served, ...]:
    """Return what a llama-swap serves, in the order of its ``models``."""
    found = []
    for place, swapped in enumerate(swap.models):
        model = model_of(rack, swapped.engine)
        id_ = swapped.engine.model or swapped.engine.name if model is None else model.id
        found.append(Served(id_, model.aliases if model else (), place, swapped))
    return tuple(found)


def swaps(host: Host) -> Iterator[tuple[int, LlamaSwap]]:
    """Yield the llama-swaps of a host with their places among its services."""
    for place, service in enumerate(host.services):
        if isinstance(service, LlamaSwap):
            yield place, service


def peer_hosts(rack: Rack, host: Host, swap: LlamaSwap) -> tuple[Host, ...]:
    """Return the hosts whose llama-swap this one asks; names that nobody bears are left out."""
    if swap.peers == "rack":
        return tuple(other for other in rack.hosts if other is not host and _serves(other))
    named = {other.name: other for other in rack.hosts}
    return tuple(named[name] for name in dict.fromkeys(swap.peers) if name in named)


def peers(rack: Rack, host: Host, swap: LlamaSwap) -> tuple[Peer, ...]:
    """Return whom a llama-swap asks: those of the hosts it names that serve models themselves.

    A peer bears the name of its host; where a host has several, the name of the service follows.
    """
    found = []
    for other in peer_hosts(rack, host, swap):
        serving = [one for _, one in swaps(other) if one.models]
        for one in serving:
            id_ = other.name if len(serving) == 1 else f"{other.name}-{one.name}"
            found.append(Peer(id_, other, one, _address(host, other, one)))
    return tuple(found)


def _serves(host: Host) -> bool:
    return any(swap.models for _, swap in swaps(host))


def _address(asker: Host, other: Host, swap: LlamaSwap) -> str:
    """Return by which address ``asker`` reaches a llama-swap of ``other``, or "" for none."""
    listen = ipaddress.ip_address(swap.listen)
    if listen.is_loopback:
        return ""
    if not listen.is_unspecified:
        return swap.listen
    if asker.private and other.private and _joined(asker.private.address, other.private.address):
        return other.private.address
    return other.address


def _joined(one: str, other: str) -> bool:
    """Return whether two private addresses look like one network: a /24, or a /64 of IPv6."""
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    bits = 64 if first.version == 6 else 24
    net = ipaddress.ip_network(f"{first}/{bits}", strict=False)
    return first.version == second.version and second in net


def predicted_load_s(rack: Rack, host: Host, engine: Swappable) -> int | None:
    """Return how long an engine's files take from disk, or None where sizes or disk are unknown."""
    model = model_of(rack, engine)
    sizes = [placed.size for placed in model.layout()] if model else []
    known = [size for size in sizes if size is not None]
    if host.disk_mb_s is None or not known or len(known) != len(sizes):
        return None
    return -(-sum(known) // (host.disk_mb_s * 1_000_000))


def load_s(rack: Rack, host: Host, engine: Swappable) -> int:
    """Return how long an engine may take to load: as stated, else twice what is predicted.

    What is predicted counts as ``LEAST_LOAD_S`` at least.
    """
    if isinstance(engine, Engine) and engine.load_timeout_s is not None:
        return engine.load_timeout_s
    predicted = predicted_load_s(rack, host, engine)
    return UNKNOWN_LOAD_S if predicted is None else max(LEAST_LOAD_S, 2 * predicted)


def health_check_s(rack: Rack, host: Host, swap: LlamaSwap) -> int:
    """Return the time for loading that a llama-swap allows each of its models."""
    stated = seconds(swap.health_check_timeout)
    if stated is not None:
        return stated
    return max([load_s(rack, host, one.engine) for one in swap.models], default=LEAST_LOAD_S)


def first_answer_s(rack: Rack, peer: Peer) -> int:
    """Return after how long a peer that sleeps with nothing loaded can begin to answer."""
    return WAKE_S[peer.host.wake.kind] + health_check_s(rack, peer.host, peer.swap)


def peer_timeout_s(rack: Rack, swap: LlamaSwap, peer: Peer) -> int:
    """Return how long a llama-swap waits for the beginning of a peer's answer."""
    stated = seconds(swap.peer_timeout)
    return first_answer_s(rack, peer) + ANSWER_S if stated is None else stated


def sleeper_port(swap: LlamaSwap, place: int) -> int | None:
    """Return the port of the vLLM behind model ``place`` that outlives its turns, or None if it has none.

    These come after the ports that llama-swap itself gives, one for each model.
    """
    one = swap.models[place]
    if not (one.sleep and isinstance(one.engine, Vllm)):
        return None
    return swap.start_port + len(swap.models) + sum(other.sleep for other in swap.models[:place])


def last_port(swap: LlamaSwap) -> int:
    """Return the last port on loopback that models of a llama-swap may get."""
    return swap.start_port + len(swap.models) + sum(one.sleep for one in swap.models) - 1
