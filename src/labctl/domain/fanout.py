"""Decide who fetches which file from whom, so that it is downloaded once and then goes from host to host.

The rule: a host that wants a file takes it from a host that has it, or that is getting it and hands on each
part as soon as it was checked. Among those it picks the one that hands on to the fewest, so hosts form a
chain: each sends every byte about once, and the last is done one part per hop after the first. Only where no
host has the file, or is getting it, does one host download it. No host ever waits for its own leavings:
whoever gets a file from me, directly or not, is no supplier of mine.

A supplier that fails, lies or lacks what it said is not asked again for that file by the one that it failed;
another one takes its place, and what was received stays. A download that fails on one host is tried by the
next; content that is wrong at its own address is wrong for every host, so that ends the file. A host that
failed by itself (a full disk) ends for that file alone.

All of this is one function of what is known now, asked again after every event. There is no plan to repair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

State = Literal["checks", "drops", "wants", "gets", "has", "failed"]
WIDEST = 2
"""How many hosts at most take the same file from one host at the same time."""
_WRONG_TWICE = 2


@dataclass(frozen=True, slots=True)
class Copy:
    """One host's copy of one file.

    ``checks``: it hashes what lies there and nothing vouches for. ``drops``: it throws away what is wrong.
    ``there``: bytes of it that were checked. ``supplier``: the host that it comes from while it ``gets`` it;
    "" for a download. ``distrusted``: hosts that failed it. ``downloaded``: whether a download failed here.
    ``wrong``: how often all of it came and was another file.
    """

    state: State
    there: int = 0
    supplier: str = ""
    distrusted: frozenset[str] = frozenset()
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
    """Yield what idle hosts shall do now; each is noted on the board as done.

    A host works on one file at a time, in the order of the files. Those that have most of a file go first,
    so that nobody waits for a host that has less.
    """
    while given := list(_pass(board)):
        yield from given


def _pass(board: Board) -> Iterator[Order]:
    """Yield what can be ordered now; an order may make another one possible."""
    for file, copies in board.files.items():
        idle = [h for h, copy in copies.items() if copy.state == "wants" and h not in board.gone]
        for host in sorted(idle, key=lambda name: -copies[name].there):
            if host in board.busy():
                continue
            supplier = _supplier(board, file, host)
            if supplier is not None:
                board.note(file, host, state="gets", supplier=supplier)
                yield Order(host, file, supplier)


def _supplier(board: Board, file: str, host: str) -> str | None:
    """Return from whom a host takes a file now: a host, "" for a download, None for nobody yet."""
    copies = board.files[file]
    load: dict[str, int] = {}
    for other, copy in copies.items():
        if copy.state == "gets" and copy.supplier and other not in board.gone:
            load[copy.supplier] = load.get(copy.supplier, 0) + 1
    able = [
        other
        for other, copy in copies.items()
        if other != host
        and file in board.measured
        and copy.state in ("has", "gets")
        and other in board.serving - board.gone
        and other not in copies[host].distrusted
        and load.get(other, 0) < WIDEST
        and host not in _upstream(copies, other)
    ]
    if able:
        # The fewest to hand on to; then one that is ahead of us; then the one that has most.
        ahead = copies[host].there
        return min(able, key=lambda o: (load.get(o, 0), copies[o].there < ahead, -copies[o].there))
    distrusted = copies[host].distrusted
    if not board.download or copies[host].downloaded or _downloading(board, copies):
        return None
    soon = any(
        copy.state == "checks" or (copy.state == "has" and other in board.serving and other not in distrusted)
        for other, copy in copies.items()
        if other != host and other not in board.gone
    )
    return None if soon else ""


def _upstream(copies: Mapping[str, Copy], host: str) -> set[str]:
    """Return the hosts that a host's copy comes through, itself included."""
    seen: set[str] = set()
    while host and host not in seen:
        seen.add(host)
        copy = copies.get(host)
        host = copy.supplier if copy is not None and copy.state == "gets" else ""
    return seen


def _downloading(board: Board, copies: Mapping[str, Copy]) -> bool:
    return any(
        copy.state == "gets" and copy.supplier == "" and host not in board.gone
        for host, copy in copies.items()
    )


def stuck(board: Board, file: str, host: str, why: str) -> None:
    """Note that a host's supplier of a file failed it, and why."""
    copy = board.files[file][host]
    distrusted = copy.distrusted | {copy.supplier} if copy.supplier else copy.distrusted
    downloaded = copy.downloaded or not copy.supplier
    board.note(
        file, host, state="wants", supplier="", distrusted=distrusted, downloaded=downloaded, reason=why
    )


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
    """Note that those who still want something can have it from nobody."""
    for file, copies in board.files.items():
        for host, copy in list(copies.items()):
            if copy.state == "wants" and host not in board.gone:
                board.note(file, host, state="failed", reason=copy.reason or "no host has it")
