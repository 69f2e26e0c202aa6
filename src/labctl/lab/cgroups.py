"""Control groups of the rack: where they lie, how hosts are frozen and killed, how empty ones are swept.

systemd inside a host needs a version 2 hierarchy of its own. On today's machines that is the only one; on
older ones it is mounted beside version 1 as "unified", and then the named "systemd" hierarchy is entered as
well. Each rack has one directory below the group of whoever started it. The kernel keeps these directories
when the last process is gone, so they are the one thing that must be swept by hand; the recorded paths say
which.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl.domain.problem import LabctlError
from labctl.lab.processes import number_inside, wait_until


@dataclass(frozen=True, slots=True)
class Groups:
    """The rack's directory in the version 2 hierarchy and, where version 1 is in use, in ``systemd`` too."""

    unified: Path
    legacy: Path | None

    @classmethod
    def below_mine(cls, name: str) -> Groups:
        """Return where a rack called ``name`` puts its groups; nothing is created.

        Raises:
            LabctlError: this machine shows no version 2 hierarchy.
        """
        mounts = dict(_mounts())
        if "cgroup2" not in mounts:
            raise LabctlError(
                "this machine has no cgroup v2 hierarchy mounted, which systemd inside the hosts needs",
                hint="boot with systemd.unified_cgroup_hierarchy=1, or in a container mount /sys/fs/cgroup",
            )
        mine = {}
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            mine["cgroup2" if number == "0" else controllers] = path
        return cls(
            unified=_directory(mounts["cgroup2"], mine.get("cgroup2", "/")) / name,
            legacy=_directory(mounts["systemd"], mine.get("name=systemd", "/")) / name
            if "systemd" in mounts
            else None,
        )

    def all(self) -> tuple[Path, ...]:
        """Return the rack's directories."""
        return (self.unified,) if self.legacy is None else (self.unified, self.legacy)

    def create(self, host: str = "") -> tuple[Path, ...]:
        """Create the rack's directories, or those of one host, and return them."""
        made = tuple(top / host for top in self.all())
        for directory in made:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise LabctlError(
                    f"can't create the control group {directory}: {error.strerror}",
                    hint="in a container /sys/fs/cgroup must be writable (docker run --privileged)",
                ) from None
        return made

    def sweep(self, host: str = "", *, within: float = 5) -> tuple[Path, ...]:
        """Remove the directories of the rack or of one host; return those that would not go."""
        tops = tuple(top / host for top in self.all())
        wait_until(lambda: not sum(map(_remove, tops)), within=within)
        return tuple(top for top in tops if top.exists())

    def kill(self, host: str = "") -> None:
        """Kill every process of a host, or of the whole rack, at once, frozen or not."""
        try:
            (self.unified / host / "cgroup.kill").write_text("1")
        except FileNotFoundError:
            for pid in self.pids(host):
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    continue

    def freeze(self, host: str, *, frozen: bool) -> None:
        """Stop every process of a host where it stands, or let all go on.

        Raises:
            LabctlError: the host is off, or the kernel did not confirm within 5 seconds.
        """
        self.order_freeze(host, frozen=frozen)
        payload = self.unified / host / "payload"
        wanted = str(int(frozen))
        if not wait_until(lambda: f"frozen {wanted}" in (payload / "cgroup.events").read_text(), within=5):
            raise LabctlError(f"the kernel did not {'freeze' if frozen else 'thaw'} it within 5 s", host=host)

    def order_freeze(self, host: str, *, frozen: bool) -> None:
        """Order what ``freeze`` does and don't wait: from now on each process stops before its next step.

        Raises:
            LabctlError: the host is off.
        """
        try:
            (self.unified / host / "payload" / "cgroup.freeze").write_text(str(int(frozen)))
        except OSError:
            raise LabctlError("the host is off", host=host, hint=f"labctl lab fault {host} start") from None

    def pids(self, host: str = "") -> tuple[int, ...]:
        """Return the processes of a host, by the numbers that the caller's namespace gives them."""
        found: list[int] = []
        for directory, _, _ in os.walk(self.unified / host):
            try:
                text = Path(directory, "cgroup.procs").read_text()
            except OSError:
                continue
            found.extend(pid for pid in map(int, text.split()) if pid)
        return tuple(found)

    def leader(self, host: str) -> int:
        """Return the process that is number 1 inside the host.

        Raises:
            LabctlError: the host is off.
        """
        payload = f"{host}/payload"
        for pid in self.pids(payload):
            if number_inside(pid) == 1:
                return pid
        raise LabctlError("the host is off", host=host, hint=f"labctl lab fault {host} start")


@dataclass(frozen=True, slots=True)
class _Mount:
    point: Path
    root: Path


def _mounts() -> Iterator[tuple[str, _Mount]]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, kind = line.partition(" - ")
        mount = _Mount(point=Path(place.split()[4]), root=Path(place.split()[3]))
        if kind.startswith("cgroup2 "):
            yield "cgroup2", mount
        elif kind.startswith("cgroup ") and "name=systemd" in kind:
            yield "systemd", mount


def _directory(mount: _Mount, group: str) -> Path:
    """Return where a group lies; a container may see only the part of the hierarchy below itself."""
    path = Path(group)
    seen = path.relative_to(mount.root) if path.is_relative_to(mount.root) else Path()
    return mount.point / seen


def _remove(top: Path) -> bool:
    """Remove what can be removed of a tree of groups; return whether something is left."""
    for directory, _, _ in os.walk(top, topdown=False):
        try:
            Path(directory).rmdir()
        except OSError:
            continue
    return top.exists()
