"""What the controller says of hosts, for commands that ask the hosts themselves: who sleeps, is held, paused.

Asking the controller wakes nobody, and who sleeps by its word is not asked. A controller that cannot be
reached costs a warning, and the hosts are asked as without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from labctl.cli import asking, printer
from labctl.cli.asking import Aim, number, text
from labctl.domain.problem import LabctlError, Problem

if TYPE_CHECKING:
    from labctl.controller.api.client import Controller

ASLEEP = frozenset({"asleep", "suspending"})


@dataclass(frozen=True, slots=True)
class Modes:
    """The controller's rows by host; ``known`` is False without a controller that answers.

    ``at`` is its wall time in seconds, None where it is not said.
    """

    known: bool = False
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    paused: str = ""
    away: str = ""
    at: float | None = None

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


class Teller:
    """Asks the controller as often as one likes over one connection, which it makes anew when it breaks."""

    def __init__(self, aim: Aim) -> None:
        """Ask nobody yet."""
        self._aim = aim
        self._line: Controller | None = None

    def __enter__(self) -> Teller:
        return self

    def __exit__(self, *unused: object) -> None:
        self._hang_up()

    def modes(self) -> Modes:
        """Return what the controller says now; nothing where the rack has none.

        Raises:
            LabctlError: it cannot be asked.
        """
        if not self._aim.has_controller:
            return Modes()
        try:
            if self._line is None:
                self._line = asking.controller(self._aim)
            said = self._line.tell("status")
        except BaseException:
            self._hang_up()
            raise
        rows = {text(one.get("host")): one for one in asking.objects(said.get("hosts"))}
        return Modes(True, rows, text(said.get("paused")), at=number(said.get("at")))

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
        self._line = None


def known(aim: Aim) -> Modes:
    """Return what the controller says; nothing where the rack has none."""
    with Teller(aim) as teller:
        try:
            return teller.modes()
        except LabctlError as error:
            first = error.problems[0]
            problem = Problem(f"which hosts sleep is not known: {first.reason}", first.hint)
            printer.show_problems([problem], severity="warning")
            return Modes(away=text(first.reason))
