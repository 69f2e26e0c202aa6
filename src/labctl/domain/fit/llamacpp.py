"""What a model takes under llama.cpp (and Ollama, which is built on it), device by device.

- Weights lie where ``split`` says; the embedding, blocks beyond ``gpu_layers`` and experts that were kept
  back lie in main memory. Where the head is the embedding again, the card that has the head has a copy.
- The cache lies beside its blocks.
- Every card that takes part has a compute buffer of its own, and main memory has one as well. Where whole
  blocks are dealt out to several cards, four batches are under way at once, and each card has its inputs
  four times over.
- Where matrices stay in main memory, long prompts are still computed on the card, which for that takes in one
  such matrix at a time.
- Each process has a context on every card that it sees, before anything is loaded.
- The projector lies on the first card. A draft model has weights, cache and buffers of its own, in the same
  context and for the same sequences.

Weights and cache are exact. Compute buffers are what ``graph`` says. The context of a process on a card and
the projector's buffer are what they usually come to (``CONTEXT``, ``PROJECTOR_WORK``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from labctl.domain.fit import ceiling, graph
from labctl.domain.fit.cache import layer_bytes, streams
from labctl.domain.fit.graph import PIPELINE_COPIES, Part
from labctl.domain.fit.split import HOST, Placement, cut, place
from labctl.domain.fit.terms import MIB, Device, Estimate, Layer, ModelShape, Share, Use

RAM = "main memory"
CONTEXT = 400 * MIB
"""What a process takes of a card for itself: its context, its programs and its library's workspace."""
PROJECTOR_WORK = 4
"""The projector computes in a buffer of about a quarter of its weights."""
_MATRICES = 3  # of a feed-forward part or an expert: gate, up and down
_FLOAT = 4


@dataclass(frozen=True, slots=True)
class _Taken:
    """Bytes on each card, by its number, and in main memory (HOST)."""

    weights: dict[int, int]
    cache: dict[int, int]
    compute: dict[int, int]

    def all(self, card: int) -> int:
        return sum(part.get(card, 0) for part in (self.weights, self.cache, self.compute))


def estimate(
    model: str, shape: ModelShape, use: Use, devices: Sequence[Device], disk_bytes_s: int | None
) -> Estimate:
    """Return what a model takes under llama.cpp."""
    cards = [device for device in devices if device.kind != "ram"]
    host = next((device.name for device in devices if device.kind == "ram"), RAM)
    placement = place(shape, use, cards)
    taken = _taken(shape, use, placement)
    drafted = _draft(use, cards)
    projector = {0 if cards and use.projector_on_gpu else HOST: use.projector_bytes}
    used = {
        HOST,
        *_opened(use, cards),
        *(drafted.weights if drafted else ()),
        *(projector if use.projector_bytes else ()),
    }
    shares = tuple(
        Share(
            device=host if card == HOST else cards[card].name,
            weights=taken.weights.get(card, 0),
            cache=taken.cache.get(card, 0),
            compute=taken.compute.get(card, 0),
            projector=projector.get(card, 0) + projector.get(card, 0) // PROJECTOR_WORK,
            draft=drafted.all(card) if drafted else 0,
            overhead=use.host_cache_bytes + _outputs(shape, use) if card == HOST else CONTEXT,
        )
        for card in sorted(used, key=lambda card: (card == HOST, card))
    )
    files = (shape.file_bytes or shape.weight_bytes) + use.projector_bytes
    files += (use.draft.file_bytes or use.draft.weight_bytes) if use.draft else 0
    return Estimate(
        model,
        shares,
        ceiling_tok_s=_ceiling(shape, use, placement, devices),
        load_s=ceiling.load_seconds(files, disk_bytes_s),
        notes=_notes(shape, use),
        refused=_refused(shape, use),
    )


def _opened(use: Use, cards: Sequence[Device]) -> Sequence[int]:
    """Return the cards that a process opens: all that it sees, or with ``none`` the main one alone."""
    if use.split == "none" and cards:
        return (min(use.main_gpu, len(cards) - 1),)
    return range(len(cards))


def _outputs(shape: ModelShape, use: Use) -> int:
    """Return the bytes in which results are handed over: the odds of every token, for each sequence."""
    return shape.vocabulary * max(1, use.sequences) * _FLOAT


def _draft(use: Use, cards: Sequence[Device]) -> _Taken | None:
    """Return what the draft model takes; it keeps its cache in its own type, f16."""
    if use.draft is None:
        return None
    own = replace(
        use, gpu_layers=use.draft_gpu_layers, cpu_expert_layers=0, cache_k="f16", cache_v="f16", draft=None
    )
    return _taken(use.draft, own, place(use.draft, own, cards))


def _taken(shape: ModelShape, use: Use, placement: Placement) -> _Taken:
    return _Taken(
        _weights(shape, placement), _caches(shape, use, placement), _computes(shape, use, placement)
    )


def _host_experts(placement: Placement, number: int, layer: Layer) -> int:
    return layer.expert_bytes if number < placement.host_experts else 0


def _spread(placement: Placement, card: int, size: int, into: dict[int, int], *, divided: bool) -> None:
    """Add bytes to one card, or divided among all."""
    if card == HOST or not divided:
        into[card] = into.get(card, 0) + size
        return
    for number, piece in enumerate(cut(size, placement.fractions)):
        if piece:
            into[number] = into.get(number, 0) + piece


def _weights(shape: ModelShape, placement: Placement) -> dict[int, int]:
    found = {HOST: shape.input_bytes + shape.extra_bytes}
    for number, (layer, card) in enumerate(zip(shape.layers, placement.blocks, strict=True)):
        kept = _host_experts(placement, number, layer)
        found[HOST] += kept
        _spread(placement, card, layer.weight_bytes - kept, found, divided=placement.divided)
    head = shape.output_bytes if placement.head == HOST else ceiling.head_bytes(shape)
    _spread(placement, placement.head, head, found, divided=placement.divided)
    return found


def _caches(shape: ModelShape, use: Use, placement: Placement) -> dict[int, int]:
    widest = max((layer.cache.v_width for layer in shape.layers), default=0)
    found: dict[int, int] = {}
    for layer, card in zip(shape.layers, placement.blocks, strict=True):
        size = layer_bytes(layer.cache, use, widest_v=widest)
        _spread(placement, card, size, found, divided=placement.divided_cache)
    return found


def _computes(shape: ModelShape, use: Use, placement: Placement) -> dict[int, int]:
    cards = placement.cards()
    everything = all(card != HOST for card in (*placement.blocks, placement.head))
    piped = len(cards) > 1 and everything and use.split == "layer" and not placement.host_experts
    copies = PIPELINE_COPIES if piped else 1
    found = {}
    if placement.fractions and not cards:  # long prompts are computed on a card all the same
        first = next(card for card, part in enumerate(placement.fractions) if part > 0)
        found[first] = _visiting(shape, use, placement)
    for card in cards:
        own = [
            layer
            for layer, at in zip(shape.layers, placement.blocks, strict=True)
            if at == card or (placement.divided and at != HOST)
        ]
        heads = placement.head == card or (placement.divided and placement.head != HOST)
        part = Part(own, embeds=False, heads=heads, copies=copies)
        found[card] = graph.compute_bytes(shape, use, part) + _visiting(shape, use, placement)
    own = [layer for layer, at in zip(shape.layers, placement.blocks, strict=True) if at == HOST]
    found[HOST] = graph.compute_bytes(shape, use, Part(own, embeds=True, heads=placement.head == HOST))
    if cards:  # it hands the masks to the cards, whichever blocks it has itself
        widest = Part(shape.layers[:0], embeds=True, heads=False)
        masks = graph.mask_bytes(shape, use)
        found[HOST] = max(found[HOST], graph.compute_bytes(shape, use, widest) + masks)
    return found


def _visiting(shape: ModelShape, use: Use, placement: Placement) -> int:
    """Return the bytes for the largest matrix that a card takes in from main memory for long prompts."""
    largest = 0
    for number, (layer, card) in enumerate(zip(shape.layers, placement.blocks, strict=True)):
        experts = _host_experts(placement, number, layer) if card != HOST else layer.expert_bytes
        dense = layer.weight_bytes - layer.expert_bytes if card == HOST else 0
        largest = max(largest, experts // _MATRICES, dense // _MATRICES)
    return largest


def _ceiling(shape: ModelShape, use: Use, placement: Placement, devices: Sequence[Device]) -> float | None:
    cards = [device for device in devices if device.kind != "ram"]
    read: dict[int, int] = {}
    for number, (layer, card) in enumerate(zip(shape.layers, placement.blocks, strict=True)):
        kept = ceiling.active_experts(shape, layer) if number < placement.host_experts else 0
        read[HOST] = read.get(HOST, 0) + kept
        active = ceiling.active_bytes(shape, layer) - kept
        _spread(placement, card, active, read, divided=placement.divided)
    _spread(placement, placement.head, ceiling.head_bytes(shape), read, divided=placement.divided)
    names = {HOST: RAM, **{number: card.name for number, card in enumerate(cards)}}
    bandwidths = {device.name if device.kind != "ram" else RAM: device.bandwidth for device in devices}
    together = frozenset(card.name for card in cards) if placement.divided else frozenset[str]()
    by_name = {names[card]: size for card, size in read.items()}
    return ceiling.tokens_per_second(by_name, bandwidths, together=together)


def _refused(shape: ModelShape, use: Use) -> str:
    if use.cache_v not in ("f32", "f16", "bf16") and not use.flash_attention and _has_cache(shape):
        return f"llama.cpp keeps values as {use.cache_v} only with flash attention"
    return ""


def _has_cache(shape: ModelShape) -> bool:
    return any(layer.cache.growth in ("full", "window") for layer in shape.layers)


def _notes(shape: ModelShape, use: Use) -> tuple[str, ...]:
    notes = []
    if shape.trained_context and use.context > shape.trained_context:
        notes.append(
            f"a context of {use.context} tokens is more than the {shape.trained_context} that the model"
            " was trained with"
        )
    if use.unified_cache and use.sequences > 1 and streams(use) == 1 and _has_cache(shape):
        notes.append(f"{use.sequences} requests at a time share one cache of {use.context} tokens")
    return tuple(notes)
