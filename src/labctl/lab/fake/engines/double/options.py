"""The flags of the engines by their real names, as rows; what a double does not need, it only knows.

A row: names, what kind of value, what it is for. Kinds: ``flag`` (also ``--no-...``), ``switch`` (without
``--no-...``), ``int``, ``float``, ``str``, ``json``, ``many`` (several words), or a tuple of the values that
there are. Sources: vllm/engine/arg_utils.py and vllm/entrypoints/openai/cli_args.py;
sglang/srt/server_args.py.
"""

from __future__ import annotations

Kind = str | tuple[str, ...]
Row = tuple[str, Kind, str]
DTYPES = ("auto", "bfloat16", "float", "float16", "float32", "half")
LEVELS = ("critical", "debug", "error", "info", "trace", "warning")

VLLM: dict[str, tuple[str, tuple[Row, ...]]] = {
    "Frontend": (
        "Arguments for the OpenAI-compatible frontend server.",
        (
            ("--host", "str", "Host name."),
            ("--port", "int", "Port number."),
            ("--uds", "str", "Unix domain socket path; host and port are ignored with it."),
            ("--api-key", "many", "Keys of which clients must present one in the header."),
            ("--uvicorn-log-level", LEVELS, "Log level for uvicorn."),
            ("--disable-uvicorn-access-log", "flag", "Disable uvicorn access log."),
            ("--allowed-origins", "json", "Allowed origins."),
            ("--root-path", "str", "FastAPI root_path behind a path based routing proxy."),
            ("--ssl-keyfile", "str", "The file path to the SSL key file."),
            ("--ssl-certfile", "str", "The file path to the SSL cert file."),
            ("--chat-template", "str", "The chat template, a file or one line."),
            ("--response-role", "str", "The role name of generated messages."),
            ("--enable-auto-tool-choice", "flag", "Let the model choose tools."),
            ("--tool-call-parser", "str", "Which parser reads calls of tools."),
            ("--enable-log-requests", "flag", "Log requests."),
            ("--headless", "switch", "Run without API servers, on further nodes."),
            ("--api-server-count -asc", "int", "How many API server processes to run."),
            ("--config", "str", "Read options from a YAML file."),
        ),
    ),
    "ModelConfig": (
        "Configuration for the model.",
        (
            ("--model", "str", "Name or path of the model."),
            ("--runner", ("auto", "draft", "generate", "pooling"), "The type of model runner to use."),
            ("--convert", ("auto", "classify", "embed", "none", "reward"), "Convert the model by adapters."),
            ("--tokenizer", "str", "Name or path of the tokenizer."),
            ("--trust-remote-code", "flag", "Trust remote code."),
            ("--dtype", DTYPES, "Data type for model weights and activations."),
            ("--seed", "int", "Random seed."),
            ("--revision", "str", "The model version to use."),
            ("--max-model-len", "str", "Model context length; human-readable such as 32k, or auto."),
            ("--quantization -q", "str", "Method used to quantize the weights."),
            ("--enforce-eager", "flag", "Always use eager-mode PyTorch."),
            ("--served-model-name", "many", "The model names used in the API."),
            ("--enable-sleep-mode", "flag", "Enable sleep mode for the engine."),
            ("--generation-config", "str", "The folder path to the generation config."),
            ("--limit-mm-per-prompt", "json", "Items of each modality in a prompt."),
            ("--skip-tokenizer-init", "flag", "Skip initialization of tokenizer."),
        ),
    ),
    "LoadConfig": (
        "Configuration for loading the model weights.",
        (
            ("--load-format", "str", "The format of the model weights to load."),
            ("--download-dir", "str", "Directory to download and load the weights."),
        ),
    ),
    "StructuredOutputsConfig": (
        "Dataclass which contains structured outputs config for the engine.",
        (("--reasoning-parser", "str", "Which parser reads thoughts."),),
    ),
    "ParallelConfig": (
        "Configuration for the distributed execution.",
        (
            (
                "--distributed-executor-backend",
                ("external_launcher", "mp", "ray", "uni"),
                "Backend to use for distributed model workers.",
            ),
            ("--pipeline-parallel-size -pp", "int", "Number of pipeline parallel groups."),
            ("--tensor-parallel-size -tp", "int", "Number of tensor parallel groups."),
            ("--data-parallel-size -dp", "int", "Number of data parallel groups."),
            ("--enable-expert-parallel -ep", "flag", "Use expert parallelism for MoE layers."),
            ("--master-addr", "str", "Distributed master address for multi-node inference."),
            ("--master-port", "int", "Distributed master port for multi-node inference."),
            ("--nnodes -n", "int", "Number of nodes for multi-node inference."),
            ("--node-rank -r", "int", "Rank of this node."),
            ("--disable-custom-all-reduce", "flag", "Disable the custom all-reduce kernel."),
        ),
    ),
    "CacheConfig": (
        "Configuration for the KV cache.",
        (
            ("--block-size", "int", "Size of a contiguous cache block in number of tokens."),
            ("--gpu-memory-utilization", "float", "The fraction of GPU memory to be used."),
            ("--kv-cache-memory-bytes", "str", "Size of KV Cache per GPU in bytes."),
            ("--swap-space", "float", "Size of the CPU swap space per GPU in GiB."),
            ("--kv-cache-dtype", "str", "Data type for kv cache storage."),
            ("--enable-prefix-caching", "flag", "Whether to enable prefix caching."),
            ("--cpu-offload-gb", "float", "The space in GiB to offload to CPU, per GPU."),
        ),
    ),
    "SchedulerConfig": (
        "Scheduler configuration.",
        (
            ("--max-num-batched-tokens", "int", "Maximum number of tokens in a single iteration."),
            ("--max-num-seqs", "int", "Maximum number of sequences in a single iteration."),
            ("--scheduling-policy", ("fcfs", "priority"), "The scheduling policy to use."),
            ("--enable-chunked-prefill", "flag", "Prefill requests can be chunked."),
        ),
    ),
    "VllmConfig": (
        "Dataclass which contains all vllm-related configuration.",
        (
            ("--speculative-config -sc", "json", "Speculative decoding configuration."),
            ("--compilation-config -cc", "json", "torch.compile and cudagraph capture configuration."),
            ("--kv-transfer-config", "json", "The configurations for distributed KV cache transfer."),
            ("--additional-config", "json", "Additional config for specified platform."),
            ("--optimization-level", "int", "The optimization level."),
        ),
    ),
    "AsyncEngineArgs": (
        "Arguments for asynchronous vLLM engine.",
        (("--disable-log-stats", "switch", "Disable logging statistics."),),
    ),
}

SGLANG: tuple[Row, ...] = (
    ("--model-path --model", "str", "The path of the model weights."),
    ("--tokenizer-path", "str", "The path of the tokenizer."),
    ("--host", "str", "The host of the HTTP server."),
    ("--port", "int", "The port of the HTTP server."),
    ("--config", "str", "Read CLI options from a config file (YAML)."),
    ("--api-key", "str", "Set API key of the server."),
    ("--admin-api-key", "str", "Set admin API key for sensitive management endpoints."),
    ("--served-model-name", "str", "Override the model name returned by the v1/models endpoint."),
    ("--is-embedding", "switch", "Whether to use a CausalLM as an embedding model."),
    ("--trust-remote-code", "switch", "Whether or not to allow for custom models."),
    ("--context-length", "int", "The model's maximum context length."),
    ("--dtype", DTYPES, "Data type for model weights and activations."),
    ("--quantization", "str", "The quantization method."),
    ("--kv-cache-dtype", "str", "Data type for kv cache storage."),
    ("--mem-fraction-static", "float", "The fraction of the memory used for static allocation."),
    ("--max-running-requests", "int", "The maximum number of running requests."),
    ("--max-queued-requests", "int", "The maximum number of queued requests."),
    ("--max-total-tokens", "int", "The maximum number of tokens in the memory pool."),
    ("--chunked-prefill-size", "int", "The maximum number of tokens in a chunk."),
    ("--tensor-parallel-size --tp-size --tp", "int", "The tensor parallelism size."),
    ("--pipeline-parallel-size --pp-size --pp", "int", "The pipeline parallelism size."),
    ("--data-parallel-size --dp-size --dp", "int", "The data parallelism size."),
    ("--dist-init-addr --nccl-init-addr", "str", "The host address for initializing distributed backend."),
    ("--nnodes", "int", "The number of nodes."),
    ("--node-rank", "int", "The node rank."),
    ("--enable-metrics", "switch", "Enable log prometheus metrics."),
    ("--enable-memory-saver", "switch", "Allow saving memory by release_memory_occupation."),
    ("--log-level", "str", "The logging level of all loggers."),
    ("--tool-call-parser", "str", "Specify the parser for handling tool-call interactions."),
    ("--reasoning-parser", "str", "Specify the parser for reasoning models."),
    ("--speculative-algorithm", "str", "Speculative algorithm."),
    ("--speculative-draft-model-path --speculative-draft-model", "str", "The path of the draft model."),
    ("--speculative-num-steps", "int", "The number of steps sampled from the draft model."),
    ("--skip-server-warmup", "switch", "If set, skip warmup."),
    ("--disable-radix-cache", "switch", "Disable RadixAttention for prefix caching."),
    ("--random-seed", "int", "The random seed."),
)
