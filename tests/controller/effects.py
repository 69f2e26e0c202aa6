"""Number every effect that the controller has on the world, and be there at each.

``counted`` wraps the controller's ports. Before each call that changes something, ``Counter.hit`` is called
with its name; what it does there (note it, copy the world, end the process) is up to the test. All reading is
let through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from labctl.controller.doors import Doors

STORE = frozenset(
    {
        *(
            "enlist",
            "move",
            "order",
            "note_attempt",
            "note_boot",
            "note_came_up",
            "note_repair",
            "note_proof",
        ),
        *("intend", "outcome", "happen", "prune", "bury", "wish", "end_wish", "lead", "keep_leading"),
    }
)


class Counter:
    """Counts effects; ``at`` is called with number and name before each."""

    def __init__(self, at: Callable[[int, str], None]) -> None:
        self.names: list[str] = []
        self._at = at

    def hit(self, name: str) -> None:
        self.names.append(name)
        self._at(len(self.names), name)


class Counted:
    """An object of which some methods are effects."""

    def __init__(self, inner: Any, counter: Counter, effects: frozenset[str]) -> None:
        self._inner, self._counter, self._effects = inner, counter, effects

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._effects:
            return found

        def call(*args: Any, **named: Any) -> Any:
            said = args[1] if name == "move" else args[1] if name == "intend" else ""
            self._counter.hit(f"{name} {said}".strip())
            answer = found(*args, **named)
            return Counted(answer, self._counter, frozenset({"send"})) if name == "talk" else answer

        return call


def counted(doors: Doors, counter: Counter) -> Doors:
    """Return the ports with every effect counted."""
    return replace(
        doors,
        store=Counted(doors.store, counter, STORE),
        talker=Counted(doors.talker, counter, frozenset({"talk"})),
        remote=Counted(doors.remote, counter, frozenset({"run"})),
        switches={
            name: Counted(switch, counter, frozenset({"wake", "cut"}))
            for name, switch in doors.switches.items()
        },
    )
