"""One host of the rack, run by systemd-nspawn: its disk, its boots, its end.

A host is ``off``, ``booting``, ``running``, ``frozen`` or (``sleeper.py``) ``asleep``. Its disk is a tmpfs of
fixed size that holds the changes over the shared Debian tree, so a full disk is really full and a reset is an
unmount. Its processes are in control groups of its own; an end by power cut kills that group in one step. A
host that reboots (nspawn's exit status 133) starts again with a new boot id; one that powers off stays off,
as real ones do.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from labctl.domain.problem import LabctlError
from labctl.lab.cgroups import Groups
from labctl.lab.commands import attempt, run
from labctl.lab.furnish import furnish, furnish_gpus, host_directory
from labctl.lab.gpus import INIT, HostGpus, gpu_folder
from labctl.lab.gpus import INSIDE as GPUS_INSIDE
from labctl.lab.links import Cable
from labctl.lab.nic import Magic
from labctl.lab.spec import LabHost, LabSpec
from labctl.lab.supplies import INSIDE as PACKAGES_INSIDE
from labctl.lab.supplies import mirror_shown

RUN = Path("/run/lab")
_REBOOT = 133
_MIB = 1 << 20
# Enter the control groups named before "--", cover /tmp (nspawn leaves directories there when it is
# killed), go on.
_ENTER = (
    'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 125; shift; done; shift; '
    'mount -t tmpfs -o mode=1777 tmpfs /tmp || exit 125; exec "$@"'
)


class Host(Protocol):
    """What the sandbox asks of a host, of whatever kind."""

    @property
    def cable(self) -> Cable:
        """Return its network cable."""

    @property
    def state(self) -> str:
        """Return off, booting, running, frozen or asleep."""

    def prepare(self) -> None:
        """Give the host a fresh disk."""

    def discard(self) -> None:
        """Throw its disk away; the host must be off."""

    def start(self, within: float) -> None:
        """Boot it and wait until it is up."""

    def kill(self) -> None:
        """Cut its power."""

    def shut_down(self, within: float) -> None:
        """Ask it to shut down, and wait until it is off."""

    def freeze(self, *, frozen: bool) -> None:
        """Stop all of its processes where they stand, or let them go on."""

    def fill(self, *, full: bool) -> None:
        """Leave no byte free on its disk, or give it its full size again."""

    def await_state(self, state: str, within: float) -> None:
        """Wait until it is in this state."""

    def hear(self, magic: Magic) -> str:
        """Take a magic packet for its card, and return what comes of it."""

    def give_fault(self, kind: str, value: float | None) -> None:
        """Break the way it sleeps and wakes, or heal that."""

    def faults(self) -> list[str]:
        """Return what is broken in the way it sleeps and wakes."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the hosts of one sandbox live: the spec, the Debian trees by suite, the control groups.

    ``packages`` are those that bring drivers for (fake) graphics cards; None: no host gets its cards.
    """

    spec: LabSpec
    trees: dict[str, Path]
    groups: Groups
    packages: Path | None = None


class NspawnHost:
    """A host in a container; safe to order from many threads."""

    def __init__(self, place: Place, host: LabHost, cable: Cable, say: Callable[[str], None]) -> None:
        self.place, self.host, self.cable = place, host, cable
        self._say = say
        self._changed = threading.Condition()
        self._state = "off"
        self._wanted = False
        self._directory = RUN / host.name
        self._disk, self._root = self._directory / "disk", self._directory / "root"
        has_cards = place.packages is not None and host.gpus
        self._gpus = HostGpus(host, gpu_folder(RUN, host.name)) if has_cards else None

    @property
    def state(self) -> str:
        """Return off, booting, running, frozen or asleep."""
        return self._state

    def prepare(self) -> None:
        """Give the host a fresh disk over the tree of its suite."""
        self._disk.mkdir(parents=True, exist_ok=True)
        self._root.mkdir(exist_ok=True)
        size = f"size={self.place.spec.disk_mib}m,mode=755"
        run("mount", "-t", "tmpfs", "-o", size, f"lab-{self.host.name}", str(self._disk))
        upper, work = self._disk / "up", self._disk / "work"
        upper.mkdir(mode=0o755)
        work.mkdir()
        layers = f"lowerdir={self.place.trees[self.host.suite]},upperdir={upper},workdir={work}"
        run("mount", "-t", "overlay", "-o", layers, f"lab-{self.host.name}", str(self._root))
        furnish(self.place.spec, self.host, self._root)
        if self._gpus and self.place.packages:
            furnish_gpus(self.host, self._root, self.place.packages)
            self._gpus.prepare(self._root)
            self._gpus.serve()

    def discard(self) -> None:
        """Throw the disk away; the host must be off."""
        for mount in (self._root, self._disk):
            if mount.is_mount():
                run("umount", str(mount))
        self.cable.remove()
        self.cable.is_cut = False

    def start(self, within: float) -> None:
        """Boot the host if it is off, and wait up to ``within`` seconds until its boot is complete.

        Raises:
            LabctlError: it is frozen, ended while booting, or took too long; the console's last lines say
            why.
        """
        with self._changed:
            if self._state == "frozen":
                raise LabctlError("it is frozen", host=self.host.name, hint="labctl lab fault HOST thaw")
            if self._state == "off":
                self._switch_on()
            in_time = self._changed.wait_for(lambda: self._state in ("running", "off"), within)
            if self._state != "running":
                why = "ended while booting" if in_time else f"did not boot within {within:g} s"
                raise LabctlError(f"it {why}: {self._last_words()}", host=self.host.name)

    def _switch_on(self) -> None:
        self._wanted = True
        self._state = "booting"
        threading.Thread(target=self._supervise, daemon=True).start()

    def kill(self) -> None:
        """Cut the power: nothing is written back, nobody is told."""
        with self._changed:
            self._wanted = False
        # nspawn itself is left alive, so that it reaps its host and ends as after any other shutdown.
        self.place.groups.kill(f"{self.host.name}/payload")
        if not self._is_off(5):
            self.place.groups.kill(self.host.name)
        self._await_off(10)

    def shut_down(self, within: float) -> None:
        """Ask the host to shut down; a host that won't is refused, and stays as it is."""
        with self._changed:
            if self._state == "frozen":
                raise LabctlError("it is frozen", host=self.host.name, hint="labctl lab fault HOST thaw")
            self._wanted = False
        if self._state != "off":
            # systemd takes this signal as the order to power off, as nspawn itself would send it.
            os.kill(self.place.groups.leader(self.host.name), signal.SIGRTMIN + 4)
        self._await_off(within)

    def freeze(self, *, frozen: bool) -> None:
        """Stop all processes of the host where they stand, or let them go on."""
        with self._changed:
            self.place.groups.freeze(self.host.name, frozen=frozen)
            self._set("frozen" if frozen else "running")

    def fill(self, *, full: bool) -> None:
        """Shrink the disk to what is used, so that the next write fails; or give it its size back."""
        usage = os.statvfs(self._disk)
        used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
        size = used if full else self.place.spec.disk_mib * _MIB
        run("mount", "-o", f"remount,size={size}", str(self._disk))

    def await_state(self, state: str, within: float) -> None:
        """Wait until the host is in this state.

        Raises:
            LabctlError: it is not within ``within`` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._state == state, within):
                raise LabctlError(
                    f"it is {self._state}, not {state}, after {within:g} s", host=self.host.name
                )

    def hear(self, magic: Magic) -> str:
        """Take no notice of a magic packet: the card of this host knows no Wake-on-LAN."""
        return "not armed"

    def give_fault(self, kind: str, value: float | None) -> None:
        """Refuse: this host never sleeps."""
        raise LabctlError(
            "it has no sleep that could break",
            hint="hosts sleep whose rack file says wake=WakeOnLan(...); labctl lab up said why, if it should",
            host=self.host.name,
        )

    def faults(self) -> list[str]:
        """Return none."""
        return []

    def _supervise(self) -> None:
        while True:
            with self._changed:
                self._set("booting")
            code: int | str
            try:
                code = self._boot()
            except (LabctlError, OSError) as error:
                code = str(error)
            with self._changed:
                if code == _REBOOT and self._wanted:
                    self._say(f"{self.host.name}: reboots")
                    continue
                self._say(f"{self.host.name}: off ({code})")
                self.cable.darken(is_dark=True)
                self._set("off")
                return

    def _boot(self) -> int:
        """Boot once and return nspawn's exit status when the host is off again."""
        groups, name = self.place.groups, self.host.name
        self.cable.renew()
        if self._gpus:
            self._gpus.boot(self._root)
        groups.sweep(name)
        entered = [str(directory) for directory in groups.create(name)]
        notify = self._directory / "notify"
        notify.unlink(missing_ok=True)
        console = self.place.spec.home / "log" / f"console-{name}.log"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox, console.open("ab") as log:
            inbox.bind(str(notify))
            argv = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _ENTER, "sh"]
            child = subprocess.Popen(
                [*argv, *entered, "--", *self._nspawn(notify)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            threading.Thread(target=self._listen, args=(inbox.dup(),), daemon=True).start()
            code = child.wait()
            # The listener's own descriptor stays open; an empty message ends it.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"", str(notify))
            return code

    def _listen(self, inbox: socket.socket) -> None:
        with inbox:
            while message := inbox.recv(4096):
                if b"READY=1" in message.split(b"\n"):
                    with self._changed:
                        self._set("running")
                    self._say(f"{self.host.name}: running")

    def _nspawn(self, notify: Path) -> list[str]:
        identity = uuid.uuid5(uuid.NAMESPACE_OID, self._key().read_text())
        return [
            # v2 also where the machine outside is older: Debian 13's systemd runs on nothing else.
            *("env", f"NOTIFY_SOCKET={notify}", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1"),
            *("SYSTEMD_NSPAWN_API_VFS_WRITABLE=network", "systemd-nspawn", f"--directory={self._root}"),
            *(f"--machine={self.host.name}", f"--hostname={self.host.name}", f"--uuid={identity}"),
            *self._cards_shown(),
            *self._also_shown(),
            *mirror_shown(self.place.spec.cache_dir),
            *("--register=no", "--keep-unit", "--kill-signal=SIGRTMIN+4", "--quiet"),
            *(f"--network-namespace-path={self.cable.namespace}", "--capability=CAP_NET_ADMIN"),
            *(
                "--resolv-conf=off",
                "--timezone=off",
                "--link-journal=no",
                "--console=pipe",
                "--notify-ready=yes",
            ),
            *self._init(),
        ]

    def _also_shown(self) -> tuple[str, ...]:
        """Return options of nspawn that show this kind of host more than others."""
        return ()

    def _init(self) -> tuple[str, ...]:
        return (INIT,) if self._gpus else ("--boot",)

    def _cards_shown(self) -> tuple[str, ...]:
        if self._gpus is None:
            return ()
        return (
            f"--bind={self._gpus.folder}:{GPUS_INSIDE}",
            f"--bind-ro={self.place.packages}:{PACKAGES_INSIDE}",
        )

    def _key(self) -> Path:
        return host_directory(self.place.spec, self.host.name) / "ssh_host_ed25519_key.pub"

    def _set(self, state: str) -> None:
        self._state = state
        self._changed.notify_all()

    def _await_off(self, within: float) -> None:
        if not self._is_off(within):
            raise LabctlError(f"it is still {self._state} after {within:g} s", host=self.host.name)

    def _is_off(self, within: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._state == "off", within)

    def _last_words(self) -> str:
        console = self.place.spec.home / "log" / f"console-{self.host.name}.log"
        return (
            attempt("tail", "-n", "3", str(console)).stdout.strip().replace("\n", " / ")
            or "its console is empty"
        )
