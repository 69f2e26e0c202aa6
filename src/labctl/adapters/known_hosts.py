"""Write the pinned host keys; nothing else in labctl ever writes that file.

One writer at a time, readers never wait, and whoever dies in the middle leaves the old file whole. The new
text goes into ``.known_hosts.new`` beside the file, which is also the lock: it is held from before the old
text is read until the new one has been flushed to the disk and renamed over it. A lock that was renamed away
or unlinked while we waited for it is no longer *the* lock, so we look again. What a killed writer leaves
behind is unlocked and gets overwritten by the next one.

The lines of other hosts, comments included, stay as they are, byte for byte.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from labctl.domain.enrolment import HostKey
from labctl.domain.problem import LabctlError, Problem
from labctl.inventory.known_hosts import KnownHost, fingerprint, load, lookup, render

PATIENCE_S = 10.0
_PAUSE_S = 0.05

Choice = Mapping[str, Sequence[HostKey]]


def pin(
    path: Path, choose: Callable[[tuple[KnownHost, ...]], Choice], *, patience_s: float = PATIENCE_S
) -> bool:
    """Let ``choose`` say, from the entries as they are now, which keys each name has from now on.

    ``choose`` runs under the lock; what it raises leaves the file alone. Names that it leaves out keep their
    keys. Return whether the file was written.

    Raises:
        LabctlError: the file holds a line that cannot be read, another labctl keeps it locked for longer
            than ``patience_s``, or it cannot be written.
    """
    target = path.resolve()
    try:
        with _locked(target, patience_s) as new:
            entries = load(target)
            before = target.read_bytes() if target.exists() else b""
            after = _edited(before, entries, choose(entries))
            if after == before:
                return False
            _replace(target, new, after)
            return True
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}"
        raise LabctlError([Problem(reason, hint="nothing was changed", file=str(path))]) from None


def _edited(before: bytes, entries: Sequence[KnownHost], choice: Choice) -> bytes:
    """Return the text with the lines of the chosen names replaced, all others untouched."""
    lines = before.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    chosen = {name.lower(): keys for name, keys in choice.items()}
    drop: set[int] = set()
    for entry in entries:
        rest = tuple(name for name in entry.names if name not in chosen)
        if rest == entry.names:
            continue
        if rest:
            lines[entry.line - 1] = render([replace(entry, names=rest)]).rstrip("\n").encode()
        else:
            drop.add(entry.line)
    kept = [line for number, line in enumerate(lines, 1) if number not in drop]
    fresh = [KnownHost((name,), key.keytype, key.key_b64) for name, keys in chosen.items() for key in keys]
    return b"".join(line + b"\n" for line in kept) + render(fresh).encode()


def _replace(target: Path, new: int, text: bytes) -> None:
    """Write the text to the open lock file and let it take the target's place."""
    os.ftruncate(new, 0)
    with os.fdopen(os.dup(new), "wb") as stream:
        stream.write(text)
    os.fchmod(new, 0o644)
    os.fsync(new)
    _lock_path(target).rename(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _lock_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.new")


@contextlib.contextmanager
def _locked(target: Path, patience_s: float) -> Iterator[int]:
    """Hold the lock and give its descriptor; an unused lock file is removed again."""
    lock = _lock_path(target)
    until = time.monotonic() + patience_s
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if not _taken(descriptor, until):
                raise LabctlError(
                    [
                        Problem(
                            "another labctl has it locked", hint="try again when it is done", file=str(target)
                        )
                    ]
                )
            if not _same_file(descriptor, lock):
                continue
            try:
                yield descriptor
            finally:
                if _same_file(descriptor, lock):
                    lock.unlink()
            return
        finally:
            os.close(descriptor)


def _taken(descriptor: int, until: float) -> bool:
    """Return whether the lock could be taken before the clock showed ``until``."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_PAUSE_S)
        else:
            return True


def _same_file(descriptor: int, path: Path) -> bool:
    """Return whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def pinned(entries: Sequence[KnownHost], address: str, port: int) -> tuple[HostKey, ...]:
    """Return the keys that ``entries`` hold for that address and port."""
    found = lookup(entries, address, port)
    return tuple(HostKey(each.keytype, _canonical(each.key_b64), fingerprint(each.key_b64)) for each in found)


def _canonical(key_b64: str) -> str:
    """Return the one spelling of the key; base64 has several, and keys are compared as text."""
    return base64.b64encode(base64.b64decode(key_b64)).decode()
