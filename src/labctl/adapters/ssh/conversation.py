"""A program on a host that is told things by its input and tells things by its output, line by line.

Whoever talks must say something now and then, and so must the program: a side that hears nothing for
``SILENCE_S`` gives the other up. So no program outlives a laptop that lost its network, and no run waits for
a host that froze.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import paramiko

from labctl.adapters.ssh.connection import Connection, ended
from labctl.domain import failures
from labctl.domain.failures import Failure, HostError

SILENCE_S = 60.0
_LONGEST_LINE = 4 * 1024 * 1024
_MOST_STDERR = 64 * 1024
_CHUNK = 65536
_QUOTED = 300


class SshConversation:
    """The port ``Conversation`` over one session of a connection."""

    def __init__(self, connection: Connection, command: str, closed: Callable[[], None]) -> None:
        self._connection = connection
        self._closed = closed
        self._guard = threading.Lock()
        self._errors = bytearray()
        self.peer = str(connection.sockets[-1].getpeername()[0]).removeprefix("::ffff:")
        self._channel = connection.session()
        self._channel.settimeout(SILENCE_S)
        self._channel.exec_command(command)

    def send(self, data: bytes) -> None:
        """Let the program read ``data``; see ``ports.Conversation``."""
        try:
            with self._guard:
                self._channel.sendall(data)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise HostError(_lost(str(error))) from None

    def finish(self) -> None:
        """End the program's input; what it still says can be read."""
        try:
            self._channel.shutdown_write()
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise HostError(_lost(str(error))) from None

    def lines(self) -> Iterator[bytes]:
        """Yield what the program says; see ``ports.Conversation``."""
        rest = bytearray()
        try:
            while data := self._channel.recv(_CHUNK):
                self._hear_errors()
                rest += data
                *whole, last = rest.split(b"\n")
                rest = bytearray(last)
                yield from map(bytes, whole)
                if len(rest) > _LONGEST_LINE:
                    raise HostError(Failure("op-failed", "it said a line without an end and was cut off"))
            self._hear_errors()
            if not self._channel.status_event.wait(SILENCE_S):
                raise TimeoutError
        except TimeoutError:
            reason = f"it said nothing for {SILENCE_S:.0f} s"
            raise HostError(Failure("frozen", reason, "is it overloaded or asleep?")) from None
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise HostError(_lost(str(error))) from None
        self._judge()

    def _hear_errors(self) -> None:
        while self._channel.recv_stderr_ready():
            self._errors += self._channel.recv_stderr(_CHUNK)
            del self._errors[_MOST_STDERR:]

    def _judge(self) -> None:
        status = self._channel.exit_status
        if status == 0:
            return
        if status == -1 and not ended(self._channel):
            raise HostError(_lost(""))
        text = self._errors.decode("utf-8", "replace")
        known = failures.of_output(text)
        if known is not None:
            raise HostError(known)
        said = " ".join(text.split())[-_QUOTED:] or f"it ended with exit status {status}"
        raise HostError(Failure("op-failed", f"labctl's program ended there: {said}"))

    def close(self) -> None:
        """End the connection and with it the program."""
        self._closed()
        self._connection.close()


def _lost(why: str) -> Failure:
    told = f" ({why})" if why else ""
    return Failure("connection-lost", f"the connection ended{told}", "run it again; it resumes")
