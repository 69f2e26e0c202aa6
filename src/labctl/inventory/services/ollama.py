"""Ollama: a server that loads models by itself, from a store of its own.

Options bear the names of its variables without ``OLLAMA_``, in lower case. Models of the rack are made known
to it (``ollama create``) from the GGUF files where they lie.
"""

from typing import Literal

from pydantic import Field

from labctl.inventory.fields import Bytes, Count, Duration, Flag, GpuRef, ModelId, RemotePath, Version, Whole
from labctl.inventory.services.program import Keyed


class Ollama(Keyed):
    """Ollama's server. It knows no keys, so it listens on loopback only."""

    kind: Literal["ollama"] = Field(default="ollama", description="Always ``ollama``.")
    models: tuple[ModelId, ...] = Field(default=(), description="Ids of models of this rack that it serves.")
    gpus: tuple[GpuRef, ...] = Field(
        default=(), description="GPUs it may use, by slot, UUID or PCI address; default: all of the host."
    )
    version: Version | None = Field(default=None, description="Which of the rack's `engines` it is from.")
    binary: RemotePath | None = Field(default=None, description="A program on the host instead of `version`.")
    context_length: Count | None = Field(default=None, description="Context in tokens of each request.")
    num_parallel: Count | None = Field(default=None, description="Requests at a time for each model.")
    max_loaded_models: Count | None = Field(default=None, description="Models in memory at a time.")
    max_queue: Whole | None = Field(default=None, description="Requests that may wait.")
    keep_alive: Duration | None = Field(default=None, description="How long an unused model stays loaded.")
    flash_attention: Flag | None = Field(default=None, description="Flash attention.")
    kv_cache_type: Literal["f16", "q8_0", "q4_0"] | None = Field(
        default=None, description="Type of the cache."
    )
    gpu_overhead: Bytes | None = Field(default=None, description="Bytes left free on each card.")
    sched_spread: Flag | None = Field(default=None, description="Always use all cards.")
    load_timeout: Duration | None = Field(default=None, description="How long loading may take.")
