"""The buffer in which llama.cpp computes: the steps of its graph with their sizes, laid out as it does.

One physical batch of tokens goes through every block. A step's result is tokens x width x 4 bytes; what else
weighs is the mask (tokens x cached tokens x 2 bytes, twice that without flash attention), and without flash
attention the scores (heads x tokens x cached tokens x 4 bytes). Only the last token of each sequence reaches
the head, so the vocabulary hardly counts (in releases before the middle of 2026 every token of the batch
does: vocabulary x batch x 4 bytes more).

The steps are those of ordinary attention, gated feed-forward parts, mixtures of experts and state-space
layers: for these the result is what llama-server reports, within some per cent. Other recurrent layers are
taken for state-space layers of the same inner width, and compressed attention for attention with wide heads:
an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from labctl.domain.fit import arena
from labctl.domain.fit.arena import Step
from labctl.domain.fit.cache import cells, physical_batch, rounded, streams
from labctl.domain.fit.terms import Layer, ModelShape, Use

_FLOAT = 4
_INDEX = 8
PIPELINE_COPIES = 4
"""How many batches are under way at once where layers are dealt out to several GPUs."""


@dataclass(frozen=True, slots=True)
class Part:
    """What of a model one device computes.

    ``embeds``: it looks the tokens up; ``heads``: it has the head. ``copies``: how often it has its inputs.
    """

    layers: Sequence[Layer]
    embeds: bool = True
    heads: bool = True
    copies: int = 1


@dataclass(slots=True)
class _Graph:
    shape: ModelShape
    use: Use
    tokens: int
    inputs: list[Step] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    block: int = 0

    def feed(self, name: str, size: int, copies: int = 1) -> None:
        self.inputs += [Step(f"{name}~{copy}" if copy else name, size) for copy in range(copies)]

    def add(self, name: str, width: int, *reads: str, over: str = "") -> str:
        """Add a step of ``width`` numbers a token, and return its name."""
        return self.add_bytes(name, self.tokens * width * _FLOAT, *reads, over=over)

    def add_bytes(self, name: str, size: int, *reads: str, over: str = "") -> str:
        """Add a step of that many bytes, and return its name."""
        unique = f"{name}-{self.block}"
        self.steps.append(Step(unique, size, reads, over))
        return unique


def compute_bytes(shape: ModelShape, use: Use, part: Part) -> int:
    """Return the bytes of the compute buffer of one device."""
    tokens = rounded(physical_batch(use), max(1, use.sequences))
    graph = _Graph(shape, use, tokens)
    widest_v = max((layer.cache.v_width for layer in part.layers), default=0)
    for held in sorted({cells(layer.cache, use) for layer in part.layers} - {0}):
        graph.feed(f"mask{held}", held * tokens * (2 if use.flash_attention else 4), part.copies)
        if not use.flash_attention:  # transposed values are stored one by one, each with its place
            graph.feed(f"places{held}", tokens * widest_v * _INDEX, part.copies)
    state = _embed(graph) if part.embeds else _receive(graph, part.copies)
    for number, layer in enumerate(part.layers):
        graph.block = number + 1
        last = part.heads and number == len(part.layers) - 1
        state = _mix(graph, layer, state, narrow=last)
        state = _feed_forward(graph, layer, state)
    if part.heads:
        graph.tokens = max(1, use.sequences)
        norm = graph.add("norm", shape.width, state)
        graph.add("logits", shape.vocabulary, norm)
    return arena.peak(graph.inputs, graph.steps)


def mask_bytes(shape: ModelShape, use: Use) -> int:
    """Return the bytes of the masks of all layers, one for each size of cache."""
    tokens = rounded(physical_batch(use), max(1, use.sequences))
    sizes = {cells(layer.cache, use) for layer in shape.layers}
    return sum(sizes) * tokens * (2 if use.flash_attention else 4)


def _embed(graph: _Graph) -> str:
    """Look tokens up; the ways in for images and for both are laid out as well, whether used or not."""
    width, tokens = graph.shape.width, graph.tokens
    graph.feed("tokens", tokens * 4)
    graph.feed("mixed tokens", tokens * 4)
    graph.feed("mixed", tokens * width * _FLOAT)
    graph.feed("embeddings", tokens * width * _FLOAT)
    graph.feed("places", tokens * (2 * _INDEX + 4))
    found = graph.add("rows", width, "tokens")
    rows = graph.add("mixed rows", width, "mixed tokens")
    graph.add("copy", width, "mixed")
    graph.add_bytes("join", 0, rows)
    return found


def _receive(graph: _Graph, copies: int) -> str:
    """Get what the device before has computed."""
    graph.feed("received", graph.tokens * graph.shape.width * _FLOAT, copies)
    graph.feed("places", graph.tokens * (2 * _INDEX + 4), copies)
    return "received"


def _mix(graph: _Graph, layer: Layer, state: str, *, narrow: bool) -> str:
    """Add attention, a recurrent layer, or both side by side; return what the feed-forward part gets."""
    width = graph.shape.width
    outs = []
    norm = graph.add("mix norm", width, state)
    if layer.cache.growth in ("full", "window"):
        outs.append(_attend(graph, layer, norm))
    if layer.cache.inner_width:
        outs.append(_recur(graph, layer, norm))
    if not outs:
        return state
    out = outs[0] if len(outs) == 1 else graph.add("joined", width, *outs, over=outs[0])
    if narrow:  # only the last token of each sequence goes on
        graph.tokens = max(1, graph.use.sequences)
        out, state = graph.add("last out", width, out), graph.add("last in", width, state)
    return graph.add("mixed sum", width, out, state, over=out)


def _attend(graph: _Graph, layer: Layer, norm: str) -> str:
    shape, use, cache = graph.shape, graph.use, layer.cache
    compressed = cache.v_width == 0
    queries = shape.heads * (cache.k_width if compressed else shape.head_size)
    held = cells(cache, use)
    mask = f"mask{held}"
    q = graph.add("q", queries, norm)
    v = graph.add("v", cache.v_width, norm)
    k = graph.add("k", cache.k_width, norm)
    graph.add_bytes("store k", 0, k)
    graph.add_bytes("store v", 0, v)
    everything = held * streams(use)
    if use.flash_attention:
        kinds = ((use.cache_k, cache.k_width), (use.cache_v, cache.v_width))
        casts = [
            graph.add_bytes(f"cast {number}", everything * wide * 2)
            for number, (kind, wide) in enumerate(kinds)
            if kind == "f32"
        ]
        mixed = graph.add("attended", queries, q, mask, *casts)
    else:
        scores = graph.add_bytes("scores", shape.heads * held * graph.tokens * _FLOAT, q)
        weighed = graph.add_bytes(
            "weighed", shape.heads * held * graph.tokens * _FLOAT, scores, mask, over=scores
        )
        raw = graph.add("values", queries, weighed)
        mixed = graph.add("attended", queries, raw)
    if compressed:
        mixed = graph.add("expanded", shape.heads * shape.head_size, mixed)
    return graph.add("attention", shape.width, mixed)


def _recur(graph: _Graph, layer: Layer, norm: str) -> str:
    inner = layer.cache.inner_width
    state = layer.cache.state_bytes * max(1, graph.use.sequences)
    both = graph.add("inner", 2 * inner, norm)
    kept = graph.add("window", inner, both)
    convolved = graph.add("convolved", inner, kept)
    steps = graph.add("time steps", inner, convolved)
    scanned = graph.add_bytes("scanned", graph.tokens * inner * _FLOAT + state, convolved, steps)
    gate = graph.add("gate", inner, both)
    skipped = graph.add("skipped", inner, convolved)
    joined = graph.add("scan sum", inner, scanned, skipped, over=skipped)
    gated = graph.add("gated", inner, gate, joined)
    return graph.add("recurrent", graph.shape.width, gated)


def _feed_forward(graph: _Graph, layer: Layer, state: str) -> str:
    shape = graph.shape
    if not shape.largest_ff:
        return state
    norm = graph.add("ff norm", shape.width, state)
    if layer.expert_bytes and shape.experts_used:
        out = _experts(graph, norm)
    else:
        gate = graph.add("ff gate", shape.largest_ff, norm)
        up = graph.add("ff up", shape.largest_ff, norm)
        both = graph.add("ff act", shape.largest_ff, gate, up)
        out = graph.add("ff down", shape.width, both)
    return graph.add("out", shape.width, out, state, over=out)


def _experts(graph: _Graph, norm: str) -> str:
    shape, used = graph.shape, graph.shape.experts_used
    wide = shape.largest_ff
    logits = graph.add("route", shape.experts, norm)
    odds = graph.add("odds", shape.experts, logits, over=logits)
    order = graph.add("order", shape.experts, odds)
    weights = graph.add("weights", used, odds, order)
    up = graph.add("experts up", wide, norm, order)
    gate = graph.add("experts gate", wide, norm, order)
    act = graph.add("experts act", wide, gate, up)
    down = graph.add("experts down", used * shape.width, act, order)
    weighed = graph.add("experts weighed", used * shape.width, down, weights, over=down)
    total = graph.add("experts 1", shape.width, weighed, weighed)
    for number in range(2, used):
        total = graph.add(f"experts {number}", shape.width, total, weighed, over=total)
    return total
