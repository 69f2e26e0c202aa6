"""``labctl controller run``: begins, serves its door, and ends well when it is told to."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from labctl.cli import controller_run
from labctl.cli.main import main
from labctl.domain.problem import LabctlError
from labctl.domain.sleep.lifecycle import Verdict
from labctl.inventory import load_rack
from labctl.ports.power import PowerError
from labctl.render import controller as rendered

PATIENCE_S = 30
# Nobody listens at these, and nothing is sent to them but what finds that out.
RACK = """\
from labctl.inventory import Controller, Host, Rack

rack = Rack(
    name="desk", controller=Controller(host="nas", operators=["nobody-of-that-name"]),
    controller_key="keys/controller.pub",
    hosts=[
        Host(name="gpu-box", address="127.0.0.1"),
        Host(name="nas", address="127.0.0.2", roles=["always-on"]),
    ],
)
globals().update(rack.groups())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "rack.py").write_text(RACK)
    (tmp_path / "known_hosts").touch()
    for name in ("STATE", "CACHE", "CONTROLLER"):
        monkeypatch.setenv(f"LABCTL_{name}", str(tmp_path / name.lower()))
    monkeypatch.delenv("LABCTL_INVENTORY", raising=False)
    return tmp_path


def test_it_says_that_it_is_ready_answers_at_its_door_and_ends_on_sigterm(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(folder / "notify"))
    process = subprocess.Popen(
        [sys.executable, "-m", "labctl", "controller", "run", str(folder / "rack.py")],
        env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify")},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ended = os.pidfd_open(process.pid)
        ready, _, _ = select.select([told, ended], [], [], PATIENCE_S)
        os.close(ended)
        assert told in ready, "it never said that it is ready"
        assert told.recv(4096).startswith(b"READY=1")
        monkeypatch.chdir(folder)
        assert main(["pause", "--why", "fans", "--inventory", str(folder / "rack.py")]) == 0
        assert main(["controller", "status", "--json", "--inventory", str(folder / "rack.py")]) in (0, 1)
        said = json.loads(capsys.readouterr().out.partition("\n")[2])
        assert [one["host"] for one in said["hosts"]] == ["gpu-box", "nas"]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
        told.close()
    assert process.returncode == 0
    assert "the operator nobody-of-that-name is no user of this machine" in errors
    assert "Traceback" not in errors
    assert "which is a bug" not in errors
    assert not (folder / "controller").exists()


def test_a_rack_without_a_controller_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "rack.py").write_text(
        "from labctl.inventory import Host, Rack\n"
        "rack = Rack(name='desk', hosts=[Host(name='nas', address='10.0.0.1')])\n"
        "globals().update(rack.groups())\n"
    )
    assert main(["controller", "run", str(folder / "rack.py")]) == 2
    assert "this rack has no controller" in capsys.readouterr().err


def test_a_deployed_controller_uses_its_own_key_and_store(folder: Path) -> None:
    loaded = load_rack(folder / "rack.py")
    data = folder / "rack.json"
    data.write_text(rendered.rack_json(loaded.rack))
    deployed = controller_run._load(data)
    assert str(controller_run._store_place(deployed)) == "/var/lib/labctl-store/store.db"
    assert controller_run._store_place(loaded) == folder / "state" / "store.db"


def test_the_way_in_to_hosts_is_the_agents_door_by_the_controllers_key(folder: Path) -> None:
    loaded = load_rack(folder / "rack.py")
    doors = controller_run.doors_of(loaded, threading.Event(), gone=lambda name: False)
    try:
        data = doors.data["gpu-box"]
        assert data["ssh_user"] == "labctl-agent"
        assert data["ssh_key"] == str(folder / "keys" / "controller")
        assert data["ssh_strict_host_key_checking"] == "yes"
    finally:
        doors.store.close()


def test_the_address_of_a_store_is_a_file_that_must_be_there(folder: Path) -> None:
    (folder / "rack.py").write_text(RACK.replace("operators=", "store_url_file='url', operators="))
    loaded = load_rack(folder / "rack.py")
    with pytest.raises(LabctlError, match="the address of the store cannot be read"):
        controller_run._store_place(loaded)
    (folder / "url").write_text("sqlite:////nowhere\n")
    assert controller_run._store_place(loaded) == "sqlite:////nowhere"
    for text in ("", "\n", "horse-battery\n"):
        (folder / "url").write_text(text)
        with pytest.raises(LabctlError, match="url: holds no address of a database") as caught:
            controller_run._store_place(loaded)
        assert "horse" not in str(caught.value)


def test_a_folder_for_the_socket_that_is_not_there_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LABCTL_CONTROLLER", str(folder / "none" / "socket"))
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert main(["controller", "run", str(folder / "rack.py")]) == 2
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    assert "the controller cannot listen there" in capsys.readouterr().err


def test_a_controller_that_is_told_to_stop_in_a_cut_gives_power_at_once(folder: Path) -> None:
    over, done = threading.Event(), []

    class Plug:
        kind, can_cut, has_meter = "smart-plug", True, False

        def wake(self) -> None:
            done.append("on")

        def power(self) -> str:
            return "on"

        def cut(self) -> None:
            done.append("cut")
            over.set()

    doors = controller_run.doors_of(load_rack(folder / "rack.py"), over, gone=lambda name: False)
    try:
        with pytest.raises(PowerError, match="told to stop"):
            doors.cycle(Plug(), Verdict(True, "it is drained"))
        assert done == ["cut", "on"]
    finally:
        doors.store.close()
