"""What is said to a client that waits, and how it wants to hear it.

The client's own wish (the header ``Labctl-Waiting``) goes before the model's, and that before the key's.
``Prefer: wait=SECONDS`` (RFC 7240) makes the time shorter that a request may wait, never longer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from labctl.domain.gateway.table import Key, Model, Waiting
from labctl.domain.sleep.lifecycle import Mode
from labctl.domain.sleep.wording import counted, lasting

HEADER = b"labctl-waiting"
_WAIT = re.compile(rb"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])")
_WAYS = {way.value.encode(): way for way in Waiting}

STANDS = {
    Mode.UNKNOWN: "is looked for",
    Mode.READY: "is ready",
    Mode.DRAINING: "is ready",
    Mode.SUSPENDING: "is just going to sleep, and is woken then",
    Mode.ASLEEP: "is asleep, and is being woken",
    Mode.WAKING: "is waking",
    Mode.VERIFYING: "is up, and is being checked",
    Mode.FAILED: "did not come up, and is tried again",
}


def way_of(named: Mapping[bytes, bytes], model: Model | None, key: Key) -> Waiting:
    """Return what a client gets while it waits."""
    asked = _WAYS.get(named.get(HEADER, b"").strip().lower())
    return asked or (model and model.waiting) or key.waiting


def patience_s(named: Mapping[bytes, bytes], wait_s: float) -> float:
    """Return how long a request may wait, in seconds."""
    found = _WAIT.search(named.get(b"prefer", b""))
    return min(wait_s, float(found[1])) if found else wait_s


def of_host(name: str, mode: Mode, left_s: float) -> str:
    """Return how far a host is, as "gpu-box is waking, about 40 s left"."""
    return f"{name} {STANDS[mode]}" + (f", about {lasting(left_s)} left" if left_s > 0 else "")


def of_loading(name: str, model: str, left_s: float) -> str:
    """Return how far an upstream is that loads a model."""
    return f"{name} loads {model}" + (f", up to {lasting(left_s)} left" if left_s > 0 else "")


def of_line(name: str, ahead: int) -> str:
    """Return how far a request is that waits for a slot."""
    return (
        f"{name} is busy, {counted(ahead, 'request')} before yours"
        if ahead
        else f"{name} is busy, you are next"
    )
