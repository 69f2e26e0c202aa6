# ruff: noqa: E501 - one case a line reads best
"""Hosts that work together: what does not add up is told where it can be mended."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from rack_texts import problems, write

from labctl.inventory import clusters, load_rack
from labctl.inventory.hosts import PrivateNet

# A rack that agrees with itself; each case below changes one place.
SOUND = """\
from labctl.inventory import Command, Gpu, Host, LlamaServer, LlamaSwap, Model, PrivateNet, PythonEnv, Rack, RayCluster, RpcServer, Swapped, Vllm
rack = Rack(name="r",
    models=[Model(id="big", source="/srv/big"), Model(id="wide", source="/srv/wide.gguf")],
    clusters=[RayCluster(name="sparks", head="s1", workers=["s2"])],
    hosts=[
        Host(name="s1", address="10.0.0.1", gpus=[Gpu(model="GB10", slot="soc")],
            private=PrivateNet(interface="fast0", address="192.168.100.1"),
            services=[Vllm(name="chat", model="big", port=8000, cluster="sparks", tensor_parallel_size=2, binary="/opt/v/bin/vllm")]),
        Host(name="s2", address="10.0.0.2", gpus=[Gpu(model="GB10", slot="soc")],
            private=PrivateNet(interface="fast0", address="192.168.100.2")),
        Host(name="a", address="10.0.0.3", gpus=[Gpu(model="RTX 3090", slot="s0")],
            private=PrivateNet(interface="eth1", address="192.168.7.1"),
            services=[LlamaServer(name="wide", model="wide", port=8080, rpc=["b"], binary="/opt/l/llama-server")]),
        Host(name="b", address="10.0.0.4", gpus=[Gpu(model="RX 7900 XTX", slot="s0")],
            private=PrivateNet(interface="eth1", address="192.168.7.2"),
            services=[RpcServer(name="lend", port=50052, binary="/opt/l/ggml-rpc-server")]),
        Host(name="c", address="10.0.0.5"),
    ])
globals().update(rack.groups())
"""
S1, S2, A, B = "192.168.100.1", "192.168.100.2", "192.168.7.1", "192.168.7.2"
CHAT = 'cluster="sparks", tensor_parallel_size=2'

CASES = [
    ("an unknown head", 'head="s1"', 'head="s9"', 4, "", "clusters[0].head", "no host called 's9'"),
    ("an unknown worker", 'workers=["s2"]', 'workers=["s2", "s3"]', 4, "", "clusters[0].workers[1]", "no host called 's3'"),
    ("a worker twice", 'workers=["s2"]', 'workers=["s2", "s2"]', 4, "", "clusters[0].workers[1]", "s2 is in cluster sparks already"),
    ("a head that works for itself", 'workers=["s2"]', 'workers=["s2", "s1"]', 4, "", "clusters[0].workers[1]", "s1 is in cluster sparks already"),
    ("a host in two clusters", 'workers=["s2"])', 'workers=["s2"]), RayCluster(name="more", head="a", workers=["s2"])', 4, "", "clusters[1].workers[0]", "s2 is in cluster sparks already"),
    ("two clusters of one name", 'workers=["s2"])', 'workers=["s2"]), RayCluster(name="sparks", head="a", workers=["b"])', 4, "", "clusters[1].name", "taken already"),
    ("a worker without a private network", f'private=PrivateNet(interface="fast0", address="{S2}")', "", 4, "", "clusters[0].workers[0]", "s2 has no `private` network"),
    ("two private networks", S2, "192.168.101.2", 4, "", "clusters[0].workers[0]", "in the private network 192.168.101.0/24"),
    ("one private address twice", S2, S1, 10, "s2", "private.address", "taken already by host s1"),
    ("a private address of the internet", B, "8.8.8.8", 15, "b", "private.address", "8.8.8.8 is no address of a private network"),
    ("a private address of loopback", B, "127.0.0.9", 15, "b", "private.address", "no address of a private network"),
    ("another protocol", S2, "fd00::2", 4, "", "clusters[0].workers[0]", "s2 has an IPv6 address there"),
    ("a worker of another kind", 's2", address="10.0.0.2", gpus=[Gpu(model="GB10"', 's2", address="10.0.0.2", gpus=[Gpu(model="RTX 3090"', 4, "", "clusters[0].workers[0]", "RTX 3090 of s2 is of another architecture than GB10"),
    ("a worker without cards", 's2", address="10.0.0.2", gpus=[Gpu(model="GB10", slot="soc")]', 's2", address="10.0.0.2"', 4, "", "clusters[0].workers[0]", "s2 has no cards to offer"),
    ("a service in the node's place", f'private=PrivateNet(interface="fast0", address="{S2}")', f'private=PrivateNet(interface="fast0", address="{S2}"), services=[Command(name="ray", argv=["/bin/true"])]', 4, "", "clusters[0].workers[0]", "has a service called ray"),
    ("an unknown cluster", 'cluster="sparks"', 'cluster="spark"', 8, "s1", "services[0].cluster", "no cluster called 'spark'"),
    ("vLLM elsewhere", 'head="s1", workers=["s2"]', 'head="s2", workers=["s1"]', 8, "s1", "services[0].cluster", "the head of sparks is s2, not s1"),
    ("cards that nobody chooses", CHAT, f'{CHAT}, gpus=["soc"]', 8, "s1", "services[0].gpus", "Ray deals the cards out"),
    ("too few ranks", "tensor_parallel_size=2", "tensor_parallel_size=1", 8, "s1", "services[0].tensor_parallel_size", "1 × 1, but the hosts of sparks have 2 cards"),
    ("too many ranks", "tensor_parallel_size=2", "tensor_parallel_size=2, pipeline_parallel_size=2", 8, "s1", "services[0].tensor_parallel_size", "2 × 2, but the hosts of sparks have 2 cards"),
    ("too many copies", "tensor_parallel_size=2", "tensor_parallel_size=2, data_parallel_size=2", 8, "s1", "services[0].tensor_parallel_size", "times 2 for data parallel: 4, but"),
    ("two vLLMs at once", 'binary="/opt/v/bin/vllm")]', f'binary="/opt/v/bin/vllm"), Vllm(name="more", model="big", port=8001, {CHAT}, binary="/opt/v/bin/vllm")]', 8, "s1", "services[1].cluster", "all cards of sparks are taken already by service chat"),
    ("a service on Ray's port", "port=8000", "port=6382", 8, "s1", "services[0].port", "taken already by Ray cluster sparks"),
    ("a service on a port of Ray's workers", "port=8000", "port=11500", 8, "s1", "services[0].port", "taken already by Ray cluster sparks"),
    ("Ray beyond the last port", 'workers=["s2"]', 'workers=["s2"], port=65530', 4, "", "clusters[0].port", "there are none"),
    ("Ray opened to all", 's2", address="10.0.0.2",', 's2", address="10.0.0.2", open_ports=[80, 6379],', 9, "s2", "open_ports[1]", "would open port 6379 of Ray cluster sparks to everybody"),
    ("an rpc-server opened to all", 'address="10.0.0.4",', 'address="10.0.0.4", open_ports=[50052],', 14, "b", "open_ports[0]", "would open port 50052 of rpc-server lend to everybody"),
    ("an rpc-server without a private network", f'private=PrivateNet(interface="eth1", address="{B}"),', "", 16, "b", "services[0]", "listens on the private network only, and this host has none"),
    ("an rpc-server that would listen to all", "port=50052", 'port=50052, listen="0.0.0.0"', 16, "b", "services[0].listen", "cannot be chosen"),
    ("an rpc-server without a port", ' port=50052,', "", 16, "b", "services[0].port", "is missing"),
    ("an rpc-server with unknown cards", "port=50052", 'port=50052, gpus=["s7"]', 16, "b", "services[0].gpus[0]", "no card of this host called 's7'"),
    ("an rpc-server on a taken port", "services=[RpcServer(", f'services=[Command(name="web", argv=["/bin/true"], port=50052, listen="{B}"), RpcServer(', 16, "b", "services[1].port", "taken already by service web"),
    ("an rpc-server for nobody", ', rpc=["b"]', "", 16, "b", "services[0]", "lends its cards to nobody"),
    ("an unknown lender", 'rpc=["b"]', 'rpc=["b", "bb"]', 13, "a", "services[0].rpc[1]", "no host called 'bb'"),
    ("a lender that lends nothing", 'rpc=["b"]', 'rpc=["b", "c"]', 13, "a", "services[0].rpc[1]", "c lends no cards"),
    ("a lender twice", 'rpc=["b"]', 'rpc=["b", "b"]', 13, "a", "services[0].rpc[1]", "b is named already"),
    ("a host that borrows from itself", 'rpc=["b"]', 'rpc=["b", "a"]', 13, "a", "services[0].rpc[1]", "is the host itself"),
    ("a borrower without a private network", f'private=PrivateNet(interface="eth1", address="{A}"),', "", 13, "a", "services[0].rpc", "a has no `private` network"),
    ("a lender out of reach", B, "192.168.8.2", 13, "a", "services[0].rpc[0]", "b is in the private network 192.168.8.0/24"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "line", "host", "field", "reason"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_hosts_that_cannot_work_together_are_told(
    old: str, new: str, line: int, host: str, field: str, reason: str, tmp_path: Path
) -> None:
    assert SOUND.count(old) == 1, SOUND.count(old)
    found = problems(write(tmp_path, SOUND.replace(old, new)))
    told = {(p.line, p.host or "", p.field): p.reason for p in found}
    assert reason in told.get((line, host, field), ""), found


def test_vllm_and_the_nodes_that_it_runs_on_are_one_environment(tmp_path: Path) -> None:
    text = SOUND.replace('binary="/opt/v/bin/vllm"', 'version="1.0"').replace('"s2"])', '"s2"], env="2.0")')
    told = [one for one in problems(write(tmp_path, text)) if one.field == "services[0].version"]
    assert any("is 1.0, and the nodes of sparks run 2.0" in one.reason for one in told)


def test_a_cluster_without_vllm_says_which_ray_it_runs(tmp_path: Path) -> None:
    start, end = SOUND.index("services=[Vllm("), SOUND.index("),\n", SOUND.index("services=[Vllm("))
    alone = SOUND[:start] + SOUND[end:]
    (told,) = problems(write(tmp_path, alone))
    assert (told.line, told.field) == (4, "clusters[0].env")
    assert "nothing else says which Ray its nodes run" in told.reason
    (told,) = problems(write(tmp_path, SOUND.replace('"s2"])', '"s2"], env="9.9")')))
    assert "no Python environment with Ray called '9.9'" in told.reason


def test_hosts_that_can_work_together_are_left_alone(tmp_path: Path) -> None:
    assert problems(write(tmp_path, SOUND)) == []


def test_a_prefix_of_ones_own_makes_one_network_of_two(tmp_path: Path) -> None:
    wide = SOUND.replace(f'"{S1}"', f'"{S1}", prefix=16').replace(f'"{S2}"', '"192.168.101.2", prefix=16')
    assert problems(write(tmp_path, wide)) == []


@pytest.mark.parametrize(
    ("address", "network"),
    [("192.168.7.9", "192.168.7.0/24"), ("169.254.9.1", "169.254.0.0/16"), ("fd00::5", "fd00::/64")],
)
def test_the_usual_network_of_an_address_is_taken(address: str, network: str) -> None:
    assert str(clusters.network_of(PrivateNet(interface="eth1", address=address))) == network


@pytest.mark.parametrize(
    ("cards", "tensor"), [*product([(1, 1), (2, 2), (4, 4), (4, 2), (3, 3)], [1, 2, 3, 4])]
)
def test_a_group_crosses_hosts_exactly_when_one_host_cannot_hold_each_group_whole(
    cards: tuple[int, ...], tensor: int
) -> None:
    if sum(cards) % tensor:
        return
    assert clusters.crosses_hosts(cards, tensor) == any(number % tensor for number in cards)


def test_an_engine_uses_the_cards_of_all_hosts_that_work_for_it(tmp_path: Path) -> None:
    rack = load_rack(write(tmp_path, SOUND)).rack
    s1, a, b = rack.host("s1"), rack.host("a"), rack.host("b")
    assert [
        (part.host.name, [gpu.slot for gpu in part.gpus])
        for part in clusters.devices_of(rack, s1.services[0], s1)
    ] == [("s1", ["soc"]), ("s2", ["soc"])]
    assert [
        (part.host.name, [gpu.model for gpu in part.gpus])
        for part in clusters.devices_of(rack, a.services[0], a)
    ] == [("b", ["RX 7900 XTX"]), ("a", ["RTX 3090"])]
    alone = a.services[0].model_copy(update={"rpc": ()})
    assert [part.host.name for part in clusters.devices_of(rack, alone, a)] == ["a"]
    assert b.name not in [part.host.name for part in clusters.devices_of(rack, alone, a)]
