"""Processes, as everybody may see them: names, command lines, owners, and the units that they run in."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from .terms import AGENT_PATH, Unreadable, listed, read

# Where systemd's own tree of groups is: alone, beside version 1, or as version 1.
_GROUPS = ("sys/fs/cgroup", "sys/fs/cgroup/unified", "sys/fs/cgroup/systemd")
_GENERATIONS = 8

_JOB = re.compile(
    r"/user@([0-9]+)\.service/(?:[^/]+/)*(?:(?!init\.scope|libpod-|podman-|docker-|nerdctl-)[^/]+\.scope|run-[^/]+\.service)$"
)


class Process(NamedTuple):
    """A process by number and short name, with the number of its owner."""

    pid: int
    name: str
    uid: int


class Processes:
    """The host's processes, listed once for all signals of one look."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: tuple[Process, ...] | None = None

    def forget(self) -> None:
        """Begin a new look."""
        self._known = None

    def all(self) -> tuple[Process, ...]:
        """Return all processes.

        Raises:
            Unreadable: the kernel does not list them.
        """
        if self._known is None:
            self._known = self._listed()
        return self._known

    def _listed(self) -> tuple[Process, ...]:
        names = listed(self._root / "proc")
        if names is None:
            raise Unreadable("/proc is not there")
        found = []
        folder = str(self._root / "proc")
        for number in names:
            if not number.isdigit():
                continue
            try:
                with open(f"{folder}/{number}/comm", "rb") as file:  # noqa: PTH123 (hundreds, each look)
                    name = file.read(64).decode(errors="replace").rstrip("\n")
                    found.append(Process(int(number), name, os.fstat(file.fileno()).st_uid))
            except OSError:
                continue  # it has ended
        return tuple(found)


def name_of(root: Path, pid: int) -> str:
    """Return a process's short name, "" where it has none any more."""
    return _quietly(root / f"proc/{pid}/comm").strip()


def words_of(root: Path, pid: int) -> list[str]:
    """Return a process's command line, empty where it cannot be seen."""
    return _quietly(root / f"proc/{pid}/cmdline").rstrip("\0").split("\0")


def environment_of(root: Path, pid: int) -> dict[str, str]:
    """Return the environment that a process began with, empty where it is not ours to see."""
    pairs = (word.partition("=") for word in _quietly(root / f"proc/{pid}/environ").split("\0"))
    return {name: value for name, _, value in pairs if name}


def parent_of(root: Path, pid: int) -> int:
    """Return the number of a process's parent, 0 where there is none."""
    fields = _quietly(root / f"proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 and fields[1].isdigit() else 0


def is_asking(root: Path, pid: int) -> bool:
    """Return whether labctl's agent began a process, itself or by others, to answer a question.

    The agent runs as ``/usr/bin/python3 -IS AGENT_PATH VERB``; a shell or sudo that starts it does not count.
    One that has ended since it was listed is nobody's work any more, so it is taken for such a process.
    """
    if not (root / f"proc/{pid}").exists():
        return True
    for _ in range(_GENERATIONS):
        pid = parent_of(root, pid)
        if pid <= 1:
            return False
        if AGENT_PATH in words_of(root, pid)[1:3] and name_of(root, pid).startswith("python"):
            return True
    return False


def unit_of(root: Path, pid: int) -> str:
    """Return the systemd unit that a process belongs to, "" where it cannot be told."""
    for line in _quietly(root / f"proc/{pid}/cgroup").splitlines():
        number, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if number == "0" or kinds == "name=systemd":
            units = [part for part in path.split("/") if part.endswith((".service", ".scope"))]
            if units:
                return units[-1]
    return ""


def user_of(root: Path, pid: int) -> str:
    """Return the name of a process's owner, by this host's own list of users; "" where it lists none."""
    try:
        uid = os.stat(f"{root}/proc/{pid}").st_uid  # noqa: PTH116 (as above)
        users = (root / "etc/passwd").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    for line in users.splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2] == str(uid):
            return fields[0]
    return ""


def members(root: Path, group: str) -> list[int] | None:
    """Return the processes of a unit's group such as ``system.slice/cron.service``; None: it has no group.

    Those of groups below it count too.

    Raises:
        Unreadable: no tree of groups is there at all.
    """
    bases = [root / base for base in _GROUPS if (root / base / "system.slice").is_dir()]
    if not bases:
        raise Unreadable("systemd's control groups are not there")
    for base in bases:
        if (base / group).is_dir():
            return _below(base / group)
    return None


def left_with_managers(root: Path) -> list[tuple[int, int]]:
    """Return what people had their own service manager run: the owner's number, and a process of it.

    These are scopes (``systemd-run --user --scope tmux``) and transient services. What a manager starts by
    itself is none, nor are containers: they are services, as those of the system are.
    """
    found = []
    for base in _GROUPS:
        for path, _, _ in os.walk(root / base / "user.slice"):
            match = _JOB.search(path)
            found += [(int(match[1]), pid) for pid in _below(Path(path))[:1]] if match else []
    return found


def _below(folder: Path) -> list[int]:
    found: list[int] = []
    for path, _, files in os.walk(folder):
        if "cgroup.procs" in files:
            found += [int(word) for word in _quietly(Path(path) / "cgroup.procs").split() if word.isdigit()]
    return found


def runs(root: Path, unit: str) -> bool:
    """Return whether a unit of the system has processes.

    Raises:
        Unreadable: no tree of groups is there at all.
    """
    return bool(members(root, f"system.slice/{unit}"))


def _quietly(path: Path) -> str:
    try:
        return read(path) or ""
    except Unreadable:
        return ""
