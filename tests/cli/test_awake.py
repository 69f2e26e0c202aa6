"""plan and apply on a rack with a controller: what they hold, wake and leave out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from powercap_rack import KEY

from labctl import wiring
from labctl.cli import awake
from labctl.controller.answers import Change, HostStatus
from labctl.domain.failures import Failure, HostError
from labctl.domain.sleep.lifecycle import Mode
from labctl.provision.target import Target

from conftest import Desk  # isort: skip
from scripted_service import NOON, Scripted, refuses, serving  # isort: skip

NAMES = ("gpu-box", "nas", "mini")


class Rack:
    """The desk's rack with a controller that plays a script."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.service = Scripted(names=NAMES)
        self.path = desk.folder / "controller.sock"
        desk.rack.write_text(
            desk.rack.read_text()
            .replace("import Host, Rack", "import Controller, Host, Rack")
            .replace(
                "name='desk', ",
                "name='desk', controller=Controller(host='nas'), controller_key='keys/c.pub', ",
            )
        )

    def run(self, *args: str) -> Any:
        return self.desk.run(*args, LABCTL_CONTROLLER=str(self.path))

    def sleeps(self, host: str, mode: Mode = Mode.ASLEEP, **more: Any) -> None:
        self.service.statuses[host] = HostStatus(host, mode, NOON, "ping and ssh are dark", **more)

    def held(self) -> list[str]:
        return [one["host"] for one in self.service.called("hold")]

    def released(self) -> list[str]:
        return [one["host"] for one in self.service.called("release")]


@pytest.fixture
def rack(desk: Desk) -> Iterator[Rack]:
    made = Rack(desk)
    with serving(made.path, made.service):
        yield made


def test_apply_holds_the_hosts_that_it_works_on_and_lets_them_go(rack: Rack) -> None:
    done = rack.run("apply", "--yes", "--limit", "nas,mini")
    assert (done.code, done.err) == (0, "")
    assert sorted(rack.held()) == ["mini", "nas"] == sorted(rack.released())
    (hold, _) = rack.service.called("hold")
    assert (hold["lasts_s"], hold["why"]) == (1800, "labctl apply works on it")
    assert not rack.service.called("wake")
    names = [name for name, _ in rack.service.calls]
    assert names.index("hold") < names.index("status", names.index("hold")) < names.index("release")


def test_a_host_that_is_new_to_the_controller_costs_the_others_nothing(rack: Rack) -> None:
    rack.service.names = ("gpu-box", "nas")
    rack.sleeps("gpu-box")
    rack.service.changes = [Change("gpu-box", Mode.READY, "the gate has passed", None, True)]
    done = rack.run("apply", "--yes")
    assert (done.code, done.err) == (0, "")
    assert [one["hosts"] for one in rack.service.called("wake")] == [("gpu-box",)]
    assert rack.held() == rack.released() == ["gpu-box", "nas"]


def test_where_the_controller_knows_none_of_the_hosts_they_are_done_all_the_same(rack: Rack) -> None:
    rack.service.names = ("other",)
    done = rack.run("apply", "--yes")
    assert (done.code, done.err, rack.held()) == (0, "", [])


def test_plan_holds_nobody_and_leaves_sleepers_out(rack: Rack) -> None:
    rack.sleeps("gpu-box")
    done = rack.run("plan")
    assert done.code == 4
    assert done.err == "gpu-box is left out: it sleeps (labctl wake gpu-box, or --wake)\n"
    assert "not done: gpu-box" in done.out
    assert not rack.held()
    assert not rack.service.called("wake")
    assert {note["job"]["hosts"][0] for note in rack.desk.notes("job")} <= {"nas", "mini"}


@pytest.mark.parametrize("args", [("apply", "--yes"), ("plan", "--wake"), ("apply", "--yes", "--wake")])
def test_apply_wakes_what_sleeps_and_plan_when_it_is_told_to(rack: Rack, args: tuple[str, ...]) -> None:
    rack.sleeps("gpu-box", Mode.SUSPENDING)
    rack.service.changes = [
        Change("gpu-box", Mode.WAKING, "a packet was sent", 42.0),
        Change("gpu-box", Mode.READY, "the gate has passed", 42.0, True),
    ]
    done = rack.run(*args)
    assert (done.code, done.err) == (0, "")
    assert "a packet was sent (usually 42 s)" in done.out
    assert [one["hosts"] for one in rack.service.called("wake")] == [("gpu-box",)]


@pytest.mark.parametrize("args", [("apply", "--yes", "--no-wake"), ("apply", "--check")])
def test_apply_leaves_sleepers_out_when_it_is_told_to(rack: Rack, args: tuple[str, ...]) -> None:
    rack.sleeps("gpu-box")
    done = rack.run(*args)
    assert (done.code, "gpu-box is left out" in done.err) == (4, True)
    assert not rack.service.called("wake")


def test_a_host_that_does_not_come_is_unreachable_and_the_others_are_done(rack: Rack) -> None:
    rack.sleeps("gpu-box")
    rack.service.changes = [Change("gpu-box", Mode.FAILED, "it did not come in 180 s", None, False)]
    done = rack.run("apply", "--yes", "--json")
    document = json.loads(done.out)
    (host,) = (one for one in document["hosts"] if one["host"] == "gpu-box")
    assert (done.code, len(document["hosts"])) == (4, 3)
    assert (host["status"], host["code"]) == ("unreachable", "asleep")
    assert host["reason"] == "it was not woken: it did not come in 180 s"
    assert sorted(rack.released()) == sorted(NAMES)


def test_a_paused_sleeper_is_never_woken(rack: Rack) -> None:
    rack.sleeps("gpu-box", paused="new fans (ann)")
    done = rack.run("apply", "--yes")
    assert done.code == 4
    assert "gpu-box is left out: it sleeps, and is paused: new fans (ann) (labctl resume)" in done.err
    assert not rack.service.called("wake")


def test_a_pause_of_a_host_that_is_awake_is_shown_and_hinders_nothing(rack: Rack) -> None:
    rack.sleeps("gpu-box", Mode.READY, paused="new fans (ann)")
    done = rack.run("apply", "--yes")
    assert (done.code, done.err) == (0, "note: gpu-box is paused: new fans (ann)\n")


def test_where_all_sleep_nothing_is_run(rack: Rack) -> None:
    for name in NAMES:
        rack.sleeps(name)
    done = rack.run("plan")
    assert (done.code, "no host could be reached" in done.out) == (3, True)
    assert not rack.desk.notes("job")


def test_holds_are_let_go_also_after_a_no(rack: Rack) -> None:
    terminal = rack.desk.terminal("apply", "--limit", "nas", LABCTL_CONTROLLER=str(rack.path))
    terminal.read_until(r"\[y/N\]")
    assert rack.held() == ["nas"]
    terminal.type("n\n")
    assert terminal.wait() == 130
    assert rack.released() == ["nas"]


# --- in process ---


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    from labctl.inventory import load_rack

    (tmp_path / "rack.py").write_text(
        "from labctl.inventory import Controller, Host, Rack\n"
        "rack = Rack(name='desk', controller=Controller(host='nas'), controller_key='keys/c.pub', hosts=[\n"
        "    Host(name='gpu-box', address='10.0.0.1'),\n"
        "    Host(name='nas', address='10.0.0.2', roles=['always-on'])])\n"
        "globals().update(rack.groups())\n"
    )
    (tmp_path / "known_hosts").write_text(f"10.0.0.1,10.0.0.2 ssh-ed25519 {KEY}\n")
    monkeypatch.setenv("LABCTL_CONTROLLER", str(tmp_path / "s"))
    loaded = load_rack(tmp_path / "rack.py")
    return Target(tmp_path / "rack.py", loaded, ("gpu-box", "nas"), (), ())


class Nobody:
    def talk(self, *args: object, **kwargs: object) -> object:
        raise HostError(Failure("timeout", "10.0.0.2:22 did not answer"))


def test_a_controller_that_is_away_is_a_warning_and_the_run_goes_on(
    target: Target, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wiring, "talker", Nobody)
    with awake.kept_awake(target, execute=True, wake=True, quiet=True) as kept:
        assert kept == awake.Kept(target.hosts)
    said = capsys.readouterr().err
    assert said.startswith("warning: hosts are not held awake by the controller: the controller does not")
    assert "each host itself refuses to sleep" in said


def test_a_plan_without_the_controllers_word_says_what_is_not_known(
    target: Target, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wiring, "talker", Nobody)
    with awake.kept_awake(target, execute=False, wake=False, quiet=True) as kept:
        assert kept == awake.Kept(target.hosts)
    assert capsys.readouterr().err.startswith("warning: which hosts sleep is not known: the controller does")


@pytest.mark.parametrize("wake", [True, False])
def test_a_host_that_is_waking_is_waited_for_only_by_who_wakes(
    target: Target, tmp_path: Path, *, wake: bool
) -> None:
    service = Scripted(changes=[Change("gpu-box", Mode.READY, "", None, True)])
    service.statuses["gpu-box"] = HostStatus("gpu-box", Mode.WAKING, NOON, "ann wants it awake")
    with serving(tmp_path / "s", service):
        with awake.kept_awake(target, execute=False, wake=wake, quiet=True) as kept:
            assert kept.hosts == target.hosts
    assert bool(service.called("wake")) is wake


def test_a_controller_that_refuses_is_a_warning_too(
    target: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tmp_path / "s", Scripted(raises=refuses("the store is away"))):
        with awake.kept_awake(target, execute=True, wake=True, quiet=True) as kept:
            assert kept.hosts == target.hosts
    assert "the store is away" in capsys.readouterr().err


def test_holds_are_renewed_before_they_end_and_the_old_ones_let_go(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Scripted()
    assert awake.RENEW_S * 2 < awake.HOLD_S
    monkeypatch.setattr(awake, "RENEW_S", 0.01)
    with serving(tmp_path / "s", service):
        with awake.kept_awake(target, execute=True, wake=True, quiet=True):
            while len(service.called("hold")) < 6:
                assert service.let_go.wait(0.01) is False
    assert len(service.called("release")) == len(service.called("hold"))


def test_holds_are_let_go_whatever_ends_the_run(target: Target, tmp_path: Path) -> None:
    service = Scripted()
    with serving(tmp_path / "s", service):
        with pytest.raises(KeyboardInterrupt):
            with awake.kept_awake(target, execute=True, wake=True, quiet=True):
                raise KeyboardInterrupt
        assert len(service.called("release")) == 2


def test_a_controller_that_goes_away_meanwhile_keeps_nobody_from_the_end(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "talker", Nobody)
    service = Scripted()
    with serving(tmp_path / "s", service) as server:
        with awake.kept_awake(target, execute=True, wake=True, quiet=True):
            server.stop()
    assert service.called("hold")
    assert not service.called("release")
