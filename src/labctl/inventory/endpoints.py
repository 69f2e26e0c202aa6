"""Who serves which model, where, and under which address it is reached from where.

One list for everybody who must agree: gateways, clients and their checks. An endpoint is a service with a
port that speaks OpenAI's API: an engine of its own, an Ollama, or a llama-swap with the models of its host
and, behind it, those of its peers.

An address depends on who asks. A service on loopback is reached from its own host alone; one that listens on
a host's private address only by hosts that have such a network themselves; anything else by everybody, under
the address that it listens on or, where that is every address, under the host's. Doubt is "not reached".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from labctl.inventory.hosts import Host
from labctl.inventory.models import Model, ModelKind
from labctl.inventory.rack import Rack
from labctl.inventory.secrets import Secret
from labctl.inventory.services import Command, Engine, Keyed, LlamaSwap, Ollama, Program, each_engine
from labctl.inventory.services.llama import LlamaServer
from labctl.inventory.services.torch import Sglang, TabbyApi, Vllm
from labctl.inventory.swapping import peers as peers_of


@dataclass(frozen=True, slots=True)
class Served:
    """A model as clients of one endpoint ask for it.

    ``context`` is in tokens for one request, None where the inventory does not say; ``host`` is where it
    runs, which is another than the endpoint's for a peer's model. ``listed`` is whether it is shown.
    """

    model: Model
    host: Host
    engine: Engine | Command | Ollama
    behind: LlamaSwap | None
    listed: bool = True

    @property
    def id(self) -> str:
        """Return the name that every endpoint knows."""
        return self.model.id

    @property
    def kind(self) -> ModelKind:
        """Return what it is for."""
        return self.model.kind

    @property
    def context(self) -> int | None:
        """Return the tokens that one request may have, prompt and answer together."""
        return context_of(self.engine)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service that clients may ask: ``own`` are the models of its host, ``peers`` those behind it."""

    host: Host
    service: Program
    own: tuple[Served, ...]
    peers: tuple[Served, ...] = ()

    @property
    def port(self) -> int:
        """Return the TCP port."""
        assert self.service.port is not None
        return self.service.port

    @property
    def name(self) -> str:
        """Return ``HOST/SERVICE``."""
        return f"{self.host.name}/{self.service.name}"

    @property
    def always_on(self) -> bool:
        """Return whether its host never sleeps."""
        return "always-on" in self.host.roles

    @property
    def on_loopback(self) -> bool:
        """Return whether only programs on its own host reach it."""
        return ipaddress.ip_address(self.service.listen).is_loopback

    @property
    def key(self) -> Secret | None:
        """Return where the key that it asks for is read, None where it asks for none."""
        return self.service.api_key if isinstance(self.service, Keyed) else None

    def models(self) -> tuple[Served, ...]:
        """Return every model once, its own first."""
        seen: dict[str, Served] = {}
        for served in (*self.own, *self.peers):
            seen.setdefault(served.id, served)
        return tuple(seen.values())


def context_of(engine: Engine | Command | Ollama) -> int | None:
    """Return the tokens of one request that an engine is told to have, None where it is told nothing."""
    match engine:
        case LlamaServer():
            slots = 1 if engine.kv_unified else engine.parallel or 1
            return None if engine.ctx_size is None else engine.ctx_size // slots
        case Vllm():
            return engine.max_model_len
        case Sglang() | Ollama():
            return engine.context_length
        case TabbyApi():
            return engine.max_seq_len
        case _:
            return None


def endpoints(rack: Rack) -> tuple[Endpoint, ...]:
    """Return every endpoint of the rack, in the order of the rack file."""
    known = rack.models_by_name()
    found = []
    for host in rack.hosts:
        for service in host.services:
            own = _own(known, host, service)
            if service.port is None or not (own or isinstance(service, LlamaSwap)):
                continue
            peers: tuple[Served, ...] = ()
            if isinstance(service, LlamaSwap) and service.peers:
                peers = tuple(
                    one
                    for peer in peers_of(rack, host, service)
                    if peer.address
                    for one in _own(known, peer.host, peer.swap)
                )
            found.append(Endpoint(host, service, own, peers))
    return tuple(found)


def _own(known: Mapping[str, Model], host: Host, service: Program) -> tuple[Served, ...]:
    return tuple(_each_own(known, host, service))


def _each_own(known: Mapping[str, Model], host: Host, service: Program) -> Iterator[Served]:
    if isinstance(service, Ollama):
        for name in service.models:
            if name in known:
                yield Served(known[name], host, service, None)
    elif isinstance(service, LlamaSwap):
        for swapped in service.models:
            engine = swapped.engine
            if engine.model is not None and engine.model in known:
                yield Served(known[engine.model], host, engine, service, listed=not swapped.unlisted)
    else:
        for _, alone in each_engine(service):
            if alone.model is not None and alone.model in known:
                yield Served(known[alone.model], host, alone, None)


def address_from(endpoint: Endpoint, viewer: Host | None) -> str | None:
    """Return the IP or name under which ``viewer`` reaches an endpoint, None where it does not.

    ``viewer`` None is a machine outside of the rack, such as a laptop in the same network.
    """
    return reached(endpoint.host, endpoint.service.listen, viewer)


def reached(host: Host, listen: str, viewer: Host | None) -> str | None:
    """Return the address for ``viewer`` of what listens on ``listen`` of a host, None where it is shut."""
    ip = ipaddress.ip_address(listen)
    at_home = viewer is not None and viewer.name == host.name
    if ip.is_loopback:
        return listen if at_home else None
    if ip.is_unspecified:
        if at_home:
            return "127.0.0.1" if ip.version == 4 else "::1"
        return host.address
    private = host.private is not None and host.private.address == listen
    if private and not at_home and (viewer is None or viewer.private is None):
        return None
    return listen


def base_url(address: str, port: int, path: str = "/v1") -> str:
    """Return the address as clients take it; an IPv6 address is put in brackets."""
    return f"http://{f'[{address}]' if ':' in address else address}:{port}{path}"
