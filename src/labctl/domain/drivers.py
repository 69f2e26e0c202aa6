"""Which NVIDIA driver a host gets: branch, kernel modules, and which mixes of cards no driver serves.

NVIDIA's kernel modules come in two flavours, and one host can load one of them. The open modules need the
card's own system processor, which Turing brought: so everything before Turing needs the proprietary modules,
and Blackwell (and later) needs the open ones. Between them both work and the open ones are preferred, since
the proprietary flavour is going away. Maxwell, Pascal and Volta end at branch 580. A mix that no branch and
flavour serves is refused before anything runs; an architecture that is not known here is refused as well,
because a guess could leave a host without its cards.

Which packages that means is decided in ``driver_packages``; sources: NVIDIA's driver README 580 ("Open Linux
Kernel Modules"), its driver installation guide, and the archives of Debian and Ubuntu of November 2026.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Flavour = Literal["open", "proprietary"]

# Oldest first; the place in this row is what "before Turing" means.
ARCHITECTURES = ("Maxwell", "Pascal", "Volta", "Turing", "Ampere", "Ada", "Hopper", "Blackwell", "Rubin")
_BY_NAME = {name.lower(): name for name in ARCHITECTURES} | {
    "ada lovelace": "Ada",
    "grace hopper": "Hopper",
    "grace blackwell": "Blackwell",
}
# What a card's row says when nobody knows.
_UNKNOWN = ("", "unknown")
_FIRST_OPEN = ARCHITECTURES.index("Turing")
_ONLY_OPEN = ARCHITECTURES.index("Blackwell")
LAST_LEGACY_BRANCH = 580
# The first branch that knows the architecture; 535 is the oldest that any supported system still has.
_SINCE = {"Blackwell": 570, "Rubin": 615}
# From here on the packages bring the open modules only: the proprietary names lead to them.
_OPEN_ONLY_BRANCH = 615
# Before it, NVIDIA itself preferred the proprietary modules where both work.
_OPEN_PREFERRED = 560


def architecture(name: str) -> str | None:
    """Return the architecture as it is spelled here, or None for one that is not NVIDIA's or not known."""
    return _BY_NAME.get(name.strip().lower())


def flavours(architectures: Iterable[str]) -> tuple[Flavour, ...]:
    """Return the flavours of kernel modules that serve all of these architectures, the better one first."""
    places = [ARCHITECTURES.index(known) for name in architectures if (known := architecture(name))]
    found: list[Flavour] = []
    if all(place >= _FIRST_OPEN for place in places):
        found.append("open")
    if all(place < _ONLY_OPEN for place in places):
        found.append("proprietary")
    return tuple(found)


def branches(architectures: Iterable[str]) -> tuple[int, int | None]:
    """Return the lowest branch that knows all of these architectures, and the last one (None: no end yet)."""
    names = [known for name in architectures if (known := architecture(name))]
    lowest = max((_SINCE.get(name, 0) for name in names), default=0)
    ends = any(ARCHITECTURES.index(name) < _FIRST_OPEN for name in names)
    return lowest, LAST_LEGACY_BRANCH if ends else None


def flavour_of(architectures: Iterable[str], branch: int, flavour: str) -> Flavour:
    """Return the flavour to install: the one asked for, else the better one of those that serve the cards."""
    if flavour in ("open", "proprietary"):
        return "open" if flavour == "open" else "proprietary"
    served = flavours(architectures)
    if "proprietary" in served and ("open" not in served or branch < _OPEN_PREFERRED):
        return "proprietary"
    return "open"


def unknown(architectures: Iterable[str]) -> bool:
    """Return whether a card is among them of which nobody knows the architecture."""
    return any(name.strip().lower() in _UNKNOWN for name in architectures)


def refusals(architectures: Iterable[str], branch: int | None, flavour: str) -> list[str]:
    """Return why no driver serves these cards as asked for, a sentence each; empty when one does.

    Args:
        architectures: of all NVIDIA cards of one host, such as "Ampere"; "unknown" decides nothing.
        branch: the driver branch that was asked for, such as 580; None leaves it open.
        flavour: "open", "proprietary", or "auto" to leave it open.
    """
    named = sorted({name for name in architectures if name.strip().lower() not in _UNKNOWN})
    strange = [f"labctl knows no NVIDIA architecture {name!r}" for name in named if not architecture(name)]
    if strange:
        return strange
    served = flavours(named)
    if not served:
        return [_unserved(named)]
    return _bad_branch(named, branch) + _bad_flavour(named, branch, flavour, served)


def _unserved(named: list[str]) -> str:
    old = _older(named, _FIRST_OPEN)
    new = [name for name in named if name not in old and _place(name) >= _ONLY_OPEN]
    return (
        f"{_and(old)} needs the proprietary kernel modules and {_and(new)} the open ones, and a host can "
        "load only one of them: put these cards into different hosts"
    )


def _bad_branch(named: list[str], branch: int | None) -> list[str]:
    if branch is None:
        return []
    lowest, last = branches(named)
    if last is not None and branch > last:
        return [f"{_and(_older(named, _FIRST_OPEN))} is served up to branch {last} only, not by {branch}"]
    if branch < lowest:
        new = [name for name in named if _SINCE.get(architecture(name) or "", 0) > branch]
        return [f"{_and(new)} needs branch {lowest} or later, not {branch}"]
    return []


def _bad_flavour(
    named: list[str], branch: int | None, flavour: str, served: tuple[Flavour, ...]
) -> list[str]:
    if flavour == "open" and "open" not in served:
        return [
            f"{_and(_older(named, _FIRST_OPEN))} cannot use the open kernel modules, only the proprietary"
        ]
    if flavour == "proprietary" and "proprietary" not in served:
        new = [name for name in named if _place(name) >= _ONLY_OPEN]
        return [f"{_and(new)} cannot use the proprietary kernel modules, only the open"]
    if flavour == "proprietary" and branch is not None and branch >= _OPEN_ONLY_BRANCH:
        return [f"branch {branch} brings no proprietary kernel modules any more"]
    return []


def _place(name: str) -> int:
    return ARCHITECTURES.index(architecture(name) or name)


def _older(named: list[str], place: int) -> list[str]:
    return [name for name in named if _place(name) < place]


def _and(names: list[str]) -> str:
    return " and ".join(names)
