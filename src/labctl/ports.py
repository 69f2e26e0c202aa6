"""Protocols of the side effects, so that whoever decides never imports whoever acts."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """What time it is, in the two senses that matter."""

    def now(self) -> datetime:
        """Return the wall clock time, aware of its zone."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; never goes back."""
        ...
