"""The ground of every inventory class: frozen, no unknown fields, and errors that can be collected.

pydantic raises at the first object that is wrong, but a person wants to hear of all mistakes at once. So
while ``load_rack`` runs a rack file it opens a ledger (``collecting``). In it, every constructor notes
where it was called, and one that fails writes its error there and leaves a *stand-in*: an instance of the
right class that holds the raw values, so that execution reaches the next mistake. A ledger with a mistake
always ends in ``LabctlError``: no stand-in outlives a load. Without a ledger (plain ``pyinfra``, a test, a
REPL) the error is raised at once.
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
_DEEPEST = 50  # frames looked at; a recipe that calls recipes that deep is told of its innermost ones


@dataclass(frozen=True, slots=True)
class CallSite:
    """Where a call stands: the code object, the index of the instruction in it, and its line."""

    code: CodeType
    instruction: int
    line: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """A constructor that failed: its error, the stand-in it left, and the calls to it, innermost first."""

    error: ValidationError
    stand_in: Spec
    calls: tuple[CallSite, ...]


@dataclass(slots=True)
class Ledger:
    """What was built while a rack file ran, by identity, and what went wrong.

    Beside each object stand the calls to its constructor, innermost first, up to the one in ``main``, which
    is the rack file; just the innermost where no rack file is named.
    """

    main: str = ""
    built: dict[int, tuple[Spec, tuple[CallSite, ...]]] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def calls(self, spec: object) -> tuple[CallSite, ...]:
        """Return the calls to the constructor of that very object, if it ran under this ledger."""
        entry = self.built.get(id(spec))
        return entry[1] if entry else ()


_LEDGER: ContextVar[Ledger | None] = ContextVar("labctl_inventory_ledger", default=None)


@contextmanager
def collecting(main: str = "") -> Iterator[Ledger]:
    """Collect the errors of constructors instead of raising them; yield the ledger they are written to.

    ``main`` is the rack file, by its absolute path.
    """
    ledger = Ledger(main)
    token = _LEDGER.set(ledger)
    try:
        yield ledger
    finally:
        _LEDGER.reset(token)


def calls_from(frame: FrameType | None, most: int = _DEEPEST, main: str = "") -> tuple[CallSite, ...]:
    """Return the calls on the stack that stand in code which is not this package's, innermost first.

    Ends with the first one on the top level of the file ``main``.
    """
    found: list[CallSite] = []
    while frame is not None and len(found) < most:
        code = frame.f_code
        if not code.co_filename.startswith(_HERE):
            found.append(CallSite(code, frame.f_lasti, frame.f_lineno))
            if code.co_filename == main and code.co_name == "<module>":
                break
        frame = frame.f_back
    return tuple(found)


class Spec(BaseModel):
    """A frozen part of the inventory; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, protected_namespaces=())

    # pydantic iterates over (name, value) pairs, and would take `hosts=Host(...)` for a list of such pairs.
    __iter__ = None  # type: ignore[assignment]

    def __init__(self, /, *unnamed: Any, **data: Any) -> None:
        name = type(self).__name__
        if unnamed:
            raise TypeError(f"{name}() takes named values only: write {name}(field=value, ...)")
        ledger = _LEDGER.get()
        if ledger is None:
            super().__init__(**data)
            return
        try:
            super().__init__(**data)
        except ValidationError as error:
            calls = calls_from(sys._getframe(1))
            self._stand_in(data)
            ledger.mistakes.append(Mistake(error, self, calls))
        else:
            calls = calls_from(sys._getframe(1), _DEEPEST if ledger.main else 1, ledger.main)
        ledger.built[id(self)] = (self, calls)

    # Marks the constructor as pydantic's own, so that nested dicts are validated without calling it.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def _stand_in(self, data: dict[str, Any]) -> None:
        raw = type(self).model_construct(**data)
        for slot in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
            object.__setattr__(self, slot, getattr(raw, slot))

    def to_json(self) -> dict[str, Any]:
        """Return the plain JSON form; ``pyinfra ... debug-inventory`` calls this on host data."""
        return self.model_dump(mode="json")
