"""Builds of engines on real hosts: the real llama.cpp, installed as its releases are, and a Python engine."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from declared import DeclaredHost
from rack_driving import labctl
from tiny_model import tiny_gguf

import uv_kit
from labctl import wiring
from labctl.lab import Lab, llama

pytestmark = pytest.mark.rack

MIRROR = "srv/mirror"
SHELF = "/opt/labctl/llama.cpp/cpu"
CHAT = 'LlamaServer(name="chat", model="tiny", port=8081, ctx_size=512{more}),\n'
STARTED = "journalctl -u labctl-chat -o cat | grep -c '^Started'"
SERVES = "http://127.0.0.1:8081/health"


class Served(DeclaredHost):
    """A host with a mirror of builds in /srv/mirror and a tiny model."""

    def prepare(self, tmp_path: Path) -> None:
        root = self.rack.root(self.host.name)
        (root / MIRROR).mkdir(parents=True)
        (root / "srv/tiny.gguf").write_bytes(tiny_gguf())
        self._folder, self._sums = tmp_path / "packed", {}
        self._folder.mkdir()

    def packed(self, version: str) -> str:
        """Put a release into the mirror; return its sha256."""
        if version not in self._sums:
            path, self._sums[version] = llama.archive(wiring.cache_home() / "lab", self._folder, version)
            (self.rack.root(self.host.name) / MIRROR / path.name).write_bytes(path.read_bytes())
            path.unlink()
        return self._sums[version]

    def engines(self, *versions: str, mirror: str = "file:///srv/mirror", sha256: str = "") -> str:
        """Return the rack's fields for these releases of llama.cpp."""
        builds = "".join(
            f'LlamaCpp(version="{version}", backend="cpu", archive=Artifact('
            f'url="https://releases.example.invalid/llama-{version}-bin-ubuntu-x64.tar.gz", '
            f'sha256="{sha256 or self.packed(version)}")),'
            for version in versions
        )
        return f'mirror="{mirror}", engines=[{builds}], '

    def state(self, services: str, rack: str) -> None:
        """Declare these services of the tiny model."""
        self.declare(services, 'Model(id="tiny", source="/srv/tiny.gguf")', rack=rack)

    def bring(self) -> int:
        """Apply what concerns engines; return how many operations changed something."""
        return self.apply("engines", "services")

    def main_pid(self) -> str:
        return self.run("systemctl show -P MainPID labctl-chat")


@pytest.fixture
def served(rack: Lab, hosts: Any, rack_file: Callable[..., Path], tmp_path: Path) -> Served:
    """One host with a mirror; skips where llama.cpp cannot be had."""
    (host,) = hosts(1, suite="trixie")
    found = Served(rack, host, rack_file([host]))
    try:
        llama.tree(wiring.cache_home() / "lab")
    except llama.NoLlama as reason:
        pytest.skip(f"no llama-server: {reason}")
    found.prepare(tmp_path)
    return found


def chat(**more: object) -> str:
    return CHAT.format(more="".join(f", {name}={value!r}" for name, value in more.items()))


def test_builds_are_installed_switched_and_collected_and_each_switch_restarts_once(served: Served) -> None:
    served.state(chat(), served.engines("b1"))
    assert served.bring() > 0
    assert json.loads(served.fetch(SERVES)) == {"status": "ok"}
    assert served.run(f"readlink {SHELF}/current; stat -c %U:%a {SHELF}/b1/llama-server") == "b1\nroot:755"
    first = served.main_pid()
    assert served.bring() == 0
    assert served.main_pid() == first

    for number, version in enumerate(("b2", "b3"), 2):
        served.state(chat(), served.engines(version))
        assert served.bring() > 0
        assert json.loads(served.fetch(SERVES)) == {"status": "ok"}
        assert served.run(f"readlink /proc/{served.main_pid()}/exe").startswith(f"{SHELF}/{version}/")
        assert served.run(STARTED) == str(number), "exactly one restart for each switch"
        assert served.bring() == 0
    assert served.run(f"ls -A {SHELF}").split() == ["b2", "b3", "current", "previous"]
    assert served.run(f"readlink {SHELF}/previous") == "b2"
    assert served.run("ls -A /var/cache/labctl/engines; ls -A /run/labctl/restart") == ""


def test_two_versions_serve_side_by_side(served: Served) -> None:
    both = served.engines("b1", "b2")
    services = chat(version="b1") + chat(version="b2").replace('"chat"', '"other"').replace("8081", "8082")
    served.state(services, both)
    served.bring()
    for port, service, version in ((8081, "chat", "b1"), (8082, "other", "b2")):
        served.fetch(f"http://127.0.0.1:{port}/health")
        pid = served.run(f"systemctl show -P MainPID labctl-{service}")
        assert served.run(f"readlink /proc/{pid}/exe").startswith(f"{SHELF}/{version}/")
    assert served.bring() == 0


def test_a_flipped_byte_is_refused_and_the_old_build_goes_on_serving(served: Served) -> None:
    served.state(chat(), served.engines("b1"))
    served.bring()
    pid = served.main_pid()
    served.packed("b2")
    served.run(
        f"printf X | dd of=/{MIRROR}/llama-b2-bin-ubuntu-x64.tar.gz bs=1 seek=999 conv=notrunc status=none"
    )
    served.state(chat(), served.engines("b2"))
    assert "refused: file:///srv/mirror/llama-b2-bin-ubuntu-x64.tar.gz has the sha256" in served.fails(
        "engines", "services"
    )
    served.fetch(SERVES)
    assert (served.main_pid(), served.run(f"readlink {SHELF}/current; ls {SHELF}")) == (
        pid,
        "b1\nb1\ncurrent",
    )


def test_a_mirror_answers_by_http(served: Served) -> None:
    engines = served.engines("b1", mirror="http://127.0.0.1:8099/mirror")
    serve = "python3 -m http.server 8099 --bind 127.0.0.1 --directory /srv"
    served.run(f"systemd-run --unit=mirror {serve}")
    served.fetch("http://127.0.0.1:8099/")
    served.state(chat(), engines)
    served.bring()
    served.fetch(SERVES)
    assert "GET /mirror/llama-b1-bin-ubuntu-x64.tar.gz" in served.run("journalctl -u mirror -o cat")


def test_an_unknown_flag_is_refused_where_it_is_said_before_anything_restarts(served: Served) -> None:
    served.state(chat(), served.engines("b1"))
    served.bring()
    pid = served.main_pid()
    wrong = chat(extra_args=["--flash-atn", "on"])

    served.state(wrong, served.engines("b1"))
    line = next(n for n, text in enumerate(served.file.read_text().splitlines(), 1) if "--flash-atn" in text)
    planned = labctl("plan", str(served.file), "--only=engines", "--only=services")
    words = "services[0].extra_args[0]: service chat: there is no flag --flash-atn in"
    assert planned.returncode == 1
    assert f"rack.py:{line}: host {served.host.name}: {words}" in flat(planned.stdout + planned.stderr)
    assert "did you mean --flash-attn?" in flat(planned.stdout + planned.stderr)

    # A build that is not there yet can only be asked once it is, but before the switch.
    served.state(wrong, served.engines("b2"))
    assert words in flat(served.fails("engines", "services"))
    assert (served.main_pid(), served.run(f"readlink {SHELF}/current")) == (pid, "b1")
    assert served.run(STARTED) == "1"
    served.state(chat(), served.engines("b2"))
    served.bring()
    assert served.run(STARTED) == "2"


def flat(text: str) -> str:
    """Return a text without the line ends that a narrow terminal brings."""
    return " ".join(text.split())


# --- an engine in Python ---

PROGRAM = '''
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

HELP = """usage: vllm serve [options]

options:
  --host HOST           Host. (default: None)
  --port PORT           Port. (default: 8000)
  --served-model-name SERVED_MODEL_NAME [SERVED_MODEL_NAME ...]
                        Names.
  --enforce-eager, --no-enforce-eager
                        Eager. (default: False)
"""

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        ok = self.headers["Authorization"] == "Bearer " + os.environ.get("VLLM_API_KEY", "")
        self.send_response(200 if ok else 401)
        self.end_headers()
        self.wfile.write(os.environ["HF_HOME"].encode())

def main():
    if "--help=all" in sys.argv:
        print(HELP)
    else:
        os.makedirs(os.environ["VLLM_CACHE_ROOT"], exist_ok=True)
        port = int(sys.argv[sys.argv.index("--port") + 1])
        HTTPServer(("127.0.0.1", port), Answer).serve_forever()
'''
VLLM = (
    'Vllm(name="chat", model="tiny", port=8081, enforce_eager=True, '
    'api_key=Secret(file="keys/vllm"){more}),\n'
)


def wheel(folder: Path) -> str:
    """Make a wheel with a stand-in for vllm; return the line that locks it."""
    path = folder / "vllm-0.33.0-py3-none-any.whl"
    info = "vllm-0.33.0.dist-info"
    with zipfile.ZipFile(path, "w") as held:
        held.writestr("vllm.py", PROGRAM)
        held.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: vllm\nVersion: 0.33.0\n")
        held.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        held.writestr(f"{info}/entry_points.txt", "[console_scripts]\nvllm = vllm:main\n")
        held.writestr(f"{info}/RECORD", "")
    return f"vllm==0.33.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def test_a_python_engine_is_made_by_uv_from_locked_wheels_and_gets_its_key_past_every_command_line(
    served: Served, tmp_path: Path
) -> None:
    uv = uv_kit.archive(tmp_path)
    root = served.rack.root(served.host.name)
    (root / MIRROR / uv.name).write_bytes(uv.read_bytes())
    (root / "srv/wheels").mkdir()
    (served.file.parent / "vllm.txt").write_text(wheel(root / "srv/wheels"))
    key = served.file.parent / "keys/vllm"
    key.write_text("key-one\n")
    key.chmod(0o600)
    engines = (
        'mirror="file:///srv/mirror", '
        'engines=[PythonEnv(kind="vllm", version="0.33.0", requirements="vllm.txt", '
        f'uv=Artifact(url="https://releases.example.invalid/{uv.name}", '
        f'sha256="{hashlib.sha256(uv.read_bytes()).hexdigest()}"), wheels="file:///srv/wheels")], '
    )
    served.state(VLLM.format(more=""), engines)
    assert served.bring() > 0
    asked = ("http://127.0.0.1:8081/", "-H", "Authorization: Bearer key-one")
    assert served.fetch(*asked) == "/var/cache/labctl-chat/huggingface"
    assert served.bring() == 0
    secret = "/etc/labctl/secrets/chat.env"
    assert served.run(f"stat -c %U:%a {secret}; cat {secret}") == "root:600\nVLLM_API_KEY=key-one"
    shown = f"systemctl cat labctl-chat; systemctl show labctl-chat; cat /proc/{served.main_pid()}/cmdline"
    assert "VLLM_API_KEY" not in served.run(shown)
    assert "key-one" not in served.run(shown)

    key.write_text("key-two\n")
    assert served.bring() == 2, "the file, and the unit that reads it"
    served.fetch("http://127.0.0.1:8081/", "-H", "Authorization: Bearer key-two")
    assert served.run(STARTED) == "2"

    served.state(VLLM.format(more=', extra_args=["--enforce-eagr"]'), engines)
    assert "there is no flag --enforce-eagr" in flat(served.fails("engines", "services"))
    served.state(VLLM.format(more=""), engines)
    key.chmod(0o644)
    assert "others may read the secret" in flat(served.fails("services"))
    assert served.run(STARTED) == "2"


# --- a host that chooses its backend by trying ---


def test_a_host_with_amd_graphics_runs_the_build_of_the_backend_that_was_proved(
    gpu_host: Callable[[str], DeclaredHost], tmp_path: Path
) -> None:
    box = gpu_host("rocm")
    served = Served(box.rack, box.host, box.file)
    served.prepare(tmp_path)
    sha256 = served.packed("b1")
    builds = "".join(
        f'LlamaCpp(version="b1", backend="{backend}", archive=Artifact('
        f'url="https://releases.example.invalid/llama-b1-bin-ubuntu-x64.tar.gz", sha256="{sha256}")),'
        for backend in ("rocm", "vulkan")
    )
    served.declare(
        chat(),
        'Model(id="tiny", source="/srv/tiny.gguf")',
        fields=f"gpus=[{served.gpus()}], ",
        rack=f'mirror="file:///srv/mirror", engines=[{builds}], ',
    )
    assert served.apply("engines", "backend", "services") > 0
    served.fetch(SERVES)
    # The real engine finds no card here, so nothing is proved, and Vulkan's build computes on the processor.
    assert served.run("sed -n s/LABCTL_BACKEND=//p /etc/labctl/backend.env") == "none"
    assert served.run("readlink /opt/labctl/llama.cpp/auto") == "vulkan"
    assert served.run(f"readlink /proc/{served.main_pid()}/exe").startswith(
        "/opt/labctl/llama.cpp/vulkan/b1/"
    )
    assert served.apply("engines", "backend", "services") == 0

    served.run("sed -i s/=none/=rocm/ /etc/labctl/backend.env")
    assert served.apply("services") == 2, "the link, and the unit that runs by it"
    assert served.run(f"readlink /proc/{served.main_pid()}/exe").startswith("/opt/labctl/llama.cpp/rocm/b1/")
    assert served.run(STARTED) == "2"
