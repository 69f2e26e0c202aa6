"""After a wake a host serves only when its cards compute, its caps hold and its engines use the cards."""

from __future__ import annotations

from typing import Any

import pynvml  # children that ask the driver are forked from here, so it is read once
import pytest
from serving_engine import ServingEngine
from sleeping_host import SleepingHost

from fake_gpus import FakeNvml, MakeNvml
from labctl.agent import caps, gate, gatecards, gateengines, mend, sleepfiles, unload
from labctl.agent.signals.terms import Reading

assert pynvml.nvmlDeviceGetMemoryInfo
UNIT = "labctl-e.service"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less than a host does."""
    monkeypatch.setattr(gateengines, "_POLL_S", 0.01)
    monkeypatch.setattr(mend, "_FREE_WITHIN_S", 0.05)
    monkeypatch.setattr(mend, "_POLL_S", 0.01)


class GatedHost:
    """A host with two NVIDIA cards and an engine; ``want`` changes what the gate is told."""

    def __init__(self, host: SleepingHost, gpus: FakeNvml, engine: ServingEngine) -> None:
        self.host, self.gpus, self.engine = host, gpus, engine
        self.wanted: dict[str, Any] = {
            "gpus": [{"uuid": card.uuid, "pci": None, "vendor": "nvidia"} for card in gpus.cards],
            "timeout_s": 0.2,
        }
        self.rows = [engine.row("llama-server", UNIT)]
        host.unit(UNIT)
        host.file("sys/module/nvidia/version", f"{gpus_driver()}\n")
        host.file("proc/4711/cgroup", f"0::/system.slice/{UNIT}\n")
        gpus.set(0, procs="4711:1000000000:llama-server")
        engine.answers |= {"/health": (200, {"status": "ok"}), "/v1/completions": (200, {"choices": [{}]})}
        self.want()

    def want(self, **wanted: Any) -> None:
        self.wanted |= wanted
        settings = {"sleep": {"wol": {"mac": "52:54:00:00:00:01"}}, "gate": self.wanted, "engines": self.rows}
        self.host.settings(settings)

    def passed(self) -> dict[str, Any]:
        answer = gate.passed(self.host.root)
        assert set(answer) == {"format", "broken", "notes", "caps", "took_s"}
        return answer

    def broken(self) -> list[str]:
        return list(self.passed()["broken"])


def gpus_driver() -> str:
    return "580.95.05"


@pytest.fixture
def gated(host: SleepingHost, loaded_nvml: MakeNvml, engine: ServingEngine) -> GatedHost:
    gpus = loaded_nvml("RTX 3090", "RTX 3090", driver=gpus_driver())
    driver = host.root / "sys/bus/pci/drivers/nvidia"
    driver.mkdir(parents=True)
    for card in gpus.cards:
        device = host.root / "sys/bus/pci/devices" / card.pci
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x10de\n")
        (device / "class").write_text("0x030000\n")
        (device / "driver").symlink_to(driver)
    return GatedHost(host, gpus, engine)


def test_a_whole_host_passes_with_its_caps_set(gated: GatedHost) -> None:
    answer = gated.passed()
    assert (answer["broken"], answer["notes"]) == ([], [])
    assert answer["caps"]["verb"] == "caps"
    assert answer["caps"]["ok"] is True


# --- cards ---


def test_a_card_that_is_not_there_is_named(gated: GatedHost) -> None:
    gated.gpus.fault(1, "removed")
    (gated.host.root / "sys/bus/pci/devices" / gated.gpus.cards[1].pci / "vendor").unlink()
    assert gated.broken() == [f"card {gated.gpus.cards[1].uuid} is not here"]


def test_a_card_that_fell_off_the_bus_is_named(gated: GatedHost) -> None:
    cards = gated.gpus.cards
    gated.want(gpus=[{"uuid": card.uuid, "pci": card.pci, "vendor": "nvidia"} for card in cards])
    gated.gpus.fault(1, "lost")
    (said,) = gated.broken()
    assert said.startswith(f"card {cards[1].uuid} does not work: ")


def test_a_card_that_sleeps_is_woken_to_say_who_it_is(gated: GatedHost) -> None:
    for card in gated.gpus.cards:
        gated.host.file(f"sys/bus/pci/devices/{card.pci}/power/runtime_status", "suspended\n")
    assert gated.broken() == []
    gated.want(
        gpus=[{"uuid": f"GPU-{'0' * 8}{gated.gpus.cards[0].uuid[12:]}", "pci": None, "vendor": "nvidia"}]
    )
    (said,) = gated.broken()
    assert said.endswith("is not here")
    gated.want(gpus=[{"uuid": gated.gpus.cards[1].uuid, "pci": gated.gpus.cards[1].pci, "vendor": "nvidia"}])
    gated.gpus.fault(1, "lost")
    (said,) = gated.broken()
    assert said.startswith(f"card {gated.gpus.cards[1].uuid} does not work: ")


@pytest.mark.parametrize("expected", [2, 3])
def test_cards_without_a_name_are_counted(gated: GatedHost, expected: int) -> None:
    gated.want(gpus=[{"uuid": None, "pci": None, "vendor": "nvidia"}] * expected)
    few = ["there are 2 of 3 nvidia cards that the rack file expects"]
    assert gated.broken() == (few if expected == 3 else [])


def test_an_amd_card_is_known_by_its_place(gated: GatedHost) -> None:
    gated.want(gpus=[{"uuid": None, "pci": "0000:0a:00.0", "vendor": "amd"}])
    assert gated.broken() == ["card 0000:0a:00.0 is not here"]


def test_a_driver_that_is_gone_is_said_once_and_engines_stay_down(gated: GatedHost) -> None:
    (gated.host.root / "sys/module/nvidia/version").unlink()
    gated.gpus.unload()
    unload.remember(unload.Stopped(units=(UNIT,)), gated.host.root)
    gated.host.unit(UNIT, "inactive")
    answer = gated.passed()
    assert answer["broken"][0] == "the NVIDIA driver is not loaded"
    assert f"not started, since the cards are not whole: {UNIT}" in answer["notes"]
    assert f"start {UNIT}" not in gated.host.log


def test_a_driver_and_a_library_of_two_versions_are_broken(gated: GatedHost) -> None:
    library = gated.host.file("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.590.48.01", "")
    library.with_name("libnvidia-ml.so.1").symlink_to(library.name)
    answer = gated.passed()
    assert answer["broken"] == ["the NVIDIA driver 580.95.05 is loaded and its library is 590.48.01"]
    assert answer["notes"] == [], "its engine runs, so nobody says that it was not started"


def test_a_host_without_cards_asks_no_driver(gated: GatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gatecards.report, "collect", lambda *given: pytest.fail("asked"))
    (gated.host.root / "sys/module/nvidia/version").unlink()
    gated.want(gpus=[])
    assert gated.broken() == []


def test_a_cap_that_cannot_be_set_is_broken(gated: GatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"status": "failed", "slot": "slot0", "pci": None, "uuid": None, "name": "RTX 3090"}
    rows = [{**wrong, "why": "it forgot", "hint": "look at dmesg"}]
    monkeypatch.setattr(
        caps, "apply", lambda root, **steps: {"verb": "caps", "ok": False, "cards": rows, "findings": []}
    )
    assert gated.broken() == ["slot0 (RTX 3090): it forgot; look at dmesg"]


def test_a_card_that_cannot_be_armed_is_a_note_since_the_host_just_does_not_sleep_then(
    gated: GatedHost,
) -> None:
    gated.host.wol["eth0"] = ""
    assert gated.passed()["notes"] == []
    assert gated.host.wol["eth0"] == "g"
    (gated.host.root / "sys/class/net/eth0/address").write_text("52:54:00:00:00:09\n")
    answer = gated.passed()
    assert answer["broken"] == []
    assert answer["notes"] == [
        "it will not be put to sleep, since nothing would wake it: "
        "no network card has the MAC 52:54:00:00:00:01 that Wake-on-LAN would call"
    ]


# --- computing ---


def program(gated: GatedHost, name: str, text: str) -> str:
    """Write a program that stands for an engine's."""
    path = gated.host.file(f"programs/{name}", f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def smoke(gated: GatedHost, how: str, text: str) -> list[str]:
    row = {"service": "chat", "how": how, "argv": [program(gated, "engine", text)], "cards": 2}
    gated.want(smoke=[{**row, "env": {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "user": None}])
    return gated.broken()


_LIST = 'printf "Available devices:\\n  CUDA0: RTX 3090 (24 MiB, 23 MiB free)\\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'{_LIST}  CUDA1: RTX 3090 (24 MiB)\\n"', []),
        (f'{_LIST}  CUDA1: $CUDA_DEVICE_ORDER $1\\n"', []),
        (f'{_LIST}"', ["chat: its program finds 1 of 2 cards to compute on"]),
        ('printf "Available devices:\\n"', ["chat: its program finds 0 of 2 cards to compute on"]),
        ("echo 'CUDA error 999' >&2; exit 1", ["chat: its program cannot list devices: CUDA error 999"]),
    ],
)
def test_an_engine_whose_program_sees_too_few_cards_is_broken(
    gated: GatedHost, text: str, said: list[str]
) -> None:
    assert smoke(gated, "list", text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo computed on 2", []),
        ("echo computed on 0", ["chat: its program finds 0 of 2 cards to compute on"]),
        (
            "echo 'RuntimeError: CUDA unknown error' >&2; exit 1",
            ["chat: computing fails: RuntimeError: CUDA unknown error"],
        ),
    ],
)
def test_pytorch_has_to_compute_on_each_card(gated: GatedHost, text: str, said: list[str]) -> None:
    gated.gpus.set(0, procs=None)
    assert smoke(gated, "sum", text) == said


def test_pytorch_is_not_tried_beside_an_engine_that_fills_the_card(gated: GatedHost) -> None:
    assert smoke(gated, "sum", "exit 1") == []
    assert gated.passed()["notes"] == ["chat: computing was not tried beside ?, which runs already"]


def test_a_command_of_the_rack_file_takes_its_place(gated: GatedHost) -> None:
    gated.want(command=[program(gated, "mine", "exit 0")])
    assert smoke(gated, "list", "exit 1") == []
    gated.want(command=[program(gated, "mine", "echo 'card 1 is slow'; exit 3"), "--fast"])
    (said,) = gated.broken()
    assert said.endswith("programs/mine: card 1 is slow")


# --- engines ---


def test_an_engine_that_is_ready_a_moment_later_is_waited_for(gated: GatedHost) -> None:
    gated.want(timeout_s=30)
    gated.engine.first["/health"] = [(503, {"error": "Loading model"})]
    assert gated.broken() == []
    assert [path for path, _ in gated.engine.asked] == ["/health", "/health"]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("failed", f"{UNIT} failed: journalctl -u {UNIT}"),
        ("activating", f"{UNIT} is activating"),
        ("inactive", f"{UNIT} does not run"),
        ("active", f"{UNIT} is not ready: /health answers 503"),
    ],
)
def test_an_engine_that_is_not_ready_in_time_is_broken(gated: GatedHost, state: str, said: str) -> None:
    gated.host.unit(UNIT, state)
    gated.host.file(f"state/enabled/{UNIT}", "enabled\n")
    gated.engine.answers["/health"] = (503, None)
    assert gated.broken() == [said]


def test_an_engine_that_is_switched_off_is_a_note(gated: GatedHost) -> None:
    gated.host.unit(UNIT, "inactive")
    answer = gated.passed()
    assert (answer["broken"], answer["notes"]) == ([], [f"{UNIT} is switched off"])


def test_what_the_sleep_stopped_is_started_again(gated: GatedHost) -> None:
    gated.host.unit(UNIT, "inactive")
    unload.remember(unload.Stopped(units=(UNIT,)), gated.host.root)
    answer = gated.passed()
    assert (answer["broken"], answer["notes"]) == ([], [f"started again after the sleep: {UNIT}"])
    assert not (gated.host.root / sleepfiles.STOPPED).exists()


def decode(gated: GatedHost, what: str = "completion", *, cards: bool = True) -> None:
    gated.want(decode=[{"unit": UNIT, "model": "tiny", "what": what, "cards": cards}])


@pytest.mark.parametrize(
    ("what", "path", "answer"),
    [
        ("completion", "/v1/completions", {"choices": [{"text": "x"}]}),
        ("embedding", "/v1/embeddings", {"data": [{"embedding": [0.1]}]}),
        ("rerank", "/v1/rerank", {"results": [{"index": 0}]}),
    ],
)
def test_an_engine_with_a_loaded_model_makes_one_token(
    gated: GatedHost, what: str, path: str, answer: dict[str, Any]
) -> None:
    decode(gated, what)
    gated.engine.answers[path] = (200, answer)
    assert gated.passed()["notes"] == ["e answered with tiny"]
    (asked,) = gated.engine.posted()
    assert (asked[0], asked[1]["model"]) == (path, "tiny")
    gated.engine.answers[path] = (200, {})
    assert gated.broken() == [f"e makes no token with tiny: {path} answers 200"]
    gated.engine.answers[path] = (500, answer)
    assert gated.broken() == [f"e makes no token with tiny: {path} answers 500"]


def test_an_engine_that_answers_from_the_processor_is_broken(gated: GatedHost) -> None:
    decode(gated)
    gated.gpus.set(0, procs="4712:1000:another")
    assert gated.broken() == [f"e answers from the processor: nothing of {UNIT} computes on a card"]
    decode(gated, cards=False)
    assert gated.broken() == []


def test_no_model_is_loaded_by_the_gate(gated: GatedHost) -> None:
    gated.rows = [gated.engine.row("llama-swap", UNIT)]
    gated.want()
    assert gated.broken() == []
    assert gated.engine.posted() == []


def test_a_step_that_breaks_spoils_no_other(gated: GatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caps, "apply", lambda root, **steps: 1 / 0)
    answer = gated.passed()
    assert answer["broken"] == [
        "caps: ZeroDivisionError: division by zero; this may be a bug in labctl-agent"
    ]


def test_without_settings_nothing_passes(gated: GatedHost) -> None:
    (gated.host.root / "etc/labctl/agent.json").unlink()
    assert gated.broken() == ["there is no /etc/labctl/agent.json: run labctl apply"]


# --- mending ---


def test_engines_are_restarted_in_their_order(gated: GatedHost) -> None:
    rows = [("b", 1), ("a", 0), ("off", 2)]
    gated.rows = [
        {"service": name, "kind": "vllm", "unit": f"labctl-{name}.service", "url": "", "order": order}
        for name, order in rows
    ]
    gated.want()
    for name in ("a", "b"):
        gated.host.file(f"state/enabled/labctl-{name}.service", "enabled\n")
    answer = mend.mended("engines", gated.host.root)
    assert (answer["ok"], answer["failed"]) == (True, None)
    assert answer["did"] == ["restarted labctl-a.service", "restarted labctl-b.service"]


@pytest.fixture
def modules(gated: GatedHost) -> GatedHost:
    """A host whose kernel modules can be taken out and put in."""
    for name in ("rmmod", "modprobe"):
        program(gated, name, f'echo "{name} $1" >>{gated.host.state}/log')
    (gated.host.root / "sys/module/nvidia_uvm").mkdir(parents=True)
    gated.want(reload_driver=True)
    return gated


def test_the_driver_is_reloaded_when_nobody_uses_it(modules: GatedHost) -> None:
    answer = mend.mended("driver", modules.host.root)
    assert (answer["ok"], answer["failed"]) == (True, None)
    assert answer["did"] == [f"stopped {UNIT}", "loaded nvidia_uvm anew", f"started {UNIT}"]
    assert modules.host.log == [f"stop {UNIT}", "rmmod nvidia_uvm", "modprobe nvidia_uvm", f"start {UNIT}"]
    assert not (modules.host.root / sleepfiles.STOPPED).exists()


def test_a_driver_in_use_is_left_alone_and_the_answer_says_by_whom(modules: GatedHost) -> None:
    opened = modules.host.root / "proc/4713/fd"
    opened.mkdir(parents=True)
    (opened / "5").symlink_to("/dev/nvidia-uvm")
    (opened / "6").symlink_to("/dev/null")
    modules.host.file("proc/4713/comm", "blender\n")
    answer = mend.mended("driver", modules.host.root)
    assert (answer["ok"], answer["failed"]) == (False, "nvidia_uvm is in use by 4713 blender")
    assert "rmmod nvidia_uvm" not in modules.host.log
    assert modules.host.log[-1] == f"start {UNIT}"


def test_a_driver_that_may_not_or_cannot_be_reloaded_is_left_alone(modules: GatedHost) -> None:
    (modules.host.root / "sys/module/nvidia_uvm").rmdir()
    assert mend.mended("driver", modules.host.root)["failed"] == "nvidia_uvm is not loaded"
    modules.want(reload_driver=False)
    assert mend.mended("driver", modules.host.root)["failed"] == (
        "the rack file does not allow to reload the driver (gate reload_driver)"
    )
    assert modules.host.log == []


def test_a_reboot_is_left_to_systemd_after_the_answer(gated: GatedHost) -> None:
    gated.want(reboot=True)
    program(gated, "systemd-run", f'echo "$@" >>{gated.host.state}/log')
    answer = mend.mended("reboot", gated.host.root)
    assert (answer["ok"], answer["did"]) == (True, ["reboots in 2 s"])
    (line,) = gated.host.log
    assert "--on-active=2s" in line
    assert line.endswith("org.freedesktop.login1.Manager RebootWithFlags t 1")


def test_nobody_is_rebooted_under_his_hands(gated: GatedHost) -> None:
    gated.want(reboot=True)
    gated.host.signals = [[Reading("sessions", True, "ann is logged in")]]
    assert mend.mended("reboot", gated.host.root)["failed"] == (
        "it is not rebooted under somebody's hands: ann is logged in"
    )
    gated.want(reboot=False)
    assert mend.mended("reboot", gated.host.root)["failed"] == (
        "the rack file does not allow to reboot this host (gate reboot)"
    )
    assert gated.host.log == []
