"""Shapes from headers: real models by their published numbers, every way to spell them, and hostile ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.domain.fit import config_shape, gguf_shape
from labctl.domain.fit.cache import layer_bytes
from labctl.domain.fit.gguf_shape import Header, Tensor, Value
from labctl.domain.fit.terms import Cache, ModelShape, Use
from labctl.domain.problem import LabctlError

ATTENTION = ("attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight")
DENSE = ("ffn_gate.weight", "ffn_up.weight", "ffn_down.weight")
EXPERTS = ("ffn_gate_inp.weight", "ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight")
MAMBA = ("ssm_in.weight", "ssm_conv1d.weight", "ssm_out.weight")


def header(
    architecture: str, numbers: dict[str, Value], blocks: list[tuple[str, ...]], *outside: str
) -> Header:
    """Return a header whose tensors all have 1000 bytes."""
    values: dict[str, Value] = {"general.architecture": architecture}
    values |= {f"{architecture}.{key}": value for key, value in numbers.items()}
    values[f"{architecture}.block_count"] = len(blocks)
    names = [f"blk.{number}.{part}" for number, block in enumerate(blocks) for part in block]
    every = ("token_embd.weight", "output_norm.weight", *outside, *names)
    counts = {"tokenizer.ggml.tokens": 32_000}
    return Header(values, counts, tuple(Tensor(name, 1000) for name in every))


def per_token(shape: ModelShape) -> int:
    """Return the bytes that one more token of context takes at f16, where everything grows."""
    use = Use("llama.cpp", 256 * 1000)
    return sum(layer_bytes(layer.cache, use) for layer in shape.layers) // (256 * 1000)


LLAMA_8B: dict[str, Value] = {
    "embedding_length": 4096,
    "attention.head_count": 32,
    "attention.head_count_kv": 8,
    "feed_forward_length": 14_336,
    "context_length": 131_072,
}
QWEN_30B: dict[str, Value] = {
    "embedding_length": 2048,
    "attention.head_count": 32,
    "attention.head_count_kv": 4,
    "attention.key_length": 128,
    "attention.value_length": 128,
    "feed_forward_length": 6144,
    "expert_count": 128,
    "expert_used_count": 8,
    "expert_feed_forward_length": 768,
}
DEEPSEEK_V3: dict[str, Value] = {
    "embedding_length": 7168,
    "attention.head_count": 128,
    "attention.head_count_kv": 1,
    "attention.key_length": 576,
    "attention.value_length": 512,
    "attention.key_length_mla": 192,
    "attention.value_length_mla": 128,
    "feed_forward_length": 18_432,
    "expert_count": 256,
    "expert_used_count": 8,
    "expert_feed_forward_length": 2048,
    "expert_shared_count": 1,
}
MLA = ("attn_q_a.weight", "attn_kv_a_mqa.weight", "attn_k_b.weight", "attn_v_b.weight", "attn_output.weight")
SHARED = ("ffn_gate_shexp.weight", "ffn_up_shexp.weight", "ffn_down_shexp.weight")


def test_llama_3_1_with_8_billion_takes_128_kib_a_token() -> None:
    found = gguf_shape.shape(header("llama", LLAMA_8B, [ATTENTION + DENSE] * 32, "output.weight"))
    assert per_token(found) == 128 * 1024
    assert (found.head_size, found.largest_ff, found.tied, found.vocabulary) == (128, 14_336, False, 32_000)


def test_qwen_3_with_30_billion_takes_96_kib_a_token() -> None:
    found = gguf_shape.shape(header("qwen3moe", QWEN_30B, [ATTENTION + EXPERTS] * 48, "output.weight"))
    assert per_token(found) == 96 * 1024
    assert (found.largest_ff, found.experts, found.experts_used) == (8 * 768, 128, 8)
    assert found.layers[0].expert_bytes == 3000


def test_deepseek_v3_takes_69_kib_a_token() -> None:
    """61 layers of 576 elements, and no values beside."""
    blocks = [MLA + DENSE] * 3 + [MLA + EXPERTS + SHARED] * 58
    found = gguf_shape.shape(header("deepseek2", DEEPSEEK_V3, blocks, "output.weight"))
    assert per_token(found) == 61 * 576 * 2
    assert (found.largest_ff, found.shared_ff, found.head_size) == (18_432, 2048, 192)


def test_deepseek_without_compression_keeps_keys_and_values_of_all_heads() -> None:
    numbers = {key: value for key, value in DEEPSEEK_V3.items() if not key.endswith("_mla")}
    numbers |= {"attention.head_count_kv": 128, "attention.key_length": 192, "attention.value_length": 128}
    found = gguf_shape.shape(header("deepseek2", numbers, [MLA + DENSE] * 61))
    assert per_token(found) == 61 * 128 * (192 + 128) * 2


WINDOWED = {**LLAMA_8B, "attention.sliding_window": 1024}


@pytest.mark.parametrize(
    "architecture, more, whole",
    [
        ("gemma2", {}, [1, 3, 5, 7, 9, 11]),
        ("gemma3", {}, [5, 11]),
        ("gemma3", {"attention.sliding_window_pattern": 4}, [3, 7, 11]),
        ("gpt-oss", {}, [1, 3, 5, 7, 9, 11]),
        ("cohere2", {}, [3, 7, 11]),
        ("smallthinker", {}, [0, 4, 8]),
        ("gemma4", {"attention.sliding_window_pattern": (True, False) * 6}, [1, 3, 5, 7, 9, 11]),
        ("phi3", {}, list(range(12))),
        ("llama", {}, list(range(12))),
        ("gemma3", {"attention.sliding_window": 0}, list(range(12))),
    ],
)
def test_which_layers_look_at_everything(architecture: str, more: Any, whole: list[int]) -> None:
    found = gguf_shape.shape(header(architecture, {**WINDOWED, **more}, [ATTENTION + DENSE] * 12))
    assert [n for n, layer in enumerate(found.layers) if layer.cache.growth == "full"] == whole
    assert {layer.cache.window for layer in found.layers if layer.cache.growth == "window"} <= {1024}


def test_layers_with_heads_of_their_own_number() -> None:
    numbers = {**LLAMA_8B, "attention.head_count_kv": (8, 4, 0, 1)}
    blocks = [ATTENTION + DENSE, ATTENTION + DENSE, DENSE, ATTENTION + DENSE]
    found = gguf_shape.shape(header("deci", numbers, blocks))
    assert [layer.cache.k_width for layer in found.layers] == [1024, 512, 0, 128]
    assert found.layers[2].cache == Cache("none")


def test_layers_with_a_window_may_have_smaller_heads() -> None:
    numbers = {
        **WINDOWED,
        "attention.key_length": 512,
        "attention.value_length": 512,
        "attention.key_length_swa": 256,
        "attention.value_length_swa": 256,
        "attention.sliding_window_pattern": (True, False),
        "attention.shared_kv_layers": 0,
    }
    found = gguf_shape.shape(header("gemma4", numbers, [ATTENTION + DENSE] * 2))
    assert [layer.cache.k_width for layer in found.layers] == [8 * 256, 8 * 512]


def test_layers_that_use_the_cache_of_earlier_ones_have_none() -> None:
    numbers = {**WINDOWED, "attention.shared_kv_layers": 3, "attention.sliding_window_pattern": (False,) * 5}
    found = gguf_shape.shape(header("gemma4", numbers, [ATTENTION + DENSE] * 5))
    assert [layer.cache.growth for layer in found.layers] == ["full", "full", "none", "none", "none"]


SSM: dict[str, Value] = {
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 8192,
    "ssm.state_size": 128,
    "ssm.group_count": 8,
}


def test_a_hybrid_has_states_where_it_has_no_keys() -> None:
    """Nemotron H: a state of 3 x (8192 + 2 x 8 x 128) + 128 x 8192 floats, attention, or neither."""
    numbers = {**LLAMA_8B, **SSM, "attention.head_count_kv": (0, 0, 8)}
    found = gguf_shape.shape(header("nemotron_h", numbers, [MAMBA, DENSE, ATTENTION]))
    state = 4 * (3 * (8192 + 2 * 8 * 128) + 128 * 8192)
    assert [layer.cache.growth for layer in found.layers] == ["recurrent", "none", "full"]
    assert [layer.cache.state_bytes for layer in found.layers] == [state, 0, 0]


def test_falcon_h1_does_both_in_every_layer() -> None:
    numbers = {**LLAMA_8B, **SSM}
    (layer,) = gguf_shape.shape(header("falcon-h1", numbers, [ATTENTION + MAMBA + DENSE])).layers
    assert (layer.cache.growth, layer.cache.k_width) == ("full", 1024)
    assert layer.cache.state_bytes > 4 * 128 * 8192


def test_qwen_3_next_has_a_delta_network_where_queries_and_keys_are_one_matrix() -> None:
    numbers = {**QWEN_30B, **SSM, "ssm.inner_size": 4096, "ssm.group_count": 16}
    delta = ("attn_qkv.weight", "attn_gate.weight", "ssm_conv1d.weight", "ssm_out.weight")
    found = gguf_shape.shape(header("qwen3next", numbers, [delta + EXPERTS] * 3 + [ATTENTION + EXPERTS]))
    assert [layer.cache.growth for layer in found.layers] == ["recurrent"] * 3 + ["full"]
    assert found.layers[0].cache.state_bytes == 4 * (3 * (4096 + 2 * 16 * 128) + 128 * 4096)


def test_rwkv_keeps_a_state_by_its_heads() -> None:
    numbers = {**LLAMA_8B, "wkv.head_size": 64, "token_shift_count": 2}
    (layer,) = gguf_shape.shape(header("rwkv7", numbers, [("time_mix_w1.weight", *DENSE)])).layers
    assert layer.cache.state_bytes == 4 * (2 * 4096 + 4096 * 64)


def test_fused_queries_keys_and_values_are_attention() -> None:
    (layer,) = gguf_shape.shape(header("phi3", LLAMA_8B, [("attn_qkv.weight", *DENSE)])).layers
    assert layer.cache.k_width == 1024


def test_a_model_that_embeds_keeps_nothing() -> None:
    found = gguf_shape.shape(header("bert", LLAMA_8B, [ATTENTION + DENSE] * 3))
    assert {layer.cache for layer in found.layers} == {Cache("none")}


def test_experts_of_old_files_are_known_by_their_numbers() -> None:
    old = tuple(f"ffn_{part}.{number}.weight" for part in ("gate", "up", "down") for number in range(8))
    numbers = {**LLAMA_8B, "expert_count": 8, "expert_used_count": 2}
    (layer,) = gguf_shape.shape(header("llama", numbers, [ATTENTION + old])).layers
    assert (layer.weight_bytes, layer.expert_bytes) == (28_000, 24_000)


def test_every_byte_belongs_somewhere() -> None:
    outside = ("output.weight", "rope_freqs.weight", "per_layer_token_embd.weight")
    made = header("llama", LLAMA_8B, [ATTENTION + DENSE] * 3, *outside)
    found = gguf_shape.shape(made)
    assert found.weight_bytes == made.tensor_bytes
    assert (found.input_bytes, found.output_bytes, found.extra_bytes) == (2000, 2000, 1000)


WRONG: dict[str, tuple[Header, str]] = {
    "no architecture": (Header({}, {}, ()), "does not say which architecture"),
    "no number of blocks": (
        Header({"general.architecture": "llama"}, {}, ()),
        "lacks llama.block_count, which every such model has",
    ),
    "no width": (header("llama", {}, [ATTENTION]), "lacks llama.embedding_length"),
    "more blocks than can be": (header("llama", LLAMA_8B, [()] * 1025), "1025 blocks; that cannot be"),
    "no blocks at all": (header("llama", LLAMA_8B, [()] * 2), "is it a projector or a vocabulary?"),
    "a tensor beyond the blocks": (
        Header({**header("llama", LLAMA_8B, [ATTENTION]).values}, {}, (Tensor("blk.7.attn_k.weight", 1),)),
        "has a tensor blk.7.attn_k.weight and only 1 blocks",
    ),
    "an encoder and a decoder": (
        header("t5", LLAMA_8B, [ATTENTION], "enc.blk.0.attn_k.weight"),
        "labctl cannot plan those",
    ),
    "a width in words": (
        header("llama", {**LLAMA_8B, "embedding_length": "wide"}, [ATTENTION]),
        "llama.embedding_length is 'wide'; that cannot be",
    ),
    "a negative width": (header("llama", {**LLAMA_8B, "embedding_length": -1}, [ATTENTION]), "is '-1'"),
    "a width beyond all memory": (
        header("llama", {**LLAMA_8B, "embedding_length": 2**60}, [ATTENTION]),
        "that cannot be",
    ),
    "too few heads in a list": (
        header("llama", {**LLAMA_8B, "attention.head_count_kv": (8,)}, [ATTENTION] * 3),
        "has 1 values for 3 blocks",
    ),
    "no heads, and keys": (
        header("llama", {"embedding_length": 64, "attention.head_count_kv": 8}, [ATTENTION]),
        "lacks llama.attention.head_count",
    ),
    "a state without its size": (
        header("mamba", {"embedding_length": 64}, [MAMBA]),
        "lacks mamba.ssm.inner_size",
    ),
}


@pytest.mark.parametrize("made, words", WRONG.values(), ids=WRONG.keys())
def test_a_header_that_cannot_be_is_refused_in_words(made: Header, words: str) -> None:
    with pytest.raises(LabctlError) as refused:
        gguf_shape.shape(made)
    assert words in str(refused.value)


KEYS = st.sampled_from(
    [
        *("embedding_length", "block_count", "attention.head_count", "attention.head_count_kv"),
        *("attention.key_length", "attention.sliding_window", "attention.sliding_window_pattern"),
        *("ssm.inner_size", "ssm.state_size", "wkv.head_size", "expert_count", "expert_used_count"),
    ]
)
WORDS = st.sampled_from(["", "a", "full_attention", "M*-", "é\n", "9" * 40])
VALUES = st.one_of(st.integers(-(2**63), 2**64), st.floats(), st.booleans(), WORDS, st.tuples(st.integers()))


@given(
    st.sampled_from(["llama", "gemma3", "mamba", "qwen3next", "lfm2", "deepseek2", "x"]),
    st.dictionaries(KEYS, VALUES, max_size=8),
    st.lists(st.sampled_from([ATTENTION, MAMBA, DENSE, EXPERTS, MLA]), max_size=4),
)
def test_no_header_ends_in_anything_but_a_shape_or_a_refusal(
    architecture: str, numbers: dict[str, Value], blocks: list[tuple[str, ...]]
) -> None:
    try:
        found = gguf_shape.shape(header(architecture, {**LLAMA_8B, **numbers}, blocks))
    except LabctlError as refused:
        assert str(refused)
    else:
        assert found.weight_bytes >= 0


def test_parts_of_a_split_model_must_be_all_there() -> None:
    whole = header("llama", LLAMA_8B, [ATTENTION])
    first = Header({**whole.values, "split.count": 2}, whole.counts, whole.tensors[:3], 10)
    second = Header({}, {}, whole.tensors[3:], 20)
    merged = gguf_shape.merged([first, second])
    assert (merged.tensors, merged.file_bytes) == (whole.tensors, 30)
    with pytest.raises(LabctlError, match="split into 2 files, and 1 are named"):
        gguf_shape.merged([first])
    with pytest.raises(LabctlError, match="hold the same tensor"):
        gguf_shape.merged([first, first])
    told = Header({**first.values, "split.tensors.count": 9}, {}, first.tensors)
    with pytest.raises(LabctlError, match="not as many as the first one says"):
        gguf_shape.merged([told, second])


# --- config.json ---

HF: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14_336,
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
}


def files(count: int = 4, prefix: str = "model.", *more: str) -> list[Tensor]:
    names = [f"{prefix}layers.{n}.self_attn.q_proj.weight" for n in range(count)]
    return [
        Tensor(name, 1000) for name in (f"{prefix}embed_tokens.weight", f"{prefix}norm.weight", *names, *more)
    ]


def test_a_configuration_gives_the_same_cache_as_the_gguf() -> None:
    found = config_shape.shape(HF, files())
    assert per_token(found) == 4 * 8 * 128 * 2 * 2
    assert (found.tied, found.input_bytes, found.output_bytes) == (True, 1000, 1000)


def test_the_text_part_of_a_model_that_sees_is_what_counts() -> None:
    names = ("visual.blocks.0.attn.qkv.weight", "lm_head.weight", "mtp.layers.0.mlp.up_proj.weight")
    found = config_shape.shape(
        {"model_type": "vl", "text_config": HF}, files(4, "model.language_model.", *names)
    )
    assert [layer.weight_bytes for layer in found.layers] == [1000] * 4
    assert (found.extra_bytes, found.output_bytes, found.tied) == (2000, 2000, False)


def test_kinds_of_layers_are_taken_at_their_word() -> None:
    kinds = ["sliding_attention", "full_attention", "linear_attention", "chunked_attention"]
    linear = {
        "linear_num_value_heads": 32,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_key_head_dim": 128,
        "linear_conv_kernel_dim": 4,
    }
    found = config_shape.shape({**HF, **linear, "layer_types": kinds, "sliding_window": 512}, files())
    assert [layer.cache.growth for layer in found.layers] == ["window", "full", "recurrent", "window"]
    assert found.layers[2].cache.state_bytes == 4 * (3 * (2 * 2048 + 4096) + 4096 * 128)


def test_a_window_without_a_word_on_which_layers_counts_for_none() -> None:
    found = config_shape.shape({**HF, "sliding_window": 4096}, files())
    assert {layer.cache.growth for layer in found.layers} == {"full"}
    pattern = config_shape.shape({**HF, "sliding_window": 512, "sliding_window_pattern": 2}, files())
    assert [layer.cache.growth for layer in pattern.layers] == ["window", "full", "window", "full"]


def test_compressed_attention_of_a_configuration() -> None:
    found = config_shape.shape({**HF, "kv_lora_rank": 512, "qk_rope_head_dim": 64}, files())
    assert per_token(found) == 4 * 576 * 2


def test_experts_of_a_configuration() -> None:
    experts = [f"model.layers.{n}.mlp.experts.7.up_proj.weight" for n in range(4)]
    shared = [f"model.layers.{n}.mlp.shared_expert.up_proj.weight" for n in range(4)]
    facts = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
    found = config_shape.shape({**HF, **facts}, files(4, "model.", *experts, *shared))
    assert (found.experts, found.experts_used, found.largest_ff) == (128, 8, 6144)
    assert [(layer.weight_bytes, layer.expert_bytes) for layer in found.layers] == [(3000, 1000)] * 4


def without_heads() -> dict[str, Any]:
    return {name: value for name, value in HF.items() if "heads" not in name and name != "head_dim"}


def test_a_model_without_any_attention_needs_no_heads() -> None:
    facts = {"model_type": "mamba", "expand": 2, "state_size": 16, "conv_kernel": 4}
    found = config_shape.shape({**without_heads(), **facts}, files())
    inner = 2 * HF["hidden_size"]
    assert {layer.cache.growth for layer in found.layers} == {"recurrent"}
    assert found.layers[0].cache.state_bytes == (3 * (inner + 2 * 16) + 16 * inner) * 4


@pytest.mark.parametrize(
    "config, tensors, words",
    [
        ({}, files(), "config.json has no num_hidden_layers"),
        ({**HF, "num_hidden_layers": 10**9}, files(), "1000000000 blocks; that cannot be"),
        ({**HF, "hidden_size": "wide"}, files(), "hidden_size is 'wide'; that cannot be"),
        ({**HF, "hidden_size": True}, files(), "that cannot be"),
        ({**HF, "num_key_value_heads": -1}, files(), "that cannot be"),
        ({**HF, "layer_types": ["full_attention"]}, files(), "the kinds of 1 blocks, and the model has 4"),
        # As published for some models: what is the library's default is left out.
        (without_heads(), files(), "does not say how many key-value heads"),
        (HF, [Tensor("something.weight", 1)], "the files hold no blocks of a language model"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_in_words(
    config: dict[str, Any], tensors: list[Tensor], words: str
) -> None:
    with pytest.raises(LabctlError) as refused:
        config_shape.shape(config, tensors)
    assert words in str(refused.value)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from([*HF, "layer_types", "text_config", "sliding_window", "num_experts"]), JSON
    )
)
def test_no_configuration_ends_in_anything_but_a_shape_or_a_refusal(config: dict[str, Any]) -> None:
    try:
        config_shape.shape({**HF, **config}, files())
    except LabctlError as refused:
        assert str(refused)
