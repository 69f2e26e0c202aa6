"""How engines are started: options by their own names, no secret on a command line, the right cards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from labctl.domain.problem import LabctlError
from labctl.inventory import (
    Artifact,
    Command,
    Gpu,
    Host,
    LlamaCpp,
    LlamaServer,
    LlamaSwap,
    Model,
    ModelFile,
    Nvidia,
    Ollama,
    PrivateNet,
    PythonEnv,
    Rack,
    RpcServer,
    Secret,
    Sglang,
    Swapped,
    TabbyApi,
    Vllm,
)
from labctl.inventory.engines import EngineBuild
from labctl.inventory.services import Engine
from labctl.render.launch import Launch, launch

UUIDS = tuple(f"GPU-{n}1111111-2222-3333-4444-555555555555" for n in range(3))
FILE = Artifact(url="https://example.org/x.tar.gz", sha256="a" * 64)
KEY = Secret(file="keys/chat")
SHA = "b" * 64
MODELS = (
    Model(id="tiny", source="file:///srv/tiny.gguf", path="/srv/tiny.gguf", aliases=("small", "little")),
    Model(id="drafted", source="https://e.org/d.gguf", sha256=SHA, draft="tiny"),
    Model(id="mtp", source="/srv/mtp.gguf", mtp=True),
    Model(id="embed", source="/srv/embed.gguf", kind="embedding"),
    Model(id="rerank", source="/srv/rerank.gguf", kind="rerank"),
    Model(
        id="eyes",
        source="https://e.org/eyes",
        kind="vision",
        mmproj="mmproj.gguf",
        files=(
            ModelFile(name="mmproj.gguf", sha256=SHA),
            ModelFile(name="w-00001-of-00002.gguf", sha256=SHA),
            ModelFile(name="w-00002-of-00002.gguf", sha256=SHA),
        ),
    ),
    Model(id="big", source="/srv/models/big", aliases=("large",)),
    Model(id="big-drafted", source="/srv/models/big2", draft="big"),
    Model(id="big-mtp", source="/srv/models/big3", mtp=True),
    Model(id="big-embed", source="/srv/models/big4", kind="embedding"),
)


def rig(*services: Any, cards: str = "RTX 3090", **fields: Any) -> Host:
    gpus = (
        tuple(Gpu(model=cards, slot=f"slot{n}", uuid=uuid) for n, uuid in enumerate(UUIDS)) if cards else ()
    )
    return Host(name="rig", address="10.0.0.2", **{"gpus": gpus, **fields}, services=services)


def started(
    engine: Any, host: Host | None = None, engines: tuple[EngineBuild, ...] = (), port: str = "8080"
) -> Launch:
    where = host or rig(engine)
    return launch(Rack(name="r", hosts=(where,), models=MODELS, engines=engines), where, engine, port=port)


def env(kind: str, version: str = "1.0") -> PythonEnv:
    return PythonEnv(kind=kind, version=version, requirements="r.txt", uv=FILE)


def llama(**fields: Any) -> LlamaServer:
    return LlamaServer(
        **{"name": "chat", "model": "tiny", "port": 8080, "binary": "/opt/x/llama-server", **fields}
    )


HEAD = ("/opt/x/llama-server", "--model", "/srv/tiny.gguf", "--host", "127.0.0.1", "--port", "8080")
NAMES = ("--alias", "tiny,small,little", "--metrics")
OPTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "nothing": ({}, ()),
    "context": ({"ctx_size": 4096, "parallel": 2}, ("--ctx-size", "4096", "--parallel", "2")),
    "cache": (
        {"cache_type_k": "q8_0", "cache_type_v": "q8_0", "cache_ram": 0},
        ("--cache-type-k", "q8_0", "--cache-type-v", "q8_0", "--cache-ram", "0"),
    ),
    "flags on": (
        {"kv_unified": True, "mmproj_offload": True, "jinja": True, "swa_full": True, "cpu_moe": True},
        ("--kv-unified", "--swa-full", "--cpu-moe", "--mmproj-offload", "--jinja"),
    ),
    "flags off": (
        {"kv_unified": False, "mmproj_offload": False, "slots": False, "swa_full": False, "cpu_moe": False},
        ("--no-kv-unified", "--no-mmproj-offload", "--no-slots"),
    ),
    "attention": ({"flash_attn": "on"}, ("--flash-attn", "on")),
    "layers": ({"n_gpu_layers": "all", "n_cpu_moe": 3}, ("--n-gpu-layers", "all", "--n-cpu-moe", "3")),
    "split": (
        {"split_mode": "row", "tensor_split": (1.0, 2.5), "main_gpu": 1},
        ("--split-mode", "row", "--tensor-split", "1,2.5", "--main-gpu", "1"),
    ),
    "sampling": (
        {"temp": 0.7, "top_p": 1.0, "min_p": 0.0},
        ("--temp", "0.7", "--top-p", "1", "--min-p", "0"),
    ),
    "negative": ({"reasoning_budget": -1}, ("--reasoning-budget", "-1")),
    "load": ({"load_mode": "mmap+mlock", "load_timeout": "5m"}, ("--load-mode", "mmap+mlock")),
    "more": ({"extra_args": ("--verbose", "a b")}, ("--verbose", "a b")),
}


@pytest.mark.parametrize("what", OPTIONS)
def test_llama_server_gets_each_option_by_its_own_name(what: str) -> None:
    fields, expected = OPTIONS[what]
    assert started(llama(**fields)).argv == (*HEAD, *NAMES, *expected)


KINDS = {
    "drafted": (
        "/srv/models/drafted/d.gguf",
        ("--spec-draft-model", "/srv/tiny.gguf", "--spec-type", "draft-simple"),
    ),
    "mtp": ("/srv/mtp.gguf", ("--spec-type", "draft-mtp")),
    "embed": ("/srv/embed.gguf", ("--embedding",)),
    "rerank": ("/srv/rerank.gguf", ("--reranking",)),
    "eyes": ("/srv/models/eyes/w-00001-of-00002.gguf", ("--mmproj", "/srv/models/eyes/mmproj.gguf")),
}


@pytest.mark.parametrize("model", KINDS)
def test_llama_server_serves_each_kind_of_model_by_the_flags_of_its_kind(model: str) -> None:
    path, expected = KINDS[model]
    found = started(llama(model=model))
    assert found.argv[2] == path
    assert found.argv[found.argv.index("--metrics") + 1 :] == expected
    assert path in found.reads


def test_a_stated_way_of_drafting_goes_before_the_derived_one() -> None:
    argv = started(llama(model="drafted", spec_type="ngram-simple", spec_draft_n_max=4)).argv
    assert argv[argv.index("--metrics") + 1 :] == (
        *("--spec-draft-model", "/srv/tiny.gguf"),
        *("--spec-type", "ngram-simple", "--spec-draft-n-max", "4"),
    )


def test_workers_are_named_by_their_private_addresses() -> None:
    worker = Host(
        name="two",
        address="10.0.0.3",
        private=PrivateNet(interface="eth1", address="192.168.9.2"),
        services=(RpcServer(name="rpc"),),
    )
    engine = llama(rpc=("two",))
    where = rig(engine)
    rack = Rack(name="r", hosts=(where, worker), models=MODELS)
    assert launch(rack, where, engine, port="8080").argv[-2:] == ("--rpc", "192.168.9.2:50052")
    with pytest.raises(LabctlError, match="two lends no cards over the private network"):
        launch(
            Rack(name="r", hosts=(where, worker.model_copy(update={"private": None})), models=MODELS),
            where,
            engine,
            port="1",
        )


def after(argv: tuple[str, ...], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_vllm_gets_each_option_by_its_own_name() -> None:
    engine = Vllm(
        name="v",
        model="large",
        port=8080,
        max_model_len=8192,
        gpu_memory_utilization=0.85,
        tensor_parallel_size=2,
        enable_prefix_caching=False,
        enforce_eager=True,
        kv_cache_dtype="fp8",
        speculative_config={"method": "ngram", "num_speculative_tokens": 4},
        enable_sleep_mode=True,
        extra_args=("--seed", "1"),
    )
    found = started(engine, engines=(env("vllm", "0.33.0"),))
    assert found.argv == (
        *(
            "/opt/labctl/vllm/current/bin/vllm",
            "serve",
            "/srv/models/big",
            "--host",
            "127.0.0.1",
            "--port",
            "8080",
        ),
        *(
            "--served-model-name",
            "big",
            "large",
            "--max-model-len",
            "8192",
            "--gpu-memory-utilization",
            "0.85",
        ),
        *(
            "--tensor-parallel-size",
            "2",
            "--kv-cache-dtype",
            "fp8",
            "--no-enable-prefix-caching",
            "--enforce-eager",
        ),
        *("--speculative-config", '{"method":"ngram","num_speculative_tokens":4}', "--enable-sleep-mode"),
        *("--seed", "1"),
    )
    assert found.env["VLLM_SERVER_DEV_MODE"] == "1"
    assert found.env["HF_HUB_OFFLINE"] == "1"
    caches = ("HF_HOME", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "XDG_CACHE_HOME")
    assert all(found.env[name].startswith("/var/cache/labctl-v") for name in caches)


@pytest.mark.parametrize(
    ("model", "version", "expected"),
    [
        ("big-embed", "0.33.0", ("--runner", "pooling")),
        ("big-embed", "0.9.2", ("--task", "embed")),
        (
            "big-drafted",
            "0.33.0",
            ("--speculative-config", {"method": "draft_model", "model": "/srv/models/big"}),
        ),
        ("big-mtp", "0.33.0", ("--speculative-config", {"method": "mtp"})),
    ],
)
def test_vllm_serves_each_kind_of_model(model: str, version: str, expected: tuple[str, Any]) -> None:
    argv = started(Vllm(name="v", model=model, port=1), engines=(env("vllm", version),)).argv
    flag, value = expected
    found = after(argv, flag)
    assert value == found or value.items() <= json.loads(found).items()


def test_sglang_gets_each_option_by_its_own_name_and_health_that_computes_nothing() -> None:
    engine = Sglang(name="s", model="big", port=1, context_length=8192, tp_size=2, mem_fraction_static=0.8)
    found = started(engine, engines=(env("sglang"),))
    assert found.argv == (
        *(
            "/opt/labctl/sglang/current/bin/python",
            "-m",
            "sglang.launch_server",
            "--model-path",
            "/srv/models/big",
        ),
        *("--host", "127.0.0.1", "--port", "8080", "--served-model-name", "big", "--enable-metrics"),
        *("--context-length", "8192", "--mem-fraction-static", "0.8", "--tp-size", "2"),
    )
    assert found.env["SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION"] == "false"
    drafted = started(Sglang(name="s", model="big-drafted", port=1), engines=(env("sglang"),)).argv
    assert after(drafted, "--speculative-algorithm") == "STANDALONE"
    assert after(drafted, "--speculative-draft-model-path") == "/srv/models/big"
    assert (
        "--is-embedding"
        in started(Sglang(name="s", model="big-embed", port=1), engines=(env("sglang"),)).argv
    )


def test_tabbyapi_is_told_by_its_configuration() -> None:
    engine = TabbyApi(
        name="t",
        model="big-drafted",
        port=5000,
        max_seq_len=8192,
        gpu_split=(20.0, 24.0),
        draft_cache_mode="Q8",
    )
    found = started(engine, engines=(env("tabbyapi"),))
    home = "/opt/labctl/tabbyapi/current"
    assert found.argv[:2] == (f"{home}/bin/python", f"{home}/src/main.py")
    assert found.argv[2:] == ("--config", "/etc/labctl/tabbyapi/t.yml", "--port", "8080")
    (config,) = found.files
    said = yaml.safe_load(config.content)
    assert said["network"] == {"host": "127.0.0.1", "disable_auth": True}
    assert (said["model"]["model_dir"], said["model"]["model_name"]) == ("/srv/models", "big2")
    assert (said["model"]["max_seq_len"], said["model"]["gpu_split"]) == (8192, [20.0, 24.0])
    assert said["draft_model"] == {
        "draft_cache_mode": "Q8",
        "draft_model_dir": "/srv/models",
        "draft_model_name": "big",
    }


def test_ollama_is_told_by_its_environment() -> None:
    engine = Ollama(
        name="o", models=("tiny",), keep_alive="30m", num_parallel=2, flash_attention=True, binary="/opt/o"
    )
    found = started(engine, port="11434")
    assert found.argv == ("/opt/o", "serve")
    said = {
        name.removeprefix("OLLAMA_"): value for name, value in found.env.items() if name.startswith("OLLAMA_")
    }
    assert (
        said.items()
        >= {
            "HOST": "127.0.0.1:11434",
            "KEEP_ALIVE": "1800s",
            "NUM_PARALLEL": "2",
            "FLASH_ATTENTION": "1",
            "MODELS": "/var/lib/labctl-o/models",
        }.items()
    )
    assert found.files[0].content.endswith("\nFROM /srv/tiny.gguf\n")


KEYED: Mapping[str, tuple[type[Engine], str, str]] = {
    "llama-server": (LlamaServer, "tiny", "SECRET\n"),
    "vllm": (Vllm, "big", "VLLM_API_KEY=SECRET\n"),
    "sglang": (Sglang, "big", 'api-key: "SECRET"\n'),
    "tabbyapi": (TabbyApi, "big", '{"api_key": "SECRET", "admin_key": "SECRET"}\n'),
}


@pytest.mark.parametrize("kind", KEYED)
def test_a_key_is_a_file_for_root_and_never_a_word_of_a_command_line(kind: str) -> None:
    engine, model, content = KEYED[kind]
    served = engine(name="chat", model=model, port=8080, binary="/opt/x", api_key=KEY)
    found = started(served)
    (secret,) = found.secrets
    assert secret.path == f"/etc/labctl/secrets/chat.{secret.name}"
    assert secret.content("SECRET") == content
    words = (*found.argv, *(word for line in found.before for word in line), *found.env.values())
    assert not any("SECRET" in word or "keys/chat" in word for word in words)
    if not secret.environment:
        assert any(secret.inside in word for word in words), "the engine is told where its key is"
    assert secret.inside == f"/run/credentials/labctl-chat.service/{secret.name}"


def test_under_llama_swap_an_engine_lives_in_the_unit_of_llama_swap() -> None:
    engine = Vllm(name="v", model="big")
    where = rig(LlamaSwap(name="swap", port=9000, binary="/opt/llama-swap", models=(Swapped(engine=engine),)))
    (swap,) = where.services
    assert isinstance(swap, LlamaSwap)
    found = started(swap.models[0].engine, where, (env("vllm"),), port="${PORT}")
    assert after(found.argv, "--port") == "${PORT}"
    assert found.env["VLLM_CACHE_ROOT"] == "/var/cache/labctl-swap/v/vllm"


def test_a_command_is_started_as_it_is_said() -> None:
    engine = Command(name="c", argv=("/bin/x", "--port", "${PORT}"), env={"A": "b"})
    found = started(engine, rig(engine, cards=""))
    assert (found.argv, found.env) == (engine.argv, {"A": "b"})


# --- builds ---

B1 = LlamaCpp(version="b1", backend="cuda", cuda="13.4", archive=FILE)
B2 = B1.model_copy(update={"version": "b2"})


def test_a_service_without_a_version_runs_the_current_build_and_one_with_it_that_build() -> None:
    free, bound = llama(binary=None), llama(binary=None, name="bound", version="b1")
    assert started(free, rig(free), (B1,)).argv[0] == "/opt/labctl/llama.cpp/cuda/current/llama-server"
    assert (
        started(bound, rig(bound), (B1, B2)).argv[0] == "/opt/labctl/llama.cpp/cuda/b1-cuda13.4/llama-server"
    )


def test_another_build_or_model_file_makes_other_marks() -> None:
    engine = llama(binary=None, model="drafted")
    one = started(engine, rig(engine), (B1,))
    assert one.marks == (f"build llama.cpp b1 {'a' * 64}", f"model drafted d.gguf {SHA}")
    assert started(engine, rig(engine), (B2,)).marks != one.marks
    assert started(engine, rig(engine), (B2,)).argv == one.argv


def test_a_host_that_tries_backends_runs_the_one_that_was_proved() -> None:
    builds = tuple(LlamaCpp(version="b1", backend=name, archive=FILE) for name in ("rocm", "vulkan"))
    engine = llama(binary=None)
    where = rig(engine, gpus=(Gpu(model="RX 7900 XTX", slot="slot0"),))
    assert started(engine, where, builds).argv[0] == "/opt/labctl/llama.cpp/auto/current/llama-server"
    stated = where.model_copy(update={"backend": "vulkan"})
    assert started(engine, stated, builds).argv[0] == "/opt/labctl/llama.cpp/vulkan/current/llama-server"


# --- cards ---


@pytest.mark.parametrize("kind", ["llama-server", "vllm", "sglang", "tabbyapi"])
def test_an_engine_sees_its_cards_by_uuid_in_the_order_of_the_bus(kind: str) -> None:
    engine, model, _ = KEYED[kind]
    served = engine(name="chat", model=model, port=8080, binary="/opt/x", gpus=("slot2", "slot0"))
    found = started(served).env
    assert (found["CUDA_VISIBLE_DEVICES"], found["CUDA_DEVICE_ORDER"]) == (
        f"{UUIDS[2]},{UUIDS[0]}",
        "PCI_BUS_ID",
    )
    everything = started(served.model_copy(update={"gpus": ()})).env
    assert "CUDA_VISIBLE_DEVICES" not in everything
    assert everything["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_a_card_whose_uuid_is_unknown_cannot_be_picked_by_any_of_its_names() -> None:
    gpu = Gpu(model="RTX 3090", slot="slot0", pci="0000:01:00.0")
    for name in ("slot0", "0000:01:00.0"):
        with pytest.raises(LabctlError, match="GPU slot0, whose UUID is not known"):
            started(llama(gpus=(name,)), rig(gpus=(gpu,)))


AMD = tuple(Gpu(model="RX 7900 XTX", slot=f"slot{n}", pci=f"0000:0{9 - n}:00.0") for n in range(3))


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("auto", {"ROCR_VISIBLE_DEVICES": "2,0", "GGML_VK_VISIBLE_DEVICES": "2,0"}),
        ("rocm", {"ROCR_VISIBLE_DEVICES": "2,0"}),
        ("vulkan", {"GGML_VK_VISIBLE_DEVICES": "2,0"}),
    ],
)
def test_amd_cards_are_counted_in_the_order_of_the_bus(backend: str, expected: dict[str, str]) -> None:
    found = started(llama(gpus=("slot0", "slot2")), rig(gpus=AMD, backend=backend)).env
    assert found == expected


def test_amd_cards_that_could_be_any_are_not_picked() -> None:
    cards = (AMD[0], Gpu(model="RX 7900 XTX", slot="slot1"))
    with pytest.raises(LabctlError, match="where GPU slot1 sits on the PCI bus is not known"):
        started(llama(gpus=("slot0",)), rig(gpus=cards))


def test_the_inventorys_own_words_win() -> None:
    engine = llama(gpus=("slot0",), env={"CUDA_DEVICE_ORDER": "FASTEST_FIRST"})
    assert (
        started(engine, rig(engine, nvidia=Nvidia(manage=False))).env["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"
    )
