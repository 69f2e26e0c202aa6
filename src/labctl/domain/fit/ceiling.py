"""How fast a model can be at best, and how long it takes to load.

To make one token, an engine reads every weight that takes part in it once. So tokens per second are at most
the memory's bandwidth over those bytes: 1792 GB/s over 60 GB is 30. Of a mixture of experts only the experts
in use count, of the embedding only one row. Devices that work one after another (whole blocks each) add up
their times; devices that work at the same time (every matrix divided) wait for the slowest.

It is a ceiling for one sequence with a short context: reading the cache, computing and passing results on
come on top. Where the bandwidth of a device that takes part is not known, neither is the ceiling.

Loading reads every byte of the files once, at the rate of the disk; a card's own bus is never slower than
the disks that this is for.
"""

from __future__ import annotations

from collections.abc import Mapping

from labctl.domain.fit.terms import Layer, ModelShape


def active_bytes(shape: ModelShape, layer: Layer) -> int:
    """Return the bytes of a block that take part in one token."""
    return layer.weight_bytes - layer.expert_bytes + active_experts(shape, layer)


def active_experts(shape: ModelShape, layer: Layer) -> int:
    """Return the bytes of a block's routed experts that take part in one token."""
    if not shape.experts or not shape.experts_used:
        return layer.expert_bytes
    return layer.expert_bytes * min(shape.experts_used, shape.experts) // shape.experts


def head_bytes(shape: ModelShape) -> int:
    """Return the bytes of the head, which is the embedding again where both are one."""
    return shape.output_bytes + (shape.input_bytes if shape.tied else 0)


def tokens_per_second(
    read: Mapping[str, int], bandwidths: Mapping[str, int], *, together: frozenset[str] = frozenset()
) -> float | None:
    """Return the ceiling, or None where a bandwidth is not known.

    Args:
        read: bytes that each device reads for one token.
        bandwidths: bytes per second by device; 0 is unknown.
        together: devices that work at the same time.
    """
    times = {}
    for device, size in read.items():
        if not size:
            continue
        if not bandwidths.get(device):
            return None
        times[device] = size / bandwidths[device]
    alone = sum(time for device, time in times.items() if device not in together)
    at_once = max((time for device, time in times.items() if device in together), default=0.0)
    total = alone + at_once
    return 1 / total if total else None


def load_seconds(file_bytes: int, disk_bytes_s: int | None) -> float | None:
    """Return how long reading the files takes, or None where the disk's rate is not known."""
    return file_bytes / disk_bytes_s if disk_bytes_s else None
