"""The values that fit planning speaks in: shapes of models, devices, uses, and what comes out.

All sizes are whole bytes unless the name says otherwise; rates are bytes per second. A shape is what the
header of a model's files says; it knows nothing of hosts. A use is how an engine is told to run it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

MIB = 1024**2
GIB = 1024**3

Growth = Literal["full", "window", "recurrent", "none"]
SplitMode = Literal["none", "layer", "row", "tensor"]
EngineKind = Literal["llama.cpp", "vllm", "sglang", "tabbyapi", "ollama", "other"]


@dataclass(frozen=True, slots=True)
class Cache:
    """What one layer keeps for each sequence.

    ``full`` grows with the context, ``window`` up to ``window`` tokens, ``recurrent`` not at all: it keeps
    ``state_bytes``. ``k_width`` and ``v_width`` are elements per token: key-value heads times head size (for
    multi-head latent attention, the compressed width). ``inner_width`` is what a recurrent layer computes
    with, in elements per token; ``delta_width`` that of the values in a delta network (0: it is none).
    """

    growth: Growth
    k_width: int = 0
    v_width: int = 0
    window: int | None = None
    state_bytes: int = 0
    inner_width: int = 0
    delta_width: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """One block: bytes of all its tensors, of which ``expert_bytes`` are routed experts'."""

    weight_bytes: int
    expert_bytes: int
    cache: Cache


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the header of a model's files says.

    ``input_bytes`` is the token embedding, ``output_bytes`` the head and everything after the last block;
    with ``tied`` the head is the embedding again. ``experts_used`` of ``experts`` run for each token (0: no
    experts). ``largest_ff`` is the widest feed-forward activation, ``shared_ff`` that of experts which always
    run beside the routed ones. ``extra_bytes`` belongs to no block.
    """

    architecture: str
    layers: tuple[Layer, ...]
    input_bytes: int
    output_bytes: int
    vocabulary: int
    width: int
    heads: int
    head_size: int
    largest_ff: int
    trained_context: int
    tied: bool = False
    experts: int = 0
    experts_used: int = 0
    extra_bytes: int = 0
    file_bytes: int = 0
    shared_ff: int = 0

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of all tensors."""
        blocks = sum(layer.weight_bytes for layer in self.layers)
        return blocks + self.input_bytes + self.output_bytes + self.extra_bytes


@dataclass(frozen=True, slots=True)
class Device:
    """Memory that a model can be in. ``reserve_bytes`` is never given away (display, context, the system).

    ``shared`` names the pool that it is part of: devices of one pool share its bytes (unified memory).
    ``bandwidth`` is in bytes per second, 0 where nobody knows it.
    """

    name: str
    kind: Literal["gpu", "unified", "ram"]
    memory_bytes: int
    reserve_bytes: int
    bandwidth: int = 0
    shared: str = ""

    @property
    def usable_bytes(self) -> int:
        """Return what may be given away."""
        return max(0, self.memory_bytes - self.reserve_bytes)


@dataclass(frozen=True, slots=True)
class Use:
    """How an engine runs a model. ``context`` is tokens of one sequence, ``sequences`` how many run at once.

    With ``unified_cache`` there is one cache of ``context`` tokens, which all sequences share.
    ``gpu_layers`` None: as many as the model has. ``cpu_expert_layers``: blocks whose experts stay in main
    memory. ``memory_share``: of each card, for engines that take a share and fill it with cache.
    """

    engine: EngineKind
    context: int
    sequences: int = 1
    cache_k: str = "f16"
    cache_v: str = "f16"
    gpu_layers: int | None = None
    cpu_expert_layers: int = 0
    split: SplitMode = "layer"
    shares: tuple[float, ...] = ()
    main_gpu: int = 0
    flash_attention: bool = True
    batch: int = 2048
    micro_batch: int = 512
    full_window_cache: bool = False
    unified_cache: bool = False
    host_cache_bytes: int = 0
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    memory_share: float | None = None
    projector_bytes: int = 0
    projector_on_gpu: bool = True
    draft: ModelShape | None = None
    draft_gpu_layers: int | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """What a model takes of one device, in bytes."""

    device: str
    weights: int = 0
    cache: int = 0
    compute: int = 0
    projector: int = 0
    draft: int = 0
    overhead: int = 0

    @property
    def total(self) -> int:
        """Return all of it."""
        return self.weights + self.cache + self.compute + self.projector + self.draft + self.overhead


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one running model takes, device by device, and what it can do at best.

    ``ceiling_tok_s``: tokens per second that the memory's bandwidth allows for one sequence (None: unknown).
    ``load_s``: seconds that loading takes from the host's disk (None: rate unknown). ``notes`` are sentences.
    ``refused`` says why the engine would not start, however much memory is free ("": it would).
    """

    model: str
    shares: tuple[Share, ...]
    ceiling_tok_s: float | None = None
    load_s: float | None = None
    notes: tuple[str, ...] = ()
    refused: str = ""

    def on(self, device: str) -> int:
        """Return the bytes that it takes of a device."""
        return sum(share.total for share in self.shares if share.device == device)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a set of models fits a host's devices together; None: what would decide it is not known."""

    fits: bool | None
    because: str
    hint: str = ""
    used: dict[str, int] = field(default_factory=dict)
