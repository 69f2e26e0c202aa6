"""A file on its way: what was received so far, checked, and put in its place only when all of it is right.

It grows in a hidden file beside its destination, ``.labctl-get.X`` (the same that ``labctl apply`` uses, so
each goes on where the other was cut), with the sha256 of each part in ``.labctl-get.X.parts``. The sha256 of
the whole is computed along the way, in a thread of its own, so nothing is read twice; only a resumed file is
read once more, up to where it was cut.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from labctl.domain import parts
from labctl.weights.host import stamps

CHUNK = 1 << 20
_WAITING = 8  # chunks of 1 MiB between the network and the second hash


class HostFault(Exception):
    """This host itself cannot have the file: ``code`` for programs, the text for people."""

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        super().__init__(reason)


class Running:
    """A sha256 that is computed in a thread of its own while the next bytes come in."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._chunks: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            chunk = self._chunks.get()
            if chunk is None:
                self._chunks.task_done()
                return
            self._hash.update(chunk)
            self._chunks.task_done()

    def update(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._chunks.put(chunk)

    def state(self) -> hashlib._Hash:
        """Return a copy of the hash of everything that was given so far."""
        self._chunks.join()
        return self._hash.copy()

    def back_to(self, state: hashlib._Hash) -> None:
        """Forget what came after ``state`` was taken."""
        self._chunks.join()
        self._hash = state.copy()

    def end(self) -> None:
        """Let the thread go."""
        self._chunks.put(None)


class Incoming:
    """One file on its way to ``path``; ``there``: bytes that were received and checked."""

    def __init__(self, path: str, sha256: str, size: int | None) -> None:
        self.path, self.sha256, self.size = path, sha256, size
        self.there = 0
        self.digests: list[bytes] = []
        self.resumed = 0
        self._folder = Path(path).parent
        self._part = self._folder / f".labctl-get.{sha256[:32]}"
        self._list = self._folder / f".labctl-get.{sha256[:32]}.parts"
        self._whole = Running()
        self._fd = -1
        self._lock = -1

    def fileno(self) -> int:
        """Return the descriptor of the growing file."""
        return self._fd

    def open(self, progress: Callable[[int], None] = lambda count: None) -> None:
        """Take the folder and whatever an earlier run left there.

        Raises:
            HostFault: the folder is no safe place, or another labctl works there.
        """
        self._take_folder()
        if self._part.is_symlink():
            self._part.unlink()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._part, flags, 0o600)
        if self.size is not None:
            self._resume(progress)

    def _take_folder(self) -> None:
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        if Path(self.path).is_dir() and not Path(self.path).is_symlink():
            raise HostFault("op-failed", f"{self.path} is a directory")
        status = self._folder.stat()
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
            reason = f"others may write in {self._folder}; give it to root: chown root: and chmod go-w"
            raise HostFault("op-failed", reason)
        self._lock = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._lock = -1
            raise HostFault("locked", f"another labctl fetches into {self._folder} now") from None

    def _resume(self, progress: Callable[[int], None]) -> None:
        """Read what is there, and keep as many whole parts as are what their list says."""
        assert self.size is not None
        known = stamps.read_digests(self._list, self.size)
        there = min(os.fstat(self._fd).st_size, self.size)
        for index in range(parts.whole(self.size, there)):
            start, length = parts.bounds(self.size, index)
            before = self._whole.state()
            digest = hashlib.sha256()
            for offset in range(start, start + length, CHUNK):
                chunk = os.pread(self._fd, min(CHUNK, start + length - offset), offset)
                digest.update(chunk)
                self._whole.update(chunk)
            if index < len(known) and known[index] != digest.digest():
                self._whole.back_to(before)
                break
            self.digests.append(digest.digest())
            self.there += length
            progress(self.there)
        self.resumed = self.there
        os.ftruncate(self._fd, self.there)
        if self.there:
            stamps.write_digests(self._list, self.size, self.digests)

    def knows_size(self, size: int) -> None:
        """Take note of the size that a server tells, where none was known."""
        if self.size is None:
            self.size = size
            self._resume(lambda count: None)

    def require_room(self) -> None:
        """Raise ``HostFault`` unless what is missing fits on the disk, with a reserve left."""
        if self.size is None:
            return
        free, spare = self._space()
        missing = self.size - self.there
        if missing > free - spare:
            reason = (
                f"the disk is too small: {self._folder} needs {missing} bytes more and has {free} free, "
                f"of which {spare} stay free (No space left on device)"
            )
            raise HostFault("disk-full", reason)

    def require_spare(self) -> None:
        """Raise ``HostFault`` when no more than the reserve is free: for a file whose size nobody tells."""
        free, spare = self._space()
        if free < spare:
            reason = f"its disk is full ({self._folder}: {free} bytes free, {spare} of which stay free"
            raise HostFault("disk-full", f"{reason}: No space left on device)")

    def _space(self) -> tuple[int, int]:
        """Return the bytes that are free, and those that stay so."""
        space = os.fstatvfs(self._fd)
        return space.f_bavail * space.f_frsize, parts.reserve(space.f_blocks * space.f_frsize)

    def is_full(self) -> bool:
        """Return whether all bytes are here, right or wrong."""
        return bool(self.there) and self.there == self.size

    def part(self) -> Part:
        """Return the next part, to be filled."""
        return Part(self)

    def add(self, chunk: bytes, offset: int) -> None:
        """Write bytes at an offset, and count them into the hash of the whole."""
        view = memoryview(chunk)
        try:
            while view:
                done = os.pwrite(self._fd, view, offset)
                view, offset = view[done:], offset + done
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                text = f"its disk is full ({self._folder}: No space left on device); what came is kept"
                raise HostFault("disk-full", text) from None
            raise HostFault("op-failed", f"cannot write in {self._folder}: {error.strerror}") from None
        self._whole.update(chunk)

    def keep(self, digest: bytes, length: int) -> None:
        """Count a part as received; its digest goes to the list, for a later run."""
        assert self.size is not None
        new = not self.digests
        self.digests.append(digest)
        self.there += length
        with self._list.open("w" if new else "a") as stream:
            stream.write((stamps.header(self.size) if new else "") + f"{digest.hex()}\n")

    def state(self) -> hashlib._Hash:
        """Return the hash of everything so far."""
        return self._whole.state()

    def back_to(self, state: hashlib._Hash) -> None:
        """Forget what came after ``state`` was taken."""
        self._whole.back_to(state)

    def is_right(self) -> bool:
        """Return whether all of it has the sha256 that was asked for."""
        return self._whole.state().hexdigest() == self.sha256

    def restart(self) -> None:
        """Throw away what came."""
        os.ftruncate(self._fd, 0)
        with contextlib.suppress(FileNotFoundError):
            self._list.unlink()
        self.digests.clear()
        self.there = self.resumed = 0
        self._whole.back_to(hashlib.sha256())

    def commit(self) -> None:
        """Put the file in its place, durably, and vouch for it."""
        assert self.size is not None
        os.ftruncate(self._fd, self.size)
        if os.geteuid() == 0:
            os.fchown(self._fd, 0, 0)
        os.fchmod(self._fd, 0o644)
        os.fsync(self._fd)
        self._part.replace(self.path)
        os.fsync(self._lock)
        stamps.vouch(self.path, self.sha256, self.size, self.digests)
        with contextlib.suppress(FileNotFoundError):
            self._list.unlink()

    def close(self, *, discard: bool = False) -> None:
        """Let go of the folder; what was received stays unless it is to be thrown away, or is nothing."""
        if self._fd >= 0 and (discard or (not self.there and not os.fstat(self._fd).st_size)):
            for name in (self._part, self._list):
                with contextlib.suppress(FileNotFoundError):
                    name.unlink()
        for descriptor in (self._fd, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._fd = self._lock = -1
        self._whole.end()


class Part:
    """The next part of a file while it comes in; it counts only when it is kept."""

    def __init__(self, incoming: Incoming) -> None:
        assert incoming.size is not None
        self._incoming = incoming
        self.index = len(incoming.digests)
        self._start, self.length = parts.bounds(incoming.size, self.index)
        self._before = incoming.state()
        self._hash = hashlib.sha256()
        self.filled = 0

    @property
    def missing(self) -> int:
        """Return how many bytes it still needs."""
        return self.length - self.filled

    def add(self, chunk: bytes) -> None:
        """Take the next bytes, at most as many as are missing."""
        self._hash.update(chunk)
        self._incoming.add(chunk, self._start + self.filled)
        self.filled += len(chunk)

    def keep(self, expected: bytes | None = None) -> bool:
        """Count it as received, unless it is not what was expected; then it is as if it had never come."""
        digest = self._hash.digest()
        if self.missing or (expected is not None and expected != digest):
            self.drop()
            return False
        self._incoming.keep(digest, self.length)
        return True

    def drop(self) -> None:
        """Forget it."""
        self._incoming.back_to(self._before)
