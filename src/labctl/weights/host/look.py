"""What of the models is on this host: complete and vouched for, there but unverified, begun, or absent.

Looking reads no content. ``verify`` does: it reads each file once, for the sha256 of the whole and of each
part, and renews the proof of a file that is right. ``collect`` removes what it is told to remove, but looks
once more right before: only a plain file that is the very one that was meant, and that nobody has open.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat as modes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from labctl.domain import parts
from labctl.weights.host import stamps
from labctl.weights.host.incoming import CHUNK, Running

_PARTIAL = ".labctl-get."
MOST_FILES = 20_000


def look(wanted: list[dict[str, Any]], folders: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is at each wanted path, and every file below the folders."""
    kept = set()
    for one in wanted:
        with contextlib.suppress(OSError):
            status = Path(one["path"]).stat()
            kept.add((status.st_dev, status.st_ino))
    return {"files": [_file(one) for one in wanted], "others": _others(folders, kept)}


def _file(wanted: dict[str, Any]) -> dict[str, Any]:
    path, sha256 = wanted["path"], wanted["sha256"] or ""
    found: dict[str, Any] = {"path": path, "kind": "absent", "size": 0, "vouched": None, "part": 0}
    try:
        status = Path(path).stat()
        found["kind"] = "file" if modes.S_ISREG(status.st_mode) else "other"
        found["size"] = status.st_size
        found["vouched"] = stamps.vouched(path, os.lstat(path))
    except OSError:
        pass
    partial = Path(path).parent / f"{_PARTIAL}{sha256[:32]}"
    with contextlib.suppress(OSError):
        found["part"] = partial.lstat().st_size if sha256 else 0
    return {**found, **_room(Path(path).parent)}


def _room(folder: Path) -> dict[str, int]:
    """Return the file system on which the folder is, or will be, and its space."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        space = os.statvfs(folder)
        device = folder.stat().st_dev
    except OSError:
        return {}
    return {
        "device": device,
        "free": space.f_bavail * space.f_frsize,
        "total": space.f_blocks * space.f_frsize,
    }


def _others(folders: list[dict[str, Any]], kept: set[tuple[int, int]]) -> list[dict[str, Any]]:
    """Return the plain files below the folders, but no wanted one under another name (a linked folder)."""
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for path in _walk(folder["path"], deep=folder["deep"]):
            try:
                status = os.lstat(path)
            except OSError:
                continue
            if (status.st_dev, status.st_ino) in kept:
                continue
            if modes.S_ISREG(status.st_mode) and len(found) < MOST_FILES:
                found[path] = {
                    "path": path,
                    "size": status.st_size,
                    "allocated": status.st_blocks * 512,
                    "identity": stamps.identity(status),
                    "vouched": stamps.vouched(path, status) is not None and stamps.brought(path, status),
                }
    return list(found.values())


def _walk(folder: str, *, deep: bool) -> Iterator[str]:
    for place, _, names in os.walk(folder, followlinks=False):
        yield from (f"{place}/{name}" for name in sorted(names))
        if not deep:
            return


def held_open() -> set[tuple[int, int]]:
    """Return device and inode of every file that some process has open or mapped."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        for kind in ("fd", "map_files"):
            try:
                for name in (process / kind).iterdir():
                    with contextlib.suppress(OSError):
                        status = name.stat()
                        found.add((status.st_dev, status.st_ino))
            except OSError:
                continue  # it ended meanwhile
    return found


def collect(doomed: list[dict[str, str]], roots: list[str], *, really: bool) -> dict[str, Any]:
    """Remove those files, and the folders below ``roots`` that this leaves empty; say what became of each."""
    busy, removed, kept = held_open(), [], []
    for one in doomed:
        path = one["path"]
        try:
            status = os.lstat(path)
            if not modes.S_ISREG(status.st_mode) or stamps.identity(status) != one["identity"]:
                kept.append({"path": path, "why": "it changed meanwhile"})
            elif (status.st_dev, status.st_ino) in busy:
                kept.append({"path": path, "why": "a process has it open"})
            else:
                if really:
                    Path(path).unlink()
                    stamps.forget(path)
                    _remove_empty(Path(path).parent, roots)
                removed.append({"path": path, "bytes": status.st_blocks * 512})
        except OSError as error:
            kept.append({"path": path, "why": error.strerror or str(error)})
    return {"removed": removed, "kept": kept}


def _remove_empty(folder: Path, roots: list[str]) -> None:
    while any(str(folder).startswith(f"{root}/") for root in roots):
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def verify(path: str, sha256: str | None, progress: Callable[[int], None]) -> dict[str, Any]:
    """Read a file once; return its sha256 and those of its parts, and which parts are not as they were."""
    try:
        # A pipe that somebody put there would keep us waiting for whoever writes into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return {"kind": "absent"}
    except OSError as error:
        return {"kind": "unreadable", "why": error.strerror or str(error)}
    try:
        status = os.fstat(descriptor)
        if not modes.S_ISREG(status.st_mode):
            return {"kind": "other"}
        known = stamps.digests_of(path, status.st_size)
        whole, digests = _read(descriptor, status.st_size, progress)
        same = stamps.identity(os.fstat(descriptor)) == stamps.identity(status)
    except OSError as error:
        return {"kind": "unreadable", "why": error.strerror or str(error)}
    finally:
        os.close(descriptor)
    if whole == sha256 and same and not Path(path).is_symlink():
        ours = stamps.brought(path, status)
        stamps.vouch(path, whole, status.st_size, digests, ours=ours)
    elif sha256 is not None and whole != sha256:
        # Its proof must not hold any more; what its parts were stays known.
        stamps.stamp_of(path).unlink(missing_ok=True)
    flipped = [index for index in range(min(len(known), len(digests))) if known[index] != digests[index]]
    return {
        "kind": "file" if same else "changing",
        "size": status.st_size,
        "sha256": whole,
        "flipped": flipped,
        "digests": [digest.hex() for digest in digests],
    }


def _read(descriptor: int, size: int, progress: Callable[[int], None]) -> tuple[str, list[bytes]]:
    running, digests = Running(), []
    try:
        for index in range(parts.count(size)):
            start, length = parts.bounds(size, index)
            digest = hashlib.sha256()
            for offset in range(start, start + length, CHUNK):
                chunk = os.pread(descriptor, min(CHUNK, start + length - offset), offset)
                digest.update(chunk)
                running.update(chunk)
                progress(offset + len(chunk))
            digests.append(digest.digest())
        return running.state().hexdigest(), digests
    finally:
        running.end()
