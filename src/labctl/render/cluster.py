"""Units of hosts that work together: Ray's nodes, vLLM on top of them, and llama.cpp's rpc-server.

A host of a Ray cluster runs one node, ``labctl-ray.service``; the head's also keeps the cluster's books. vLLM
runs on the head, bound to the node's unit: without the head there is no vLLM, and whenever the head comes
back vLLM is started again. Before it starts it waits until every host has joined, since vLLM itself would
wait for their cards without a word; when time is up it fails and says who is missing. Ray listens on all
interfaces; who reaches it is the firewall's part (``inventory.clusters.openings``), and who may command it
that of the cluster's token.
rpc-server binds the private address and nothing else. llama-server ends at once when a lender does not
answer, so its unit waits for each of them first, and says whom it lacks.

What waits for another host is started again once a minute, for ever: a worker without its head, or a program
whose private address is not there because the machine at the other end of the cable sleeps. That is slow
enough to be no crash loop, and nobody has to start it by hand when the other one wakes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from labctl import render
from labctl.domain.problem import LabctlError
from labctl.inventory import Host, LlamaServer, LlamaSwap, Rack, RayCluster, RpcServer, Vllm
from labctl.inventory.builds import environment_of
from labctl.inventory.clusters import (
    RAY_NAME,
    WORKER_PORTS,
    cluster_on,
    crosses_hosts,
    engines_on,
    find_cluster,
    members,
    ray_ports,
)
from labctl.inventory.services import Program
from labctl.render import places, units
from labctl.render.engines import ray
from labctl.render.engines.cards import visible
from labctl.render.engines.llama import lenders
from labctl.render.engines.torch import caches
from labctl.render.launch import launch, owner
from labctl.render.units import Sandbox, Unit

# Second line of a node's unit, as units.MARKER is of a service's.
MARKER = "# labctl ray node of cluster:"
NODE_UNIT = f"labctl-{RAY_NAME}.service"
WAIT_PROGRAM = "/usr/local/lib/labctl/ray-wait.py"
# Less than an operation of labctl may take, so that the unit's own words are heard and not a timeout.
JOIN_S = 240
# Long enough that the limit of five starts in five minutes is never met by waiting.
LEND_S = 90
# Arguments: address, port, name of the lender, seconds. No data stands in the script itself.
_LENDER = (
    'until (exec 3<>"/dev/tcp/$0/$1") 2>/dev/null; do '
    'if [ "$SECONDS" -ge "$3" ]; then '
    'echo "rpc-server of $2 ($0:$1) does not answer after $3 s: is $2 awake?" >&2; exit 1; fi; '
    "sleep 0.3; done"
)
_MIB = 1024 * 1024
# `ray start --block` ends with 1 also when it is told to end, so a stop would look like a failure.
_ENDS_WITH_1 = ("SuccessExitStatus=1", "Restart=always")
# Five starts of these take longer than the five minutes in which five are allowed, so the limit is never met.
_ONCE_A_MINUTE = "RestartSec=61"
# RDMA network cards; where there are none the group does not exist and is left out.
_RDMA_GROUPS = ("infiniband_verbs", "infiniband_mad")


def wait_program() -> str:
    """Return the program that waits for the nodes of a cluster; it runs under the Python that holds Ray."""
    return f"{render.HEADER}\n{Path(__file__).with_name('ray_wait.py').read_text(encoding='utf-8')}"


def node(rack: Rack, host: Host) -> Unit | None:
    """Return the unit of a host's Ray node; None for a host that is in no cluster.

    Raises:
        LabctlError: no environment of the rack holds Ray, or a host has no private network.
    """
    cluster = cluster_on(rack, host)
    if cluster is None:
        return None
    program = ray_program(rack, cluster)
    models = [rack.model(engine.model) for _, engine in engines_on(rack, cluster)]
    is_head = host.name == cluster.head
    secrets = ray.token(cluster, RAY_NAME)
    build = environment_of(rack, cluster)
    sandbox = Sandbox(
        paths=(program, *(model.main for model in models)),
        gpu=units.has_gpu(host),
        jit=True,
        lock_memory=True,
        environment={**_node_environment(host), **ray.authentication(secrets)},
        secrets=secrets,
        marks=() if build is None else (f"build {build.kind} {build.version} {places.digest(build)}",),
        relations=_started_with_it(rack, cluster) if is_head else (),
        settings=(*_ENDS_WITH_1, _ONCE_A_MINUTE),
        device_groups=(*units.DEVICE_GROUPS, *_RDMA_GROUPS),
        marker=MARKER,
    )
    role = "head" if is_head else "worker"
    wanted = Program(name=RAY_NAME, user=_user(rack, cluster))
    return units.unit(wanted, f"Ray {role} of cluster {cluster.name}", _node(rack, host, cluster), sandbox)


def ray_program(rack: Rack, cluster: RayCluster) -> str:
    """Return the absolute path of the program ``ray`` on every host of a cluster.

    Raises:
        LabctlError: no environment of the rack holds it.
    """
    build = environment_of(rack, cluster)
    if build is not None:
        return f"{places.folder(build)}/bin/ray"
    for _, engine in engines_on(rack, cluster):
        if engine.binary is not None:
            return str(PurePosixPath(engine.binary).with_name("ray"))
    raise LabctlError(
        f"nothing says which Ray cluster {cluster.name} runs",
        hint='add PythonEnv(kind="vllm", ...) to `engines` of the rack, and say its version by `env`',
        host=cluster.head,
    )


def vllm(rack: Rack, host: Host, wanted: Vllm) -> Unit:
    """Return the unit of a vLLM; one on a cluster is bound to the head's node and waits for the others.

    Raises:
        LabctlError: no build fits, or the cluster is not there.
    """
    if wanted.cluster is None:
        return units.engine(rack, host, wanted)
    cluster = find_cluster(rack, wanted.cluster)
    if cluster is None:
        raise LabctlError(f"the rack has no cluster called {wanted.cluster}", host=host.name)
    start = launch(rack, host, wanted, port=str(wanted.port))
    sandbox = units.sandbox_of(host, wanted, start)
    joined = replace(
        sandbox,
        before=(*sandbox.before, _wait(rack, cluster)),
        relations=(f"BindsTo={NODE_UNIT}", f"After={NODE_UNIT}"),
        settings=(f"TimeoutStartSec={JOIN_S + 30}", f"ReadWritePaths=-{ray.HOME}"),
        device_groups=(*units.DEVICE_GROUPS, *_RDMA_GROUPS),
    )
    return units.unit(wanted, units.purpose(wanted), start.argv, joined)


def llama_server(rack: Rack, host: Host, wanted: LlamaServer) -> Unit:
    """Return the unit of a llama-server; one that borrows cards waits for those who lend them.

    Raises:
        LabctlError: no build fits, a card's UUID is not known, or a host lends nothing.
    """
    if not wanted.rpc:
        return units.engine(rack, host, wanted)
    start = launch(rack, host, wanted, port=str(wanted.port))
    sandbox = units.sandbox_of(host, wanted, start)
    waits = (
        ("/bin/bash", "-c", _LENDER, *address.rsplit(":", 1), name, str(LEND_S))
        for name, address in zip(wanted.rpc, lenders(rack, wanted), strict=True)
    )
    patient = replace(
        sandbox,
        before=(*sandbox.before, *waits),
        settings=(f"TimeoutStartSec={LEND_S * len(wanted.rpc) + 30}",),
    )
    return units.unit(wanted, units.purpose(wanted), start.argv, patient)


def shared(swap: LlamaSwap) -> tuple[str, ...]:
    """Return the settings that a llama-swap's unit needs if it starts engines on a cluster."""
    joined = any(isinstance(one.engine, Vllm) and one.engine.cluster is not None for one in swap.models)
    return (f"ReadWritePaths=-{ray.HOME}",) if joined else ()


def rpc_server(rack: Rack, host: Host, wanted: RpcServer) -> Unit:
    """Return the unit of a host's rpc-server.

    Raises:
        LabctlError: no build fits, a card's UUID is not known, or the host has no private network.
    """
    net = ray.private_net(host)
    program = places.program(rack, host, wanted)
    argv = [program, "--host", net.address, "--port", str(wanted.port)]
    argv += ["--cache"] if wanted.cache else []
    sandbox = Sandbox(
        paths=(program,),
        gpu=units.has_gpu(host),
        jit=units.has_gpu(host),
        lock_memory=True,
        environment=visible(host, wanted),
        marks=places.marks(rack, host, wanted),
        settings=(_ONCE_A_MINUTE,),
    )
    return units.unit(wanted, f"rpc-server {wanted.name}: lends cards of {host.name}", tuple(argv), sandbox)


def advice(rack: Rack, host: Host) -> tuple[str, ...]:
    """Return what is no mistake and yet worth knowing of the cluster that a host is the head of."""
    cluster = cluster_on(rack, host)
    if cluster is None or cluster.head != host.name:
        return ()
    cards = [len(member.gpus) for member in members(rack, cluster)]
    return tuple(
        f"{engine.name}: tensor_parallel_size={engine.tensor_parallel_size} is spread over hosts, so every "
        "layer waits for the network: use the fastest link (RDMA where there is), or split by "
        "pipeline_parallel_size, which passes on far less"
        for _, engine in engines_on(rack, cluster)
        if crosses_hosts(cards, engine.tensor_parallel_size or 1)
    )


def _node(rack: Rack, host: Host, cluster: RayCluster) -> tuple[str, ...]:
    argv = [
        ray_program(rack, cluster),
        "start",
        "--block",
        "--node-ip-address",
        ray.private_net(host).address,
    ]
    if host.name == cluster.head:
        argv += ["--head", "--port", str(cluster.port), "--include-dashboard=false"]
    else:
        argv += ["--address", ray.head_address(rack, cluster)]
    for option, port in ray_ports(cluster).items():
        argv += [f"--{option}", str(port)]
    argv += ["--min-worker-port", str(WORKER_PORTS[0]), "--max-worker-port", str(WORKER_PORTS[1])]
    argv += ["--num-gpus", str(len(host.gpus)), "--temp-dir", ray.HOME, "--disable-usage-stats"]
    if cluster.object_store_mib is not None:
        argv += ["--object-store-memory", str(cluster.object_store_mib * _MIB)]
    return tuple(argv)


def _node_environment(host: Host) -> dict[str, str]:
    found = {
        **caches(f"/var/cache/labctl-{RAY_NAME}"),
        **ray.network(host),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_RPC_BASE_PATH": ray.HOME,
    }
    if host.unified_memory_gib is not None:
        # Ray ends workers when main memory runs full, which here is the cards' memory and meant to be full.
        found["RAY_memory_monitor_refresh_ms"] = "0"
    return found


def _started_with_it(rack: Rack, cluster: RayCluster) -> tuple[str, ...]:
    """Return the lines by which vLLM comes back with the head: BindsTo alone only takes it down."""
    own = [
        units.unit_name(engine)
        for host, engine in engines_on(rack, cluster)
        if host.name == cluster.head and owner(host, engine) == engine.name
    ]
    return tuple(f"Wants={name}" for name in own)


def _user(rack: Rack, cluster: RayCluster) -> str:
    """Return whom the nodes run as: whoever runs vLLM, since both share sockets and memory."""
    for host, engine in engines_on(rack, cluster):
        for service in host.services:
            if service.name == owner(host, engine):
                return service.user
    return units.SERVICE_USER


def _wait(rack: Rack, cluster: RayCluster) -> tuple[str, ...]:
    python = str(PurePosixPath(ray_program(rack, cluster)).with_name("python"))
    nodes = (f"{member.name}={ray.private_net(member).address}" for member in members(rack, cluster))
    head = ray.head_address(rack, cluster)
    return (
        python,
        WAIT_PROGRAM,
        "--cluster",
        cluster.name,
        "--address",
        head,
        "--timeout",
        str(JOIN_S),
        *nodes,
    )
