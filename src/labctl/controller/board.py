"""The picture that the loop has of the rack, for whoever asks: the newest one, and a bell when it changes.

Only the loop puts pictures here. Who waits sees every change of a host's mode or reason at the latest with
the next picture; none is ever old news shown as new, since each says when it was taken.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from labctl.domain.sleep.terms import Known, Moment, Seen


@dataclass(frozen=True, slots=True)
class Picture:
    """What the loop knew at a moment.

    ``waits`` is what hosts that are wanted wait for. ``store`` is what is wrong with the store, empty if
    nothing is. ``number`` rises with each picture; the first, which holds nothing, is 0.
    """

    number: int = 0
    moment: Moment = field(default_factory=lambda: Moment(0.0, float("-inf")))
    known: Known = field(default_factory=lambda: Known({}))
    seen: Seen = field(default_factory=lambda: Seen({}))
    waits: Mapping[str, str] = field(default_factory=dict)
    leader: str = ""
    leading: bool = False
    store: str = ""


class Board:
    """Holds the newest picture; may be used by any thread."""

    def __init__(self) -> None:
        self._bell = threading.Condition()
        self._picture = Picture()

    def put(self, picture: Picture) -> None:
        """Show a picture; its number is given here."""
        with self._bell:
            self._picture = _numbered(picture, self._picture.number + 1)
            self._bell.notify_all()

    def picture(self) -> Picture:
        """Return the newest picture."""
        with self._bell:
            return self._picture

    def newer(self, number: int, patience_s: float) -> Picture | None:
        """Wait for a picture after that number and return it; None if none came in that many seconds."""
        with self._bell:
            came = self._bell.wait_for(lambda: self._picture.number > number, patience_s)
            return self._picture if came else None


def _numbered(picture: Picture, number: int) -> Picture:
    return Picture(
        number,
        picture.moment,
        picture.known,
        picture.seen,
        picture.waits,
        picture.leader,
        picture.leading,
        picture.store,
    )
