"""Which build is asked for its flags, and where the inventory says the flag that it does not know."""

from __future__ import annotations

from labctl.inventory import (
    Artifact,
    Command,
    Gpu,
    Host,
    LlamaCpp,
    LlamaServer,
    LlamaSwap,
    Model,
    PythonEnv,
    Rack,
    Swapped,
    Vllm,
)
from labctl.render.asked import questions, stated

FILE = Artifact(url="https://example.org/x.tar.gz", sha256="a" * 64)
ENGINE = LlamaServer(name="sub", model="m", ctx_size=512, kv_unified=False, extra_args=("--flash-atn=on",))
HOST = Host(
    name="rig",
    address="10.0.0.1",
    gpus=(Gpu(model="RX 7900 XTX", slot="slot0"),),
    services=(
        Command(name="web", argv=("/bin/true",)),
        LlamaSwap(name="swap", port=9000, binary="/opt/llama-swap", models=(Swapped(engine=ENGINE),)),
        Vllm(name="big", model="m", port=8001),
    ),
)
RACK = Rack(
    name="r",
    hosts=(HOST,),
    models=(Model(id="m", source="/srv/m"),),
    engines=(
        *(LlamaCpp(version="b1", backend=name, archive=FILE) for name in ("rocm", "vulkan")),
        PythonEnv(kind="vllm", version="0.33.0", requirements="r.txt", uv=FILE),
    ),
)


def test_every_build_that_may_run_an_engine_is_asked_in_its_own_folder() -> None:
    assert list(questions(RACK, HOST)) == [
        ("/opt/labctl/llama.cpp/rocm/b1/llama-server", ("--help",)),
        ("/opt/labctl/llama.cpp/vulkan/b1/llama-server", ("--help",)),
        ("/opt/labctl/vllm/0.33.0/bin/vllm", ("serve", "--help=all")),
    ]


def test_an_engine_below_llama_swap_is_found_where_the_inventory_says_it() -> None:
    (use,) = questions(RACK, HOST)["/opt/labctl/llama.cpp/rocm/b1/llama-server", ("--help",)]
    assert use.service == "swap (sub)"
    assert use.argv[0] == "--model", "the program itself is no argument"
    asked: list[tuple[str | int, ...]] = []

    def where(path: tuple[str | int, ...]) -> tuple[str, int | None]:
        asked.append(path)
        return "rack.py", 7

    place = use.placed(where)
    below = "services[1].models[0].engine"
    assert place("--flash-atn") == ("rack.py", 7, f"{below}.extra_args[0]")
    assert place("--ctx-size")[2] == f"{below}.ctx_size"
    assert place("--no-kv-unified")[2] == f"{below}.kv_unified"
    assert place("--alias")[2] == below, "what labctl itself says is the engine's"
    assert asked[0] == ("hosts", 0, "services", 1, "models", 0, "engine", "extra_args", 0)
    assert use.placed(None)("--ctx-size") == ("", None, f"{below}.ctx_size"), "as under plain pyinfra"


def test_where_a_sha256_is_pinned_is_said_for_people() -> None:
    path = ("engines", 1, "archive", "sha256")
    assert stated(lambda _: ("rack.py", 7), path) == "rack.py:7: engines[1].archive.sha256"
    assert stated(lambda _: ("rack.py", None), path) == "rack.py: engines[1].archive.sha256"
    assert stated(None, path) == ""
