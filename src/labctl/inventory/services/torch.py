"""Engines in Python: vLLM, SGLang and TabbyAPI, each in a virtual environment of its own.

Options bear the engine's own names, with ``_`` for ``-``; what is None is left to the engine.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from labctl.inventory.fields import Count, Flag, Label, Real, Text, Whole
from labctl.inventory.services.program import Engine

Fraction = Annotated[float, Field(strict=True, gt=0, le=1)]


class Vllm(Engine):
    """vLLM's server for one model, on one host or on a Ray cluster."""

    kind: Literal["vllm"] = Field(default="vllm", description="Always ``vllm``.")
    max_model_len: Count | None = Field(
        default=None, description="Context in tokens; default: the model's own."
    )
    max_num_seqs: Count | None = Field(default=None, description="Requests at a time.")
    max_num_batched_tokens: Count | None = Field(default=None, description="Tokens in one step.")
    gpu_memory_utilization: Fraction | None = Field(
        default=None, description="Share of each card that it takes; vLLM takes 0.9 of its own accord."
    )
    tensor_parallel_size: Count | None = Field(default=None, description="Cards that share each layer.")
    pipeline_parallel_size: Count | None = Field(default=None, description="Stages of layers.")
    data_parallel_size: Count | None = Field(default=None, description="Copies of the model.")
    enable_expert_parallel: Flag | None = Field(default=None, description="Deal out whole experts.")
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] | None = Field(
        default=None, description="Type of the weights in memory."
    )
    quantization: Text | None = Field(default=None, description="Method of quantisation, such as awq or fp8.")
    kv_cache_dtype: Text | None = Field(default=None, description="Type of the cache, such as fp8.")
    enable_prefix_caching: Flag | None = Field(default=None, description="Reuse the cache of equal prompts.")
    enforce_eager: Flag | None = Field(default=None, description="No CUDA graphs: less memory, slower.")
    cpu_offload_gb: Real | None = Field(default=None, description="GiB of weights in the machine's memory.")
    swap_space: Real | None = Field(default=None, description="GiB of the machine's memory for each card.")
    speculative_config: dict[str, Any] = Field(
        default={}, description="Speculative decoding, as vLLM takes it."
    )
    tool_call_parser: Text | None = Field(default=None, description="How calls of tools are read.")
    enable_auto_tool_choice: Flag | None = Field(default=None, description="Let the model choose tools.")
    reasoning_parser: Text | None = Field(default=None, description="How thoughts are read.")
    enable_sleep_mode: Flag | None = Field(
        default=None, description="Let llama-swap put it to sleep instead of stopping it."
    )
    cluster: Label | None = Field(default=None, description="A RayCluster(...) of the rack that it runs on.")


class Sglang(Engine):
    """SGLang's server for one model."""

    kind: Literal["sglang"] = Field(default="sglang", description="Always ``sglang``.")
    context_length: Count | None = Field(
        default=None, description="Context in tokens; default: the model's own."
    )
    max_running_requests: Count | None = Field(default=None, description="Requests at a time.")
    max_total_tokens: Count | None = Field(default=None, description="Tokens in the cache.")
    mem_fraction_static: Fraction | None = Field(
        default=None, description="Share of each card for weights and cache."
    )
    tp_size: Count | None = Field(default=None, description="Cards that share each layer.")
    pp_size: Count | None = Field(default=None, description="Stages of layers.")
    dp_size: Count | None = Field(default=None, description="Copies of the model.")
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] | None = Field(
        default=None, description="Type of the weights in memory."
    )
    quantization: Text | None = Field(default=None, description="Method of quantisation.")
    kv_cache_dtype: Text | None = Field(default=None, description="Type of the cache, such as fp8_e5m2.")
    chunked_prefill_size: Count | None = Field(default=None, description="Tokens of a prompt at a time.")
    speculative_algorithm: Text | None = Field(default=None, description="How tokens are drafted.")
    speculative_num_steps: Count | None = Field(default=None, description="Steps of drafting.")
    tool_call_parser: Text | None = Field(default=None, description="How calls of tools are read.")
    reasoning_parser: Text | None = Field(default=None, description="How thoughts are read.")


class TabbyApi(Engine):
    """TabbyAPI (ExLlamaV3) for one model; options as in its config.yml."""

    kind: Literal["tabbyapi"] = Field(default="tabbyapi", description="Always ``tabbyapi``.")
    max_seq_len: Count | None = Field(
        default=None, description="Context in tokens; default: the model's own."
    )
    cache_size: Count | None = Field(default=None, description="Tokens in the cache, of all requests.")
    cache_mode: Text | None = Field(default=None, description='Type of the cache, such as "FP16" or "8,8".')
    max_batch_size: Count | None = Field(default=None, description="Requests at a time.")
    chunk_size: Count | None = Field(default=None, description="Tokens of a prompt at a time.")
    tensor_parallel: Flag | None = Field(default=None, description="Share each layer among the cards.")
    gpu_split_auto: Flag | None = Field(default=None, description="Deal layers out by free memory.")
    gpu_split: tuple[Real, ...] = Field(default=(), description="GiB on each card.")
    autosplit_reserve: tuple[Whole, ...] = Field(default=(), description="MiB left free on each card.")
    prompt_template: Text | None = Field(default=None, description="Name of a chat template.")
    draft_cache_mode: Text | None = Field(default=None, description="Type of the draft model's cache.")
