"""Hosts that work together, for real: Ray, rpc-server and the firewall; only vLLM is a double (see there).

Each host gets a second interface on a wire that all of them share, strangers included: what keeps these out
is the firewall and nothing else.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray_kit
from rack_driving import labctl
from tiny_model import tiny_gguf

from labctl import wiring
from labctl.lab import Lab, LabHost, llama
from labctl.lab.fake.engines import wheels
from labctl.lab.processes import wait_until

pytestmark = pytest.mark.rack

NAMES = (
    "Artifact, Gpu, Host, LlamaServer, Model, PrivateNet, PythonEnv, Rack, RayCluster, RpcServer, Secret, "
    "Ssh, Vllm"
)
RACK = """\
from labctl.inventory import {names}

def host(name, address, number, **more):
    private = PrivateNet(interface=f"fast{{number}}", address=f"192.168.100.{{number}}")
    return Host(name=name, address=address, private=private, **more)

rack = Rack(
    name="test", ssh=Ssh(user="admin", key="keys/operator"), mirror="file:///srv/mirror",
    models=[Model(id="big", source="/srv/big/model.gguf")],
    {rack}
    hosts=[{hosts}],
)
globals().update(rack.groups())
"""
REACH = """\
import socket, sys
for port in map(int, sys.argv[2:]):
    try:
        socket.create_connection((sys.argv[1], port), timeout=1).close()
        print(port)
    except OSError:
        pass
"""
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


@dataclass(frozen=True)
class Site:
    """Some lent hosts on one private wire, and the inventory that a test writes for them."""

    rack: Lab
    hosts: tuple[LabHost, ...]
    file: Path

    def declare(self, hosts: list[str], rack: str = "") -> None:
        """Write the inventory; ``hosts`` are further arguments of each host."""
        lines = (
            f'host("{host.name}", "{host.address}", {number}, {more})'
            for number, (host, more) in enumerate(zip(self.hosts, hosts, strict=True), 1)
        )
        self.file.write_text(RACK.format(names=NAMES, rack=rack, hosts=",\n".join(lines)))

    def apply(self, status: int = 0) -> dict[str, int]:
        """Apply what concerns engines and the firewall; return how much changed on each host."""
        words = ["--yes", "--json", "--only=base,engines,cluster,services"]
        done = labctl("apply", str(self.file), *words, timeout=400)
        assert done.returncode == status, done.stdout + done.stderr
        return {one["host"]: one["changed"] for one in json.loads(done.stdout)["hosts"]}

    def run(self, number: int, script: str, status: int | None = 0, timeout: float = 120) -> str:
        """Run a shell script as root on a host, past SSH; return what it prints."""
        done = self.rack.run(self.hosts[number - 1].name, ["sh", "-c", script], timeout=timeout)
        assert status is None or done.returncode == status, done.stdout + done.stderr
        return done.stdout.strip()

    def says(self, number: int, unit: str) -> str:
        """Return the journal of a unit."""
        return self.run(number, f"journalctl -u {unit} -o cat --no-pager")

    def state(self, number: int, unit: str) -> str:
        """Return what systemd says of a unit."""
        return self.run(number, f"systemctl is-active {unit}", status=None)

    def becomes(self, number: int, unit: str, state: str, within: float = 120) -> None:
        """Wait until a unit is in a state."""
        there = wait_until(lambda: self.state(number, unit) == state, within=within)
        assert there, f"{self.state(number, unit)}\n{self.says(number, unit)}"

    def reaches(self, number: int, address: str, *ports: int) -> list[int]:
        """Return to which of these ports of an address a host can connect."""
        (self.rack.root(self.hosts[number - 1].name) / "root/reach.py").write_text(REACH)
        said = self.run(number, f"python3 /root/reach.py {address} {' '.join(map(str, ports))}")
        return [int(line) for line in said.split()]

    def chat(self, number: int, port: int) -> int:
        """Return how many tokens a server on a host generates for one question, once it listens."""
        self.run(number, f"cat > /root/question <<'E'\n{json.dumps(CHAT)}\nE")
        ask = f"curl -sS --fail-with-body -d @/root/question http://127.0.0.1:{port}/v1/chat/completions"
        name = self.hosts[number - 1].name
        assert wait_until(lambda: self.rack.run(name, ["sh", "-c", ask]).returncode == 0, within=180)
        answer = json.loads(self.run(number, ask))
        return int(answer["usage"]["completion_tokens"])


Settle = Callable[[tuple[LabHost, ...]], Site]


@pytest.fixture
def settle(rack: Lab, rack_file: Callable[..., Path]) -> Settle:
    """Join lent hosts by a private wire, each with a model and the real llama.cpp."""

    def joined(hosts: tuple[LabHost, ...]) -> Site:
        site = Site(rack, hosts, rack_file(list(hosts)))
        for number, host in enumerate(hosts, 1):
            # An answer by the other interface would lead packets past this one.
            site.run(number, "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")
            made = f"ip link add link eth0 name fast{number} type macvlan mode bridge"
            if rack.run(host.name, made.split()).returncode:
                pytest.skip("this kernel has no macvlan")
            site.run(
                number,
                f"ip addr add 192.168.100.{number}/24 dev fast{number}; ip link set fast{number} up",
            )
            root = rack.root(host.name)
            (root / "srv/big").mkdir()
            (root / "srv/big/model.gguf").write_bytes(tiny_gguf())
            try:
                llama.install(wiring.cache_home() / "lab", root)
            except llama.NoLlama as reason:
                pytest.skip(f"llama.cpp cannot be had here: {reason}")
        return site

    return joined


def vllm_with_ray(site: Site, folder: Path) -> str:
    """Lay the wheels of Ray and of vLLM's double on the hosts of the cluster; return the rack's `engines`."""
    cache = wiring.cache_home() / "lab"
    try:
        held, uv = ray_kit.wheels(cache), ray_kit.uv(cache, folder)
    except ray_kit.NoRay as reason:
        pytest.skip(f"Ray cannot be had here: {reason}")
    made = folder / "wheels"
    made.mkdir()
    for wheel in held.glob("*.whl"):
        shutil.copy(wheel, made)
    wheels.vllm(made, requires=("ray",))
    wheels.repacked(made, "prometheus-client")
    (site.file.parent / "vllm.txt").write_text(wheels.requirements(made.glob("*.whl")))
    for host in site.hosts[:2]:
        root = site.rack.root(host.name)
        shutil.copytree(made, root / "srv/wheels")
        (root / "srv/mirror").mkdir()
        shutil.copy(uv, root / "srv/mirror")
    pinned = f'Artifact(url="https://releases.example.invalid/{uv.name}", sha256="{ray_kit.sha256(uv)}")'
    env = f'kind="vllm", version="0.33.0", requirements="vllm.txt", wheels="file:///srv/wheels", uv={pinned}'
    return f"engines=[PythonEnv({env})],"


def test_vllm_runs_on_a_real_ray_cluster_which_strangers_cannot_reach(
    settle: Settle, hosts: Callable[..., tuple[LabHost, ...]], tmp_path: Path
) -> None:
    site = settle((*hosts(2, suite="bookworm"), *hosts(1, suite="trixie")))
    head, worker, _ = (host.name for host in site.hosts)
    engines = vllm_with_ray(site, tmp_path)
    key = site.file.parent / "keys/ray"
    key.write_text("a-token-for-ray\n")
    key.chmod(0o600)
    card = 'gpus=[Gpu(model="RTX 3090", slot="s0")]'
    vllm = 'Vllm(name="chat", model="big", port=8000, cluster="pair", pipeline_parallel_size=2)'
    token = 'token=Secret(file="keys/ray")'
    members = f'name="pair", head="{head}", workers=["{worker}"], object_store_mib=80, {token}'
    cluster = f"clusters=[RayCluster({members})],"
    site.declare([f"{card}, services=[{vllm}]", card, ""], f"{engines} {cluster}")
    site.apply()

    # Two nodes, two ranks, one on each host, and an answer.
    ray = "RAY_ADDRESS=192.168.100.1:6379 /opt/labctl/vllm/0.33.0/bin/ray status"
    shown = "RAY_AUTH_MODE=token RAY_AUTH_TOKEN="
    # Ray writes down every few seconds who is there.
    assert wait_until(lambda: site.run(1, f"{shown}a-token-for-ray {ray}").count("node_") == 2, within=60)
    refused = site.rack.run(head, ["sh", "-c", f"{shown}another-token {ray}"], timeout=120)
    assert refused.returncode != 0, "whoever has not the token is refused, on the host itself too"
    assert "node_" not in refused.stdout
    assert "all 2 nodes of Ray cluster pair are there" in site.says(1, "labctl-chat")
    assert site.chat(1, 8000) == 4
    assert "2 ranks on" in site.says(1, "labctl-chat")
    assert all(f"192.168.100.{number}" in site.says(1, "labctl-chat") for number in (1, 2))
    assert site.run(2, "ps -o user= -C raylet") == "labctl-svc"

    # The other one gets in, a stranger on the same wire does not, and nobody by another interface.
    listening = [6379, 6380, 6381]
    assert site.reaches(2, "192.168.100.1", 22, *listening) == [22, *listening]
    assert site.reaches(3, "192.168.100.1", 22, *listening) == [22]
    assert site.reaches(3, "192.168.100.2", 22, *listening) == [22]
    assert site.reaches(2, site.hosts[0].address, 22, *listening) == [22]

    # Nothing changes twice, and nothing is restarted.
    pid = "systemctl show -P MainPID labctl-ray labctl-chat"
    before = site.run(1, pid)
    assert set(site.apply().values()) == {0}
    assert site.run(1, pid) == before

    # Without the worker vLLM ends, does not come back, and says who is missing.
    site.run(2, "systemctl stop labctl-ray")
    assert site.state(2, "labctl-ray") == "inactive", "a stop is no failure"
    assert wait_until(lambda: site.state(1, "labctl-chat") != "active", within=60)
    assert "EngineDeadError" in site.says(1, "labctl-chat")
    unit = "/etc/systemd/system/labctl-chat.service"
    site.run(
        1,
        f"systemctl stop labctl-chat; mkdir {unit}.d; (echo '[Service]'; echo ExecStartPre=;"
        f"grep '^ExecStartPre=.*ray-wait' {unit} | sed 's/\"240\"/\"2\"/') > {unit}.d/impatient.conf;"
        "systemctl daemon-reload; systemctl start labctl-chat",
        status=1,
    )
    missing = f"Ray cluster pair lacks {worker} (192.168.100.2) after 2 s: is it awake"
    assert missing in site.says(1, "labctl-chat")

    # With the head goes vLLM, and with both back it starts by itself.
    site.run(1, f"rm -r {unit}.d; systemctl daemon-reload; systemctl stop labctl-ray labctl-chat")
    site.run(1, "systemctl start labctl-ray")
    assert site.state(1, "labctl-chat") == "activating"
    site.run(2, "systemctl start labctl-ray")
    site.becomes(1, "labctl-chat", "active", within=200)
    assert site.chat(1, 8000) == 4

    # A host that left the cluster has no node any more, and no door.
    site.declare([card, card, ""])
    site.apply()
    for number in (1, 2):
        site.run(number, "test -e /etc/systemd/system/labctl-ray.service", status=1)
        assert site.run(number, "pgrep -c raylet", status=1) == "0"
        site.run(number, "test -e /etc/labctl/secrets/ray.ray-token", status=1)
        assert "Ray cluster" not in site.run(number, "nft list table inet labctl")


def test_llama_server_uses_the_cards_that_another_host_lends_it_alone(
    settle: Settle, hosts: Callable[..., tuple[LabHost, ...]]
) -> None:
    site = settle(hosts(3, suite="trixie"))
    lender = site.hosts[1].name
    rpc = f'RpcServer(name="lend", port=50052, binary="{llama.HOME}/ggml-rpc-server", cache=True)'
    wide = (
        f'LlamaServer(name="wide", model="big", port=8080, rpc=["{lender}"], n_gpu_layers="all", '
        f'ctx_size=512, binary="{llama.BINARY}")'
    )
    site.declare([f"services=[{wide}]", f"services=[{rpc}]", ""])
    site.apply()
    site.becomes(2, "labctl-lend", "active")
    site.becomes(1, "labctl-wide", "active")
    assert site.chat(1, 8080) == 4
    assert "Accepted client connection" in site.says(2, "labctl-lend")
    assert "192.168.100.1:" in site.run(2, "ss -tnH state established 'sport = 50052'")

    # The layers are there and nowhere else: without the lender no answer, and with it an answer again.
    site.run(2, "systemctl stop labctl-lend")
    site.run(1, "! curl -sS --fail -m 20 -d @/root/question http://127.0.0.1:8080/v1/chat/completions")
    site.run(2, "systemctl start labctl-lend")
    assert site.chat(1, 8080) == 4

    assert "192.168.100.2:50052" in site.run(2, "ss -ltnH 'sport = 50052'")
    assert len(site.run(2, "ss -ltnH 'sport = 50052'").splitlines()) == 1
    assert site.reaches(1, "192.168.100.2", 22, 50052) == [22, 50052]
    assert site.reaches(3, "192.168.100.2", 22, 50052) == [22]
    assert site.reaches(1, site.hosts[1].address, 22, 50052) == [22]
