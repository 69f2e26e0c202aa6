"""The inside of the rack: first process of the sandbox, holder of all hosts.

It is started by the daemon through ``unshare`` in fresh mount, network and process namespaces. It lays the
bridge, prepares the hosts, and then obeys orders. It lives as long as its standard input is open; when the
daemon is gone, however it went, the input ends, this process ends, and with it the kernel ends every
process, mount and interface of the rack.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from labctl.domain.problem import LabctlError
from labctl.lab.commands import run
from labctl.lab.guest import guest
from labctl.lab.links import BRIDGE, Slowness, TapCable, cables, lay_bridge
from labctl.lab.nic import Ear, Magic
from labctl.lab.nspawn import RUN, Host, NspawnHost, Place
from labctl.lab.qemu import QemuHost
from labctl.lab.record import Record
from labctl.lab.sleeper import LIVE, SleepingHost, lacks
from labctl.lab.spec import LabSpec
from labctl.lab.supplies import packages_of
from labctl.lab.wire import serve


class Sandbox:
    """All hosts of one rack, and what may be ordered of them."""

    def __init__(self, spec: LabSpec, record: Record) -> None:
        trees = {suite: Path(tree) for suite, tree in record.trees.items()}
        place = Place(spec, trees, record.groups, packages_of(spec))
        wires = cables(spec)
        can_sleep = not lacks(spec)
        self.hosts: dict[str, Host] = {}
        for host in spec.hosts:
            wire = wires[host.name]
            if isinstance(wire, TapCable):
                made = guest(host.suite, spec.cache_dir, _log, spec.mirror)
                self.hosts[host.name] = QemuHost(place, host, wire, made, _log)
            elif host.sleeps and can_sleep:
                self.hosts[host.name] = SleepingHost(place, host, wire, _log)
            else:
                self.hosts[host.name] = NspawnHost(place, host, wire, _log)
        self.full: set[str] = set()
        self.ear = Ear(BRIDGE, self._hear)

    def prepare(self) -> None:
        """Give every host its disk, and listen for magic packets."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda host: host.prepare(), self.hosts.values()))
        sleepers = [host for host in self.hosts.values() if isinstance(host, SleepingHost)]
        if sleepers:
            # Not at the top: it needs FUSE, and most racks do without.
            from labctl.lab.powerfs import serve as serve_power

            serve_power({path: knob for host in sleepers for path, knob in host.knobs().items()}, LIVE)
        self.ear.start()

    def obey(self, verb: str, arguments: dict[str, Any]) -> Any:
        """Carry out one order and return what it answers."""
        if verb == "list":
            return {name: self._describe(name) for name in self.hosts}
        if verb == "packets":
            return self.ear.notes()
        name = arguments.pop("host")
        verbs: dict[str, Callable[..., Any]] = {
            "start": self.hosts[name].start,
            "stop": self.hosts[name].shut_down,
            "kill": self.hosts[name].kill,
            "freeze": self.hosts[name].freeze,
            "cut": self.hosts[name].cable.cut,
            "reset": self._reset,
            "fill": self._fill,
            "slow": self._slow,
            "await": self.hosts[name].await_state,
            "sleep-fault": self.hosts[name].give_fault,
            "execute": self._execute,
        }
        if verb in ("reset", "fill", "slow", "execute"):
            arguments["name"] = name
        answer = verbs[verb](**arguments)
        return self._describe(name) if answer is None else answer

    def _describe(self, name: str) -> dict[str, Any]:
        host = self.hosts[name]
        slowness = host.cable.slowness
        faults = [
            *(["cut"] if host.cable.is_cut else []),
            *(["slow"] if slowness != Slowness() else []),
            *(["disk full"] if name in self.full else []),
            *host.faults(),
        ]
        return {"state": host.state, "faults": faults}

    def _hear(self, magic: Magic) -> tuple[str | None, str]:
        for name, host in self.hosts.items():
            if host.cable.host.mac == magic.mac:
                return name, host.hear(magic)
        return None, "nobody's"

    def _reset(self, name: str, within: float) -> None:
        host = self.hosts[name]
        host.kill()
        host.discard()
        self.full.discard(name)
        host.cable.slowness = Slowness()
        host.prepare()
        host.start(within)

    def _execute(self, name: str, argv: list[str], stdin: str, timeout: float) -> dict[str, Any]:
        host = self.hosts[name]
        if not isinstance(host, QemuHost):
            raise LabctlError("only a virtual machine runs commands for the lab", host=name)
        return host.execute(argv, stdin, timeout)

    def _fill(self, name: str, *, full: bool) -> None:
        self.hosts[name].fill(full=full)
        (self.full.add if full else self.full.discard)(name)

    def _slow(self, name: str, delay_ms: int, rate_kbit: int) -> None:
        self.hosts[name].cable.slow(Slowness(delay_ms, rate_kbit))


def main(home: Path) -> None:
    """Set the sandbox up, say so on standard output, and live until standard input ends."""
    spec = LabSpec.parse((home / "spec.json").read_text())
    record = Record.read(home)
    # Shared, so that a host's disk that is unmounted here vanishes from the namespaces of the other hosts
    # too.
    run("mount", "--make-rshared", "/")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "lab-run", "/run")
    for directory in (RUN, Path("/run/lock"), Path("/run/systemd"), Path("/run/netns")):
        directory.mkdir(parents=True, exist_ok=True)
    lay_bridge(spec)
    record.groups.create()
    sandbox = Sandbox(spec, record)
    sandbox.prepare()
    serve(home, sandbox.obey)
    os.write(1, b"ready\n")
    while os.read(0, 4096):
        continue
    # Orderly ends are of no use to hosts that are thrown away; the kernel is quicker and leaves nothing.
    os._exit(0)


def _log(line: str) -> None:
    os.write(2, f"{line}\n".encode())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except LabctlError as failure:
        _log(str(failure))
        os._exit(2)
