"""The table of cards: which profile a card of the inventory has, and what it may draw.

The rows are data (``gpus.toml``). A card is looked up by its usual name first, then by the patterns of the
rows in their order, so "RTX 3090" and the driver's "NVIDIA GeForce RTX 3090" are one card, and "RTX 3090 Ti"
is another. A card that no row knows has a profile only if the inventory gives its vendor and watts; of such a
card nothing is assumed beyond them: any cap up to those watts may be tried.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from labctl.domain.gpus import Cap, GpuProfile, Vendor
from labctl.inventory.accelerators import Gpu
from labctl.inventory.hosts import Host

_UNKNOWN_SPIKE = 2.0  # more than any row's: of a card that nobody measured the worst is assumed
_CAPPED: tuple[Vendor, ...] = ("nvidia", "amd")  # whose drivers let labctl cap a card


def _row(raw: dict[str, Any]) -> GpuProfile:
    lowest, highest = raw.pop("cap_range_w", (None, None))
    optional = {"memory_gib": None, "compute": None, "gfx": None, "unified": False}
    patterns = tuple(raw.pop("patterns"))
    return GpuProfile(patterns=patterns, cap_min_w=lowest, cap_max_w=highest, **{**optional, **raw})


def _read() -> tuple[GpuProfile, ...]:
    text = Path(__file__).with_name("gpus.toml").read_text(encoding="utf-8")
    return tuple(_row(raw) for raw in tomllib.loads(text)["gpu"])


ALL: tuple[GpuProfile, ...] = _read()
_BY_NAME = {profile.name.casefold(): profile for profile in ALL}


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], GpuProfile], ...]:
    return tuple(
        (re.compile(pattern, re.IGNORECASE), profile) for profile in ALL for pattern in profile.patterns
    )


@cache
def find(model: str) -> GpuProfile | None:
    """Return the row of a card by any of its names, those of drivers included; None if no row knows it."""
    name = " ".join(model.split())
    exact = _BY_NAME.get(name.casefold())
    if exact is not None:
        return exact
    return next((profile for pattern, profile in _patterns() if pattern.fullmatch(name)), None)


def closest(model: str) -> tuple[str, ...]:
    """Return the names of known cards that look most like a name that no row knows, the closest first."""
    found = get_close_matches(model.casefold(), list(_BY_NAME), n=3, cutoff=0.5)
    return tuple(_BY_NAME[name].name for name in found)


def of(gpu: Gpu) -> GpuProfile:
    """Return the profile of a card: its row, or what the inventory itself says of an unknown card.

    ``tdp_w`` and ``memory_gib`` of the inventory go before the row's, since boards with more are sold.

    Raises:
        LookupError: no row knows the card and the inventory does not give its vendor and watts; a loaded
            rack holds no such card.
    """
    known = find(gpu.model)
    if known is not None:
        memory = known.memory_gib if gpu.memory_gib is None or known.unified else gpu.memory_gib
        return replace(known, tdp_w=gpu.tdp_w or known.tdp_w, memory_gib=memory)
    if gpu.vendor is None or gpu.tdp_w is None:
        raise LookupError(gpu.model)
    capped = gpu.vendor in _CAPPED
    return GpuProfile(
        name=gpu.model,
        patterns=(re.escape(gpu.model),),
        vendor=gpu.vendor,
        architecture="unknown",
        memory_gib=gpu.memory_gib,
        bandwidth_gb_s=0,
        tdp_w=gpu.tdp_w,
        cap_min_w=1 if capped else None,
        cap_max_w=gpu.tdp_w if capped else None,
        spike=_UNKNOWN_SPIKE,
        compute=None,
        gfx=None,
        unified=False,
        source="the inventory",
    )


def is_told_apart(host: Host, gpu: Gpu) -> bool:
    """Return whether a real card can be known to be this one: by UUID, address, or as the only of its model.

    Where it cannot, its slot names a place that nobody can find, so nothing may be done or said of it alone.
    """
    if gpu.uuid is not None or gpu.pci is not None:
        return True
    own = set(of(gpu).patterns)
    untold = (other for other in host.gpus if other is not gpu and other.uuid is None and other.pci is None)
    return all(own.isdisjoint(of(other).patterns) for other in untold)


def cap_of(host: Host, gpu: Gpu) -> Cap | None:
    """Return the cap that the inventory declares for a card: its own, else its host's, else None."""
    if gpu.cap_w is not None and gpu.cap_reason is not None:
        return Cap(gpu.cap_w, gpu.cap_reason)
    if host.cap_w is not None and host.cap_reason is not None and of(gpu).cap_max_w is not None:
        return Cap(host.cap_w, host.cap_reason)
    return None


def draw_w(host: Host, gpu: Gpu) -> int:
    """Return the watts that a card may draw for long: its cap, else what it draws at full load."""
    cap = cap_of(host, gpu)
    return of(gpu).tdp_w if cap is None else cap.watts
