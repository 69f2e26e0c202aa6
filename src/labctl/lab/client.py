"""The lab as its callers hold it: bring a rack up, look at its hosts, damage them, take it down.

Orders that concern boots, cables and disks go to the sandbox. What can be seen or done from outside
(processes, files, commands inside a host) is done right here, so that it works on a host whose own tools or
network are broken.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from labctl.domain.problem import LabctlError
from labctl.lab import inside, launch
from labctl.lab.furnish import host_directory, make_host_keys
from labctl.lab.gpus import HostGpus
from labctl.lab.nspawn import RUN
from labctl.lab.processes import command_name, wait_until
from labctl.lab.record import Record, is_locked, is_up, sweep_leftovers
from labctl.lab.spec import SSH_PORT, LabSpec
from labctl.lab.wire import order

BOOT_S = 120.0
# A processor that is imitated, on a machine that is busy.
MACHINE_BOOT_S = 400.0
# Faults that may keep a host's ssh from answering.
_SILENCING = frozenset({"cut", "slow", "disk full"})


def _silent(_line: str) -> None:
    """Report nothing."""


class Lab:
    """A virtual rack. As a context manager it ends with the block, and with the process however that ends."""

    def __init__(self, spec: LabSpec) -> None:
        self.spec = spec
        self._daemon: subprocess.Popen[bytes] | None = None

    @classmethod
    def attach(cls, state_dir: Path, name: str) -> Self:
        """Return the lab called ``name`` whose state lies below ``state_dir``, up or not.

        Raises:
            LabctlError: there was never such a lab.
        """
        try:
            text = (state_dir / name / "spec.json").read_text()
        except FileNotFoundError:
            raise LabctlError(f"there is no lab {name!r}", hint="labctl lab up") from None
        return cls(LabSpec.parse(text))

    def __enter__(self) -> Self:
        try:
            return self.up()
        except BaseException:
            self.down()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    # Life of the rack.

    def up(
        self,
        progress: Callable[[str], None] = _silent,
        *,
        stays: bool = False,
        hosts: Collection[str] | None = None,
    ) -> Self:
        """Boot the rack and wait until every host answers; of a rack that is up, start what is off.

        Args:
            progress: is told in one line each what happens.
            stays: the rack outlives this process, until somebody calls ``down``.
            hosts: boot only these; the others are there, and off.

        Raises:
            LabctlError: the machine can't carry it, its network is taken, or a host did not come up.
        """
        if not self.is_up():
            self._daemon = launch.launch(self.spec, progress, stays=stays)
        elif (self.spec.home / "spec.json").read_text() != self.spec.dump():
            raise LabctlError(
                f"the lab {self.spec.name!r} is up with other hosts",
                hint=f"labctl lab down --name {self.spec.name}",
            )

        def boot(name: str) -> None:
            self.start(name)
            progress(f"{name} answers at {self.spec.host(name).address}")

        off = [name for name, host in self.hosts().items() if host["state"] in ("off", "booting")]
        names = off if hosts is None else [name for name in off if name in hosts]
        with ThreadPoolExecutor(launch.boots_at_once()) as pool:
            list(pool.map(boot, names))
        return self

    def is_up(self) -> bool:
        """Return whether the rack has a daemon, whatever its hosts do."""
        return is_up(self.spec.home)

    def down(self) -> None:
        """End the rack and remove every trace of it outside its directory; a rack that is down is left alone.

        Raises:
            LabctlError: something would not go; it is named.
        """
        home = self.spec.home
        # A daemon that only just starts has the lock, and will have a record in a moment.
        wait_until(lambda: self.is_up() or not is_locked(home), within=10)
        if self.is_up():
            Record.read(home).daemon.end(signal.SIGTERM, within=20)
        if self._daemon is not None:
            if self._daemon.stdin is not None:
                self._daemon.stdin.close()
            self._daemon.wait(30)
            self._daemon = None
        left = sweep_leftovers(home)
        if left:
            raise LabctlError(
                f"the lab {self.spec.name!r} left {', '.join(left)} behind", hint="labctl lab down"
            )

    # Looking.

    def hosts(self) -> dict[str, dict[str, Any]]:
        """Return each host's ``state`` (off, booting, running, frozen, asleep) and the ``faults`` it has."""
        answer: dict[str, dict[str, Any]] = order(self.spec.home, "list")
        return answer

    def host_key(self, name: str, kind: str = "ed25519") -> str:
        """Return the true public SSH key of a host, as ``ssh-ed25519 AAAA...``."""
        line = (host_directory(self.spec, self.spec.host(name).name) / f"ssh_host_{kind}_key.pub").read_text()
        return " ".join(line.split()[:2])

    def known_hosts(self) -> str:
        """Return the text of a known_hosts file that holds the true keys of all hosts."""
        return "".join(f"{host.address} {self.host_key(host.name)}\n" for host in self.spec.hosts)

    def ssh_argv(
        self, name: str, *command: str, key: Path | None = None, user: str | None = None
    ) -> list[str]:
        """Return the ssh command line for a host, with strict checking against the lab's own known hosts.

        Raises:
            LabctlError: no key is given, and the lab was not told where the operator's lies.
        """
        key = key or self.spec.operator_key
        if key is None:
            raise LabctlError(f"the lab {self.spec.name!r} knows no private key", hint="labctl lab up")
        known = self.spec.home / "known_hosts"
        text = self.known_hosts()
        # Not rewritten needlessly: another ssh may just be reading it.
        if not known.exists() or known.read_text() != text:
            known.write_text(text)
        options = [
            f"UserKnownHostsFile={known}",
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "ConnectTimeout=10",
        ]
        flags = [word for option in options for word in ("-o", option)]
        to = f"{user or self.spec.login_user}@{self.spec.host(name).address}"
        return ["ssh", "-F", "/dev/null", "-i", str(key), "-p", str(SSH_PORT), *flags, to, *command]

    def run(
        self, name: str, argv: Sequence[str], *, timeout: float = 60, stdin: str = "", check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root inside a host, without ssh: also while its network or sshd is not.

        Raises:
            LabctlError: the host is off, the command took longer than ``timeout`` seconds, or, with
            ``check``,
                it failed.
        """
        if self.spec.host(name).machine == "qemu":
            asked = {"host": name, "argv": list(argv), "stdin": stdin, "timeout": timeout}
            done = order(self.spec.home, "execute", patience=timeout + 30, **asked)
            return inside.ended(argv, **done, host=name if check else None)
        leader = self._record().groups.leader(self.spec.host(name).name)
        return inside.run(leader, argv, timeout=timeout, stdin=stdin, host=name if check else None)

    def root(self, name: str) -> Path:
        """Return the path of a host's file tree, readable and writable from here, also while the host is off.

        An absolute link inside the tree leads out of it: look with ``lstat``, and write only where no link
        is.
        """
        if self.spec.host(name).machine == "qemu":
            raise LabctlError("the disk of a virtual machine can't be looked into from outside", host=name)
        sandbox = self._record().sandbox
        if sandbox is None:
            raise LabctlError(f"the lab {self.spec.name!r} is not up yet", hint="try again")
        return Path(f"/proc/{sandbox.pid}/root{RUN}", self.spec.host(name).name, "root")

    def digest(self, name: str, roots: Sequence[str] = ("/",), exclude: Sequence[str] = ()) -> str:
        """Return a digest of a host's files: path, mode, owner, size and content; not times.

        Args:
            name: the host.
            roots: the absolute paths to walk.
            exclude: absolute paths that are left out, with all below them; patterns as in ``fnmatch``.
        """
        return inside.digest(self.root(name), roots, exclude)

    def packages(self, name: str) -> dict[str, str]:
        """Return the installed packages of a host in a container with their versions."""
        return inside.packages(self.root(name))

    # Boots.

    def start(self, name: str) -> None:
        """Boot a host, or wake it if it is asleep, and wait until its ssh answers."""
        self._order("start", name, within=self._patience(name))
        self._await_ssh(name)

    def stop(self, name: str, within: float = 60) -> None:
        """Shut a host down in an orderly way."""
        self._order("stop", name, within=within)

    def kill(self, name: str) -> None:
        """Cut a host's power: it is off at once, and what it wrote to its disk stays."""
        self._order("kill", name)

    def reset(self, name: str, *, new_host_key: bool = False) -> None:
        """Throw away everything that happened on a host, heal its faults, and boot it fresh.

        Args:
            name: the host.
            new_host_key: it comes back with another SSH host key and machine id, as one that was reinstalled.
        """
        make_host_keys(self.spec, self.spec.host(name).name, anew=new_host_key)
        self._order("reset", name, within=self._patience(name))
        self._await_ssh(name)

    def reset_all(self) -> None:
        """Reset every host."""
        with ThreadPoolExecutor(launch.boots_at_once()) as pool:
            list(pool.map(self.reset, [host.name for host in self.spec.hosts]))

    # Faults.

    def cut(self, name: str) -> None:
        """Pull a host's network cable: packets vanish both ways."""
        self._order("cut", name, is_cut=True)

    def mend(self, name: str) -> None:
        """Plug the cable in again, at full speed."""
        self._order("cut", name, is_cut=False)
        self.slow(name)

    def slow(self, name: str, delay_ms: int = 0, rate_kbit: int = 0) -> None:
        """Slow a host's cable down by ``delay_ms`` a round trip and to ``rate_kbit`` each way; 0 is no limit.

        Raises:
            LabctlError: this kernel lacks what delays packets (``sch_netem``).
        """
        self._order("slow", name, delay_ms=delay_ms, rate_kbit=rate_kbit)

    def freeze(self, name: str) -> None:
        """Stop every process of a host where it stands; its kernel still takes connections."""
        self._order("freeze", name, frozen=True)

    def thaw(self, name: str) -> None:
        """Let a frozen host go on."""
        self._order("freeze", name, frozen=False)

    def stop_sshd(self, name: str) -> None:
        """Stop (SIGSTOP) every sshd process of a host, those of open connections too."""
        self._signal_sshd(name, signal.SIGSTOP)

    def cont_sshd(self, name: str) -> None:
        """Let stopped sshd processes go on."""
        self._signal_sshd(name, signal.SIGCONT)

    def fill_disk(self, name: str) -> None:
        """Leave no space on a host's disk: the next byte written fails with ENOSPC."""
        self._order("fill", name, full=True)

    def free_disk(self, name: str) -> None:
        """Give the disk its full size back."""
        self._order("fill", name, full=False)

    # Sleep. A host is put to sleep from inside, and woken by what would wake a real one.

    def await_state(self, name: str, state: str, within: float = 60) -> None:
        """Wait until a host is off, booting, running, frozen or asleep.

        Raises:
            LabctlError: it is not within ``within`` seconds.
        """
        self._order("await", name, state=state, within=within)

    def packets(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return every magic packet that was seen on the rack's network, or those for one host's card.

        Each has its ``host``, ``mac``, ``source``, ``ethertype``, ``port``, and as ``outcome`` "wakes" or why
        the host took no notice: awake, not armed, wrong password, unplugged, deaf, lost, nobody's.
        """
        heard: list[dict[str, Any]] = order(self.spec.home, "packets")
        return [packet for packet in heard if name in (None, packet["host"])]

    def sleep_fault(self, name: str, kind: str, value: float | None = None) -> None:
        """Break the way a host sleeps and wakes; a reset or ``sleep-heal`` makes it whole.

        Args:
            name: the host.
            kind: ``no-suspend`` (its kernel refuses), ``wakes-itself`` (after ``value`` seconds), ``deaf``,
                ``loses-packets`` (``value`` of a hundred magic packets), ``slow-boot`` (``value`` seconds
                later) or ``sleep-heal``.
            value: see there.
        """
        self._order("sleep-fault", name, kind=kind, value=value)

    # Graphics cards. ``index`` is a card's place among the host's cards as declared.

    def gpu_state(self, name: str) -> dict[str, Any]:
        """Return the ``driver`` that is loaded, the ``cards`` and what was set so far (``writes``)."""
        return self._gpus(name).look()

    def set_gpu(self, name: str, index: int, **values: str | int | None) -> None:
        """Change what a card says: keys of ``fake/fakenvml.c``, or names of amdgpu's files."""
        self._gpus(name).change(index, **values)

    def remove_gpu(self, name: str, index: int) -> None:
        """Pull a card: it is gone at once and stays away over boots, until ``restore_gpus`` or a reset."""
        self._gpus(name).remove(index)

    def restore_gpus(self, name: str) -> None:
        """Put removed cards back; the host sees them from its next boot on."""
        self._gpus(name).restore()

    def gpu_fault(self, name: str, index: int | None, kind: str) -> None:
        """Break a card (lost, hang, refuse) or the driver (blocked, mismatch, unloaded, nouveau), or heal."""
        self._gpus(name).fault(index, kind)

    def _gpus(self, name: str) -> HostGpus:
        host = self.spec.host(name)
        folder = self.root(name).with_name("gpu")
        if not host.gpus or not folder.is_dir():
            raise LabctlError(
                "it has no graphics cards", host=name, hint="labctl lab up said why, if it should"
            )
        return HostGpus(host, folder)

    @contextmanager
    def hold_apt_lock(self, name: str) -> Iterator[None]:
        """Hold the locks of dpkg and of apt's lists on a host, as another package manager at work would."""
        if self.spec.host(name).machine == "qemu":
            raise LabctlError("the locks of a virtual machine can't be held from outside", host=name)
        with inside.holding_locks(self._record().groups.leader(self.spec.host(name).name)):
            yield

    def _patience(self, name: str) -> float:
        return BOOT_S if self.spec.host(name).machine == "nspawn" else MACHINE_BOOT_S

    def _order(self, verb: str, name: str, **arguments: Any) -> None:
        patience = arguments.get("within", 30) + 30
        order(self.spec.home, verb, patience=patience, host=self.spec.host(name).name, **arguments)

    def _signal_sshd(self, name: str, number: signal.Signals) -> None:
        if self.spec.host(name).machine == "qemu":
            self.run(name, ["pkill", f"-{number.name}", "sshd"], check=True)
            return
        found = [
            pid
            for pid in self._record().groups.pids(f"{name}/payload")
            if command_name(pid).startswith("sshd")
        ]
        if not found:
            raise LabctlError("no sshd runs there", host=self.spec.host(name).name)
        for pid in found:
            os.kill(pid, number)

    def _await_ssh(self, name: str) -> None:
        if not _SILENCING & set(self.hosts()[name]["faults"]):
            launch.await_ssh(self.spec.host(name))

    def _record(self) -> Record:
        return Record.read(self.spec.home)
