"""``signals``: one look at everything that counts as use, for a person or a program that asks once.

The network needs two looks; the second one comes a second later. ``--crontabs`` is what the unprivileged
watch asks of root: when the users' tables of cron run something, and not what.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from pathlib import Path

from . import config
from .host import ROOT
from .signals import every, timers
from .signals.terms import Reading, Unreadable, this_host

_TWICE = "network"
_BETWEEN_S = 1.05


def readings(
    root: Path = ROOT, settings: config.Settings | None = None, only: Collection[str] | None = None
) -> list[Reading]:
    """Return a reading of each signal of this host, or of those of some names, all of them new."""
    board = every.every(config.read(root) if settings is None else settings, this_host(root))
    began = time.monotonic()
    found = board.look(only)
    if any(one.signal == _TWICE for one in found):
        time.sleep(max(0.0, _BETWEEN_S - (time.monotonic() - began)))
        found = [one for one in found if one.signal != _TWICE] + board.look((_TWICE,))
    board.close()
    return found


def once() -> tuple[str, int]:
    """Return the readings as JSON."""
    listed = [{"signal": one.signal, "busy": one.busy, "because": one.because} for one in readings()]
    return json.dumps({"format": 1, "readings": listed}), 0


def crontabs() -> tuple[str, int]:
    """Return when the users' tables of cron run something, as JSON."""
    try:
        return json.dumps(timers.users_document(ROOT)), 0
    except Unreadable as error:
        return json.dumps({"format": 1, "error": str(error)}), 1
