"""What one model takes of a host's memory, and what it can do at best: the door to the formulas.

Each kind of engine has its own module, since they divide models and memory by different rules: ``llamacpp``,
``paged`` (vLLM, SGLang), ``packed`` (TabbyAPI and whatever else). All of them share the sizes of caches
(``cache``) and the ceiling of speed (``ceiling``).

When unsure, an estimate is on the high side, or says in a note what it leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from labctl.domain.fit import llamacpp, packed, paged
from labctl.domain.fit.terms import Device, Estimate, ModelShape, Use

_ENGINES: Mapping[str, Callable[[str, ModelShape, Use, Sequence[Device], int | None], Estimate]] = {
    "llama.cpp": llamacpp.estimate,
    "ollama": llamacpp.estimate,
    "vllm": paged.estimate,
    "sglang": paged.estimate,
}


def estimate(
    model: str,
    shape: ModelShape,
    use: Use,
    devices: Sequence[Device],
    *,
    disk_bytes_s: int | None = None,
) -> Estimate:
    """Return what a model takes of each device.

    Args:
        model: its id, for the answer.
        shape: what its files say.
        use: how the engine runs it.
        devices: the cards that the engine may use, in its order, and main memory.
        disk_bytes_s: bytes per second at which the host's disk reads; None where nobody knows.

    Raises:
        LabctlError: the cache's type is none that labctl knows.
    """
    run = _ENGINES.get(use.engine, packed.estimate)
    return run(model, shape, use, devices, disk_bytes_s)
