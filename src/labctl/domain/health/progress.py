"""Decide whether an engine computes, from looks that lie apart, without having it generate anything.

A health page stays green while an engine is dead, and an engine under heavy load may not answer its health
page while it is well. So neither decides. What counts is the *pulse*: a number that changes whenever the
engine computes anything (``agent.enginemetrics``).

- It is **dead** when it has requests, running or waiting, and its pulse is the same in three looks that lie
  ``APART_S`` from each other: longer than engines keep old numbers on their pages (SGLang shows the last
  batch for up to 30 s, its pull request 26495), and than a step of any engine takes.
- It is **saturated** when requests wait and its pulse moves. That is not dead, however many wait.
- An engine whose counters do not come in time may be in the middle of a long batch: llama-server answers only
  between two. Such a look is no sign of life and none of death. After ``SILENT_S`` without a sign it is dead:
  no batch takes that long.
- An engine that answers nothing at all, neither its health page nor its counters, may still load its model
  (vLLM does not listen until it has). In three looks it is **deaf**, and after ``SILENT_S`` dead.

A sign of life begins everything anew; so does a clock that was set back, and a new start of the engine.
Looks that follow too closely are not noted, so somebody who asks three times in a second finds nobody dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .evidence import Engine, Evidence
from .terms import EnginePast, Look

APART_S = 20.0
STRIKES = 3
SILENT_S = 900.0
KEPT = 16
"""Looks that are kept of a stand; of a longer one the first and the newest."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How long an engine has shown no life.

    ``stood``: looks in which it had requests and stood still. ``unanswered``: newest looks in a row in which
    nothing at all was answered. ``silent``: the newest look has no counters, since they did not come in time.
    ``for_s``: from the first look, after which there was no sign of life, to the newest.
    """

    stood: int
    unanswered: int
    silent: bool
    for_s: float

    @property
    def is_dead(self) -> bool:
        """Return whether it computes nothing any more."""
        return self.stood >= STRIKES or ((self.silent or self.unanswered > 0) and self.for_s >= SILENT_S)

    @property
    def is_deaf(self) -> bool:
        """Return whether it answers nothing."""
        return self.unanswered >= STRIKES


def look_at(engine: Engine, at: float) -> Look:
    """Return a look at an engine, to be remembered."""
    told = [count for count in (engine.running, engine.waiting) if count is not None]
    requests = sum(told) if told else None
    return Look(at, requests, engine.pulse, answered=engine.answer is not None, silent=engine.silent)


def remember(past: Sequence[EnginePast], evidence: Evidence) -> tuple[EnginePast, ...]:
    """Return what to remember of a host's engines after another look; those that do not run begin anew."""
    if evidence.engines is None:
        return tuple(past)
    known = {one.service: one.looks for one in past}
    return tuple(
        EnginePast(engine.service, with_look(known.get(engine.service, ()), look_at(engine, evidence.at)))
        for engine in evidence.engines
        if engine.active == "active"
    )


def with_look(looks: Sequence[Look], new: Look) -> tuple[Look, ...]:
    """Return looks and a new one, as far as they matter; the first is the last sign of life, if any."""
    if not looks or new.at < looks[-1].at or _lives(looks, new):
        return (new,)
    if new.at - looks[-1].at < APART_S:
        return tuple(looks)
    kept = (*looks, new)
    return kept if len(kept) <= KEPT else (kept[0], *kept[2:])


def standing(looks: Sequence[Look]) -> Standing:
    """Return what looks at one engine say, the newest last."""
    if not looks:
        return Standing(0, 0, silent=False, for_s=0.0)
    stood = sum(1 for look in looks if look.requests and look.pulse is not None)
    unanswered = 0
    for look in reversed(looks):
        if look.answered or look.pulse is not None:
            break
        unanswered += 1
    return Standing(stood, unanswered, looks[-1].silent, looks[-1].at - looks[0].at)


def _lives(looks: Sequence[Look], new: Look) -> bool:
    """Return whether a new look shows life: nothing to do, or another pulse than the last known one."""
    if new.requests == 0:
        return True
    if new.pulse is None:
        # One that counts nothing, or says it wrongly: that it answers is all there is to see.
        return new.answered and not new.silent
    last = next((look.pulse for look in reversed(looks) if look.pulse is not None), None)
    return last is not None and last != new.pulse
