# ruff: noqa: E501 - one case a line reads best
"""Engines and their builds: what does not agree is told in the rack file's own line, with what would help."""

from __future__ import annotations

from pathlib import Path

import pytest
from rack_texts import problems, write

SOUND = """\
from labctl.inventory import *
FILE = Artifact(url="https://example.org/x.tar.gz", sha256="0" * 64)
rack = Rack(name="r",
    models=[
        Model(id="m", source="file:///srv/m.gguf"),
        Model(id="t", source="file:///srv/t.safetensors"),
    ],
    engines=[
        LlamaCpp(version="b1", backend="cuda", cuda="12.8", archive=FILE),
        PythonEnv(kind="vllm", version="0.33.0", requirements="vllm.txt", uv=FILE),
        LlamaSwapBuild(version="250", archive=FILE),
    ],
    hosts=[
        Host(name="a", address="10.0.0.1", open_ports=[8080, 8081, 8082, 8083],
            gpus=[Gpu(model="RTX 3090", slot="s0"), Gpu(model="RTX 3090", slot="s1")],
            services=[
                LlamaServer(name="chat", model="m", port=8080),
                Vllm(name="big", model="t", port=8081, tensor_parallel_size=2),
                Ollama(name="olla", port=8082, binary="/usr/bin/ollama"),
                LlamaSwap(name="swap", port=8083, models=[
                    Swapped(engine=LlamaServer(name="sub", model="m")),
                ]),
            ]),
    ])
globals().update(rack.groups())
"""
CHAT, BIG, OLLA, SUB = 17, 18, 19, 21

CASES = [
    ("a release without files", 'version="b1"', 'version="v0.5.0"', 9, "", "engines[0].version", "carries no binaries"),
    ("a build that is declared twice", "    engines=[", "    engines=[LlamaSwapBuild(version=\"250\", archive=FILE),", 11, "", "engines[3].version", "taken already"),
    ("an unknown version", 'name="chat",', 'name="chat", version="b2",', CHAT, "a", "services[0].version", "no build of llama.cpp called b2"),
    ("a version and a program", 'name="chat",', 'name="chat", version="b1", binary="/opt/x",', CHAT, "a", "services[0].binary", "exclude each other"),
    ("a build that the card is too old for", '"RTX 3090", slot="s0"', '"P40", slot="s0"', None, "", "", ""),
    ("a build that no card can run", 'cuda="12.8"', 'cuda="13.0"', None, "", "", ""),
    ("no build of an engine", 'kind="vllm"', 'kind="ray"', BIG, "a", "services[1]", "there is no build of vllm"),
    ("a choice between two", "        LlamaSwapBuild(", '        LlamaCpp(version="b2", backend="cuda", cuda="12.8", archive=FILE), LlamaSwapBuild(', CHAT, "a", "services[0]", "several builds of llama.cpp would fit: b1, b2"),
    ("an open server without a key", "port=8080", 'port=8080, listen="0.0.0.0"', CHAT, "a", "services[0].listen", "without a key"),
    ("an open llama-swap without a key", "port=8083,", 'port=8083, listen="0.0.0.0",', 20, "a", "services[3].listen", "without a key"),
    ("an open Ollama", "port=8082,", 'port=8082, listen="10.0.0.1",', OLLA, "a", "services[2].listen", "Ollama asks nobody for a key"),
    ("an open Ollama with a key", "port=8082,", 'port=8082, api_key=Secret(env="K"),', OLLA, "a", "services[2].api_key", "Ollama asks nobody for a key"),
    ("a key below llama-swap", 'name="sub",', 'name="sub", api_key=Secret(env="K"),', SUB, "a", "services[3].models[0].engine.api_key", "is asked for by nobody"),
    ("an open engine below llama-swap", 'name="sub",', 'name="sub", listen="0.0.0.0",', SUB, "a", "services[3].models[0].engine.listen", "past its llama-swap"),
    ("a key in the environment", 'name="big",', 'name="big", env={"VLLM_API_KEY": "x"},', BIG, "a", "services[1].env", "would show a secret"),
    ("an address in the environment", 'name="olla",', 'name="olla", env={"OLLAMA_HOST": "0.0.0.0"},', OLLA, "a", "services[2].env", "OLLAMA_HOST says where it listens, past `listen`"),
    ("the beginning of an address's flag", 'name="big",', 'name="big", extra_args=["--hos=0.0.0.0"],', BIG, "a", "services[1].extra_args[0]", "--hos is said by labctl already"),
    ("an open vLLM that takes orders", "port=8081,", 'port=8081, listen="0.0.0.0", api_key=Secret(env="K"), enable_sleep_mode=True,', BIG, "a", "services[1].enable_sleep_mode", "its key guards /v1 alone"),
    ("an address said again", 'name="chat",', 'name="chat", extra_args=["--host", "0.0.0.0"],', CHAT, "a", "services[0].extra_args[0]", "--host is said by labctl already"),
    ("a key on the command line", 'name="big",', 'name="big", extra_args=["--api-key=x"],', BIG, "a", "services[1].extra_args[0]", "--api-key is said by labctl already"),
    ("an option said twice", 'name="chat",', 'name="chat", ctx_size=1, extra_args=["--ctx-size", "2"],', CHAT, "a", "services[0].extra_args[0]", "--ctx-size is said by labctl already"),
    ("more cards than there are", "tensor_parallel_size=2", "tensor_parallel_size=4", BIG, "a", "services[1].tensor_parallel_size", "needs 4 cards, and it may use 2 of a"),
    ("stages on too few cards", "tensor_parallel_size=2", 'tensor_parallel_size=2, pipeline_parallel_size=2', BIG, "a", "services[1].tensor_parallel_size", "needs 4 cards"),
    ("more cards than it may use", "tensor_parallel_size=2", 'tensor_parallel_size=2, gpus=["s0"]', BIG, "a", "services[1].tensor_parallel_size", "needs 2 cards, and it may use 1"),
    ("two ways to keep experts", 'name="chat",', 'name="chat", cpu_moe=True, n_cpu_moe=2,', CHAT, "a", "services[0].n_cpu_moe", "exclude each other"),
    ("shares of no split", 'name="chat",', 'name="chat", split_mode="none", tensor_split=[1.0, 1.0],', CHAT, "a", "services[0].tensor_split", "exclude each other"),
    ("more shares than cards", 'name="chat",', 'name="chat", tensor_split=[1.0, 1.0, 1.0],', CHAT, "a", "services[0].tensor_split", "deals the model out to 3 cards, and it may use 2"),
    ("a card that is not there", 'name="chat",', 'name="chat", main_gpu=2,', CHAT, "a", "services[0].main_gpu", "is card 2 counted from 0"),
    ("a format that it does not read", 'name="chat", model="m"', 'name="chat", model="t"', CHAT, "a", "services[0].model", "llama.cpp reads GGUF only"),
    ("two ways to draft", 'source="file:///srv/m.gguf"', 'source="file:///srv/m.gguf", mtp=True, draft="t"', CHAT, "a", "services[0].model", "drafts by `draft` and by `mtp`"),
]  # fmt: skip


def test_the_rack_that_the_cases_change_is_sound(tmp_path: Path) -> None:
    assert problems(write(tmp_path, SOUND)) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "host", "field", "reason"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_engines_that_do_not_agree_are_told(
    old: str, new: str, line: int | None, host: str, field: str, reason: str, tmp_path: Path
) -> None:
    assert SOUND.count(old) == 1
    found = problems(write(tmp_path, SOUND.replace(old, new)))
    if line is None:
        assert found == [], "the older CUDA and the newer card get along"
        return
    told = {(p.line, p.host, p.field): p.reason for p in found}
    assert reason in told.get((line, host, field), ""), found
    assert all(p.hint for p in found if p.field == field)


def test_a_version_that_steals_secrets_is_refused_by_name(tmp_path: Path) -> None:
    for version in ("1.82.7", "1.82.8"):
        text = SOUND.replace('kind="vllm", version="0.33.0"', f'kind="litellm", version="{version}"')
        words = [p.reason for p in problems(write(tmp_path, text))]
        assert any(
            f"litellm {version} was published with malware that steals secrets" in word for word in words
        )


def test_a_p40_needs_the_older_cuda(tmp_path: Path) -> None:
    text = SOUND.replace('"RTX 3090", slot="s0"', '"P40", slot="s0"').replace('cuda="12.8"', 'cuda="13.0"')
    found = {p.line: p.reason for p in problems(write(tmp_path, text))}
    assert "needs compute capability 7.5, and P40 of a has 6.1" in found[CHAT]
    assert "needs compute capability 7.5" in found[SUB]


def test_a_mistake_elsewhere_does_not_lose_the_builds_that_could_be_read(tmp_path: Path) -> None:
    text = SOUND.replace('name="chat",', 'name="chat", ctxsize=1,')
    assert [p.field for p in problems(write(tmp_path, text))] == ["services[0].ctxsize"]


def test_a_build_that_could_not_be_read_is_not_missed_by_those_who_run_it(tmp_path: Path) -> None:
    text = SOUND.replace('kind="vllm", version="0.33.0"', 'kind="vllm", version="0.33.0", pyhton="3"')
    assert [p.field for p in problems(write(tmp_path, text))] == ["engines[1].pyhton"]


def test_peers_are_not_missed_where_their_hosts_could_not_be_read(tmp_path: Path) -> None:
    front = '        Host(name="b", address="10.0.0.2", services=[LlamaSwap(name="f", port=8080, peers="rack")]),\n    ])'
    text = SOUND.replace("    ])\nglobals", front + "\nglobals").replace(
        'name="chat",', 'name="chat", ctxsize=1,'
    )
    assert [p.field for p in problems(write(tmp_path, text))] == ["services[0].ctxsize"]


@pytest.mark.parametrize("name", ["agent", "caps"])
def test_a_service_that_bears_a_name_of_labctl_s_own_is_refused(name: str, tmp_path: Path) -> None:
    (told,) = problems(write(tmp_path, SOUND.replace('name="chat",', f'name="{name}",')))
    assert (told.line, told.field, told.hint) == (CHAT, "services[0].name", "choose another name")
    assert told.reason.startswith("is a name of labctl's own: ") and f"labctl-{name}" in told.reason
