"""What is known of a kind of graphics card before anybody asks a real one.

A profile serves where no card can be asked: to refuse a rack file, to budget watts, to choose a driver. Where
a card can be asked, its own word counts, since boards of one model differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Vendor = Literal["nvidia", "amd", "intel", "apple", "huawei"]
CapReason = Literal["circuit", "psu", "efficiency", "noise", "heat"]


@dataclass(frozen=True, slots=True)
class GpuProfile:
    """One row of the table of cards; what a card does not have is None.

    ``memory_gib`` is None where memory is the machine's own (``unified``). ``cap_min_w`` and
    ``cap_max_w`` are the widest range that boards of this model are known to take; both None: the card has no
    power cap. ``spike`` is how many times its cap (or TDP) a card may draw for milliseconds. ``compute`` is
    CUDA's compute capability ("8.6"), ``gfx`` AMD's LLVM target ("gfx1100"). ``source`` says where the row is
    from.
    """

    name: str
    patterns: tuple[str, ...]
    vendor: Vendor
    architecture: str
    memory_gib: float | None
    bandwidth_gb_s: float
    tdp_w: int
    cap_min_w: int | None
    cap_max_w: int | None
    spike: float
    compute: str | None
    gfx: str | None
    unified: bool
    source: str


@dataclass(frozen=True, slots=True)
class Cap:
    """A power cap in watts and why it was set."""

    watts: int
    reason: CapReason
