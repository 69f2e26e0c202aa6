"""Whether models that are loaded together fit the memory of their host.

What each takes is added up for every device; devices that share a pool (unified memory) are one. A device
whose size nobody stated (``memory_bytes`` 0) decides nothing: main memory without a size is left out, and a
graphics card without one makes the verdict "not known", unless something else is over anyway. Where several
devices are over, the one that lacks most is named, and how many more there are. A model that would not start
however much is free does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labctl.domain.fit.terms import GIB, Device, Estimate, Verdict


@dataclass(frozen=True, slots=True)
class Pool:
    """Memory that is counted as one: a device, or all that share one pool. Sizes in bytes; 0: not known."""

    title: str
    devices: tuple[Device, ...]

    @property
    def known(self) -> bool:
        """Return whether its size is known."""
        return all(device.memory_bytes > 0 for device in self.devices)

    @property
    def usable(self) -> int:
        """Return the bytes that may be given away."""
        return min(device.usable_bytes for device in self.devices)

    @property
    def decides(self) -> bool:
        """Return whether a size that is not known leaves the verdict open."""
        return any(device.kind != "ram" for device in self.devices)

    def taken(self, running: Sequence[Estimate]) -> int:
        """Return the bytes that running models take of it."""
        return sum(one.on(device.name) for one in running for device in self.devices)


def pools(devices: Sequence[Device]) -> tuple[Pool, ...]:
    """Return the devices as pools, in their order."""
    by_name: dict[str, list[Device]] = {}
    for device in devices:
        by_name.setdefault(device.shared or device.name, []).append(device)
    return tuple(Pool(_title(name, parts), tuple(parts)) for name, parts in by_name.items())


def _title(name: str, parts: Sequence[Device]) -> str:
    if parts[0].shared or parts[0].kind == "unified":
        return "unified memory"
    return "main memory" if parts[0].kind == "ram" else f"GPU {name}"


def gib(size: int) -> str:
    """Return a size in bytes as GiB with one decimal, or three where it would be nothing with one."""
    return f"{size / GIB:.3f}" if 0 < size < GIB // 20 else f"{size / GIB:.1f}"


def names(running: Sequence[Estimate]) -> str:
    """Return the names of models, joined by plus signs."""
    return " + ".join(one.model for one in running)


def judge(running: Sequence[Estimate], devices: Sequence[Device]) -> Verdict:
    """Return whether the running models fit the devices together, and why; ``used`` is bytes by device."""
    every = pools(devices)
    taken = {pool.title: pool.taken(running) for pool in every}
    used = {device.name: sum(one.on(device.name) for one in running) for device in devices}
    over = sorted(
        (pool for pool in every if pool.known and taken[pool.title] > pool.usable),
        key=lambda pool: pool.usable - taken[pool.title],
    )
    verb = "need" if len(running) > 1 else "needs"
    if refused := next((one for one in running if one.refused), None):
        return Verdict(False, f"{refused.model} would not start: {refused.refused}", used=used)
    if over:
        worst = over[0]
        others = len(over) - 1
        more = f", and {others} more {'is' if others == 1 else 'are'} over" if others else ""
        because = (
            f"{names(running)} {verb} {gib_above(taken[worst.title], worst.usable)} GiB of {worst.title}"
            f" ({gib(worst.usable)} usable){more}"
        )
        return Verdict(False, because, used=used)
    if open_ := [pool for pool in every if not pool.known and pool.decides and taken[pool.title]]:
        titles = ", ".join(pool.title for pool in open_)
        unified = any(device.shared for pool in open_ for device in pool.devices)
        hint = "state unified_memory_gib of the host" if unified else "state memory_gib of the Gpu"
        return Verdict(None, f"how much memory {titles} has is not known", hint, used)
    known = [pool for pool in every if pool.known]
    if not running or not known:
        return Verdict(True, "nothing is loaded" if not running else "nothing limits it", used=used)
    tightest = max(known, key=lambda pool: taken[pool.title] / max(1, pool.usable))
    because = (
        f"{names(running)} {verb} {gib(taken[tightest.title])} of {gib(tightest.usable)} GiB"
        f" of {tightest.title}"
    )
    return Verdict(True, because, used=used)


def gib_above(size: int, limit: int) -> str:
    """Return a size as GiB that reads as more than the limit, also where both round to the same."""
    return gib(size) if gib(size) != gib(limit) else f"{size / GIB:.3f}"
