"""``labctl wake --direct``: without a controller, by the back-end and the host's own report."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from powercap_rack import KEY, OFF, Asked, Done, Hosts, fails

from labctl import wiring
from labctl.cli.main import main
from labctl.domain.failures import Failure
from labctl.fleet import waking
from labctl.ports import Said
from labctl.ports.power import PowerError

RACK = """\
from labctl.inventory import Gpu, Host, Rack, WakeOnLan

rack = Rack(name="desk", hosts=[
    Host(name="rig", address="10.0.0.1", wake=WakeOnLan(mac="52:54:00:12:34:56"), gpus=[
        Gpu(model="RTX 3090", slot="slot0", uuid="GPU-11111110-2222-3333-4444-555555555555"),
    ]),
    Host(name="mini", address="10.0.0.2", wake=WakeOnLan(mac="52:54:00:12:34:57")),
    Host(name="nas", address="10.0.0.3"),
])
globals().update(rack.groups())
"""


@dataclass
class Played:
    """A back-end; ``on_wake`` is told each round."""

    kind: str = "wol"
    can_cut: bool = False
    has_meter: bool = False
    rounds: int = 0
    fails: PowerError | None = None
    woken: threading.Event = field(default_factory=threading.Event)

    def wake(self) -> None:
        self.rounds += 1
        if self.fails is not None:
            raise self.fails
        self.woken.set()


def report(*cards: str) -> Said:
    gpus = [{"uuid": uuid, "name": "NVIDIA GeForce RTX 3090", "power_w": 20.0} for uuid in cards]
    return Said(0, json.dumps({"nvidia": {"gpus": gpus}, "errors": {}}).encode(), "")


@dataclass
class Bench:
    switches: dict[str, Played]
    hosts: Hosts
    call: Callable[..., Done]

    def boots(self, host: str, answer: Said) -> None:
        """Let a host answer so once it was woken."""

        def play(asked: Asked) -> Said:
            return answer if self.switches[host].woken.is_set() else fails(OFF)(asked)

        self.hosts.plays[host] = play


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    (tmp_path / "rack.py").write_text(RACK)
    (tmp_path / "known_hosts").write_text("".join(f"10.0.0.{n} ssh-ed25519 {KEY}\n" for n in range(1, 4)))
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"LABCTL_{name}", str(tmp_path / name))
    monkeypatch.setenv("LABCTL_INVENTORY", str(tmp_path / "rack.py"))
    monkeypatch.setenv("LABCTL_CONTROLLER", str(tmp_path / "none"))
    switches = {name: Played() for name in ("rig", "mini")}
    hosts = Hosts()
    monkeypatch.setattr(wiring, "switch_for", lambda loaded, host: switches[host])
    monkeypatch.setattr(wiring, "remote", lambda: hosts)
    monkeypatch.setattr(waking, "ASK_AGAIN_S", 0.005)
    monkeypatch.setattr(waking, "GAPS_S", (0.005,))

    def call(*args: str) -> Done:
        code = main(args)
        said = capsys.readouterr()
        assert "bug in labctl" not in said.err, said.err
        return Done(code, said.out, said.err)

    return Bench(switches, hosts, call)


def test_a_host_is_woken_and_awake_when_its_agent_reports(bench: Bench) -> None:
    bench.boots("mini", report())
    done = bench.call("wake", "mini")  # the rack has no controller, so from here
    first, second, last = done.out.splitlines()
    assert "its wake was sent (wol); waiting for its agent to report" in first
    assert "its agent reports, and nothing is missing" in second
    assert last.startswith("mini: ready after ")
    assert done.code == 0


def test_what_the_rack_file_says_must_be_there(bench: Bench) -> None:
    bench.boots("rig", report("GPU-99999999-2222-3333-4444-555555555555"))
    done = bench.call("wake", "rig", "--direct")
    assert done.code == 1
    assert "it answers, but" in done.out
    assert "slot0" in done.out


def test_what_the_driver_does_not_tell_is_not_verified(bench: Bench) -> None:
    bench.boots("rig", Said(0, b'{"errors": {"nvidia": {"what": "the driver is not loaded"}}}', ""))
    done = bench.call("wake", "rig", "--direct")
    assert (done.code, "it answers, but the driver is not loaded" in done.out) == (1, True)


def test_a_host_with_all_its_cards_is_ready(bench: Bench) -> None:
    bench.boots("rig", report("GPU-11111110-2222-3333-4444-555555555555"))
    assert bench.call("wake", "rig", "--direct").code == 0


def test_rounds_go_on_until_it_answers(bench: Bench) -> None:
    answers = iter([fails(OFF)] * 4 + [lambda asked: report()])
    bench.hosts.plays["mini"] = lambda asked: next(answers)(asked)
    assert bench.call("wake", "mini", "--direct").code == 0
    assert bench.switches["mini"].rounds > 1


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (Failure("host-key", "it does not prove its key", "look at it", unreachable=True), "does not prove"),
        (Failure("auth", "it does not let us in", unreachable=True), "does not let us in"),
        (Failure("timeout", "no answer within 8 s"), "no answer within 8 s"),
    ],
)
def test_who_answers_and_refuses_us_does_no_better_by_waiting(
    bench: Bench, failure: Failure, words: str
) -> None:
    bench.hosts.plays["mini"] = fails(failure)
    done = bench.call("wake", "mini", "--direct")
    assert (done.code, words in done.out) == (1, True)
    assert "it answers, but" in done.out


def test_without_an_agent_it_is_said_that_nothing_could_be_verified(bench: Bench) -> None:
    bench.hosts.plays["mini"] = lambda asked: Said(127, b"", "not found")
    done = bench.call("wake", "mini", "--direct")
    assert (done.code, "agent is not installed" in done.out) == (1, True)


def test_a_back_end_that_cannot_ends_it_and_one_that_fails_for_now_does_not(bench: Bench) -> None:
    bench.switches["mini"].fails = PowerError("auth", "the BMC refuses the password", "look at the file")
    done = bench.call("wake", "mini", "--direct")
    assert done.code == 1
    assert "it could not be woken: the BMC refuses the password (look at the file)" in done.out
    bench.switches["mini"].fails = PowerError("timeout", "the BMC is silent", transient=True)
    bench.hosts.plays["mini"] = lambda asked: (
        report() if bench.switches["mini"].rounds > 3 else fails(OFF)(asked)
    )
    assert bench.call("wake", "mini", "--direct").code == 0


def test_the_time_ends_it_although_nobody_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(0, 100_000, 100))
    monkeypatch.setattr(wiring, "clock", lambda: Ticking(times))
    done = bench.call("wake", "mini", "--direct", "--timeout", "2m")
    assert done.code == 1
    assert "goes on" not in done.err


def test_beside_a_controller_nobody_goes_on_with_it_either(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = (tmp_path / "rack.py").read_text().replace("import ", "import Controller, ", 1)
    owned = 'Rack(controller=Controller(host="nas"), controller_key="keys/c.pub", '
    text = text.replace("Rack(", owned, 1).replace('name="nas", ', 'name="nas", roles=["always-on"], ')
    (tmp_path / "rack.py").write_text(text)
    times = iter(range(0, 100_000, 100))
    monkeypatch.setattr(wiring, "clock", lambda: Ticking(times))
    done = bench.call("wake", "mini", "--direct", "--timeout", "2m")
    assert (done.code, "goes on" in done.err) == (1, False)


class Ticking:
    def __init__(self, times: Any) -> None:
        self._times = times

    def monotonic(self) -> float:
        return float(next(self._times))


def test_several_at_once_come_to_one_code(bench: Bench) -> None:
    bench.boots("mini", report())
    bench.switches["rig"].fails = PowerError("no-route", "no route")
    done = bench.call("wake", "rig", "mini", "--direct")
    assert done.code == 4
    assert [line.split(":")[0] for line in done.out.splitlines()[-2:]] == ["rig", "mini"]


def test_without_waiting_one_round_is_sent(bench: Bench) -> None:
    done = bench.call("wake", "mini", "--no-wait")
    assert (done.code, bench.switches["mini"].rounds, bench.hosts.asked) == (0, 1, [])
    bench.switches["mini"].fails = PowerError("no-route", "no route")
    assert bench.call("wake", "mini", "--no-wait").code == 1


def test_lines_of_json_are_those_of_the_controller(bench: Bench) -> None:
    bench.boots("mini", report())
    *news, last = map(json.loads, bench.call("wake", "mini", "--json").out.splitlines())
    assert {frozenset(one) for one in news} == {frozenset({"host", "mode", "because", "usual_s", "ok"})}
    assert last["hosts"]["mini"]["mode"] == "ready"


def test_a_host_that_nothing_wakes_is_refused_before_anything_is_sent(bench: Bench) -> None:
    done = bench.call("wake", "mini", "nas", "--direct")
    assert done.code == 2
    assert "host nas: nothing is named that wakes it" in done.err
    assert bench.switches["mini"].rounds == 0


def test_ctrl_c_ends_the_waiting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "clock", lambda: Pressed())
    assert bench.call("wake", "mini", "--direct").code == 130


class Pressed:
    """A clock behind which somebody presses Ctrl-C at its third look."""

    looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        if self.looks == 3:
            raise KeyboardInterrupt
        return 0.0


def test_a_bug_in_a_thread_is_not_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(asked: Asked) -> Said:
        raise ZeroDivisionError

    bench.hosts.plays["mini"] = broken
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        bench.call("wake", "mini", "--direct")
