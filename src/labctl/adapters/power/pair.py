"""Two back-ends for one host: one that wakes it, and one that has its power in hand.

A magic packet wakes nobody whose power is cut, and a plug that is on wakes nobody who sleeps. So a round is a
round of the first, which leaves at once, and where the second sees that power is off, it gives it: whoever
cut it, be it a controller that died since. After a cut of our own power is given unseen as well, since not
every back-end can see, and a round fails if that fails. A back-end that does not answer is left alone for a
while otherwise, so that its deadline does not slow down every round.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from labctl.ports.power import Power, PowerError, Switch

REST_S = 60.0


class Pair:
    """The port ``Switch`` over two: ``wakes`` and ``powers``."""

    def __init__(
        self,
        wakes: Switch,
        powers: Switch,
        *,
        note: Callable[[str], None] = lambda _: None,
        rest_s: float = REST_S,
    ) -> None:
        """Ask for nothing yet.

        Args:
            wakes: what wakes the host.
            powers: what sees and cuts its power.
            note: gets what a person should know though it is no error.
            rest_s: seconds for which ``powers`` is not asked after it failed to answer.
        """
        self.kind = wakes.kind
        self.can_cut = powers.can_cut
        self._wakes, self._powers = wakes, powers
        self._note = note
        self._rest_s = rest_s
        self._not_before = 0.0
        self._was_cut = False

    @property
    def has_meter(self) -> bool:
        """Return whether the second one sees what the host draws."""
        return self._powers.has_meter

    def wake(self) -> None:
        """Send one round, and give power where it is off; see ``ports.power``."""
        failed: PowerError | None = None
        try:
            self._wakes.wake()
        except PowerError as error:
            failed = error
        if self._was_cut or self._is_off():
            self._powers.wake()
            self._was_cut = False
        elif failed is not None:
            raise failed

    def power(self) -> Power:
        """Return whether power flows; see ``ports.power``."""
        return self._powers.power()

    def cut(self) -> None:
        """Cut the power; see ``ports.power``."""
        self._was_cut = True  # before it is: an order whose answer is lost may have been obeyed
        self._powers.cut()

    def _is_off(self) -> bool:
        if time.monotonic() < self._not_before:
            return False
        try:
            return self._powers.power() == "off"
        except PowerError as error:
            self._not_before = time.monotonic() + self._rest_s
            self._note(f"its {self._powers.kind} does not say whether it has power: {error}")
            return False
