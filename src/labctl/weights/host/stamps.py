"""The proof that a file was verified, shared with ``ops.download``: apply after a pull hashes nothing.

A stamp is /var/lib/labctl/verified/H, where H is made of the file's path. It holds device, inode, size, mtime
and ctime of the file, and its sha256: nothing can change the content without moving the ctime. Beside it,
H.parts holds the sha256 of each part, by which a byte that flipped later is traced to its part. H.found says
that labctl found the file there and did not bring it; such a file is never labctl's to remove.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat as modes
from pathlib import Path

from labctl.domain import parts

FOLDER = Path("/var/lib/labctl/verified")
_HEAD = "labctl-parts 1"


def stamp_of(path: str) -> Path:
    """Return where the stamp of a file lies; the path is taken as the inventory spells it."""
    return FOLDER / hashlib.sha256(os.fsencode(path)).hexdigest()[:32]


def _moment(nanoseconds: int) -> str:
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"


def identity(status: os.stat_result) -> str:
    """Return what tells this very file with this very content from any other, as ``stat`` prints it."""
    times = f"{_moment(status.st_mtime_ns)}:{_moment(status.st_ctime_ns)}"
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{times}"


def vouched(path: str, status: os.stat_result) -> str | None:
    """Return the sha256 that the stamp vouches for, or None where there is no stamp that still holds."""
    if not modes.S_ISREG(status.st_mode):
        return None
    try:
        known, sha256 = stamp_of(path).read_text().split()
    except (OSError, ValueError):
        return None
    return sha256 if known == identity(status) else None


def brought(path: str, status: os.stat_result) -> bool:
    """Return whether labctl brought this very file, even if its times moved since."""
    try:
        known = stamp_of(path).read_text()
    except (OSError, ValueError):
        return False
    same = known.startswith(f"{status.st_dev}:{status.st_ino}:{status.st_size}:")
    return same and not _found(path).exists()


def _found(path: str) -> Path:
    return Path(f"{stamp_of(path)}.found")


def vouch(path: str, sha256: str, size: int, digests: list[bytes], *, ours: bool = True) -> None:
    """Write the stamp of a file that lies at ``path`` and was just verified, and the digests of its parts.

    ``ours``: labctl brought it. Should this be cut, it counts as found.
    """
    stamp = stamp_of(path)
    FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not ours:
        _replace(_found(path), "")
    if len(digests) == parts.count(size):
        write_digests(Path(f"{stamp}.parts"), size, digests)
    _replace(stamp, f"{identity(os.lstat(path))} {sha256}\n")
    if ours:
        _found(path).unlink(missing_ok=True)


def forget(path: str) -> None:
    """Remove the stamp of a file that is no more."""
    for name in (stamp_of(path), Path(f"{stamp_of(path)}.parts"), _found(path)):
        with contextlib.suppress(FileNotFoundError):
            name.unlink()


def digests_of(path: str, size: int) -> list[bytes]:
    """Return the digests of the parts of a verified file; empty where they are not known."""
    found = read_digests(Path(f"{stamp_of(path)}.parts"), size)
    return found if len(found) == parts.count(size) else []


def write_digests(path: Path, size: int, digests: list[bytes]) -> None:
    """Write a list of digests."""
    _replace(path, header(size) + "".join(f"{digest.hex()}\n" for digest in digests))


def header(size: int) -> str:
    """Return the first line of a list of digests."""
    return f"{_HEAD} {size} {parts.part_size(size)}\n"


def read_digests(path: Path, size: int) -> list[bytes]:
    """Return the digests in a list that was cut for a file of that size; what is no digest ends it."""
    found: list[bytes] = []
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError):
        return found
    if not lines or f"{lines[0]}\n" != header(size):
        return found
    for line in lines[1:]:
        try:
            digest = bytes.fromhex(line)
        except ValueError:
            break
        if len(digest) != 32:
            break
        found.append(digest)
    return found


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    with new.open("w") as stream:
        stream.write(text)
        os.fchmod(stream.fileno(), 0o644)
    new.replace(path)
