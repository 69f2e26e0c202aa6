"""What the controller says of hosts, for commands that ask the hosts themselves: who sleeps, is held, paused.

Asking the controller wakes nobody, and who sleeps by its word is not asked. A controller that cannot be
reached costs a warning, and the hosts are asked as without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labctl.cli import asking, printer
from labctl.cli.asking import Aim, text
from labctl.domain.problem import LabctlError, Problem

ASLEEP = frozenset({"asleep", "suspending"})


@dataclass(frozen=True, slots=True)
class Modes:
    """The controller's rows by host; ``known`` is False without a controller that answers."""

    known: bool = False
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    paused: str = ""
    away: str = ""

    def of(self, host: str) -> str:
        """Return a host's mode, or nothing."""
        return text(self.rows.get(host, {}).get("mode"))

    def sleeps(self, host: str) -> bool:
        """Return whether a host is asleep, or about to be."""
        return self.of(host) in ASLEEP

    def remarks(self, host: str) -> list[str]:
        """Return what a person should know of a host's sleep."""
        from labctl.cli.controller import remarks

        return remarks(self.rows[host], rack_paused=self.paused) if host in self.rows else []


def known(aim: Aim) -> Modes:
    """Return what the controller says; nothing where the rack has none."""
    if aim.loaded is None or aim.loaded.rack.controller is None:
        return Modes()
    try:
        with asking.controller(aim) as controller:
            said = controller.tell("status")
    except LabctlError as error:
        first = error.problems[0]
        problem = Problem(f"which hosts sleep is not known: {first.reason}", first.hint)
        printer.show_problems([problem], severity="warning")
        return Modes(away=text(first.reason))
    rows = {text(one.get("host")): one for one in asking.objects(said.get("hosts"))}
    return Modes(True, rows, text(said.get("paused")))
