"""What the agent says of labctl's units, asked of imitated engines on loopback and an imitated systemd."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from labctl.agent import engines
from labctl.agent.sections import Finding
from labctl.render.llamaswap.config import KEY

SYSTEMCTL = """\
#!/bin/sh
for unit; do case $unit in labctl-*) printf 'NRestarts=2\\nId=%s\\nActiveState=%s\\nSubState=running\\nActiveEnterTimestamp=Mon\\n\\n' \
"$unit" "$(cat "{states}/$unit" 2>/dev/null || echo active)";; esac; done
"""  # noqa: E501


class Engine(BaseHTTPRequestHandler):
    """Answers by what the server was told, and notes what was asked."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append((self.path, self.headers.get("Authorization")))
        status, body = server.answers.get(self.path, (404, b"no"))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given: Any) -> None:
        """Say nothing."""


@pytest.fixture
def serving() -> Iterator[Any]:
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    made.asked, made.answers = [], {}
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tool = tmp_path / "bin" / "systemctl"
    tool.parent.mkdir()
    tool.write_text(SYSTEMCTL.format(states=tmp_path / "states"))
    tool.chmod(0o755)
    (tmp_path / "states").mkdir()
    (tmp_path / engines.UNITS).mkdir(parents=True)
    (tmp_path / engines.SECRETS).mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    return tmp_path


def unit(root: Path, name: str, *words: str, marker: str = "# labctl service:") -> None:
    line = " ".join(f'"{word}"' for word in words)
    text = f"# Written by labctl\n{marker} {name}\n[Service]\nExecStart={line}\n"
    (root / engines.UNITS / f"labctl-{name}.service").write_text(text)


def test_llama_server_says_whether_it_is_ready(root: Path, serving: Any) -> None:
    port = str(serving.server_port)
    unit(root, "chat", "/usr/bin/llama-server", "--model", "x", "--port", port, "--alias", "qwen,q")
    serving.answers["/health"] = (200, b'{"status":"ok"}')
    (found,) = engines.engines(root)
    assert found == {
        "unit": "labctl-chat.service",
        "service": "chat",
        "kind": "llama-server",
        "port": int(port),
        "names": "qwen,q",
        "active": "active",
        "sub": "running",
        "restarts": 2,
        "since": "Mon",
        "answer": 200,
        "models": [{"model": "qwen", "state": "ready"}],
    }
    serving.answers["/health"] = (503, b'{"error":{"message":"Loading model"}}')
    (found,) = engines.engines(root)
    assert found["models"] == [{"model": "qwen", "state": "starting"}]
    assert {path for path, _ in serving.asked} == {"/health"}


def test_llama_swap_is_asked_what_runs_with_its_key_and_nothing_that_starts_a_model(
    root: Path, serving: Any
) -> None:
    unit(root, "swap", "/opt/llama-swap", "-config", "c", "-listen", f"0.0.0.0:{serving.server_port}")
    (root / engines.SECRETS / "swap.api-key").write_text(f"{KEY}=secret\n")
    running = {"running": [{"model": "a", "state": "ready"}, {"model": "b", "state": "starting"}, "nonsense"]}
    serving.answers["/running"] = (200, json.dumps(running).encode())
    (found,) = engines.engines(root)
    assert found["models"] == [{"model": "a", "state": "ready"}, {"model": "b", "state": "starting"}]
    assert serving.asked == [("/running", "Bearer secret")]
    serving.answers["/running"] = (401, b"")
    (found,) = engines.engines(root)
    assert (found["answer"], found["models"]) == (401, None)


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (("/opt/labctl/vllm/1/bin/vllm", "serve", "m"), "/health"),
        (("/opt/labctl/sglang/1/bin/python", "-m", "sglang.launch_server"), "/ready"),
        (("/usr/bin/python3", "-m", "http.server"), None),
    ],
)
def test_each_engine_is_asked_what_costs_it_nothing(
    root: Path, serving: Any, words: tuple[str, ...], path: str | None
) -> None:
    unit(root, "e", *words, "--port", str(serving.server_port))
    engines.engines(root)
    assert [asked for asked, _ in serving.asked] == ([path] if path else [])


def test_an_engine_that_does_not_run_is_not_asked(root: Path, serving: Any) -> None:
    unit(root, "chat", "/usr/bin/llama-server", "--port", str(serving.server_port))
    (root / "states" / "labctl-chat.service").write_text("failed")
    (found,) = engines.engines(root)
    assert (found["active"], found["answer"], serving.asked) == ("failed", None, [])


@pytest.mark.parametrize("answer", [b"", b"[" * 70_000, b'{"running": 3}', b"\xff\xfe"])
def test_an_answer_that_is_none_is_nothing_known(root: Path, serving: Any, answer: bytes) -> None:
    unit(root, "swap", "/opt/llama-swap", "-listen", f"127.0.0.1:{serving.server_port}")
    serving.answers["/running"] = (200, answer)
    (found,) = engines.engines(root)
    assert found["models"] is None


def test_units_of_others_are_left_out_and_without_any_systemd_is_not_asked(root: Path) -> None:
    unit(root, "other", "/bin/true", marker="# somebody else's")
    (root / "bin" / "systemctl").write_text("#!/bin/sh\nexit 1\n")
    assert engines.engines(root) == []
    unit(root, "mine", "/bin/true")
    with pytest.raises(Finding, match="systemctl does not answer"):
        engines.engines(root)


def test_what_was_forced_is_told(root: Path) -> None:
    assert engines.forced(root) is None
    note = root / engines.FORCED
    note.parent.mkdir(parents=True)
    note.write_text('{"words": "lent out"}')
    assert engines.forced(root) == {"words": "lent out"}
    note.write_text("no JSON")
    with pytest.raises(Finding, match="cannot be read"):
        engines.forced(root)
