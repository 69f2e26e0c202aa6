"""Disks: room where models and the system lie, and what disks say of themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from ..evidence import Mount, Smart
from ..saying import Voice, gravest, over, short, under
from ..terms import Case, Figure, Level, Result
from ..thresholds import Thresholds

_ROOM = "make room: labctl models gc {host}, journalctl --vacuum-size=500M, or a larger disk"
_REPLACE = "save what is on it and have it replaced"


class DiskSpace:
    """Every file system has room left, by share and by size, and answers.

    A file system that does not answer (a dead NFS server) is critical where models lie on it, else a warning.
    """

    code: ClassVar = "disk-space"
    about: ClassVar = "file systems have room left, that of the models above all"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield a result for each file system; UNKNOWN where they are not known."""
        say, evidence = Voice(self.code, case.host), case.evidence
        if evidence is None:
            return
        models = case.expected.model_mount
        dead = dict(_named(evidence.errors, "mounts"))
        for path, why in dead.items():
            level = Level.CRIT if models and _holds(path, models) else Level.WARN
            cure = "look at its server and the network; a dead NFS mount goes with: umount -l"
            yield say.at(level, path, f"does not answer: {short(why)}", cure)
        if evidence.mounts is None:
            yield say.unread(evidence.errors, "mounts")
            return
        paths = [mount.path for mount in evidence.mounts]
        holder = max((path for path in paths if models and _holds(path, models)), key=len, default=None)
        for mount in evidence.mounts:
            if mount.path not in dead:
                yield _room(say, case.expected.thresholds, mount, of_models=mount.path == holder)


def _named(errors: Mapping[str, str], section: str) -> Iterator[tuple[str, str]]:
    for name, why in errors.items():
        if name.startswith(f"{section}:"):
            yield name.partition(":")[2], why


def _holds(mount: str, path: str) -> bool:
    return path == mount or path.startswith(f"{mount.rstrip('/')}/")


def _room(say: Voice, limits: Thresholds, mount: Mount, *, of_models: bool) -> Result:
    what = " (models)" if of_models else ""
    if mount.total_mib <= 0:
        return say.unknown(mount.path, f"does not tell its size{what}", "look on the host with: df")
    percent = max(0.0, 100 * mount.free_mib / mount.total_mib)
    by_share = under(percent, limits.disk_free_warn_percent, limits.disk_free_crit_percent)
    by_size = under(mount.free_mib, limits.disk_free_warn_mib, limits.disk_free_crit_mib)
    level = Level(min(by_share, by_size))
    figures = [Figure("free", mount.free_mib, "MiB"), Figure("free_percent", percent, "%")]
    reason = f"{percent:.0f} % or {mount.free_mib / 1024:.1f} GiB are left{what}"
    if mount.inodes_free_percent is not None:
        few = under(
            mount.inodes_free_percent, limits.inodes_free_warn_percent, limits.inodes_free_crit_percent
        )
        if few > level:
            level, reason = few, f"{mount.inodes_free_percent:.0f} % of its inodes are left{what}"
    if mount.read_only and mount.path == "/":
        cure = "look for errors of the disk with: dmesg; then reboot, which checks it"
        return say.crit(mount.path, "the system's disk can only be read", cure, *figures)
    return say.at(level, mount.path, reason, _ROOM.format(host=say.host), *figures)


class DiskSmart:
    """A disk says that it is well, and its wear, its spare blocks and its errors agree.

    A disk that sleeps or says nothing of itself yields nothing new.
    """

    code: ClassVar = "disk-smart"
    about: ClassVar = "disks say that they are well (SMART)"

    def judge(self, case: Case) -> Iterator[Result]:
        """Yield a result for each disk that tells; UNKNOWN where they could not be asked."""
        say, evidence = Voice(self.code, case.host), case.evidence
        if evidence is None:
            return
        dead = dict(_named(evidence.errors, "smart"))
        for device, why in dead.items():
            yield say.unknown(device, f"does not answer: {short(why)}", "look with: smartctl -a, and dmesg")
        if evidence.smart is None:
            yield say.unread(evidence.errors, "smart")
            return
        for disk in evidence.smart:
            if disk.device not in dead:
                yield _disk(say, case.expected.thresholds, disk)


def _disk(say: Voice, limits: Thresholds, disk: Smart) -> Result:
    if disk.passed is False:
        return say.crit(disk.device, "it says that it fails", _REPLACE)
    found: list[tuple[Level, str, str, Figure]] = []
    if disk.media_errors is not None:
        level = Level.WARN if disk.media_errors > 0 else Level.OK
        figure = Figure("media_errors", disk.media_errors, warn=1)
        found.append((level, f"{disk.media_errors} errors of its medium", _REPLACE, figure))
    if disk.pending_sectors is not None:
        level = Level.WARN if disk.pending_sectors > 0 else Level.OK
        figure = Figure("pending_sectors", disk.pending_sectors, warn=1)
        found.append((level, f"{disk.pending_sectors} sectors that cannot be read", _REPLACE, figure))
    if disk.wear_percent is not None:
        level = over(disk.wear_percent, limits.wear_warn_percent, 100)
        figure = Figure("wear", disk.wear_percent, "%", limits.wear_warn_percent, 100)
        found.append((level, f"{disk.wear_percent} % of its life are used", _REPLACE, figure))
    if disk.spare_percent is not None:
        level = under(disk.spare_percent, limits.spare_warn_percent, 0)
        figure = Figure("spare", disk.spare_percent, "%")
        found.append((level, f"{disk.spare_percent} % of its spare blocks are left", _REPLACE, figure))
    if disk.temperature_c is not None:
        level = Level.WARN if disk.temperature_c >= limits.disk_warn_c else Level.OK
        figure = Figure("temperature", disk.temperature_c, "C", limits.disk_warn_c)
        found.append((level, f"it has {disk.temperature_c:.0f} °C", "give it air", figure))
    figures = [figure for *_, figure in found]
    worst = gravest(*(level for level, *_ in found))
    if worst is not Level.OK:
        bad = [(words, cure) for level, words, cure, _ in found if level is worst]
        return say.at(worst, disk.device, ", ".join(words for words, _ in bad), bad[0][1], *figures)
    if disk.passed is None and not found:
        return say.withheld(disk.device)
    return say.ok(disk.device, "it says that it is well" if disk.passed else "nothing bad is known", *figures)
