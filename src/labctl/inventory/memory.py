"""The memory of a host that models can be in, as fit planning counts it.

A card has what its row of the table says, less what its driver keeps, less a reserve where a monitor hangs
on it. Cards that share the machine's memory, and main memory there, are one pool; the system keeps its part
of it (``domain.unified``). Main memory elsewhere is what ``memory_gib`` says, less the system's part. A size
that nobody stated is 0, which is "not known".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from labctl.domain import unified
from labctl.domain.fit.terms import GIB, MIB, Device
from labctl.inventory import profiles
from labctl.inventory.accelerators import Gpu
from labctl.inventory.hosts import Host

RAM = "main memory"
UNIFIED = "unified memory"
DRIVER_RESERVE = 512 * MIB  # what drivers keep of a card, by the "free" of empty cards, rounded up
DISPLAY_RESERVE = 1024 * MIB  # a desktop's compositor and browser
# Bytes per second of two channels of DDR5-4800 in practice; a server's board has more.
_RAM_BANDWIDTH = 60 * 10**9


def name_of(gpu: Gpu) -> str:
    """Return the name by which a card is spoken of: the shortest that the inventory has."""
    return gpu.refs[0]


def of(host: Host) -> tuple[Device, ...]:
    """Return the host's devices: its cards in the order of the inventory, then main memory."""
    found = cards(host, host.gpus)
    total = host.unified_memory_gib
    if total is None and not any(one.kind == "unified" for one in found):
        return (*found, ram(host.memory_gib))
    pool = shared(RAM, total, next((one.bandwidth for one in found), 0))
    return (*found, replace(pool, kind="ram"))


def cards(host: Host, gpus: Sequence[Gpu]) -> tuple[Device, ...]:
    """Return cards of a host, in the order of the inventory; none where engines compute without them."""
    if host.backend == "none":
        return ()
    if not gpus and not host.gpus and host.unified_memory_gib is not None:
        return (shared("graphics", host.unified_memory_gib, 0),)
    return tuple(card(host, gpu) for gpu in gpus)


def ram(total_gib: int | None) -> Device:
    """Return main memory of that size; None: nobody stated it."""
    if total_gib is None:
        return Device(RAM, "ram", 0, 0)
    return Device(RAM, "ram", total_gib * GIB, unified.reserve_gib(total_gib) * GIB, _RAM_BANDWIDTH)


def card(host: Host, gpu: Gpu) -> Device:
    """Return one card of a host."""
    profile = profiles.of(gpu)
    bandwidth = int(profile.bandwidth_gb_s * 10**9)
    if profile.unified:
        return shared(name_of(gpu), host.unified_memory_gib, bandwidth)
    reserve = DRIVER_RESERVE + (DISPLAY_RESERVE if gpu.display else 0)
    return Device(name_of(gpu), "gpu", int((profile.memory_gib or 0) * GIB), reserve, bandwidth)


def shared(name: str, total_gib: int | None, bandwidth: int) -> Device:
    """Return a card whose memory is the machine's own."""
    if total_gib is None:
        return Device(name, "unified", 0, 0, bandwidth, UNIFIED)
    return Device(name, "unified", total_gib * GIB, unified.reserve_gib(total_gib) * GIB, bandwidth, UNIFIED)
