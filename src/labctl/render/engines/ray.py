"""What vLLM and the nodes of its Ray cluster need to know of each other.

vLLM is a driver of the cluster: it asks the head by ``RAY_ADDRESS`` for one worker per card, and these run
inside of the nodes' units, on every host. Traffic between cards must take the private network on both sides,
so both sides name its interface to NCCL, Gloo and PyTorch. Interfaces may be called differently on each host,
and vLLM copies its own environment to all workers (vllm/ray/ray_env.py; newer versions copy all of it). So
what belongs to one host or one unit is named in the file by which vLLM leaves variables behind.

Ray asks for a token where the cluster has one, and for none where it has not. Both are said outright, because
Ray's own choice is about to change (2.61 asks unless told otherwise).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from labctl.domain.problem import LabctlError
from labctl.inventory import Host, PrivateNet, Rack, RayCluster, Vllm
from labctl.inventory.clusters import RAY_NAME, find_cluster, find_host
from labctl.render.credentials import Credential
from labctl.render.engines.terms import ConfigFile

# Ray's sessions, and sockets between vLLM and workers on the head: units with a /tmp of their own share it.
HOME = f"/var/lib/labctl-{RAY_NAME}"
CONFIG_ROOT = "/etc/labctl/cluster"
_OF_THE_HOST = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "VLLM_HOST_IP")
_OF_THE_UNIT = ("CREDENTIALS_DIRECTORY", "HOME", "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID")
_SHARED = ("HF_HUB_OFFLINE", "VLLM_CONFIG_ROOT", "VLLM_RPC_BASE_PATH")


def private_net(host: Host) -> PrivateNet:
    """Return the private network of a host that works with others.

    Raises:
        LabctlError: it has none. A loaded rack holds no such host.
    """
    if host.private is None:
        raise LabctlError(f"{host.name} has no `private` network", host=host.name)
    return host.private


def head_address(rack: Rack, cluster: RayCluster) -> str:
    """Return ADDRESS:PORT of a cluster's head.

    Raises:
        LabctlError: there is no such host, or it has no private network.
    """
    head = find_host(rack, cluster.head)
    if head is None:
        raise LabctlError(f"the rack has no host called {cluster.head}")
    return f"{private_net(head).address}:{cluster.port}"


def network(host: Host) -> dict[str, str]:
    """Return the environment that keeps the traffic between hosts on the private network."""
    net = private_net(host)
    return {
        "VLLM_HOST_IP": net.address,
        # With "=" it is this name; without, every interface whose name begins so.
        "NCCL_SOCKET_IFNAME": f"={net.interface}",
        "GLOO_SOCKET_IFNAME": net.interface,
        "TP_SOCKET_IFNAME": net.interface,
    }


def driver(rack: Rack, host: Host, engine: Vllm, unit: str) -> tuple[dict[str, str], tuple[Credential, ...]]:
    """Return the environment and the secrets of a vLLM that runs on a cluster, in the service ``unit``.

    Raises:
        LabctlError: there is no such cluster, or a host of it has no private network.
    """
    cluster = find_cluster(rack, engine.cluster)
    if cluster is None:
        raise LabctlError(f"the rack has no cluster called {engine.cluster}", host=host.name)
    secrets = token(cluster, unit)
    environment = {
        **network(host),
        **authentication(secrets),
        "RAY_ADDRESS": head_address(rack, cluster),
        "VLLM_CONFIG_ROOT": CONFIG_ROOT,
        "VLLM_RPC_BASE_PATH": HOME,
    }
    return environment, secrets


def token(cluster: RayCluster, unit: str) -> tuple[Credential, ...]:
    """Return the cluster's token as a secret of the service ``unit``, if there is one."""
    return () if cluster.token is None else (Credential(unit, "ray-token", cluster.token),)


def authentication(secrets: Iterable[Credential]) -> dict[str, str]:
    """Return the environment by which Ray finds its token among the secrets of a unit, or does without."""
    for one in secrets:
        if one.name == "ray-token":
            return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": one.inside}
    return {"RAY_AUTH_MODE": "disabled"}


def left_behind(environment: Mapping[str, str] | Iterable[str]) -> ConfigFile:
    """Return the file that names what vLLM must not copy from its own environment to its workers."""
    names = {*environment, *_OF_THE_HOST, *_OF_THE_UNIT} - set(_SHARED)
    return ConfigFile(f"{CONFIG_ROOT}/ray_non_carry_over_env_vars.json", f"{json.dumps(sorted(names))}\n")
