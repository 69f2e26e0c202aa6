"""Telling people: letters, and the couriers that carry them.

A letter has an ``id`` that stays the same when it has to be sent again, so that a receiver can tell a second
copy from a second event. A courier that cannot say whether a letter arrived says so (``certain`` is False),
and is asked (``has``) before that letter is sent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from labctl.domain.health.terms import Level


@dataclass(frozen=True, slots=True)
class Letter:
    """What is told: ``title`` in a line, ``text`` in several; ``well``: what was wrong is over.

    ``again``: an earlier try may have arrived, and the courier could not tell.
    """

    id: str
    title: str
    text: str
    level: Level
    well: bool = False
    again: bool = False


class CourierError(Exception):
    """A letter was not delivered, or perhaps was.

    Args:
        reason: in words, without an address or a password.
        certain: whether it is certain that it did not arrive.
    """

    def __init__(self, reason: str, *, certain: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.certain = certain


class Courier(Protocol):
    """Carries letters to people by one way."""

    def send(self, letter: Letter) -> None:
        """Deliver a letter within some seconds.

        Raises:
            CourierError: it did not arrive, or perhaps did not.
        """
        ...

    def has(self, letter_id: str) -> bool:
        """Return whether a letter with that id has arrived for certain; False also where nobody can tell."""
        ...


class Ping(Protocol):
    """The dead man's switch: somebody elsewhere who calls when this is no longer heard."""

    def alive(self, *, failed: bool, text: str) -> None:
        """Say that a whole run came to its end; ``failed``: it found something CRIT.

        Raises:
            CourierError: it was not heard.
        """
        ...
