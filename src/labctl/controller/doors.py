"""The ports that the controller acts through, in one place.

The list is complete: whatever the controller does to the world goes through one of these, so a test that
counts their calls has numbered every effect, and can end the process at each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labctl.domain.sleep.lifecycle import Verdict
from labctl.domain.sleep.terms import Moment
from labctl.ports import Clock, Remote, Talker
from labctl.ports.power import Looks, Meter, Switch
from labctl.ports.store import Store
from labctl.render.agent_bundle import PATH as AGENT

__all__ = ["AGENT", "Doors", "Timekeeper"]

JUMP_S = 2.0
"""By how much the two clocks may drift apart between two looks before it counts as a jump."""


def _nobody_knows(name: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Doors:
    """Everything that the controller acts through.

    ``clock.monotonic`` must count on while this machine sleeps (CLOCK_BOOTTIME): whatever was seen before
    our own sleep is then as old as it really is. ``data`` is each host's connection data for the
    controller's own key, ``switches`` its power back-end where it has one. ``rest`` waits so many seconds,
    and raises ``PowerError`` when the process is to end. ``cycle`` cuts a host's power, sees it off and gives
    it again, whatever else happens, and returns what it saw; its verdict says that the host is drained or
    hangs. ``gone`` says whether the process of a controller is dead for certain, and not only silent.
    ``meters`` see what a host draws at its plug.
    """

    store: Store
    talker: Talker
    remote: Remote
    looks: Looks
    switches: Mapping[str, Switch]
    clock: Clock
    data: Mapping[str, Mapping[str, Any]]
    rest: Callable[[float], None]
    cycle: Callable[[Switch, Verdict], str]
    gone: Callable[[str], bool] = field(default=_nobody_knows)
    meters: Mapping[str, Meter] = field(default_factory=dict)

    def wall(self) -> float:
        """Return seconds since 1970."""
        return self.clock.now().timestamp()

    def mono(self) -> float:
        """Return seconds of the clock that never goes back and never stops."""
        return self.clock.monotonic()


class Timekeeper:
    """Reads both clocks at once, and notices when they did not advance alike; may be used by any thread.

    A jump is told of for ``lasts_s``, so that whoever asks rarely hears of it too.
    """

    def __init__(self, clock: Clock, lasts_s: float) -> None:
        self._clock, self._lasts_s = clock, lasts_s
        self._guard = threading.Lock()
        self._steady_since = clock.monotonic()
        self._jumped_at = float("-inf")
        self._last = clock.now().timestamp(), clock.monotonic()

    def moment(self) -> Moment:
        """Return now."""
        with self._guard:
            wall, mono = self._clock.now().timestamp(), self._clock.monotonic()
            last, self._last = self._last, (wall, mono)
            if abs((wall - last[0]) - (mono - last[1])) > JUMP_S:
                self._jumped_at = self._steady_since = mono
            jumped = mono - self._jumped_at <= self._lasts_s
            return Moment(wall, mono, jumped, max(0.0, mono - self._steady_since))
