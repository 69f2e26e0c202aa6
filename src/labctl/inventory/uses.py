"""How each engine runs a model, in the terms of fit planning.

What an option leaves open is taken as the engine would, and where an engine decides by what is free at that
moment (layers, context), as what the person most likely wants: all layers on the cards, the model's own
context. So a model that would only run by spilling into main memory does not fit until the rack file says how
many layers stay there.

llama-server without ``parallel`` runs four slots on one cache (its own choice since 2026), of which each may
take all of the context. With ``parallel`` the context is dealt out to the slots, unless ``kv_unified``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from labctl.domain.fit.terms import GIB, MIB, ModelShape, Use
from labctl.inventory.served import Served
from labctl.inventory.services import LlamaServer, Ollama, Sglang, TabbyApi, Vllm

_CELLS = 256
_AUTO_SLOTS = 4
_VLLM_SHARE = 0.9  # vLLM's own default of gpu_memory_utilization
_SGLANG_SHARE = 0.88  # SGLang computes its own from the card; this is what it comes to on 24 GiB
# Flags in `extra_args` that change what is counted here.
_COUNTED = {
    *("-c", "--ctx-size", "-ngl", "--n-gpu-layers", "--gpu-layers", "-np", "--parallel", "-ub", "-b"),
    *("-ctk", "-ctv", "--cache-type-k", "--cache-type-v", "-ts", "--tensor-split", "-sm", "--split-mode"),
    *(
        "-ot",
        "--override-tensor",
        "-cmoe",
        "--cpu-moe",
        "-ncmoe",
        "--n-cpu-moe",
        "--ubatch-size",
        "--batch-size",
    ),
    *(
        "-md",
        "--model-draft",
        "--mmproj",
        "--lora",
        "--swa-full",
        "-fa",
        "--flash-attn",
        "-nkvo",
        "--no-kv-offload",
    ),
    *("-kvu", "--kv-unified", "-cram", "--cache-ram", "-mg", "--main-gpu", "-dev", "--device"),
    *("--max-model-len", "--gpu-memory-utilization", "--kv-cache-dtype", "--max-num-seqs", "--swap-space"),
    *("--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp", "--max-num-batched-tokens"),
    *("--quantization", "-q", "--cpu-offload-gb", "--kv-cache-memory-bytes", "--speculative-config"),
    *("--context-length", "--mem-fraction-static", "--max-total-tokens", "--tp-size", "--tp", "--pp-size"),
    *("--chunked-prefill-size", "--cache-size", "--max-seq-len", "--cache-mode", "--gpu-split"),
}


@dataclass(frozen=True, slots=True)
class Parts:
    """What a model brings along: the shape of its draft model, and the bytes of its projector."""

    draft: ModelShape | None = None
    projector_bytes: int = 0


def use(served: Served, shape: ModelShape, parts: Parts = Parts()) -> Use:
    """Return how the engine runs the model of that shape."""
    engine = served.engine
    make = _MAKERS.get(engine.kind)
    if make is None:
        return Use("other", shape.trained_context)
    return Use(**make(served, shape, parts))


def options(served: Served) -> tuple[tuple[str, str], ...]:
    """Return the engine's words for what may be changed: context, users, cache, and the cache's type."""
    return _WORDS.get(served.engine.kind, ())


def slots(used: Use) -> int:
    """Return by how much llama-server's ``ctx_size`` counts more than the context of one sequence."""
    return used.sequences if used.engine == "llama.cpp" and not used.unified_cache else 1


def uncounted(served: Served) -> tuple[str, ...]:
    """Return the flags among ``extra_args`` that change what is counted, and are not read."""
    given = getattr(served.engine, "extra_args", ())
    return tuple(word for word in (arg.partition("=")[0] for arg in given) if word in _COUNTED)


def _cards(served: Served) -> int:
    return sum(device.kind != "ram" for device in served.devices)


def _llama_server(served: Served, shape: ModelShape, parts: Parts) -> Mapping[str, Any]:
    engine = served.engine
    assert isinstance(engine, LlamaServer)
    total = engine.ctx_size or shape.trained_context
    sequences = engine.parallel or _AUTO_SLOTS
    unified = engine.kv_unified if engine.kv_unified is not None else engine.parallel is None
    layers = engine.n_gpu_layers if isinstance(engine.n_gpu_layers, int) else None
    drafts = engine.spec_draft_ngl if isinstance(engine.spec_draft_ngl, int) else None
    experts = len(shape.layers) if engine.cpu_moe else engine.n_cpu_moe or 0
    return {
        "engine": "llama.cpp",
        "context": total if unified else _slot_tokens(total, sequences),
        "sequences": sequences,
        "unified_cache": unified,
        "cache_k": engine.cache_type_k or "f16",
        "cache_v": engine.cache_type_v or "f16",
        "gpu_layers": layers if _cards(served) else 0,
        "cpu_expert_layers": experts,
        "split": engine.split_mode or "layer",
        "shares": engine.tensor_split,
        "main_gpu": engine.main_gpu or 0,
        "flash_attention": engine.flash_attn != "off",
        "batch": engine.batch_size or 2048,
        "micro_batch": engine.ubatch_size or 512,
        "full_window_cache": bool(engine.swa_full),
        "host_cache_bytes": (engine.cache_ram or 0) * MIB,
        "projector_bytes": parts.projector_bytes,
        "projector_on_gpu": engine.mmproj_offload is not False,
        "draft": parts.draft if engine.spec_type != "none" else None,
        "draft_gpu_layers": drafts,
    }


def _vllm(served: Served, shape: ModelShape, parts: Parts) -> Mapping[str, Any]:
    engine = served.engine
    assert isinstance(engine, Vllm)
    return {
        "engine": "vllm",
        "context": engine.max_model_len or shape.trained_context,
        "cache_k": engine.kv_cache_dtype or "auto",
        "cache_v": engine.kv_cache_dtype or "auto",
        "tensor_parallel": engine.tensor_parallel_size or 1,
        "pipeline_parallel": engine.pipeline_parallel_size or 1,
        "memory_share": engine.gpu_memory_utilization or _VLLM_SHARE,
        "batch": engine.max_num_batched_tokens or 2048,
        "host_cache_bytes": int((engine.swap_space or 0) * GIB),
        "projector_bytes": parts.projector_bytes,
        "draft": parts.draft,
    }


def _sglang(served: Served, shape: ModelShape, parts: Parts) -> Mapping[str, Any]:
    engine = served.engine
    assert isinstance(engine, Sglang)
    return {
        "engine": "sglang",
        "context": engine.max_total_tokens or engine.context_length or shape.trained_context,
        "cache_k": engine.kv_cache_dtype or "auto",
        "cache_v": engine.kv_cache_dtype or "auto",
        "tensor_parallel": engine.tp_size or 1,
        "pipeline_parallel": engine.pp_size or 1,
        "memory_share": engine.mem_fraction_static or _SGLANG_SHARE,
        "batch": engine.chunked_prefill_size or 2048,
        "projector_bytes": parts.projector_bytes,
        "draft": parts.draft,
    }


def _tabbyapi(served: Served, shape: ModelShape, parts: Parts) -> Mapping[str, Any]:
    engine = served.engine
    assert isinstance(engine, TabbyApi)
    keys, _, values = (engine.cache_mode or "FP16").partition(",")
    return {
        "engine": "tabbyapi",
        "context": engine.cache_size or engine.max_seq_len or shape.trained_context,
        "cache_k": keys.strip().lower(),
        "cache_v": (values or keys).strip().lower(),
        "tensor_parallel": _cards(served) if engine.tensor_parallel else 1,
        "shares": engine.gpu_split,
        "micro_batch": engine.chunk_size or 2048,
        "draft": parts.draft,
    }


def _ollama(served: Served, shape: ModelShape, parts: Parts) -> Mapping[str, Any]:
    engine = served.engine
    assert isinstance(engine, Ollama)
    context = engine.context_length or _ollama_context(served)
    return {
        "engine": "ollama",
        "context": min(context, shape.trained_context or context),
        "sequences": engine.num_parallel or 1,
        "cache_k": engine.kv_cache_type or "f16",
        "cache_v": engine.kv_cache_type or "f16",
        "flash_attention": engine.flash_attention is not False,
        "gpu_layers": None if _cards(served) else 0,
        "projector_bytes": parts.projector_bytes,
    }


def _slot_tokens(total: int, sequences: int) -> int:
    """Return the tokens of one slot: llama-server rounds the whole up to 256 before it deals it out."""
    whole = -(-total // _CELLS) * _CELLS
    return -(-whole // sequences)


def _ollama_context(served: Served) -> int:
    """Return the context that Ollama takes of its own accord, by the memory of all its cards."""
    cards = sum(device.memory_bytes for device in served.devices if device.kind != "ram")
    return 4096 if cards < 24 * GIB else 32768 if cards < 48 * GIB else 262144


_MAKERS: Mapping[str, Callable[[Served, ModelShape, Parts], Mapping[str, Any]]] = {
    "llama-server": _llama_server,
    "vllm": _vllm,
    "sglang": _sglang,
    "tabbyapi": _tabbyapi,
    "ollama": _ollama,
}
_WORDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "llama-server": (
        ("cache", 'cache_type_k="q8_0", cache_type_v="q8_0"'),
        ("context", "ctx_size"),
    ),
    "vllm": (("cache", 'kv_cache_dtype="fp8"'), ("narrow", "fp8"), ("context", "max_model_len")),
    "sglang": (("cache", 'kv_cache_dtype="fp8_e5m2"'), ("narrow", "fp8_e5m2"), ("context", "context_length")),
    "tabbyapi": (("cache", 'cache_mode="8,8"'), ("narrow", "8"), ("context", "cache_size")),
    "ollama": (
        ("cache", 'kv_cache_type="q8_0"'),
        ("context", "context_length"),
        ("users", "num_parallel"),
    ),
}
