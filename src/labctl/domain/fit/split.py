"""Which device holds which part of a model, as llama.cpp deals it out.

Blocks are numbered from 0; the head (with everything after the last block) counts as one more. The embedding
stays in main memory. Of L blocks and the head, the last ``gpu_layers`` go to the cards.

- ``layer``: whole blocks, in order, to the cards in order. The shares are added up and made to end at 1; a
  block goes to the first card whose sum is above its own place. Without shares, each card's free memory is
  its share. A block's cache lies where the block lies.
- ``none``: everything on the main card.
- ``row``: matrices are divided among the cards by their shares; a block's cache lies on the card that
  ``layer`` would give it. ``tensor``: the cache is divided as well.

Experts that stay in main memory are taken away from their block, wherever that lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labctl.domain.fit.terms import Device, ModelShape, Use

HOST = -1
"""Stands for main memory where otherwise the number of a card stands."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the parts lie: the card of each block, the head's (HOST: main memory), and each card's share.

    ``divided``: every matrix of a block on cards is cut by ``fractions``, so ``blocks`` places only caches.
    ``host_experts``: how many blocks, from the first, leave their experts in main memory.
    """

    blocks: tuple[int, ...]
    head: int
    fractions: tuple[float, ...]
    divided: bool = False
    divided_cache: bool = False
    host_experts: int = 0

    def cards(self) -> tuple[int, ...]:
        """Return the numbers of the cards that hold anything, in order."""
        if self.divided and any(number != HOST for number in (*self.blocks, self.head)):
            return tuple(number for number, share in enumerate(self.fractions) if share > 0)
        return tuple(sorted({*self.blocks, self.head} - {HOST}))


def place(shape: ModelShape, use: Use, cards: Sequence[Device]) -> Placement:
    """Return where llama.cpp puts the parts of a model."""
    count = len(shape.layers)
    wanted = count + 1 if use.gpu_layers is None else min(max(0, use.gpu_layers), count + 1)
    if not cards:
        wanted = 0
    first = count + 1 - wanted
    fractions = _fractions(use, cards)
    ends = [sum(fractions[: number + 1]) for number in range(len(fractions))]

    def where(number: int) -> int:
        if number < first:
            return HOST
        if use.split == "none":
            return min(use.main_gpu, len(cards) - 1)
        at = (number - first) / wanted
        return next((card for card, end in enumerate(ends) if end > at), len(cards) - 1)

    return Placement(
        tuple(where(number) for number in range(count)),
        where(count),
        fractions,
        divided=use.split in ("row", "tensor") and len(cards) > 1,
        divided_cache=use.split == "tensor" and len(cards) > 1,
        host_experts=use.cpu_expert_layers if cards else 0,
    )


def _fractions(use: Use, cards: Sequence[Device]) -> tuple[float, ...]:
    """Return the part of each card, all together 1."""
    if use.split == "none" and cards:
        main = min(use.main_gpu, len(cards) - 1)
        return tuple(1.0 if number == main else 0.0 for number in range(len(cards)))
    given = [use.shares[number] if number < len(use.shares) else 0.0 for number in range(len(cards))]
    if not any(share > 0 for share in given):
        given = [float(card.usable_bytes) for card in cards]
    if not any(share > 0 for share in given):  # nobody knows how large they are
        given = [1.0] * len(cards)
    total = sum(max(0.0, share) for share in given)
    return tuple(max(0.0, share) / total for share in given)


def cut(size: int, fractions: Sequence[float]) -> tuple[int, ...]:
    """Divide bytes by fractions that add up to 1, without losing or inventing one."""
    pieces = []
    total, done = 0.0, 0
    for fraction in fractions:
        total += fraction
        end = min(size, round(size * total))
        pieces.append(end - done)
        done = end
    last = max(number for number, fraction in enumerate(fractions) if fraction > 0)
    pieces[last] += size - done
    return tuple(pieces)
