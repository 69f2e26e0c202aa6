"""A run of ``labctl health --cron`` over files in a folder, with a script of levels and files as receivers.

``ntfy`` shows what it has, as ntfy's server does; ``hook`` can only be written to. Both note each letter that
reaches them in a file, so that what they got outlives whoever sent it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from labctl.adapters.keepsake import Keepsake, replace
from labctl.domain.health.flaps import Policy
from labctl.domain.health.results import Findings, document_of
from labctl.domain.health.terms import Level, Result
from labctl.health import running
from labctl.health.looking import Looked, Memory
from labctl.health.running import Cron
from labctl.health.sending import Way
from labctl.ports.letters import CourierError, Letter

START = 1_800_000_000.0
STEP_S = 300.0


def nothing(_: str) -> None:
    """Be called at each numbered point, and do nothing."""


@dataclass
class Receiver:
    """A courier to a file; ``dead`` is why nothing arrives, ``certain`` whether that is known."""

    file: Path
    shows: bool
    at: Callable[[str], None] = nothing
    dead: str = ""
    certain: bool = True

    def send(self, letter: Letter) -> None:
        self.at("before sending")
        if self.dead:
            raise CourierError(self.dead, certain=self.certain)
        with self.file.open("a") as file:
            file.write(json.dumps([letter.id, letter.level.name, letter.title, letter.text]) + "\n")
        self.at("after sending")

    def has(self, letter_id: str) -> bool:
        return self.shows and letter_id in [number for number, *_ in self.letters]

    @property
    def letters(self) -> list[list[str]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []


@dataclass
class Hears:
    """The other end of the dead man's switch."""

    heard: list[bool] = field(default_factory=list)
    dead: bool = False

    def alive(self, *, failed: bool, text: str) -> None:
        if self.dead:
            raise CourierError("it cannot be reached", certain=True)
        self.heard.append(failed)


@dataclass
class World:
    """A rack of one host, looked at every five minutes."""

    folder: Path
    now: float = START
    at: Callable[[str], None] = nothing
    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    ping: Hears = field(default_factory=Hears)
    least: str = "warn"
    looks: int = 2

    def __post_init__(self) -> None:
        self.ntfy = Receiver(self.folder / "ntfy", shows=True, at=self._at)
        self.hook = Receiver(self.folder / "hook", shows=False, at=self._at)

    def _at(self, where: str) -> None:
        self.at(where)

    def cron(self) -> Cron:
        way = Way(self.ntfy, "crit" if self.least == "crit" else "warn")
        return Cron(
            rack="home",
            policy=Policy(looks=self.looks),
            state=Keepsake(self.folder / "main", self.folder / "spare", "state.json"),
            looks=Keepsake(self.folder / "main", None, "looks.json"),
            publish=self.publish,
            ways={"ntfy": way, "hook": Way(self.hook)},
            ping=(self.ping, True),
            wall=lambda: self.now,
            say=self.said.append,
            warn=self.warned.append,
        )

    def publish(self, found: Findings) -> None:
        replace(self.folder / "main" / "results.json", json.dumps(document_of(found)).encode(), 0o644)

    def run(self, level: Level | None, *, answered: bool = True, step_s: float = STEP_S) -> Level:
        (self.folder / "main").mkdir(exist_ok=True)
        self.now += step_s
        results = (
            () if level is None else (Result("xid", level, "rig", "slot0", f"Xid 79 {level.name}", "reboot"),)
        )
        there = frozenset({"rig"}) if answered else frozenset()
        looked = Looked(self.now, ("rig",), there, results, Memory({"rig": {"at": self.now}}))
        return running.run(self.cron(), lambda before: looked)
