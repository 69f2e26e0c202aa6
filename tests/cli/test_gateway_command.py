"""``labctl gateway``: keys that are shown once, a table made of a rack file, and how a running one is."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from labctl.cli.main import main
from labctl.gateway.reading import read_table
from labctl.inventory import GatewayKey

RACK = """\
from labctl.inventory import Controller, Gateway, GatewayKey, Host, LlamaServer, Model, Rack, Secret, Ssh

rack = Rack(
    name="r",
    ssh=Ssh(key="keys/operator"),
    controller=Controller(host="hub"),
    controller_key="keys/controller.pub",
    models=[Model(id="m", source="/srv/m.gguf")],
    gateway=Gateway(host="hub", port=PORT, keys=[GatewayKey(name="ann", secret=Secret(env="ANN"))]),
    hosts=[
        Host(
            name="hub",
            address="10.0.0.1",
            roles=["always-on"],
            services=[LlamaServer(name="l", model="m", port=8001, binary="/l", api_key=Secret(env="UP"))],
        )
    ],
)
globals().update(rack.groups())
"""
NOW = {"state": "asleep", "expected_s": 42.0, "hosts": ["rig"]}
SAID = {
    "rack": "r",
    "at": 1.0,
    "seen_s": 0.5,
    "trouble": "",
    "paused": "",
    "draining": False,
    "hosts": [
        {"name": "rig", "mode": "asleep", "expected_s": 42.0, "because": "idle", "refused": ""},
        {"name": "old", "mode": "failed", "expected_s": None, "because": "", "refused": "it is broken"},
    ],
    "models": [{"id": "m", "labctl": NOW}, {"id": "n", "labctl": {**NOW, "expected_s": 0, "state": "ready"}}],
}


@pytest.fixture
def answers() -> Iterator[dict[str, Any]]:
    """A gateway at ``url`` that answers ``status`` and ``body``; ``shown`` are the keys that it saw."""
    told: dict[str, Any] = {"status": 200, "body": json.dumps(SAID), "shown": [], "paths": []}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told["shown"].append(self.headers.get("Authorization"))
            told["paths"].append(self.path)
            body = told["body"].encode()
            self.send_response(told["status"])
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Location", "http://192.0.2.1/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told["port"] = server.server_port
        told["url"] = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield told
        server.shutdown()
        thread.join()


@pytest.fixture
def rack_of(tmp_path: Path) -> Callable[[int], Path]:
    def write(port: int) -> Path:
        path = tmp_path / "rack.py"
        path.write_text(RACK.replace("PORT", str(port)))
        return path

    return write


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_key_is_shown_once_with_the_line_that_lets_it_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", "keys", "new", "ann", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["key"].startswith("sk-labctl-")
    assert len(said["key"]) > 40
    assert said["sha256"] == hashlib.sha256(said["key"].encode()).hexdigest()
    made = eval(said["inventory"], {"GatewayKey": GatewayKey})
    assert (made.name, made.sha256) == ("ann", said["sha256"])
    assert main(["gateway", "keys", "new", "ann"]) == 0
    again = capsys.readouterr().out
    assert said["key"] not in again
    assert 'GatewayKey(name="ann", sha256="' in again


def test_a_name_that_could_not_stand_in_a_log_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", "keys", "new", "Ann B"]) == 2
    assert "cannot be the name of a key" in capsys.readouterr().err


def test_run_makes_a_private_table_of_a_rack_file_and_becomes_another_python(
    rack_of: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    became: list[tuple[str, ...]] = []
    monkeypatch.setattr(os, "execv", lambda path, argv: became.append(argv))
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("ANN", "ann-key")
    monkeypatch.setenv("UP", "up-key")
    old = tmp_path / "state/gateway/r/upstream.old.key"
    old.parent.mkdir(parents=True, mode=0o700)
    old.parent.parent.chmod(0o700)
    old.write_text("a key that the rack file names no more\n")
    for _ in range(2):  # the second one replaces what the first one wrote
        assert main(["gateway", "run", str(rack_of(8000))]) == 0
    file = tmp_path / "state/gateway/r/table.json"
    assert became[0][1:] == ("-I", "-OO", "-m", "labctl.cli.gateway_run", str(file))
    table = read_table(file)
    assert table.keys[0].sha256 == hashlib.sha256(b"ann-key").hexdigest()
    assert table.store == str(tmp_path / "state/store.db")
    key = file.with_name("upstream.hub.key")
    assert key.read_text() == "up-key\n"
    assert {path.stat().st_mode & 0o777 for path in file.parent.iterdir()} == {0o600}
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in file.parent.iterdir()) == ["table.json", "upstream.hub.key"]


def test_run_tells_a_person_where_it_serves_and_what_ctrl_c_does(
    rack_of: Callable[[int], Path], tmp_path: Path
) -> None:
    path = rack_of(port := free_port())
    surroundings = {**os.environ, "LABCTL_STATE": str(tmp_path / "state"), "ANN": "ann-key", "UP": "up-key"}
    surroundings.pop("NOTIFY_SOCKET", None)
    argv = [sys.executable, "-m", "labctl.cli.main", "gateway", "run", str(path)]
    with subprocess.Popen(argv, env=surroundings, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stderr is not None
            said = [running.stderr.readline(), running.stderr.readline()]
            running.send_signal(signal.SIGINT)
            said += running.stderr.readlines()
            assert running.wait(20) == 0
        finally:
            running.kill()
    assert "nothing is woken until a controller has made" in said[0]
    assert said[1:] == [
        f"serves 1 model on http://127.0.0.1:{port}\n",
        "takes nothing new, and serves what it has to its end; stop it again to cut that short\n",
    ]


def test_run_of_a_table_reads_no_rack_file(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[tuple[str, ...]] = []
    monkeypatch.setattr(os, "execv", lambda path, argv: became.append(argv))
    assert main(["gateway", "run", "/nowhere/table.json"]) == 0
    assert became[0][-1] == "/nowhere/table.json"


def test_run_of_a_rack_without_a_gateway_says_so(
    rack_of: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = rack_of(8000)
    text = path.read_text()
    path.write_text("\n".join(line for line in text.splitlines() if "gateway=" not in line))
    assert main(["gateway", "run", str(path)]) == 2
    assert "this rack has no gateway" in capsys.readouterr().err


def test_status_shows_models_hosts_and_how_soon_they_answer(
    answers: dict[str, Any],
    rack_of: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ANN", "ann-key")
    assert main(["gateway", "status", "-i", str(rack_of(answers["port"]))]) == 0
    shown = capsys.readouterr().out
    assert answers["shown"] == ["Bearer ann-key"], "the first key of the rack that can be read here"
    assert answers["paths"] == ["/labctl/v1/status"]
    rows = [line.split() for line in shown.splitlines()]
    assert ["m", "asleep", "42", "s", "rig"] in rows
    assert ["n", "ready", "now", "rig"] in rows
    assert "must not be woken: it is broken" in shown


def test_status_by_its_address_needs_no_rack_file(
    answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LABCTL_GATEWAY_KEY", "typed-key")
    assert main(["gateway", "status", "--url", f"{answers['url']}/v1/", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {**SAID, "wrong": []}
    assert answers["shown"] == ["Bearer typed-key"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"trouble": "the store is locked"},
            "so nothing is woken: the store is locked",
        ),
        ({"draining": True}, "it was told to stop"),
    ],
)
def test_a_gateway_that_is_not_well_ends_with_1(
    answers: dict[str, Any], change: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answers["body"] = json.dumps({**SAID, **change})
    assert main(["gateway", "status", "--url", answers["url"]]) == 1
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (401, '{"detail": "no such key"}', 2, "refuses: no such key"),
        (403, "{}", 2, "refuses: 403"),
        (503, '{"detail": "the store is gone"}', 2, "says: the store is gone"),
        (302, "", 2, "is no gateway of labctl's (status 302)"),
        (200, "<html>", 2, "is no gateway of labctl's (status 200)"),
        (200, '{"hosts": 1}', 2, "is no gateway of labctl's"),
    ],
)
def test_what_is_no_status_is_said(
    answers: dict[str, Any],
    status: int,
    body: str,
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers |= {"status": status, "body": body}
    assert main(["gateway", "status", "--url", answers["url"]]) == code
    assert words in capsys.readouterr().err
    assert len(answers["paths"]) == 1, "nothing is followed elsewhere"


def test_one_that_cannot_be_reached_ends_with_3_and_the_way_to_it(
    rack_of: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gateway", "status", "-i", str(rack_of(9))]) == 3
    said = capsys.readouterr().err
    assert "no gateway can be reached at http://127.0.0.1:9" in said
    assert "ssh -N -L 9:127.0.0.1:9 admin@10.0.0.1" in said
    assert main(["gateway", "status", "--url", "hub:8000"]) == 2
    assert "write it as http://HOST:PORT" in capsys.readouterr().err


def test_plan_names_what_the_gateway_cannot_read_before_a_host_is_asked(
    rack_of: Callable[[int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    path = str(rack_of(8000))
    assert main(["plan", path]) == 2
    said = capsys.readouterr().err
    assert "rack.py:9: gateway.keys[0].secret: the variable ANN is not set" in said
    assert "export ANN=... before labctl runs" in said
    assert "services[0].api_key: the variable UP is not set" in said
    assert main(["plan", path, "--only", "base"]) == 2
    assert "ANN" not in capsys.readouterr().err, "nobody asked for the gateway"


def test_validate_notes_what_the_gateway_would_lack(
    rack_of: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UP", "up-key")
    assert main(["validate", str(rack_of(8000))]) == 0
    said = capsys.readouterr().out
    assert "rack.py:9: gateway.keys[0].secret: the variable ANN is not set" in said
    assert "UP" not in said
