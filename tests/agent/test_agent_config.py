"""What labctl writes about a host is what its agent reads; anything else is not believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from host_tree import Tree
from hypothesis import given
from hypothesis import strategies as st

from labctl.agent import config, engines
from labctl.agent.config import Engine, Malformed, Settings, SignalSettings
from labctl.inventory import (
    Command,
    Host,
    IdlePolicy,
    LlamaServer,
    LlamaSwap,
    Model,
    Ollama,
    Rack,
    Secret,
    Signals,
    WakeOnLan,
)
from labctl.inventory.fields import duration
from labctl.render import agent_config

MODEL = Model(id="m", source="/srv/m.gguf")


def rack(*services: Any, **fields: Any) -> tuple[Rack, Host]:
    host = Host(name="box", address="10.0.0.5", services=services, **fields)
    return Rack(name="r", hosts=(host,), models=(MODEL,)), host


def rendered(*services: Any, **fields: Any) -> Settings:
    return config.parsed(json.loads(agent_config.config(*rack(*services, **fields))))


def test_the_defaults_of_the_agent_are_those_of_the_inventory() -> None:
    assert rendered().signals == SignalSettings()
    assert rendered() == Settings(
        sleep=rendered().sleep,
        gate=rendered().gate,
        health={"certificates": []},
        written=True,
        ssh_ports=(22,),
    )


def test_every_signal_of_the_inventory_gets_to_the_agent() -> None:
    wanted = Signals(
        **{name: False for name, field in Signals.model_fields.items() if field.default is True},
        gpu_percent=11,
        gpu_idle_programs=("Xorg",),
        timers_within=duration("90s"),
        timers_ignored=("a.timer",),
        load_percent=12,
        network_kb_s=13,
        checks_dir="/srv/checks",
    )
    found = rendered(idle=IdlePolicy(signals=wanted)).signals
    assert found == SignalSettings(
        **{name: False for name, value in SignalSettings()._asdict().items() if value is True},
        gpu_percent=11,
        gpu_idle_programs=("Xorg",),
        timers_within_s=90.0,
        timers_ignored=("a.timer",),
        load_percent=12,
        network_kb_s=13,
        checks_dir="/srv/checks",
    )


def test_each_service_is_an_engine_with_its_unit_and_address() -> None:
    found = rendered(
        LlamaServer(
            name="chat", model="m", port=8001, binary="/b", api_key=Secret(env="KEY"), listen="0.0.0.0"
        ),
        LlamaServer(name="naps", model="m", port=8002, binary="/b", sleep_idle_seconds=60, listen="::"),
        LlamaSwap(name="swap", port=8080, binary="/b", listen="192.168.1.5", api_key=Secret(env="KEY")),
        Ollama(name="ol", binary="/b"),
        Command(name="job", argv=("/usr/bin/true",)),
    ).engines
    keys = "/etc/labctl/agent-keys/"
    chat = ("chat", "llama-server", "labctl-chat.service", "http://127.0.0.1:8001", f"{keys}chat", 0)
    assert found == (
        Engine(*chat, model="m"),
        Engine("naps", "llama-server", "labctl-naps.service", "http://[::1]:8002", None, 1, False, "m"),
        Engine("swap", "llama-swap", "labctl-swap.service", "http://192.168.1.5:8080", f"{keys}swap", 2),
        Engine("ol", "ollama", "labctl-ol.service", "http://127.0.0.1:11434", None, 3),
        Engine("job", "command", "labctl-job.service", "", None, 4),
    )


def test_the_keys_that_it_needs_are_named_and_no_value_is_in_it() -> None:
    given = rack(LlamaServer(name="chat", model="m", port=1, binary="/b", api_key=Secret(env="SECRET_KEY")))
    text = agent_config.config(*given)
    assert "SECRET_KEY" not in text
    assert agent_config.keys(given[1]) == (
        agent_config.Key("/etc/labctl/agent-keys/chat", Secret(env="SECRET_KEY")),
    )


def test_how_it_sleeps_and_which_card_wakes_it_are_told() -> None:
    found = rendered(wake=WakeOnLan(mac="52:54:00:66:00:11"), idle=IdlePolicy(how="hibernate")).sleep
    assert (found["how"], found["wol"]["mac"]) == ("hibernate", "52:54:00:66:00:11")
    assert rendered().sleep["wol"] is None


def test_a_boot_makes_the_folders_below_run() -> None:
    assert "d /run/labctl 0755 root root -\n" in agent_config.tmpfiles()
    assert "d /run/labctl/holds 0755 root root -\n" in agent_config.tmpfiles()


# --- what is not believed ---

GOOD: dict[str, Any] = {
    "format": 1,
    "signals": {"load": False},
    "engines": [{"service": "a", "kind": "vllm", "unit": "labctl-a.service", "url": "http://127.0.0.1:1"}],
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "not of format 1"),
        ({"format": True}, "not of format 1"),
        ({"mood": 1}, "unknown field 'mood'"),
        ({"signals": []}, "signals is not a JSON object"),
        ({"signals": {"loads": True}}, "signals has an unknown field 'loads'"),
        ({"signals": {"load": 1}}, "signals.load is neither true nor false"),
        ({"signals": {"gpu_percent": True}}, "signals.gpu_percent is not a whole number"),
        ({"signals": {"gpu_percent": -1}}, "signals.gpu_percent is not a whole number"),
        ({"signals": {"timers_within_s": float("nan")}}, "signals.timers_within_s is not a number"),
        ({"signals": {"timers_within_s": 1e12}}, "signals.timers_within_s is not a number"),
        ({"signals": {"timers_ignored": "a"}}, "signals.timers_ignored is not a list"),
        ({"signals": {"checks_dir": "busy.d"}}, "signals.checks_dir does not have its form"),
        ({"engines": {}}, "engines is not a list"),
        ({"engines": [{}] * 65}, "engines is not a list of at most 64"),
        ({"engines": [{"service": "a"}]}, r"engines\[0\] has no kind"),
        ({"engines": [{**GOOD["engines"][0], "unit": "../a"}]}, r"engines\[0\].unit does not have its form"),
        ({"engines": [{**GOOD["engines"][0], "key": "x"}]}, r"engines\[0\] has an unknown field 'key'"),
        ({"engines": [{**GOOD["engines"][0], "key_file": "k"}]}, r"engines\[0\].key_file does not"),
        ({"ssh_ports": [0]}, "ssh_ports is not a whole number"),
        ({"sleep": 3}, "sleep is not a JSON object"),
    ],
)
def test_a_file_with_anything_unknown_is_not_believed(change: dict[str, Any], reason: str) -> None:
    assert config.parsed(GOOD).written
    with pytest.raises(Malformed, match=reason):
        config.parsed({**GOOD, **change})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.sampled_from(["format", "signals", "engines", "ssh_ports", "sleep", "gate"]))
def test_any_value_is_settings_or_one_named_error(value: Any, name: str) -> None:
    for document in (value, {**GOOD, name: value}):
        try:
            config.parsed(document)
        except Malformed as refused:
            assert str(refused)


def _engine_unit(tree: Tree) -> None:
    text = f"# labctl\n{engines.MARKER} chat\n[Service]\nExecStart=/opt/llama-server --port 8001\n"
    tree.write({f"{engines.UNITS}/labctl-chat.service": text})


FOUND = (Engine("chat", "llama-server", "labctl-chat.service", "http://127.0.0.1:8001"),)


def test_without_the_file_all_signals_are_on_and_units_tell_the_engines(tree: Tree) -> None:
    _engine_unit(tree)
    assert config.read(tree.root) == Settings(engines=FOUND)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "is not a JSON object"),
        ('{"format": 9}', "not of format"),
    ],
)
def test_a_broken_file_leaves_all_signals_on_and_says_so(tree: Tree, text: str, reason: str) -> None:
    _engine_unit(tree)
    tree.write({config.PATH: text})
    found = config.read(tree.root)
    assert found == Settings(engines=FOUND, trouble=found.trouble)
    assert reason in found.trouble and found.trouble.startswith("/etc/labctl/agent.json cannot be read: ")


def test_a_folder_in_its_place_is_said_too(tree: Tree) -> None:
    Path(tree.root / config.PATH).mkdir(parents=True)
    assert config.read(tree.root).trouble
