"""What should happen to a host next, each with its reason; and what the resume gate said.

An action is a value: whoever decides makes it, and whoever acts carries it out, unless what it rests on has
changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .lifecycle import Event
from .terms import How


@dataclass(frozen=True, slots=True)
class GateResult:
    """What the resume gate found: each broken thing in words, and what was seen in passing."""

    broken: tuple[str, ...]
    notes: tuple[str, ...] = ()


# --- what should happen next ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Action:
    """Something to do for a host, and why; it rests on ``version`` of its row and ``seen_at`` (mono)."""

    host: str
    because: str
    version: int
    seen_at: float


@dataclass(frozen=True, slots=True)
class Move(Action):
    """Change the mode, and nothing else."""

    event: Event


@dataclass(frozen=True, slots=True)
class Suspend(Action):
    """Talk the host into sleep: last look, commit, go; it is DRAINING."""

    how: How
    rtc_at: float | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Unload(Action):
    """Free its cards and leave it on."""


@dataclass(frozen=True, slots=True)
class SendWake(Action):
    """Send one round of the host's wake back-end; ``round`` counts from 1, which also moves it to WAKING."""

    round: int


@dataclass(frozen=True, slots=True)
class Verify(Action):
    """Run the gate; it is VERIFYING."""


@dataclass(frozen=True, slots=True)
class Mend(Action):
    """Take one step of the ladder: restart-engines, reload-driver, reboot, cold-cycle."""

    step: str


@dataclass(frozen=True, slots=True)
class StepCaps(Action):
    """Set a host's caps so that the rack stays within its budget; watts by card name."""

    caps_w: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Wait(Action):
    """Do nothing yet for somebody who wants it, and say why (budget, a host that it depends on)."""
