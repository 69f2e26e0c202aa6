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
from labctl.domain.fit.cache import bytes_of, cells, physical_batch, rounded, streams
from labctl.domain.fit.terms import Cache, Layer, ModelShape, Use

_FLOAT = 4
_INDEX = 8
_KERNEL_KEEPS = 3  # tokens that the convolution of every delta network so far looks back
_REPEATS = 4  # after so many equal blocks the buffer grows no more
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
    for name, size in sorted(_masks(part.layers, use, tokens).items()):
        graph.feed(name, size, part.copies)
        if not use.flash_attention:  # transposed values are stored one by one, each with its place
            graph.feed(f"places of {name}", tokens * widest_v * _INDEX, part.copies)
    state = _embed(graph) if part.embeds else _receive(graph, part.copies)
    blocks = _telling(part.layers)
    for number, layer in enumerate(blocks):
        graph.block = number + 1
        last = part.heads and number == len(blocks) - 1
        state = _mix(graph, layer, state, narrow=last)
        state = _feed_forward(graph, layer, state)
    if part.heads:
        graph.tokens = max(1, use.sequences)
        norm = graph.add("norm", shape.width, state)
        graph.add("logits", shape.vocabulary, norm)
    return arena.peak(graph.inputs, graph.steps)


def _telling(layers: Sequence[Layer]) -> list[Layer]:
    """Return the blocks that can make a difference: places repeat after the first few of a kind."""
    seen: dict[tuple[Cache, bool], int] = {}
    found = []
    for number, layer in enumerate(layers):
        kind = (layer.cache, layer.expert_bytes > 0)
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= _REPEATS or number == len(layers) - 1:
            found.append(layer)
    return found


def mask_bytes(shape: ModelShape, use: Use) -> int:
    """Return the bytes of the masks of all layers."""
    tokens = rounded(physical_batch(use), max(1, use.sequences))
    return sum(_masks(shape.layers, use, tokens).values())


def _masks(layers: Sequence[Layer], use: Use, tokens: int) -> dict[str, int]:
    """Return the bytes of each mask: one for all layers that look at everything, one for windows."""
    element = 2 if use.flash_attention else 4
    kinds = {layer.cache.growth: cells(layer.cache, use) for layer in layers}
    return {f"mask {kind}": held * tokens * element for kind, held in kinds.items() if held}


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
    attends, recurs = layer.cache.growth in ("full", "window"), layer.cache.inner_width > 0
    if not attends and not recurs:
        return state
    norm = graph.add("mix norm", width, state)
    outs = [_attend(graph, layer, norm)] if attends else []
    if recurs:
        outs.append(_recur(graph, layer, norm))
    out = outs[0] if len(outs) == 1 else graph.add("joined", width, *outs, over=outs[0])
    if narrow:  # only the last token of each sequence goes on
        graph.tokens = max(1, graph.use.sequences)
        out, state = graph.add("last out", width, out), graph.add("last in", width, state)
    return graph.add("mixed sum", width, out, state, over=out)


def _attend(graph: _Graph, layer: Layer, norm: str) -> str:
    if layer.cache.v_width == 0:
        return _attend_compressed(graph, layer, norm)
    shape, use, cache = graph.shape, graph.use, layer.cache
    queries = shape.heads * shape.head_size
    gated = any(one.cache.delta_width for one in shape.layers)  # they come with gates on their attention
    both = graph.add("q and gate", 2 * queries, norm) if gated else norm
    q = graph.add("q", queries, both)
    v = graph.add("v", cache.v_width, norm)
    k = graph.add("k", cache.k_width, norm)
    graph.add_bytes("store k", 0, k)
    graph.add_bytes("store v", 0, v)
    everything = cells(cache, use) * streams(use)
    kinds = ((use.cache_k, cache.k_width), (use.cache_v, cache.v_width))
    casts = [everything * wide * 2 for kind, wide in kinds if kind == "f32" and use.flash_attention]
    mixed = _weigh(graph, layer, q, queries, casts)
    if gated:
        gate = graph.add("gate", queries, both)
        mixed = graph.add("gated", queries, mixed, gate, over=mixed)
    return graph.add("attention", shape.width, mixed)


def _attend_compressed(graph: _Graph, layer: Layer, norm: str) -> str:
    """Queries are made as wide as what is kept, which serves as keys and as values."""
    shape, use, kept = graph.shape, graph.use, layer.cache.k_width
    narrow = graph.add("q", shape.heads * shape.head_size, norm)
    wide = graph.add("q absorbed", shape.heads * kept, narrow)
    one = graph.add("kept", kept, norm)
    key = graph.add("k", kept, one)
    q = graph.add("q joined", shape.heads * kept, wide, narrow)
    graph.add_bytes("store k", 0, key)
    everything = cells(layer.cache, use) * streams(use)
    copies = [everything * kept * 2] if use.cache_k == "f32" else []
    if not use.flash_attention:
        copies = [bytes_of(everything * kept, use.cache_k)]  # values lie transposed
    mixed = _weigh(graph, layer, q, shape.heads * kept, copies)
    expanded = graph.add("expanded", shape.heads * shape.head_size, mixed)
    return graph.add("attention", shape.width, expanded)


def _weigh(graph: _Graph, layer: Layer, q: str, queries: int, copies: Sequence[int]) -> str:
    """Weigh values by how keys answer queries: in one step, or by way of all scores."""
    mask = f"mask {layer.cache.growth}"
    if graph.use.flash_attention:
        casts = [graph.add_bytes(f"cast {number}", size) for number, size in enumerate(copies)]
        return graph.add("attended", queries, q, mask, *casts)
    size = graph.shape.heads * cells(layer.cache, graph.use) * graph.tokens * _FLOAT
    scores = graph.add_bytes("scores", size, q)
    weighed = graph.add_bytes("weighed", size, scores, mask, over=scores)
    turned = [graph.add_bytes(f"turned {number}", size) for number, size in enumerate(copies)]
    raw = graph.add("values", queries, weighed, *turned)
    return graph.add("attended", queries, raw)


def _recur(graph: _Graph, layer: Layer, norm: str) -> str:
    if layer.cache.delta_width:
        return _recur_delta(graph, layer, norm)
    inner = layer.cache.inner_width
    state = layer.cache.state_bytes * max(1, graph.use.sequences)
    both = graph.add("inner", 2 * inner, norm)
    kept = graph.add("window", inner, both)
    convolved = graph.add("convolved", inner, kept)
    steps = graph.add("time steps", inner, convolved)
    scanned = graph.add_bytes("scanned", graph.tokens * inner * _FLOAT + state, convolved, steps)
    others = graph.add_bytes("others' states", state - layer.cache.state_bytes)
    graph.add_bytes("store others'", 0, others)
    gate = graph.add("gate", inner, both)
    skipped = graph.add("skipped", inner, convolved)
    joined = graph.add("scan sum", inner, scanned, skipped, over=skipped)
    gated = graph.add("gated", inner, gate, joined)
    return graph.add("recurrent", graph.shape.width, gated)


def _recur_delta(graph: _Graph, layer: Layer, norm: str) -> str:
    """Queries, keys and values go through one convolution; a copy of the state is worked on."""
    inner, values = layer.cache.inner_width, layer.cache.delta_width
    convolution = _KERNEL_KEEPS * inner * _FLOAT
    state = max(0, layer.cache.state_bytes - convolution) * max(1, graph.use.sequences)
    keys = max(0, inner - values) // 2
    qkv = graph.add("qkv", inner, norm)
    kept = graph.add("window", inner, qkv)
    copy = graph.add_bytes("state", state)
    convolved = graph.add("convolved", inner, kept)
    spread = []
    for name in ("q", "k"):
        one = graph.add(f"{name} norm", keys, convolved)
        spread.append(graph.add(f"{name} spread", values, one))
    size = graph.tokens * values * _FLOAT + state
    scanned = graph.add_bytes("scanned", size, *spread, convolved, copy)
    even = graph.add("even", values, scanned)
    gate = graph.add("gate", values, norm)
    gated = graph.add("gated", values, even, gate, over=even)
    return graph.add("recurrent", graph.shape.width, gated)


def _feed_forward(graph: _Graph, layer: Layer, state: str) -> str:
    shape = graph.shape
    if not shape.largest_ff:
        return state
    norm = graph.add("ff norm", shape.width, state)
    if layer.expert_bytes and shape.experts_used:
        out = _experts(graph, norm)
        if shape.shared_ff:
            shared = _gated(graph, norm, shape.shared_ff)
            out = graph.add("experts sum", shape.width, out, shared, over=out)
    else:
        out = _gated(graph, norm, shape.largest_ff)
    return graph.add("out", shape.width, out, state, over=out)


def _gated(graph: _Graph, norm: str, wide: int) -> str:
    gate = graph.add("ff gate", wide, norm)
    up = graph.add("ff up", wide, norm)
    both = graph.add("ff act", wide, gate, up)
    return graph.add("ff down", graph.shape.width, both)


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
