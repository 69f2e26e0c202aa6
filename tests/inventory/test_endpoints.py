"""Who serves what, and who reaches it under which address: the list that gateways and clients share."""

from __future__ import annotations

import pytest

from labctl.inventory import (
    Host,
    IdlePolicy,
    LlamaServer,
    LlamaSwap,
    Model,
    ModelFile,
    Ollama,
    PrivateNet,
    Rack,
    Swapped,
    Vllm,
    WakeOnLan,
)
from labctl.inventory.coldstart import (
    PROMPT_S,
    UNLOAD_S,
    cold_start,
)
from labctl.inventory.endpoints import Endpoint, address_from, base_url, endpoints, reached
from labctl.inventory.swapping import LEAST_LOAD_S, UNKNOWN_LOAD_S, WAKE_S

FILE = ModelFile(name="m.gguf", sha256="0" * 64, size=20_000_000_000)
BIG = Model(id="big", aliases=["large"], source="file:///srv/big", files=[FILE])
TINY = Model(id="tiny", source="/srv/tiny.gguf")


def swap(*engines: LlamaServer, **fields: object) -> LlamaSwap:
    return LlamaSwap(name="swap", port=8080, models=[Swapped(engine=one) for one in engines], **fields)


def rack(*hosts: Host) -> Rack:
    return Rack(name="r", models=[BIG, TINY], hosts=hosts)


def of(found: tuple[Endpoint, ...], name: str) -> Endpoint:
    return next(one for one in found if one.name == name)


def test_an_engine_a_swap_and_an_ollama_are_endpoints_and_an_engine_without_a_port_is_none() -> None:
    host = Host(
        name="a",
        address="10.0.0.1",
        services=[
            LlamaServer(name="alone", model="tiny", port=8001),
            swap(LlamaServer(name="under", model="large")),
            Ollama(name="ollama", port=11434, models=["tiny"]),
            LlamaSwap(name="empty", port=8090),
        ],
    )
    found = {one.name: [served.id for served in one.models()] for one in endpoints(rack(host))}
    assert found == {"a/alone": ["tiny"], "a/swap": ["big"], "a/ollama": ["tiny"], "a/empty": []}


def test_a_swap_serves_the_models_of_its_peers_that_it_can_reach() -> None:
    hosts = [
        Host(name="hub", address="10.0.0.9", services=[LlamaSwap(name="swap", port=8080, peers="rack")]),
        Host(
            name="a",
            address="10.0.0.1",
            services=[swap(LlamaServer(name="s", model="big"), listen="0.0.0.0")],
        ),
        Host(name="b", address="10.0.0.2", services=[swap(LlamaServer(name="s", model="tiny"))]),
    ]
    hub = of(endpoints(rack(*hosts)), "hub/swap")
    assert [(served.id, served.host.name) for served in hub.models()] == [("big", "a")]


PLAIN = Host(name="a", address="10.0.0.1")
TWIN = Host(name="b", address="10.0.0.2")
CABLED = Host(name="c", address="10.0.0.3", private=PrivateNet(interface="eth1", address="10.9.0.3"))
OTHER_END = Host(name="d", address="10.0.0.4", private=PrivateNet(interface="eth1", address="10.9.0.4"))


@pytest.mark.parametrize(
    ("host", "listen", "viewer", "address"),
    [
        (PLAIN, "127.0.0.1", PLAIN, "127.0.0.1"),
        (PLAIN, "127.0.0.1", TWIN, None),
        (PLAIN, "127.0.0.1", None, None),
        (PLAIN, "::1", PLAIN, "::1"),
        (PLAIN, "0.0.0.0", PLAIN, "127.0.0.1"),
        (PLAIN, "0.0.0.0", TWIN, "10.0.0.1"),
        (PLAIN, "0.0.0.0", None, "10.0.0.1"),
        (PLAIN, "::", PLAIN, "::1"),
        (PLAIN, "10.0.0.1", None, "10.0.0.1"),
        (PLAIN, "10.0.0.1", PLAIN, "10.0.0.1"),
        (CABLED, "10.9.0.3", OTHER_END, "10.9.0.3"),
        (CABLED, "10.9.0.3", CABLED, "10.9.0.3"),
        (CABLED, "10.9.0.3", PLAIN, None),
        (CABLED, "10.9.0.3", None, None),
    ],
)
def test_an_address_depends_on_who_asks(
    host: Host, listen: str, viewer: Host | None, address: str | None
) -> None:
    assert reached(host, listen, viewer) == address


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert base_url("fd00::1", 80) == "http://[fd00::1]:80/v1"
    assert base_url("rig.lan", 80, "") == "http://rig.lan:80"


@pytest.mark.parametrize(
    ("engine", "context"),
    [
        (LlamaServer(name="s", model="tiny", port=1), None),
        (LlamaServer(name="s", model="tiny", port=1, ctx_size=8192), 8192),
        (LlamaServer(name="s", model="tiny", port=1, ctx_size=8192, parallel=4), 2048),
        (LlamaServer(name="s", model="tiny", port=1, ctx_size=8192, parallel=4, kv_unified=True), 8192),
        (Vllm(name="s", model="tiny", port=1, max_model_len=32768), 32768),
        (Ollama(name="s", models=["tiny"], port=1, context_length=4096), 4096),
    ],
)
def test_the_context_is_that_of_one_request(engine: LlamaServer, context: int | None) -> None:
    (found,) = endpoints(rack(Host(name="a", address="x", services=[engine])))
    assert found.models()[0].context == context


@pytest.mark.parametrize(
    ("fields", "service", "load_s", "because"),
    [
        (
            {},
            swap(LlamaServer(name="s", model="big")),
            UNKNOWN_LOAD_S,
            "`disk_mb_s` of its host is not stated",
        ),
        (
            {"disk_mb_s": 500},
            swap(LlamaServer(name="s", model="tiny")),
            UNKNOWN_LOAD_S,
            "its size is not stated",
        ),
        ({"disk_mb_s": 500}, swap(LlamaServer(name="s", model="big")), LEAST_LOAD_S, "20.0 GB at 500 MB/s"),
        ({"disk_mb_s": 100}, swap(LlamaServer(name="s", model="big")), 400, "20.0 GB at 100 MB/s"),
        (
            {"disk_mb_s": 500},
            swap(LlamaServer(name="s", model="big"), health_check_timeout="5m"),
            300,
            "`health_check_timeout`",
        ),
        (
            {},
            swap(LlamaServer(name="s", model="big", load_timeout="90s"), health_check_timeout="5m"),
            90,
            "`load_timeout`",
        ),
    ],
)
def test_loading_takes_what_is_stated_else_what_is_predicted_else_a_safe_guess(
    fields: dict[str, object], service: LlamaSwap, load_s: int, because: str
) -> None:
    (found,) = endpoints(rack(Host(name="a", address="x", services=[service], **fields)))
    cold = cold_start(found.models()[0])
    assert cold.load_s == load_s
    assert because in cold.load_because
    assert (cold.wake_s, cold.first_byte_s) == (0, load_s + UNLOAD_S + PROMPT_S)


def test_a_host_that_may_sleep_needs_time_to_wake() -> None:
    host = Host(
        name="a",
        address="x",
        idle=IdlePolicy(suspend=True),
        wake=WakeOnLan(mac="52:54:00:00:00:01"),
        services=[LlamaServer(name="s", model="tiny", port=1, load_timeout="10s")],
    )
    (found,) = endpoints(rack(host))
    assert cold_start(found.models()[0]).first_byte_s == WAKE_S["wol"] + 10 + UNLOAD_S + PROMPT_S
    assert address_from(found, None) is None
