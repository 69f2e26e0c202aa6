"""What a host keeps about being put to sleep, in files below ``/run/labctl``, which a boot empties.

- ``order.json`` (644): the last suspend order and the host's own word on it. It is written before anything
  is done, so that whoever asks later hears of it even from a process that was killed.
- ``unload.json`` (644): the same of an order that only frees the cards; it closes no admission, so it never
  stands where the controller looks for its suspend order.
- ``suspend.lock`` (600): locked by the conversation that is going on, empty.
- ``stopped.json`` (600): what was stopped or unloaded for it and must run again. It is written before the
  first is stopped, and taken away when all run again.

``said`` is what is promised: "going" (it may sleep at any moment), "refused" (it will not) or "failed" (it
tried, and is dead). ``step`` says how far it came, and ``outcome`` how it ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .boottime import boot_id, now_s
from .host import document

FORMAT = 1
FOLDER = "run/labctl"
ORDER = f"{FOLDER}/order.json"
UNLOAD = f"{FOLDER}/unload.json"
STOPPED = f"{FOLDER}/stopped.json"
LOCK = f"{FOLDER}/suspend.lock"
GOING, REFUSED, FAILED = "going", "refused", "failed"
# How far an order came, in this order.
ACCEPTED, WORKING, LEAVING, CALLED, OVER = "accepted", "working", "leaving", "called", "over"


class Order(NamedTuple):
    """An order that was accepted, as it is kept.

    ``at_s`` and all other seconds are of CLOCK_BOOTTIME but ``rtc_at``, which is Unix time. ``teller`` is the
    process that tells the other end; ``gap_s`` and ``slept`` are what the machine had slept before, and
    ``mem_was`` is how it would have slept to memory.
    """

    nonce: str
    how: str
    force: bool
    lasts_s: float
    at_s: float
    boot_id: str
    rtc_at: float | None = None
    units: tuple[str, ...] | None = None
    mem_sleep: str | None = None
    mem_was: str | None = None
    teller: int = 0
    said: str = GOING
    step: str = ACCEPTED
    because: str = ""
    outcome: str = ""
    gap_s: float = 0.0
    slept: int = 0

    def is_dead(self, root: Path) -> bool:
        """Return whether it may not be obeyed any more."""
        return self.boot_id != boot_id(root) or not 0 <= now_s() - self.at_s < self.lasts_s


_TEXT, _NUMBER, _NOTHING = (str,), (int, float), (type(None),)
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("nonce", "how", "boot_id", "said", "step", "because", "outcome"), _TEXT),
    **dict.fromkeys(("lasts_s", "at_s", "gap_s"), _NUMBER),
    **dict.fromkeys(("teller", "slept"), (int,)),
    **dict.fromkeys(("mem_sleep", "mem_was"), _TEXT + _NOTHING),
    "force": (bool,),
    "rtc_at": _NUMBER + _NOTHING,
    "units": (list, *_NOTHING),
}


class Occupied(Exception):
    """Another conversation about a sleep is going on."""


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Keep every other conversation out while the block runs; the kernel ends that with this process.

    Raises:
        Occupied: one is going on.
        OSError: the lock's file cannot be made.
    """
    path = root / LOCK
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Occupied from None
        yield
    finally:
        os.close(handle)


def place(how: str) -> str:
    """Return the file of an order."""
    return UNLOAD if how == "unload" else ORDER


def save(order: Order, root: Path) -> None:
    """Replace what is kept of an order.

    Raises:
        OSError: it cannot be written; then nothing may be done.
    """
    replace(root / place(order.how), {"format": FORMAT, **order._asdict()}, 0o644)


def load(path: str, root: Path) -> Order | None:
    """Return an order that is kept, None where there is none that can be believed."""
    try:
        kept = document(root / path)
        if kept["format"] != FORMAT:
            return None
        fields = {name: kept[name] for name in Order._fields}
        if not all(isinstance(fields[name], kinds) for name, kinds in _KINDS.items()):
            return None
        if fields["units"] is not None:
            fields["units"] = tuple(map(str, fields["units"]))
        return Order(**fields) if place(fields["how"]) == path else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def replace(path: Path, content: dict[str, Any], mode: int) -> None:
    """Replace a file whole: who reads sees the old one or the new one.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(new, flags, mode), "w") as file:
            os.fchmod(file.fileno(), mode)
            json.dump(content, file)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
