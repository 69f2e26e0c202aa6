"""PCIe links of cards: risers and slots that are worse than they should be.

A link lowers its generation when it idles, by design, and never its width: so width is judged always, and
generation only while the card is busy. Where a card is built into a processor, its link says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from ..evidence import Gpu, Link
from ..seats import Seat
from ..terms import Case, Figure, Result
from .cards import CardCheck
from .past import grown

_CURE = "seat the card and its riser anew; if the slot has no more, say so: {field}={now} in its Gpu"


def _link(seat: Seat, gpu: Gpu) -> Link | None:
    return gpu.link if seat.expected is None or seat.expected.linked else None


class PcieWidth(CardCheck):
    """A link has as many lanes as its slot is declared to have, else as the card can use there."""

    code: ClassVar = "pcie-width"
    about: ClassVar = "a card's PCIe link has all its lanes"

    def card(self, case: Case, seat: Seat, gpu: Gpu) -> Iterator[Result]:
        """Yield UNKNOWN where a width is declared, or could be had, and is not told."""
        say, link = self.say(case), _link(seat, gpu)
        declared = seat.expected.width if seat.expected is not None else None
        wanted = declared or (link.width_max if link is not None else None)
        if not wanted or (seat.expected is not None and not seat.expected.linked):
            return
        if link is None or not link.width:
            yield say.unknown(seat.name, "its PCIe link does not tell its width", "look with: lspci -vv")
            return
        figure = Figure("lanes", link.width)
        if link.width < wanted:
            reason = f"its PCIe link has {link.width} of {wanted} lanes"
            yield say.warn(seat.name, reason, _CURE.format(field="pcie_width", now=link.width), figure)
        else:
            yield say.ok(seat.name, f"its PCIe link has {link.width} lanes", figure)


class PcieGen(CardCheck):
    """A link of a busy card runs at the declared generation, else at the card's best there."""

    code: ClassVar = "pcie-gen"
    about: ClassVar = "a busy card's PCIe link runs at full speed"

    def card(self, case: Case, seat: Seat, gpu: Gpu) -> Iterator[Result]:
        """Yield nothing new of an idle card: its link rests."""
        say, link = self.say(case), _link(seat, gpu)
        declared = seat.expected.gen if seat.expected is not None else None
        wanted = declared or (link.gen_max if link is not None else None)
        if link is None or not wanted:
            return
        if not link.gen or (gpu.busy_percent or 0) < case.expected.thresholds.loaded_percent:
            yield say.withheld(seat.name)
            return
        figure = Figure("generation", link.gen)
        if link.gen < wanted:
            reason = f"its PCIe link runs at generation {link.gen} of {wanted} under load"
            yield say.warn(seat.name, reason, _CURE.format(field="pcie_gen", now=link.gen), figure)
        else:
            yield say.ok(seat.name, f"its PCIe link runs at generation {link.gen} under load", figure)


class PcieReplays(CardCheck):
    """A link hardly ever has to send something again; only what came since the run before counts."""

    code: ClassVar = "pcie-replays"
    about: ClassVar = "a card's PCIe link does not repeat itself"

    def card(self, case: Case, seat: Seat, gpu: Gpu) -> Iterator[Result]:
        """Yield nothing new of a card that was not counted in the run before."""
        say, link, limits = self.say(case), _link(seat, gpu), case.expected.thresholds
        if link is None or link.replays is None:
            return
        growth = grown(case, gpu, lambda card: card.link.replays if card.link is not None else None)
        if growth is None:
            yield say.withheld(seat.name)
            return
        figure = Figure("replays", link.replays)
        reason = f"its PCIe link repeated {growth.count} packets since the run before"
        if growth.count >= limits.replays_least and growth.per_hour >= limits.replays_per_hour:
            cure = "seat the card and its riser anew, or lower the slot's generation in the BIOS"
            yield say.warn(seat.name, reason, cure, figure)
        else:
            yield say.ok(seat.name, reason, figure)
