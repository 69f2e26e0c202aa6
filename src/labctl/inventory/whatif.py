"""Cards that nobody has: a host made of words such as ``2x RTX 3090 + RTX 5090``.

Each part is a number of cards and a name as the table of cards knows it, joined by ``+`` or a comma. A chip
whose memory is the machine's own needs it said: ``Strix Halo 128 GiB``. What such a host has of main memory
and disk is not known.
"""

from __future__ import annotations

import re

from labctl.domain.problem import LabctlError
from labctl.inventory import profiles
from labctl.inventory.accelerators import Gpu
from labctl.inventory.hosts import Host

NAME = "what-if"
MOST_CARDS = 64
MOST_GIB = 65536  # what the inventory takes for a machine's memory
_PART = re.compile(r"(?:(?P<count>\d{1,3})\s*[x×*]\s*)?(?P<model>.*\S)", re.IGNORECASE)
_MEMORY = re.compile(r"(?P<model>.*\S)\s+(?P<gib>\d{1,5})\s*Gi?B", re.IGNORECASE)
_EXAMPLE = 'for example: --what-if "2x RTX 3090 + RTX 5090"'


def host(words: str) -> Host:
    """Return a host with these cards.

    Raises:
        LabctlError: a card is not known, or the words are none.
    """
    gpus: list[Gpu] = []
    shared: int | None = None
    for part in re.split(r"[+,]", words):
        count, model, gib = _part(part.strip())
        shared = gib or shared
        gpus += [Gpu(model=model, slot=f"gpu{len(gpus) + n}") for n in range(count)]
        if len(gpus) > MOST_CARDS:
            raise LabctlError(f"--what-if {words!r}: more than {MOST_CARDS} cards", hint=_EXAMPLE)
    if any(profiles.of(gpu).unified for gpu in gpus) and len(gpus) > 1:
        raise LabctlError(
            f"--what-if {words!r}: a chip that shares the machine's memory is alone in it", hint=_EXAMPLE
        )
    return Host(name=NAME, address="127.0.0.1", gpus=tuple(gpus), unified_memory_gib=shared)


def _part(text: str) -> tuple[int, str, int | None]:
    """Return how many cards of which model a part means, and GiB of unified memory."""
    found = _PART.fullmatch(text)
    if found is None:
        raise LabctlError("--what-if names no card", hint=_EXAMPLE)
    count, model = int(found["count"] or 1), found["model"]
    if count == 0:
        raise LabctlError(f"--what-if {text!r}: no card at all", hint=_EXAMPLE)
    profile = profiles.find(model)
    if profile is not None and not profile.unified:
        return count, profile.name, None
    sized = _MEMORY.fullmatch(model)
    if profile is None and sized is not None:
        profile = profiles.find(sized["model"])
    if profile is None:
        close = profiles.closest(model)
        hint = f"did you mean {' or '.join(close)}?" if close else _EXAMPLE
        raise LabctlError(f"--what-if {text!r}: labctl knows no such card", hint=hint)
    if not profile.unified:
        raise LabctlError(f"--what-if {text!r}: the memory of a {profile.name} is known", hint=_EXAMPLE)
    if sized is None:
        raise LabctlError(
            f"--what-if {text!r}: how much memory has the machine?", hint=f'say: "{profile.name} 128 GiB"'
        )
    gib = int(sized["gib"])
    if not 0 < gib <= MOST_GIB:
        raise LabctlError(f"--what-if {text!r}: no machine has {gib} GiB", hint=_EXAMPLE)
    return count, profile.name, gib
