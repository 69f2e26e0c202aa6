"""Set a host's caps for the time being, so that another host may wake within the budget.

The host's agent does it, and only downwards from what the inventory allows; what it read back is what counts.
From the decision on until that is known, the loop has the higher of old and new counted.
"""

from __future__ import annotations

from labctl.controller.means import Means
from labctl.domain.sleep.actions import StepCaps

DEADLINE_S = 100.0
_MOST = 400


def step(means: Means, action: StepCaps) -> None:
    """Set the caps, and take in what the host read back."""
    host = action.host
    with means.ledger.effect(host, "caps", action.because) as note:
        order = {"caps_w": dict(action.caps_w), "because": action.because[:_MOST]}
        said = means.ask(host, "caps", "--step", order=order, deadline_s=DEADLINE_S)
        read, n = _numbers(said.get("caps_w")), said.get("caps_n")
        if read:
            means.observer.capped(host, read, n if isinstance(n, int) else 0)
        missing = [card for card, watts in action.caps_w.items() if read.get(card, watts + 1) > watts]
        note.outcome = f"not taken by {', '.join(missing)}{_why(said)}" if missing else "done"


def _numbers(found: object) -> dict[str, int]:
    return {
        str(card): watts
        for card, watts in (found.items() if isinstance(found, dict) else ())
        if isinstance(watts, int) and not isinstance(watts, bool)
    }


def _why(said: dict[str, object]) -> str:
    """Return what the host says of what it did not do, for people."""
    cards, error = said.get("cards"), said.get("error")
    told = [error.get("what")] if isinstance(error, dict) else []
    told += [card.get("why") for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
    texts = dict.fromkeys(text for text in told if isinstance(text, str) and text)
    shown = "".join(c for c in "; ".join(texts)[:_MOST] if c.isprintable())
    return f": {shown}" if shown else ""
