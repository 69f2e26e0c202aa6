"""Which build a service runs: by kind, version, processor, backend and what the cards can."""

from __future__ import annotations

from typing import Any

import pytest

from labctl.inventory import (
    Artifact,
    Command,
    Gpu,
    Host,
    LlamaCpp,
    LlamaServer,
    LlamaSwap,
    Nvidia,
    PythonEnv,
    Rack,
    RayCluster,
    Swapped,
    Vllm,
)
from labctl.inventory.builds import Choice, Unfit, choose, environment_of, needed
from labctl.inventory.services import Program

FILE = Artifact(url="https://example.org/x.tar.gz", sha256="0" * 64)
CARDS = {
    "pascal": ("P40",),
    "ampere": ("RTX 3090",),
    "blackwell": ("RTX 5090",),
    "mixed": ("RTX 3090", "P40"),
    "amd": ("RX 7900 XTX",),
    "spark": ("GB10",),
    "none": (),
}


def llama(backend: str, version: str = "b9000", cuda: str | None = None, **more: Any) -> LlamaCpp:
    return LlamaCpp(version=version, backend=backend, cuda=cuda, archive=FILE, **more)


def env(kind: str, version: str, **more: Any) -> PythonEnv:
    return PythonEnv(kind=kind, version=version, requirements="r.txt", uv=FILE, **more)


CUDA_12, CUDA_13 = llama("cuda", cuda="12.8"), llama("cuda", cuda="13.4")
CPU, ROCM, VULKAN = llama("cpu"), llama("rocm"), llama("vulkan")
ARM = llama("cuda", cuda="13.4", arch="aarch64")
ALL = (CPU, VULKAN, ROCM, CUDA_12, CUDA_13, ARM)
CHAT = LlamaServer(name="chat", model="m", port=8080)


def host(cards: str = "none", services: tuple[Program, ...] = (), **more: Any) -> Host:
    gpus = tuple(Gpu(model=model, slot=f"slot{at}") for at, model in enumerate(CARDS[cards]))
    return Host(name="rig", address="10.0.0.1", gpus=gpus, services=services, **more)


def chosen(where: Host, builds: tuple[Any, ...], wanted: Program = CHAT) -> Choice | Unfit | None:
    return choose(Rack(name="r", hosts=(where,), engines=builds), where, wanted)


@pytest.mark.parametrize(
    ("cards", "fields", "expected"),
    [
        ("pascal", {}, (CUDA_12,)),
        ("ampere", {}, (CUDA_13,)),
        ("mixed", {}, (CUDA_12,)),
        ("blackwell", {}, (CUDA_13,)),
        ("ampere", {"nvidia": Nvidia(branch=570)}, (CUDA_12,)),
        ("ampere", {"nvidia": Nvidia(branch=580)}, (CUDA_13,)),
        ("ampere", {"backend": "vulkan"}, (VULKAN,)),
        ("ampere", {"backend": "none"}, (CPU,)),
        ("spark", {}, (ARM,)),
        ("amd", {}, (ROCM, VULKAN)),
        ("amd", {"backend": "rocm"}, (ROCM,)),
        ("none", {}, (CPU,)),
        ("none", {"unified_memory_gib": 128}, (VULKAN,)),
    ],
)
def test_the_cards_choose_among_all_builds_of_llama_cpp(
    cards: str, fields: dict[str, Any], expected: tuple[LlamaCpp, ...]
) -> None:
    found = chosen(host(cards, **fields), ALL)
    assert isinstance(found, Choice)
    assert (found.builds, found.tried) == (expected, len(expected) > 1)


def test_only_the_cards_that_a_service_uses_count() -> None:
    one = CHAT.model_copy(update={"gpus": ("slot0",)})
    assert chosen(host("mixed"), ALL, one) == Choice((CUDA_13,))


REFUSALS = [
    (
        "pascal",
        (CUDA_13,),
        {},
        "CUDA 13.4 needs compute capability 7.5, and P40 of rig has 6.1: take a CUDA 12",
    ),
    ("blackwell", (llama("cuda", cuda="12.4"),), {}, "CUDA 12.4 is too old for compute capability 10"),
    (
        "ampere",
        (CUDA_13,),
        {"nvidia": Nvidia(branch=570)},
        "needs driver 580, and `nvidia` of rig asks for branch",
    ),
    ("ampere", (CPU, ROCM), {}, "none of the builds of llama.cpp computes with cuda or vulkan"),
    ("none", (CUDA_12,), {}, "none of the builds of llama.cpp computes with cpu"),
    ("none", (ARM,), {}, "rig is x86_64, and the builds of llama.cpp are for aarch64"),
    ("spark", (CUDA_13,), {}, "rig is aarch64, and the builds of llama.cpp are for x86_64"),
    ("none", (CPU, llama("cpu", "b9001")), {}, "several builds of llama.cpp would fit: b9000, b9001"),
]


@pytest.mark.parametrize(("cards", "builds", "fields", "words"), REFUSALS, ids=[case[3] for case in REFUSALS])
def test_what_does_not_fit_is_never_chosen(
    cards: str, builds: tuple[LlamaCpp, ...], fields: dict[str, Any], words: str
) -> None:
    found = chosen(host(cards, **fields), builds)
    assert isinstance(found, Unfit)
    assert words in found.reason
    assert found.hint


def test_a_version_chooses_among_several_and_must_be_there() -> None:
    newer = llama("cpu", "b9001")
    named = CHAT.model_copy(update={"version": "b9001"})
    assert chosen(host(), (CPU, newer), named) == Choice((newer,))
    found = chosen(host(), (CPU,), named)
    assert isinstance(found, Unfit)
    assert (found.reason, found.hint) == (
        "there is no build of llama.cpp called b9001 in `engines` of the rack",
        "there is: b9000",
    )


def test_a_program_of_the_hosts_own_is_no_build() -> None:
    assert chosen(host(), ALL, CHAT.model_copy(update={"binary": "/opt/x"})) is None
    assert chosen(host(), (), CHAT) is None, "Debian's llama-server"
    assert chosen(host(), ALL, Command(name="x", argv=("/bin/x",))) is None
    missing = chosen(host(), ALL, Vllm(name="v", model="m", port=1))
    assert isinstance(missing, Unfit), "nobody else brings vllm"


def test_a_host_needs_the_builds_of_all_that_runs_there_once() -> None:
    vllm = env("vllm", "0.33.0")
    swap = LlamaSwap(
        name="swap",
        port=9000,
        binary="/opt/llama-swap",
        models=(
            Swapped(engine=CHAT.model_copy(update={"port": None})),
            Swapped(engine=Vllm(name="v", model="m")),
        ),
    )
    where = host("ampere", (swap, CHAT))
    assert needed(Rack(name="r", hosts=(where,), engines=(*ALL, vllm)), where) == (CUDA_13, vllm)


def test_every_host_of_a_cluster_needs_the_environment_of_its_engine() -> None:
    vllm, other = env("vllm", "0.33.0"), env("vllm", "0.34.0")
    head = host("ampere", (Vllm(name="v", model="m", port=1, cluster="pair", version="0.34.0"),))
    worker = head.model_copy(update={"name": "two", "services": ()})
    cluster = RayCluster(name="pair", head="rig", workers=("two",))
    rack = Rack(name="r", hosts=(head, worker), engines=(vllm, other), clusters=(cluster,))
    assert environment_of(rack, cluster) == other
    assert needed(rack, worker) == needed(rack, head) == (other,)
    stated = cluster.model_copy(update={"env": "0.33.0"})
    assert environment_of(rack.model_copy(update={"clusters": (stated,)}), stated) == vllm
