"""What a run of ``labctl health --cron`` leaves for the next: two files, and how they are read.

``state.json`` holds what people were told and what is still to be told; it is written before anything is
sent. ``looks.json`` holds what only helps judging. A file of another form is put aside and begun anew, which
is said: then all that is wrong is told once more, which is better than never.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from labctl.domain.health.flaps import Key, Standing
from labctl.domain.health.outbox import Box
from labctl.health.looking import Memory

FORMAT = 1


class Kept(Protocol):
    """One JSON object that outlives the process; see ``adapters.keepsake``."""

    broken: str

    def load(self) -> dict[str, Any]:
        """Return the newest content; empty where there is none."""
        ...

    def save(self, document: Mapping[str, Any]) -> str:
        """Write a content; return why it could not be kept where it belongs, empty: it could."""
        ...

    def put_aside(self) -> None:
        """Move what is there out of the way."""
        ...


@dataclass(frozen=True, slots=True)
class State:
    """What people were told, and what each courier still has to bring."""

    standings: Mapping[Key, Standing] = field(default_factory=dict)
    boxes: Mapping[str, Box] = field(default_factory=dict)


_STANDINGS = TypeAdapter(tuple[tuple[Key, Standing], ...])
_BOXES = TypeAdapter(dict[str, Box])
_LOOKS = TypeAdapter(Memory)


def state_of(kept: Kept) -> State:
    """Return the state that is kept; an empty one where there is none, or none that can be read.

    Raises:
        OSError: there is one, and it may not be read.
    """
    document = kept.load()
    if not document:
        return State()
    try:
        if document.get("format") != FORMAT:
            raise ValueError("another form")
        standings = _STANDINGS.validate_python(document.get("standings"), strict=False)
        return State(dict(standings), _BOXES.validate_python(document.get("boxes"), strict=False))
    except (ValidationError, ValueError):
        kept.put_aside()
        return State()


def shown(state: State) -> dict[str, Any]:
    """Return a state, for JSON."""
    return {
        "format": FORMAT,
        "standings": _STANDINGS.dump_python(tuple(sorted(state.standings.items())), mode="json"),
        "boxes": _BOXES.dump_python(dict(state.boxes), mode="json"),
    }


def looks_of(kept: Kept) -> Memory:
    """Return what is remembered of earlier looks; nothing where it cannot be read."""
    try:
        return _LOOKS.validate_python(kept.load().get("looks", {}), strict=False)
    except (OSError, ValidationError):
        return Memory()


def looks_shown(memory: Memory) -> dict[str, Any]:
    """Return what is remembered, for JSON."""
    return {"format": FORMAT, "looks": _LOOKS.dump_python(memory, mode="json")}
