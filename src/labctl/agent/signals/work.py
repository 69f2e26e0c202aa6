"""What the host itself is at: packages, downloads, load and network traffic, and shares that others use.

The package managers keep others out with locks on files. The kernel lists all locks for everybody, by device
and inode, so nothing is opened and no lock is ever taken. Overlays and btrfs show a file under another device
number than its locks, both of them made up (major 0): there the inode alone has to do. Programs without such
locks are known by their names.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from . import processes
from .processes import Processes
from .sockets import Sockets
from .terms import Host, Signal, Unreadable, Verdict, listed, plain, read, shown, times

_LOCKS = (
    *("var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "var/lib/apt/lists/lock"),
    *("var/cache/apt/archives/lock", "var/lib/rpm/.rpm.lock", "usr/lib/sysimage/rpm/.rpm.lock"),
)
_PACKAGERS = frozenset(
    {
        "apt",
        "apt-get",
        "aptitude",
        "dpkg",
        "dpkg-deb",
        "dnf",
        "dnf5",
        "dnf-3",
        "yum",
        "rpm",
        "zypper",
        "pacman",
    }
)
APPLY_LOCK = "run/labctl/apply.lock"
_BRINGS = "labctl.weights.host.main"
"""Stands in the command line of what brings models to a host."""


class Packages(Signal):
    """apt, dpkg or dnf is at work.

    Not counted is the one that the agent has count updates (``health``): it changes nothing and holds no
    lock, and a host whose health is looked at every few minutes would never sleep.
    """

    name = "packages"

    def __init__(self, host: Host, running: Processes) -> None:
        self._root = host.root
        self._running = running

    def look(self) -> Verdict:
        """Return busy where one of their locks is held, or one of them runs."""
        held = locks(self._root)
        for name in _LOCKS:
            pid = held.holder(self._root / name)
            if pid is not None:
                who = processes.name_of(self._root, pid) if pid > 0 else ""
                return Verdict(True, plain(f"{who or 'a program'} holds /{name}"))
        for process in self._running.all():
            if process.name in _PACKAGERS and not processes.is_asking(self._root, process.pid):
                return Verdict(True, f"{process.name} runs")
        return Verdict(False, "no package manager is at work")


class Downloads(Signal):
    """labctl brings a model or an engine, or changes the host otherwise."""

    name = "downloads"

    def __init__(self, host: Host, running: Processes) -> None:
        self._root = host.root
        self._running = running

    def look(self) -> Verdict:
        """Return busy while labctl's own lock is held, or its program that brings models runs."""
        if locks(self._root).holder(self._root / APPLY_LOCK) is not None:
            return Verdict(True, "labctl applies changes to this host")
        for process in self._running.all():
            if process.name.startswith("python"):
                words = processes.words_of(self._root, process.pid)
                if "-c" in words[:4] and any(_BRINGS in word for word in words[:5]):
                    return Verdict(True, "labctl brings models to this host or from it")
        return Verdict(False, "labctl brings nothing")


class Locks:
    """The files that are locked, by device (major and minor) and inode, with the process that holds each."""

    def __init__(self, held: dict[tuple[int, int, int], int]) -> None:
        self._held = held
        self._made_up = {key[2]: pid for key, pid in held.items() if key[0] == 0}

    def holder(self, path: Path) -> int | None:
        """Return the process that holds a file's lock (-1 or 0: nobody knows which), None where none does.

        Raises:
            Unreadable: the file cannot be looked at.
        """
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Unreadable(f"{shown(path)} cannot be looked at: {error.strerror}") from None
        major = os.major(status.st_dev)
        found = self._held.get((major, os.minor(status.st_dev), status.st_ino))
        return self._made_up.get(status.st_ino) if found is None and major == 0 else found


def locks(root: Path) -> Locks:
    """Return the files that are locked.

    Raises:
        Unreadable: the kernel does not list them.
    """
    content = read(root / "proc/locks")
    if content is None:
        raise Unreadable("the kernel does not list file locks")
    found = {}
    for line in content.splitlines():
        fields = line.split()
        if "->" in fields or len(fields) < 6:
            continue  # one who waits for it
        place = fields[5].split(":")
        try:
            found[int(place[0], 16), int(place[1], 16), int(place[2])] = int(fields[4])
        except (ValueError, IndexError):
            raise Unreadable("the kernel's list of file locks is not understood") from None
    return Locks(found)


class Load(Signal):
    """The processors are at work."""

    name = "load"

    def __init__(self, host: Host, percent: int) -> None:
        self._root = host.root
        self._percent = percent

    def look(self) -> Verdict:
        """Return busy where the load of one minute is above what is still quiet."""
        words = (read(self._root / "proc/loadavg") or "").split()
        try:
            load = float(words[0])
        except (ValueError, IndexError):
            raise Unreadable("the load cannot be read") from None
        count = os.cpu_count() or 1
        percent = 100 * load / count
        said = f"the load is {load:g} on {times(count, 'processor')}"
        return Verdict(percent > self._percent, f"{said}, {percent:.0f} %; {self._percent} % are quiet")


class Network(Signal):
    """Much goes over the network.

    A rate needs two looks that are a second apart or more; before the second one it is not known.
    """

    name = "network"
    _LEAST_S = 1.0

    def __init__(self, host: Host, kb_s: int) -> None:
        self._root = host.root
        self._kb_s = kb_s
        self._before = self._counted()
        self._rate: float | None = None

    def look(self) -> Verdict:
        """Return busy where more bytes than are still quiet went by since the last look."""
        at, now = self._counted()
        since, before = self._before
        if at - since >= self._LEAST_S:
            # A card that came, left or began to count anew says nothing about bytes.
            moved = sum(max(0, now[name] - before[name]) for name in now if name in before)
            self._rate = moved / (at - since) / 1000
            self._before = at, now
        if self._rate is None:
            raise Unreadable("the network was looked at only once so far")
        return Verdict(
            self._rate > self._kb_s, f"{self._rate:.0f} kB/s go over the network; {self._kb_s} are quiet"
        )

    def _counted(self) -> tuple[float, dict[str, int]]:
        try:
            content = read(self._root / "proc/net/dev") or ""
        except Unreadable:
            content = ""
        cards = {}
        for line in content.splitlines()[2:]:
            name, _, rest = line.partition(":")
            fields = rest.split()
            if len(fields) > 8 and fields[0].isdigit() and fields[8].isdigit() and name.strip() != "lo":
                cards[name.strip()] = int(fields[0]) + int(fields[8])
        real = [name for name in cards if (self._root / "sys/class/net" / name / "device").exists()]
        # Bridges and tunnels carry what a card has counted already; where there is no card they are all.
        return time.monotonic(), {name: cards[name] for name in real or cards}


class Mounts(Signal):
    """Another machine has an NFS or SMB share of this one in use.

    A client that has a share mounted keeps its connection; one that let go of it has nothing in use.
    """

    name = "mounts"
    _SHARES = ((2049, "NFS"), (445, "SMB"), (139, "SMB"))

    def __init__(self, host: Host, sockets: Sockets) -> None:
        self._root = host.root
        self._sockets = sockets

    def look(self) -> Verdict:
        """Return busy where somebody is connected to a server of shares."""
        for port, kind in self._SHARES:
            peers = sorted({one.there for one in self._sockets.to(port) if not one.is_local})
            if peers:
                more = f" and {times(len(peers) - 1, 'other')}" if len(peers) > 1 else ""
                return Verdict(True, f"{peers[0]}{more} uses a share by {kind}")
        try:
            clients = listed(self._root / "proc/fs/nfsd/clients") or []
        except Unreadable:
            clients = []  # for root alone; connections tell as much
        if clients:
            return Verdict(True, f"{times(len(clients), 'NFS client')} of this host")
        return Verdict(False, "no share is in use")
