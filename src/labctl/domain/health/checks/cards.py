"""What is judged card by card.

A card that sleeps or is missing has nothing to judge. Of one that hangs, and of all where the section of
cards is missing, nothing can be said: that much ``GpuPresent`` tells once, and no other check repeats it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from ..evidence import Gpu
from ..saying import Voice
from ..seats import Seat, declared, seats, unread
from ..terms import Case, Result


class CardCheck(ABC):
    """A check of each card that answers."""

    code: ClassVar[str]
    about: ClassVar[str]

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield what is found of each card."""
        say = Voice(self.code, case.host)
        yield from (say.withheld(seat.name) for seat in declared(case, unread(case)))
        for seat in seats(case):
            if seat.gpu is None or seat.gpu.asleep:
                continue
            if seat.gpu.code:
                yield say.withheld(seat.name)
            else:
                yield from self.card(case, seat, seat.gpu)

    @abstractmethod
    def card(self, case: Case, seat: Seat, gpu: Gpu) -> Iterator[Result]:
        """Yield what is found of a card that answers."""

    def say(self, case: Case) -> Voice:
        """Return the voice of this check."""
        return Voice(self.code, case.host)
