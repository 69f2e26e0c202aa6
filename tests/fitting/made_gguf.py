"""Model files made on the spot: real headers of several architectures, and nothing but holes for weights.

llama-server loads them like any other model, since it does not look at what the weights are; and a file of
gigabytes takes a few hundred kilobytes of disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Dimensions = tuple[int, ...]  # outermost first, as numpy has them
F16, F32, Q8 = (gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0)
WIDTH, HEAD, CONTEXT, VOCABULARY, LAYERS = 1024, 64, 32768, 8192, 4


@dataclass(frozen=True)
class Made:
    """What goes into the header: an architecture, its numbers, and its tensors."""

    architecture: str
    numbers: Mapping[str, Any]
    tensors: Mapping[str, Dimensions]
    kind: gguf.GGMLQuantizationType = F16
    vocabulary: int = VOCABULARY
    more: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path, *, split: tuple[int, int] | None = None) -> Path:
        """Write it, or of a split file the part ``split`` of (index, count) with its share of the tensors."""
        writer = gguf.GGUFWriter(path, self.architecture)
        if split is None or split[0] == 0:
            self._describe(writer)
        names = list(self.tensors)
        if split is not None:
            index, count = split
            names = names[index::count]
            writer.add_uint16("split.no", index)
            writer.add_uint16("split.count", count)
            writer.add_int32("split.tensors.count", len(self.tensors))
        for name in names:
            self._declare(writer, name)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        with path.open("r+b") as file:  # the weights are a hole
            reader_end = -(-file.seek(0, 2) // 32) * 32
            file.truncate(reader_end + sum(-(-self.bytes_of(name) // 32) * 32 for name in names))
        return path

    def kind_of(self, name: str) -> gguf.GGMLQuantizationType:
        """Return the type of a tensor: norms, convolutions and router are never narrowed."""
        narrow = len(self.tensors[name]) > 1 and not any(
            part in name for part in ("norm", "gate_inp", "conv", "ssm_a", "ssm_d")
        )
        return self.kind if narrow else F32

    def bytes_of(self, name: str) -> int:
        """Return the bytes of a tensor."""
        block, size = gguf.GGML_QUANT_SIZES[self.kind_of(name)]
        return int(np.prod(self.tensors[name])) * size // block

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of all tensors."""
        return sum(map(self.bytes_of, self.tensors))

    def _declare(self, writer: gguf.GGUFWriter, name: str) -> None:
        kind = self.kind_of(name)
        shape: Sequence[int] = self.tensors[name]
        if kind in (F16, F32):
            dtype = np.dtype(np.float16 if kind == F16 else np.float32)
            writer.add_tensor_info(name, shape, dtype, self.bytes_of(name))
        else:
            rows = gguf.quant_shape_to_byte_shape(tuple(shape), kind)
            writer.add_tensor_info(name, rows, np.dtype(np.uint8), self.bytes_of(name), raw_dtype=kind)

    def _describe(self, writer: gguf.GGUFWriter) -> None:
        for key, value in {**self.numbers, **self.more}.items():
            full = key if key.startswith(("general.", "tokenizer.")) else f"{self.architecture}.{key}"
            if isinstance(value, list):
                writer.add_array(full, value)
            elif isinstance(value, bool):
                writer.add_bool(full, value)
            elif isinstance(value, float):
                writer.add_float32(full, value)
            elif isinstance(value, str):
                writer.add_string(full, value)
            else:
                writer.add_uint32(full, value)
        text = self.vocabulary - 259
        writer.add_tokenizer_model("llama")
        writer.add_token_list(
            ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *_words(text)]
        )
        writer.add_token_scores([0.0] * 259 + [-float(rank) for rank in range(text)])
        writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * text)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)


def _words(count: int) -> list[str]:
    return [f"w{number}" for number in range(count)]


def numbers(heads: int, kv_heads: int | list[int], ff: int, **more: Any) -> dict[str, Any]:
    """Return what every architecture states."""
    return {
        "block_count": LAYERS,
        "context_length": CONTEXT,
        "embedding_length": WIDTH,
        "feed_forward_length": ff,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-5,
        **{key.replace("__", "."): value for key, value in more.items()},
    }


def ends(
    vocabulary: int = VOCABULARY, *, tied: bool = False, norm: str = "output_norm"
) -> dict[str, Dimensions]:
    """Return the tensors outside of the blocks."""
    found: dict[str, Dimensions] = {"token_embd.weight": (vocabulary, WIDTH), f"{norm}.weight": (WIDTH,)}
    return found if tied else {**found, "output.weight": (vocabulary, WIDTH)}


def attention(layer: int, heads: int, kv_heads: int, head: int = HEAD) -> dict[str, Dimensions]:
    """Return the tensors of ordinary attention."""
    block = f"blk.{layer}"
    return {
        f"{block}.attn_norm.weight": (WIDTH,),
        f"{block}.attn_q.weight": (heads * head, WIDTH),
        f"{block}.attn_k.weight": (kv_heads * head, WIDTH),
        f"{block}.attn_v.weight": (kv_heads * head, WIDTH),
        f"{block}.attn_output.weight": (WIDTH, heads * head),
    }


def dense(layer: int, ff: int) -> dict[str, Dimensions]:
    """Return the tensors of a gated feed-forward part."""
    block = f"blk.{layer}"
    return {
        f"{block}.ffn_norm.weight": (WIDTH,),
        f"{block}.ffn_gate.weight": (ff, WIDTH),
        f"{block}.ffn_up.weight": (ff, WIDTH),
        f"{block}.ffn_down.weight": (WIDTH, ff),
    }


def routed(layer: int, experts: int, ff: int, *, norm: str = "ffn_norm") -> dict[str, Dimensions]:
    """Return the tensors of a mixture of experts."""
    block = f"blk.{layer}"
    return {
        f"{block}.{norm}.weight": (WIDTH,),
        f"{block}.ffn_gate_inp.weight": (experts, WIDTH),
        f"{block}.ffn_gate_exps.weight": (experts, ff, WIDTH),
        f"{block}.ffn_up_exps.weight": (experts, ff, WIDTH),
        f"{block}.ffn_down_exps.weight": (experts, WIDTH, ff),
    }


def _norms(layer: int, **widths: int) -> dict[str, Dimensions]:
    return {f"blk.{layer}.{name}.weight": (width,) for name, width in widths.items()}


def _all(*parts: dict[str, Dimensions]) -> dict[str, Dimensions]:
    return {name: shape for part in parts for name, shape in part.items()}


def llama(
    *, heads: int = 16, kv_heads: int = 16, ff: int = 2816, kind: Any = F16, layers: int = LAYERS
) -> Made:
    """Llama: every head its own keys and values, or groups of heads that share them."""
    blocks = [_all(attention(i, heads, kv_heads), dense(i, ff)) for i in range(layers)]
    more = {"rope.dimension_count": HEAD, "block_count": layers}
    return Made("llama", {**numbers(heads, kv_heads, ff), **more}, _all(ends(), *blocks), kind)


def qwen3moe(*, experts: int = 16, used: int = 4, ff: int = 768) -> Made:
    """Qwen 3 with experts, norms on queries and keys, and a head size of its own."""
    parts = [
        _all(attention(i, 16, 4, 128), _norms(i, attn_q_norm=128, attn_k_norm=128), routed(i, experts, ff))
        for i in range(LAYERS)
    ]
    more = {
        "attention.key_length": 128,
        "attention.value_length": 128,
        "expert_count": experts,
        "expert_used_count": used,
        "expert_feed_forward_length": ff,
    }
    return Made("qwen3moe", {**numbers(16, 4, 3072), **more}, _all(ends(), *parts))


def gemma3(*, window: int = 1024, layers: int = 6) -> Made:
    """Gemma 3: five layers with a window, then one without, and an embedding that is the head as well."""
    parts = [
        _all(
            attention(i, 8, 4, 128),
            dense(i, 4096),
            _norms(i, attn_q_norm=128, attn_k_norm=128, post_attention_norm=WIDTH, post_ffw_norm=WIDTH),
        )
        for i in range(layers)
    ]
    more = {
        "block_count": layers,
        "attention.key_length": 128,
        "attention.value_length": 128,
        "attention.sliding_window": window,
    }
    return Made("gemma3", {**numbers(8, 4, 4096), **more}, _all(ends(tied=True), *parts))


def gpt_oss(*, experts: int = 8, used: int = 4, ff: int = 1024, window: int = 128) -> Made:
    """gpt-oss: experts with biases, sinks, and a window on every second layer."""
    parts = []
    for i in range(LAYERS):
        block = f"blk.{i}"
        biases: dict[str, Dimensions] = {
            f"{block}.attn_q.bias": (16 * HEAD,),
            f"{block}.attn_k.bias": (4 * HEAD,),
            f"{block}.attn_v.bias": (4 * HEAD,),
            f"{block}.attn_output.bias": (WIDTH,),
            f"{block}.attn_sinks.weight": (16,),
            f"{block}.ffn_gate_inp.bias": (experts,),
            f"{block}.ffn_gate_exps.bias": (experts, ff),
            f"{block}.ffn_up_exps.bias": (experts, ff),
            f"{block}.ffn_down_exps.bias": (experts, WIDTH),
        }
        parts.append(_all(attention(i, 16, 4), routed(i, experts, ff, norm="post_attention_norm"), biases))
    more = {
        "attention.key_length": HEAD,
        "attention.value_length": HEAD,
        "attention.sliding_window": window,
        "expert_count": experts,
        "expert_used_count": used,
        "expert_feed_forward_length": ff,
    }
    return Made("gpt-oss", {**numbers(16, 4, ff), **more}, _all(ends(), *parts))


def mamba(*, inner: int = 2048, state: int = 16, kernel: int = 4) -> Made:
    """Mamba: no attention at all, a state for each sequence."""
    rank = WIDTH // 16
    parts: list[dict[str, Dimensions]] = [
        {
            f"blk.{i}.attn_norm.weight": (WIDTH,),
            f"blk.{i}.ssm_in.weight": (2 * inner, WIDTH),
            f"blk.{i}.ssm_conv1d.weight": (inner, kernel),
            f"blk.{i}.ssm_conv1d.bias": (inner,),
            f"blk.{i}.ssm_x.weight": (rank + 2 * state, inner),
            f"blk.{i}.ssm_dt.weight": (inner, rank),
            f"blk.{i}.ssm_dt.bias": (inner,),
            f"blk.{i}.ssm_a": (inner, state),
            f"blk.{i}.ssm_d": (inner,),
            f"blk.{i}.ssm_out.weight": (WIDTH, inner),
        }
        for i in range(LAYERS)
    ]
    more = {
        "ssm.conv_kernel": kernel,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": rank,
    }
    plain = numbers(0, 0, 0)
    return Made("mamba", {**plain, **more}, _all(ends(), *parts))


def lfm2(*, kernel: int = 3, ff: int = 2816) -> Made:
    """LFM 2: short convolutions, and attention on every second layer."""
    kv_heads = [0 if i % 2 == 0 else 4 for i in range(LAYERS)]
    parts: list[dict[str, Dimensions]] = []
    for i, kv in enumerate(kv_heads):
        block = f"blk.{i}"
        mixer: dict[str, Dimensions] = {
            f"{block}.attn_norm.weight": (WIDTH,),
            f"{block}.shortconv.conv.weight": (WIDTH, kernel),
            f"{block}.shortconv.in_proj.weight": (3 * WIDTH, WIDTH),
            f"{block}.shortconv.out_proj.weight": (WIDTH, WIDTH),
        }
        if kv:
            mixer = _all(attention(i, 16, kv), _norms(i, attn_q_norm=HEAD, attn_k_norm=HEAD))
        parts.append(_all(mixer, dense(i, ff)))
    more = {"shortconv.l_cache": kernel, "vocab_size": VOCABULARY}
    ends_ = ends(tied=True, norm="token_embd_norm")
    return Made("lfm2", {**numbers(16, kv_heads, ff), **more}, _all(ends_, *parts))


def falcon_h1(*, inner: int = 2048, state: int = 64, kernel: int = 4, ff: int = 2816) -> Made:
    """Falcon H1: attention and a state space side by side in every layer."""
    groups, heads = 1, 32
    parts: list[dict[str, Dimensions]] = []
    for i in range(LAYERS):
        block = f"blk.{i}"
        mixer: dict[str, Dimensions] = {
            f"{block}.ssm_in.weight": (2 * inner + 2 * groups * state + heads, WIDTH),
            f"{block}.ssm_conv1d.weight": (inner + 2 * groups * state, kernel),
            f"{block}.ssm_conv1d.bias": (inner + 2 * groups * state,),
            f"{block}.ssm_dt.bias": (heads,),
            f"{block}.ssm_a": (heads, 1),
            f"{block}.ssm_d": (heads, 1),
            f"{block}.ssm_norm.weight": (groups, inner // groups),
            f"{block}.ssm_out.weight": (WIDTH, inner),
        }
        ff_part = dense(i, ff)
        ff_part[f"{block}.ffn_norm"] = ff_part.pop(f"{block}.ffn_norm.weight")  # its own spelling
        parts.append(_all(attention(i, 16, 4), mixer, ff_part))
    more = {
        "rope.dimension_count": HEAD,
        "attention.key_length": HEAD,
        "attention.value_length": HEAD,
        "ssm.conv_kernel": kernel,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": heads,
        "ssm.group_count": groups,
    }
    return Made("falcon-h1", {**numbers(16, 4, ff), **more}, _all(ends(), *parts))


def qwen3next(
    *, heads_k: int = 8, heads_v: int = 16, size: int = 128, experts: int = 16, used: int = 4
) -> Made:
    """Qwen 3 Next: a delta network on three layers of four, attention on the fourth, and experts."""
    key, value, ff, shared = heads_k * size, heads_v * size, 512, 512
    parts: list[dict[str, Dimensions]] = []
    for i in range(LAYERS):
        block = f"blk.{i}"
        mixer: dict[str, Dimensions] = {
            f"{block}.attn_norm.weight": (WIDTH,),
            f"{block}.attn_qkv.weight": (2 * key + value, WIDTH),
            f"{block}.attn_gate.weight": (value, WIDTH),
            f"{block}.ssm_conv1d.weight": (2 * key + value, 4),
            f"{block}.ssm_dt.bias": (heads_v,),
            f"{block}.ssm_a": (heads_v,),
            f"{block}.ssm_ba.weight": (2 * heads_v, WIDTH),
            f"{block}.ssm_norm.weight": (size,),
            f"{block}.ssm_out.weight": (WIDTH, value),
        }
        if (i + 1) % 4 == 0:
            mixer = _all(attention(i, 8, 2, 256), _norms(i, attn_q_norm=256, attn_k_norm=256))
            mixer[f"{block}.attn_q.weight"] = (2 * 8 * 256, WIDTH)  # queries, and what gates the result
        expert: dict[str, Dimensions] = {
            f"{block}.ffn_gate_inp_shexp.weight": (WIDTH,),
            f"{block}.ffn_gate_shexp.weight": (shared, WIDTH),
            f"{block}.ffn_up_shexp.weight": (shared, WIDTH),
            f"{block}.ffn_down_shexp.weight": (WIDTH, shared),
        }
        parts.append(_all(mixer, routed(i, experts, ff, norm="post_attention_norm"), expert))
    more = {
        "attention.key_length": 256,
        "attention.value_length": 256,
        "rope.dimension_count": 64,
        "expert_count": experts,
        "expert_used_count": used,
        "expert_feed_forward_length": ff,
        "expert_shared_feed_forward_length": shared,
        "ssm.conv_kernel": 4,
        "ssm.inner_size": value,
        "ssm.state_size": size,
        "ssm.time_step_rank": heads_v,
        "ssm.group_count": heads_k,
    }
    return Made("qwen3next", {**numbers(8, 2, 2048), **more}, _all(ends(), *parts))


def deepseek2(*, rank: int = 512, rope: int = 64, nope: int = 64, value: int = 64, heads: int = 16) -> Made:
    """DeepSeek 2: keys and values are kept compressed, and there is no cache of values beside."""
    parts: list[dict[str, Dimensions]] = []
    for i in range(LAYERS):
        block = f"blk.{i}"
        latent: dict[str, Dimensions] = {
            f"{block}.attn_norm.weight": (WIDTH,),
            f"{block}.attn_q_a.weight": (256, WIDTH),
            f"{block}.attn_q_a_norm.weight": (256,),
            f"{block}.attn_q_b.weight": (heads * (nope + rope), 256),
            f"{block}.attn_kv_a_mqa.weight": (rank + rope, WIDTH),
            f"{block}.attn_kv_a_norm.weight": (rank,),
            f"{block}.attn_k_b.weight": (heads, rank, nope),
            f"{block}.attn_v_b.weight": (heads, value, rank),
            f"{block}.attn_output.weight": (WIDTH, heads * value),
        }
        shared: dict[str, Dimensions] = {
            f"{block}.ffn_gate_shexp.weight": (512, WIDTH),
            f"{block}.ffn_up_shexp.weight": (512, WIDTH),
            f"{block}.ffn_down_shexp.weight": (WIDTH, 512),
        }
        parts.append(_all(latent, dense(i, 2816) if i == 0 else _all(routed(i, 8, 512), shared)))
    more = {
        "attention.key_length": rank + rope,
        "attention.value_length": rank,
        "attention.key_length_mla": nope + rope,
        "attention.value_length_mla": value,
        "attention.kv_lora_rank": rank,
        "attention.q_lora_rank": 256,
        "rope.dimension_count": rope,
        "leading_dense_block_count": 1,
        "expert_count": 8,
        "expert_used_count": 2,
        "expert_shared_count": 1,
        "expert_feed_forward_length": 512,
        "expert_weights_scale": 1.0,
        "vocab_size": VOCABULARY,
    }
    return Made("deepseek2", {**numbers(heads, 1, 2816), **more}, _all(ends(), *parts))
