"""A rack of three hosts around llama-swap: two that serve, by groups and by a matrix, one that asks both."""

from __future__ import annotations

from labctl.inventory import (
    Artifact,
    Command,
    Gpu,
    Host,
    LlamaServer,
    LlamaSwap,
    LlamaSwapBuild,
    Model,
    ModelFile,
    PrivateNet,
    Rack,
    Secret,
    Sglang,
    SwapGroup,
    SwapMatrix,
    Swapped,
    Vllm,
    WakeOnLan,
)

UUIDS = [f"GPU-{n}1111111-2222-3333-4444-555555555555" for n in range(2)]


def _model(name: str, gb: int, *aliases: str) -> Model:
    file = ModelFile(name="model.gguf", sha256=f"{gb:064x}", size=gb * 10**9)
    return Model(id=name, source=f"https://models.example/{name}", files=(file,), aliases=aliases)


MODELS = (_model("qwen", 40, "big", "coder"), _model("tiny", 1), _model("embed", 1))
ONE = LlamaSwap(
    name="swap",
    port=8080,
    listen="0.0.0.0",
    api_key=Secret(file="keys/one"),
    global_ttl="30m",
    preload=("tiny",),
    macros={"about": "one"},
    groups=(
        SwapGroup(name="large", members=("qwen", "org/odd:1")),
        SwapGroup(name="small", members=("tiny",), swap=False, exclusive=False, persistent=True),
    ),
    models=(
        Swapped(
            engine=LlamaServer(name="e1", binary="/usr/bin/e", model="big", gpus=("s0", "s1"), ctx_size=8192),
            ttl="2h",
            concurrency_limit=4,
            send_loading_state=True,
            unload_timeout="45s",
            settings={"description": "the ${about}", "filters": {"stripParams": "top_k"}},
        ),
        Swapped(
            engine=LlamaServer(
                name="e2", binary="/usr/bin/e", model="tiny", extra_args=("--chat-template", "a 'b' ${x} $")
            ),
        ),
        Swapped(engine=Sglang(name="e3", binary="/usr/bin/s", model="org/odd:1"), unlisted=True),
        Swapped(engine=Command(name="tts", argv=("/usr/bin/tts", "--port=${PORT}"), env={"VOICE": "${me}"})),
    ),
    settings={"logLevel": "warn", "routing": {"scheduler": {"use": "fifo"}}, "includeAliasesInList": True},
)
TWO = LlamaSwap(
    name="swap",
    port=8081,
    listen="0.0.0.0",
    api_key=Secret(env="TWO_KEY"),
    matrix=SwapMatrix(vars={"e": "embed"}, sets={"all": "e & sleeper"}, evict_costs={"e": 9}),
    macros={"vllm-wrapper": "/usr/local/bin/vllm-wrapper"},
    models=(
        Swapped(engine=LlamaServer(name="e1", binary="/usr/bin/e", model="embed")),
        Swapped(
            engine=Vllm(
                name="e2", binary="/usr/bin/v", model="sleeper", enable_sleep_mode=True, load_timeout="5m"
            ),
            sleep=True,
        ),
    ),
)
FRONT = LlamaSwap(name="front", port=8080, listen="0.0.0.0", api_key=Secret(file="keys/front"), peers="rack")
RACK = Rack(
    name="rack",
    engines=(
        LlamaSwapBuild(
            version="250", archive=Artifact(url="https://example/llama-swap.tar.gz", sha256="0" * 64)
        ),
    ),
    models=(
        *MODELS,
        Model(id="sleeper", source="/srv/models/sleeper"),
        Model(id="org/odd:1", source="/srv/models/odd"),
    ),
    hosts=(
        Host(
            name="one",
            address="10.0.0.1",
            private=PrivateNet(interface="eth1", address="192.168.7.1"),
            disk_mb_s=100,
            open_ports=(8080,),
            wake=WakeOnLan(mac="52:54:00:00:00:01"),
            gpus=tuple(Gpu(model="RTX 3090", slot=f"s{n}", uuid=uuid) for n, uuid in enumerate(UUIDS)),
            services=(ONE,),
        ),
        Host(name="two", address="10.0.0.2", open_ports=(8081,), services=(TWO,)),
        Host(
            name="front",
            address="10.0.0.3",
            private=PrivateNet(interface="eth1", address="192.168.7.3"),
            open_ports=(8080,),
            services=(FRONT,),
        ),
    ),
)
