"""Know who asks, and how much of it they may."""

from __future__ import annotations

from labctl.domain.gateway.table import Key, Table
from labctl.gateway.access.audit import Note
from labctl.gateway.terms import Answer, Ask


class Keys:
    """The ``Access`` of a gateway; ``note`` is ``Books.note``."""

    __slots__ = ()

    def __init__(self, table: Table, note: Note) -> None:
        raise NotImplementedError

    def who(self, ask: Ask) -> Key | Answer:
        """Return whose key it shows (Authorization: Bearer, x-api-key), or the refusal."""
        raise NotImplementedError

    def enter(self, key: Key, model: str, now: float) -> Answer | None:
        """Count a request in, or refuse it; ``model`` is an id of the table, or empty for none."""
        raise NotImplementedError

    def leave(self, key: Key) -> None:
        """Count a request out that was let in."""
        raise NotImplementedError

    def may_ask(self, key: Key, model: str) -> bool:
        """Return whether a key may ask for a model at all."""
        raise NotImplementedError

    def may_wake(self, key: Key, host: str, now: float) -> Answer | None:
        """Count a wake of a host, or refuse it."""
        raise NotImplementedError
