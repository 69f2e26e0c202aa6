"""The shell that commands are fed to, here a local one: whatever they do, each gets its own answer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent import subprocess
from gevent.os import make_nonblocking, nb_read, nb_write

from labctl.domain.failures import HostError
from labctl.provision.worker import session as session_module
from labctl.provision.worker.session import Answer, ConnectionLost, Session


class LocalChannel:
    """What Session uses of an SSH channel, over the pipes of a local process."""

    closed = False

    def exec_command(self, argv: str) -> None:
        self.process = subprocess.Popen(
            argv, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            make_nonblocking(pipe.fileno())

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[nb_write(self.process.stdin.fileno(), view) :]

    def recv(self, size: int) -> bytes:
        return nb_read(self.process.stdout.fileno(), size)

    def recv_stderr(self, size: int) -> bytes:
        return nb_read(self.process.stderr.fileno(), size)

    def shutdown_write(self) -> None:
        self.process.stdin.close()

    def close(self) -> None:
        self.closed = True
        self.process.kill()


class LocalTransport:
    """A transport of which every channel is a local process."""

    def __init__(self) -> None:
        self.channels: list[LocalChannel] = []

    def open_session(self, timeout: float) -> LocalChannel:
        self.channels.append(LocalChannel())
        return self.channels[-1]

    def close(self) -> None:
        for channel in self.channels:
            channel.close()
            with channel.process as process:
                process.wait()


@pytest.fixture
def transport() -> Iterator[LocalTransport]:
    local = LocalTransport()
    yield local
    local.close()


@pytest.fixture(params=["dash", "bash"])
def shell(request: pytest.FixtureRequest, transport: LocalTransport) -> Iterator[Session]:
    path = shutil.which(request.param)
    if path is None:
        pytest.skip(f"there is no {request.param} here")
    started = Session(transport, path, 10.0)  # type: ignore[arg-type]
    yield started
    started.close()


def run(shell: Session, command: str, stdin: bytes | None = None, timeout_s: int = 20) -> Answer:
    return shell.submit(command, timeout_s=timeout_s, stdin=stdin).get(30)


@pytest.mark.parametrize(
    ("command", "stdout", "status"),
    [
        ("printf 'a\\0b\\0'", b"a\0b\0", 0),
        ("printf 'no newline'", b"no newline", 0),
        ("printf 'h\\303\\244\\377'", b"h\xc3\xa4\xff", 0),
        ("sh -c 'exec >&- 2>&-'", b"", 0),
        ("sh -c 'exec echo hi'", b"hi\n", 0),
        ("cat", b"", 0),
        ("sh -c 'exit 124'", b"", 124),
        ("sh -c 'kill -TERM 0'", b"", 143),
        ("sh -c 'head -c 3000000 /dev/zero | tr \"\\0\" x'", b"x" * 3_000_000, 0),
        ("printf '\\nlabctl:0123456789abcdef:1 0\\n'", b"\nlabctl:0123456789abcdef:1 0\n", 0),
    ],
)
def test_whatever_a_command_prints_or_does_its_answer_is_whole_and_the_next_one_too(
    shell: Session, command: str, stdout: bytes, status: int
) -> None:
    asked = [shell.submit(text, timeout_s=20) for text in (command, "echo next")]
    first, then = (one.get(30) for one in asked)
    assert (first.stdout, first.status) == (stdout, status)
    assert (then.stdout, then.stderr, then.status) == (b"next\n", b"", 0)


def test_a_command_gets_exactly_the_bytes_that_are_meant_for_it(shell: Session) -> None:
    data = bytes(range(256)) * 4000
    assert run(shell, "cat", data).stdout == data
    assert run(shell, "cat", b"").stdout == b""
    assert run(shell, "true", data).status == 0, "one that reads nothing"
    assert run(shell, "echo on").stdout == b"on\n"


def test_nothing_of_a_command_is_left_to_the_next(shell: Session) -> None:
    before = run(shell, "sh -c 'pwd; umask; echo [$LEFT]'").stdout
    run(shell, "sh -c 'cd /tmp; umask 0; export LEFT=this'")
    assert run(shell, "sh -c 'pwd; umask; echo [$LEFT]'").stdout == before


def test_what_a_broken_connection_cuts_off_does_not_run(
    shell: Session, transport: LocalTransport, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    whole.write_text("old")
    sent: list[bytes] = []
    (channel,) = transport.channels
    channel.sendall = sent.append  # type: ignore[method-assign]
    asked = shell.submit(f"tee {whole}", timeout_s=20, stdin=b"new" * 100_000)
    while not sent:
        gevent.sleep(0)
    LocalChannel.sendall(channel, sent[0])
    assert not sent[0].endswith(b"}\n"), "this is not only a part"
    channel.shutdown_write()
    with pytest.raises(ConnectionLost):
        asked.get(20)
    channel.process.wait()
    assert whole.read_text() == "old"


def test_what_is_hidden_is_in_no_process_list(shell: Session) -> None:
    command = """sh -c 'c=$LABCTL_COMMAND; unset LABCTL_COMMAND; eval "$c"'"""
    script = "word='it'\\''s secret'; cat /proc/$$/cmdline /proc/$PPID/cmdline; env; echo ${#word}"
    answer = shell.submit(command, timeout_s=20, hidden=script).get(20)
    assert answer.stdout.endswith(b"\n11\n")
    assert b"secret" not in answer.stdout


def test_a_deadline_ends_the_command_and_not_the_shell(shell: Session) -> None:
    answer = run(shell, "sleep 30", timeout_s=1)
    assert answer.status == 124
    assert 0.9 < answer.seconds < 10
    assert run(shell, "echo on").stdout == b"on\n"


def test_a_command_that_waits_for_its_turn_loses_no_time(shell: Session) -> None:
    first = shell.submit("sleep 1", timeout_s=20)
    second = shell.submit("echo on", timeout_s=20)
    assert second.get(0.5).stdout == b"on\n"
    assert first.get(1).seconds > 0.9 > second.get(1).seconds


def test_a_shell_that_is_stuck_can_be_given_up(shell: Session) -> None:
    stuck, behind = (shell.submit("sleep 30", timeout_s=60) for _ in range(2))
    with pytest.raises(TimeoutError):
        stuck.get(0.2)
    shell.give_up("it hangs")
    with pytest.raises(ConnectionLost, match="it hangs"):
        behind.get(5)


def test_of_endless_output_only_a_part_is_kept_and_the_answer_says_so(
    shell: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "MOST_OUTPUT", 100_000)
    answer = run(shell, "head -c 5000000 /dev/zero")
    assert answer.cut and len(answer.stdout) < 300_000
    assert not run(shell, "echo on").cut


def test_what_a_log_in_shell_prints_first_belongs_to_no_command(transport: LocalTransport) -> None:
    started = Session(transport, "echo welcome; echo motd >&2; exec sh", 10.0)  # type: ignore[arg-type]
    assert run(started, "echo mine").stdout == b"mine\n"
    started.close()


@pytest.mark.parametrize(
    ("argv", "within_s", "words"),
    [
        ("echo no shells here; exit 1", 30.0, "no shells here"),
        ("exit 1", 30.0, "ended"),
        ("sleep 30", 1.0, "no answer within 1"),
    ],
)
def test_where_no_shell_starts_the_reason_is_told(
    transport: LocalTransport, argv: str, within_s: float, words: str
) -> None:
    with pytest.raises(HostError, match=words) as raised:
        Session(transport, argv, within_s)  # type: ignore[arg-type]
    assert raised.value.failure.code == "no-shell"
