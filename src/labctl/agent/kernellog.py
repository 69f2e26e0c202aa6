"""What NVIDIA's driver complained of since the boot: its Xid messages in the kernel's log.

The journal has the whole boot and the right time of each message, if it keeps the kernel's log at all. The
kernel's own buffer always has the newest messages, with the time since the boot without sleep; so both are
read, and of a kind of message (card and code) the greater count and the later time are taken.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .calls import NOT_RUN, call
from .host import ROOT
from .sections import Finding

_BUFFER = "dev/kmsg"
_JOURNAL_S = 6.0
_RECORD_MAX = 16 << 10
_RECORDS_MAX = 200_000
_KINDS_MAX = 200
_TEXT_MAX = 200
_XID = re.compile(
    r"NVRM: Xid \(PCI:([0-9a-f]{1,8}:[0-9a-f]{2}:[0-9a-f]{2})(?:\.[0-7])?\): (\d{1,4}),?\s*(.*)",
    re.IGNORECASE,
)
_JOURNALCTL = (
    *("journalctl", "--dmesg", "--boot", "--output=json", "--no-pager", "--quiet"),
    *("--output-fields=MESSAGE", "--grep=NVRM: Xid"),
)

Message = tuple[float, str]


def xids(root: Path = ROOT) -> list[dict[str, Any]]:
    """Return each kind of Xid message of this boot: its card, code, how many, and the last one.

    Raises:
        Finding: neither the journal nor the kernel's buffer can be read.
    """
    journal, buffer = _journal() if root == ROOT else None, _kernel(root)
    if journal is None and buffer is None:
        raise Finding("neither the journal nor /dev/kmsg can be read", "ask as root: labctl apply")
    found = _counted(journal or ())
    for kind, one in _counted(buffer or ()).items():
        known = found.get(kind)
        # The buffer's time is behind by what the host slept, so the journal's goes first.
        found[kind] = one if known is None else {**known, "count": max(known["count"], one["count"])}
    return sorted(found.values(), key=lambda one: float(one["last"]))[-_KINDS_MAX:]


def _counted(messages: Iterable[Message]) -> dict[tuple[str, int], dict[str, Any]]:
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for wall, words in messages:
        match = _XID.search(words)
        if match is None:
            continue
        domain, bus, device = (int(part, 16) for part in match[1].split(":"))
        pci, code = f"{domain:04x}:{bus:02x}:{device:02x}.0", int(match[2])
        before = found.get((pci, code), {"count": 0, "last": 0.0})
        one = {"pci": pci, "code": code, "count": before["count"] + 1, "text": match[3][:_TEXT_MAX]}
        found[pci, code] = {**one, "last": max(before["last"], round(wall, 1))}
    return found


def _journal() -> list[Message] | None:
    """Return what the journal has, None where it cannot be asked; where nothing matches, it ends with 1."""
    done = call(*_JOURNALCTL, within_s=_JOURNAL_S)
    if done.status == NOT_RUN or (not done.ok and (done.status != 1 or done.err.strip())):
        return None
    return list(_lines(done.out))


def _lines(out: str) -> Iterator[Message]:
    for line in out.splitlines()[-_RECORDS_MAX:]:
        try:
            entry = json.loads(line)
            yield int(entry["__REALTIME_TIMESTAMP"]) / 1e6, str(entry["MESSAGE"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue


def _kernel(root: Path) -> list[Message] | None:
    """Return what is in the kernel's buffer; each read gives one record."""
    try:
        door = os.open(root / _BUFFER, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        records = b"".join(_records(door))
    finally:
        os.close(door)
    booted = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    found = []
    for line in records.decode(errors="replace").splitlines():
        head, _, words = line.partition(";")
        fields = head.split(",")
        if len(fields) > 3 and fields[2].isdigit() and "NVRM: Xid" in words:
            found.append((booted + int(fields[2]) / 1e6, words))
    return found


def _records(door: int) -> Iterator[bytes]:
    for _ in range(_RECORDS_MAX):
        try:
            data = os.read(door, _RECORD_MAX)
        except BrokenPipeError:
            continue  # what was to be read next was overwritten meanwhile
        except OSError:
            return  # nothing more
        if not data:
            return
        yield data
