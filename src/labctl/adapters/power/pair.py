"""Two back-ends for one host: one that wakes it, and one that has its power in hand.

A magic packet wakes nobody whose power is cut, and a plug that is on wakes nobody who sleeps. So a round is a
round of the first, and where the second sees that power is off, it gives it. Which of the two cut it, and
whether this process did, does not matter.
"""

from __future__ import annotations

from labctl.ports.power import Power, PowerError, Switch


class Pair:
    """The port ``Switch`` over two: ``wakes`` and ``powers``."""

    def __init__(self, wakes: Switch, powers: Switch) -> None:
        self._wakes = wakes
        self._powers = powers
        self.kind = wakes.kind
        self.can_cut = powers.can_cut
        self.has_meter = powers.has_meter

    def wake(self) -> None:
        """Send one round, and give power where it is off; see ``ports.power``."""
        failed: PowerError | None = None
        try:
            self._wakes.wake()
        except PowerError as error:
            failed = error
        try:
            off = self._powers.power() == "off"
        except PowerError:
            off = False  # whether it is off is unknown; the next round asks again
        if off:
            self._powers.wake()
        elif failed is not None:
            raise failed

    def power(self) -> Power:
        """Return whether power flows; see ``ports.power``."""
        return self._powers.power()

    def cut(self) -> None:
        """Cut the power; see ``ports.power``."""
        self._powers.cut()
