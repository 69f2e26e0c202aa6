"""Talk with a program on this machine over a unix socket: the port ``Conversation`` without SSH.

The same rule of silence as over SSH: a side that hears nothing for ``SILENCE_S`` gives the other up.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from labctl.domain.failures import Failure, HostError

SILENCE_S = 60.0
_CONNECT_S = 5.0
_LONGEST_LINE = 4 * 1024 * 1024
_CHUNK = 65536


class LocalConversation:
    """A conversation with whoever listens on a socket."""

    peer = "127.0.0.1"

    def __init__(self, path: Path, silence_s: float = SILENCE_S) -> None:
        """Connect; a side that says nothing for ``silence_s`` is given up.

        Raises:
            OSError: nobody listens there, or this user may not knock.
        """
        self._guard = threading.Lock()
        self._sock = dial(path)
        self._silence_s = silence_s
        self._sock.settimeout(silence_s)

    def send(self, data: bytes) -> None:
        """Let the other side read ``data``; see ``ports.Conversation``."""
        try:
            with self._guard:
                self._sock.sendall(data)
        except OSError as error:
            raise _lost(error) from None

    def finish(self) -> None:
        """Say that nothing more will be said; what the other side still says can be read."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise _lost(error) from None

    def lines(self) -> Iterator[bytes]:
        """Yield what the other side says; see ``ports.Conversation``."""
        rest = bytearray()
        while True:
            try:
                data = self._sock.recv(_CHUNK)
            except TimeoutError:
                reason = f"it said nothing for {self._silence_s:.0f} s"
                raise HostError(Failure("frozen", reason, "is it overloaded or stopped?")) from None
            except OSError as error:
                raise _lost(error) from None
            if not data:
                return
            *whole, last = (rest + data).split(b"\n")
            rest = bytearray(last)
            yield from map(bytes, whole)
            if len(rest) > _LONGEST_LINE:
                raise HostError(Failure("op-failed", "it said a line without an end and was cut off"))

    def close(self) -> None:
        """Hang up; whoever waits for a line gets none."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


def dial(path: Path) -> socket.socket:
    """Return a connection without a deadline; raise ``OSError`` where nobody listens."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_CONNECT_S)
        sock.connect(str(path))
        sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return sock


def _lost(error: OSError) -> HostError:
    return HostError(Failure("connection-lost", f"the connection ended ({error.strerror or error})"))
