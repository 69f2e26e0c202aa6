"""Which hosts and cards work together for one engine, and by which addresses and ports they speak.

One place answers that for checks, units, firewalls and the estimate of memory. Two ways lead beyond one host:
``Vllm(cluster=...)`` runs on all cards of a Ray cluster, head first; ``LlamaServer(rpc=[...])`` runs on its
own cards and on those that rpc-servers of other hosts lend. Both speak over ``Host.private`` only.

Ray needs fixed ports so that a firewall can name them: a few from the cluster's ``port`` on, and a range for
its workers. NCCL, Gloo and PyTorch listen on ports that the kernel picks, so between members of one cluster
that range counts too. Names that nothing bears are left out here; the checks tell them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from labctl.inventory.accelerators import Gpu
from labctl.inventory.hosts import Host, PrivateNet
from labctl.inventory.rack import Rack
from labctl.inventory.services import (
    Command,
    Engine,
    LlamaServer,
    RayCluster,
    RpcServer,
    Vllm,
    each_engine,
    models_of,
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# Ray's own services, counted from the cluster's port: the head itself first.
RAY_SERVICES = (
    "node-manager-port",
    "object-manager-port",
    "runtime-env-agent-port",
    "dashboard-agent-grpc-port",
    "dashboard-agent-listen-port",
    "metrics-export-port",
)
WORKER_PORTS = (11000, 11999)
# net.ipv4.ip_local_port_range as Linux sets it: where NCCL, Gloo and torch.distributed listen.
KERNEL_PORTS = (32768, 60999)
RAY_NAME = "ray"  # the one Ray node of a host, as if it were a service of this name


@dataclass(frozen=True, slots=True)
class Part:
    """The share of one host in an engine: the cards that it uses there."""

    host: Host
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class Opening:
    """Ports (first, last) that ``sources`` may reach by ``interface``, and nobody else; ``why``: whose."""

    interface: str
    sources: tuple[str, ...]
    ports: tuple[tuple[int, int], ...]
    why: str


def network_of(net: PrivateNet) -> Network:
    """Return the network that a private address lies in.

    Where the inventory states no prefix the usual one is taken: /16 for link-local IPv4 addresses, which DGX
    Sparks give themselves, /24 for other IPv4 addresses and /64 for IPv6.
    """
    address = ipaddress.ip_address(net.address)
    usual = 64 if address.version == 6 else 16 if address.is_link_local else 24
    prefix = min(net.prefix or usual, address.max_prefixlen)
    return ipaddress.ip_network(f"{address}/{prefix}", strict=False)


def find_host(rack: Rack, name: str) -> Host | None:
    """Return the host of that name, or None."""
    return next((host for host in rack.hosts if host.name == name), None)


def find_cluster(rack: Rack, name: str | None) -> RayCluster | None:
    """Return the cluster of that name, or None."""
    return next((cluster for cluster in rack.clusters if cluster.name == name), None)


def cluster_on(rack: Rack, host: Host) -> RayCluster | None:
    """Return the cluster that a host is in; a host is in one at most."""
    return next((one for one in rack.clusters if host.name in (one.head, *one.workers)), None)


def members(rack: Rack, cluster: RayCluster) -> tuple[Host, ...]:
    """Return the hosts of a cluster, the head first."""
    found = (find_host(rack, name) for name in (cluster.head, *cluster.workers))
    return tuple(host for host in found if host is not None)


def engines_on(rack: Rack, cluster: RayCluster) -> Iterator[tuple[Host, Vllm]]:
    """Yield every vLLM that runs on a cluster, with the host whose service it is."""
    for host in rack.hosts:
        for service in host.services:
            for _, engine in each_engine(service):
                if isinstance(engine, Vllm) and engine.cluster == cluster.name:
                    yield host, engine


def models_on(rack: Rack, host: Host) -> Iterator[str]:
    """Yield the models whose files a host needs: those it serves, and those of a cluster that it works in.

    Every node of a Ray cluster reads the weights from its own disk; an rpc-server gets them over the network.
    """
    yield from models_of(host.services)
    cluster = cluster_on(rack, host)
    if cluster is not None and cluster.head != host.name:
        yield from (engine.model for _, engine in engines_on(rack, cluster))


def rpc_servers(host: Host) -> tuple[RpcServer, ...]:
    """Return the rpc-servers of a host."""
    return tuple(service for service in host.services if isinstance(service, RpcServer))


def rpc_users(rack: Rack, lender: Host) -> tuple[tuple[Host, LlamaServer], ...]:
    """Return every llama-server that uses the cards which ``lender`` lends, with its host."""
    return tuple(
        (host, engine)
        for host in rack.hosts
        for service in host.services
        for _, engine in each_engine(service)
        if isinstance(engine, LlamaServer) and lender.name in engine.rpc
    )


def devices_of(rack: Rack, engine: Engine | Command, host: Host) -> tuple[Part, ...]:
    """Return the hosts and cards that an engine of ``host`` uses, in the order in which it counts them.

    llama-server counts the cards that others lend before its own. A host without cards has an empty share,
    which stands for its processor and memory.
    """
    if isinstance(engine, Vllm) and (cluster := find_cluster(rack, engine.cluster)) is not None:
        return tuple(Part(member, member.gpus) for member in members(rack, cluster))
    own = Part(host, _picked(host, engine.gpus if isinstance(engine, Engine) else ()))
    if not isinstance(engine, LlamaServer):
        return (own,)
    lenders = (find_host(rack, name) for name in engine.rpc)
    lent = (
        Part(lender, _picked(lender, server.gpus))
        for lender in lenders
        if lender is not None
        for server in rpc_servers(lender)
    )
    return (*lent, own)


def ray_ports(cluster: RayCluster) -> dict[str, int]:
    """Return the ports of Ray's own services on every node, each by its option's name without dashes."""
    return {name: cluster.port + 1 + place for place, name in enumerate(RAY_SERVICES)}


def world_size(engine: Vllm) -> int:
    """Return how many cards an engine wants: one for each rank."""
    sizes = (engine.tensor_parallel_size, engine.pipeline_parallel_size, engine.data_parallel_size)
    wanted = 1
    for size in sizes:
        wanted *= size or 1
    return wanted


def crosses_hosts(cards: Sequence[int], tensor_parallel: int) -> bool:
    """Return whether ranks that share every layer end up on different hosts.

    vLLM numbers its ranks host by host, the head first, and deals them into groups of ``tensor_parallel``.
    """
    places = [host for host, number in enumerate(cards) for _ in range(number)]
    groups = (places[at : at + tensor_parallel] for at in range(0, len(places), tensor_parallel))
    return any(len(set(group)) > 1 for group in groups)


def openings(rack: Rack, host: Host) -> tuple[Opening, ...]:
    """Return what the firewall of a host opens to the hosts that work with it, and to nobody else."""
    if host.private is None:
        return ()
    found = []
    cluster = cluster_on(rack, host)
    if cluster is not None:
        others = _addresses(member for member in members(rack, cluster) if member.name != host.name)
        ports = ((cluster.port, cluster.port + len(RAY_SERVICES)), WORKER_PORTS, KERNEL_PORTS)
        found.append(Opening(host.private.interface, others, ports, f"Ray cluster {cluster.name}"))
    users = _addresses(user for user, _ in rpc_users(rack, host) if user.name != host.name)
    for server in rpc_servers(host):
        if server.port is not None:
            its = ((server.port, server.port),)
            found.append(Opening(host.private.interface, users, its, f"rpc-server {server.name}"))
    return tuple(one for one in found if one.sources)


def _addresses(hosts: Iterator[Host]) -> tuple[str, ...]:
    return tuple(sorted({host.private.address for host in hosts if host.private is not None}))


def _picked(host: Host, wanted: tuple[str, ...]) -> tuple[Gpu, ...]:
    return tuple(gpu for gpu in host.gpus if not wanted or any(ref in wanted for ref in gpu.refs))
