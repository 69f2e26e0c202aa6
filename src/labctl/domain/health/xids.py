"""NVIDIA's catalogue of Xids: what a message of the driver in the kernel's log asks for.

The actions are those of the catalogue ("Immediate Action", as of driver R615); the levels are ours. A program
that was stopped for its own fault is no fault of the card, so that only informs, unless it happens again and
again: then it is the program, or a card or riser that begins to fail. A code that the catalogue does not know
warns. Xid 154 carries in its text what the driver wants done, and that counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .terms import Level

_RESET = "reset the card (nvidia-smi -r) or reboot the host when nothing runs on it"
_MEMORY = f"{_RESET}; if it comes again, have the card replaced"
_RESTART = "restart the program; if it comes again, look at the program first"
_BUS = "cut the host's power for a moment; then look at riser, seat and power cables"
_LINK = f"{_RESET}; then look at the link between the cards"
_NOTHING = "nothing is to be done"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code means, how bad it is, and what to do."""

    what: str
    level: Level
    cure: str
    repeated: Level | None = None  # how bad it is when it happens again and again


def _app(what: str) -> Meaning:
    return Meaning(what, Level.OK, _RESTART, Level.WARN)


def _bad(what: str, cure: str = _RESET) -> Meaning:
    return Meaning(what, Level.CRIT, cure)


CATALOGUE: Mapping[int, Meaning] = {
    13: _app("a program's error on the card"),
    31: _app("a program used memory of the card that it does not have"),
    32: Meaning("damaged commands reached the card over PCIe", Level.WARN, "look at riser and seat"),
    43: _app("a program was stopped for its own fault"),
    45: _app("a program was stopped"),
    46: _bad("the card stopped to answer"),
    48: _bad("an uncorrectable memory error", _MEMORY),
    54: _bad("its power cable is not plugged in", "plug in its power cable"),
    62: _bad("its own controller halted"),
    63: Meaning("a bad row of memory is to be replaced", Level.WARN, _RESET),
    64: _bad("a bad row of memory could not be replaced", _MEMORY),
    69: _app("a program's error on the card"),
    74: _bad("a fault of NVLink", _LINK),
    79: _bad("it has fallen off the bus", _BUS),
    92: Meaning("many corrected memory errors", Level.WARN, "watch it: such a card fails soon"),
    94: _bad("a memory error, kept to the program that met it", f"restart the program; {_MEMORY}"),
    95: _bad("a memory error that other programs met too", _MEMORY),
    109: _bad("it could not switch between programs"),
    110: _bad("a fault of its security processor", _BUS),
    119: _bad("its system processor (GSP) did not answer"),
    120: _bad("an error of its system processor (GSP)"),
    121: Meaning("corrected errors of the link to the processor", Level.OK, _NOTHING, Level.WARN),
    136: _bad("a link could not be trained", _LINK),
    140: _bad("an uncorrectable memory error", _MEMORY),
    143: _bad("it could not be started"),
    **dict.fromkeys(range(144, 151), _bad("a fault of NVLink", _LINK)),
    155: Meaning("an NVLink went down", Level.WARN, _LINK),
    156: Meaning("a part of it was retired", Level.WARN, _RESET),
    157: _bad("a part of it could not be retired", _MEMORY),
    158: _bad("it timed out for good"),
    167: _bad("PCIe timed out for good", _BUS),
    168: Meaning("it has less memory than it should", Level.WARN, "switch ECC on, or reboot the host"),
    169: _bad("its security processor halted"),
    171: _bad("an uncorrectable error of its memory", _MEMORY),
    172: _bad("an uncorrectable error of its memory on chip", _MEMORY),
}
IGNORED = frozenset({61, 87, *range(113, 119)})
"""Codes that the catalogue calls unused, or of displays only."""

RECOVERY = 154
_WANTED = re.compile(r"\bto\b[^(]*\(([^()]*)\)", re.IGNORECASE)
_ACTIONS: Mapping[str, Meaning] = {
    "none": Meaning("the driver asks for nothing any more", Level.OK, _NOTHING),
    "gpu reset required": _bad("the driver asks for a reset"),
    "node reboot required": _bad(
        "the driver asks for a reboot", "stop what runs on the host, then reboot it"
    ),
    "drain p2p": _bad("the driver asks to stop what spans several cards", _RESET),
    "drain and reset": _bad("the driver asks to stop what runs on it, and for a reset"),
}


def meaning(code: int, text: str) -> Meaning | None:
    """Return what a message means; None: it says nothing that anybody needs."""
    if code in IGNORED:
        return None
    if code == RECOVERY:
        found = _WANTED.search(text)
        wanted = " ".join(found[1].lower().split()) if found else ""
        return _ACTIONS.get(wanted, _bad("the driver asks for something to be done about it"))
    return CATALOGUE.get(code, Meaning("not in NVIDIA's catalogue", Level.WARN, "look its number up"))
