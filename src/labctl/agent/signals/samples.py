"""Numbers of a page of metrics in Prometheus' text form, read without its library."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

_SAMPLE = re.compile(
    rb"^([A-Za-z_:][A-Za-z0-9_:]*)(\{.*\})?[ \t]+([0-9.eE+-]+|\+?Inf|NaN)(?:[ \t]+[0-9]+)?[ \t\r]*$",
    re.MULTILINE,
)
_LABEL = re.compile(rb'model_name="((?:[^"\\]|\\.)*)"')


def sums(page: bytes, names: Collection[str]) -> dict[str, float]:
    """Return the sum of the samples of each of these names that is there, whatever their labels.

    Raises:
        ValueError: one of them is no number of things: it is negative, or not finite.
    """
    found: dict[str, float] = {}
    for match in _SAMPLE.finditer(page):
        name = match[1].decode()
        if name not in names:
            continue
        value = float(match[3])
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{name} is no count")
        found[name] = found.get(name, 0.0) + value
    return found


def model_of(page: bytes) -> str:
    """Return the first model that a label names, "" where none does."""
    match = _LABEL.search(page)
    return match[1].decode(errors="replace") if match else ""
