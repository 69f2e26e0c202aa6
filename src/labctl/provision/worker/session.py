"""A persistent shell on a host: one SSH channel, commands by stdin, answers told apart by random markers.

Opening a channel and a sudo for every command costs more than most commands do, so one shell is started per
host and user and is fed scripts. Commands are pipelined: whoever waits for an answer only waits for it, and
the facts of all operations of a host travel in a few packets. What changes something runs under coreutils
``timeout``, so that a deadline ends it on the host as well, never only our waiting for it; the questions of
facts save themselves that process. stdin of a command is /dev/null or the given bytes; they come base64 in a
here-document and so never show in a process list.

When the connection dies, every waiting command learns it at once. A host that is silent for half of
``patience_s`` although it owes an answer is asked for a sign of life (an SSH global request, answered by
sshd itself, whatever the command does); none within ``patience_s`` means frozen or cut off. While bytes
move, in either direction, nothing is missing: on a slow line a sign of life stands in the queue behind them.

A connection may end anywhere in what we send. Whatever was cut off must not run, so all that could be longer
than one packet is a ``{ ...; }``, which the shell does not begin before it has seen its end.
"""

from __future__ import annotations

import base64
import re
import secrets
import shlex
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import gevent
import paramiko
from gevent.event import AsyncResult, Event

from labctl.domain.failures import Failure, HostError

KILL_AFTER_S = 5
_CHUNK = 65536
_LAST_WORDS_S = 1.0
# A command that prints more has gone wrong, and the worker has other hosts to serve.
MOST_OUTPUT = 64 * 1024 * 1024
# A command outlives the connection that started it: half an apt run is worse than one that nobody watches.
_HELLO = "trap '' HUP; printf '\\n%s %d %d\\n' {marker} 0 $$; printf '\\n%s\\n' {marker} >&2\n"


class ConnectionLost(OSError):
    """The host stopped answering in the middle; what its last command did is unknown."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command left behind; ``seconds``: how long it took, ``cut``: it printed more than is kept."""

    status: int
    stdout: bytes
    stderr: bytes
    seconds: float = 0.0
    cut: bool = False


@dataclass(slots=True)
class Asked:
    """A command that was sent, and its answer to come."""

    marker: bytes
    answer: AsyncResult = field(default_factory=AsyncResult)
    stdout: bytes | None = None
    stderr: bytes | None = None
    status: int = -1
    extra: bytes = b""
    began: float | None = None
    cut: bool = False

    def get(self, limit_s: float) -> Answer:
        """Wait for the answer; its time begins when it is this command's turn, not in the queue.

        Raises:
            TimeoutError: there is none ``limit_s`` seconds after its turn came.
            ConnectionLost: the host went away first.
        """
        while not self.answer.ready():
            left = limit_s if self.began is None else limit_s - (time.monotonic() - self.began)
            if left <= 0:
                raise TimeoutError
            self.answer.wait(left)
        answer: Answer = self.answer.get()
        return answer

    def settle(self) -> bool:
        """Hand out the answer if it is complete, and return whether it is."""
        if self.stdout is None or self.stderr is None:
            return False
        seconds = time.monotonic() - (self.began or time.monotonic())
        self.answer.set(Answer(self.status, self.stdout, self.stderr, seconds, self.cut))
        return True


class Session:
    """A shell of one user on one host; ``pid`` is the shell's process id there."""

    def __init__(self, transport: paramiko.Transport, argv: str, patience_s: float) -> None:
        """Start ``argv``, a shell that reads commands from stdin; raise ``HostError`` if it fails."""
        self._transport = transport
        self._patience_s = patience_s
        self._token = secrets.token_hex(8)
        self._count = 0
        self._pending: deque[Asked] = deque()
        self._outgoing: list[bytes] = []
        self._wake = Event()
        self._lost: BaseException | None = None
        self._tail = b""
        self._moved = 0
        self._channel = start(transport, argv, patience_s)
        self._greenlets = [
            gevent.spawn(self._write),
            gevent.spawn(self._read, self._channel.recv, "stdout"),
            gevent.spawn(self._read, self._channel.recv_stderr, "stderr"),
            gevent.spawn(self._watch),
        ]
        self.pid = self._greet()

    def _greet(self) -> int:
        pending = self._enqueue(lambda marker: _HELLO.format(marker=marker.decode()).encode())
        try:
            pending.answer.get(timeout=self._patience_s)
        except (gevent.Timeout, OSError) as error:
            if not isinstance(error, gevent.Timeout):  # what could not be sent may have been answered before
                gevent.joinall(self._greenlets[1:3], timeout=_LAST_WORDS_S)
            self.close()
            said = self._tail.decode("utf-8", "replace").strip()
            silence = (
                f"no answer within {self._patience_s:g} s; does sudo or the log-in shell wait for something?"
            )
            what = said or (silence if isinstance(error, gevent.Timeout) else "it ended without a word")
            hint = "labctl needs a log-in that may run commands: try ssh USER@HOST sudo -n sh -c id"
            raise HostError(Failure("no-shell", f"no shell could be started there: {what}", hint)) from None
        return int(pending.extra)

    @property
    def alive(self) -> bool:
        """Whether commands can still be sent."""
        return self._lost is None and not self._channel.closed

    def ask(self, question: str) -> Asked:
        """Queue ``question``, text for sh that changes nothing, and return where its ``Answer`` will appear.

        It runs in a subshell, which saves the host two processes: a plan is made of questions. Its deadline
        is the caller's, who may ``give_up``.
        """

        def frame(marker: bytes) -> bytes:
            return f"(eval {shlex.quote(question)}) </dev/null\n".encode() + _end(marker)

        return self._enqueue(frame)

    def submit(self, command: str, *, timeout_s: int, stdin: bytes | None = None, hidden: str = "") -> Asked:
        """Queue ``command``, a simple command as shell text, and return where its ``Answer`` will appear.

        It finds ``hidden`` in its environment as LABCTL_COMMAND, which no other user of the host can read.
        Exit status 124 or 137 after ``timeout_s`` means that the command was ended by its deadline.
        """

        def frame(marker: bytes) -> bytes:
            secret = f"LABCTL_COMMAND={shlex.quote(hidden)} " if hidden else ""
            run = f"{secret}timeout -k {KILL_AFTER_S} {timeout_s} {command}".encode()
            end = _end(marker)
            if stdin is None:
                return b"{ " + run + b"\n} </dev/null\n" + end
            body = base64.encodebytes(stdin)
            return b"".join((b"{ base64 -d <<'", marker, b"' | ", run, b"\n", body, marker, b"\n}\n", end))

        return self._enqueue(frame)

    def _enqueue(self, frame: Callable[[bytes], bytes]) -> Asked:
        self._count += 1
        asked = Asked(f"labctl:{self._token}:{self._count}".encode())
        if self._lost is not None:
            asked.answer.set_exception(self._lost)
            return asked
        self._pending.append(asked)
        self._pending[0].began = self._pending[0].began or time.monotonic()
        self._outgoing.append(frame(asked.marker))
        self._wake.set()
        return asked

    def _write(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            data, self._outgoing = memoryview(b"".join(self._outgoing)), []
            try:
                # In pieces: paramiko copies all that is left for each packet that it sends.
                for start in range(0, len(data), _CHUNK):
                    self._channel.sendall(bytes(data[start : start + _CHUNK]))
                    self._moved += 1
            except (OSError, paramiko.SSHException, EOFError) as error:
                self._lose(ConnectionLost(f"the connection was lost: {error or 'closed'}"))
                return

    def _read(self, receive: Callable[[int], bytes], stream: str) -> None:
        data = bytearray()
        ending = re.compile(rb"\n(labctl:" + self._token.encode() + rb":\d+)( -?\d+)?( \d+)?\n")
        while True:
            try:
                chunk = receive(_CHUNK)
            except (OSError, paramiko.SSHException, EOFError):
                chunk = b""
            if not chunk:
                self._tail = self._tail or bytes(data[-2000:])
                gevent.sleep(0)
                self._lose(ConnectionLost("the connection was lost"))
                return
            data += chunk
            self._moved += 1
            start = max(0, len(data) - len(chunk) - 80)
            while found := ending.search(data, start):
                self._deliver(stream, found, bytes(data[: found.start()]))
                del data[: found.end()]
                start = 0
            if len(data) > MOST_OUTPUT:
                del data[: len(data) - MOST_OUTPUT // 2]
                if self._pending:
                    self._pending[0].cut = True

    def _deliver(self, stream: str, found: re.Match[bytes], output: bytes) -> None:
        pending = next((asked for asked in self._pending if asked.marker == found[1]), None)
        if pending is None:  # nobody waits any more: the session was closed
            return
        if stream == "stdout":
            pending.stdout, pending.status = output, int(found[2] or b"-1")
            pending.extra = (found[3] or b"").strip()
        else:
            pending.stderr = output
        while self._pending and self._pending[0].settle():
            self._pending.popleft()
            if self._pending:
                self._pending[0].began = time.monotonic()

    def _watch(self) -> None:
        owing: Asked | None = None
        moved = self._moved
        while self._lost is None:
            gevent.sleep(self._patience_s / 2)
            first = self._pending[0] if self._pending else None
            still = first is not None and first is owing and moved == self._moved
            if still and not answers(self._transport, self._patience_s) and moved == self._moved:
                self._lose(
                    ConnectionLost(
                        f"it gave no sign of life for {self._patience_s * 1.5:g} s:"
                        " frozen, or cut off from the network"
                    )
                )
                self._transport.close()
                return
            owing, moved = first, self._moved

    def _lose(self, error: BaseException) -> None:
        if self._lost is None:
            self._lost = error
        while self._pending:
            self._pending.popleft().answer.set_exception(self._lost)

    def give_up(self, reason: str) -> None:
        """Fail all that waits: the shell is stuck in a command that cannot be ended."""
        self._lose(ConnectionLost(reason))

    def finish(self) -> None:
        """Let the shell end by itself after the commands that it has; nothing can be sent afterwards."""
        self._lost = self._lost or ConnectionLost("the session was ended")
        try:
            self._channel.shutdown_write()
        except (OSError, EOFError, paramiko.SSHException):
            self._channel.close()

    def close(self) -> None:
        """Close the channel and stop reading; waiting commands fail."""
        self._lose(ConnectionLost("the session was closed"))
        self._channel.close()
        gevent.killall([g for g in self._greenlets if g is not gevent.getcurrent()], block=False)


def _end(marker: bytes) -> bytes:
    return b"printf '\\n%s %d\\n' " + marker + b" $?; printf '\\n%s\\n' " + marker + b" >&2\n"


def start(transport: paramiko.Transport, argv: str, within_s: float) -> paramiko.Channel:
    """Return a channel on which ``argv`` was started; raise ``OSError`` or ``SSHException`` if it was not."""
    # paramiko waits without end for the word that a command was started.
    with gevent.Timeout(within_s, TimeoutError(f"no answer within {within_s:g} s")):
        channel = transport.open_session(timeout=within_s)
        channel.exec_command(argv)
    return channel


def answers(transport: paramiko.Transport, within_s: float) -> bool:
    """Return whether sshd answers a harmless global request in time."""
    try:
        with gevent.Timeout(within_s):
            transport.global_request("keepalive@openssh.com", wait=True)
    except gevent.Timeout:
        return False
    return transport.is_active()
