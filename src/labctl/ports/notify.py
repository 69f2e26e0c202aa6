"""How a process tells whoever started it how it is."""

from __future__ import annotations

from typing import Protocol


class Notify(Protocol):
    """Tells systemd, or nobody; never fails."""

    def ready(self, status: str) -> None:
        """Say that we are up."""
        ...

    def alive(self, status: str) -> None:
        """Say that we live; this feeds the watchdog."""
        ...

    def stopping(self) -> None:
        """Say that we are about to end."""
        ...
