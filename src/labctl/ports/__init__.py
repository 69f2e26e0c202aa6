"""Protocols of the side effects, so that whoever decides never imports whoever acts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol


class Clock(Protocol):
    """What time it is, in the two senses that matter."""

    def now(self) -> datetime:
        """Return the wall clock time, aware of its zone."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; never goes back."""
        ...


@dataclass(frozen=True, slots=True)
class Said:
    """What a command on a host left behind: its exit status (-1: a signal ended it) and what it printed.

    ``seconds``: how long the whole call took, connection included.
    """

    status: int
    stdout: bytes
    stderr: str
    seconds: float = field(default=0.0, compare=False)


class Remote(Protocol):
    """Runs commands on hosts, from as many threads as the caller likes; no two calls share a connection."""

    def run(
        self,
        host: str,
        data: Mapping[str, Any],
        argv: Sequence[str],
        *,
        root: bool,
        stdin: bytes,
        deadline_s: float,
    ) -> Said:
        """Run ``argv`` on a host and return what it said, whatever its exit status.

        Args:
            host: its name, for errors.
            data: its connection data, as ``LoadedRack.host_data`` holds them.
            argv: the command, word by word; no shell reads meaning into them.
            root: whether root runs it.
            stdin: what the command reads; then its input ends.
            deadline_s: seconds for all of it, connection included.

        Raises:
            HostError: there is no answer; the failure says why, and is ``unreachable`` if nothing was sent.
        """
        ...

    def stop(self) -> None:
        """Close every connection; whoever waits for an answer gets a ``HostError`` soon, now and later."""
        ...


class Conversation(Protocol):
    """A program that runs on a host for as long as we talk with it; one thread reads, any may send."""

    peer: str
    """The host's IP address, as it was reached."""

    def send(self, data: bytes) -> None:
        """Let the program read ``data``.

        Raises:
            HostError: the connection is gone.
        """
        ...

    def finish(self) -> None:
        """End the program's input; what it still says can be read.

        Raises:
            HostError: the connection is gone.
        """
        ...

    def lines(self) -> Iterator[bytes]:
        """Yield what the program says, without the newlines, until it ends well.

        Raises:
            HostError: it ended badly, fell silent, or the connection broke.
        """
        ...

    def close(self) -> None:
        """End the connection and with it the program; harmless when done twice."""
        ...


class Talker(Protocol):
    """Starts programs on hosts and talks with them, from as many threads as the caller likes."""

    def talk(self, host: str, data: Mapping[str, Any], argv: Sequence[str], *, root: bool) -> Conversation:
        """Start ``argv`` on a host.

        Args:
            host: its name, for errors.
            data: its connection data, as ``LoadedRack.host_data`` holds them.
            argv: the command, word by word; no shell reads meaning into them.
            root: whether root runs it.

        Raises:
            HostError: it could not be started; nothing was done.
        """
        ...

    def stop(self) -> None:
        """Close every connection, now and later."""
        ...


class Ranges(Protocol):
    """A file of which single pieces can be read, wherever it lies."""

    @property
    def name(self) -> str:
        """Return what to call it in errors; no secret is in it."""
        ...

    @property
    def size(self) -> int:
        """Return its length in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``; fewer only at the end of the file.

        Raises:
            LabctlError: it cannot be read; says why.
        """
        ...
