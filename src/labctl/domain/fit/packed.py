"""What a model takes under TabbyAPI and under engines that labctl knows nothing of.

TabbyAPI (ExLlamaV3) loads whole blocks onto the first card until it is full, then onto the next, or as many
GiB on each card as it is told; with tensor parallelism every matrix is divided by these shares. Its cache has
a fixed number of tokens, for all requests together, and lies beside the blocks. The embedding stays in main
memory.

Of another engine only this is known: weights, and a cache of its type for every sequence. It is counted as if
it were dealt out in the same way.

Weights and cache are exact; what is computed with is an estimate (``paged`` has the parts).
"""

from __future__ import annotations

from collections.abc import Sequence

from labctl.domain.fit import ceiling
from labctl.domain.fit.cache import bytes_of, paged_bytes, rounded
from labctl.domain.fit.llamacpp import RAM
from labctl.domain.fit.paged import RUNTIME
from labctl.domain.fit.split import cut
from labctl.domain.fit.terms import GIB, Device, Estimate, Layer, ModelShape, Share, Use

_EXL_PAGE = 256
_HALF = 2


def estimate(
    model: str, shape: ModelShape, use: Use, devices: Sequence[Device], disk_bytes_s: int | None
) -> Estimate:
    """Return what a model takes where blocks and a cache of fixed size are packed onto cards."""
    cards = [device for device in devices if device.kind != "ram"]
    host = next((device.name for device in devices if device.kind == "ram"), RAM)
    pieces = [(layer.weight_bytes, _cache(layer, use)) for layer in shape.layers]
    pieces.append((ceiling.head_bytes(shape), 0))
    work = _work(shape, use)
    if not cards:
        weights = shape.weight_bytes
        shares = [Share(host, weights=weights, cache=sum(cache for _, cache in pieces), compute=work)]
    else:
        shares = _on_cards(pieces, use, cards, work)
        shares[0] = _with_draft(shares[0], use)
        shares.append(Share(host, weights=shape.input_bytes + shape.extra_bytes))
    files = shape.file_bytes or shape.weight_bytes
    files += (use.draft.file_bytes or use.draft.weight_bytes) if use.draft else 0
    needs = use.engine == "tabbyapi" and not cards
    return Estimate(
        model,
        tuple(shares),
        ceiling_tok_s=_ceiling(shape, use, cards, shares) if cards else None,
        load_s=ceiling.load_seconds(files, disk_bytes_s),
        notes=() if use.engine == "tabbyapi" else ("labctl does not know this engine's buffers",),
        refused="tabbyapi needs a graphics card" if needs else "",
    )


def _cache(layer: Layer, use: Use) -> int:
    if use.engine != "tabbyapi":
        return paged_bytes(layer.cache, use) * max(1, use.sequences)
    tokens = rounded(use.context, _EXL_PAGE) if layer.cache.growth in ("full", "window") else 0
    tokens *= max(1, use.sequences)  # more than one only where a person asks about so many
    keys = bytes_of(layer.cache.k_width * tokens, use.cache_k)
    values = bytes_of(layer.cache.v_width * tokens, use.cache_v)
    return keys + values + layer.cache.state_bytes * max(1, use.sequences)


def _work(shape: ModelShape, use: Use) -> int:
    widest = max(3 * shape.largest_ff, 3 * shape.heads * shape.head_size)
    return use.micro_batch * (3 * shape.width + widest) * _HALF + shape.vocabulary * use.sequences * 4


def _on_cards(pieces: Sequence[tuple[int, int]], use: Use, cards: Sequence[Device], work: int) -> list[Share]:
    """Deal blocks out: divided by shares, or each to the first card that still has room."""
    weights, caches = [0] * len(cards), [0] * len(cards)
    if use.tensor_parallel > 1 or use.split in ("row", "tensor"):
        total = [float(share) for share in use.shares] or [1.0] * len(cards)
        total = (total + [0.0] * len(cards))[: len(cards)]
        fractions = tuple(share / (sum(total) or 1.0) for share in total)
        if not sum(total):
            fractions = (1.0, *[0.0] * (len(cards) - 1))
        weights = list(cut(sum(size for size, _ in pieces), fractions))
        caches = list(cut(sum(cache for _, cache in pieces), fractions))
    else:
        room = [_room(use, card, number, work) for number, card in enumerate(cards)]
        at = 0
        for size, cache in pieces:
            while at < len(cards) - 1 and weights[at] + caches[at] + size + cache > room[at]:
                at += 1
            weights[at] += size
            caches[at] += cache
    return [
        Share(card.name, weights=weights[number], cache=caches[number], compute=work, overhead=RUNTIME)
        for number, card in enumerate(cards)
        if number == 0 or weights[number] + caches[number]
    ]


def _room(use: Use, card: Device, number: int, work: int) -> int:
    if number < len(use.shares):
        return int(use.shares[number] * GIB)
    return card.usable_bytes - work - RUNTIME


def _with_draft(share: Share, use: Use) -> Share:
    if use.draft is None:
        return share
    size = use.draft.weight_bytes + sum(_cache(layer, use) for layer in use.draft.layers)
    return Share(
        share.device, share.weights, share.cache, share.compute, share.projector, size, share.overhead
    )


def _ceiling(shape: ModelShape, use: Use, cards: Sequence[Device], shares: Sequence[Share]) -> float | None:
    everything = sum(layer.weight_bytes for layer in shape.layers) + ceiling.head_bytes(shape)
    active = sum(ceiling.active_bytes(shape, layer) for layer in shape.layers) + ceiling.head_bytes(shape)
    names = {card.name for card in cards}
    read = {
        share.device: share.weights * active // max(1, everything)
        for share in shares
        if share.device in names
    }
    divided = use.tensor_parallel > 1 or use.split in ("row", "tensor")
    return ceiling.tokens_per_second(
        read,
        {card.name: card.bandwidth for card in cards},
        together=frozenset(names) if divided else frozenset(),
    )
