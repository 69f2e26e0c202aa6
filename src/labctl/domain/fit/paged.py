"""What a model takes under vLLM and SGLang, which take a share of each card and fill it with cache.

Each card holds its part of the weights: blocks are dealt out to ``pipeline_parallel`` stages, and every
matrix of a stage is divided among ``tensor_parallel`` cards. vLLM's share holds all that it takes; SGLang's
holds weights and cache, and what it computes with comes on top. Whatever is left of the share becomes cache,
so such a model fits its card or does not start: it refuses unless the cache holds one request of full length
(``refused`` says so, however much memory is free). Where a person asks about several at a time
(``sequences``), the cache has to hold them all.

Weights and cache are exact for what the files say. What is computed with is an estimate: a batch's
activations at 2 bytes, the odds of all tokens for every request at 4, and per card a fixed part for CUDA,
its graphs and, with several cards, the buffers they talk through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labctl.domain.fit import ceiling
from labctl.domain.fit.cache import paged_bytes
from labctl.domain.fit.terms import GIB, MIB, Device, Estimate, Layer, ModelShape, Share, Use

SHARES = {"vllm": 0.9, "sglang": 0.88}
"""What the engines take of each card of their own accord."""
RUNTIME = 1024 * MIB
"""What a process of PyTorch takes of a card besides weights and activations: CUDA, kernels and graphs."""
TALKING = 512 * MIB
"""What it takes more where several cards talk to each other (NCCL)."""
_HALF = 2
_FLOAT = 4


@dataclass(frozen=True, slots=True)
class _Rank:
    """What one card needs, in bytes: ``least`` is the cache of all requests of full length."""

    weights: int
    compute: int
    least: int
    overhead: int
    projector: int
    draft: int

    @property
    def fixed(self) -> int:
        return self.weights + self.projector + self.draft


def estimate(
    model: str, shape: ModelShape, use: Use, devices: Sequence[Device], disk_bytes_s: int | None
) -> Estimate:
    """Return what a model takes under an engine that fills a share of each card."""
    cards = [device for device in devices if device.kind != "ram"]
    wanted = max(1, use.tensor_parallel) * max(1, use.pipeline_parallel)
    used = cards[:wanted]
    share = use.memory_share if use.memory_share is not None else SHARES.get(use.engine, 0.9)
    notes = []
    if len(used) < wanted:
        notes.append(f"it runs on {wanted} cards, of which {len(used)} are looked at here")
    refused = "" if cards else f"{use.engine} needs a graphics card"
    shares = []
    for number, card in enumerate(used):
        rank = _rank(shape, use, number // max(1, use.tensor_parallel))
        taken, why = _fill(card, rank, use, share)
        shares.append(taken)
        refused = refused or why
    host = next((device.name for device in devices if device.kind == "ram"), None)
    if host is not None and use.host_cache_bytes:
        shares.append(Share(host, overhead=use.host_cache_bytes))
    files = (shape.file_bytes or shape.weight_bytes) + use.projector_bytes
    files += (use.draft.file_bytes or use.draft.weight_bytes) if use.draft else 0
    return Estimate(
        model,
        tuple(shares),
        ceiling_tok_s=_ceiling(shape, use, used) if len(used) == wanted else None,
        load_s=ceiling.load_seconds(files, disk_bytes_s),
        notes=tuple(notes),
        refused=refused,
    )


def _stage(shape: ModelShape, use: Use, stage: int) -> Sequence[Layer]:
    """Return the blocks of a stage; the first stages have one more where it does not come out even."""
    stages = max(1, use.pipeline_parallel)
    size, more = divmod(len(shape.layers), stages)
    first = stage * size + min(stage, more)
    return shape.layers[first : first + size + (stage < more)]


def _ends(shape: ModelShape, use: Use, stage: int) -> int:
    """Return the bytes of embedding and head that lie on a stage."""
    last = stage == max(1, use.pipeline_parallel) - 1
    size = shape.output_bytes + shape.extra_bytes if last else 0
    return size + (shape.input_bytes if stage == 0 or (last and shape.tied) else 0)


def _rank(shape: ModelShape, use: Use, stage: int) -> _Rank:
    parts = max(1, use.tensor_parallel)
    layers = _stage(shape, use, stage)
    weights = sum(layer.weight_bytes for layer in layers) + _ends(shape, use, stage)
    last = stage == max(1, use.pipeline_parallel) - 1
    draft = 0
    if use.draft is not None and last:
        draft = -(-use.draft.weight_bytes // parts) + _cache(use.draft.layers, use, parts)
    return _Rank(
        weights=-(-weights // parts),
        compute=_activations(shape, use, heads=last),
        least=_cache(layers, use, parts),
        overhead=RUNTIME + (TALKING if parts * use.pipeline_parallel > 1 else 0),
        projector=use.projector_bytes if stage == 0 else 0,
        draft=draft,
    )


def _cache(layers: Sequence[Layer], use: Use, parts: int) -> int:
    """Return the bytes of the cache of all requests at a time, on one of ``parts`` cards."""
    return sum(paged_bytes(layer.cache, use, parts=parts) for layer in layers) * max(1, use.sequences)


def _activations(shape: ModelShape, use: Use, *, heads: bool) -> int:
    """Return the bytes of a batch's activations: residual, norm, gate, up and their product."""
    parts = max(1, use.tensor_parallel)
    queries = shape.heads * shape.head_size
    widest = max(3 * shape.largest_ff, 2 * queries + 2 * shape.width)
    numbers = 3 * shape.width + -(-widest // parts)
    odds = shape.vocabulary * max(1, use.sequences) * _FLOAT if heads else 0
    return use.batch * numbers * _HALF + odds


def _fill(card: Device, rank: _Rank, use: Use, share: float) -> tuple[Share, str]:
    """Return what is taken of a card, and why the engine would refuse ("": it would not)."""
    budget = int(card.memory_bytes * share)
    inside = rank.fixed if use.engine == "sglang" else rank.fixed + rank.compute + rank.overhead
    left = budget - inside
    known = card.memory_bytes > 0
    why = ""
    if known and left < rank.least:
        some = "one request" if use.sequences <= 1 else f"{use.sequences} requests at a time, each"
        why = (
            f"{use.engine}'s share of {card.name} ({share:g}) is {budget / GIB:.1f} GiB, and"
            f" {(inside + rank.least) / GIB:.1f} GiB are needed for {some} of {use.context} tokens"
        )
    taken = Share(
        card.name,
        weights=rank.weights,
        cache=max(left, rank.least) if known else rank.least,
        compute=rank.compute,
        projector=rank.projector,
        draft=rank.draft,
        overhead=rank.overhead,
    )
    return taken, why


def _ceiling(shape: ModelShape, use: Use, used: Sequence[Device]) -> float | None:
    """Stages work one after another; the cards of a stage at the same time."""
    parts = max(1, use.tensor_parallel)
    total = 0.0
    for stage in range(max(1, use.pipeline_parallel)):
        active = sum(ceiling.active_bytes(shape, layer) for layer in _stage(shape, use, stage))
        if stage == max(1, use.pipeline_parallel) - 1:
            active += ceiling.head_bytes(shape)
        cards = used[stage * parts : (stage + 1) * parts]
        rate = ceiling.tokens_per_second(
            {card.name: -(-active // parts) for card in cards},
            {card.name: card.bandwidth for card in cards},
            together=frozenset(card.name for card in cards),
        )
        if rate is None:
            return None
        total += 1 / rate
    return 1 / total if total else None
