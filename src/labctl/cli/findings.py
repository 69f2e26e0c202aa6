"""The newest findings of ``labctl health --cron``, for commands that show them beside other things.

They lie in a file on the controller's host. Nothing is checked anew, and no other host is asked for them.
Findings that are older than three looks are not news any more: their age is said.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labctl import wiring
from labctl.cli.asking import Aim
from labctl.domain.health.results import Finding, Findings, results_of

if TYPE_CHECKING:
    from labctl.fleet.sessions import Answer

_DEADLINE_S = 10.0
_LONGEST = 16 << 20
_STALE_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Kept:
    """Findings, or why there are none to show (``away``, empty: this rack has nobody who looks)."""

    found: Findings | None = None
    away: str = ""
    every_s: float = 0.0

    def of(self, host: str) -> tuple[Finding, ...] | None:
        """Return what is wrong with a host, the gravest first; None where that is not known."""
        if self.found is None:
            return None
        known = any(one.result.host == host for one in self.found.findings)
        return self.found.of(host) if known else None

    def stale_s(self, now: float) -> float | None:
        """Return how old the findings are, in seconds, where that is too old to be believed."""
        if self.found is None:
            return None
        age = now - self.found.at
        return age if age > _STALE_LOOKS * self.every_s else None


def kept(aim: Aim) -> Kept:
    """Return the newest findings of a rack; whatever goes wrong is in ``away``."""
    from labctl.inventory.health import RESULTS, Health

    health = aim.loaded.rack.health if aim.loaded is not None else Health()
    if health is None:
        return Kept()
    every_s = health.every.total_seconds()
    try:
        text = _read(aim, RESULTS)
        found = results_of(json.loads(text))
    except OSError as error:
        return Kept(away=error.strerror or str(error))
    except (ValueError, RecursionError):
        found = None
    if found is None:
        return Kept(away=f"{RESULTS} is not what labctl health --cron writes; is its labctl newer?")
    return Kept(found, every_s=every_s)


def _read(aim: Aim, path: str) -> bytes:
    """Return the document; raise ``OSError`` with the reason where it cannot be read."""
    if wiring.controller_is_here() and Path(path).is_file():
        with Path(path).open("rb") as file:
            return file.read(_LONGEST)
    loaded = aim.loaded
    controller = loaded.rack.controller if loaded is not None else None
    if loaded is None or controller is None:
        raise OSError(f"there is no {path}: does the timer of labctl health run?")
    from labctl.fleet import sessions

    chosen = {controller.host: loaded.host_data[controller.host]}
    question = sessions.Question(("cat", path))
    answers = sessions.ask(chosen, question, wiring.remote(), deadline_s=_DEADLINE_S)
    return _content(answers[controller.host], path)


def _content(answer: Answer, path: str) -> bytes:
    if answer.failure is not None and answer.failure.code == "interrupted":
        raise KeyboardInterrupt
    if answer.failure is not None or answer.said is None:
        reason = answer.failure.reason if answer.failure is not None else "it said nothing"
        raise OSError(f"{answer.host}: {reason}")
    if answer.said.status:
        raise OSError(f"{answer.host} has no {path} yet; labctl apply sets its timer up")
    return answer.said.stdout
