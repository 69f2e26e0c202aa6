"""Cards: is each known, can each be told from the others, and can it be capped and clocked as declared?

Ranges are those of the table of cards, the widest known of any board. What is refused here no card of the
model takes; what passes may still be refused by the very card, which then has the last word.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from labctl.domain.gpus import GpuProfile
from labctl.inventory import profiles
from labctl.inventory.accelerators import Gpu
from labctl.inventory.checks.finding import Finding, Where, each_host, twice
from labctl.inventory.hosts import Host
from labctl.inventory.rack import Rack

_FIXED_CLOCKS = frozenset(("Kepler", "Maxwell", "Pascal"))  # locking came with Volta


def identities(rack: Rack) -> Iterator[Finding]:
    """Yield UUIDs that two cards of the rack have, and slots and PCI addresses that two of a host have."""
    yield from twice(
        (
            ((*at, "gpus", index, "uuid"), gpu.uuid, f"another card of host {host.name}")
            for at, host in each_host(rack)
            for index, gpu in enumerate(host.gpus)
            if gpu.uuid is not None
        ),
        hint="every card has its own; `nvidia-smi -L` on the host prints them",
    )
    for at, host in each_host(rack):
        for field, hint in (
            ("slot", "give each place a name of its own"),
            ("pci", "every card has its own; `lspci -D` on the host prints them"),
        ):
            yield from twice(
                (
                    ((*at, "gpus", index, field), getattr(gpu, field), "another card of this host")
                    for index, gpu in enumerate(host.gpus)
                    if getattr(gpu, field) is not None
                ),
                hint,
            )
        for index, gpu in enumerate(host.gpus):
            if gpu.slot == "board":
                reason = "means the mainboard where power supplies say what they feed"
                yield Finding((*at, "gpus", index, "slot"), reason, 'choose another name, such as "slot0"')


def models(rack: Rack) -> Iterator[Finding]:
    """Yield cards that no row of the table knows, and cards of another vendor than they claim."""
    for at, host in each_host(rack):
        for index, gpu in enumerate(host.gpus):
            here, row = (*at, "gpus", index), profiles.find(gpu.model)
            if row is None and (gpu.vendor is None or gpu.tdp_w is None):
                yield _unknown(here, gpu)
            elif row is not None and gpu.vendor not in (None, row.vendor):
                reason = f"{row.name} is a card by {row.vendor}, not by {gpu.vendor}"
                yield Finding((*here, "vendor"), reason, "remove it: labctl knows this card")
            if row is not None and row.unified and gpu.memory_gib is not None:
                reason = f"is of a card of its own, and a {row.name} has the machine's memory"
                yield Finding((*here, "memory_gib"), reason, "state unified_memory_gib of the host")
            elif row is not None and gpu.tdp_w is not None:
                yield from _drawn((*here, "tdp_w"), gpu.tdp_w, row)


def _drawn(path: Where, watts: int, row: GpuProfile) -> Iterator[Finding]:
    """Yield the watts of a known card that no board of it draws; the budget would believe them."""
    low, high = row.cap_min_w or row.tdp_w // 2, row.cap_max_w or row.tdp_w * 2
    if not low <= watts <= high:
        reason = f"no {row.name} draws {watts} W at full load; its boards draw {low} to {high} W"
        yield Finding(path, reason, f"remove it: labctl counts {row.tdp_w} W, or its cap")


def _unknown(here: Where, gpu: Gpu) -> Finding:
    close = profiles.closest(gpu.model)
    lacking = [
        text for text, value in (('vendor="nvidia"', gpu.vendor), ("tdp_w=300", gpu.tdp_w)) if value is None
    ]
    also = "for a card that is not among them" if close else "if that is its name"
    hint = (f"did you mean {' or '.join(close)}? " if close else "") + f"{also}, add {' and '.join(lacking)}"
    return Finding((*here, "model"), f"labctl knows no card called {gpu.model[:60]!r}", hint)


def _known(host: Host) -> Iterator[tuple[int, Gpu, GpuProfile]]:
    for index, gpu in enumerate(host.gpus):
        if profiles.find(gpu.model) is not None or (gpu.vendor is not None and gpu.tdp_w is not None):
            yield index, gpu, profiles.of(gpu)


def caps(rack: Rack) -> Iterator[Finding]:
    """Yield caps that no board of the model takes, and caps of cards that have none."""
    for at, host in each_host(rack):
        cards = list(_known(host))
        for index, gpu, row in cards:
            if gpu.cap_w is not None:
                yield from _judged((*at, "gpus", index, "cap_w"), gpu.cap_w, row)
        if host.cap_w is None:
            continue
        capped = {row.name: row for _, gpu, row in cards if gpu.cap_w is None and row.cap_max_w is not None}
        for row in capped.values():
            yield from _judged((*at, "cap_w"), host.cap_w, row)
        if len(cards) == len(host.gpus) and not any(row.cap_max_w for _, _, row in cards):
            reason = (
                "no card of this host has a power cap" if cards else "caps nothing: this host has no cards"
            )
            yield Finding((*at, "cap_w"), reason, "remove `cap_w` and `cap_reason`")


def _judged(path: Where, watts: int, row: GpuProfile) -> Iterator[Finding]:
    if row.cap_min_w is None or row.cap_max_w is None:
        yield Finding(path, f"{row.name} has no power cap", "remove `cap_w` and `cap_reason`")
    elif not row.cap_min_w <= watts <= row.cap_max_w:
        reason = f"{row.name} takes a cap of {row.cap_min_w} to {row.cap_max_w} W, not {watts} W"
        yield Finding(path, reason, _nearest(watts, row))


def _nearest(watts: int, row: GpuProfile) -> str:
    if watts > (row.cap_max_w or 0):
        return f"write {row.cap_max_w} or less, or leave it uncapped"
    lower = f"write {row.cap_min_w} or more"
    if not _locks_clocks(row):
        return lower
    return f"{lower}; to draw less, lock its clocks instead, such as clocks_mhz=(210, 1500)"


def _locks_clocks(row: GpuProfile) -> bool:
    return row.vendor == "nvidia" and row.architecture not in _FIXED_CLOCKS


def clocks(rack: Rack) -> Iterator[Finding]:
    """Yield cards whose clocks cannot be locked."""
    for at, host in each_host(rack):
        for index, gpu, row in _known(host):
            if gpu.clocks_mhz is not None and not _locks_clocks(row):
                reason = (
                    f"the clocks of {row.name} cannot be locked, only those of NVIDIA cards from Volta on"
                )
                hint = "cap its power instead" if row.cap_max_w is not None else "remove it"
                yield Finding((*at, "gpus", index, "clocks_mhz"), reason, hint)


def twins(rack: Rack) -> Iterator[Finding]:
    """Yield cards that shall be set differently, but that nothing tells from another one of their kind."""
    for at, host in each_host(rack):
        untold = [card for card in _known(host) if card[1].uuid is None and card[1].pci is None]
        if len({_wish(host, gpu) for _, gpu, _ in untold}) < 2:
            continue
        first: list[tuple[Gpu, GpuProfile]] = []
        for index, gpu, row in untold:
            alike = (card for card, other in first if not set(other.patterns).isdisjoint(row.patterns))
            other = next(alike, None)
            if other is None:
                first.append((gpu, row))
            elif _wish(host, gpu) != _wish(host, other):
                yield Finding(
                    (*at, "gpus", index, _differs(gpu, other)),
                    f"{gpu.slot} shall be set otherwise than {other.slot}, but nothing tells them apart",
                    "add `uuid` (`nvidia-smi -L` prints it) or `pci` (`lspci -D`) to one of them",
                )


def _wish(host: Host, gpu: Gpu) -> Hashable:
    """Return all that labctl sets on a card."""
    return profiles.cap_of(host, gpu), gpu.clocks_mhz


def _differs(gpu: Gpu, other: Gpu) -> str:
    fields = ("cap_w", "cap_reason", "clocks_mhz")
    return next((field for field in fields if getattr(gpu, field) != getattr(other, field)), "model")
