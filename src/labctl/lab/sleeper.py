"""A host in a container that sleeps: told to suspend, it stands still and is dark until something wakes it.

systemd inside does all that it does on a real machine: logind's checks and inhibitors, the hooks before and
after, the write of ``mem`` to ``/sys/power/state``. That write is answered here: every process of the host is
ordered to freeze before the writer gets its answer, so nothing runs until the host is woken, and the cable is
dark. A magic packet wakes it if its card was armed, as do its alarm clock and (``start``) its power button.
A host that is off boots by the same. The boot id stays, the counts in ``suspend_stats`` grow.

What this can't imitate: the host shares the machine's clocks, so its monotonic clock goes on while it
sleeps, its uptime is the machine's, and its kernel log says nothing of the sleep.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from labctl.adapters.clock import SystemClock
from labctl.domain.problem import LabctlError
from labctl.lab.board import Board
from labctl.lab.fake import wol
from labctl.lab.fake.mount import lacking as lacking_fuse
from labctl.lab.fake.nvml import compiler
from labctl.lab.knob import Knob
from labctl.lab.links import Cable
from labctl.lab.nic import Magic, verdict
from labctl.lab.nspawn import NspawnHost, Place
from labctl.lab.spec import LabHost, LabSpec

INSIDE = "/opt/lab/sleep"
INIT = f"{INSIDE}/init"
LIVE = Path("/run/lab-power")
# What /sys lacks in a container, as folders that can be mounted on.
SKELETON = ("class/rtc", "devices/virtual/net/eth0/device/power")


def lacks(spec: LabSpec) -> tuple[str, ...]:
    """Return why hosts in containers can't sleep on this machine; nothing if they can, or if none shall."""
    if not any(host.sleeps and host.machine == "nspawn" for host in spec.hosts):
        return ()
    compiles = "" if compiler() else "there is no C compiler: apt-get install gcc libc6-dev"
    return tuple(reason for reason in (compiles, lacking_fuse()) if reason)


class SleepingHost(NspawnHost):
    """A host in a container that can suspend, and be woken from there or from being off."""

    def __init__(self, place: Place, host: LabHost, cable: Cable, say: Callable[[str], None]) -> None:
        super().__init__(place, host, cable, say)
        self._board = Board(host.mac, SystemClock(), self._suspend, lambda: self._wake("its alarm clock"))
        self._folder = self._directory / "sleep"
        self._switched_off = threading.Event()

    def knobs(self) -> dict[str, Knob]:
        """Return the files of its power management, by their paths in the file system of all hosts."""
        return {f"{self.host.name}/{path}": knob for path, knob in self._board.knobs().items()}

    def prepare(self) -> None:
        """Give the host a fresh disk, and a card whose driver knows Wake-on-LAN."""
        super().prepare()
        for path in ("live", *(f"skeleton/{path}" for path in SKELETON)):
            (self._folder / path).mkdir(parents=True, exist_ok=True)
        init = self._folder / "init"
        init.write_bytes(files("labctl.lab.fake").joinpath("sleep.sh").read_bytes())
        init.chmod(0o755)
        (self._folder / wol.NAME).write_bytes(wol.library(self.place.spec.cache_dir).read_bytes())
        (self._root / "etc/ld.so.preload").write_text(f"{INSIDE}/{wol.NAME}\n")

    def discard(self) -> None:
        """Throw the disk away, and heal the hardware; the host must be off."""
        super().discard()
        self._board.faults.give("sleep-heal", None, "")
        self._board.alarm.unset()

    def start(self, within: float) -> None:
        """Press the power button: boot the host if it is off, wake it if it is asleep."""
        if self._state == "asleep":
            self._wake("its power button")
        super().start(within)

    def kill(self) -> None:
        """Cut the power: what slept is lost, too, and the card forgets that it shall listen."""
        self._switched_off.set()
        super().kill()
        self._board.lose_power()

    def shut_down(self, within: float) -> None:
        """Ask the host to shut down; one that is asleep can't hear it."""
        self._refuse_asleep()
        super().shut_down(within)

    def freeze(self, *, frozen: bool) -> None:
        """Stop all processes of the host where they stand, or let them go on; none do while it is asleep."""
        self._refuse_asleep()
        super().freeze(frozen=frozen)

    def hear(self, magic: Magic) -> str:
        """Wake or boot the host if its card listens for this packet."""
        board = self._board
        with self._changed:
            outcome = verdict(
                magic, self._state, board.card, board.faults.hearing, plugged_in=not self.cable.is_cut
            )
            if outcome == "wakes":
                self._wake("a magic packet")
        return outcome

    def give_fault(self, kind: str, value: float | None) -> None:
        """Break the way the host sleeps and wakes, or heal that."""
        self._board.faults.give(kind, value, self.host.name)

    def faults(self) -> list[str]:
        """Return what is broken in the way it sleeps and wakes."""
        return self._board.faults.names()

    def _suspend(self) -> None:
        """Put the host to sleep; called while one of its processes waits for its write of ``mem``.

        Raises:
            OSError: EBUSY, it is no running host.
        """
        with self._changed:
            if self._state != "running":
                raise OSError(errno.EBUSY, self._state)
            self.place.groups.order_freeze(self.host.name, frozen=True)
            self.cable.darken(is_dark=True)
            self._set("asleep")
        self._say(f"{self.host.name}: asleep")
        after = self._board.faults.wakes_itself_s
        if after is not None:
            timer = threading.Timer(after, self._wake, ["nothing that anybody knows"])
            timer.daemon = True
            timer.start()

    def _wake(self, by: str) -> None:
        with self._changed:
            if self._state == "asleep":
                self._board.succeeded += 1
                self.cable.darken(is_dark=False)
                self.place.groups.freeze(self.host.name, frozen=False)
                self._set("running")
            elif self._state == "off":
                self._switch_on()
            else:
                return
        self._say(f"{self.host.name}: woken by {by}")

    def _boot(self) -> int:
        self._switched_off.clear()
        if self._switched_off.wait(self._board.faults.slow_boot_s):
            return 0
        self._board.boot(self._root)
        return super()._boot()

    def _also_shown(self) -> tuple[str, ...]:
        return (
            f"--bind-ro={self._folder}:{INSIDE}",
            f"--bind={LIVE / self.host.name}:{INSIDE}/live",
        )

    def _init(self) -> tuple[str, ...]:
        return super()._init() if self._gpus else (INIT,)

    def _refuse_asleep(self) -> None:
        if self._state == "asleep":
            raise LabctlError(
                "it is asleep",
                hint=f"wake it: labctl lab fault {self.host.name} start",
                host=self.host.name,
            )
