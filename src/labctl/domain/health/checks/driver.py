"""NVIDIA's driver, and what it wrote into the kernel's log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from ...capping import same_address
from ..evidence import Driver, Xid
from ..saying import Voice, few, gravest, lasting
from ..seats import declared, seats, unread
from ..terms import Case, Level, Result
from ..xids import meaning

_REBOOT = "reboot the host when nothing runs on it"


def _has_nvidia(case: Case) -> bool:
    seen = (case.evidence.gpus if case.evidence is not None else None) or ()
    vendors = {gpu.vendor for gpu in seen} | {one.vendor for one in case.expected.gpus}
    return "nvidia" in vendors


class DriverMismatch:
    """The driver that runs, the one on disk and the library are one version.

    With another library nothing computes any more; with another module on disk the next boot brings it.
    """

    code: ClassVar = "driver-mismatch"
    about: ClassVar = "NVIDIA's driver is loaded, and of the same version as its library and its file"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield one result where the host has or should have NVIDIA's cards."""
        say = Voice(self.code, case.host)
        if case.evidence is None or not _has_nvidia(case):
            return
        if case.evidence.driver is None:
            errors = case.evidence.errors
            yield say.unread(errors, "driver" if "driver" in errors else "kernel")
        else:
            yield _versions(say, case.evidence.driver)


def _versions(say: Voice, driver: Driver) -> Result:
    loaded, disk, library = driver.loaded, driver.on_disk, driver.library
    if not loaded:
        cure = "look why with: dmesg; Secure Boot or a new kernel without its module are usual; labctl apply"
        return say.crit("", "NVIDIA's driver is not loaded", cure)
    if library and library != loaded:
        reason = f"the driver {loaded} is loaded and its library is {library}: nothing can compute"
        return say.crit("", reason, _REBOOT)
    if disk and disk != loaded:
        return say.warn("", f"the driver {loaded} is loaded, and {disk} is installed", _REBOOT)
    if not library and not disk:
        reason = f"the driver {loaded} is loaded; what is installed is not known"
        return say.unknown("", reason, "look with: modinfo -F version nvidia")
    return say.ok("", f"the driver {loaded} is loaded and installed")


class XidSeen:
    """What the driver reported of each card since boot, by the catalogue's action.

    A report that is older than a day warns where it was critical: somebody may have reset the card since,
    and nothing in the log would say so. Where the driver itself asks for nothing any more, it informs.
    """

    code: ClassVar = "xid"
    about: ClassVar = "the driver reported no fault of a card since boot (Xid)"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield a result for each card; those that the log names and nobody knows have their address."""
        say = Voice(self.code, case.host)
        if case.evidence is None or not _has_nvidia(case):
            return
        if case.evidence.xids is None:
            yield say.unread(case.evidence.errors, "xids")
            return
        left = list(case.evidence.xids)
        for seat in seats(case):
            gpu = seat.gpu
            if gpu is None or gpu.vendor != "nvidia":
                continue
            mine = [xid for xid in left if same_address(_device(xid.pci), gpu.pci)]
            left = [xid for xid in left if xid not in mine]
            yield _reported(say, case, seat.name, (mine, gpu.recovery == "none"))
        if "nvidia" in (silent := unread(case)):
            yield from (say.withheld(seat.name) for seat in declared(case, silent))
        for pci in dict.fromkeys(xid.pci for xid in left):
            yield _reported(say, case, pci or "a card", ([one for one in left if one.pci == pci], False))


def _device(pci: str) -> str:
    """Return the address of a card: the kernel's log leaves its function out."""
    return pci if "." in pci else f"{pci}.0"


def _reported(say: Voice, case: Case, name: str, what: tuple[Sequence[Xid], bool]) -> Result:
    xids, mended = what
    told: list[tuple[Level, str, str]] = []
    for xid in xids:
        found = meaning(xid.code, xid.text)
        if found is None:
            continue
        level, age = found.level, case.now - xid.last
        again = xid.count >= case.expected.thresholds.xid_repeated
        if found.repeated is not None and again:
            level = found.repeated
        if age > case.expected.thresholds.xid_fresh_s:
            level = Level.OK if mended or level is not Level.CRIT else Level.WARN
        times = "" if xid.count == 1 else f" {xid.count} times, last"
        told.append((level, f"Xid {xid.code}: {found.what},{times} {lasting(age)} ago", found.cure))
    if not told:
        return say.ok(name, "the driver reported nothing since boot")
    worst = gravest(*(level for level, _, _ in told))
    words = few([text for level, text, _ in told if level is worst])
    if worst is Level.OK:
        return say.informs(name, words)
    return say.at(worst, name, words, next(cure for level, _, cure in told if level is worst))
