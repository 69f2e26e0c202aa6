"""A command of one's own that wakes a host, or cuts its power: exit status 0 means that it was done.

It runs on this machine, as this user, without a shell. Its errors show the end of its output without the
words of its command line, which may hold passwords.
"""

from __future__ import annotations

from collections.abc import Sequence

from labctl.adapters.power.programs import last_words, run
from labctl.inventory.wake import WakeCommand
from labctl.ports.power import Power, PowerError

DEADLINE_S = 30.0


class CommandSwitch:
    """The port ``Switch`` for commands."""

    kind = "command"
    has_meter = False

    def __init__(self, command: WakeCommand, *, deadline_s: float = DEADLINE_S) -> None:
        """Run nothing yet."""
        self.can_cut = bool(command.off_argv)
        self._command = command
        self._deadline_s = deadline_s

    def wake(self) -> None:
        """Run the command that wakes."""
        self._run(self._command.argv)

    def power(self) -> Power:
        """Return that it cannot tell."""
        return "unclear"

    def cut(self) -> None:
        """Run the command that cuts."""
        if not self.can_cut:
            raise PowerError(
                "unsupported", "no command switches this host off", "off_argv in the inventory names one"
            )
        self._run(self._command.off_argv)

    def _run(self, argv: Sequence[str]) -> None:
        ended = run(argv, deadline_s=self._deadline_s)
        if ended.status == 0:
            return
        how = f"ends with {ended.status}" if ended.status > 0 else f"was ended by signal {-ended.status}"
        said = last_words(ended.output, argv[1:])
        name = argv[0].rpartition("/")[2]
        raise PowerError(
            "refused",
            f"the command {name} {how}" + (f": {said}" if said else ""),
            "run it by hand, as the user that labctl runs as",
        )
