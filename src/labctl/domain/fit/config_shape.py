"""From ``config.json`` and the headers of safetensors files to the shape of a model.

How many bytes a block has is the sum of its tensors, so quantised weights count as they are. What a block
keeps is read from the configuration, where makers spell the same thing in several ways: the first spelling
that is there counts. ``layer_types`` says which blocks have a window, which are recurrent and which look at
everything; without it, a window counts only where a pattern says which blocks have it.

Parts for pictures and sound, and blocks beyond the model's own (which predict further tokens), belong to no
block. When unsure, a block counts as full attention: that is never too little. Some makers leave out what is
their library's default; a configuration that does not say how wide attention is cannot be planned with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from labctl.domain.fit.gguf_shape import MOST_LAYERS, Tensor
from labctl.domain.fit.terms import Cache, Layer, ModelShape
from labctl.domain.problem import LabctlError

_MOST = 2**40
_STATE_ELEMENT = 4  # states are kept as float32 at most
_NESTED = ("text_config", "llm_config", "language_config", "language_model_config", "thinker_config")
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d{1,6})\.")
_SENSES = re.compile(r"(?:^|\.)(?:visual|vision\w*|vit|audio\w*|image\w*|multi_modal\w*|mm_\w+|mtp)\.")
_EXPERT = re.compile(r"\.experts?\.")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|tok_embeddings|word_embeddings|embeddings)\.")
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|output|norm|final_layernorm|ln_f|norm_f|final_norm)\.")
_RECURRENT_TYPES = ("linear_attention", "mamba", "recurrent", "conv", "linear")
_ALL_RECURRENT = ("mamba", "mamba2", "falcon_mamba")
_WINDOW_TYPES = ("sliding_attention", "chunked_attention", "local_attention")

_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_WIDTH = ("hidden_size", "n_embd", "d_model")
_HEADS = ("num_attention_heads", "n_head")
_FF = ("intermediate_size", "ffn_dim", "n_inner")
_CONTEXT = ("max_position_embeddings", "n_positions", "model_max_length", "max_seq_len")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_USED = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k")
_KINDS = ("layer_types", "layers_block_type", "block_types")


class _Config:
    """The numbers of a configuration, each looked at before it is believed."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        inner = next((values[key] for key in _NESTED if isinstance(values.get(key), Mapping)), None)
        self._values: Mapping[str, Any] = {**values, **inner} if inner is not None else values

    def number(self, keys: Iterable[str], default: int | None = None, *, least: int = 0) -> int:
        """Return the first number that is there under one of these names."""
        names = tuple(keys)
        for key in names:
            value = self._values.get(key)
            if isinstance(value, list) and value and all(isinstance(one, int) for one in value):
                value = max(value)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
                raise LabctlError(f"config.json: {key} is {str(value)[:40]!r}; that cannot be")
            return value
        if default is None:
            raise LabctlError(f"config.json has no {names[0]}", hint="is it a language model's?")
        return default

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._values.get(key, default)
        return value if isinstance(value, bool) else default

    def words(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Return the first list of words that is there."""
        for key in keys:
            value = self._values.get(key)
            if isinstance(value, list) and all(isinstance(one, str) for one in value):
                return tuple(value)
        return ()

    def text(self, key: str) -> str:
        value = self._values.get(key)
        return value if isinstance(value, str) else ""


def shape(config: Mapping[str, Any], tensors: Sequence[Tensor], *, file_bytes: int = 0) -> ModelShape:
    """Return the shape of the model that a configuration and its tensors describe.

    Raises:
        LabctlError: they describe none that labctl can plan with; says why.
    """
    facts = _Config(config)
    count = facts.number(_LAYERS, least=1)
    if count > MOST_LAYERS:
        raise LabctlError(f"config.json says that the model has {count} blocks; that cannot be")
    blocks, outside = _sorted(tensors, count)
    if not any(blocks):
        raise LabctlError("the files hold no blocks of a language model", hint="are all of `files` named?")
    heads = facts.number(_HEADS, 0)
    width = facts.number(_WIDTH, least=1)
    embedding = sum(tensor.size for tensor in outside if _EMBEDDING.search(tensor.name))
    head = sum(tensor.size for tensor in outside if _is_head(tensor))
    experts = facts.number(_EXPERTS, 0)
    caches = _caches(facts, count, heads, width)
    return ModelShape(
        architecture=facts.text("model_type") or "unknown",
        layers=tuple(
            Layer(
                sum(tensor.size for tensor in block),
                sum(tensor.size for tensor in block if _EXPERT.search(tensor.name)),
                cache,
            )
            for block, cache in zip(blocks, caches, strict=True)
        ),
        input_bytes=embedding,
        output_bytes=head,
        vocabulary=facts.number(("vocab_size",), 0),
        width=width,
        heads=heads,
        head_size=facts.number(("head_dim",), width // heads if heads else 0),
        largest_ff=_largest_ff(facts, experts),
        trained_context=facts.number(_CONTEXT, 0),
        tied=not any("lm_head." in tensor.name for tensor in outside)
        and facts.flag("tie_word_embeddings", default=True),
        experts=experts,
        experts_used=facts.number(_USED, 1 if experts else 0),
        extra_bytes=sum(tensor.size for tensor in outside) - embedding - head,
        file_bytes=file_bytes,
    )


def _is_head(tensor: Tensor) -> bool:
    senses = _SENSES.search(tensor.name) or _EMBEDDING.search(tensor.name)
    return bool(_HEAD.search(tensor.name)) and not senses


def _sorted(tensors: Sequence[Tensor], count: int) -> tuple[list[list[Tensor]], list[Tensor]]:
    """Return the tensors of each block, and all others."""
    blocks: list[list[Tensor]] = [[] for _ in range(count)]
    outside = []
    for tensor in tensors:
        match = None if _SENSES.search(tensor.name) else _BLOCK.search(tensor.name)
        if match and int(match[1]) < count:
            blocks[int(match[1])].append(tensor)
        else:
            outside.append(tensor)
    return blocks, outside


def _largest_ff(facts: _Config, experts: int) -> int:
    dense = facts.number(_FF, 0)
    if not experts:
        return dense
    routed = facts.number(("moe_intermediate_size",), dense) * facts.number(_USED, 1)
    shared = facts.number(("shared_expert_intermediate_size",), 0)
    has_dense = facts.number(("first_k_dense_replace",), 0) > 0
    return max(routed, shared, dense if has_dense else 0)


def _caches(facts: _Config, count: int, heads: int, width: int) -> tuple[Cache, ...]:
    """Return what each block keeps."""
    kinds = facts.words(_KINDS) or _interval(facts, count)
    if kinds and len(kinds) < count:
        raise LabctlError(f"config.json names the kinds of {len(kinds)} blocks, and the model has {count}")
    k_width, v_width = _widths(facts, heads, width)
    window = facts.number(("sliding_window", "attention_chunk_size"), 0)
    every = facts.number(("sliding_window_pattern",), 0)
    found: list[Cache] = []
    for number in range(count):
        kind = kinds[number] if kinds else ""
        if kind in _RECURRENT_TYPES:
            state, inner = _state(facts, width)
            found.append(Cache("recurrent", state_bytes=state, inner_width=inner))
        elif kind in ("moe", "mlp"):
            found.append(Cache("none"))
        elif not k_width:
            raise LabctlError(
                "config.json does not say how many key-value heads of which size its attention has",
                hint="write num_key_value_heads and head_dim into it, or use a GGUF file",
            )
        elif window and (kind in _WINDOW_TYPES or (not kinds and every and (number + 1) % every)):
            found.append(Cache("window", k_width, v_width, window))
        else:
            found.append(Cache("full", k_width, v_width))
    return tuple(found)


def _interval(facts: _Config, count: int) -> tuple[str, ...]:
    """Return the kinds of blocks where only the distance of those with full attention is stated."""
    every = facts.number(("full_attention_interval",), 0)
    pattern = facts.text("hybrid_override_pattern")  # M: Mamba, *: attention, -: feed-forward alone
    if pattern:
        names = {"M": "mamba", "*": "full_attention", "-": "mlp", "E": "moe"}
        return tuple(names.get(letter, "full_attention") for letter in pattern)
    if facts.text("model_type") in _ALL_RECURRENT:
        return ("mamba",) * count
    if not every:
        return ()
    return tuple("linear_attention" if (number + 1) % every else "full" for number in range(count))


def _widths(facts: _Config, heads: int, width: int) -> tuple[int, int]:
    """Return how wide keys and values are; compressed attention keeps one thing for both."""
    if rank := facts.number(("kv_lora_rank",), 0):
        return rank + facts.number(("qk_rope_head_dim",), 0), 0
    kv_heads = facts.number(("num_key_value_heads", "n_head_kv", "num_kv_heads"), heads)
    head = facts.number(("head_dim",), width // heads if heads else 0)
    return kv_heads * head, kv_heads * head


def _state(facts: _Config, width: int) -> tuple[int, int]:
    """Return the bytes of a recurrent block's state for one sequence, and its inner width."""
    if values := facts.number(("linear_num_value_heads",), 0) * facts.number(("linear_value_head_dim",), 0):
        size = facts.number(("linear_key_head_dim",), least=1)
        keys = facts.number(("linear_num_key_heads",), least=1) * size
        kernel = max(0, facts.number(("linear_conv_kernel_dim",), 4) - 1)
        return (kernel * (2 * keys + values) + values * size) * _STATE_ELEMENT, values
    inner = facts.number(("mamba_num_heads", "mamba_n_heads"), 0) * facts.number(
        ("mamba_head_dim", "mamba_d_head"), 0
    )
    inner = inner or facts.number(("mamba_expand", "expand"), 2) * width
    size = facts.number(("ssm_state_size", "mamba_d_state", "state_size"), 128)
    kernel = max(0, facts.number(("conv_kernel", "mamba_d_conv", "conv_L_cache"), 4) - 1)
    groups = facts.number(("n_groups", "mamba_n_groups"), 1)
    return (kernel * (inner + 2 * groups * size) + size * inner) * _STATE_ELEMENT, inner
