"""A ``Remote`` without a network: each host plays what a test says, with the failures of the real one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labctl.domain.failures import Failure, HostError
from labctl.ports import Said

OFF = Failure("timeout", "10.0.0.9:22 did not answer within 10 s", "is it switched on?", unreachable=True)
LOST = Failure("connection-lost", "the connection ended before the answer")

Play = Callable[["Asked"], Said]


@dataclass(frozen=True)
class Asked:
    """One call: who was asked what."""

    host: str
    argv: tuple[str, ...]
    root: bool
    stdin: bytes

    @property
    def order(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stdin)
        return found


def says(document: object, status: int = 0) -> Play:
    return lambda asked: Said(status, json.dumps(document).encode() + b"\n", "")


def fails(failure: Failure) -> Play:
    def play(asked: Asked) -> Said:
        raise HostError(failure)

    return play


@dataclass
class Scripted:
    """Plays hosts; ``asked`` keeps every call. A host without a play is switched off."""

    plays: Mapping[str, Play] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

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
        call = Asked(host, tuple(argv), root, stdin)
        self.asked.append(call)
        return self.plays.get(host, fails(OFF))(call)

    def stop(self) -> None:
        self.stopped.set()

    def waits(self, asked: Asked) -> Said:
        """Play a host that answers only when it is given up."""
        assert self.stopped.wait(10)
        raise HostError(Failure("interrupted", "it was asked, and its answer not awaited"))
