"""What llama-server's own lines say: how much it allocated where, and how long it took to load.

Buffers are named after the backend's device: ``CUDA0``, ``ROCm1``, ``Vulkan0`` and so on count the cards in
the order in which the process sees them; everything that begins with ``CPU``, or ends with ``Host``, is main
memory. Builds since 2026 print these lines only from verbosity 4 on (``extra_args=["-lv", "4"]``).

Loading lasts from the line that names the model's file to the one that says the model is loaded, by the clock
that llama-server puts in front of its lines (minutes.seconds.milliseconds.microseconds since its start), else
by the journal's, which notes lines when it comes to them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from labctl.domain.fit.terms import MIB

PATTERN = "buffer size =|loading model|model loaded|server is listening"
"""What lines to ask a journal for (a regular expression)."""
RAM = -1
_BUFFER = re.compile(
    r"\b([A-Za-z]+)(\d*)(_\w+)? +(model|KV|RS|output|compute) buffer size = *(\d+(?:\.\d+)?) MiB"
)
_PARTS = {"model": "weights", "KV": "cache", "RS": "cache", "output": "compute", "compute": "compute"}
_CLOCK = re.compile(r"(\d+)\.(\d\d)\.(\d{3})\.(\d{3}) ")
_BEGIN = re.compile(r"loading model\b(?! tensors)")
_END = re.compile(r"\bmodel loaded\b")


@dataclass(slots=True)
class Said:
    """What one start of an engine told: bytes by card (RAM: main memory) and part; seconds to load."""

    shares: dict[int, dict[str, int]] = field(default_factory=dict)
    load_s: float | None = None


def read(lines: Sequence[tuple[float, str]]) -> Said:
    """Read the lines of one start, each with its moment in seconds; the last start counts.

    A start that did not come to its end says nothing: what it lacked room for is not among its buffers.
    """
    begins = [place for place, (_, text) in enumerate(lines) if _BEGIN.search(text)]
    mine = lines[begins[-1] :] if begins else lines
    said = Said()
    for moment, text in mine:
        if begins and said.load_s is None and _END.search(text):
            said.load_s = _between(mine[0], (moment, text))
        if found := _BUFFER.search(text):
            name, number, rest, what, size = found.groups()
            on_host = name.upper().startswith("CPU") or (rest or "").endswith("Host")
            parts = said.shares.setdefault(RAM if on_host or not number else int(number), {})
            part = _PARTS[what]
            parts[part] = parts.get(part, 0) + int(float(size) * MIB)
    return said if said.load_s is not None or not begins else Said()


def _between(begin: tuple[float, str], end: tuple[float, str]) -> float:
    clocks = [_CLOCK.match(text) for _, text in (begin, end)]
    if clocks[0] is None or clocks[1] is None:
        return max(0.0, end[0] - begin[0])
    moments = [
        int(found[1]) * 60 + int(found[2]) + int(found[3]) / 1e3 + int(found[4]) / 1e6
        for found in clocks
        if found is not None
    ]
    return max(0.0, moments[1] - moments[0])
