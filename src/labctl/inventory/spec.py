"""The ground of every inventory class: frozen, no unknown fields, and errors that can be collected.

pydantic raises at the first object that is wrong, but a person wants to hear of all mistakes at once. So while
``load_rack`` runs a rack file it opens a ledger (``collecting``), and a constructor that fails writes its error
and the place of its call there, then leaves a *stand-in*: an instance of the right class that holds the raw
values, so that execution reaches the next mistake. A ledger with an entry always ends in ``LabctlError``: no
stand-in outlives a load. Without a ledger (plain ``pyinfra``, a test, a REPL) the error is raised at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

_HERE = str(Path(__file__).resolve().parent)


@dataclass(frozen=True, slots=True)
class CallSite:
    """Where in a person's file a constructor was called: the code object, and the instruction in it."""

    code: CodeType
    instruction: int
    line: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """One failed constructor: its error, what it was given, and the calls that led to it, innermost first."""

    error: ValidationError
    cls: type[BaseModel]
    given: dict[str, Any]
    calls: tuple[CallSite, ...]


@dataclass(slots=True)
class Ledger:
    """What went wrong while a rack file was run."""

    mistakes: list[Mistake] = field(default_factory=list)


_LEDGER: ContextVar[Ledger | None] = ContextVar("labctl_inventory_ledger", default=None)


@contextmanager
def collecting() -> Iterator[Ledger]:
    """Collect the errors of constructors instead of raising them; yield the ledger they are written to."""
    ledger = Ledger()
    token = _LEDGER.set(ledger)
    try:
        yield ledger
    finally:
        _LEDGER.reset(token)


def _calls(frame: FrameType | None) -> tuple[CallSite, ...]:
    """Return the places of the calls in code that is not ours, innermost first, at most 20."""
    found: list[CallSite] = []
    while frame is not None and len(found) < 20:
        if not frame.f_code.co_filename.startswith(_HERE):
            found.append(CallSite(frame.f_code, frame.f_lasti, frame.f_lineno))
        frame = frame.f_back
    return tuple(found)


class Spec(BaseModel):
    """A frozen part of the inventory; unknown fields are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=False,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            ledger = _LEDGER.get()
            if ledger is None:
                raise
            ledger.mistakes.append(Mistake(error, type(self), data, _calls(sys._getframe(1))))
            stand_in = type(self).model_construct(**data)
            for slot in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
                object.__setattr__(self, slot, getattr(stand_in, slot))

    # Marks the constructor as pydantic's own, so that nested dicts are validated without calling it.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def to_json(self) -> dict[str, Any]:
        """Return the plain JSON form; ``pyinfra ... debug-inventory`` calls this on host data."""
        return self.model_dump(mode="json")
