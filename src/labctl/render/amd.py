"""AMD graphics of the inventory: which cards a host has, and the package settings that their drivers need.

A card's LLVM target comes from the table of cards; for a card that no row knows the kernel's word is taken.
The targets that the kernel lists beside them are left out: the small graphics of a desktop processor are
among those, and ROCm has no code for them.
"""

from __future__ import annotations

from labctl import render
from labctl.inventory import Host, profiles

SOURCE = "rocm"
BACKPORTS_PIN = "/etc/apt/preferences.d/labctl-mesa.pref"


def has_cards(host: Host) -> bool:
    """Return whether the inventory lists AMD graphics on a host."""
    return any(profiles.of(gpu).vendor == "amd" for gpu in host.gpus)


def targets(host: Host, seen: tuple[str, ...]) -> tuple[str, ...]:
    """Return the LLVM target of each AMD card of ``host``; ``seen`` are those that its kernel lists.

    "" stands for a card whose target nobody knows.
    """
    found = [profiles.of(gpu).gfx for gpu in host.gpus if profiles.of(gpu).vendor == "amd"]
    known = [target for target in found if target]
    if len(known) < len(found):
        known += [target for target in seen if target not in known] or [""]
    return tuple(dict.fromkeys(known))


def rocm_source(uri: str, ring: str) -> str:
    """Return AMD's package source at ``uri``, believed by the key in the file ``ring`` only."""
    return render.text("rocm.sources.j2", uri=uri, ring=ring)


def backports_pin(suite: str) -> str:
    """Return the setting by which apt takes Mesa, and what is built with it, from ``suite``."""
    return render.text("mesa.pref.j2", suite=suite)
