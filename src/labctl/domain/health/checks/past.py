"""What grew since the run before, for counters of which only the difference tells.

Counters begin anew with a boot and a load of the driver, so one that fell says nothing, and neither does a
host that booted in between, or whose clock was set back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..evidence import Evidence, Gpu
from ..terms import Case
from ..thresholds import HOUR_S


@dataclass(frozen=True, slots=True)
class Growth:
    """How much a counter grew, and how fast."""

    count: int
    per_hour: float


def before(case: Case) -> Evidence | None:
    """Return what the host said in the run before, if it has not booted since."""
    past, now = case.earlier, case.evidence
    if past is None or now is None or not now.boot_id or past.boot_id != now.boot_id or now.at <= past.at:
        return None
    return past


def grown(case: Case, gpu: Gpu, counter: Callable[[Gpu], int | None]) -> Growth | None:
    """Return how much a card's counter grew since the run before; None where nobody can say."""
    past, now = before(case), case.evidence
    if past is None or now is None or not gpu.uuid:
        return None
    old = next((counter(card) for card in past.gpus or () if card.uuid == gpu.uuid), None)
    new = counter(gpu)
    if old is None or new is None or new < old:
        return None
    return Growth(new - old, (new - old) * HOUR_S / (now.at - past.at))
