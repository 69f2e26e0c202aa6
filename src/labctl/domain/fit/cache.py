"""How many bytes the cache of keys and values takes, layer by layer.

The rule is ``(k_width + v_width) x tokens x bytes of an element``, where a layer's widths are key-value heads
times head size. Layers differ in how many tokens they keep: all of the context, those of a window, or none at
all, where a state of fixed size for each sequence takes the place of a cache.

llama.cpp rounds a sequence's context up to 256 tokens. A layer with a window keeps the window and one
physical batch, rounded up alike, unless it is told to keep everything. Sequences have caches of their own or
share one. Types are stored in blocks: 32 elements of q8_0 take 34 bytes, not 32.

Exact for llama.cpp (compared with a real llama-server). The engines in Python keep pages of 16 tokens.
"""

from __future__ import annotations

from labctl.domain.fit.terms import Cache, Use
from labctl.domain.problem import LabctlError

CELLS_ROUNDING = 256
PAGE_TOKENS = 16

# Elements of a block and its bytes, as ggml defines them; other engines' names below.
BLOCKS = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q5_1": (32, 24),
    "q5_0": (32, 22),
    "q4_1": (32, 20),
    "q4_0": (32, 18),
    "iq4_nl": (32, 18),
}
_OTHER_NAMES = {
    **dict.fromkeys(("auto", "fp16", "float16", "half", "bfloat16"), (1, 2)),
    **dict.fromkeys(("float", "float32"), (1, 4)),
    **dict.fromkeys(("fp8", "fp8_e5m2", "fp8_e4m3", "fp8_inc", "int8"), (1, 1)),
    **dict.fromkeys(("fp4_e2m1", "nvfp4"), (16, 9)),
    # ExLlamaV3: blocks of 32 elements with one scale of two bytes.
    **{f"{prefix}{bits}": (32, 4 * bits + 2) for bits in range(2, 9) for prefix in ("q", "")},
}


def block(kind: str) -> tuple[int, int]:
    """Return the elements of a block of a cache's type, and its bytes; raise ``LabctlError`` if unknown."""
    found = BLOCKS.get(kind.lower()) or _OTHER_NAMES.get(kind.lower())
    if found is None:
        raise LabctlError(
            f"{kind!r} is no type of a cache that labctl knows", hint=f"one of {', '.join(BLOCKS)}, fp8"
        )
    return found


def bytes_of(elements: int, kind: str) -> int:
    """Return the bytes of so many elements of a type, whole blocks."""
    per_block, size = block(kind)
    return -(-elements // per_block) * size


def rounded(tokens: int, to: int = CELLS_ROUNDING) -> int:
    """Return a number of tokens, rounded up."""
    return -(-tokens // to) * to


def streams(use: Use) -> int:
    """Return how many caches of its own each layer has: one for each sequence, or one for all."""
    return 1 if use.unified_cache else max(1, use.sequences)


def physical_batch(use: Use) -> int:
    """Return how many tokens llama.cpp computes at a time; never more than the context of all sequences."""
    return min(use.micro_batch, use.batch, use.context * streams(use))


def cells(cache: Cache, use: Use) -> int:
    """Return how many tokens llama.cpp's cache of one layer has room for, of one stream."""
    if cache.growth in ("recurrent", "none"):
        return 0
    every = rounded(use.context)
    if cache.growth == "full" or cache.window is None or use.full_window_cache:
        return every
    sharing = max(1, use.sequences) if use.unified_cache else 1
    return rounded(min(every, cache.window * sharing + physical_batch(use)))


def layer_bytes(cache: Cache, use: Use, *, widest_v: int = 0) -> int:
    """Return the bytes that llama.cpp keeps for a layer, all sequences together.

    Without flash attention, values lie transposed, and every layer has room for the widest: ``widest_v``.
    """
    held = cells(cache, use) * streams(use)
    v_width = cache.v_width if use.flash_attention else max(cache.v_width, widest_v if held else 0)
    state = cache.state_bytes * max(1, use.sequences)
    return bytes_of(cache.k_width * held, use.cache_k) + bytes_of(v_width * held, use.cache_v) + state


def paged_bytes(cache: Cache, use: Use, *, parts: int = 1) -> int:
    """Return the bytes of one sequence of full length in an engine with pages, on one of ``parts`` cards.

    Keys and values are divided by heads; where there are fewer key-value heads than cards, each card has a
    copy of one head. What is kept compressed cannot be divided: every card has all of it.
    """
    tokens = use.context if cache.window is None else min(use.context, cache.window)
    held = 0 if cache.growth in ("recurrent", "none") else rounded(tokens, PAGE_TOKENS)
    divided = parts if cache.v_width else 1
    k_width, v_width = -(-cache.k_width // divided), -(-cache.v_width // divided)
    state = -(-cache.state_bytes // parts)
    return bytes_of(k_width * held, use.cache_k) + bytes_of(v_width * held, use.cache_v) + state
