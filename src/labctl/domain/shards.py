"""Decide how many worker processes share the hosts of a run, and which host goes where.

One worker drives many hosts at once, but on one processor; it saturates it from about ten hosts upward. So a
second worker starts with the eleventh host, up to ``forks_per_core`` for each processor. What needs one place
to decide (one host after the other, or stopping when too many have failed) runs in a single worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HOSTS_WORTH_A_WORKER = 10


@dataclass(frozen=True, slots=True)
class Shard:
    """The hosts of one worker, and how many of them it may work on at the same time."""

    hosts: tuple[str, ...]
    parallel: int


def count(hosts: int, cores: int, forks_per_core: int, *, parallel: int, one_place: bool) -> int:
    """Return how many workers to use; at least one, never more than ``parallel`` hosts may be at work."""
    if one_place:
        return 1
    wanted = -(-hosts // HOSTS_WORTH_A_WORKER)
    return max(1, min(wanted, cores * forks_per_core, parallel))


def split(hosts: Sequence[str], workers: int, parallel: int) -> tuple[Shard, ...]:
    """Deal the hosts out like cards, so that alike neighbours in the rack file spread over the workers."""
    shards = []
    for index in range(workers):
        share = parallel // workers + (1 if index < parallel % workers else 0)
        shards.append(Shard(tuple(hosts[index::workers]), max(1, share)))
    return tuple(shards)
