"""Claiming one card per rank of a Ray cluster, as vLLM's Ray executor does: for real, if Ray is installed.

A placement group asks for as many bundles of one GPU as there are ranks; then a worker runs in each, tells on
which node it is, and stays. That takes the ports between all nodes, so a firewall that keeps them shut is
found, and so is a node that dies later. What vLLM would load there is not loaded: the double's only
llama-server runs on the head.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from typing import Any

from .child import LoadError

_WAIT_S = float(os.environ.get("LABCTL_DOUBLE_RAY_WAIT_S", "1800"))  # vLLM's own patience


class Rank:
    """A worker on the card of one rank."""

    def where(self) -> str:
        """Return the address of its node."""
        address: str = importlib.import_module("ray").util.get_node_ip_address()
        return address

    def stay(self) -> None:
        """Stay until its node or process dies."""
        threading.Event().wait()


def claim(number: int) -> tuple[list[str], Callable[[], str]]:
    """Return the addresses of the nodes where ``number`` ranks have their cards, and what waits for a loss.

    Calling the second returns, with the reason, when a rank has died.

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
        made = ray.remote(num_cpus=0, num_gpus=1, max_concurrency=2)(Rank)
        ranks = []
        for place in range(number):
            at = scheduling.PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=place)
            ranks.append(made.options(scheduling_strategy=at).remote())
        found: list[str] = ray.get([rank.where.remote() for rank in ranks], timeout=_WAIT_S)
    except (ConnectionError, RuntimeError, TimeoutError, ray.exceptions.RayError) as error:
        raise LoadError(f"Ray: {str(error).splitlines()[0]}") from None
    return found, lambda: _loss(ray, ranks)


def _loss(ray: Any, ranks: list[Any]) -> str:
    ended, _ = ray.wait([rank.stay.remote() for rank in ranks], num_returns=1)
    try:
        ray.get(ended)
    except ray.exceptions.RayError as error:
        return str(error).splitlines()[0]
    return "a rank ended"
