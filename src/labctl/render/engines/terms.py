"""What starting an engine takes, and the rule by which options become flags.

Options bear the engine's own names, so a flag is the name with ``-`` for ``_``: no table of names to fall out
of date, and what the installed build does not know is found by its ``--help``. What is None or empty is left
to the engine. Lists are joined by commas, durations are seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache

from labctl.inventory.services import Engine, Program
from labctl.render.credentials import Credential


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file that an engine reads; it holds no secret."""

    path: str
    content: str


@dataclass(frozen=True, slots=True)
class Launch:
    """How an engine is started.

    ``env`` yields to the inventory's own words. ``reads`` are paths that it must be able to read. ``before``
    are commands that come first, as its user, in its folder of state. ``marks`` say which build and which
    model files it runs: whoever writes them into a unit or a configuration gets a restart when they change.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    secrets: tuple[Credential, ...] = ()
    files: tuple[ConfigFile, ...] = ()
    before: tuple[tuple[str, ...], ...] = ()
    marks: tuple[str, ...] = ()


def options(engine: Program, *leave: str) -> Iterator[tuple[str, object]]:
    """Yield the options that the inventory states, in the order of the schema, without those to leave out.

    Only the fields of the engine's own class are its options; the others are labctl's.
    """
    for name in _own(type(engine)):
        value = getattr(engine, name)
        if value is not None and value not in ((), {}) and name not in leave:
            yield name, value


@cache
def _own(kind: type[Program]) -> tuple[str, ...]:
    return tuple(name for name in kind.model_fields if name not in Engine.model_fields and name != "kind")


def word(value: object) -> str:
    """Return a value as one word of a command line."""
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, timedelta):
        return str(int(value.total_seconds()))
    if isinstance(value, tuple):
        return ",".join(map(word, value))
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    return str(value)


def flags(engine: Program, *leave: str, one_way: tuple[str, ...] = ()) -> list[str]:
    """Return the stated options as flags; those in ``one_way`` have no ``--no-...``, since off is normal."""
    found: list[str] = []
    for name, value in options(engine, *leave):
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            if value or name not in one_way:
                found.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            found += [f"--{flag}", word(value)]
    return found
