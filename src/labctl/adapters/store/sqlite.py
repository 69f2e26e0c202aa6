"""A store in an SQLite file: the default, since it needs nobody to look after it.

Readers never wait (WAL). Whoever writes begins with ``BEGIN IMMEDIATE``, so that nobody else can write
between what is read and what is written. A commit that changes what may be relied on is flushed to the disk
(``synchronous=FULL``); leases and beats are not: after a loss of power nobody is left who holds one.

The file is opened only if it is there and carries our mark. It belongs to its owner alone (0600), unless it
lies in a folder that is shared by a group: one with the setgid bit that the group may write and others may
not enter. There it is that group's too (0660), like the files that SQLite keeps beside it, whoever makes
them. A file that came from elsewhere is made so by its owner, who is the first to open it.
"""

from __future__ import annotations

import os
import random
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from labctl.ports.store import StoreError

from .database import TRY_AGAIN, Fault
from .tables import VERSION_TABLE

_MARK = 0x4C414243  # "LABC", the application id of our files
_BUSY_S = 2.0
_ASK_AGAIN_S = 0.002
_WRITE = "BEGIN IMMEDIATE"
_CONNECTIONS = 8
_LOCAL_DISK = "a store needs a local disk: not NFS, and not a directory that containers share"

_Identity = tuple[int, int]

# By the first word after SQLITE_ of the extended name: what is wrong, what to do, and whether to reconnect.
_FAULTS: dict[str, tuple[str, str, bool]] = {
    "BUSY": ("it is locked by another program", "find it with: fuser {path}", False),
    "LOCKED": ("it is locked by another program", "find it with: fuser {path}", False),
    "FULL": ("there is no space left for it", "make room with: df -h {folder}", False),
    "READONLY": ("it cannot be written", "look at: ls -ld {folder} {path}*; findmnt -T {path}", True),
    "PERM": ("it cannot be written", "look at: ls -ld {folder} {path}*; findmnt -T {path}", True),
    "CANTOPEN": ("it cannot be opened", "look at: ls -ld {folder} {path}*", True),
    "NOTADB": ("it is no SQLite file", "name another file, or put a backup in its place: {backup}", True),
    "CORRUPT": ("it is damaged", "put a backup in its place: {backup}", True),
    "IOERR": ("the disk does not take or give its data", "look at: dmesg, df -h {folder}", True),
    "NOMEM": ("there is no memory left for it", "look at: free -h", False),
}
_BACKUP = "stop labctl, remove {path}-wal and {path}-shm, copy it there, start labctl"


class SqliteFile:
    """The place of a store that is a file."""

    def __init__(self, path: Path, *, busy_s: float = _BUSY_S) -> None:
        """Touch nothing yet; ``busy_s``: how long to wait for others who write."""
        self.path = path.absolute()
        self.name = f"store {self.path}"
        self._busy_s = busy_s
        self._opened: _Identity | None = None
        self._log: _Identity | None = None
        self._stray = b""
        self._turn = threading.Lock()

    def prepare(self, *, create: bool) -> None:
        """Have the file, readable by its owner alone or by its folder's group.

        Raises:
            StoreError: it is not there and must not be made, or cannot be made.
        """
        try:
            if create:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                # None that is there: to close it would end this process's locks on it.
                with suppress(FileExistsError):
                    os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self.path.stat()
            for path in (self.path, self._beside("-wal"), self._beside("-shm")):
                with suppress(FileNotFoundError):
                    _granted(path, _group_of(self.path.parent))
        except FileNotFoundError:
            raise self._gone("there is none") from None
        except OSError as error:
            hint = self._filled(_FAULTS["CANTOPEN"][1])
            raise StoreError(f"{self.name}: cannot be opened: {error.strerror}", hint=hint) from None

    def engine(self) -> Engine:
        """Return a new engine."""
        engine = create_engine(
            "sqlite://",
            creator=self._connect,
            poolclass=QueuePool,
            pool_size=_CONNECTIONS,
            max_overflow=_CONNECTIONS,
            pool_timeout=self._busy_s + 3,
        )
        event.listen(engine, "begin", self._begin)
        return engine

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw",
            uri=True,
            timeout=self._busy_s,
            isolation_level=None,  # we alone say BEGIN
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA journal_size_limit=8000000")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _begin(self, connection: Connection) -> None:
        """Begin a transaction as its options say."""
        options = connection.get_execution_options()
        begin = options.get("labctl_begin")
        if begin is None:
            return
        wanted = options["labctl_synchronous"]
        if connection.info.get("synchronous") != wanted:
            # SQLite takes this only outside of a transaction.
            connection.exec_driver_sql(f"PRAGMA synchronous={wanted}")
            connection.info["synchronous"] = wanted
        if begin == _WRITE:
            self._begin_to_write(connection)
        else:
            connection.exec_driver_sql(begin)

    def _begin_to_write(self, connection: Connection) -> None:
        """Ask often for a while whether we may write.

        SQLite itself asks ever more seldom, up to every 100 ms: where others write without a pause, whoever
        waited longest would get the least.
        """
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        raw.execute("PRAGMA busy_timeout=0")
        end = time.monotonic() + self._busy_s
        try:
            while time.monotonic() < end:
                try:
                    raw.execute(_WRITE)
                except sqlite3.Error as error:
                    if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
                        break  # said again below, where it is explained
                    time.sleep(random.uniform(0, _ASK_AGAIN_S))
                else:
                    return
            connection.exec_driver_sql(_WRITE)
        finally:
            raw.execute(f"PRAGMA busy_timeout={int(self._busy_s * 1000)}")

    def opened(self, connection: Connection) -> None:
        """Look at a file that was just opened; see ``Place.opened``."""
        self._look_beside()
        mark = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        if mark != _MARK and (mark or pages > 1):
            hint = "name a file of its own for the store; this one was not touched"
            raise StoreError(f"{self.name}: it is an SQLite file of something else", hint=hint)
        kept = connection.exec_driver_sql("PRAGMA journal_mode=WAL").scalar_one()
        if kept != "wal":
            raise StoreError(f"{self.name}: its file system cannot share memory", hint=_LOCAL_DISK)
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if found != "ok":
            text = f"{self.name}: {_FAULTS['CORRUPT'][0]}: {found}"
            raise StoreError(text, hint=self._filled(_FAULTS["CORRUPT"][1]))
        self._opened, self._log, self._stray = _identity(self.path), _identity(self._beside("-wal")), b""

    def _look_beside(self) -> None:
        """Look at the two files that SQLite keeps beside the store, before it believes them.

        Its log of the newest writes is not tied to a file: SQLite would apply that of a file which was moved
        away to the one that was put in its place, and make one store out of two.
        """
        if (
            self._stray
            and _identity(self.path) != self._opened
            and _head(self._beside("-wal")) == self._stray
        ):
            text = f"{self._beside('-wal').name} is of the file that was there before"
            hint = f"stop labctl, remove {self.path}-wal and {self.path}-shm, start labctl"
            raise StoreError(f"{self.name}: {text}", hint=hint)
        # SQLite made them as the store was; of one that could not be written for a while they stay so.
        for path in (self._beside("-wal"), self._beside("-shm")):
            with suppress(OSError):
                if self.path.stat().st_mode & stat.S_IWUSR and not path.stat().st_mode & stat.S_IWUSR:
                    path.chmod(0o600 if _group_of(self.path.parent) is None else 0o660)

    def _beside(self, end: str) -> Path:
        return self.path.with_name(self.path.name + end)

    def check(self) -> object:
        """Return which file it is; see ``Place.check``."""
        now = _identity(self.path)
        if now is not None and now == self._opened:
            return now
        # Connections are still open, so that the number of the old log can't be that of a new one.
        if self._log is not None and _identity(self._beside("-wal")) == self._log:
            self._stray = _head(self._beside("-wal"))
        if now is None:
            raise self._gone("the file is gone")
        text = "the file was replaced by another one while it was in use"
        raise StoreError(f"{self.name}: {text}", hint=f"{TRY_AGAIN}, with the new file")

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for this process's other threads, which SQLite would have poll; see ``Place.turn``."""
        if not self._turn.acquire(timeout=self._busy_s + 3):
            raise StoreError(f"{self.name}: other threads write for too long", hint=TRY_AGAIN)
        try:
            yield
        finally:
            self._turn.release()

    def begin(self, *, write: bool, sure: bool) -> dict[str, Any]:
        """Return the execution options that begin a transaction."""
        return {
            "labctl_begin": _WRITE if write else "BEGIN",
            "labctl_synchronous": "FULL" if sure else "NORMAL",
        }

    def loosen(self, connection: Connection) -> None:
        """Let tables be rebuilt: SQLite would take the old one's end for the end of all that leads to it."""
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")

    def sound(self, connection: Connection) -> None:
        """Look whether rows still lead to each other; see ``Ground.sound``."""
        if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
            text = f"{self.name}: its rows do not fit together after the migration"
            raise StoreError(text, hint="this is a bug in labctl, or the store was changed by hand")

    def claim(self, connection: Connection) -> None:
        """Let nobody else bring the schema up, and mark the file as ours."""
        connection.exec_driver_sql(f"PRAGMA application_id={_MARK}")

    def keep_backup(self, version: str) -> Path:
        """Copy the store as it is committed to a file beside it, for its owner alone; return its path.

        Raises:
            StoreError: it cannot be copied.
        """
        backup = self.path.with_name(f"{self.path.name}.schema-{version}")
        new = backup.with_name(f"{backup.name}.new")
        try:
            new.unlink(missing_ok=True)
            os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            with closing(self._connect()) as source, closing(sqlite3.connect(new)) as copy:
                source.backup(copy)
            new.replace(backup)
        except (OSError, sqlite3.Error) as error:
            new.unlink(missing_ok=True)
            hint = "a store is only migrated once it is backed up; make room, or copy it away and try again"
            raise StoreError(f"{self.name}: no backup {backup}: {error}", hint=hint) from None
        return backup

    def explain(self, error: DBAPIError) -> Fault:
        """Return what an error of SQLite means."""
        original = error.orig
        name = getattr(original, "sqlite_errorname", None) or ""
        if VERSION_TABLE in str(original):
            return Fault(self._gone("it holds no store"))
        if name.startswith("SQLITE_CANTOPEN") and not self.path.exists():
            return Fault(self._gone("the file is gone"))
        text, hint, reconnect = _FAULTS.get(
            "_".join(name.split("_")[1:2]), (f"{original}", "this is a bug in labctl", True)
        )
        return Fault(
            StoreError(f"{self.name}: {text}", hint=self._filled(hint)),
            again=name.startswith("SQLITE_BUSY_SNAPSHOT"),
            reconnect=reconnect,
        )

    def _gone(self, what: str) -> StoreError:
        hint = "the controller makes it (labctl controller run); after a loss, put a backup there"
        return StoreError(f"{self.name}: {what}", hint=hint)

    def _filled(self, hint: str) -> str:
        backup = _BACKUP.format(path=self.path)
        return hint.format(path=self.path, folder=self.path.parent, backup=backup)


def _group_of(folder: Path) -> int | None:
    """Return the group that shares a folder, or None where it is its owner's alone."""
    status = folder.stat()
    shared = status.st_mode & stat.S_ISGID and status.st_mode & 0o077 == 0o070
    return status.st_gid if shared else None


def _granted(path: Path, group: int | None) -> None:
    """Have a file for its owner alone, or for a group too; only its owner can, and has to."""
    status = path.stat()
    if status.st_uid != os.geteuid():
        return
    own = status.st_mode & 0o600  # read-only is somebody's wish
    if group is not None and status.st_gid != group:
        # In a user namespace a group may have no number, so that it can't be named; nobody else comes then.
        with suppress(OSError):
            os.chown(path, -1, group)
    mode = own if group is None else own | own >> 3
    if status.st_mode & 0o777 != mode:
        path.chmod(mode)


def move_store(old: Path, new: Path) -> None:
    """Have a store with its newest writes at a new place, unless there is one; nobody may use it meanwhile.

    It is copied by SQLite, which knows what of it lies beside it, and then removed: the two folders may be
    different mounts. A move that was cut short begins anew.

    Raises:
        StoreError: it cannot be moved; it is where it was.
    """
    if new.exists() or not old.exists():
        return
    half = new.with_name(f"{new.name}.moving")
    try:
        half.unlink(missing_ok=True)
        os.close(os.open(half, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(old)) as source, closing(sqlite3.connect(half)) as copy:
            source.backup(copy)
        half.rename(new)
        for end in ("", "-wal", "-shm"):
            old.with_name(old.name + end).unlink(missing_ok=True)
    except (OSError, sqlite3.Error) as error:
        hint = f"make room in {new.parent}, or move {old} there by hand; then start labctl"
        raise StoreError(f"store {old}: cannot be moved to {new}: {error}", hint=hint) from None


def _identity(path: Path) -> _Identity | None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _head(path: Path) -> bytes:
    """Return what no two logs of SQLite have in common: the head with its random salts."""
    try:
        with path.open("rb") as file:
            return file.read(32)
    except OSError:
        return b""
