"""``labctl status`` on a rack with a controller: modes and reasons beside what hosts say; nobody is woken.

What the controller hears of a host is enough; it is asked itself only where that is too little.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from powercap_rack import KEY, Hosts

from labctl import wiring
from labctl.cli.main import main
from labctl.controller.answers import HostStatus
from labctl.controller.api.peers import Allowed
from labctl.domain.failures import Failure, HostError
from labctl.domain.sleep.lifecycle import Mode
from labctl.ports import Said

from scripted_service import NOON, Scripted, hold, serving  # isort: skip

RACK = """\
from labctl.inventory import Controller, Host, Rack

rack = Rack(name="desk", controller=Controller(host="nas"), controller_key="keys/c.pub", hosts=[
    Host(name="gpu-box", address="10.0.0.1"),
    Host(name="nas", address="10.0.0.2", roles=["always-on"]),
])
globals().update(rack.groups())
"""
HEAD = [
    "HOST", "STATUS", "MODE", "SINCE", "GPUS", "WATTS", "MODELS", "REQUESTS",
    "PROOF", "HOLDS", "FINDINGS", "SERVICES", "NOTES",
]  # fmt: skip
WELL = Said(0, b'{"engines": [], "forced": null, "errors": {}}', "")


class Nobody:
    def talk(self, *args: object, **kwargs: object) -> object:
        raise HostError(Failure("timeout", "10.0.0.2:22 did not answer"))


@pytest.fixture
def service() -> Scripted:
    return Scripted()


@pytest.fixture
def hosts() -> Hosts:
    return Hosts({"gpu-box": lambda asked: WELL, "nas": lambda asked: WELL})


@pytest.fixture
def ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hosts: Hosts
) -> Any:
    (tmp_path / "rack.py").write_text(RACK)
    (tmp_path / "known_hosts").write_text(f"10.0.0.1,10.0.0.2 ssh-ed25519 {KEY}\n")
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"LABCTL_{name}", str(tmp_path / name))
    monkeypatch.setenv("LABCTL_INVENTORY", str(tmp_path / "rack.py"))
    monkeypatch.setenv("LABCTL_CONTROLLER", str(tmp_path / "s"))
    monkeypatch.setattr(wiring, "remote", lambda: hosts)
    monkeypatch.setattr(wiring, "talker", Nobody)

    def asked(*args: str) -> tuple[int, str, str]:
        code = main(["status", *args])
        said = capsys.readouterr()
        return code, said.out, said.err

    return asked


@pytest.fixture
def door(tmp_path: Path, service: Scripted) -> Iterator[None]:
    with serving(tmp_path / "s", service):
        yield


@pytest.mark.usefixtures("door")
def test_a_host_that_sleeps_is_not_asked_and_is_no_failure(ask: Any, service: Scripted, hosts: Hosts) -> None:
    service.statuses["gpu-box"] = HostStatus("gpu-box", Mode.ASLEEP, NOON, "idle for 30 min")
    code, out, err = ask()
    head, box, nas = out.splitlines()
    assert (code, err) == (0, "")
    assert head.split() == HEAD
    assert box.split()[:3] == ["gpu-box", "asleep", "asleep"]
    assert box.endswith("idle for 30 min")
    assert nas.split()[:3] == ["nas", "ok", "ready"]
    assert {call.host for call in hosts.asked} == {"nas"}
    assert {name for name, _ in service.calls} == {"status"}


@pytest.mark.usefixtures("door")
def test_pauses_holds_and_quarantines_are_shown(ask: Any, service: Scripted) -> None:
    service.paused = "moving house (ann)"
    service.statuses["nas"] = HostStatus("nas", Mode.READY, NOON, "it serves", paused="moving house (ann)",
                                         next="the rack is paused")  # fmt: skip
    service.statuses["gpu-box"] = HostStatus(
        "gpu-box", Mode.FAILED, NOON, "", paused="new fans (ben)", quarantined="card 2 is gone",
        holds=(hold(12),),
    )  # fmt: skip
    _, out, _ = ask()
    assert out.splitlines()[0] == "the rack is paused: moving house (ann); labctl resume ends it"
    _, _, box, nas = out.splitlines()
    assert box.endswith("paused: new fans (ben); quarantined: card 2 is gone; held by ann: a fine-tune")
    assert nas.endswith("it serves")


@pytest.mark.usefixtures("door")
def test_the_document_has_what_the_controller_says(ask: Any, service: Scripted) -> None:
    service.statuses["gpu-box"] = HostStatus("gpu-box", Mode.ASLEEP, NOON, "idle for 30 min")
    document = json.loads(ask("--json")[1])
    box, nas = document["hosts"]
    assert document["ok"] is True
    assert document["controller"] == {"reached": True, "paused": "", "failure": ""}
    assert (box["status"], box["services"], box["sleep"]["because"]) == ("asleep", None, "idle for 30 min")
    assert (nas["status"], nas["sleep"]["usual_s"]) == ("ok", 42.0)


def test_without_the_controllers_word_all_are_asked(ask: Any, hosts: Hosts) -> None:
    code, out, err = ask()
    assert (code, len(hosts.asked)) == (0, 2)
    assert "warning: which hosts sleep is not known: the controller does not answer: nas" in err
    assert out.splitlines()[0].split() == HEAD
    assert json.loads(ask("--json")[1])["controller"]["reached"] is False


def test_who_may_not_ask_is_told_so_and_still_sees_the_hosts(
    ask: Any, service: Scripted, tmp_path: Path
) -> None:
    with serving(tmp_path / "s", service, who=Allowed(frozenset())):
        code, _, err = ask()
    assert (code, "may give no orders to this controller" in err) == (0, True)
