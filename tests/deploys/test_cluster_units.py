"""Hosts that work together: units bound to the private network, a firewall that knows who is who, a wait."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from test_units import settings, words_as_systemd_reads_them

from labctl.domain.problem import LabctlError
from labctl.inventory import (
    Artifact,
    Gpu,
    Host,
    LlamaServer,
    LlamaSwap,
    Model,
    PrivateNet,
    PythonEnv,
    Rack,
    RayCluster,
    RpcServer,
    Secret,
    Swapped,
    Vllm,
    clusters,
)
from labctl.render import cluster, firewall, units
from labctl.render.launch import launch

FILE = Artifact(url="https://example.org/uv.tar.gz", sha256="a" * 64)
ENV = PythonEnv(kind="vllm", version="0.33.0", requirements=Path("v.txt"), uv=FILE, arch="aarch64")
CHAT = Vllm(name="chat", model="big", port=8000, cluster="sparks", tensor_parallel_size=2)
LEND = RpcServer(name="lend", port=50052, binary="/opt/l/ggml-rpc-server", cache=True)
WIDE = LlamaServer(name="wide", model="wide", port=8080, rpc=("rig",), binary="/opt/l/llama-server")


def spark(number: int, interface: str, *services: units.Service) -> Host:
    return Host(
        name=f"s{number}",
        address=f"10.0.0.{number}",
        gpus=(Gpu(model="GB10", slot="soc"),),
        unified_memory_gib=128,
        private=PrivateNet(interface=interface, address=f"192.168.100.{number}"),
        services=services,
    )


HEAD, WORKER = spark(1, "fast0", CHAT), spark(2, "fast1")
RIG = Host(
    name="rig",
    address="10.0.0.3",
    private=PrivateNet(interface="eth1", address="192.168.7.3"),
    services=(LEND,),
)
BOX = Host(
    name="box",
    address="10.0.0.4",
    private=PrivateNet(interface="eth2", address="192.168.7.4"),
    services=(WIDE,),
)
ALONE = Host(name="alone", address="10.0.0.5")
RACK = Rack(
    name="rack",
    hosts=(HEAD, WORKER, RIG, BOX, ALONE),
    models=(Model(id="big", source="/srv/big"), Model(id="wide", source="/srv/wide.gguf")),
    engines=(ENV,),
    clusters=(RayCluster(name="sparks", head="s1", workers=("s2",), object_store_mib=512),),
)
UNITS = {
    "head": cluster.node(RACK, HEAD),
    "worker": cluster.node(RACK, WORKER),
    "vllm": units.service(RACK, HEAD, CHAT),
    "rpc": units.service(RACK, RIG, LEND),
}


def argv_of(unit: units.Unit | None) -> list[str]:
    assert unit is not None
    return words_as_systemd_reads_them(settings(unit.content)["ExecStart"][0])


def environment_of(unit: units.Unit | None) -> dict[str, str]:
    assert unit is not None
    lines = (line.strip('"') for line in settings(unit.content)["Environment"])
    return dict(line.partition("=")[::2] for line in lines)


def test_the_head_and_its_workers_speak_by_fixed_ports_of_the_private_network() -> None:
    head, worker = argv_of(UNITS["head"]), argv_of(UNITS["worker"])
    ports = [
        "--node-manager-port",
        "6380",
        "--object-manager-port",
        "6381",
        "--runtime-env-agent-port",
        "6382",
    ]
    ports += ["--dashboard-agent-grpc-port", "6383", "--dashboard-agent-listen-port", "6384"]
    ports += ["--metrics-export-port", "6385", "--min-worker-port", "11000", "--max-worker-port", "11999"]
    rest = ["--num-gpus", "1", "--temp-dir", "/var/lib/labctl-ray", "--disable-usage-stats"]
    rest += ["--object-store-memory", str(512 * 1024**2)]
    ray = ["/opt/labctl/vllm/0.33.0/bin/ray", "start", "--block", "--node-ip-address"]
    own = ["192.168.100.1", "--head", "--port", "6379", "--include-dashboard=false"]
    assert head == [*ray, *own, *ports, *rest]
    assert worker == [*ray, "192.168.100.2", "--address", "192.168.100.1:6379", *ports, *rest]


def test_each_host_names_its_own_interface_and_vllm_copies_none_of_that() -> None:
    for unit, interface, address in (("head", "fast0", 1), ("worker", "fast1", 2), ("vllm", "fast0", 1)):
        found = environment_of(UNITS[unit])
        assert found["NCCL_SOCKET_IFNAME"] == f"={interface}"
        assert found["GLOO_SOCKET_IFNAME"] == interface
        assert found["VLLM_HOST_IP"] == f"192.168.100.{address}"
        assert not [name for name in found if name.startswith("NCCL_IB")]
    driver = environment_of(UNITS["vllm"])
    assert driver["RAY_ADDRESS"] == "192.168.100.1:6379"
    (file,) = launch(RACK, HEAD, CHAT, port="8000").files
    assert file.path == f"{driver['VLLM_CONFIG_ROOT']}/ray_non_carry_over_env_vars.json"
    left = set(json.loads(file.content))
    node = environment_of(UNITS["worker"])
    differing = {name for name in driver if name in node and driver[name] != node[name]}
    assert differing <= left
    assert {"HOME", "NCCL_SOCKET_IFNAME", "VLLM_HOST_IP", "XDG_CACHE_HOME"} <= left
    assert "VLLM_RPC_BASE_PATH" not in left
    assert driver["VLLM_RPC_BASE_PATH"] == node["VLLM_RPC_BASE_PATH"] == "/var/lib/labctl-ray"


def test_vllm_lives_and_dies_with_the_head_and_waits_for_every_node() -> None:
    found = settings(UNITS["vllm"].content)
    assert found["BindsTo"] == ["labctl-ray.service"]
    assert "labctl-ray.service" in found["After"]
    head = UNITS["head"]
    assert head is not None
    assert "labctl-chat.service" in settings(head.content)["Wants"]
    wait = words_as_systemd_reads_them(found["ExecStartPre"][-1])
    assert wait[:2] == ["/opt/labctl/vllm/0.33.0/bin/python", cluster.WAIT_PROGRAM]
    assert wait[-2:] == ["s1=192.168.100.1", "s2=192.168.100.2"]
    assert int(found["TimeoutStartSec"][-1]) > int(wait[wait.index("--timeout") + 1])
    assert found["ReadWritePaths"] == ["-/var/lib/labctl-ray"]
    assert argv_of(UNITS["vllm"])[-2:] == ["--distributed-executor-backend", "ray"]


def test_what_waits_for_another_host_never_meets_the_limit_of_starts() -> None:
    for name in ("head", "worker", "rpc"):
        unit = UNITS[name]
        assert unit is not None
        found = settings(unit.content)
        pause, burst = int(found["RestartSec"][-1]), int(found["StartLimitBurst"][0])
        assert pause * burst > int(found["StartLimitIntervalSec"][0])


def test_a_token_reaches_nodes_and_vllm_past_every_command_line_and_none_is_said_outright() -> None:
    secret = Secret(file=Path("keys/ray"))
    guarded = RACK.clusters[0].model_copy(update={"token": secret})
    rack = RACK.model_copy(update={"clusters": (guarded,)})
    for unit, service, name in (
        (cluster.node(rack, HEAD), "ray", "labctl-ray"),
        (cluster.node(rack, WORKER), "ray", "labctl-ray"),
        (units.service(rack, HEAD, CHAT), "chat", "labctl-chat"),
    ):
        assert unit is not None
        (held,) = unit.secrets
        assert held.secret == secret
        loaded = f"ray-token:/etc/labctl/secrets/{service}.ray-token"
        assert settings(unit.content)["LoadCredential"] == [loaded]
        found = environment_of(unit)
        assert found["RAY_AUTH_MODE"] == "token"
        assert found["RAY_AUTH_TOKEN_PATH"] == f"/run/credentials/{name}.service/ray-token"
    for unit in (UNITS["head"], UNITS["worker"], UNITS["vllm"]):
        assert environment_of(unit)["RAY_AUTH_MODE"] == "disabled"


def test_a_llama_swap_shares_the_nodes_folder_only_if_it_starts_engines_on_a_cluster() -> None:
    swapped = CHAT.model_copy(update={"port": None})
    swap = LlamaSwap(name="swap", port=8080, binary="/bin/true", models=(Swapped(engine=swapped),))
    assert cluster.shared(swap) == ("ReadWritePaths=-/var/lib/labctl-ray",)
    alone = swapped.model_copy(update={"cluster": None})
    assert cluster.shared(swap.model_copy(update={"models": (Swapped(engine=alone),)})) == ()


def test_unified_memory_is_not_taken_for_a_leak() -> None:
    assert environment_of(UNITS["head"])["RAY_memory_monitor_refresh_ms"] == "0"


def test_nodes_run_as_whoever_runs_vllm() -> None:
    mine = HEAD.model_copy(update={"services": (CHAT.model_copy(update={"user": "ann"}),)})
    rack = RACK.model_copy(update={"hosts": (mine, WORKER)})
    for host in (mine, WORKER):
        unit = cluster.node(rack, host)
        assert unit is not None
        assert settings(unit.content)["User"] == ["ann"]


def test_a_host_outside_of_any_cluster_has_no_node() -> None:
    assert cluster.node(RACK, ALONE) is None
    assert cluster.advice(RACK, ALONE) == cluster.advice(RACK, WORKER) == ()


def test_layers_spread_over_hosts_are_told_and_stages_are_not() -> None:
    (word,) = cluster.advice(RACK, HEAD)
    assert word.startswith("chat: tensor_parallel_size=2 is spread over hosts")
    staged = CHAT.model_copy(update={"tensor_parallel_size": 1, "pipeline_parallel_size": 2})
    mine = HEAD.model_copy(update={"services": (staged,)})
    assert cluster.advice(RACK.model_copy(update={"hosts": (mine, WORKER)}), mine) == ()


def test_ray_is_looked_for_beside_a_vllm_that_labctl_did_not_install() -> None:
    own = CHAT.model_copy(update={"binary": "/opt/own/bin/vllm"})
    hosts = (HEAD.model_copy(update={"services": (own,)}), WORKER)
    rack = RACK.model_copy(update={"hosts": hosts, "engines": ()})
    assert argv_of(cluster.node(rack, WORKER))[0] == "/opt/own/bin/ray"
    nobody = rack.model_copy(update={"hosts": (HEAD.model_copy(update={"services": ()}), WORKER)})
    with pytest.raises(LabctlError, match="nothing says which Ray cluster sparks runs"):
        cluster.node(nobody, WORKER)


def test_a_worker_needs_the_models_of_its_cluster_and_a_lender_none() -> None:
    assert [*clusters.models_on(RACK, WORKER)] == [*clusters.models_on(RACK, HEAD)] == ["big"]
    assert [*clusters.models_on(RACK, RIG)] == []


def test_an_rpc_server_binds_the_private_address_alone_and_llama_server_finds_it_there() -> None:
    lend = ["/opt/l/ggml-rpc-server", "--host", "192.168.7.3", "--port", "50052", "--cache"]
    assert argv_of(UNITS["rpc"]) == lend
    argv = argv_of(units.service(RACK, BOX, WIDE))
    assert argv[argv.index("--rpc") + 1] == "192.168.7.3:50052"


@pytest.mark.parametrize("lent", [True, False])
def test_llama_server_waits_for_its_lender_and_says_whom_it_lacks(*, lent: bool) -> None:
    content = units.service(RACK, BOX, WIDE).content
    line = next(line for line in content.splitlines() if line.startswith("ExecStartPre="))
    words = shlex.split(line.removeprefix("ExecStartPre=").replace("$$", "$").replace("%%", "%"))
    assert words[3:] == ["192.168.7.3", "50052", "rig", "90"]
    assert "TimeoutStartSec=120" in content
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not lent:
            server.close()
        argv = [*words[:3], "127.0.0.1", str(port), "rig", "0"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    said = f"rpc-server of rig (127.0.0.1:{port}) does not answer after 0 s: is rig awake?\n"
    assert (done.returncode, done.stderr) == ((0, "") if lent else (1, said))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_to_say_about_a_unit_and_rates_it_safe(name: str, tmp_path: Path) -> None:
    unit = UNITS[name]
    assert unit is not None
    # What is not installed here is no fault of the unit.
    text = "\n".join(
        "ExecStart=/bin/true" if line.startswith("ExecStart=") else line
        for line in unit.content.splitlines()
        if not line.startswith('ExecStartPre="')
    )
    for other in UNITS.values():
        assert other is not None
        (tmp_path / other.name).write_text("[Service]\nType=oneshot\nExecStart=/bin/true\n")
    file = tmp_path / unit.name
    file.write_text(f"{text}\n")
    verified = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    rating = ["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", str(file)]
    rated = subprocess.run(rating, capture_output=True, text=True)
    assert rated.returncode == 0, rated.stdout[-200:]


def test_the_firewall_opens_ray_to_the_cluster_alone() -> None:
    (opening,) = clusters.openings(RACK, HEAD)
    assert (opening.interface, opening.sources) == ("fast0", ("192.168.100.2",))
    text = firewall.rules(HEAD, (22,), clusters.openings(RACK, HEAD))
    rule = (
        'iifname "fast0" ip saddr { 192.168.100.2 } tcp dport { 6379-6385, 11000-11999, 32768-60999 } '
        'accept comment "Ray cluster sparks"'
    )
    assert [line.strip() for line in text.splitlines() if "iifname" in line] == [rule]
    assert firewall.marker(text) != firewall.marker(firewall.rules(HEAD, (22,)))


def test_the_firewall_opens_an_rpc_server_to_those_who_use_it_alone() -> None:
    (opening,) = clusters.openings(RACK, RIG)
    assert (opening.interface, opening.sources, opening.ports) == (
        "eth1",
        ("192.168.7.4",),
        ((50052, 50052),),
    )
    assert clusters.openings(RACK, BOX) == clusters.openings(RACK, ALONE) == ()


@pytest.mark.skipif(not shutil.which("nft"), reason="nft is not installed")
@pytest.mark.parametrize("host", [HEAD, WORKER, RIG, BOX], ids=lambda host: host.name)
def test_nft_takes_the_rules(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "rules"
    text = firewall.rules(host, (22,), clusters.openings(RACK, host))
    file.write_text(text.replace(firewall.DROP_INS, str(tmp_path)))
    done = subprocess.run([*firewall.CHECK_RULES, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


FAKE_RAY = """\
import json, pathlib
here = pathlib.Path(__file__).parent
class exceptions:
    class RayError(Exception): pass
def is_initialized(): return False
def init(**options):
    if not (here / "nodes.json").exists():
        raise ConnectionError("nobody\\nhome")
def nodes():
    seen = json.loads((here / "nodes.json").read_text())
    (here / "nodes.json").write_text(json.dumps(seen[1:] or seen))
    return [{"NodeManagerAddress": address, "Alive": alive} for address, alive in seen[0]]
"""


def waited(folder: Path, looks: list[list[tuple[str, bool]]] | None, timeout: str) -> tuple[int, list[str]]:
    """Run the program that waits, against a Ray that shows one look after the other."""
    (folder / "ray.py").write_text(FAKE_RAY)
    if looks is not None:
        (folder / "nodes.json").write_text(json.dumps(looks))
    program = folder / "wait.py"
    program.write_text(cluster.wait_program())
    argv = [sys.executable, str(program), "--cluster", "sparks", "--address", "10.0.0.1:6379"]
    argv += ["--timeout", timeout, "s1=10.0.0.1", "s2=10.0.0.2"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def test_the_wait_ends_when_all_have_joined(tmp_path: Path) -> None:
    looks = [[("10.0.0.1", True)], [("10.0.0.1", True), ("10.0.0.2", True)]]
    assert waited(tmp_path, looks, "30") == (
        0,
        ["Ray cluster sparks still lacks s2 (10.0.0.2)", "all 2 nodes of Ray cluster sparks are there"],
    )


def test_the_wait_gives_up_and_names_a_node_that_is_dead(tmp_path: Path) -> None:
    status, said = waited(tmp_path, [[("10.0.0.1", True), ("10.0.0.2", False)]], "0")
    assert status == 1
    assert "Ray cluster sparks lacks s2 (10.0.0.2) after 0 s: is it awake" in said[-1]


def test_the_wait_gives_up_on_a_head_that_does_not_answer(tmp_path: Path) -> None:
    status, said = waited(tmp_path, None, "0")
    assert status == 1
    assert said[0] == "the head does not answer: nobody"
    assert "lacks s1 (10.0.0.1), s2 (10.0.0.2) after 0 s" in said[-1]
