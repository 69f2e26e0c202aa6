"""What a host is told to look at after a wake follows from the inventory, and no model is loaded by it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from labctl.inventory import (
    Artifact,
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
    WakeOnLan,
)
from labctl.inventory.idle import Gate, IdlePolicy
from labctl.render import agent_gate

UUIDS = tuple(f"GPU-{n}1111111-2222-3333-4444-555555555555" for n in range(2))
FILE = Artifact(url="https://example.org/x.tar.gz", sha256="a" * 64)
MODELS = (
    Model(id="tiny", source="/srv/tiny.gguf"),
    Model(id="other", source="/srv/other.gguf"),
    Model(id="embed", source="/srv/embed.gguf", kind="embedding"),
    Model(id="big", source="/srv/models/big"),
)
CARDS = tuple(Gpu(model="RTX 3090", uuid=uuid, slot=f"slot{at}") for at, uuid in enumerate(UUIDS))


def rack(*services: Any, gpus: tuple[Gpu, ...] = CARDS, **more: Any) -> tuple[Rack, Host]:
    host = Host(name="rig", address="10.0.0.1", gpus=gpus, services=services, **more)
    builds = (
        LlamaCpp(version="b9000", backend="cuda", cuda="12.8", archive=FILE),
        LlamaCpp(version="b9000", backend="rocm", archive=FILE),
        LlamaCpp(version="b9000", backend="vulkan", archive=FILE),
        LlamaCpp(version="b9000", backend="cpu", archive=FILE),
    )
    return Rack(name="home", hosts=(host,), models=MODELS, engines=builds), host


def server(model: str = "tiny", **more: Any) -> LlamaServer:
    return LlamaServer(name=f"e-{model}", model=model, port=8080, **more)


def test_sleep_names_the_card_that_wakes_the_host_and_no_other_back_end() -> None:
    wake = WakeOnLan(mac="52:54:00:00:00:01", secureon_file=Path("keys/so"))
    assert agent_gate.sleep(*rack(wake=wake, idle=IdlePolicy(how="hibernate"))) == {
        "how": "hibernate",
        "wol": {"mac": "52:54:00:00:00:01", "secureon": True},
    }
    assert agent_gate.sleep(*rack())["wol"] is None


def test_cards_are_expected_by_what_is_known_of_them() -> None:
    amd = Gpu(model="RX 7900 XTX", pci="0000:0a:00.0")
    found = agent_gate.gate(*rack(gpus=(CARDS[0], amd)))
    assert found["gpus"] == [
        {"uuid": UUIDS[0], "pci": None, "vendor": "nvidia"},
        {"uuid": None, "pci": "0000:0a:00.0", "vendor": "amd"},
    ]


def test_what_may_be_done_to_mend_it_is_the_inventorys_word() -> None:
    found = agent_gate.gate(
        *rack(gate=Gate(timeout=timedelta(seconds=90), reload_driver=False, reboot=False))
    )
    assert (found["timeout_s"], found["reload_driver"], found["reboot"]) == (90.0, False, False)


def test_each_program_is_tried_once_on_the_most_cards_that_an_engine_sees() -> None:
    found = agent_gate.gate(*rack(server(gpus=("slot1",)), server("other")))["smoke"]
    assert found == [
        {
            "service": "e-other",
            "how": "list",
            "argv": ["/opt/labctl/llama.cpp/cuda/current/llama-server"],
            "env": {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
            "user": "labctl-svc",
            "cards": 2,
        }
    ]


def test_pytorch_is_tried_with_its_own_python() -> None:
    made, host = rack(Vllm(name="v", model="big", port=8000))
    env = PythonEnv(kind="vllm", version="0.33.0", requirements=Path("r.txt"), uv=FILE)
    (row,) = agent_gate.gate(made.model_copy(update={"engines": (env,)}), host)["smoke"]
    assert (row["how"], row["argv"], row["cards"]) == ("sum", ["/opt/labctl/vllm/current/bin/python"], 2)


@pytest.mark.parametrize(
    "services",
    [
        (server(n_gpu_layers=0),),
        (server(binary="/usr/local/bin/llama-server", n_gpu_layers=0),),
        (),
    ],
)
def test_an_engine_that_is_kept_off_the_cards_is_not_tried(services: tuple[Any, ...]) -> None:
    found = agent_gate.gate(*rack(*services))
    assert found["smoke"] == []
    assert [row["cards"] for row in found["decode"]] == [False] * len(services)


def test_a_host_without_cards_tries_nothing_and_still_asks_for_a_token() -> None:
    found = agent_gate.gate(*rack(server(), server("embed"), gpus=()))
    assert (found["gpus"], found["smoke"]) == ([], [])
    assert found["decode"] == [
        {"unit": "labctl-e-tiny.service", "model": "tiny", "what": "completion", "cards": False},
        {"unit": "labctl-e-embed.service", "model": "embed", "what": "embedding", "cards": False},
    ]


def test_below_llama_swap_only_what_it_preloads_is_asked() -> None:
    models = tuple(Swapped(engine=LlamaServer(name=f"e-{name}", model=name)) for name in ("tiny", "other"))
    swap = LlamaSwap(name="swap", port=9000, models=models, preload=("other",))
    found = agent_gate.gate(*rack(swap))
    assert [(row["unit"], row["model"]) for row in found["decode"]] == [("labctl-swap.service", "other")]
    assert len(found["smoke"]) == 1


def test_of_vulkan_nobody_tells_who_computes() -> None:
    amd = (Gpu(model="RX 7900 XTX", pci="0000:0a:00.0"),)
    for backend, known in (("vulkan", False), ("auto", False), ("rocm", True)):
        (row,) = agent_gate.gate(*rack(server(), gpus=amd, backend=backend))["decode"]
        assert row["cards"] is known, backend


def test_the_rack_files_own_command_and_words_win() -> None:
    found = agent_gate.gate(*rack(server(), gate=Gate(command=("/usr/local/bin/try", "-v"), decode=False)))
    assert (found["command"], found["smoke"], found["decode"]) == (["/usr/local/bin/try", "-v"], [], [])
