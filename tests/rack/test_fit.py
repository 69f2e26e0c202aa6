"""Fit planning on a real host: what is over is refused, what is forced is noted, what runs is measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from declared import DeclaredHost
from rack_driving import labctl
from tiny_model import tiny_gguf

from labctl import wiring
from labctl.lab import Lab, llama

pytestmark = pytest.mark.rack

CHAT = (
    f'LlamaServer(name="chat", binary="{llama.BINARY}", model="tiny", port=8081, ctx_size=512, '
    'parallel=1, extra_args=["-lv", "4"]),\n'
)
MODEL = 'Model(id="tiny", source="/srv/models/tiny.gguf")'
ONLY = "--only=agent,forced,services"
WORDS = "more memory comes on Monday"
NOTE = "/var/lib/labctl/forced.json"


@pytest.fixture
def served(rack: Lab, hosts: Callable[..., list], rack_file: Callable[..., Path]) -> DeclaredHost:
    (host,) = hosts(1)
    made = DeclaredHost(rack, host, rack_file([host]))
    root = rack.root(host.name)
    try:
        llama.install(wiring.cache_home() / "lab", root)
    except llama.NoLlama as reason:
        pytest.skip(f"no llama-server from the archive: {reason}")
    (root / "srv/models").mkdir(parents=True, exist_ok=True)
    (root / "srv/models/tiny.gguf").write_bytes(tiny_gguf())
    return made


def test_what_does_not_fit_is_refused_unless_forced_and_the_words_stay_until_it_fits(
    served: DeclaredHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    file = str(served.file)
    served.declare(CHAT, MODEL, fields="memory_gib=1, ")
    refused = labctl("apply", file, "--yes", ONLY)
    assert refused.returncode == 2, refused.stderr
    assert "service chat: tiny needs 0." in refused.stderr
    assert "GiB of main memory (0.0 usable)" in refused.stderr
    assert "rack.py:6: host " in refused.stderr
    served.run("test -e /etc/systemd/system/labctl-chat.service", status=1)

    done = labctl("apply", file, "--yes", "--force", WORDS, "--only=agent,services")
    assert done.returncode == 0, done.stdout + done.stderr
    kept = json.loads(served.run(f"cat {NOTE}"))
    assert kept["words"] == WORDS
    assert "tiny needs" in kept["what"][0]
    served.fetch("http://127.0.0.1:8081/health")
    again = labctl("apply", file, "--yes", "--force", WORDS, "--only=agent,services", "--json")
    assert json.loads(again.stdout)["hosts"][0]["changed"] == 0
    assert json.loads(served.run(f"cat {NOTE}")) == kept

    shown = labctl("status", "-i", file)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "chat active" in shown.stdout
    assert "tiny" in shown.stdout
    assert f'"{WORDS}"' in shown.stdout

    served.declare(CHAT, MODEL, fields="memory_gib=64, ")
    fitting = labctl("apply", file, "--yes", ONLY)
    assert fitting.returncode == 0, fitting.stdout + fitting.stderr
    served.run(f"test -e {NOTE}", status=1)
    assert json.loads(labctl("status", "-i", file, "--json").stdout)["hosts"][0]["forced"] is None

    first = labctl("fit", file)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "measured" not in first.stdout
    told = labctl("fit", file, "--measure")
    assert "measured 1 model" in told.stderr
    assert "tiny: estimated 0.00 GiB, measured 0.00 GiB (" in told.stdout
    assert "loads in about" in told.stdout
    measured = labctl("fit", file, "--json")
    (model,) = json.loads(measured.stdout)["hosts"][0]["models"]
    assert model["measured_bytes"] > 0
    assert abs(model["error_percent"]) < 60
    assert model["notes"][-1].startswith("as measured on ")
