"""``labctl web run`` as a process: it serves its table, without a controller too, and ends when told."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import AF_UNIX, socket

import httpx
import pytest

from labctl.cli import web_run
from labctl.cli.main import main
from labctl.cli.web_run import findings_in, rendered
from labctl.controller.answers import RackStatus
from labctl.domain.health.results import document_of
from labctl.domain.problem import LabctlError
from labctl.web import serving
from labctl.web.reading import read_table
from web_kit import FINDINGS, Rack, keeping, table, until, web_only

RACK = """
from labctl.inventory import Controller, Host, Rack, Secret, Web, WebKey
rack = Rack(name="desk", controller=Controller(host="nas"), controller_key="keys/c.pub",
            hosts=[Host(name="nas", address="10.0.0.1", roles=["always-on"])],
            web=Web(port=8091, keys=[WebKey(name="ann", secret=Secret(env="WEB_KEY"))]))
globals().update(rack.groups())
"""


@contextmanager
def running(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    with serving.listening(table()) as sock:
        port = sock.getsockname()[1]
    made = table(port=port, socket=str(folder / "socket"), results=str(folder / "results.json"))
    path = folder / "table.json"
    path.write_text(json.dumps(dataclasses.asdict(made)))
    argv = (sys.executable, "-m", "labctl", "web", "run", str(path))
    environment = {**os.environ, "LABCTL_STATE": str(folder / "state")}
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://localhost:{port}", process
        finally:
            process.kill()


class Now(Rack):
    """Says what it says at the time of this machine's clock: the metrics believe no other."""

    def status(self) -> RackStatus:
        return dataclasses.replace(super().status(), at=time.time())


def test_it_runs_shows_and_ends_when_told(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(document_of(FINDINGS)))
    with running(tmp_path) as (address, process), httpx.Client(base_url=address, trust_env=False) as client:

        def answers() -> bool:
            try:
                return client.get("/").status_code == 200
            except httpx.TransportError:
                assert process.poll() is None
                return False

        until(answers)
        assert "The controller says nothing" in client.get("/").text
        assert "9 % or 42.0 GiB are left (models)" in client.get("/").text
        with keeping(tmp_path / "socket", Now(), who=web_only()):
            until(lambda: "host-gpu-box" in client.get("/").text)
            assert 'labctl_host_state{host="gpu-box",state="asleep"} 1.0' in client.get("/metrics").text
        with client.stream("GET", "/stream") as stream:
            assert next(stream.iter_lines()) == "event: rack"
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        assert process.stderr is not None
        said = process.stderr.read()
    assert said.startswith("the rack on http://127.0.0.1:")
    assert "Traceback" not in said


def test_a_table_is_made_of_a_rack_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("WEB_KEY", "k-canary-0123456789")
    monkeypatch.setenv("LABCTL_CONTROLLER", str(tmp_path / "socket"))
    file = tmp_path / "rack.py"
    file.write_text(RACK)
    path = rendered(file)
    read = read_table(path)
    assert (read.port, read.controller, read.keys[0].name) == (8091, str(tmp_path / "socket"), "ann")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "canary" not in path.read_text()


def test_a_table_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["web", "run", str(tmp_path / "none.json")]) == 2
    assert "the web page's table cannot be read: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", '{"format": 9}', "[" * 100_000])
def test_results_that_cannot_be_read_are_no_results(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    assert findings_in(path) is None
    path.write_text(text)
    assert findings_in(path) is None


def test_a_scrape_hears_of_a_silent_controller_before_prometheus_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 2 * web_run.LOOK_S < 10.0  # Prometheus' scrape_timeout where none is said
    monkeypatch.setattr(web_run, "LOOK_S", 0.05)
    with socket(AF_UNIX) as silent:
        silent.bind(str(tmp_path / "socket"))
        silent.listen()
        for verb in ("status", "events", "energy"):
            with pytest.raises(LabctlError, match="the controller does not answer"):
                web_run.asks(tmp_path / "socket")(verb, "", {})
