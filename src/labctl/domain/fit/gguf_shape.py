"""From the header of a GGUF file to the shape of a model.

What a block is, is read from its tensors: one with keys is attention, one with ``ssm_``, ``shortconv`` or
``time_mix`` is recurrent, one with both does both unless the header gives it no key-value heads, one with
neither keeps nothing. How wide its cache is, is read from the header's numbers, each of which may be one for
all blocks or one for each. Which blocks look at a window only, some architectures state and some just have
(``WINDOWS``, by llama.cpp's own code; architectures that state a window there and are not in this list are
run without it).

When unsure, a block counts as full attention, and blocks that only predict further tokens as ordinary ones:
that is never too little. A header that lacks what is needed, or whose numbers cannot be, is an error that
says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labctl.domain.fit.terms import Cache, Growth, Layer, ModelShape
from labctl.domain.problem import LabctlError

Number = int | float | bool
Value = Number | str | tuple[Number, ...]

MOST_LAYERS = 1024
_MOST = 2**40  # no width, count or length of a model comes near it
_STATE_ELEMENT = 4  # llama.cpp keeps states as f32

# Every how many blocks one looks at everything, and whether that is the first of them or the last.
WINDOWS: Mapping[str, tuple[int, bool]] = {
    **dict.fromkeys(("gemma2", "gpt-oss"), (2, False)),
    **dict.fromkeys(("exaone4", "exaone-moe", "olmo2", "cohere2", "afmoe", "mellum", "llama4"), (4, False)),
    **dict.fromkeys(("cohere2moe", "smallthinker", "laguna"), (4, True)),
    **dict.fromkeys(("gemma3", "gemma-embedding"), (6, False)),
    "gemma3n": (5, False),
    "plamo3": (8, False),
    "modern-bert": (3, True),
}
_WINDOW_OF = {"gemma2": 4096, "llama4": 8192}  # where the header need not say it
_NO_WINDOW = frozenset({"phi3"})
_KEEP_NOTHING = frozenset(
    {
        *("bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3"),
        *("eurobert", "gemma-embedding", "wavtokenizer-dec", "dream", "llada", "llada-moe", "rnd1"),
    }
)
_BLOCK = re.compile(r"blk\.(\d{1,6})\.(.+)")
_EXPERT = re.compile(r"ffn_(?:gate|up|down|gate_up)(?:_(?:ch)?exps\b|\.\d+\.)")
_INPUT = ("token_embd.", "per_layer_token_embd.", "position_embd.", "token_types.")
_RECURRENT = ("ssm_", "shortconv.", "time_mix_")
_KEYS = ("attn_k.", "attn_kv_a_mqa.", "attn_kv_b.", "attn_k_b.")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as the header lists it: its name and its bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says of itself: its keys and values, how long its lists are, and its tensors.

    Long lists (the vocabulary) are in ``counts`` only. ``file_bytes`` is the length of the file.
    """

    values: Mapping[str, Value]
    counts: Mapping[str, int]
    tensors: tuple[Tensor, ...]
    file_bytes: int = 0

    @property
    def tensor_bytes(self) -> int:
        """Return the bytes of all tensors."""
        return sum(tensor.size for tensor in self.tensors)


def merged(parts: Sequence[Header]) -> Header:
    """Return the header of a file that was split; the first part has the keys.

    Raises:
        LabctlError: parts are missing, or belong to something else.
    """
    first = parts[0]
    told = first.values.get("split.count", 1)
    if told != len(parts) and not (told == 0 and len(parts) == 1):
        raise LabctlError(
            f"the model is split into {told} files, and {len(parts)} are named", hint="name all in `files`"
        )
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise LabctlError("two of the model's files hold the same tensor", hint="name each part once")
    if first.values.get("split.tensors.count", len(tensors)) != len(tensors):
        raise LabctlError(f"the model's files hold {len(tensors)} tensors, not as many as the first one says")
    return Header(first.values, first.counts, tensors, sum(part.file_bytes for part in parts))


class _Facts:
    """The header's numbers of one architecture, each looked at before it is believed."""

    def __init__(self, header: Header) -> None:
        self._values = header.values
        found = header.values.get("general.architecture")
        if not isinstance(found, str) or not found:
            raise LabctlError("the file does not say which architecture its model has")
        self.architecture = found
        self.layers = self.number("block_count", least=1)
        if self.layers > MOST_LAYERS:
            raise LabctlError(f"the file says that its model has {self.layers} blocks; that cannot be")

    def number(self, key: str, default: int | None = None, *, least: int = 0) -> int:
        """Return a number, of a list the largest; raise ``LabctlError`` where there is none and must be."""
        value = self._values.get(f"{self.architecture}.{key}", default)
        if isinstance(value, tuple) and value:
            value = max(value)
        if value is None:
            raise LabctlError(f"the file lacks {self.architecture}.{key}, which every such model has")
        return self._checked(key, value, least)

    def each(self, key: str, default: int) -> tuple[int, ...]:
        """Return a number for each block, whether the file gives one for all or a list."""
        value = self._values.get(f"{self.architecture}.{key}", default)
        listed = value if isinstance(value, tuple) else (value,) * self.layers
        if len(listed) < self.layers:
            raise LabctlError(f"{self.architecture}.{key} has {len(listed)} values for {self.layers} blocks")
        return tuple(self._checked(key, one, 0) for one in listed[: self.layers])

    def given(self, key: str) -> Value | None:
        """Return a value as it is, if there is one."""
        return self._values.get(f"{self.architecture}.{key}")

    def _checked(self, key: str, value: object, least: int) -> int:
        if isinstance(value, bool | int) and least <= value <= _MOST:
            return int(value)
        raise LabctlError(f"{self.architecture}.{key} is {str(value)[:40]!r}; that cannot be")


def shape(header: Header) -> ModelShape:
    """Return the shape of the model that a header describes.

    Raises:
        LabctlError: it describes none that labctl can plan with; says why.
    """
    facts = _Facts(header)
    blocks, outside = _sorted(header, facts)
    heads = max(facts.each("attention.head_count", 0))
    width = facts.number("embedding_length", least=1)
    windows = _windows(facts)
    layers = tuple(
        Layer(
            weight_bytes=sum(tensor.size for tensor in block),
            expert_bytes=sum(tensor.size for tensor in block if _EXPERT.search(tensor.name)),
            cache=_cache(facts, number, {_part(tensor) for tensor in block}, windows[number]),
        )
        for number, block in enumerate(blocks)
    )
    inputs = sum(tensor.size for tensor in outside if tensor.name.startswith(_INPUT))
    outputs = sum(tensor.size for tensor in outside if tensor.name.startswith(("output", "cls")))
    return ModelShape(
        architecture=facts.architecture,
        layers=layers,
        input_bytes=inputs,
        output_bytes=outputs,
        vocabulary=header.counts.get("tokenizer.ggml.tokens", 0) or facts.number("vocab_size", 0),
        width=width,
        heads=heads,
        head_size=facts.number("attention.key_length_mla", 0)
        or facts.number("attention.key_length", width // heads if heads else 0),
        largest_ff=_largest_ff(facts, header),
        trained_context=facts.number("context_length", 0),
        tied=not any(tensor.name == "output.weight" for tensor in outside),
        experts=facts.number("expert_count", 0),
        experts_used=facts.number("expert_used_count", 0),
        extra_bytes=sum(tensor.size for tensor in outside) - inputs - outputs,
        file_bytes=header.file_bytes,
        shared_ff=_shared_ff(facts, header),
    )


def _part(tensor: Tensor) -> str:
    return tensor.name.split(".", 2)[2]


def _sorted(header: Header, facts: _Facts) -> tuple[list[list[Tensor]], list[Tensor]]:
    """Return the tensors of each block, and those outside of all."""
    blocks: list[list[Tensor]] = [[] for _ in range(facts.layers)]
    outside: list[Tensor] = []
    for tensor in header.tensors:
        if not (match := _BLOCK.fullmatch(tensor.name)):
            outside.append(tensor)
        elif int(match[1]) < facts.layers:
            blocks[int(match[1])].append(tensor)
        else:
            raise LabctlError(f"the file has a tensor {tensor.name[:80]} and only {facts.layers} blocks")
    if any(tensor.name.startswith(("enc.", "dec.")) for tensor in outside):
        raise LabctlError(f"{facts.architecture} has an encoder and a decoder; labctl cannot plan those")
    if not any(blocks):
        raise LabctlError("the file holds no blocks of a language model; is it a projector or a vocabulary?")
    return blocks, outside


def _windows(facts: _Facts) -> tuple[int | None, ...]:
    """Return the window of each block, None where it looks at everything."""
    architecture = facts.architecture
    size = facts.number("attention.sliding_window", _WINDOW_OF.get(architecture, 0))
    pattern = facts.given("attention.sliding_window_pattern")
    if not size or architecture in _NO_WINDOW:
        return (None,) * facts.layers
    if isinstance(pattern, tuple):
        kinds = facts.each("attention.sliding_window_pattern", 0)
        return tuple(size if kind else None for kind in kinds)
    if architecture in ("lfm2", "lfm2moe", "deepseek4"):
        return (size,) * facts.layers
    if architecture not in WINDOWS:
        return (None,) * facts.layers
    usual, first = WINDOWS[architecture]
    every = facts.number("attention.sliding_window_pattern", usual)
    whole = [bool(every) and number % every == (0 if first else every - 1) for number in range(facts.layers)]
    return tuple(None if full else size for full in whole)


def _cache(facts: _Facts, number: int, parts: set[str], window: int | None) -> Cache:
    """Return what a block keeps."""
    if facts.architecture in _KEEP_NOTHING:
        return Cache("none")
    recurrent = any(part.startswith(_RECURRENT) for part in parts)
    delta = any(part.startswith("attn_qkv.") for part in parts)
    state, inner = _state(facts, delta=delta) if recurrent else (0, 0)
    values = facts.number("ssm.inner_size", 0) if recurrent and delta else 0
    kv_heads = facts.each("attention.head_count_kv", facts.number("attention.head_count", 0))[number]
    keys = any(part.startswith(_KEYS) for part in parts)
    fused = any(part.startswith("attn_qkv.") for part in parts) and not recurrent
    if not kv_heads or not (keys or fused):
        kept: Growth = "recurrent" if recurrent else "none"
        return Cache(kept, state_bytes=state, inner_width=inner, delta_width=values)
    if number >= _own_caches(facts):
        return Cache("none")
    k_width, v_width = _widths(facts, kv_heads, swa=window is not None)
    if any(part.startswith("indexer.") for part in parts):
        k_width += facts.number("attention.indexer.key_length", 0)
    growth: Growth = "full" if window is None else "window"
    return Cache(growth, k_width, v_width, window, state, inner)


def _own_caches(facts: _Facts) -> int:
    """Return how many blocks, from the first, have a cache of their own; later ones use an earlier one's."""
    if facts.architecture == "gemma3n":
        return min(20, facts.layers)  # llama.cpp's own number
    return facts.layers - facts.number("attention.shared_kv_layers", 0)


def _widths(facts: _Facts, kv_heads: int, *, swa: bool) -> tuple[int, int]:
    heads = facts.number("attention.head_count", least=1)
    usual = facts.number("embedding_length", least=1) // heads
    suffix = "_swa" if swa else ""
    key = facts.number("attention.key_length", usual)
    value = facts.number("attention.value_length", usual)
    key = facts.number(f"attention.key_length{suffix}", key)
    value = facts.number(f"attention.value_length{suffix}", value)
    compressed = facts.number("attention.key_length_mla", 0) and facts.number("attention.value_length_mla", 0)
    return kv_heads * key, 0 if compressed else kv_heads * value


def _state(facts: _Facts, *, delta: bool) -> tuple[int, int]:
    """Return the bytes of a recurrent block's state for one sequence, and its inner width.

    As llama.cpp lays them out: what the convolution still needs, and what the recurrence has become. A state
    space computes with its inner width and its groups', a ``delta`` network with queries, keys and values.
    """
    width = facts.number("embedding_length", least=1)
    if size := facts.number("wkv.head_size", 0):
        elements, inner = facts.number("token_shift_count", 2) * width + width * size, width
    elif kernel := facts.number("shortconv.l_cache", 0):
        elements, inner = width * (kernel - 1), width
    elif head := facts.number("kda.head_dim", 0):
        heads = facts.number("attention.head_count", least=1)
        kernel = max(0, facts.number("ssm.conv_kernel", 4) - 1)
        elements, inner = 3 * kernel * heads * head + head * head * heads, heads * head
    else:
        inner = facts.number("ssm.inner_size", least=1)
        size = facts.number("ssm.state_size", least=1)
        kernel = max(0, facts.number("ssm.conv_kernel", 0) - 1)
        grouped = facts.number("ssm.group_count", 0) * size
        elements = kernel * (inner + 2 * grouped) + size * inner
        inner += 2 * grouped if delta else grouped
    return elements * _STATE_ELEMENT, inner


def _largest_ff(facts: _Facts, header: Header) -> int:
    """Return the widest result of a feed-forward part: of experts, of all that run for a token together."""
    names = [tensor.name for tensor in header.tensors]
    stated = facts.number("feed_forward_length", 0)
    found = [0]
    if any(".ffn_up." in name or ".ffn_gate." in name for name in names):
        found.append(stated)
    if any(_EXPERT.search(name) for name in names):
        found.append(
            facts.number("expert_feed_forward_length", stated) * facts.number("expert_used_count", 1)
        )
    return max(found)


def _shared_ff(facts: _Facts, header: Header) -> int:
    """Return the width of the experts that always run, 0 where there are none."""
    if not any("_shexp." in tensor.name for tensor in header.tensors):
        return 0
    one = facts.number("expert_feed_forward_length", facts.number("feed_forward_length", 0))
    return facts.number("expert_shared_feed_forward_length", one * facts.number("expert_shared_count", 1))
