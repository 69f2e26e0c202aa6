"""llama-swap on real hosts: two that serve and one in front, applied, asked, changed, and refused.

The engines are the real llama-server; llama-swap is its stand-in, or what LABCTL_LLAMA_SWAP_BIN names.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rack_driving import labctl
from tiny_model import tiny_gguf

from labctl import wiring
from labctl.lab import Lab, LabHost, llama
from labctl.lab.fake import llama_swap
from labctl.lab.processes import wait_until

pytestmark = pytest.mark.rack

SWAP = "/opt/swap/llama-swap"
REAL = os.environ.get("LABCTL_LLAMA_SWAP_BIN", "")
# A real one that was built by Debian's Go in GOPATH mode wants this, or it has no routes.
ENV = {"GODEBUG": os.environ["GODEBUG"]} if REAL and "GODEBUG" in os.environ else {}
ONLY = "--only=services,llamaswap"
SERVING = """\
Host(name="{host.name}", address="{host.address}", open_ports=[8080], services=[
    LlamaSwap(name="swap", binary="{SWAP}", port=8080, listen="0.0.0.0", api_key=Secret(file="keys/{host.name}"), env={ENV},
        models=[Swapped(engine=LlamaServer(name="e", binary="{llama.BINARY}", model="{model}", ctx_size=512)){more}]{settings}),
]),
"""  # noqa: E501
FRONT = """\
Host(name="{host.name}", address="{host.address}", roles=["always-on"], services=[
    LlamaSwap(name="front", binary="{SWAP}", port=8080, api_key=Secret(file="keys/{host.name}"),
        peers="rack", env={ENV}),
]),
"""


class Rack:
    """Three lent hosts: two that serve ``tiny-HOST`` and one that asks both."""

    def __init__(self, lab: Lab, hosts: tuple[LabHost, ...], file: Path) -> None:
        self.lab, self.file = lab, file
        self.one, self.two, self.front = hosts
        self.gguf = tiny_gguf()
        for host in hosts:
            self.key(host, f"key-of-{host.name}")

    def install(self) -> None:
        """Put the programs and the model where the inventory says that they are."""
        for host in (self.one, self.two, self.front):
            root = self.lab.root(host.name)
            program = root / SWAP.lstrip("/")
            program.parent.mkdir()
            program.write_bytes(Path(REAL).read_bytes() if REAL else llama_swap.program())
            program.chmod(0o755)
        for host in (self.one, self.two):
            root = self.lab.root(host.name)
            llama.install(wiring.cache_home() / "lab", root)
            (root / "root/tiny.gguf").write_bytes(self.gguf)

    def key(self, host: LabHost, value: str) -> None:
        path = self.file.parent / "keys" / host.name
        path.write_text(f"{value}\n")
        path.chmod(0o600)

    def declare(self, *, alias: str = "", more: str = "", settings: str = "") -> None:
        """Write the inventory; what is given changes the first host's llama-swap."""
        pinned = hashlib.sha256(self.gguf).hexdigest()
        aliases = {self.one.name: [alias] if alias else [], self.two.name: []}
        models = "".join(
            f'Model(id="tiny-{host.name}", source="file:///root/tiny.gguf", '
            f'path="/srv/models/{host.name}.gguf", sha256="{pinned}", aliases={aliases[host.name]}),\n'
            for host in (self.one, self.two)
        )
        given = {"SWAP": SWAP, "llama": llama, "ENV": ENV}
        hosts = [
            SERVING.format(
                host=host,
                model=f"tiny-{host.name}",
                more=more if first else "",
                settings=settings if first else "",
                **given,
            )
            for host, first in ((self.one, True), (self.two, False))
        ]
        hosts.append(FRONT.format(host=self.front, **given))
        self.file.write_text(
            "from labctl.inventory import *\n"
            'rack = Rack(name="test", ssh=Ssh(user="admin", key="keys/operator"),\n'
            f"models=[\n{models}], hosts=[\n{''.join(hosts)}])\nglobals().update(rack.groups())\n"
        )

    def report(self, verb: str, *options: str, code: int = 0) -> dict[str, dict[str, Any]]:
        done = labctl(verb, str(self.file), "--json", ONLY, *options, timeout=300)
        assert done.returncode == code, done.stdout + done.stderr
        return {one["host"]: one for one in json.loads(done.stdout)["hosts"]}

    def health(self, host: LabHost) -> tuple[str, str]:
        """Return what health finds of a host's llama-swap: the level, and why."""
        done = labctl("health", host.name, "--all", "--json", "--inventory", str(self.file))
        (found,) = (one for one in json.loads(done.stdout)["results"] if one["code"] == "swap-config")
        return found["level"], found["reason"]

    def apply(self, code: int = 0) -> dict[str, dict[str, Any]]:
        return self.report("apply", "--yes", code=code)

    def changes(self) -> int:
        return sum(one["changed"] for one in self.apply().values())

    def run(self, host: LabHost, script: str) -> str:
        done = self.lab.run(host.name, ["sh", "-c", script], timeout=90)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def ask(self, host: LabHost, path: str, body: object = None, key: str = "") -> str:
        """Ask the llama-swap of a host on that host, with its key."""
        shown = key or (self.file.parent / "keys" / host.name).read_text().strip()
        argv = ["curl", "-sS", "-N", "-m", "60", "-H", f"Authorization: Bearer {shown}"]
        if body is not None:
            argv += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        done = self.lab.run(host.name, [*argv, f"http://127.0.0.1:8080{path}"], timeout=90)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def chat(self, host: LabHost, model: str) -> str:
        said = {
            "model": model,
            "stream": True,
            "max_tokens": 40,
            "messages": [{"role": "user", "content": "hi"}],
        }
        return self.ask(host, "/v1/chat/completions", said)

    def loaded(self, host: LabHost) -> dict[str, str]:
        return {one["model"]: one["state"] for one in json.loads(self.ask(host, "/running"))["running"]}

    def pids(self) -> dict[str, str]:
        """Return the processes of llama-swap and its engines on every host."""
        look = "for p in $(cat /sys/fs/cgroup/system.slice/labctl-*.service/cgroup.procs); do echo $p; done"
        return {host.name: self.run(host, look) for host in (self.one, self.two, self.front)}


@pytest.fixture
def trio(rack: Lab, hosts: Any, rack_file: Callable[..., Path]) -> Rack:
    """A rack of two Debians, its programs in place and nothing applied."""
    lent = (*hosts(1, suite="bookworm"), *hosts(2, suite="trixie"))
    made = Rack(rack, lent, rack_file(lent))
    try:
        made.install()
    except llama.NoLlama as reason:
        pytest.skip(f"no llama-server: {reason}")
    made.declare()
    return made


def test_a_completion_streams_through_the_front_and_a_second_apply_stops_nothing(trio: Rack) -> None:
    trio.apply()
    listed = [one["id"] for one in json.loads(trio.ask(trio.front, "/v1/models"))["data"]]
    assert listed == sorted(f"{host.name}/tiny-{host.name}" for host in (trio.one, trio.two))
    for host in (trio.one, trio.two):
        said = trio.chat(trio.front, f"tiny-{host.name}")
        assert said.count("data: ") > 2, said
        assert said.rstrip().endswith("data: [DONE]")
        assert trio.loaded(host) == {f"tiny-{host.name}": "ready"}
    assert "unauthorized" in trio.ask(trio.front, "/running", key="wrong")

    before = trio.pids()
    assert trio.changes() == 0
    assert trio.pids() == before

    # No key is where others could read it: neither in a configuration, a unit, a process list nor the plan.
    look = "cat /etc/labctl/llama-swap/*; systemctl show 'labctl-*'; ps -ef"
    assert not [host.name for host in (trio.one, trio.front) if "key-of-" in trio.run(host, look)]
    assert "key-of-" not in json.dumps(trio.report("plan"))


def test_a_changed_model_is_a_reload_that_names_what_it_stops(trio: Rack) -> None:
    trio.apply()
    trio.chat(trio.front, f"tiny-{trio.one.name}")
    swap = trio.run(trio.one, "systemctl show -P MainPID labctl-swap")
    two = trio.pids()[trio.two.name]

    trio.declare(alias="small")
    planned = trio.report("plan")
    told = f"the reload stops the loaded models: tiny-{trio.one.name} (ready)"
    assert told in json.dumps(planned[trio.one.name])
    states = {op["name"].rpartition(" | ")[2]: op["state"] for op in planned[trio.one.name]["plan"]}
    assert states["configuration of swap"] == states["swap serves its configuration"] == "change"
    assert states["service swap"] == "no-change"
    assert {op["state"] for op in planned[trio.two.name]["plan"]} == {"no-change"}
    # A plan stops nothing.
    assert trio.loaded(trio.one) == {f"tiny-{trio.one.name}": "ready"}

    trio.apply()
    assert trio.run(trio.one, "systemctl show -P MainPID labctl-swap") == swap
    assert trio.loaded(trio.one) == {}
    assert trio.pids()[trio.two.name] == two
    assert trio.chat(trio.front, "small").rstrip().endswith("data: [DONE]")
    assert trio.changes() == 0

    # A new key is a restart, for the unit alone reads it.
    trio.key(trio.one, "another-key")
    trio.apply()
    assert trio.run(trio.one, "systemctl show -P MainPID labctl-swap") != swap
    assert trio.chat(trio.front, "small").rstrip().endswith("data: [DONE]")
    assert trio.changes() == 0


def test_what_llama_swap_would_refuse_never_takes_the_place_of_what_works(trio: Rack) -> None:
    trio.apply()
    trio.chat(trio.one, f"tiny-{trio.one.name}")
    before, config = trio.pids(), trio.run(trio.one, "sha256sum /etc/labctl/llama-swap/swap.yaml")

    odd = (
        ', Swapped(engine=Command(name="odd", argv=["/bin/x", "${PORT}"]), settings={"proxy": "http://[::1"})'
    )
    trio.declare(more=odd)
    said = trio.apply(code=1)[trio.one.name]
    assert f"{SWAP} refuses the new /etc/labctl/llama-swap/swap.yaml" in json.dumps(said)
    assert "proxy URL" in json.dumps(said)
    assert "nothing was changed" in json.dumps(said)
    assert trio.run(trio.one, "sha256sum /etc/labctl/llama-swap/swap.yaml") == config
    assert trio.pids()[trio.one.name] == before[trio.one.name]
    assert trio.run(trio.one, "ls /run | grep labctl-trial || true") == ""


def test_a_reload_that_is_refused_in_silence_fails_the_run(trio: Rack) -> None:
    trio.apply()
    # The trial leaves the store out, so only the running llama-swap finds that its folder is not there.
    trio.declare(settings=', settings={"store": {"path": "/nowhere/at/all.db"}}')
    said = trio.apply(code=1)[trio.one.name]
    assert "labctl-swap.service kept its old configuration" in json.dumps(said)
    assert "store.path" in json.dumps(said)
    # It is found again until it is mended, and mending it is a reload.
    assert "kept its old configuration" in json.dumps(trio.apply(code=1)[trio.one.name])
    trio.declare()
    trio.apply()
    assert trio.changes() == 0


def test_one_that_was_reloaded_by_nobody_is_found(trio: Rack) -> None:
    trio.apply()
    trio.report("apply", "--yes", "--only=agent", f"--limit={trio.one.name}")
    assert trio.health(trio.one) == ("OK", "it runs by what the rack file renders")
    # Somebody changed the file and took it up; then it was put back, as by a restore, and nobody reloaded.
    config = "/etc/labctl/llama-swap/swap.yaml"
    name = f"tiny-{trio.one.name}"
    trio.run(
        trio.one,
        f"cp {config} /root/kept; sed -i 's/labctl: .*/labctl: other/' {config};systemctl reload labctl-swap",
    )
    assert wait_until(lambda: '"labctl":"other"' in trio.ask(trio.one, "/v1/models"), within=20)
    assert trio.health(trio.one) == ("WARN", "its file is not what the rack file renders")
    trio.run(trio.one, f"cp /root/kept {config}")
    trio.chat(trio.one, name)
    assert trio.health(trio.one) == ("WARN", "it runs by an older configuration than its file")
    planned = trio.report("plan")[trio.one.name]
    assert "it serves another configuration than the one that lies there" in json.dumps(planned)
    assert sum(one["changed"] for one in trio.apply().values()) == 1
    assert '"labctl":"other"' not in trio.ask(trio.one, "/v1/models")
    assert trio.health(trio.one)[0] == "OK"
