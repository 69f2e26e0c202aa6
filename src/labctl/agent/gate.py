"""``gate``: whether everything works after a wake or a boot, before anybody's request comes here.

Three things must be proved rather than assumed: the cards that the rack file names are there and computing
works on them, their caps are set again, and the engines answer from the cards and not from the processor.
What is broken stops the host from serving; what only keeps it from sleeping again (a network card that will
not be armed) is a note, since then it is not put to sleep.

What was stopped for the sleep, and does not run again yet, is started only where the cards are whole. On
broken ones it would come up on the processor, and answer a hundred times slower than anybody expects. All has
a deadline; what was not seen by then is broken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from . import caps, gatecards, gateengines, unload, wakers
from .config import Settings
from .host import ROOT
from .settings import Unsaid, settings

FORMAT = 1
_TIMEOUT_S = 180.0
_LONGEST_S = 86_400.0


def passed(root: Path = ROOT) -> dict[str, Any]:
    """Return what is broken, what else a person should know, and the caps, as one JSON object."""
    began = time.monotonic()
    gate = _Gate(root)
    try:
        config = settings(root)
    except Unsaid as error:
        gate.broken.append(str(error))
    else:
        gate.look(config)
    seconds = round(time.monotonic() - began, 1)
    return {
        "format": FORMAT,
        "broken": gate.broken,
        "notes": gate.notes,
        "caps": gate.caps,
        "took_s": seconds,
    }


def _patience_s(value: Any) -> float:
    """Return how long engines are waited for; what is no such time is not believed."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value <= _LONGEST_S else _TIMEOUT_S


class _Gate:
    """One look; each step may fail in any way and spoils no other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.broken: list[str] = []
        self.notes: list[str] = []
        self.caps: dict[str, Any] | None = None

    def look(self, config: Settings) -> None:
        """Take all steps."""
        wanted = config.gate
        until = time.monotonic() + _patience_s(wanted.get("timeout_s"))
        self._step("driver", partial(gatecards.driver, wanted, self.root))
        self._step("cards", partial(gatecards.cards, wanted, self.root))
        if not self.broken:
            self._step("caps", self._caps)
            self._step("computing", partial(gatecards.smoke, wanted, self.root))
        self._step("Wake-on-LAN", partial(self._card, config))
        if self.broken:
            kept = unload.remembered(self.root)
            if waiting := (*kept.units, *kept.slept):
                self.notes.append(f"not started, since the cards are not whole: {', '.join(waiting)}")
            return
        self._step("starting", partial(self._start, config))
        self._step("engines", partial(gateengines.ready, config, until, self.root))
        if not self.broken:
            self._step("answers", partial(gateengines.answers, config, until, self.root))

    def _step(self, name: str, step: Callable[[], tuple[list[str], list[str]]]) -> None:
        try:
            broken, notes = step()
        except Exception as error:
            broken, notes = (
                [f"{name}: {type(error).__name__}: {error}; this may be a bug in labctl-agent"],
                [],
            )
        self.broken += broken
        self.notes += notes

    def _caps(self) -> tuple[list[str], list[str]]:
        """Give each card its cap again; what has none and needs none is fine."""
        answer = caps.apply(self.root, steps_end=True)
        self.caps = answer
        said = caps.complaints(answer)
        return ([], said) if caps.exit_code(answer) == 0 else (said or ["caps could not be set"], [])

    def _card(self, config: Settings) -> tuple[list[str], list[str]]:
        wanted = config.sleep.get("wol")
        if wanted is None:
            return [], []
        try:
            wakers.arm_card(wanted, self.root)
        except wakers.Unarmed as error:
            return [], [f"it will not be put to sleep, since nothing would wake it: {error}"]
        return [], []

    def _start(self, config: Settings) -> tuple[list[str], list[str]]:
        kept = unload.remembered(self.root)
        wrong = unload.restore(config, self.root)
        started = [f"started again after the sleep: {unit}" for unit in (*kept.units, *kept.slept)]
        return wrong, started
