"""What gateways are told: the same models, keys by reference, and nothing that wakes or loads by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from labctl.inventory import (
    Bifrost,
    Host,
    IdlePolicy,
    LiteLlm,
    LlamaServer,
    LlamaSwap,
    Model,
    ModelFile,
    Olla,
    Ollama,
    PgVector,
    Rack,
    Secret,
    Sglang,
    Swapped,
    Vllm,
    WakeOnLan,
)
from labctl.inventory.coldstart import cold_start
from labctl.inventory.services import OthersGateway
from labctl.inventory.upstreams import reach
from labctl.render import units
from labctl.render.gateways import launch
from labctl.render.gateways.pgvector import access, statements

KINDS: list[Callable[..., OthersGateway]] = [Bifrost, LiteLlm, Olla]
SIZE = 40_000_000_000


def model(name: str, **fields: Any) -> Model:
    if fields.get("kind") == "vision":
        return Model(
            id=name, source="/srv/v", mmproj="p.gguf", files=[_file("p.gguf"), _file("v.gguf")], **fields
        )
    return Model(id=name, source=f"/srv/{name}.gguf", **fields)


def _file(name: str) -> ModelFile:
    return ModelFile(name=name, sha256="0" * 64, size=SIZE // 2)


MODELS = (
    model("coder", aliases=["gpt-4o", "small"]),
    model("eyes", kind="vision"),
    model("embed", kind="embedding"),
    model("rank", kind="rerank"),
    model("big"),
    model("odd"),
    model("local"),
    model("lost"),
)
RIG = Host(
    name="rig",
    address="10.0.0.2",
    idle=IdlePolicy(suspend=True),
    wake=WakeOnLan(mac="52:54:00:00:00:01"),
    disk_mb_s=500,
    open_ports=[8080],
    services=[
        LlamaSwap(
            name="swap",
            port=8080,
            listen="0.0.0.0",
            api_key=Secret(file="keys/rig"),
            models=[
                Swapped(engine=LlamaServer(name=name, model=name, ctx_size=8192))
                for name in ("coder", "eyes", "embed", "rank")
            ],
        )
    ],
)
TWO = Host(
    name="two",
    address="10.0.0.3",
    services=[
        Vllm(
            name="big", model="big", port=8000, listen="0.0.0.0", api_key=Secret(env="VLLM_KEY"), binary="/v"
        ),
        Sglang(
            name="odd", model="odd", port=30000, listen="0.0.0.0", api_key=Secret(env="SGL_KEY"), binary="/s"
        ),
        LlamaServer(name="lost", model="lost", port=8009, binary="/l"),
    ],
)


def rack(make: Callable[..., OthersGateway], **fields: Any) -> tuple[Rack, Host, OthersGateway]:
    gateway = make(name="gate", port=4000, binary="/usr/local/bin/gate", **fields)
    hub = Host(
        name="hub",
        address="10.0.0.1",
        services=[gateway, Ollama(name="ollama", port=11434, models=["local"], binary="/o")],
    )
    return Rack(name="r", models=MODELS, hosts=[hub, RIG, TWO]), hub, gateway


def config(make: Callable[..., OthersGateway], **fields: Any) -> Any:
    (file,) = launch(*rack(make, **fields)).files
    return json.loads(file.content) if make is Bifrost else yaml.safe_load(file.content)


def test_every_gateway_serves_the_same_models() -> None:
    served = ["local", "coder", "eyes", "embed", "rank", "big", "odd"]
    assert [entry["model_name"] for entry in config(LiteLlm)["model_list"]] == served
    providers = config(Bifrost)["providers"].values()
    names = [
        name for one in providers for name in one["keys"][0]["models"] if name not in ("gpt-4o", "small")
    ]
    assert names == served
    endpoints = config(Olla)["discovery"]["static"]["endpoints"]
    assert [one["url"] for one in endpoints] == [
        "http://127.0.0.1:11434",
        "http://10.0.0.2:8080",
        "http://10.0.0.3:8000",
        "http://10.0.0.3:30000",
    ]


@pytest.mark.parametrize("make", [LiteLlm, Olla])
def test_what_is_left_out_is_said_with_its_reason(make: Callable[..., OthersGateway]) -> None:
    (file,) = launch(*rack(make)).files
    assert (
        "# Left out: lost of two/lost: listens on 127.0.0.1 of two, where hub cannot reach it" in file.content
    )


@pytest.mark.parametrize("make", KINDS)
def test_a_gateway_may_be_for_some_hosts_alone(make: Callable[..., OthersGateway]) -> None:
    assert "10.0.0.3" not in json.dumps(config(make, hosts=["rig"]))
    assert "10.0.0.2" in json.dumps(config(make, hosts=["rig"]))


@pytest.mark.parametrize("make", KINDS)
def test_keys_are_references_and_reach_the_unit_as_files_for_root_alone(
    make: Callable[..., OthersGateway],
) -> None:
    held, hub, gateway = rack(make) if make is Olla else rack(make, api_key=Secret(file="keys/gate"))
    start, unit = launch(held, hub, gateway), units.service(held, hub, gateway).content
    own = () if make is Olla else (("own", "keys/gate"),)
    assert [(one.name, str(one.secret.file or one.secret.env)) for one in start.secrets] == [
        *own,
        ("rig", "keys/rig"),
        ("two-big", "VLLM_KEY"),
        ("two-odd", "SGL_KEY"),
    ]
    for one in start.secrets:
        assert one.environment == (make is not Olla)
        line = f"LoadCredential={one.name}:" if make is Olla else "EnvironmentFile="
        assert f"{line}/etc/labctl/secrets/gate.{one.name}\n" in unit
    assert "keys/" not in unit + start.files[0].content


def test_litellm_gets_urls_modes_keys_and_the_timeouts_of_a_cold_start() -> None:
    held, hub, gateway = rack(LiteLlm)
    entries = {entry["model_name"]: entry for entry in config(LiteLlm)["model_list"]}
    eyes = next(
        served
        for upstream in reach(held, hub, gateway).upstreams
        for served in upstream.models
        if served.id == "eyes"
    )
    assert entries["eyes"]["litellm_params"] == {
        "model": "openai/eyes",
        "api_base": "http://10.0.0.2:8080/v1",
        "api_key": "os.environ/KEY_RIG",
        "timeout": cold_start(eyes).whole_s,
        "stream_timeout": 120 + 160 + 70,
        "max_retries": 0,
    }
    assert entries["eyes"]["model_info"] == {
        "mode": "chat",
        "supports_vision": True,
        "max_input_tokens": 8192,
    }
    assert entries["embed"]["model_info"]["mode"] == "embedding"
    assert entries["rank"]["litellm_params"]["model"] == "hosted_vllm/rank"
    assert entries["local"]["litellm_params"]["api_key"] == "none"
    assert config(LiteLlm)["router_settings"]["model_group_alias"] == {"gpt-4o": "coder", "small": "coder"}


def test_litellm_polls_nothing_and_asks_for_its_key() -> None:
    document = config(LiteLlm, api_key=Secret(file="keys/gate"))
    assert document["general_settings"]["background_health_checks"] is False
    assert document["general_settings"]["master_key"] == "os.environ/LABCTL_GATEWAY_KEY"
    assert document["router_settings"]["disable_cooldowns"] is True
    assert "master_key" not in config(LiteLlm)["general_settings"]
    assert "health" not in json.dumps(document["model_list"])


def test_bifrost_is_told_by_its_file_alone_and_by_providers_of_our_own() -> None:
    document = config(Bifrost, api_key=Secret(file="keys/gate"))
    assert document["config_store"] == {"enabled": False}
    rig = document["providers"]["rig"]
    assert rig["network_config"]["base_url"] == "http://10.0.0.2:8080"
    assert rig["network_config"]["default_request_timeout_in_seconds"] > 120 + 600
    assert rig["keys"][0]["value"] == "env.KEY_RIG"
    assert rig["custom_provider_config"]["base_provider_type"] == "openai"
    assert {"chat_completion_stream", "embedding", "rerank"} <= set(
        rig["custom_provider_config"]["allowed_requests"]
    )
    assert document["providers"]["hub"]["custom_provider_config"]["is_key_less"] is True
    assert document["client"]["enforce_auth_on_inference"] is True
    (key,) = document["governance"]["virtual_keys"]
    assert key["value"] == "env.LABCTL_GATEWAY_KEY"
    assert [one["provider"] for one in key["provider_configs"]] == list(document["providers"])
    (own, *_) = launch(*rack(Bifrost, api_key=Secret(file="keys/gate"))).secrets
    assert own.content("abc") == "LABCTL_GATEWAY_KEY=sk-bf-abc\n"


def test_olla_checks_seldom_by_addresses_that_load_and_wake_nothing() -> None:
    document = config(Olla)
    endpoints = {one["name"]: one for one in document["discovery"]["static"]["endpoints"]}
    assert {name: (one["type"], one["health_check_url"]) for name, one in endpoints.items()} == {
        "hub": ("ollama", "/api/version"),
        "rig": ("openai-compatible", "/health"),
        "two-big": ("vllm", "/health"),
        "two-odd": ("sglang", "/ready"),
    }
    for one in endpoints.values():
        assert int(one["check_interval"].removesuffix("s")) >= 60
        assert int(one["check_timeout"].removesuffix("s")) <= 30
        assert "/upstream/" not in json.dumps(one)
    assert endpoints["rig"]["auth"] == {
        "type": "bearer",
        "token_file": "/run/credentials/labctl-gate.service/rig",
    }
    assert "auth" not in endpoints["hub"]
    slowest = max(one.first_byte_s for one in reach(*rack(Olla)).upstreams)
    assert document["proxy"]["response_header_timeout"] == f"{slowest}s"


@pytest.mark.parametrize("make", KINDS)
def test_another_list_of_models_means_another_unit(make: Callable[..., OthersGateway]) -> None:
    assert units.service(*rack(make)).content != units.service(*rack(make, hosts=["rig"])).content
    assert units.service(*rack(make)).content == units.service(*rack(make)).content


STORE = PgVector(name="vectors", password=Secret(file="keys/pw"), database="rag")
HOST = Host(name="hub", address="x", services=[STORE])


def test_postgresql_is_its_own_user_s_and_ends_without_waiting_for_clients() -> None:
    unit = units.service(Rack(name="r", hosts=[HOST]), HOST, STORE).content
    assert "\nUser=labctl-pg\n" in unit
    assert "\nKillSignal=SIGINT\n" in unit
    assert "\nMemoryDenyWriteExecute=yes\n" in unit
    assert '"listen_addresses=127.0.0.1" "-c" "port=5432"' in unit
    assert "keys/pw" not in unit


def test_only_the_owner_may_log_in_over_the_network() -> None:
    rules = [line.split() for line in access(STORE).splitlines() if line and not line.startswith("#")]
    assert rules == [
        ["local", "all", '"labctl-pg"', "peer"],
        ["local", '"rag"', '"rag"', "scram-sha-256"],
        ["host", '"rag"', '"rag"', "0.0.0.0/0", "scram-sha-256"],
        ["host", '"rag"', '"rag"', "::/0", "scram-sha-256"],
    ]


def test_the_statements_hold_the_verifier_and_make_the_extension() -> None:
    text = statements(STORE, "SCRAM-SHA-256$4096:a$b:c")
    assert "PASSWORD 'SCRAM-SHA-256$4096:a$b:c'" in text
    assert text.index('\\connect "rag"') < text.index("CREATE EXTENSION IF NOT EXISTS vector")
