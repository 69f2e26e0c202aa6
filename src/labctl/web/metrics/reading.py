"""Read what another process said: a value that is not what it should be is not known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any


def number(said: object) -> float | None:
    """Return a finite number that is not negative; None for all else."""
    if isinstance(said, bool) or not isinstance(said, int | float):
        return None
    try:
        value = float(said)
    except OverflowError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def text(said: object) -> str:
    """Return a text, or "" for all else."""
    return said if isinstance(said, str) else ""


def items(said: object) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a list."""
    yield from (one for one in said if isinstance(one, Mapping)) if isinstance(said, list) else ()
