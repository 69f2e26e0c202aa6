"""A rack that serves models, as a person builds one: engines from a mirror, two hosts that serve, one front.

Everything is installed by ``labctl apply`` with all deploys: the real llama-server, packed like a release,
and the double of llama-swap. Then each mistake that must be refused is made on the rack that serves, and
nothing may have been restarted by it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from rack_driving import labctl

from labctl import wiring
from labctl.domain.problem import LabctlError
from labctl.lab import Lab, LabHost, mirror
from labctl.lab.supplies import mirror_folder

pytestmark = pytest.mark.rack

INSIDE = "/opt/engines"
KEY = "the-key-of-the-rack"
TEXT = """\
from inventory.pins import engines, mirror, models
from labctl.inventory import *

rack = Rack(
    name="test",
    ssh=Ssh(user="admin", key="keys/operator"),
    engines=engines,
    models=models,
    mirror=mirror,
    hosts=[
        Host(
            name="{one.name}",
            address="{one.address}",
            memory_gib=8,
            open_ports=[8080],
            services=[
                LlamaSwap(
                    name="swap",
                    port=8080,
                    listen="0.0.0.0",
                    api_key=Secret(file="keys/serving"),
                    models=[
                        Swapped(
                            engine=LlamaServer(
                                name="chat", load_timeout="2m", model="tiny-chat", ctx_size=1024
                            )
                        ),
                        Swapped(engine=LlamaServer(name="coder", model="tiny-coder", ctx_size=1024)),
                    ],
                    matrix=SwapMatrix(vars={{"a": "tiny-chat", "b": "tiny-coder"}}, sets={{"both": "a & b"}}),
                ),
            ],
        ),
        Host(
            name="{two.name}",
            address="{two.address}",
            open_ports=[8080],
            services=[
                LlamaSwap(
                    name="swap",
                    port=8080,
                    listen="0.0.0.0",
                    api_key=Secret(file="keys/serving"),
                    models=[Swapped(engine=LlamaServer(name="writer", model="tiny-writer", ctx_size=1024))],
                ),
            ],
        ),
        Host(
            name="{hub.name}",
            address="{hub.address}",
            roles=["always-on"],
            services=[LlamaSwap(name="front", port=8080, peers="rack")],
        ),
    ],
)
globals().update(rack.groups())
"""


@dataclass(frozen=True)
class Mistake:
    """A change of the rack file, where it stands, and what is said about it."""

    was: str
    becomes: str
    field: str
    says: tuple[str, ...]


HEAD = 'name="swap",\n                    port=8080,\n'
MISTAKES = {
    "a mistyped key of llama-swap": Mistake(
        HEAD,
        HEAD + '                    settings={"healthCheckTimout": 60},\n',
        "settings={",
        ("healthCheckTimout", "did you mean healthCheckTimeout?"),
    ),
    "a mistyped key of a model": Mistake(
        'model="tiny-coder", ctx_size=1024))',
        'model="tiny-coder", ctx_size=1024), settings={"tll": 5})',
        'settings={"tll"',
        ("tll", "did you mean ttl?"),
    ),
    "a peer that is not there": Mistake('peers="rack"', 'peers=["nobody"]', "peers=", ("nobody",)),
    "a model that is not there": Mistake(
        'model="tiny-writer"',
        'model="tiny-writr"',
        'model="tiny-writr"',
        ("tiny-writr", "did you mean tiny-writer?"),
    ),
    "a timeout shorter than a peer's load": Mistake(
        'peers="rack"', 'peers="rack", peer_timeout="30s"', "peer_timeout", ("30 s", "600 s")
    ),
    "a timeout shorter than a load": Mistake(
        HEAD,
        HEAD + '                    health_check_timeout="15s",\n',
        "health_check_timeout",
        ("15 s", "load"),
    ),
    "legacy keys mixed in": Mistake(
        HEAD,
        HEAD + '                    settings={"groups": {}},\n',
        "settings={",
        ("groups", "routing"),
    ),
}


class Serving:
    """Three lent hosts and the rack file that a test changes."""

    def __init__(self, lab: Lab, hosts: tuple[LabHost, ...], file: Path) -> None:
        self.lab, self.file = lab, file
        self.one, self.two, self.hub = hosts
        self.text = TEXT.format(one=self.one, two=self.two, hub=self.hub)
        cache = wiring.cache_home() / "lab"
        try:
            wares = mirror.make(cache, lambda said: None)
        except LabctlError as reason:
            pytest.skip(str(reason))
        for host in hosts:
            inside = lab.root(host.name) / INSIDE.lstrip("/")
            # Another test may be making the same mirror right now, in a folder that goes when it is done.
            shutil.copytree(mirror_folder(cache), inside, ignore=shutil.ignore_patterns(".new-*"))
        (file.parent / "pins.py").write_text(mirror.recipe(wares, "pins", INSIDE))
        key = file.parent / "keys/serving"
        key.write_text(f"{KEY}\n")
        key.chmod(0o600)
        file.write_text(self.text)

    def change(self, was: str, becomes: str) -> None:
        assert was in self.text
        self.file.write_text(self.text.replace(was, becomes, 1))

    def line_of(self, words: str) -> int:
        lines = self.file.read_text().splitlines()
        return next(number for number, line in enumerate(lines, 1) if words in line)

    def labctl(self, verb: str, *options: str, code: int = 0) -> str:
        given = ("--inventory", str(self.file)) if verb in ("fit", "status") else (str(self.file),)
        done = labctl(verb, *given, *options, timeout=400)
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        assert KEY not in said
        return said

    def run(self, host: LabHost, script: str) -> str:
        done = self.lab.run(host.name, ["sh", "-c", script], timeout=90)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def chat(self, model: str) -> str:
        """Ask the hub, without a key, since it listens on loopback only; return the stream."""
        body = {
            "model": model,
            "stream": True,
            "max_tokens": 20,
            "ignore_eos": True,
            "messages": [{"role": "user", "content": "hi"}],
        }
        return self.run(
            self.hub,
            "curl -sS -N --fail-with-body -m 60 -H 'Content-Type: application/json' "
            f"-d '{json.dumps(body)}' http://127.0.0.1:8080/v1/chat/completions",
        )

    def pids(self) -> list[str]:
        look = "cat /sys/fs/cgroup/system.slice/labctl-swap.service/cgroup.procs"
        front = "cat /sys/fs/cgroup/system.slice/labctl-front.service/cgroup.procs"
        return [self.run(self.one, look), self.run(self.two, look), self.run(self.hub, front)]


@pytest.fixture
def serving(rack: Lab, hosts, rack_file: Callable[..., Path]) -> Serving:
    lent = hosts(3)
    return Serving(rack, lent, rack_file(lent))


def test_a_rack_serves_through_its_front_and_every_mistake_is_refused_before_any_restart(
    serving: Serving,
) -> None:
    assert "3 hosts ok" in serving.labctl("apply", "--yes", "--no-diff")
    for model in ("tiny-writer", "tiny-chat", "tiny-coder"):
        stream = serving.chat(model)
        assert stream.count("data: {") >= 3
        assert stream.rstrip().endswith("data: [DONE]")
    before = serving.pids()
    assert len(before[0].split()) == 3  # llama-swap and both of its models, which the matrix allows

    assert "Result: 0 changes on 3 hosts" in serving.labctl("apply", "--yes")
    shown = serving.labctl("status")
    assert "tiny-chat, tiny-coder" in shown, shown
    assert "tiny-writer" in shown, shown
    assert serving.pids() == before

    for what, mistake in MISTAKES.items():
        serving.change(mistake.was, mistake.becomes)
        said = serving.labctl("apply", "--yes", code=2)
        assert f"rack.py:{serving.line_of(mistake.field)}:" in said, f"{what}: {said}"
        assert all(word in said for word in mistake.says), f"{what}: {said}"

    # Each fits alone; the set that the matrix allows does not.
    for name in ("tiny-chat", "tiny-coder"):
        serving.text = serving.text.replace(
            f'model="{name}", ctx_size=1024', f'model="{name}", ctx_size=4000000'
        )
    serving.file.write_text(serving.text)
    for verb, options in (("fit", ()), ("plan", ()), ("apply", ("--yes",))):
        said = serving.labctl(verb, *options, code=1 if verb == "fit" else 2)
        assert "both" in said, said
        assert "tiny-chat + tiny-coder" in said, said
    assert (
        f"rack.py:{serving.line_of('matrix=')}" in said or f"rack.py:{serving.line_of('LlamaSwap(')}" in said
    )
    serving.text = serving.text.replace("ctx_size=4000000", "ctx_size=1024")

    serving.change(
        'model="tiny-writer", ctx_size=1024', 'model="tiny-writer", ctx_size=1024, extra_args=["--drft"]'
    )
    said = serving.labctl("apply", "--yes", code=1)
    assert "--drft" in said
    assert f"rack.py:{serving.line_of('--drft')}" in said
    assert serving.pids() == before


def test_a_flipped_byte_replaces_nothing(serving: Serving) -> None:
    serving.labctl("apply", "--yes", "--no-diff")
    serving.chat("tiny-writer")
    before = serving.pids()
    archive = next((serving.lab.root(serving.two.name) / INSIDE.lstrip("/")).glob("llama-b*.tar.gz"))
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    # Another version from the same file, so that it has to be unpacked again.
    pins = serving.file.parent / "pins.py"
    pins.write_text(pins.read_text().replace('version="b9999"', 'version="b9998"'))
    said = serving.labctl("apply", "--yes", "--limit", serving.two.name, code=1)
    assert "sha256" in said
    assert "refused" in said
    assert serving.pids()[1] == before[1]
    assert serving.run(serving.two, "readlink /opt/labctl/llama.cpp/cpu/current") == "b9999"
    assert "[DONE]" in serving.chat("tiny-writer")
