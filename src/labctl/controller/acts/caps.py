"""Set a host's caps for the time being, so that another host may wake within the budget.

The host's agent does it, and only downwards from what the inventory allows; what it read back is what counts.
"""

from __future__ import annotations

from labctl.controller.means import Means
from labctl.domain.sleep.terms import StepCaps

DEADLINE_S = 100.0


def step(means: Means, action: StepCaps) -> None:
    """Set the caps, and take in what the host read back."""
    host = action.host
    with means.ledger.effect(host, "caps", action.because) as note:
        order = {"caps_w": dict(action.caps_w), "because": action.because}
        said = means.ask(host, "caps", "--step", order=order, deadline_s=DEADLINE_S)
        found = said.get("caps_w")
        read = {
            str(card): watts
            for card, watts in (found.items() if isinstance(found, dict) else ())
            if isinstance(watts, int) and not isinstance(watts, bool)
        }
        means.observer.capped(host, read)
        missing = [card for card, watts in action.caps_w.items() if read.get(card, watts + 1) > watts]
        note.outcome = f"not taken by {', '.join(missing)}" if missing else "done"
