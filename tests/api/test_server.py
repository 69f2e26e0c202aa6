"""The door: who may come in, what bytes do to it, and that nobody holds up anybody else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.controller.answers import Change
from labctl.controller.answers import TestStep as Step
from labctl.controller.api import LONGEST_LINE, peers
from labctl.controller.api.peers import WEB_VERBS, Allowed, Peer, allowed
from labctl.controller.api.server import Bounds
from labctl.controller.api.words import VERBS
from labctl.domain.problem import LabctlError
from labctl.domain.sleep.lifecycle import Mode
from labctl.ports.store import Happening, StoreError

from scripted_service import NOON, STALLED, Scripted, hold, refuses, serving, wish  # isort: skip
from test_words import LINES  # isort: skip

PATIENCE_S = 20


class Client:
    """Somebody at the door who says any bytes."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(path))
        self.file = self.sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *unused: object) -> None:
        self.file.close()
        self.sock.close()

    def hear(self) -> dict[str, Any]:
        line = self.file.readline()
        return json.loads(line) if line else {}

    def say(self, **fields: Any) -> None:
        self.sock.sendall(json.dumps({"v": 1, **fields}).encode() + b"\n")

    def ask(self, **fields: Any) -> list[dict[str, Any]]:
        """Return all lines that answer a request."""
        self.say(**fields)
        heard = [self.hear()]
        while heard[-1] and not ("done" in heard[-1] or "error" in heard[-1]):
            heard.append(self.hear())
        return heard


def greeted(path: Path) -> Client:
    client = Client(path)
    assert client.hear() == {"v": 1, "rack": "desk", "labctl": "0.1"}
    return client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "controller.sock"


@pytest.fixture
def service() -> Scripted:
    return Scripted()


@pytest.fixture
def client(path: Path, service: Scripted) -> Iterator[Client]:
    with serving(path, service), greeted(path) as made:
        yield made


# --- who ---


def test_a_stranger_gets_one_clear_line_and_no_more(path: Path, service: Scripted) -> None:
    program = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        'try: s.sendall(b\'{"v":1,"do":"pause","why":"x"}\\n\')\n'
        "except BrokenPipeError: pass\n"
        "said = b''\n"
        "while True:\n"
        "    try: more = s.recv(4096)\n"
        "    except ConnectionResetError: break\n"
        "    if not more: break\n"
        "    said += more\n"
        "sys.stdout.buffer.write(said)\n"
    )
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    path.parent.chmod(0o711)  # the way to it is root's alone, so it goes by the folder that it starts in
    with serving(path, service):
        done = subprocess.run(
            [sys.executable, "-c", program, path.name],
            cwd=path.parent,
            capture_output=True,
            timeout=PATIENCE_S,
            check=True,
        )
    (line,) = done.stdout.splitlines()
    refusal = json.loads(line)["error"]
    assert refusal["code"] == "not-allowed"
    assert refusal["reason"] == "nobody may give no orders to this controller"
    assert "operators" in refusal["hint"]
    assert service.calls == []


def test_root_the_controllers_own_user_and_operators_may_come_in() -> None:
    who = allowed(("daemon", "nobody-of-that-name"))
    assert {0, os.geteuid(), 1} == who.uids
    assert who.missing == ("nobody-of-that-name",)
    assert Peer(1, 1) in who
    assert Peer(1, 4711) not in who


def test_users_that_the_kernel_cannot_tell_apart_may_never_come_in() -> None:
    assert Peer(1, 65534) not in allowed(("nobody",))


def test_the_gateways_user_may_nudge_and_nothing_else(path: Path, service: Scripted) -> None:
    who = Allowed(frozenset(), (), frozenset({os.geteuid()}))
    with serving(path, service, who=who):
        for verb in sorted(VERBS.keys() - {"nudge"}):
            fields = {name: WORTH[name] for name, field in VERBS[verb].items() if field.required}
            with greeted(path) as client:
                (said,) = client.ask(do=verb, **fields)
                assert said["error"]["code"] == "not-allowed", verb
                assert "may only nudge this controller" in said["error"]["reason"]
                assert client.hear() == {}
        with greeted(path) as client:
            assert client.ask(do="nudge", hosts=["nas"]) == [{"done": True, "hosts": {"nas": {"ok": True}}}]
            assert client.ask(do="nudge") == [{"done": True, "hosts": {}}]
            assert client.ask(do="nudge", hosts=["gpu-bux"])[0]["error"]["code"] == "unknown-host"
    assert service.calls == [("nudge", {"host": "nas"}), ("nudge", {"host": ""})]


WORTH = {"hosts": ["nas"], "for_s": 60, "why": "because"}


def test_the_user_that_looks_after_health_may_ask_for_the_status_and_nothing_else(
    path: Path, service: Scripted
) -> None:
    assert allowed((), health="daemon").watchers == {1}
    assert allowed((), health="nobody-of-that-name").watchers == frozenset()
    who = Allowed(frozenset(), watchers=frozenset({os.geteuid()}))
    with serving(path, service, who=who):
        with greeted(path) as client:
            assert client.ask(do="status")[-1]["done"] is True
        for verb in sorted(VERBS.keys() - {"status"}):
            fields = {name: WORTH[name] for name, field in VERBS[verb].items() if field.required}
            with greeted(path) as client:
                (said,) = client.ask(do=verb, **fields)
                assert "may only ask this controller for its status" in said["error"]["reason"], verb
    assert {name for name, _ in service.calls} == {"status"}


def test_who_may_nudge_is_the_user_of_that_name_and_never_one_whom_the_kernel_does_not_know() -> None:
    assert allowed((), "daemon").nudgers == {1}
    assert allowed((), "daemon").refusal(Peer(1, 1), "wake", {})
    assert Peer(1, 1) in allowed((), "daemon")
    assert allowed((), "nobody-of-that-name").nudgers == allowed((), "nobody").nudgers == frozenset()


def test_the_web_pages_user_may_look_and_wish_and_force_nothing(path: Path, service: Scripted) -> None:
    who = Allowed(frozenset(), (), frozenset(), frozenset({os.geteuid()}))
    may = WEB_VERBS & VERBS.keys()
    with serving(path, service, who=who):
        for verb in sorted(VERBS.keys() - may):
            fields = {name: WORTH[name] for name, field in VERBS[verb].items() if field.required}
            with greeted(path) as client:
                (said,) = client.ask(do=verb, **fields)
                assert said["error"]["code"] == "not-allowed", verb
                assert f"may not {verb} here" in said["error"]["reason"]
        with greeted(path) as client:
            (said,) = client.ask(do="suspend", hosts=["nas"], why="x", force=True)
            assert "may force nothing" in said["error"]["reason"]
        assert service.calls == []
        with greeted(path) as client:
            for verb in sorted(may - {"events"}):
                fields = {name: WORTH[name] for name, field in VERBS[verb].items() if field.required}
                fields |= {"wait": False} if "wait" in VERBS[verb] else {}
                assert client.ask(do=verb, **fields)[-1]["done"] is True, verb


def test_who_the_web_page_is_follows_from_its_user() -> None:
    assert allowed((), web="daemon").web == {1}
    assert allowed((), web="nobody-of-that-name").web == frozenset()
    assert allowed((), web="daemon").refusal(Peer(1, 4711), "status", {})


def test_the_web_page_says_whose_key_it_was_shown_and_that_it_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "WEB", "daemon")
    assert Peer(1, 1).called("ann") == "ann by daemon"
    assert Peer(1, 1).called(" ") == "daemon"


@pytest.mark.parametrize(
    ("uid", "by", "called"),
    [(0, "ann@desk", "ann@desk"), (0, " ", "root"), (1, "ann@desk", "daemon"), (61234, "", "uid 61234")],
)
def test_only_root_speaks_for_somebody_else(uid: int, by: str, called: str) -> None:
    assert Peer(1, uid).called(by) == called


# --- what bytes do ---


def test_each_request_of_a_connection_is_answered_in_turn(client: Client) -> None:
    assert client.ask(do="status")[0]["hosts"][0]["host"] == "gpu-box"
    assert client.ask(do="reboot")[0]["error"]["code"] == "unknown-verb"
    assert client.ask(do="status", hosts=["nas"])[0]["hosts"][0]["host"] == "nas"


def test_requests_that_come_in_pieces_or_together_are_all_answered(client: Client) -> None:
    line = b'{"v":1,"do":"resume"}\n'
    for byte in line:
        client.sock.sendall(bytes([byte]))
    assert client.hear() == {"done": True, "hosts": {}}
    client.sock.sendall(line * 3)
    assert [client.hear()["done"] for _ in range(3)] == [True] * 3


def test_what_is_no_json_is_one_error_and_the_end(client: Client) -> None:
    client.sock.sendall(b'GET / HTTP/1.1\r\n{"v":1,"do":"status"}\n')
    assert client.hear()["error"]["code"] == "not-json"
    assert client.hear() == {}


def test_a_line_without_an_end_is_cut_off(client: Client) -> None:
    client.sock.sendall(b"x" * LONGEST_LINE)
    assert client.hear()["error"]["code"] == "too-long"
    assert client.hear() == {}


def test_half_a_request_is_none(path: Path, service: Scripted) -> None:
    with serving(path, service), greeted(path) as client:
        client.sock.sendall(b'{"v":1,"do":"pause","why":"x"}')
        client.sock.shutdown(socket.SHUT_WR)
        assert client.hear() == {}
    assert service.calls == []


@settings(max_examples=150)
@given(data=st.data())
def test_whatever_is_said_is_answered_by_lines_of_json_and_nothing_is_logged(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    if not hasattr(_FUZZED, "path"):
        _FUZZED.open(tmp_path_factory.mktemp("api") / "s")
    said = b"\n".join(data.draw(st.lists(LINES, min_size=1, max_size=4))) + b"\n"
    with greeted(_FUZZED.path) as client:
        client.sock.sendall(said)
        client.sock.shutdown(socket.SHUT_WR)
        answers = [json.loads(line) for line in client.file]
    assert answers
    assert all(isinstance(answer, dict) for answer in answers)
    assert not [one for one in answers if one.get("error", {}).get("code") in ("internal", "store")]
    assert _FUZZED.log == []


class _Fuzzed:
    """One door for all examples: a property has no fixture that lasts for one test."""

    path: Path
    log: list[str]

    def open(self, path: Path) -> None:
        self.log = []
        self.context = serving(path, Scripted(changes=[Change("gpu-box", Mode.READY, "", ok=True)]),
                               log=self.log)  # fmt: skip
        self.context.__enter__()
        self.path = path


_FUZZED = _Fuzzed()


@pytest.fixture(scope="module", autouse=True)
def _fuzzed_is_closed() -> Iterator[None]:
    yield
    if hasattr(_FUZZED, "path"):
        _FUZZED.context.__exit__(None, None, None)
        del _FUZZED.path


# --- our own faults ---


@pytest.mark.parametrize(
    ("fault", "code", "reason"),
    [
        (refuses("gpu-box is being tested", "wait"), "refused", "gpu-box is being tested"),
        (StoreError("the store is locked"), "store", "the store is locked"),
        (KeyError("x"), "internal", "this is a bug in labctl: KeyError"),
        (OSError("disk"), "internal", "this is a bug in labctl: OSError"),
    ],
)
def test_a_fault_is_an_error_in_words_and_the_connection_goes_on(
    path: Path, service: Scripted, fault: Exception, code: str, reason: str
) -> None:
    log: list[str] = []
    service.raises = fault
    with serving(path, service, log=log), greeted(path) as client:
        (answer,) = client.ask(do="pause", why="x")
        assert (answer["error"]["code"], answer["error"]["reason"]) == (code, reason)
        service.raises = None
        assert client.ask(do="status")[0]["done"] is True
    assert bool(log) == (code == "internal")
    assert all("Traceback" in told for told in log)


# --- nobody holds up anybody ---


def test_a_client_that_takes_no_answers_is_dropped_and_others_are_served(
    path: Path, service: Scripted
) -> None:
    service.log = [Happening(n, NOON, "nas", "note", "x" * 400) for n in range(1, 1001)]
    with serving(path, service, bounds=Bounds(send_s=0.2)), greeted(path) as stuck:
        for _ in range(5):
            stuck.say(do="events", most=1000)
        with greeted(path) as other:
            assert other.ask(do="status")[0]["done"] is True
        with pytest.raises(OSError):  # it hung up: what is said now goes nowhere
            while True:
                stuck.sock.sendall(b" " * 4096)


def test_a_line_that_dribbles_has_one_deadline_for_all_of_it(path: Path, service: Scripted) -> None:
    with serving(path, service, bounds=Bounds(line_s=0.2)), greeted(path) as client:
        ended = threading.Event()

        def dribble() -> None:
            while not ended.wait(0.02):
                try:
                    client.sock.sendall(b"{")
                except OSError:
                    return

        thread = threading.Thread(target=dribble)
        thread.start()
        assert client.hear()["error"]["code"] == "too-slow"
        ended.set()
        thread.join()


def test_a_client_that_says_nothing_is_let_go(path: Path, service: Scripted) -> None:
    with serving(path, service, bounds=Bounds(idle_s=0.05)), greeted(path) as client:
        assert client.hear()["error"]["code"] == "too-slow"
        assert client.hear() == {}


def test_clients_are_bounded_and_the_place_of_one_that_went_is_free(path: Path, service: Scripted) -> None:
    service.changes = [STALLED]
    with serving(path, service, bounds=Bounds(clients=2)):
        with greeted(path), greeted(path) as second:
            with Client(path) as third:
                assert third.hear()["error"]["code"] == "busy"
                assert third.hear() == {}
            second.say(do="wake", hosts=["nas"])
            assert service.stalled.wait(PATIENCE_S)
        assert service.closed.wait(PATIENCE_S), "nobody listens, and it is followed still"
        for _ in range(200):
            with Client(path) as again:
                if "rack" in again.hear():
                    return
        pytest.fail("no place became free")


def test_one_user_leaves_places_to_root(path: Path) -> None:
    from labctl.controller.api.server import Door, Server

    server = Server(
        Door(path, Allowed(frozenset({0, 1})), {}, print), lambda *_: iter(()), Bounds(of_a_user=1)
    )
    server._clients = {object(): Peer(1, 1)}  # type: ignore[dict-item]
    busy = server._refusal(Peer(2, 1))
    assert busy is not None
    assert busy.code == "busy"
    assert server._refusal(Peer(2, 0)) is None
    server._clients = {}
    server.stop()


def test_a_machine_without_room_for_a_thread_loses_a_client_and_not_the_door(
    path: Path, service: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = threading.Thread.start
    full = [True]

    def start(thread: threading.Thread) -> None:
        if thread.name == "control client" and full and full.pop():
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with serving(path, service):
        with Client(path) as lost:
            assert lost.hear() == {}
        with greeted(path) as client:
            assert client.ask(do="resume")[-1]["done"] is True


def test_stopping_ends_those_who_wait(path: Path, service: Scripted) -> None:
    service.changes = [Change("gpu-box", Mode.WAKING, "a packet was sent"), STALLED]
    with serving(path, service) as server, greeted(path) as client:
        client.say(do="wake", hosts=["gpu-box"])
        assert client.hear()["mode"] == "waking"
        assert service.stalled.wait(PATIENCE_S)
        server.stop()
        while client.hear():
            pass
    assert service.closed.is_set()


# --- the socket's file ---


def test_a_socket_that_a_dead_controller_left_is_replaced(path: Path, service: Scripted) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with serving(path, service), greeted(path) as client:
        assert client.ask(do="status")[0]["done"] is True
        assert path.stat().st_mode & 0o777 == 0o666


def test_a_second_controller_is_refused_and_the_first_serves_on(path: Path, service: Scripted) -> None:
    with serving(path, service):
        with pytest.raises(LabctlError, match="another controller listens"), serving(path, service):
            pass
        with greeted(path) as client:
            assert client.ask(do="status")[0]["done"] is True


def test_what_is_no_socket_is_left_alone(path: Path, service: Scripted) -> None:
    path.write_text("mine")
    with pytest.raises(LabctlError, match="is no socket"), serving(path, service):
        pass
    assert path.read_text() == "mine"


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, service: Scripted) -> None:
    with pytest.raises(LabctlError, match="cannot listen there: No such file"):
        with serving(tmp_path / "none" / "s", service):
            pass


# --- the verbs ---


def test_wake_tells_each_change_and_at_last_what_became_of_each(client: Client, service: Scripted) -> None:
    service.changes = [
        Change("gpu-box", Mode.WAKING, "a packet was sent", 42.0),
        Change("nas", Mode.READY, "it serves", 9.0, True),
        None,
        Change("gpu-box", Mode.FAILED, "it did not come in 180 s", 42.0, False),
    ]
    *news, last = client.ask(do="wake", hosts=["gpu-box", "nas", "nas"], why="a demo", by="ann")
    assert [(one["host"], one["mode"], one["ok"]) for one in news] == [
        ("gpu-box", "waking", None), ("nas", "ready", True), ("gpu-box", "failed", False),
    ]  # fmt: skip
    assert news[0] == {
        "host": "gpu-box", "mode": "waking", "because": "a packet was sent", "usual_s": 42.0, "ok": None,
    }  # fmt: skip
    assert last == {
        "done": True,
        "hosts": {
            "gpu-box": {
                "ok": False, "mode": "failed", "because": "it did not come in 180 s", "wish": None,
            },
            "nas": {"ok": True, "mode": "ready", "because": "it serves", "wish": None},
        },
    }  # fmt: skip
    assert service.called("wake") == [
        {"hosts": ("gpu-box", "nas"), "why": "a demo", "by": "ann", "lasts_s": 900.0}
    ]


def test_who_waits_no_longer_is_told_that_it_goes_on(client: Client, service: Scripted) -> None:
    service.changes = [Change("gpu-box", Mode.WAKING, "a packet was sent"), STALLED]
    *_, last = client.ask(do="wake", hosts=["gpu-box"], timeout_s=0.05)
    assert last["hosts"]["gpu-box"] == {
        "ok": None, "mode": "waking", "because": "a packet was sent", "wish": 7,
    }  # fmt: skip
    assert service.closed.wait(PATIENCE_S)
    assert not service.called("forget")


def test_without_waiting_the_answer_is_what_is_known(client: Client, service: Scripted) -> None:
    (last,) = client.ask(do="suspend", hosts=["nas"], when_idle=True, wait=False)
    assert last["hosts"] == {"nas": {"ok": None, "mode": "ready", "because": "it serves", "wish": 7}}
    assert service.called("suspend")[0]["when_idle"] is True


def test_who_hung_up_is_followed_no_more_and_the_wish_stays(path: Path, service: Scripted) -> None:
    service.changes = [STALLED]
    with serving(path, service):
        with greeted(path) as client:
            client.say(do="wake", hosts=["gpu-box"])
            assert service.stalled.wait(PATIENCE_S)
        assert service.closed.wait(PATIENCE_S)
    assert not service.called("forget")


def test_force_needs_a_reason(client: Client, service: Scripted) -> None:
    (answer,) = client.ask(do="suspend", hosts=["nas"], force=True)
    assert answer["error"]["reason"] == 'suspend: "force" needs "why"'
    assert not service.called("suspend")


@pytest.mark.parametrize(
    "fields",
    [
        {"do": "wake", "hosts": ["gpu-bux"]},
        {"do": "suspend", "hosts": ["gpu-bux"]},
        {"do": "hold", "hosts": ["nas", "gpu-bux"], "for_s": 60, "why": "x"},
        {"do": "release", "hosts": ["gpu-bux"]},
        {"do": "pause", "hosts": ["gpu-bux"], "why": "x"},
        {"do": "resume", "hosts": ["gpu-bux"]},
        {"do": "status", "hosts": ["gpu-bux"]},
        {"do": "explain", "hosts": ["gpu-bux"]},
        {"do": "events", "host": "gpu-bux"},
        {"do": "sleep-test", "hosts": ["gpu-bux"]},
    ],
    ids=lambda fields: fields["do"],
)
def test_a_host_that_is_unknown_is_refused_before_anything_is_done(
    client: Client, service: Scripted, fields: dict[str, Any]
) -> None:
    (answer,) = client.ask(**fields)
    assert answer["error"] == {
        "code": "unknown-host", "reason": "the controller's rack has no host gpu-bux",
        "hint": "did you mean gpu-box? One that is new comes with: labctl apply --only controller",
    }  # fmt: skip
    assert service.calls == []


def test_a_hold_says_its_number_and_its_end(client: Client, service: Scripted) -> None:
    (answer,) = client.ask(do="hold", hosts=["nas"], for_s=60, why="a copy")
    assert answer["hosts"]["nas"] == {
        "ok": True, "hold": 12, "until": NOON + 60, "why": "a copy", "by": "root",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("holds", "fields", "ok", "because", "released"),
    [
        ((), {}, False, "nobody holds it", []),
        ((12,), {}, True, "1 ended", [12]),
        ((12, 13), {}, False, "several hold it; say which, or all: 12 (a fine-tune, ann), 13", []),
        ((12, 13), {"hold": 13}, True, "1 ended", [13]),
        ((12,), {"hold": 99}, False, "nothing of the kind is on it", [99]),
        ((12, 13), {"all": True}, True, "4 ended", [None]),
    ],
)
def test_release_ends_the_only_hold_or_the_named_one_or_everything(
    client: Client,
    service: Scripted,
    holds: tuple[int, ...],
    fields: dict[str, Any],
    ok: bool,
    because: str,
    released: list[int | None],
) -> None:
    from labctl.controller.answers import HostStatus

    wishes = (wish(3), wish(4, sleep=True))
    service.statuses["gpu-box"] = HostStatus(
        "gpu-box", Mode.READY, NOON, "", holds=tuple(map(hold, holds)), wishes=wishes
    )
    (answer,) = client.ask(do="release", hosts=["gpu-box"], **fields)
    end = answer["hosts"]["gpu-box"]
    assert (end["ok"], because in end["because"]) == (ok, True), end
    assert [one["hold"] for one in service.called("release")] == released
    forgotten = [ticket for one in service.called("forget") for ticket in one["tickets"]]
    assert [(one.wish, one.wants) for one in forgotten] == (
        [(3, "awake"), (4, "asleep")] if fields.get("all") else []
    )


def test_hold_and_all_exclude_each_other(client: Client) -> None:
    assert "exclude" in client.ask(do="release", hosts=["nas"], hold=1, all=True)[0]["error"]["reason"]


def test_no_host_means_the_whole_rack_for_pause_and_resume(client: Client, service: Scripted) -> None:
    client.ask(do="pause", why="moving")
    client.ask(do="resume")
    client.ask(do="pause", hosts=["nas"], why="fans")
    assert [one["host"] for one in service.called("pause")] == [None, "nas"]
    assert [one["host"] for one in service.called("resume")] == [None]


def test_an_explanation_says_everything_that_is_known(client: Client) -> None:
    (answer,) = client.ask(do="explain", hosts=["gpu-box"])
    (found,) = answer["hosts"]
    assert found["verdict"] == "it stays awake: sessions is busy"
    assert found["readings"][2] == {"signal": "mounts", "busy": None, "because": "showmount is not there"}
    assert found["recent"] == [{"at": NOON - 5, "text": "woken for ann"}]


def test_events_come_as_lines_and_go_on_as_they_happen(client: Client, service: Scripted) -> None:
    service.log = [
        Happening(1, NOON, "nas", "move", "ready"),
        Happening(2, NOON, "gpu-box", "move", "asleep"),
    ]
    *lines, last = client.ask(do="events")
    assert [one["event"] for one in lines] == [1, 2]
    assert last == {"done": True, "after": 2}
    client.say(do="events", most=1, follow=True)
    assert client.hear()["event"] == 2
    service.log += [Happening(3, NOON, "", "note", "paused"), Happening(4, NOON, "nas", "move", "ready")]
    assert client.hear() == {"event": 3, "at": NOON, "host": "", "kind": "note", "text": "paused"}
    assert client.hear()["event"] == 4, "two that come together are two, however few it began with"


def test_a_sleep_test_tells_its_steps_and_can_be_ended(client: Client, service: Scripted) -> None:
    service.steps = [
        Step("gpu-box", 1, 2, "it sleeps"),
        Step("gpu-box", 2, 2, "it will suspend to RAM (deep)", ok=True),
    ]
    first, second, last = client.ask(do="sleep-test", hosts=["gpu-box"], cycles=2)
    assert (first["cycle"], first["of"], first["ok"]) == (1, 2, None)
    assert second["because"] == "it will suspend to RAM (deep)"
    assert last["hosts"]["gpu-box"] == {"ok": True, "because": "it will suspend to RAM (deep)"}
    (ended,) = client.ask(do="sleep-test", hosts=["gpu-box"], stop=True)
    assert ended["hosts"]["gpu-box"]["ok"] is True
    assert service.called("end_test")


def test_while_nothing_happens_a_sign_of_life_comes(path: Path) -> None:
    from labctl.controller.api.verbs import Verbs

    now = iter(range(0, 10_000, 10))
    verbs = Verbs(Scripted(), lambda: float(next(now)))
    items = verbs._listen(iter([None, None, None, None]), lambda wait_s: False)
    assert list(items) == [{"alive": True}, {"alive": True}]
