"""The commands of sleep and wake: their words, exit codes and JSON, in a pipe and in a terminal.

All against the real door with a controller that plays a script.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from powercap_rack import KEY, Done

from labctl import wiring
from labctl.cli.main import main
from labctl.controller.answers import Change, HostStatus
from labctl.controller.answers import TestStep as Step
from labctl.controller.api import PROGRAM, SOCKET, verbs
from labctl.controller.api.peers import Allowed
from labctl.domain.failures import Failure, HostError
from labctl.domain.sleep.lifecycle import Mode
from labctl.ports.store import Happening, Sought, StoreError

from conftest import Desk  # isort: skip
from scripted_service import NOON, STALLED, Scripted, hold, refuses, serving  # isort: skip

RACK = """\
from labctl.inventory import Controller, Host, Rack, WakeOnLan

WOL = WakeOnLan(mac="52:54:00:12:34:56")
rack = Rack(name="desk", controller=Controller(host="nas"), controller_key="keys/c.pub", hosts=[
    Host(name="gpu-box", address="10.0.0.1", roles=["gpu"], wake=WOL),
    Host(name="nas", address="10.0.0.2", roles=["always-on"]),
])
globals().update(rack.groups())
"""

CONTROLLED = "controller=Controller(host='nas'), controller_key='keys/c.pub', "


@dataclass
class Shop:
    """A rack with a controller behind a real door, and labctl in process."""

    folder: Path
    service: Scripted
    call: Callable[..., Done]
    stack: ExitStack
    asked: list[tuple[str, tuple[str, ...], bool]] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.folder / "controller.sock"

    def open(self, **how: Any) -> None:
        self.stack.enter_context(serving(self.socket, self.service, **how))


@pytest.fixture
def closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shop]:
    """Return a shop whose controller does not listen yet."""
    (tmp_path / "rack.py").write_text(RACK)
    (tmp_path / "known_hosts").write_text(f"10.0.0.1 ssh-ed25519 {KEY}\n10.0.0.2 ssh-ed25519 {KEY}\n")
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"LABCTL_{name}", str(tmp_path / name))
    monkeypatch.setenv("LABCTL_INVENTORY", str(tmp_path / "rack.py"))
    monkeypatch.setenv("LABCTL_CONTROLLER", str(tmp_path / "controller.sock"))
    monkeypatch.setattr(wiring, "who", lambda: "ann@laptop pid 4711")

    def call(*args: str) -> Done:
        code = main(args)
        said = capsys.readouterr()
        assert "bug in labctl" not in said.err, said.err
        return Done(code, said.out, said.err)

    with ExitStack() as stack:
        made = Shop(tmp_path, Scripted(), call, stack)

        class Nobody:
            def talk(self, host: str, data: Mapping[str, Any], argv: Sequence[str], *, root: bool) -> object:
                made.asked.append((host, tuple(argv), root))
                raise HostError(Failure("timeout", "10.0.0.2:22 did not answer", "is it on?"))

        monkeypatch.setattr(wiring, "talker", Nobody)
        yield made


@pytest.fixture
def shop(closed: Shop) -> Shop:
    closed.open()
    return closed


UP = Change("gpu-box", Mode.READY, "the gate has passed", 42.0, True)
COMING = Change("gpu-box", Mode.WAKING, "round 1 was sent", 42.0)
DOWN = Change("nas", Mode.FAILED, "it did not come in 180 s", None, False)
SLEEPS = Change("gpu-box", Mode.ASLEEP, "ping and ssh are dark", None, True)


@pytest.mark.parametrize("hosts", [{}, {"nas": {"ok": True, "mode": "ready"}}, "none", None])
@pytest.mark.parametrize(
    "words",
    [
        ("wake", "gpu-box", "nas"),
        ("wake", "gpu-box", "nas", "--no-wait"),
        ("hold", "all", "1h", "--why", "x"),
    ],
)
def test_a_host_of_which_the_controller_says_nothing_is_not_done(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], hosts: Any
) -> None:
    monkeypatch.setattr(verbs, "_done", lambda _: {"done": True, "hosts": hosts})
    done = shop.call(*words)
    assert done.code in (1, 4)
    assert "gpu-box: " in done.out
    assert "the controller does not say what became of it" in done.out


# --- wake ---


def test_wake_tells_each_change_in_a_line_and_the_end(shop: Shop) -> None:
    shop.service.changes = [COMING, replace(COMING, because="no answer yet"), COMING, UP]
    done = shop.call("wake", "gpu-box", "--why", "a demo")
    first, wait, second, last = done.out.splitlines()
    assert first.split("  ")[0] == "gpu-box"
    assert first.endswith("round 1 was sent (usually 42 s)")
    assert wait.endswith("no answer yet")
    assert second.endswith("the gate has passed")
    assert last.startswith("gpu-box: ready after ")
    assert (done.code, done.err) == (0, "")
    (given,) = shop.service.called("wake")
    assert (given["hosts"], given["why"], given["by"]) == (("gpu-box",), "a demo", "ann@laptop")


@pytest.mark.parametrize(
    ("changes", "code"), [([UP, DOWN], 4), ([DOWN], 1), ([UP, Change("nas", Mode.READY, "", None, True)], 0)]
)
def test_several_hosts_come_to_one_exit_code(shop: Shop, changes: list[Any], code: int) -> None:
    shop.service.changes = changes
    done = shop.call("wake", "all")
    assert done.code == code
    assert [line.partition(":")[0] for line in done.out.splitlines()[-2:]] == ["gpu-box", "nas"]


def test_wake_in_json_is_a_line_for_each_change(shop: Shop) -> None:
    shop.service.changes = [COMING, UP]
    done = shop.call("wake", "gpu-box", "--json")
    first, second, last = map(json.loads, done.out.splitlines())
    assert (first["mode"], first["usual_s"], second["ok"]) == ("waking", 42.0, True)
    assert last == {
        "done": True,
        "hosts": {"gpu-box": {"ok": True, "mode": "ready", "because": "the gate has passed", "wish": None}},
    }


def test_when_the_time_is_over_the_controller_goes_on_and_that_is_said(closed: Shop) -> None:
    shop, hours = closed, itertools.count(0, 3600)
    shop.open(monotonic=lambda: float(next(hours)))
    shop.service.changes = [COMING, STALLED]
    done = shop.call("wake", "gpu-box", "--timeout", "1h")
    assert done.code == 1
    assert "gpu-box: waking: round 1 was sent" in done.out
    assert done.err == "the time is over; the controller goes on with gpu-box\n"


def test_without_waiting_the_wish_is_enough(shop: Shop) -> None:
    done = shop.call("wake", "gpu-box", "nas", "--no-wait")
    assert (done.code, done.out) == (0, "gpu-box: ready: it serves\nnas: ready: it serves\n")
    assert not shop.service.called("follow")


@pytest.mark.parametrize("time", ["0", "soon", "-5", "400d", ""])
def test_a_time_that_is_none_is_refused(shop: Shop, time: str) -> None:
    done = shop.call("wake", "gpu-box", f"--timeout={time}")
    assert done.code == 2
    assert "no length of time up to 366d; such as 90s, 10m or 1h30m" in done.err


def test_what_a_controller_says_cannot_drive_the_terminal(shop: Shop) -> None:
    shop.service.changes = [Change("gpu-box", Mode.READY, "\x1b[2J\nnas: ready", None, True)]
    done = shop.call("wake", "gpu-box")
    assert "\x1b" not in done.out
    assert [line.split()[0] for line in done.out.splitlines()] == ["gpu-box", "gpu-box:"]


def test_a_host_that_is_none_is_refused_before_the_controller_is_asked(shop: Shop) -> None:
    done = shop.call("wake", "gpu-bux")
    assert (done.code, "gpu-box" in done.err, shop.service.calls) == (2, True, [])


# --- suspend ---


def test_suspend_says_what_holds_a_host_awake(shop: Shop) -> None:
    busy = "sessions: ann is logged in from 10.0.0.7"
    shop.service.changes = [Change("gpu-box", Mode.READY, busy, None, False)]
    done = shop.call("suspend", "gpu-box")
    assert done.code == 1
    assert done.out.splitlines()[-1].startswith("gpu-box: ready after ")
    assert done.out.splitlines()[-1].endswith(f": {busy}")
    assert shop.service.called("suspend")[0]["when_idle"] is False


def test_suspend_waits_until_it_is_dark(shop: Shop) -> None:
    shop.service.changes = [Change("gpu-box", Mode.DRAINING, "ordered by ann"), SLEEPS]
    done = shop.call("suspend", "gpu-box")
    assert done.code == 0
    assert done.out.splitlines()[-1].startswith("gpu-box: asleep after ")


def test_when_idle_leaves_a_wish_and_does_not_wait(shop: Shop) -> None:
    done = shop.call("suspend", "gpu-box", "--when-idle")
    assert (done.code, shop.service.called("follow")) == (0, [])
    assert shop.service.called("suspend")[0]["when_idle"] is True


def test_force_needs_its_reason_and_excludes_waiting_for_quiet(shop: Shop) -> None:
    assert "--force needs --why" in shop.call("suspend", "gpu-box", "--force").err
    assert "exclude" in shop.call("suspend", "gpu-box", "--force", "--when-idle", "--why", "x").err
    assert shop.service.calls == []
    shop.service.changes = [SLEEPS]
    assert shop.call("suspend", "gpu-box", "--force", "--why", "the fan is loose").code == 0
    given = shop.service.called("suspend")[0]
    assert (given["force"], given["why"]) == (True, "the fan is loose")


# --- claims ---


def test_hold_says_until_when_and_its_number(shop: Shop) -> None:
    done = shop.call("hold", "gpu-box", "2h", "--why", "a fine-tune")
    assert done.code == 0
    assert done.out.startswith("gpu-box: held until 20")
    assert done.out.endswith(", as 12\n")
    (given,) = shop.service.called("hold")
    assert (given["lasts_s"], given["why"], given["by"]) == (
        pytest.approx(7200, abs=2), "a fine-tune", "ann@laptop",
    )  # fmt: skip


def test_a_hold_has_an_end_and_a_reason(shop: Shop) -> None:
    assert "DURATION: 'long' is no time" in shop.call("hold", "gpu-box", "long", "--why", "x").err
    assert "labctl pause has no end" in shop.call("hold", "gpu-box", "999d", "--why", "x").err
    assert "--why" in shop.call("hold", "gpu-box", "2h").err
    assert "not empty" in shop.call("hold", "gpu-box", "2h", "--why", " ").err
    assert not shop.service.called("hold")


def test_release_ends_what_is_named_and_says_what_there_is(shop: Shop) -> None:
    def status(*holds: int) -> None:
        shop.service.statuses["gpu-box"] = HostStatus(
            "gpu-box", Mode.READY, NOON, "", holds=tuple(map(hold, holds))
        )

    status(12, 13)
    done = shop.call("release", "gpu-box")
    assert (done.code, "say which, or all: 12 (a fine-tune, ann)" in done.out) == (1, True)
    assert shop.call("release", "gpu-box", "13").out == "gpu-box: released: 1 ended\n"
    assert shop.call("release", "gpu-box", "--all").code == 0
    assert shop.call("release", "gpu-box", "13", "--all").code == 2
    status()
    done = shop.call("release", "gpu-box")
    assert (done.code, done.out) == (1, "gpu-box: nobody holds it\n")


def test_pause_and_resume_are_for_hosts_or_for_the_rack(shop: Shop) -> None:
    assert shop.call("pause", "gpu-box", "--why", "fans").out == "gpu-box: paused\n"
    assert "the rack is paused" in shop.call("pause", "--why", "moving").out
    assert shop.call("resume", "gpu-box").out == "gpu-box: in the controller's care\n"
    assert "the pause of the rack is over" in shop.call("resume").out
    assert [one["host"] for one in shop.service.called("pause")] == ["gpu-box", None]
    assert [one["host"] for one in shop.service.called("resume")] == ["gpu-box", None]
    assert json.loads(shop.call("resume", "nas", "--json").out) == {"hosts": {"nas": {"ok": True}}}


# --- looking ---


def test_explain_says_what_holds_a_host_awake_signal_by_signal(shop: Shop) -> None:
    shop.service.statuses["gpu-box"] = HostStatus(
        "gpu-box", Mode.READY, NOON, "the gate has passed", doing="sleep test", paused="fans (ann)",
        holds=(hold(12),), proof="kernel 6.1.0-25 -> 6.1.0-26", usual_s=42.0,
    )  # fmt: skip
    done = shop.call("explain", "gpu-box")
    assert done.code == 0
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert lines[:2] == ["gpu-box: ready", "awake: ann is logged in from 10.0.0.7"]
    assert lines[2].startswith("until 20")
    assert lines[2].endswith("; labctl release gpu-box")
    refused = next(line for line in lines if line.startswith("it last turned back on its way to sleep at 20"))
    assert refused.endswith(": gpu of gpu-box: train.py (500) holds card 0")
    for said in (
        "it is looked at again in 7.0 s",
        "awake: mounts cannot be read",
        "wake proof: kernel 6.1.0-25 -> 6.1.0-26",
        "doing now: sleep test",
        "sessions busy ann is logged in from 10.0.0.7",
        "gpu quiet no card computes",
        "mounts unreadable showmount is not there",
        "seen from outside: ping: on",
    ):
        assert said in lines, said
    assert any(line.startswith("hold 12 until ") and line.endswith(": a fine-tune (ann)") for line in lines)
    (found,) = json.loads(shop.call("explain", "gpu-box", "--json").out)["hosts"]
    assert found["may_sleep"] is False
    assert len(json.loads(shop.call("explain", "--json").out)["hosts"]) == 2


def test_events_are_lines_of_a_host_or_of_all(shop: Shop) -> None:
    shop.service.log = [
        Happening(1, NOON, "nas", "move", "ready"), Happening(2, NOON, "", "pause", "paused by ann")
    ]  # fmt: skip
    done = shop.call("events")
    assert [line.split("  ")[1] for line in done.out.splitlines()] == ["nas: ready", "rack: paused by ann"]
    assert len(shop.call("events", "nas").out.splitlines()) == 1
    assert json.loads(shop.call("events", "nas", "--json").out)["text"] == "ready"


@pytest.mark.parametrize(
    ("words", "sought", "most"),
    [
        ((), Sought(), 50),
        (("--since", "2h"), Sought(since=NOON - 7200), 1000),
        (("--since", "2h", "--last", "7"), Sought(since=NOON - 7200), 7),
        (
            ("--until", "1d", "--kind", "wish", "--kind", "hold"),
            Sought(None, NOON - 86400, ("wish", "hold")),
            50,
        ),
        (("--grep", "Refused"), Sought(text="Refused"), 50),
        (("--since", "2027-01-15T08:00+00:00"), Sought(since=NOON), 1000),
    ],
)
def test_events_asks_only_for_what_is_sought(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], sought: Sought, most: int
) -> None:
    class Clock:
        def now(self) -> datetime:
            return datetime.fromtimestamp(NOON, UTC)

    monkeypatch.setattr(wiring, "clock", Clock)
    assert shop.call("events", *words).code == 0
    given = shop.service.called("events")[0]
    assert (given["only"], given["most"]) == (sought, most)


def test_it_is_said_when_nothing_fits(shop: Shop) -> None:
    done = shop.call("events", "--grep", "no such words")
    assert (done.code, done.out, done.err) == (0, "", "nothing in the log fits\n")


def test_a_kind_that_is_not_in_the_log_and_a_time_that_is_none_are_said(shop: Shop) -> None:
    done = shop.call("events", "--kind", "wihs")
    assert done.err == "nothing in the log fits; its kinds are none\n"
    done = shop.call("events", "--since", "yesterday")
    assert (done.code, "'yesterday' is no time; such as 30m, 7d, 2026-11-29" in done.err) == (2, True)


def test_a_sleep_test_shows_its_cycles_and_its_verdict(shop: Shop) -> None:
    shop.service.steps = [
        Step("gpu-box", 0, 2, "is it in use?"),
        Step("gpu-box", 1, 2, "it is dark after 8 s"),
        Step("gpu-box", 2, 2, "it sleeps to RAM (deep), and is back in 9 s", ok=True),
    ]
    done = shop.call("sleep-test", "gpu-box", "--cycles", "2")
    assert done.code == 0
    assert done.out.splitlines() == [
        "gpu-box: is it in use?",
        "gpu-box 1 of 2: it is dark after 8 s",
        "gpu-box: passed: it sleeps to RAM (deep), and is back in 9 s",
    ]
    assert shop.service.called("sleep_test")[0]["cycles"] == 2
    shop.service.steps = [Step("gpu-box", 1, 3, "nothing wakes it: it will only unload", ok=False)]
    done = shop.call("sleep-test", "gpu-box")
    assert (done.code, done.out) == (1, "gpu-box: nothing wakes it: it will only unload\n")
    assert json.loads(shop.call("sleep-test", "gpu-box", "--json").out.splitlines()[-1])["done"] is True


def test_a_sleep_test_is_for_one_host_and_can_be_ended(shop: Shop) -> None:
    assert "test one after the other" in shop.call("sleep-test", "all").err
    done = shop.call("sleep-test", "gpu-box", "--stop")
    assert (done.code, done.out) == (1, "gpu-box: no sleep test runs on it\n")
    shop.service.steps = [Step("gpu-box", 1, 3, "")]
    assert shop.call("sleep-test", "gpu-box", "--stop").code == 0


def test_controller_status_says_whether_it_can_do_its_work(shop: Shop) -> None:
    shop.service.statuses["gpu-box"] = HostStatus(
        "gpu-box", Mode.FAILED, NOON - 7200, "card 2 is gone", quarantined="card 2 is gone", holds=(hold(12),)
    )
    done = shop.call("controller", "status")
    assert done.code == 0
    assert done.out.splitlines()[0] == "controller of desk, labctl 0.1: leads, looked 2.0 s ago"
    assert "2 h" in done.out
    assert "quarantined: card 2 is gone; held by ann: a fine-tune" in done.out
    shop.service.store, shop.service.leader, shop.service.paused = "it is locked", "", "moving (ann)"
    done = shop.call("controller", "status")
    assert done.code == 1
    assert "nothing is put to sleep: it is locked" in done.out
    assert "nobody leads" in done.out
    assert "the rack is paused: moving (ann)" in done.out
    document = json.loads(shop.call("controller", "status", "--json").out)
    assert (document["rack"], len(document["wrong"])) == ("desk", 2)


# --- which controller, and none ---


ALL = [
    ("wake", "gpu-box"),
    ("suspend", "gpu-box"),
    ("hold", "gpu-box", "1h", "--why", "x"),
    ("release", "gpu-box"),
    ("pause", "--why", "x"),
    ("resume",),
    ("explain",),
    ("events",),
    ("sleep-test", "gpu-box"),
    ("controller", "status"),
]


@pytest.mark.parametrize("words", ALL, ids=lambda words: " ".join(words[:2]))
def test_a_controller_that_cannot_be_reached_is_said_and_is_3(closed: Shop, words: tuple[str, ...]) -> None:
    done = closed.call(*words)
    assert done.code == 3
    assert "the controller does not answer: nas: 10.0.0.2:22 did not answer" in done.err
    assert ("--direct" in done.err) == (words[0] == "wake")
    assert "is it on?" in done.err
    assert closed.asked == [("nas", (*PROGRAM, "controller", "connect"), True)]


@pytest.mark.parametrize("words", ALL[1:], ids=lambda words: " ".join(words[:2]))
def test_a_rack_without_a_controller_says_how_to_get_one(closed: Shop, words: tuple[str, ...]) -> None:
    rack = closed.folder / "rack.py"
    rack.write_text(RACK.replace('controller=Controller(host="nas"), ', ""))
    done = closed.call(*words)
    assert (done.code, "this rack has no controller" in done.err) == (3, True)
    assert "Rack(controller=Controller(host=...))" in done.err
    assert closed.asked == []


@pytest.mark.parametrize("words", ALL, ids=lambda words: " ".join(words[:2]))
def test_what_the_controller_refuses_is_2_with_its_words(shop: Shop, words: tuple[str, ...]) -> None:
    shop.service.raises = refuses("not while it snows", "wait for spring")
    done = shop.call(*words)
    assert (done.code, done.err) == (2, "error: not while it snows\n  hint: wait for spring\n")


def test_a_store_that_cannot_be_used_is_a_failure(shop: Shop) -> None:
    shop.service.raises = StoreError("the store is locked", hint="who else has it open?")
    done = shop.call("hold", "gpu-box", "1h", "--why", "x")
    assert (done.code, "the store is locked" in done.err) == (1, True)


def test_without_a_rack_file_the_controller_here_knows_its_hosts(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABCTL_INVENTORY")
    monkeypatch.chdir(shop.folder / "STATE" if (shop.folder / "STATE").is_dir() else shop.folder)
    monkeypatch.setattr(wiring, "inventory_candidates", lambda: (shop.folder / "none",))
    shop.service.changes = [UP]
    assert shop.call("wake", "gpu-box").code == 0
    done = shop.call("wake", "gpu-bux")
    assert (done.code, done.err) == (
        2,
        "error: the controller's rack has no host gpu-bux\n"
        "  hint: did you mean gpu-box? One that is new comes with: labctl apply --only controller\n",
    )  # fmt: skip
    assert "--direct needs a rack file" in shop.call("wake", "gpu-box", "--direct").err


def test_a_controller_of_another_rack_is_not_asked(closed: Shop) -> None:
    closed.open(rack="somebody-elses")
    done = closed.call("wake", "gpu-box")
    assert (done.code, closed.service.calls) == (3, [])
    assert closed.asked


def test_a_controller_that_is_not_set_up_yet_is_said_with_what_to_do(
    closed: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Missing:
        peer = "10.0.0.2"

        def talk(self, *args: object, **kwargs: object) -> Missing:
            return self

        def lines(self) -> Iterator[bytes]:
            said = "sudo: /opt/labctl/labctl/current/bin/python: command not found"
            raise HostError(Failure("op-failed", said))
            yield b""

        def close(self) -> None:
            closed.asked.append(("closed", (), False))

    monkeypatch.setattr(wiring, "talker", Missing)
    done = closed.call("explain")
    assert (done.code, closed.asked) == (3, [("closed", (), False)])
    assert "there is no controller on nas yet" in done.err
    assert "hint: is it set up there? labctl apply --limit nas --only controller" in done.err


def test_who_may_not_give_orders_here_is_told_so(closed: Shop) -> None:
    closed.open(who=Allowed(frozenset()))
    done = closed.call("pause", "--why", "x")
    assert (done.code, "root may give no orders to this controller" in done.err) == (2, True)
    assert "operators" in done.err


# --- in a terminal, and Ctrl-C ---


@pytest.fixture
def terminal_shop(desk: Desk) -> Iterator[tuple[Desk, Scripted, Path]]:
    service, path = Scripted(names=("gpu-box", "nas", "mini")), desk.folder / "controller.sock"
    text = desk.rack.read_text().replace("import Host", "import Controller, Host")
    desk.rack.write_text(text.replace("name='desk', ", f"name='desk', {CONTROLLED}"))
    with serving(path, service):
        yield desk, service, path
        service.let_go.set()


def test_in_a_terminal_the_state_moves_and_ctrl_c_says_that_the_wish_stays(
    terminal_shop: tuple[Desk, Scripted, Path],
) -> None:
    desk, service, path = terminal_shop
    service.changes = [COMING, STALLED]
    terminal = desk.terminal("wake", "gpu-box", LABCTL_CONTROLLER=str(path))
    shown = terminal.read_until(r"gpu-box.*waking.*round 1 was sent \(usually 42 s\)")
    assert "0:00:0" in shown
    terminal.type("\x03")
    assert terminal.wait() == 130
    words = " ".join(terminal.text().split())
    assert "the wish for gpu-box stays, and the controller goes on" in words
    assert "labctl release gpu-box --all" in words
    assert service.closed.wait(20)
    assert not service.called("forget")


def test_ctrl_c_in_a_sleep_test_says_how_to_end_it(terminal_shop: tuple[Desk, Scripted, Path]) -> None:
    desk, service, path = terminal_shop
    service.steps = [Step("gpu-box", 1, 3, "it is going to sleep"), None]
    terminal = desk.terminal("sleep-test", "gpu-box", LABCTL_CONTROLLER=str(path))
    terminal.read_until("gpu-box 1 of 3: it is going to sleep")
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert "labctl sleep-test gpu-box --stop" in " ".join(terminal.text().split())
    assert not service.called("end_test")


def test_ctrl_c_is_how_one_stops_to_follow_events(terminal_shop: tuple[Desk, Scripted, Path]) -> None:
    desk, service, path = terminal_shop
    service.log = [Happening(1, NOON, "nas", "move", "ready")]
    terminal = desk.terminal("events", "--follow", LABCTL_CONTROLLER=str(path))
    terminal.read_until("nas: ready")
    terminal.type("\x03")
    assert terminal.wait() == 0


def test_the_way_to_the_controller_is_where_apply_puts_it() -> None:
    from labctl.inventory import controlling

    assert controlling.SOCKET == SOCKET
    assert PROGRAM[0] == controlling.python_of()


@pytest.mark.parametrize(
    "line",
    ["wake g", "suspend nas g", "hold g", "release g", "pause g", "explain g", "events g", "sleep-test g"],
)
def test_hosts_are_completed_wherever_one_is_named(desk: Desk, line: str) -> None:
    words = f"labctl {line}"
    done = desk.run(_LABCTL_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    assert (done.out.splitlines(), done.err) == (["plain,gpu-box"], "")
