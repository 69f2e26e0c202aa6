"""The kernel, and whether the NVIDIA driver's parts fit each other.

Three versions must be one: the loaded module's, the library's, and the module's on disk, which the next boot
loads. Loaded and library differ: nothing works until a reboot. Loaded and on disk differ: the next boot
changes the driver. The version on disk is read out of the module file's own header, which is cheap; of a
compressed module that would cost a second of CPU time, so there it is null here, and the provisioning side
asks ``modinfo`` instead.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import Any

from .host import ROOT, text

_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_LIBRARIES = (
    *("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib"),
    *("lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"),
)
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)?")
_LOADED = re.compile(r"NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s")
_SECTIONS_AT_MOST = 200
_MODINFO_AT_MOST = 1 << 20


def kernel(root: Path = ROOT) -> dict[str, Any]:
    """Return the running kernel, its Secure Boot, and the versions of the NVIDIA driver's parts."""
    release = os.uname().release
    return {
        "release": release,
        "secure_boot": _secure_boot(root),
        "nvidia_module": _loaded(root),
        "nvidia_library": _library(root),
        "nvidia_on_disk": _on_disk(root, release),
        "dkms": _dkms(root, release),
    }


def _secure_boot(root: Path) -> bool | None:
    """Return whether Secure Boot is on; without UEFI there is none."""
    if not (root / "sys/firmware/efi").is_dir():
        return False
    try:
        value = (root / _SECURE_BOOT).read_bytes()
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return value[4:] == b"\x01" if len(value) == 5 else None  # four bytes of attributes come before it


def _loaded(root: Path) -> str | None:
    version = text(root / "sys/module/nvidia/version")
    if version is None:
        found = _LOADED.search(text(root / "proc/driver/nvidia/version") or "")
        version = found[1] if found else None
    return version


def _library(root: Path) -> str | None:
    """Return the version in the name of the file that the library's link leads to."""
    for folder in _LIBRARIES:
        path = root / folder / "libnvidia-ml.so.1"
        if path.is_symlink() or path.exists():
            found = _VERSION.search(path.resolve().name.partition(".so.")[2])
            return found[0] if found else None
    return None


def _on_disk(root: Path, release: str) -> str | None:
    """Return the version of the module that the next boot of this kernel loads; null where that is costly."""
    folder = root / "lib/modules" / release
    try:
        # Lines of "PATH: paths of what it needs"; a megabyte, so nothing is taken apart but the one line.
        listing = (folder / "modules.dep").read_bytes()
        end = listing.find(b"/nvidia.ko:")
        if end < 0:
            return None
        name = listing[listing.rfind(b"\n", 0, end) + 1 : end].decode()
        return _module_version(folder / name / "nvidia.ko")
    except (OSError, ValueError, IndexError, struct.error):
        return None


def _module_version(path: Path) -> str | None:
    """Return ``version`` of the section .modinfo of a 64-bit little-endian ELF file; nothing else is read."""
    with path.open("rb") as file:
        head = file.read(64)
        if head[:6] != b"\x7fELF\x02\x01":
            return None
        (table,) = struct.unpack_from("<Q", head, 40)
        size, count, names_at = struct.unpack_from("<HHH", head, 58)
        file.seek(table)
        rows = file.read(size * min(count, _SECTIONS_AT_MOST))
        places = [struct.unpack_from("<IIQQQQ", rows, at) for at in range(0, len(rows), size)]
        names = _read(file, places[names_at])
        for place in places:
            if names[place[0] :].partition(b"\0")[0] == b".modinfo":
                fields = dict(line.partition(b"=")[::2] for line in _read(file, place).split(b"\0"))
                return fields[b"version"].decode("ascii", "replace") if b"version" in fields else None
    return None


def _read(file: Any, place: tuple[int, ...]) -> bytes:
    file.seek(place[4])
    return bytes(file.read(min(place[5], _MODINFO_AT_MOST)))


def _dkms(root: Path, release: str) -> list[str] | None:
    """Return the versions that DKMS built for the running kernel; null where DKMS has no NVIDIA driver."""
    folder = root / "var/lib/dkms/nvidia"
    if not folder.is_dir():
        return None
    return sorted(
        path.name for path in folder.iterdir() if _VERSION.match(path.name) and (path / release).is_dir()
    )
