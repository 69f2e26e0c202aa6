"""llama.cpp: its server, and the worker that lends a host's cards to a server elsewhere.

Options bear llama-server's own names, with ``_`` for ``-``; what is None is left to llama-server. Whether the
installed build knows them is checked against its ``--help`` before anything restarts.
"""

from typing import Annotated, Literal

from pydantic import Field

from labctl.inventory.fields import Count, Flag, GpuRef, Label, Real, RemotePath, Text, Whole
from labctl.inventory.services.program import Engine, Program

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]
OnOffAuto = Literal["on", "off", "auto"]
Layers = Literal["auto", "all"] | Whole
Probability = Annotated[float, Field(strict=True, ge=0, le=1)]


class LlamaServer(Engine):
    """llama.cpp's server for one model."""

    kind: Literal["llama-server"] = Field(default="llama-server", description="Always ``llama-server``.")
    ctx_size: Count | None = Field(
        default=None, description="Context in tokens, shared by `parallel` slots; default: the model's own."
    )
    parallel: Count | None = Field(default=None, description="Requests at a time (slots).")
    kv_unified: Flag | None = Field(default=None, description="One cache for all slots.")
    batch_size: Count | None = Field(default=None, description="Tokens of a prompt at a time.")
    ubatch_size: Count | None = Field(default=None, description="Tokens of one physical batch.")
    cache_type_k: CacheType | None = Field(default=None, description="Type of the cached keys.")
    cache_type_v: CacheType | None = Field(default=None, description="Type of the cached values.")
    cache_ram: Whole | None = Field(default=None, description="Host memory for cached prompts in MiB.")
    swa_full: Flag | None = Field(default=None, description="Cache of full size for sliding windows.")
    n_gpu_layers: Layers | None = Field(default=None, description="Layers kept on GPUs.")
    split_mode: Literal["none", "layer", "row", "tensor"] | None = Field(
        default=None, description="How the model is dealt out to several GPUs."
    )
    tensor_split: tuple[Real, ...] = Field(default=(), description="Share of each GPU.")
    main_gpu: Whole | None = Field(default=None, description="The GPU for what is not split, counted from 0.")
    cpu_moe: Flag | None = Field(default=None, description="Keep all experts in the machine's memory.")
    n_cpu_moe: Whole | None = Field(default=None, description="Keep the experts of the first N layers there.")
    flash_attn: OnOffAuto | None = Field(default=None, description="Flash attention.")
    load_mode: Literal["auto", "none", "mmap", "mlock", "mmap+mlock", "dio"] | None = Field(
        default=None, description="How weights are read."
    )
    threads: Count | None = Field(default=None, description="Processor threads.")
    mmproj_offload: Flag | None = Field(default=None, description="Keep the projector on a GPU.")
    jinja: Flag | None = Field(default=None, description="Use the model's own chat template.")
    chat_template_file: RemotePath | None = Field(default=None, description="A chat template on the host.")
    reasoning_format: Text | None = Field(default=None, description="How thoughts are returned.")
    reasoning_budget: Annotated[int, Field(strict=True, ge=-1, le=2**31 - 1)] | None = Field(
        default=None, description="Tokens for thoughts; -1 is no limit."
    )
    temp: Real | None = Field(default=None, description="Temperature, where a request gives none.")
    top_k: Whole | None = Field(default=None, description="Top-k, where a request gives none.")
    top_p: Probability | None = Field(default=None, description="Top-p, where a request gives none.")
    min_p: Probability | None = Field(default=None, description="Min-p, where a request gives none.")
    repeat_penalty: Real | None = Field(
        default=None, description="Repeat penalty, where a request gives none."
    )
    presence_penalty: Real | None = Field(default=None, description="Presence penalty, likewise.")
    spec_type: Text | None = Field(
        default=None, description="How tokens are drafted; default: as the model's `draft` and `mtp` say."
    )
    spec_draft_n_max: Count | None = Field(default=None, description="Most tokens drafted at a time.")
    spec_draft_n_min: Whole | None = Field(default=None, description="Fewest tokens drafted at a time.")
    spec_draft_p_min: Probability | None = Field(default=None, description="Least probability of a draft.")
    spec_draft_ngl: Layers | None = Field(default=None, description="Layers of the draft model on GPUs.")
    sleep_idle_seconds: Count | None = Field(
        default=None, description="Unload the model when nobody used it for so long."
    )
    slots: Flag | None = Field(default=None, description="Show what the slots do.")
    rpc: tuple[Label, ...] = Field(
        default=(), description="Hosts with an RpcServer whose cards help, over the private network."
    )


class RpcServer(Program):
    """llama.cpp's rpc-server: lends the cards of its host. It listens on the host's private address only."""

    kind: Literal["rpc-server"] = Field(default="rpc-server", description="Always ``rpc-server``.")
    gpus: tuple[GpuRef, ...] = Field(default=(), description="GPUs it lends; default: all of the host.")
    version: Text | None = Field(default=None, description="Which of the rack's `engines` it is from.")
    binary: RemotePath | None = Field(default=None, description="A program on the host instead of `version`.")
    cache: Flag = Field(default=False, description="Keep weights on this host's disk between loads.")
