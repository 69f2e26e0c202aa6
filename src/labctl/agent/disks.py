"""Room on the file systems, and what disks say of their own health; nothing is woken or spun up for it.

A file system is asked in a section of its own, so that one whose server is dead holds up none of the others.
Automount points are left alone: to look at one would mount it. The layers of containers are left out, since
they lie on a file system that is asked and come and go. A disk that stands still is not asked, and one that
only smartctl can ask says nothing where smartctl is not installed, or knows no way to ask it (most USB).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .calls import NOT_RUN, call
from .host import ROOT, number, text
from .sections import Finding, More, Section

MOST = 64
_TABLE = "proc/self/mountinfo"
_KINDS = frozenset(
    {
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "vfat", "exfat", "ntfs3"),
        *("nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "virtiofs", "fuse.sshfs", "fuse.glusterfs"),
        *("fuseblk", "fuse.mergerfs", "fuse.rclone"),
    }
)
_LAYERED = "overlay"
"""Of this kind only ``/`` has room of its own: containers have one each, on a file system that counts."""
_ESCAPED = re.compile(r"\\([0-7]{3})")
_DISK = re.compile(r"(?:sd[a-z]+|nvme\d+n\d+|hd[a-z])")
_SMARTCTL_S = 8.0
_ASLEEP = 2  # smartctl's exit, with its word for it, of a disk that stands still
_PENDING, _REALLOCATED = 197, 5  # numbers of ATA attributes


# --- file systems ---


def mounts(root: Path = ROOT) -> More:
    """Return the file systems of this host as further sections, ``mounts//srv`` and so on."""
    found: dict[str, Section] = {}
    seen = set()
    for line in (text(root / _TABLE) or "").splitlines():
        fields = line.split()
        try:
            kind, device = fields[fields.index("-") + 1 :][:2]
            number_of, top, path, flags = fields[2], fields[3], _plain(fields[4]), fields[5].split(",")
        except (ValueError, IndexError):
            continue
        # What is bound to a second place is the same file system, and has the same room; so is a subvolume.
        whole = top == "/" or path == "/" or kind == "btrfs"
        counts = kind in _KINDS or (kind == _LAYERED and path == "/")
        if counts and whole and (number_of, device) not in seen:
            seen.add((number_of, device))
            found[path] = partial(_room, root, path, _plain(device), kind, read_only="ro" in flags)
    return More([], {f"mounts/{path}": found[path] for path in list(found)[:MOST]})


def _plain(word: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), word)


def _room(root: Path, path: str, device: str, kind: str, *, read_only: bool) -> dict[str, Any]:
    try:
        found = os.statvfs(root / path.lstrip("/"))
    except OSError as error:
        raise Finding(str(error.strerror)) from None
    return {
        "path": path,
        "device": device,
        "kind": kind,
        "total_mib": found.f_blocks * found.f_frsize >> 20,
        "free_mib": found.f_bavail * found.f_frsize >> 20,
        "inodes_free_percent": round(100 * found.f_favail / found.f_files, 1) if found.f_files else None,
        "read_only": read_only,
    }


# --- what disks say of themselves ---


def smart(root: Path = ROOT) -> More:
    """Return the disks of this host as further sections, ``smart//dev/sda`` and so on."""
    folder = root / "sys/block"
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    disks = [name for name in names if _DISK.fullmatch(name)][:MOST]
    return More([], {f"smart//dev/{name}": partial(_disk, root, name) for name in disks})


def _disk(root: Path, name: str) -> dict[str, Any]:
    device = f"/dev/{name}"
    if text(root / "sys/block" / name / "device/power/runtime_status") == "suspended":
        return {**_nothing(device), "asleep": True}
    done = call(
        "smartctl", "--json", "--nocheck=standby", "--health", "--attributes", device, within_s=_SMARTCTL_S
    )
    if done.status == NOT_RUN:
        return {**_nothing(device), "temperature_c": _by_sysfs(root, name)}
    try:
        said = json.loads(done.out)
        if not isinstance(said, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError):
        raise Finding(f"smartctl does not tell: {done.why}") from None
    return judged(device, said)


def judged(device: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what smartctl's JSON says of a disk.

    Raises:
        Finding: it could not ask the disk.
    """
    control = _object(said, "smartctl")
    words = [str(one.get("string", "")) for one in control.get("messages", ()) if isinstance(one, dict)]
    passed = _object(said, "smart_status").get("passed")
    if passed is None and control.get("exit_status") == _ASLEEP and any(_sleeps(word) for word in words):
        return {**_nothing(device), "asleep": True}
    if passed is None and any(_cannot_be_asked(word) for word in words):
        return _nothing(device)
    if passed is None and words and "temperature" not in said:
        raise Finding(f"smartctl: {words[0]}")
    nvme, table = _object(said, "nvme_smart_health_information_log"), _table(said)
    spare = nvme.get("available_spare")
    return {
        **_nothing(device),
        "passed": passed if isinstance(passed, bool) else None,
        "wear_percent": nvme.get("percentage_used"),
        "media_errors": nvme.get("media_errors", table.get(_REALLOCATED)),
        "pending_sectors": table.get(_PENDING),
        "spare_percent": spare,
        "temperature_c": _object(said, "temperature").get("current"),
    }


def _sleeps(word: str) -> bool:
    return "STANDBY" in word.upper() or "SLEEP" in word.upper()


def _cannot_be_asked(word: str) -> bool:
    """Return whether smartctl knows no way to a disk: a USB bridge, a RAID controller, one without SMART."""
    return any(part in word for part in ("Unknown USB bridge", "specify device type", "please try adding"))


def _object(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = said.get(name)
    return value if isinstance(value, dict) else {}


def _table(said: Mapping[str, Any]) -> dict[int, Any]:
    """Return the raw values of an ATA disk's attributes by number."""
    rows = _object(said, "ata_smart_attributes").get("table")
    return {
        one["id"]: _object(one, "raw").get("value")
        for one in (rows if isinstance(rows, list) else ())
        if isinstance(one, dict) and isinstance(one.get("id"), int)
    }


def _nothing(device: str) -> dict[str, Any]:
    names = ("passed", "wear_percent", "media_errors", "pending_sectors", "spare_percent", "temperature_c")
    return {"device": device, **dict.fromkeys(names), "asleep": False}


def _by_sysfs(root: Path, name: str) -> float | None:
    """Return the temperature that the kernel tells of an NVMe disk."""
    sensors = sorted((root / "sys/block" / name / "device").glob("hwmon*/temp1_input"))
    milli = number(sensors[0]) if sensors else None
    return None if milli is None else milli / 1000
