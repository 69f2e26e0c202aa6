"""Drivers and backends: is there one set of drivers for the cards of a host, and is it the one asked for?"""

from __future__ import annotations

from collections.abc import Iterator

from labctl.domain.drivers import refusals
from labctl.domain.gpus import Vendor
from labctl.inventory import profiles
from labctl.inventory.accelerators import Amd, Nvidia
from labctl.inventory.checks.finding import Finding, Where, each_host
from labctl.inventory.hosts import Host
from labctl.inventory.rack import Rack

_BACKENDS: dict[str, tuple[Vendor, ...]] = {
    "cuda": ("nvidia",),
    "rocm": ("amd",),
    "vulkan": ("nvidia", "amd", "intel"),
}


def _vendors(host: Host) -> set[Vendor] | None:
    """Return whose cards a host has; None when that of one is not known."""
    rows = [(gpu, profiles.find(gpu.model)) for gpu in host.gpus]
    found = {row.vendor if row else gpu.vendor for gpu, row in rows}
    return None if None in found else {vendor for vendor in found if vendor is not None}


def nvidia_drivers(rack: Rack) -> Iterator[Finding]:
    """Yield hosts whose NVIDIA cards no driver serves, or not the one that is asked for."""
    for at, host in each_host(rack):
        rows = (profiles.find(gpu.model) for gpu in host.gpus)
        named = sorted({row.architecture for row in rows if row is not None and row.vendor == "nvidia"})
        if named and host.nvidia.manage and not host.vendor_image:
            yield from _refused(at, named, host.nvidia)


def _refused(at: Where, named: list[str], asked: Nvidia) -> Iterator[Finding]:
    """Yield the refusals at the field that brings them about."""
    by_card = "leave it out: labctl chooses by the cards"
    for path, branch, flavour, hint in (
        (("gpus",), None, "auto", ""),
        (("nvidia", "branch"), asked.branch, "auto", by_card),
        (("nvidia", "flavour"), asked.branch, asked.flavour, by_card),
    ):
        found = refusals(named, branch, flavour)
        for refusal in found:
            reason, _, advice = refusal.partition(": ")
            yield Finding((*at, *path), reason, advice or hint)
        if found:
            return


def pointless_settings(rack: Rack) -> Iterator[Finding]:
    """Yield settings of drivers for cards that a host does not have."""
    for at, host in each_host(rack):
        vendors = _vendors(host)
        if vendors is None:
            continue
        for field, brand, is_set in (
            ("nvidia", "NVIDIA", host.nvidia != Nvidia()),
            ("amd", "AMD", host.amd != Amd()),
        ):
            if is_set and field not in vendors:
                reason = f"says how drivers are installed, but this host has no {brand} card"
                yield Finding((*at, field), reason, "add the card to `gpus`, or remove this")


def backends(rack: Rack) -> Iterator[Finding]:
    """Yield backends that no card of the host computes with."""
    for at, host in each_host(rack):
        vendors = _vendors(host)
        wanted = _BACKENDS.get(host.backend)
        if wanted is None or vendors is None or not vendors.isdisjoint(wanted):
            continue
        reason = (
            f"no card of this host computes with {host.backend}" if host.gpus else "this host has no cards"
        )
        able = [name for name, brands in _BACKENDS.items() if not vendors.isdisjoint(brands)]
        hint = (
            f"write {' or '.join(repr(name) for name in able)}, or leave it out" if able else "leave it out"
        )
        yield Finding((*at, "backend"), reason, hint.replace("'", '"'))
