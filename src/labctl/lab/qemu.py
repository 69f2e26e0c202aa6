"""One host of the rack, run by QEMU: a Debian with a kernel of its own, which truly suspends to memory.

The machine keeps the monitor's word for what it does: ``SUSPEND`` is asleep, ``WAKEUP`` is running again,
``SHUTDOWN`` is off. A magic packet wakes it, or boots it from off, only if the guest's driver set the bit for
it in the card; the bit is read from the emulated card when the packet comes, and, for a machine that is off,
was read at the end of its shutdown. What a guest does to its disk stays until a reset, which goes back to a
state that was saved after the first boot: disk, memory and all, in seconds.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from labctl.domain.problem import LabctlError
from labctl.lab.accel import arguments
from labctl.lab.board import Faults
from labctl.lab.commands import attempt, run
from labctl.lab.furnish import furnish
from labctl.lab.guest import Guest, identity
from labctl.lab.links import TapCable
from labctl.lab.nic import Card, Magic, verdict
from labctl.lab.nspawn import RUN, Place
from labctl.lab.qmp import Link, Monitor
from labctl.lab.spec import LabHost
from labctl.lab.supplies import mirror_disk

CARD = "card0"
_SAVED = "fresh"
_KERNEL = (
    "console=ttyS0 quiet loglevel=3 root=/dev/vda rw net.ifnames=0 mitigations=off audit=0 nokaslr "
    "fsck.mode=skip systemd.show_status=no no_timer_check cryptomgr.notests raid=noautodetect"
)
_ENTER = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"'
_LATE = 124


class QemuHost:
    """A host that is a virtual machine; safe to order from many threads."""

    def __init__(
        self, place: Place, host: LabHost, cable: TapCable, guest: Guest, say: Callable[[str], None]
    ) -> None:
        self.place, self.host, self.guest = place, host, guest
        self.cable: TapCable = cable
        self._say = say
        self._changed = threading.Condition()
        self._state = "off"
        self._broken = Faults()
        self._card = Card()
        self._directory = RUN / host.name
        self._disk, self._initrd = self._directory / "disk.qcow2", self._directory / "initrd"
        self._mirror = self._directory / "mirror.ext4"
        self._is_saved = self._loads = False
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: Monitor | None = None
        self._shell: Link | None = None
        self._switched_off = threading.Event()

    @property
    def state(self) -> str:
        """Return off, booting, running, frozen or asleep."""
        return self._state

    def prepare(self) -> None:
        """Give the host a fresh disk; what was saved of its first boot is used again."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._broken = Faults()
        self.cable.renew()
        if self._is_saved and self._key_of_initrd() == self._key():
            self._loads = True
            return
        self._is_saved = self._loads = False
        self._disk.unlink(missing_ok=True)
        backing = ("-b", str(self.guest.disk), "-F", "raw")
        run("qemu-img", "create", "-q", "-f", "qcow2", *backing, str(self._disk))
        mirror_disk(self.place.spec.cache_dir, self._mirror)
        self._furnish()

    def discard(self) -> None:
        """Let go of the disk; the host must be off."""
        self.cable.is_cut = False

    def start(self, within: float) -> None:
        """Press the power button: boot the host if it is off, wake it if it is asleep.

        Raises:
            LabctlError: it is frozen, ended while booting, or took too long.
        """
        with self._changed:
            if self._state == "frozen":
                raise LabctlError("it is frozen", host=self.host.name, hint="labctl lab fault HOST thaw")
            self._wake("its power button")
            in_time = self._changed.wait_for(lambda: self._state in ("running", "off"), within)
            if self._state != "running":
                why = "ended while booting" if in_time else f"did not boot within {within:g} s"
                raise LabctlError(f"it {why}: see its console's log", host=self.host.name)

    def kill(self) -> None:
        """Cut the power: nothing is written back, and the card forgets that it shall listen."""
        self._switched_off.set()
        process = self._process
        if process is not None:
            process.kill()
        self.await_state("off", 15)
        self._card = Card()

    def shut_down(self, within: float) -> None:
        """Press the power button briefly, which systemd takes as the order to power off."""
        if self._state != "off":
            self._awake().order("system_powerdown")
        self.await_state("off", within)

    def freeze(self, *, frozen: bool) -> None:
        """Stop the whole machine where it stands, or let it go on."""
        self._awake().order("stop" if frozen else "cont")
        with self._changed:
            self._set("frozen" if frozen else "running")

    def fill(self, *, full: bool) -> None:
        """Refuse: its disk is its own."""
        raise LabctlError("a virtual machine's disk can't be filled from outside", host=self.host.name)

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
        """Wake or boot the host if its driver armed the card for this packet."""
        with self._changed:
            card = self._card
            if self._state == "asleep" and self._monitor:
                card = Card(self._monitor.options(CARD))
            heard = self._broken.hearing
            outcome = verdict(magic, self._state, card, heard, plugged_in=not self.cable.is_cut)
            if outcome == "wakes":
                self._wake("a magic packet")
        return outcome

    def give_fault(self, kind: str, value: float | None) -> None:
        """Break the way the host sleeps and wakes, or heal that.

        Raises:
            LabctlError: it is a fault that only an imitation can have.
        """
        if kind == "no-suspend":
            raise LabctlError("a virtual machine really suspends", host=self.host.name)
        self._broken.give(kind, value, self.host.name)

    def faults(self) -> list[str]:
        """Return what is broken in the way it sleeps and wakes."""
        return self._broken.names()

    def execute(self, argv: list[str], stdin: str, timeout: float) -> dict[str, Any]:
        """Run a command inside as root, past the network; return its ``status``, ``out`` and ``err``.

        Raises:
            LabctlError: the host does not run, or the command took longer than ``timeout`` seconds.
        """
        shell = self._shell
        if self._state != "running" or shell is None:
            raise LabctlError(f"the host is {self._state}", host=self.host.name)
        answer = shell.ask({"argv": argv, "stdin": stdin, "timeout": timeout}, timeout + 15)
        if answer.get("late"):
            raise LabctlError(f"`{' '.join(argv)}` did not end within {timeout:g} s", host=self.host.name)
        return {key: answer[key] for key in ("status", "out", "err")}

    def _wake(self, by: str) -> None:
        with self._changed:
            if self._state == "asleep" and self._monitor:
                self._monitor.order("system_wakeup")
            elif self._state == "off":
                self._state = "booting"
                threading.Thread(target=self._live, daemon=True).start()
            else:
                return
        self._say(f"{self.host.name}: woken by {by}")

    def _live(self) -> None:
        """Run the machine until it is off."""
        code: int | str
        try:
            code = self._boot()
        except (LabctlError, OSError) as error:
            code = str(error)
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
        for link in (self._monitor, self._shell):
            if link is not None:
                link.close()
        with self._changed:
            self._process = self._monitor = self._shell = None
            self._say(f"{self.host.name}: off ({code})")
            self._set("off")

    def _boot(self) -> int:
        self._switched_off.clear()
        if self._switched_off.wait(self._broken.slow_boot_s):
            return 0
        groups, name = self.place.groups, self.host.name
        groups.sweep(name)
        entered = [str(directory) for directory in groups.create(name)]
        qmp, port = self._directory / "qmp", self._directory / "port"
        for path in (qmp, port):
            path.unlink(missing_ok=True)
        with (self.place.spec.home / "log" / f"console-{name}.log").open("ab") as log:
            argv = ["sh", "-c", _ENTER, "sh", *entered, "--", *self._qemu(qmp, port)]
            self._process = process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        loaded, self._loads = self._loads, False
        self._shell = Link(port, self._heard)
        self._monitor = Monitor(qmp, self._happened)
        if loaded:
            self._go_on()
        return process.wait()

    def _go_on(self) -> None:
        """Be running, from the saved state; its clock stood still meanwhile."""
        assert self._monitor is not None and self._shell is not None
        self._monitor.order("cont")
        self._shell.ask({"clock": True}, 60)
        with self._changed:
            self._set("running")

    def _heard(self, document: dict[str, Any]) -> None:
        if "booted" not in document:
            return
        if not self._is_saved:
            threading.Thread(target=self._save, daemon=True).start()
            return
        with self._changed:
            self._set("running")
        self._say(f"{self.host.name}: running")

    def _save(self) -> None:
        """Save the state after the first boot, so that a reset is quick; without it a reset is a boot."""
        with suppress(LabctlError):
            if self._monitor:
                self._is_saved = not self._monitor.line(f"savevm {_SAVED}", within=180).strip()
        with self._changed:
            if self._state == "booting":
                self._set("running")
        self._say(f"{self.host.name}: running")

    def _happened(self, event: str) -> None:
        if event == "SUSPEND":
            with self._changed:
                self._set("asleep")
            self._say(f"{self.host.name}: asleep")
            if self._broken.wakes_itself_s is not None:
                timer = threading.Timer(self._broken.wakes_itself_s, self._wake, ["nothing"])
                timer.daemon = True
                timer.start()
        elif event == "WAKEUP":
            self._hear_again()
            with self._changed:
                self._set("running")
        elif event == "RESET":
            with self._changed:
                if self._state != "off":
                    self._set("booting")
        elif event == "SHUTDOWN":
            threading.Thread(target=self._switch_off, daemon=True).start()

    def _hear_again(self) -> None:
        """Let packets in again: QEMU stops reading them in the sleep, and RTL8139 never asks for more.

        A machine that is stopped and goes on looks for what waits (net_vm_change_state_handler in net/net.c).
        """
        with suppress(LabctlError):
            if self._monitor:
                self._monitor.order("stop")
                self._monitor.order("cont")

    def _switch_off(self) -> None:
        """End the machine that has shut itself down; what its driver wrote to the card stays there."""
        with suppress(LabctlError):
            if self._monitor:
                self._card = Card(self._monitor.options(CARD))
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def _awake(self) -> Monitor:
        if self._state == "asleep":
            hint = f"wake it: labctl lab fault {self.host.name} start"
            raise LabctlError("it is asleep", hint=hint, host=self.host.name)
        if self._monitor is None:
            raise LabctlError(
                "the host is off", host=self.host.name, hint=f"labctl lab fault {self.host.name} start"
            )
        return self._monitor

    def _set(self, state: str) -> None:
        self._state = state
        self._changed.notify_all()

    def _qemu(self, qmp: Path, port: Path) -> list[str]:
        console = self.place.spec.home / "log" / f"console-{self.host.name}.log"
        return [
            *("qemu-system-x86_64", "-name", self.host.name, *arguments(self.place.spec.cache_dir)),
            *("-smp", "1", "-m", "512", "-nodefaults", "-no-user-config", "-display", "none"),
            *("-no-shutdown", "-rtc", "base=utc,clock=host"),
            *("-chardev", f"file,id=console,path={console},append=on", "-serial", "chardev:console"),
            *("-qmp", f"unix:{qmp},server=on,wait=off"),
            *("-drive", f"file={self._disk},if=none,id=disk0,cache=unsafe,discard=unmap"),
            *("-device", "virtio-blk-pci,drive=disk0", "-device", "virtio-rng-pci"),
            *("-netdev", f"tap,id=net0,ifname={self.cable.port},script=no,downscript=no"),
            *("-device", f"rtl8139,netdev=net0,mac={self.host.mac},id={CARD},romfile=,addr=0x5"),
            *("-chardev", f"socket,id=lab,path={port},server=on,wait=off"),
            *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=lab,name=lab"),
            *("-drive", f"file={self._mirror},if=none,id=mirror,format=raw,readonly=on"),
            *("-device", "virtio-blk-pci,drive=mirror"),
            *("-kernel", str(self.guest.kernel), "-initrd", str(self._initrd), "-append", _KERNEL),
            *(("-loadvm", _SAVED, "-S") if self._loads else ()),
        ]

    def _furnish(self) -> None:
        """Pack what makes the guest this host: the same files as for a host in a container."""
        parts = {name: self._directory / name for name in ("up", "work", "root")}
        for path in parts.values():
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        layers = (
            f"lowerdir={self.place.trees[self.host.suite]},upperdir={parts['up']},workdir={parts['work']}"
        )
        run("mount", "-t", "overlay", "-o", layers, "lab-guest", str(parts["root"]))
        try:
            furnish(self.place.spec, self.host, parts["root"])
            spec = self.place.spec
            (parts["root"] / "etc/lab-network").write_text(
                f"{self.host.address}/{spec.network.prefixlen}\n{spec.gateway}\n"
            )
        finally:
            attempt("umount", str(parts["root"]))
        identity(parts["up"], self._initrd, self.guest)
        (self._directory / "key").write_text(self._key())

    def _key(self) -> str:
        """Return the host key that the host shall have now; another one makes it another host."""
        place = self.place.spec.home / "hosts" / self.host.name / "ssh_host_ed25519_key.pub"
        return place.read_text()

    def _key_of_initrd(self) -> str:
        kept = self._directory / "key"
        return kept.read_text() if kept.exists() else ""
