"""The client: over a unix socket, over SSH by way of ``labctl controller connect``, and what may go wrong."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from labctl.adapters.local_socket import LocalConversation
from labctl.controller.answers import Change
from labctl.controller.api.client import Controller, ControllerError
from labctl.controller.api.connect import connect
from labctl.domain.failures import Failure, HostError
from labctl.domain.problem import ExitCode
from labctl.domain.sleep.lifecycle import Mode

from scripted_service import STALLED, Scripted, refuses, serving  # isort: skip

PATIENCE_S = 20


class Piped:
    """The port ``Conversation`` over the real ``labctl controller connect``, as sshd would start it."""

    peer = "10.0.0.2"

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "labctl.cli.main", "controller", "connect"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"LABCTL_CONTROLLER": str(path)},
        )

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def finish(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def lines(self) -> Iterator[bytes]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield line.rstrip(b"\n")

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(PATIENCE_S) == 0


class Played:
    """A conversation whose other side says these lines and then fails so, or ends."""

    peer = ""

    def __init__(self, *said: bytes, fails: Failure | None = None) -> None:
        self.said = said
        self.fails = fails
        self.sent: list[bytes] = []
        self.closed = False

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def finish(self) -> None:
        raise AssertionError("nobody finishes")

    def lines(self) -> Iterator[bytes]:
        yield from self.said
        if self.fails is not None:
            raise HostError(self.fails)

    def close(self) -> None:
        self.closed = True


HELLO = b'{"v":1,"rack":"desk","labctl":"0.1"}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "controller.sock"


def test_over_a_socket_requests_go_one_after_the_other(path: Path) -> None:
    service = Scripted(changes=[Change("nas", Mode.READY, "it serves", None, True)])
    with serving(path, service), Controller(LocalConversation(path), "ann\x1b@desk") as controller:
        assert (controller.rack, controller.version) == ("desk", "0.1")
        assert [one["host"] for one in controller.tell("status")["hosts"]] == ["gpu-box", "nas"]
        news, last = controller.ask("wake", hosts=["nas"])
        assert (news["mode"], last["hosts"]["nas"]["ok"]) == ("ready", True)
    assert service.called("wake")[0]["by"] == "ann@desk".replace("\x1b", "")


def test_over_ssh_the_same_bytes_go_through_connect(path: Path) -> None:
    service = Scripted(changes=[Change("nas", Mode.READY, "it serves", None, True)])

    class Talking:
        """The port ``Talker``, which notes what it is asked to start."""

        started: list[tuple[str, tuple[str, ...], bool]]

        def talk(self, host: str, data: Mapping[str, Any], argv: Sequence[str], *, root: bool) -> Piped:
            self.started = [(host, tuple(argv), root)]
            return Piped(path)

    with serving(path, service):
        with Controller(
            Talking().talk("nas", {}, ("labctl", "controller", "connect"), root=True), "ann"
        ) as it:
            assert it.tell("status")["done"] is True
            with pytest.raises(ControllerError, match="has no host gpu-bux"):
                it.tell("explain", hosts=["gpu-bux"])
            *_, last = it.ask("wake", hosts=["nas"])
            assert last["hosts"]["nas"]["ok"] is True


def test_connect_ends_when_the_one_who_came_hangs_up_although_the_controller_goes_on(path: Path) -> None:
    service = Scripted(changes=[Change("nas", Mode.WAKING, "a packet was sent"), STALLED])
    with serving(path, service):
        conversation = Piped(path)
        controller = Controller(conversation, "ann")
        news = controller.ask("wake", hosts=["nas"])
        assert next(news)["mode"] == "waking"
        controller.close()  # waits for its process
        assert service.closed.wait(PATIENCE_S)


def test_connect_without_a_controller_says_so_in_the_protocol(path: Path) -> None:
    with pytest.raises(ControllerError, match="no controller can be reached at") as caught:
        Controller(Piped(path), "ann")
    assert caught.value.code is ExitCode.UNREACHABLE


@pytest.mark.parametrize("place", ["x" * 150, "a-file/socket"])
def test_connect_at_a_place_that_cannot_be_one_says_so_too(path: Path, place: str) -> None:
    (path.parent / "a-file").touch()
    with pytest.raises(ControllerError, match="no controller can be reached at"):
        Controller(Piped(path.parent / place), "ann")


def test_connect_hands_on_the_last_word_of_a_controller_that_hears_no_more() -> None:
    near, far = socket.socketpair()
    (typed, typing), (shown, showing) = os.pipe(), os.pipe()
    with near, far:
        near.send(b"what it will not read")
        far.send(b"too long\n")
        os.write(typing, b"more")
        far.close()
        connect(near, typed, showing)
    os.close(showing)
    assert os.read(shown, 99) == b"too long\n"
    for descriptor in (typed, typing, shown):
        os.close(descriptor)


def test_connect_carries_all_that_was_said_before_the_end_of_input(path: Path) -> None:
    with serving(path, Scripted()):
        done = subprocess.run(
            [sys.executable, "-m", "labctl.cli.main", "controller", "connect"],
            input=b'{"v":1,"do":"resume"}\n' * 50,
            capture_output=True,
            env=os.environ | {"LABCTL_CONTROLLER": str(path)},
            timeout=PATIENCE_S,
            check=True,
        )
    assert done.stdout.count(b'"done":true') == 50


@pytest.mark.parametrize(
    ("conversation", "reason", "code"),
    [
        (Played(), "it hung up", ExitCode.UNREACHABLE),
        (
            Played(fails=Failure("frozen", "it said nothing for 60 s")),
            "nothing for 60 s",
            ExitCode.UNREACHABLE,
        ),
        (Played(b"Welcome to Debian"), "something else than an answer", ExitCode.UNREACHABLE),
        (Played(b"[" * 50_000), "something else than an answer", ExitCode.UNREACHABLE),
        (Played(b'{"v":2}'), "speaks version 2 of the protocol, this labctl 1", ExitCode.BAD_INPUT),
        (Played(b'{"error":{"code":"busy","reason":"64 clients"}}'), "64 clients", ExitCode.HOST_FAILED),
        (Played(b'{"error":{}}'), "the controller refuses", ExitCode.HOST_FAILED),
    ],
)
def test_whatever_is_no_greeting_is_an_error_in_words_and_the_connection_is_closed(
    conversation: Played, reason: str, code: ExitCode
) -> None:
    with pytest.raises(ControllerError, match=reason) as caught:
        Controller(conversation, "ann")
    assert (caught.value.code, conversation.closed) == (code, True)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ((), "it hung up"),
        ((b'{"host":"nas"}',), "it hung up"),
        ((b"{",), "something else than an answer"),
        ((b'{"error":{"code":"refused","reason":"no"}}',), "no"),
    ],
)
def test_an_answer_that_breaks_off_is_an_error(said: tuple[bytes, ...], reason: str) -> None:
    with Controller(Played(HELLO, *said), "ann") as controller:
        with pytest.raises(ControllerError, match=reason):
            controller.tell("status")


def test_signs_of_life_are_not_for_the_asker() -> None:
    with Controller(Played(HELLO, b'{"alive":true}', b'{"done":true}'), "ann") as controller:
        assert list(controller.ask("status")) == [{"done": True}]


def test_a_refusal_keeps_the_connection(path: Path) -> None:
    service = Scripted(raises=refuses("not now"))
    with serving(path, service), Controller(LocalConversation(path), "ann") as controller:
        with pytest.raises(ControllerError, match="not now"):
            controller.tell("status")
        service.raises = None
        assert controller.tell("status")["done"] is True


def test_a_local_side_that_breaks_off_is_said(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    conversation = LocalConversation(path)
    other, _ = listener.accept()
    other.sendall(HELLO + b"\n")
    controller = Controller(conversation, "ann")
    other.close()
    listener.close()
    with pytest.raises(ControllerError, match="the controller does not answer"):
        controller.tell("status")
    conversation.close()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("unknown-verb", '"do" must name a verb'),
        ("bad-field", "events has a field that it does not know"),
    ],
)
def test_a_controller_that_is_older_is_to_be_brought_up_to_date(code: str, reason: str) -> None:
    refusal = {"error": {"code": code, "reason": reason, "hint": "the verbs: wake, status"}}
    client = Controller(Played(HELLO, json.dumps(refusal).encode()), "ann")
    with pytest.raises(ControllerError) as caught:
        client.tell("energy")
    assert caught.value.problems[0].hint == (
        "the controller is older than this labctl: labctl apply brings it up to date"
    )
