"""One switch out of two: what wakes a host, and what else sees and cuts its power.

A round of waking is both: first what wakes, since a packet leaves at once; then power is given, because a
host that was cut off (by us, by a controller that died in between, by a person) hears no packet. A second
back-end that failed is left alone for a while, so that its deadline does not slow down every round, unless we
cut the power ourselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from labctl.ports.power import Power, PowerError, Switch

REST_S = 60.0


class PairSwitch:
    """The port ``Switch`` for a host that has two back-ends."""

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
            rest_s: seconds for which ``powers`` is left alone after it failed.
        """
        self.kind = wakes.kind
        self.can_cut = powers.can_cut or wakes.can_cut
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
        """Wake the host, and give it power."""
        failure: PowerError | None = None
        if self._wakes.kind != "none":
            try:
                self._wakes.wake()
            except PowerError as error:
                failure = error
        if self._was_cut or self._wakes.kind == "none":
            self._powers.wake()
            self._was_cut = False
        elif time.monotonic() >= self._not_before:
            try:
                self._powers.wake()
            except PowerError as error:
                self._not_before = time.monotonic() + self._rest_s
                self._note(f"its {self._powers.kind} gives no power: {error}")
        if failure is not None:
            raise failure

    def power(self) -> Power:
        """Return what the second one says."""
        return self._powers.power()

    def cut(self) -> None:
        """Cut the power by whichever may."""
        self._was_cut = True  # before it is: an order whose answer is lost may have been obeyed
        (self._powers if self._powers.can_cut else self._wakes).cut()
