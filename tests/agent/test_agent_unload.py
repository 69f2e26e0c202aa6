"""Engines let go of their models in their own ways, and get them back where the host does not sleep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pynvml  # children that ask the driver are forked from here, so it is read once
import pytest
from serving_engine import ServingEngine
from sleeping_host import SleepingHost

from fake_gpus import MakeNvml
from labctl.agent import computing, config, sleepfiles, unload, ways
from labctl.agent.sections import Finding

assert pynvml.nvmlDeviceGetMemoryInfo


def free(host: SleepingHost, how: str = "suspend") -> None:
    settings = config.read(host.root)
    assert settings.trouble == ""
    unload.free(sorted(settings.engines, key=lambda one: one.order), settings, how, host.root)


def restore(host: SleepingHost) -> list[str]:
    return unload.restore(config.read(host.root), host.root)


def has(host: SleepingHost, *rows: dict[str, Any]) -> None:
    """Have these engines, running."""
    host.settings({"engines": list(rows)})
    for row in rows:
        host.unit(row["unit"])


def test_llama_swap_unloads_and_goes_on_serving(host: SleepingHost, engine: ServingEngine) -> None:
    engine.answers["/api/models/unload"] = (200, {"msg": "ok"})
    host.file("etc/labctl/agent-keys/e", "sk-secret\n")
    has(host, engine.row("llama-swap", key_file="/etc/labctl/agent-keys/e"))
    free(host)
    assert engine.asked == [("/api/models/unload", {})]
    assert engine.keys == ["Bearer sk-secret"]
    assert host.log == []
    assert not (host.root / sleepfiles.STOPPED).exists()


def test_ollama_lets_each_loaded_model_go(host: SleepingHost, engine: ServingEngine) -> None:
    engine.answers["/api/ps"] = (200, {"models": [{"model": "a:8b"}, {"name": "b"}]})
    engine.answers["/api/generate"] = (200, {"done": True})
    has(host, engine.row("ollama"))
    free(host)
    assert engine.posted() == [
        ("/api/generate", {"model": "a:8b", "keep_alive": 0}),
        ("/api/generate", {"model": "b", "keep_alive": 0}),
    ]
    assert host.log == []


def test_a_router_unloads_what_is_loaded_and_loads_it_again(
    host: SleepingHost, engine: ServingEngine
) -> None:
    states = [("a", "loaded"), ("b", "unloaded"), ("c", "sleeping")]
    engine.answers["/models"] = (200, {"data": [{"id": n, "status": {"value": s}} for n, s in states]})
    engine.answers["/models/unload"] = engine.answers["/models/load"] = (200, {"success": True})
    has(host, engine.row("llama-server"))
    free(host)
    assert engine.posted() == [("/models/unload", {"model": "a"}), ("/models/unload", {"model": "c"})]
    assert host.log == []
    assert restore(host) == []
    assert engine.posted()[2:] == [("/models/load", {"model": "a"}), ("/models/load", {"model": "c"})]


def test_a_server_of_one_model_is_stopped(host: SleepingHost, engine: ServingEngine) -> None:
    engine.answers["/models"] = (200, {"data": [{"id": "a", "object": "model"}]})
    has(host, engine.row("llama-server"))
    free(host)
    assert (engine.posted(), host.log) == ([], ["stop labctl-e.service"])


@pytest.mark.parametrize("how", ["suspend", "hibernate", "unload"])
def test_vllm_sleeps_only_where_the_machine_does_not(
    host: SleepingHost, engine: ServingEngine, how: str
) -> None:
    engine.answers["/is_sleeping"] = (200, {"is_sleeping": False})
    engine.answers["/sleep?level=1"] = engine.answers["/wake_up"] = (200, None)
    has(host, engine.row("vllm"))
    free(host, how)
    asleep = how == "unload"
    assert engine.posted() == ([("/sleep?level=1", {})] if asleep else [])
    assert host.log == ([] if asleep else ["stop labctl-e.service"])
    assert restore(host) == []
    assert (engine.posted()[-1:] == [("/wake_up", {})]) == asleep
    assert (host.log[-1:] == ["start labctl-e.service"]) != asleep


def test_vllm_without_sleep_mode_is_stopped_for_unload_too(host: SleepingHost, engine: ServingEngine) -> None:
    has(host, engine.row("vllm"))
    free(host, "unload")
    assert host.log == ["stop labctl-e.service"]


@pytest.mark.parametrize("kind", ["sglang", "tabbyapi", "rpc-server"])
def test_others_are_stopped(host: SleepingHost, engine: ServingEngine, kind: str) -> None:
    has(host, engine.row(kind))
    free(host)
    assert (engine.asked, host.log) == ([], ["stop labctl-e.service"])


def test_what_holds_no_card_goes_on(host: SleepingHost, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"service": name, "kind": kind, "unit": f"labctl-{name}.service", "url": "", "order": at}
        for at, (name, kind) in enumerate([("db", "pgvector"), ("train", "command"), ("web", "command")])
    ]
    has(host, *rows)
    host.file("proc/77/cgroup", "0::/system.slice/labctl-train.service\n")
    looks = [computing.Use(((77, "python"),), 0), computing.Use((), 0)]
    monkeypatch.setattr(computing, "use", lambda root: looks.pop(0) if len(looks) > 1 else looks[0])
    free(host)
    assert host.log == ["stop labctl-train.service"]


@pytest.mark.parametrize(
    ("kind", "answers", "said"),
    [
        ("llama-swap", {}, "labctl-e.service does not unload its models: /api/models/unload answers 404"),
        ("ollama", {}, "labctl-e.service does not say which models it has loaded"),
        (
            "ollama",
            {"/api/ps": (200, {"models": [{"model": "a"}]}), "/api/generate": (500, None)},
            "labctl-e.service does not unload its models: /api/generate answers 500",
        ),
    ],
)
def test_an_engine_that_does_not_let_go_is_said(
    host: SleepingHost, engine: ServingEngine, kind: str, answers: dict[str, Any], said: str
) -> None:
    engine.answers.update(answers)
    has(host, engine.row(kind))
    with pytest.raises(unload.NotFreed) as caught:
        free(host)
    assert str(caught.value) == said


def test_an_engine_that_says_nothing_is_said(host: SleepingHost, engine: ServingEngine) -> None:
    has(host, engine.row("llama-swap"))
    engine.close()
    with pytest.raises(unload.NotFreed, match=r"does not unload its models: .*refused"):
        free(host)


def test_what_does_not_start_again_is_remembered(host: SleepingHost, engine: ServingEngine) -> None:
    unload.remember(
        unload.Stopped(units=("labctl-a.service",), models=(("labctl-e.service", "m"),)), host.root
    )
    unload.remember(unload.Stopped(units=("labctl-b.service", "labctl-a.service")), host.root)
    has(host, engine.row("llama-server"))
    assert restore(host) == ["labctl-e.service does not load its model again: /models/load answers 404"]
    kept = json.loads((host.root / sleepfiles.STOPPED).read_text())
    assert kept["units"] == ["labctl-a.service", "labctl-b.service"]


# --- who computes ---


def with_cards(host: SleepingHost, make: MakeNvml, *models: str) -> Any:
    """Put NVIDIA cards on the host's bus, with a driver."""
    gpus = make(*models)
    driver = host.root / "sys/bus/pci/drivers/nvidia"
    driver.mkdir(parents=True)
    for card in gpus.cards:
        device = host.root / "sys/bus/pci/devices" / card.pci
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x10de\n")
        (device / "class").write_text("0x030000\n")
        (device / "driver").symlink_to(driver)
    return gpus


def test_who_computes_is_asked_of_every_card_that_is_awake(host: SleepingHost, loaded_nvml: MakeNvml) -> None:
    gpus = with_cards(host, loaded_nvml, "RTX 3090", "RTX 3090")
    host.file("proc/4711/comm", "train.py\n")
    gpus.set(1, procs="4711:1000000000:train.py")
    found = computing.use(host.root)
    assert found.who == ((4711, "train.py"),)
    host.file(f"sys/bus/pci/devices/{gpus.cards[1].pci}/power/runtime_status", "suspended\n")
    assert computing.use(host.root).who == ()


def test_a_card_that_does_not_say_who_computes_is_no_free_card(
    host: SleepingHost, loaded_nvml: MakeNvml
) -> None:
    gpus = with_cards(host, loaded_nvml, "RTX 3090")
    gpus.fault(0, "lost")
    with pytest.raises(Finding, match="does not say who computes on it"):
        computing.use(host.root)
    host.settings({"engines": []})
    with pytest.raises(unload.NotFreed, match="whether a card is still in use is not known"):
        free(host)


def test_rocms_processes_are_seen(host: SleepingHost) -> None:
    (host.root / "sys/class/kfd/kfd/proc/4712").mkdir(parents=True)
    assert computing.use(host.root).who == ((4712, "?"),)


# --- NVIDIA's own way to keep video memory ---


@pytest.fixture
def nvidia(host: SleepingHost, loaded_nvml: MakeNvml) -> SleepingHost:
    """A host with one NVIDIA card whose driver preserves video memory as it should."""
    with_cards(host, loaded_nvml, "RTX 3090")
    host.file("sys/module/nvidia/version", "580.95.05\n")
    parameters(host, PreserveVideoMemoryAllocations=1, TemporaryFilePath='"/var"')
    (host.root / "var").mkdir()
    host.file("proc/self/mountinfo", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:9 / /run rw - tmpfs t rw\n")
    for unit in ("nvidia-suspend.service", "nvidia-resume.service"):
        host.file(f"state/enabled/{unit}", "enabled\n")
    return host


def parameters(host: SleepingHost, **values: Any) -> None:
    lines = "".join(f"{name}: {value}\n" for name, value in values.items())
    host.file("proc/driver/nvidia/params", f"ResmanDebugLevel: 4294967295\n{lines}")


def test_a_driver_that_can_preserve_video_memory_is_fine(nvidia: SleepingHost) -> None:
    assert ways.against("suspend", None, nvidia.root) is None
    assert ways.against("unload", None, nvidia.root) is None


@pytest.mark.parametrize("unit", ["nvidia-suspend.service", "nvidia-resume.service"])
def test_a_driver_whose_unit_is_off_would_fail_the_sleep(nvidia: SleepingHost, unit: str) -> None:
    nvidia.file(f"state/enabled/{unit}", "disabled\n")
    assert ways.against("suspend", None, nvidia.root) == (
        f"the NVIDIA driver preserves video memory and {unit} is not enabled, so it could not: "
        f"systemctl enable {unit}"
    )
    parameters(
        nvidia, PreserveVideoMemoryAllocations=2, UseKernelSuspendNotifiers=1, TemporaryFilePath='"/var"'
    )
    assert ways.against("suspend", None, nvidia.root) is None, "the kernel itself tells the driver"
    parameters(nvidia, PreserveVideoMemoryAllocations=0)
    assert ways.against("suspend", None, nvidia.root) is None, "nothing is to be preserved"


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("/run/x", "the NVIDIA driver would write video memory to /run/x, which is in memory (tmpfs)"),
        ("/none", "the NVIDIA driver would write video memory to /none, which is no folder"),
    ],
)
def test_video_memory_goes_to_a_disk(nvidia: SleepingHost, folder: str, said: str) -> None:
    (nvidia.root / "run/x").mkdir(parents=True)
    parameters(nvidia, PreserveVideoMemoryAllocations=1, TemporaryFilePath=f'"{folder}"')
    assert ways.against("suspend", None, nvidia.root) == said


def test_there_must_be_room_for_what_is_in_use(nvidia: SleepingHost) -> None:
    assert ways.room_against(1 << 20, nvidia.root) is None
    said = ways.room_against(1 << 60, nvidia.root)
    assert said is not None
    assert said.startswith("/var has ")
    assert said.endswith(f"the video memory in use needs {int((1 << 60) * 1.05) >> 20} MiB")
    parameters(nvidia, PreserveVideoMemoryAllocations=0)
    assert ways.room_against(1 << 60, nvidia.root) is None


def test_a_driver_of_two_versions_is_rebooted_first(nvidia: SleepingHost) -> None:
    library = nvidia.file("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.590.48.01", "")
    library.with_name("libnvidia-ml.so.1").symlink_to(library.name)
    assert ways.against("suspend", None, nvidia.root) == (
        "the NVIDIA driver 580.95.05 is loaded and its library is 590.48.01: reboot it first"
    )


def test_a_driver_that_hides_its_options_is_not_trusted(nvidia: SleepingHost) -> None:
    Path(nvidia.root / "proc/driver/nvidia/params").unlink()
    assert ways.against("suspend", None, nvidia.root) == (
        "the NVIDIA driver's options cannot be read (/proc/driver/nvidia/params)"
    )
