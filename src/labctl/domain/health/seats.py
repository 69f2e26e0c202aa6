"""Which card of a host is which declared one, so that all checks call a card by one name.

By UUID, else by PCI address, else a free one of its model (``domain.capping``). A card that sleeps or hangs
may tell neither UUID nor name: it stands for a declared card that nothing else was found for, since what
cannot be read is not missing. A card that nothing tells apart from others is called by its address.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from ..capping import Card, Declared, match, replaced, same_address
from .evidence import Gpu
from .expected import ExpectedGpu
from .terms import Case


@dataclass(frozen=True, slots=True)
class Seat:
    """A card: what is declared of it, and what it said; None: not declared, or not found."""

    expected: ExpectedGpu | None
    gpu: Gpu | None
    replaced: bool = False

    @property
    def name(self) -> str:
        """Return what people call it."""
        found = "" if self.gpu is None else self.gpu.pci or self.gpu.uuid or ""
        if self.expected is None:
            return found or "a card"
        own = self.expected.declared
        return own.slot or own.pci or own.uuid or (found if self.gpu is not None else self.expected.label)

    @property
    def speaks(self) -> bool:
        """Return whether it was asked and answered, so that its numbers are worth a look."""
        return self.gpu is not None and not self.gpu.asleep and not self.gpu.code


def unread(case: Case) -> dict[str, str]:
    """Return why the cards of a vendor could not be read, by vendor."""
    evidence = case.evidence
    if evidence is None:
        return {}
    seen = {gpu.vendor for gpu in evidence.gpus or ()}
    declared = dict.fromkeys(one.vendor for one in case.expected.gpus if one.vendor not in seen)
    everywhere = evidence.errors.get("gpus", "") if evidence.gpus is None else ""
    return {
        vendor: evidence.errors.get(vendor, everywhere)
        for vendor in declared
        if evidence.gpus is None or vendor in evidence.errors
    }


def declared(case: Case, vendors: Collection[str]) -> tuple[Seat, ...]:
    """Return the declared cards of some vendors, as if none of them was found."""
    return tuple(Seat(one, None) for one in case.expected.gpus if one.vendor in vendors)


def seats(case: Case) -> tuple[Seat, ...]:
    """Return the declared cards in their order, then those that nobody declared.

    Cards of vendors that could not be read (``unread``) are not among them.
    """
    if case.evidence is None or case.evidence.gpus is None:
        return ()
    silent = unread(case)
    # Copies, so that two that are declared alike stay two.
    pairs = [(replace(one.declared), one) for one in case.expected.gpus if one.vendor not in silent]
    cards = [(_card(gpu), gpu) for gpu in case.evidence.gpus]
    expected = {id(declared): one for declared, one in pairs}
    real = {id(card): gpu for card, gpu in cards}
    found: dict[int, Seat] = {}
    spare: list[Gpu] = []
    for vendor in dict.fromkeys((*(one.vendor for _, one in pairs), *(gpu.vendor for _, gpu in cards))):
        matched = match(
            [declared for declared, one in pairs if one.vendor == vendor],
            [card for card, gpu in cards if gpu.vendor == vendor],
        )
        for declared, card in matched.pairs:
            found[id(declared)] = Seat(expected[id(declared)], real[id(card)], replaced(declared, card))
        left = [real[id(card)] for card in matched.extra]
        for declared in matched.missing:
            stand_in = next((gpu for gpu in left if _may_be(declared, gpu)), None)
            if stand_in is not None:
                left.remove(stand_in)
                found[id(declared)] = Seat(expected[id(declared)], stand_in)
        spare += left
    return (
        *(found.get(id(declared), Seat(one, None)) for declared, one in pairs),
        *(Seat(None, gpu) for gpu in spare),
    )


def _card(gpu: Gpu) -> Card:
    return Card(gpu.vendor, gpu.uuid, gpu.pci, gpu.name, device=gpu.device)


def _may_be(declared: Declared, gpu: Gpu) -> bool:
    """Return whether a card that tells no name may be that one."""
    silent = gpu.uuid is None and (gpu.asleep or bool(gpu.code))
    return silent and (declared.pci is None or gpu.pci is None or same_address(declared.pci, gpu.pci))
