"""Hosts that work together: can they reach each other, privately, and do their sizes add up?

Ray and rpc-server ask nobody for a password: whoever reaches them may run programs or read what is computed.
So every host that takes part needs a ``private`` network, all of them the same one, and their ports are
refused wherever else they would be open.

The rule for sizes is equality: tensor × pipeline × data parallel size is the number of cards that the hosts
of the cluster have. Cards left over would be useless to everybody else, since Ray, not the inventory, picks
which ones those are. Whether cards that share every layer are on several hosts is no mistake (a pair of DGX
Sparks has no other way), so that is told at ``plan`` and not refused here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from labctl.inventory import clusters, profiles
from labctl.inventory.accelerators import Gpu
from labctl.inventory.builds import environment_of
from labctl.inventory.checks.finding import Finding, Where, each_host, missing, twice
from labctl.inventory.hosts import Host
from labctl.inventory.rack import Rack
from labctl.inventory.services import LlamaServer, RayCluster, RpcServer, Vllm, each_engine

_PRIVATE = 'add private=PrivateNet(interface="...", address="...") to that host'
_HIGHEST_PORT = 65535


def private_networks(rack: Rack) -> Iterator[Finding]:
    """Yield private addresses that two hosts have, or that are none of a private network."""
    yield from twice(
        ((*at, "private", "address"), host.private.address, f"host {host.name}")
        for at, host in each_host(rack)
        if host.private is not None
    )
    for at, host in each_host(rack):
        if host.private is None:
            continue
        address = ipaddress.ip_address(host.private.address)
        if address.is_global or address.is_loopback or address.is_unspecified or address.is_multicast:
            reason = f"{address} is no address of a private network"
            yield Finding((*at, "private", "address"), reason, "such as 192.168.100.1")


def members(rack: Rack) -> Iterator[Finding]:
    """Yield clusters whose hosts are not there, are there twice, cannot talk, or are of different kinds."""
    yield from twice(
        (("clusters", index, "name"), one.name, "another cluster") for index, one in enumerate(rack.clusters)
    )
    taken: dict[str, str] = {}
    for index, cluster in enumerate(rack.clusters):
        at: Where = ("clusters", index)
        places = [((*at, "head"), cluster.head)]
        places += [((*at, "workers", place), name) for place, name in enumerate(cluster.workers)]
        found: list[tuple[Where, Host]] = []
        for path, name in places:
            host = clusters.find_host(rack, name)
            if host is None:
                yield missing(path, "host", name, [host.name for host in rack.hosts])
            elif name in taken:
                yield Finding(path, f"{name} is in {taken[name]} already", "a host runs one Ray node at most")
            else:
                taken[name] = f"cluster {cluster.name}"
                found.append((path, host))
        yield from _together(cluster, found)
        yield from _ray(at, rack, cluster)


def _ray(at: Where, rack: Rack, cluster: RayCluster) -> Iterator[Finding]:
    """Yield that nothing says which Ray the nodes run; of what vLLM says its own checks tell."""
    if cluster.env is not None and environment_of(rack, cluster) is None:
        known = [build.version for build in rack.engines if build.kind in ("ray", "vllm")]
        yield missing((*at, "env"), "Python environment with Ray", cluster.env, known)
    elif not any(clusters.engines_on(rack, cluster)) and environment_of(rack, cluster) is None:
        hint = 'add one PythonEnv(kind="ray", ...) to `engines` of the rack, or say by `env` which'
        yield Finding((*at, "env"), "no vLLM runs on it, and nothing else says which Ray its nodes run", hint)


def _together(cluster: RayCluster, found: list[tuple[Where, Host]]) -> Iterator[Finding]:
    first = next((host for _, host in found if host.private is not None), None)
    for path, host in found:
        if host.private is None:
            yield Finding(path, f"{host.name} has no `private` network", _PRIVATE)
        elif first is not None:
            yield from _reachable(path, host, first)
        if not host.gpus:
            yield Finding(path, f"{host.name} has no cards to offer", "add `gpus` to that host")
        elif found[0][1].gpus:
            yield from _alike(path, host, found[0][1].gpus[0])
        if any(service.name == clusters.RAY_NAME for service in host.services):
            yield Finding(
                path, f"{host.name} has a service called ray", "that is what the Ray node is called"
            )


def _reachable(path: Where, host: Host, other: Host) -> Iterator[Finding]:
    """Yield why a host cannot reach another one by its private network; both have one."""
    if host.private is None or other.private is None:
        return
    if ipaddress.ip_address(host.private.address).version == 6:
        yield Finding(path, f"{host.name} has an IPv6 address there", "engines speak IPv4 with each other")
        return
    mine, theirs = clusters.network_of(host.private), clusters.network_of(other.private)
    if mine != theirs:
        reason = f"{host.name} is in the private network {mine}, {other.name} in {theirs}"
        yield Finding(path, reason, "both must be in one; say `prefix` where it is not the usual one")


def _alike(path: Where, host: Host, like: Gpu) -> Iterator[Finding]:
    for gpu in host.gpus:
        if _kind(gpu) != _kind(like):
            reason = f"{gpu.model} of {host.name} is of another architecture than {like.model}"
            yield Finding(path, reason, "one build of vLLM and one size of share must fit all of its cards")
            return


def _kind(gpu: Gpu) -> str:
    profile = profiles.find(gpu.model)
    return gpu.model if profile is None else profile.compute or profile.gfx or profile.name


def engines(rack: Rack) -> Iterator[Finding]:
    """Yield vLLMs whose cluster is not there or not theirs, and sizes that are not the cluster's."""
    standing: dict[str, str] = {}
    for at, host in each_host(rack):
        for index, service in enumerate(host.services):
            for below, engine in each_engine(service):
                if not isinstance(engine, Vllm) or engine.cluster is None:
                    continue
                here: Where = (*at, "services", index, *below)
                cluster = clusters.find_cluster(rack, engine.cluster)
                if cluster is None:
                    names = [one.name for one in rack.clusters]
                    yield missing((*here, "cluster"), "cluster", engine.cluster, names)
                    continue
                yield from _of_head(here, host, engine, cluster)
                yield from _sizes(here, rack, engine, cluster)
                yield from _environment(here, engine, cluster)
                if not below and cluster.name in standing:
                    reason = (
                        f"all cards of {cluster.name} are taken already by service {standing[cluster.name]}"
                    )
                    yield Finding((*here, "cluster"), reason, "let them take turns under one LlamaSwap(...)")
                elif not below:
                    standing[cluster.name] = engine.name


def _of_head(here: Where, host: Host, engine: Vllm, cluster: RayCluster) -> Iterator[Finding]:
    if host.name != cluster.head:
        reason = f"the head of {cluster.name} is {cluster.head}, not {host.name}"
        yield Finding((*here, "cluster"), reason, f"make it a service of {cluster.head}")
    if engine.gpus:
        hint = "remove `gpus`; a cluster offers all cards of its hosts"
        yield Finding((*here, "gpus"), "cannot be chosen here: Ray deals the cards out", hint)


def _environment(here: Where, engine: Vllm, cluster: RayCluster) -> Iterator[Finding]:
    if None not in (cluster.env, engine.version) and cluster.env != engine.version:
        reason = f"is {engine.version}, and the nodes of {cluster.name} run {cluster.env}"
        hint = "vLLM's workers run inside of Ray's nodes, so both are one environment; remove `env` there"
        yield Finding((*here, "version"), reason, hint)


def _sizes(here: Where, rack: Rack, engine: Vllm, cluster: RayCluster) -> Iterator[Finding]:
    cards = [len(host.gpus) for host in clusters.members(rack, cluster)]
    wanted, there = clusters.world_size(engine), sum(cards)
    if not all(cards) or wanted == there:
        return
    tensor, pipeline = engine.tensor_parallel_size or 1, engine.pipeline_parallel_size or 1
    reason = f"tensor × pipeline parallel size is {tensor} × {pipeline}"
    if engine.data_parallel_size:
        reason += f", times {engine.data_parallel_size} for data parallel: {wanted}"
    reason += f", but the hosts of {cluster.name} have {there} cards"
    even = cards[0] if len(set(cards)) == 1 else 1
    hint = f"such as tensor_parallel_size={even}, pipeline_parallel_size={there // even}"
    yield Finding((*here, "tensor_parallel_size"), reason, hint)


def ports(rack: Rack) -> Iterator[Finding]:
    """Yield services on Ray's ports, and ports of Ray or of an rpc-server that the firewall opens to all."""
    for index, cluster in enumerate(rack.clusters):
        if cluster.port + len(clusters.RAY_SERVICES) > _HIGHEST_PORT:
            reason = f"Ray takes {len(clusters.RAY_SERVICES)} ports behind it, and there are none"
            yield Finding(("clusters", index, "port"), reason, "such as 6379")
    for at, host in each_host(rack):
        cluster_here = clusters.cluster_on(rack, host)
        if cluster_here is not None:
            yield from _rays(at, host, cluster_here, rack.ssh_for(host).port)
        for server in clusters.rpc_servers(host):
            yield from _opened(at, host, server.port, f"rpc-server {server.name}")


def _rays(at: Where, host: Host, cluster: RayCluster, ssh: int) -> Iterator[Finding]:
    low, high = clusters.WORKER_PORTS
    own = range(cluster.port, cluster.port + len(clusters.RAY_SERVICES) + 1)
    taken = {*own, *range(low, high + 1)}
    who = f"Ray cluster {cluster.name}"
    for index, service in enumerate(host.services):
        if service.port in taken:
            hint = f"Ray takes {own[0]} to {own[-1]} and {low} to {high} on every host of a cluster"
            path = (*at, "services", index, "port")
            yield Finding(path, f"port {service.port} is taken already by {who}", hint)
    if ssh in taken:
        yield Finding((*at, "ssh"), f"port {ssh} is taken already by {who}", "choose another cluster.port")
    for port in host.open_ports:
        if port in taken:
            yield from _opened(at, host, port, who)


def _opened(at: Where, host: Host, port: int | None, who: str) -> Iterator[Finding]:
    if port in host.open_ports:
        path = (*at, "open_ports", host.open_ports.index(port))
        reason = f"would open port {port} of {who} to everybody, and it asks for no password"
        yield Finding(path, reason, "remove it; the firewall lets in the hosts that work with this one")


def lenders(rack: Rack) -> Iterator[Finding]:
    """Yield rpc-servers that cannot listen privately, are of no use, or name cards that are not there."""
    for at, host in each_host(rack):
        for index, service in enumerate(host.services):
            if not isinstance(service, RpcServer):
                continue
            here: Where = (*at, "services", index)
            yield from _lender(here, host, service)
            cards = [name for gpu in host.gpus for name in gpu.refs]
            for place, name in enumerate(service.gpus):
                if name not in cards:
                    yield missing((*here, "gpus", place), "card of this host", name, cards)
            if not clusters.rpc_users(rack, host):
                hint = f'say rpc=["{host.name}"] of a LlamaServer(...) on another host, or remove it'
                yield Finding(here, "lends its cards to nobody", hint)


def _lender(here: Where, host: Host, server: RpcServer) -> Iterator[Finding]:
    if host.private is None:
        hint = 'rpc-server asks for no password; add private=PrivateNet(interface="...", address="...")'
        yield Finding(here, "listens on the private network only, and this host has none", hint)
    if server.listen != RpcServer.model_fields["listen"].default:
        hint = "remove `listen`"
        yield Finding((*here, "listen"), "cannot be chosen: it is the host's private address", hint)
    if server.port is None:
        yield Finding((*here, "port"), "is missing", "llama.cpp's own choice is port=50052")
    private = None if host.private is None else host.private.address
    for other in host.services:  # what clashes on loopback is told with all other ports
        if other.port == server.port and other.listen == private:
            reason = f"port {server.port} is taken already by service {other.name}"
            yield Finding((*here, "port"), reason, "choose another port")


def borrowers(rack: Rack) -> Iterator[Finding]:
    """Yield llama-servers that would use cards of hosts which lend none, or which they cannot reach."""
    for at, host in each_host(rack):
        for index, service in enumerate(host.services):
            for below, engine in each_engine(service):
                if isinstance(engine, LlamaServer):
                    here: Where = (*at, "services", index, *below)
                    yield from _borrower(here, rack, host, engine)


def _borrower(here: Where, rack: Rack, host: Host, engine: LlamaServer) -> Iterator[Finding]:
    if engine.rpc and host.private is None:
        reason = f"{host.name} has no `private` network by which to reach them"
        yield Finding((*here, "rpc"), reason, _PRIVATE)
    for place, name in enumerate(engine.rpc):
        path: Where = (*here, "rpc", place)
        lender = clusters.find_host(rack, name)
        if lender is None:
            yield missing(path, "host", name, [host.name for host in rack.hosts])
        elif lender.name == host.name:
            yield Finding(path, "is the host itself, whose own cards it uses anyway", "remove it")
        elif name in engine.rpc[:place]:
            yield Finding(path, f"{name} is named already", "remove it")
        elif not clusters.rpc_servers(lender):
            hint = f'add RpcServer(name="rpc", port=50052) to services of {name}'
            yield Finding(path, f"{name} lends no cards", hint)
        else:
            yield from _reachable(path, lender, host)
            yield from _one_build(path, engine, lender)


def _one_build(path: Where, engine: LlamaServer, lender: Host) -> Iterator[Finding]:
    for server in clusters.rpc_servers(lender):
        if None not in (engine.version, server.version) and engine.version != server.version:
            reason = f"{lender.name} lends by llama.cpp {server.version}, and this is {engine.version}"
            yield Finding(path, reason, "both must be one version: its protocol changes with every build")
