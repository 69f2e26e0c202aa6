"""An outlet that gives a host its power; the host's firmware must be set to start when power returns.

Power that returns starts a host only if it was gone. So of a host that went down by itself while its outlet
stayed on, waking means off and on again. That is done only if the inventory allows cutting (``may_cut``),
the host sleeps with nothing in its memory (``restarts``: powered off or hibernated, by policy), and the meter
says in the same moment that it draws no more than a machine that is off; and not again while it may be
starting. Otherwise waking only switches on, which never hurts.

Whatever was switched is read back.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labctl.adapters.power import secret
from labctl.adapters.power.meter import Meter
from labctl.adapters.power.web import DEADLINE_S, Web
from labctl.inventory.wake import SmartPlug
from labctl.ports.power import Draw, Power, PowerError

OFF_S = 5.0
"""How long power is gone before it returns: supplies keep their last volts for seconds."""
AGAIN_S = 180.0
"""How long a host may take to start before its power may be cut for it once more."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who asks."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class State:
    """Whether an outlet is on, and the watts that it gives (None: it has no meter, or did not measure).

    ``joules`` is what it gave since it began to count; None where it does not tell, or not finely enough.
    """

    on: bool
    watts: float | None
    joules: float | None = None


@dataclass(frozen=True, slots=True)
class Habits:
    """How a host on an outlet is treated: what its watts mean, and how it is started when it went down.

    ``wait`` pauses for seconds; tests make it short.
    """

    meter: Meter
    restarts: bool = False
    deadline_s: float = DEADLINE_S
    off_s: float = OFF_S
    again_s: float = AGAIN_S
    wait: Callable[[float], None] = time.sleep


class Outlet(ABC):
    """The ports ``Switch`` and ``Meter`` for an outlet; its language is that of who derives from it."""

    kind = "plug"

    def __init__(self, plug: SmartPlug, folder: Path, habits: Habits) -> None:
        """Ask for nothing yet; ``folder`` is the rack file's."""
        self.outlet = plug.outlet
        self.who = f"the plug at {plug.address}"
        self.can_cut = plug.may_cut
        self.has_meter = True
        self._plug = plug
        self._folder = folder
        self._habits = habits
        self._restarted = -habits.again_s
        self._lock = threading.Lock()

    @abstractmethod
    def read(self, web: Web, login: Login | None) -> State:
        """Return what the outlet says."""

    @abstractmethod
    def write(self, web: Web, login: Login | None, *, on: bool) -> None:
        """Switch it."""

    def wake(self) -> None:
        """Switch on; off and on again, where that is needed and safe."""
        with self._web() as web:
            login = self._login()
            state = self.read(web, login)
            if not state.on:
                self._switch(web, login, on=True)
            elif not self._went_down(state):
                return
        if state.on:
            self._restart()

    def power(self) -> Power:
        """Return what the outlet and its meter say."""
        with self._web() as web:
            state = self.read(web, self._login())
        self.has_meter = state.watts is not None
        if not state.on:
            return "off"
        return "on" if state.watts is None else self._habits.meter.says(state.watts)

    def draw(self) -> Draw:
        """Return what its meter says."""
        with self._web() as web:
            state = self.read(web, self._login())
        return Draw(state.watts, state.joules)

    def cut(self) -> None:
        """Switch off."""
        if not self.can_cut:
            raise PowerError(
                "unsupported",
                f"{self.who} may only be switched on",
                "may_cut=True in the inventory allows to cut its power",
            )
        with self._web() as web:
            self._switch(web, self._login(), on=False)

    def _went_down(self, state: State) -> bool:
        """Return whether the host is off on an outlet that is on, and may be started by cutting it."""
        habits = self._habits
        if not (habits.restarts and self.can_cut) or state.watts is None:
            return False
        if habits.meter.says(state.watts) != "off":
            return False
        with self._lock:  # two that wake it at once must not cut it twice
            now = time.monotonic()
            if now - self._restarted < habits.again_s:
                return False
            self._restarted = now
            return True

    def _restart(self) -> None:
        login = self._login()
        try:
            with self._web() as web:
                self._switch(web, login, on=False)
            self._habits.wait(self._habits.off_s)
        finally:
            # Whatever happened: power returns.
            with self._web() as web:
                self._switch(web, login, on=True)

    def _switch(self, web: Web, login: Login | None, *, on: bool) -> None:
        self.write(web, login, on=on)
        if self.read(web, login).on != on:
            raise PowerError(
                "bad-answer",
                f"{self.who} was told to switch {'on' if on else 'off'}, and did not",
                "is it locked, or overloaded?",
            )

    def _web(self) -> Web:
        host = f"[{self._plug.address}]" if ":" in self._plug.address else self._plug.address
        base = f"http://{host}:{self._plug.port}"
        return Web(self.who, base, deadline_s=self._habits.deadline_s)

    def _login(self) -> Login | None:
        if self._plug.password_file is None:
            return None
        password = secret.read(self._folder / self._plug.password_file.expanduser())
        return Login(self._plug.user or "admin", password)


def number(value: Any) -> float | None:
    """Return a measured value, or None where there is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
