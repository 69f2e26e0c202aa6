"""The same orders on the machine itself: the agent called in place, without SSH and without an inventory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from labctl.domain import cap_json
from labctl.domain.capping import Order

ROOT = Path("/")
"""Where this machine's file system begins."""


def order(wanted: Order, cards: tuple[str, ...]) -> dict[str, Any]:
    """Carry the order out on this machine's cards (all of them when none is named); return the answer."""
    from labctl.agent import caps

    return caps.order(cap_json.order_document(replace(wanted, cards=cards or None)), ROOT)


def show() -> dict[str, Any]:
    """Return this machine's cards and what they should have; nothing is changed."""
    from labctl.agent import caps

    return caps.show(ROOT)
