"""Decide who fetches which file from whom, so that it is downloaded once and then goes from host to host.

The rule: a host that wants a file takes it from a host that has it, or that is getting it and hands on each
part as soon as it was checked. Among those it picks the one that hands on to the fewest, so hosts form a
chain: each sends every byte about once, and the last is done one part per hop after the first. Only where no
host has the file, or is getting it, does one host download it. Nobody is a supplier whose own way does not
lead to a host that has the file or downloads it; so no host waits for its own leavings.

A supplier that fails, lies or lacks what it said is asked last by the one that it failed, and no more after
the second time; another one takes its place, and what was received stays. A download that fails on one host
is tried by the next; content that is wrong at its own address is wrong for every host, so that ends the file.
A host that failed by itself (a full disk) ends for that file alone.

All of this is one function of what is known now, asked again after every event. There is no plan to repair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

State = Literal["checks", "drops", "wants", "gets", "has", "failed"]
WIDEST = 2
"""How many hosts at most take the same file from one host at the same time."""
MOST_FAILURES = 2
"""How often a host may fail another one, before that asks it no more."""
_WRONG_TWICE = 2


@dataclass(frozen=True, slots=True)
class Copy:
    """One host's copy of one file.

    ``checks``: it hashes what lies there and nothing vouches for. ``drops``: it throws away what is wrong.
    ``there``: bytes of it that were checked. ``supplier``: the host that it comes from while it ``gets`` it;
    "" for a download. ``failures``: how often each host failed it. ``downloaded``: whether a download failed
    here. ``wrong``: how often all of it came and was another file.
    """

    state: State
    there: int = 0
    supplier: str = ""
    failures: Mapping[str, int] = field(default_factory=dict)
    downloaded: bool = False
    wrong: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """A host shall get a file: from another host, or by a download where ``supplier`` is ""."""

    host: str
    file: str
    supplier: str


@dataclass
class Board:
    """What is known: each file's copies by host, in the order in which hosts are asked.

    ``serving``: the hosts that can hand on. ``measured``: the files whose size is known, without which nobody
    can take parts of them. ``gone``: hosts that are lost. ``download``: whether a file that
    no host has may be fetched from its own address.
    """

    files: dict[str, dict[str, Copy]]
    serving: set[str] = field(default_factory=set)
    measured: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    download: bool = True

    def note(self, file: str, host: str, **changes: object) -> None:
        """Change what is known of one copy."""
        self.files[file][host] = replace(self.files[file][host], **changes)  # type: ignore[arg-type]

    def busy(self) -> set[str]:
        """Return the hosts that are getting some file."""
        return {
            host
            for copies in self.files.values()
            for host, copy in copies.items()
            if copy.state in ("gets", "checks", "drops")
        }

    def over(self) -> bool:
        """Return whether no host that is left wants or gets anything."""
        return not any(
            copy.state in ("checks", "drops", "wants", "gets") and host not in self.gone
            for copies in self.files.values()
            for host, copy in copies.items()
        )


def orders(board: Board) -> Iterator[Order]:
    """Yield what hosts shall do now; each is noted on the board as done.

    A host works on one file at a time, in the order of the files. Those that have most of a file go first,
    so that nobody waits for a host that has less. A host that waits for one which itself has nobody to take
    the file from is sent to somebody else.
    """
    while given := list(_idle(board)) or list(_stranded(board)):
        yield from given


def _idle(board: Board) -> Iterator[Order]:
    """Yield orders for hosts that do nothing; an order may make another one possible."""
    for file, copies in board.files.items():
        idle = [h for h, copy in copies.items() if copy.state == "wants" and h not in board.gone]
        for host in sorted(idle, key=lambda name: -copies[name].there):
            if host not in board.busy():
                yield from _order(board, file, host)


def _stranded(board: Board) -> Iterator[Order]:
    """Yield orders for hosts that wait for one which has nothing to do for the file."""
    for file, copies in board.files.items():
        for host, copy in list(copies.items()):
            supplier = copies.get(copy.supplier)
            waits = copy.state == "gets" and host not in board.gone and copy.supplier not in board.gone
            if waits and supplier is not None and supplier.state == "wants":
                yield from _order(board, file, host)


def _order(board: Board, file: str, host: str) -> Iterator[Order]:
    supplier = _supplier(board, file, host)
    if supplier is not None:
        board.note(file, host, state="gets", supplier=supplier)
        yield Order(host, file, supplier)


def _supplier(board: Board, file: str, host: str) -> str | None:
    """Return from whom a host takes a file now: a host, "" for a download, None for nobody yet."""
    copies = board.files[file]
    mine = copies[host]
    load: dict[str, int] = {}
    for other, copy in copies.items():
        if copy.state == "gets" and copy.supplier and other not in board.gone and other != host:
            load[copy.supplier] = load.get(copy.supplier, 0) + 1
    able = [
        other
        for other in copies
        if other != host
        and file in board.measured
        and other in board.serving
        and mine.failures.get(other, 0) < MOST_FAILURES
        and load.get(other, 0) < WIDEST
        and flows(board, file, other)
    ]
    if able:
        # Who failed us least; the fewest to hand on to; one that is ahead of us; the one that has most.
        return min(
            able,
            key=lambda o: (
                mine.failures.get(o, 0),
                load.get(o, 0),
                copies[o].there < mine.there,
                -copies[o].there,
            ),
        )
    if not board.download or mine.downloaded or _somebody_soon(board, file, host):
        return None
    return ""


def _somebody_soon(board: Board, file: str, host: str) -> bool:
    """Return whether somebody downloads the file, or has it and may hand it on before long."""
    failures = board.files[file][host].failures
    return any(
        copy.state == "checks"
        or (copy.state == "gets" and copy.supplier == "")
        or (copy.state == "has" and other in board.serving and failures.get(other, 0) < MOST_FAILURES)
        for other, copy in board.files[file].items()
        if other != host and other not in board.gone
    )


def flows(board: Board, file: str, host: str) -> bool:
    """Return whether a host has the file, or is getting it by a way that leads to one that has it."""
    copies, seen = board.files[file], set()
    while host not in seen and host not in board.gone and host in copies:
        copy = copies[host]
        if copy.state == "has" or (copy.state == "gets" and copy.supplier == ""):
            return True
        if copy.state != "gets":
            return False
        seen.add(host)
        host = copy.supplier
    return False


def stands_still(board: Board) -> bool:
    """Return whether nothing will happen any more by itself: who wants or waits would do so for ever."""
    for file, copies in board.files.items():
        for host, copy in copies.items():
            if host in board.gone:
                continue
            if copy.state in ("checks", "drops") or (copy.state == "gets" and flows(board, file, host)):
                return False
            if copy.state == "gets" and not _waits_for_idle(board, copies, host):
                return False  # its supplier is lost or failed, of which it will say so
    return True


def _waits_for_idle(board: Board, copies: Mapping[str, Copy], host: str) -> bool:
    """Return whether a host waits, over others that wait, for one that wants the file and does nothing."""
    seen: set[str] = set()
    while host not in seen and host in copies and host not in board.gone:
        copy = copies[host]
        if copy.state == "wants":
            return True
        if copy.state != "gets":
            return False
        seen.add(host)
        host = copy.supplier
    return False


def stuck(board: Board, file: str, host: str, why: str) -> None:
    """Note that a host's supplier of a file failed it, and why."""
    copy = board.files[file][host]
    failures = dict(copy.failures)
    if copy.supplier:
        failures[copy.supplier] = failures.get(copy.supplier, 0) + 1
    downloaded = copy.downloaded or not copy.supplier
    board.note(file, host, state="wants", supplier="", failures=failures, downloaded=downloaded, reason=why)


def wrong(board: Board, file: str, host: str, why: str) -> None:
    """Note that all of a file came to a host and was another one; it is thrown away there.

    What came by a download is wrong for everybody who had it from there, directly or not, and the same
    address gives the same to every host. What came from a host may have been wrong by what was here before,
    so it is tried once more.
    """
    copy = board.files[file][host]
    if not copy.supplier:
        board.note(file, host, state="failed", there=0, reason=why)
        for other, another in board.files[file].items():
            if another.state in ("wants", "gets", "drops"):
                board.note(file, other, state="failed", there=0, supplier="", reason=why)
        return
    again = copy.wrong + 1 < _WRONG_TWICE
    state: State = "wants" if again else "failed"
    board.note(file, host, state=state, there=0, supplier="", wrong=copy.wrong + 1, reason=why)


def lost(board: Board, host: str) -> None:
    """Note that a host is gone; whoever takes something from it will say so itself."""
    board.gone.add(host)


def give_up(board: Board) -> None:
    """Note that those who still want something, or wait for somebody who does, can have it from nobody."""
    for file, copies in board.files.items():
        for host, copy in list(copies.items()):
            if copy.state in ("wants", "gets") and host not in board.gone:
                why = copy.reason or "no host has it, and it was downloaded nowhere"
                board.note(file, host, state="failed", supplier="", reason=why)
