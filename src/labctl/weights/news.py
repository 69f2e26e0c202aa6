"""What a pull is asked for, what it tells while it goes, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from labctl.domain.failures import Failure
from labctl.domain.fanout import Board
from labctl.domain.outcome import Status
from labctl.weights.places import File


@dataclass(frozen=True, slots=True)
class Moved:
    """A file grows on a host, or is hashed there; ``supplier`` is "" while it is downloaded."""

    host: str
    file: str
    there: int
    size: int | None
    supplier: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """A host has a file, or can't have it, and why."""

    host: str
    file: str
    has: bool
    reason: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that a person may want to know: a supplier that failed, a mirror that lies."""

    host: str
    text: str


News = Moved | Ended | Noted


@dataclass(frozen=True, slots=True)
class Wish:
    """What to bring. ``source``: the one host that it shall come from. ``tokens``: by the model's id."""

    files: tuple[File, ...]
    source: str | None = None
    tokens: Mapping[str, str] = field(default_factory=dict)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return the hosts that shall have something, in order."""
        return tuple(dict.fromkeys(host for file in self.files for host in file.hosts))


@dataclass
class Result:
    """How it ended: the copies of each file by host, what each host sent, and who was lost and why."""

    board: Board
    hosts: tuple[str, ...]
    sent: dict[str, int] = field(default_factory=dict)
    lost: dict[str, Failure] = field(default_factory=dict)
    came: int = 0
    interrupted: bool = False

    def status(self, host: str) -> Status:
        """Return how it ended for a host that should have something."""
        states = [copies[host].state for copies in self.board.files.values() if host in copies]
        if "failed" in states:
            return "failed"
        if all(state == "has" for state in states) and (states or host not in self.lost):
            return "ok"
        if host in self.lost:
            return "unreachable" if self.lost[host].unreachable else "failed"
        return "interrupted"

    def reasons(self, host: str) -> Iterator[str]:
        """Yield why a host lacks something."""
        if host in self.lost:
            yield self.lost[host].reason
        for copies in self.board.files.values():
            if host in copies and copies[host].state == "failed":
                yield copies[host].reason
