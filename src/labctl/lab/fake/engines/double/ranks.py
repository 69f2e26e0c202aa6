"""Claiming one card per rank of a Ray cluster, as vLLM's Ray executor does: for real, if Ray is installed.

A placement group asks for as many bundles of one GPU as there are ranks; then a worker runs in each and tells
on which node it is. That takes the ports between all nodes, so a firewall that keeps them shut is found. What
vLLM would then load there is not loaded: the double's only llama-server runs on the head.
"""

from __future__ import annotations

import importlib
import os

from .child import LoadError

_WAIT_S = float(os.environ.get("LABCTL_DOUBLE_RAY_WAIT_S", "1800"))  # vLLM's own patience


def claim(number: int) -> list[str]:
    """Return the addresses of the nodes on which ``number`` ranks have their cards.

    Raises:
        LoadError: Ray is not there, or the cards are not.
    """
    try:
        ray = importlib.import_module("ray")
        scheduling = importlib.import_module("ray.util.scheduling_strategies")
        groups = importlib.import_module("ray.util.placement_group")
    except ImportError:
        raise LoadError("Ray is not installed. Please install it with `pip install ray`.") from None
    try:
        ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=False, logging_level="ERROR")
        there = int(ray.cluster_resources().get("GPU", 0))
        group = groups.placement_group([{"GPU": 1}] * number, strategy="PACK")
        ready, _ = ray.wait([group.ready()], timeout=_WAIT_S)
        if not ready:
            raise LoadError(f"the cluster has {there} GPUs, and {number} are needed")
        where = ray.remote(num_cpus=0, num_gpus=1)(_address)
        asked = []
        for rank in range(number):
            at = scheduling.PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
            asked.append(where.options(scheduling_strategy=at).remote())
        found: list[str] = ray.get(asked, timeout=_WAIT_S)
    except (ConnectionError, RuntimeError, TimeoutError, ray.exceptions.RayError) as error:
        raise LoadError(f"Ray: {str(error).splitlines()[0]}") from None
    return found


def _address() -> str:
    address: str = importlib.import_module("ray").util.get_node_ip_address()
    return address
