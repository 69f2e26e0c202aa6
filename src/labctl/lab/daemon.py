"""The outside of the rack: owner of the sandbox, the uplink and the apt proxy.

It writes down what it will make, makes it, and then waits for one of three ends: it is told to stop
(SIGTERM), the sandbox dies, or the process that wanted the lab only for itself is gone (its end of our
standard input closes). All ends are the same: the sandbox is killed, and everything that was written down
is removed.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

from labctl.domain.problem import LabctlError
from labctl.lab.aptsources import allowed, machine_proxy
from labctl.lab.bases import archives_of
from labctl.lab.cgroups import Groups
from labctl.lab.links import lay_uplink
from labctl.lab.processes import Process, wait_until
from labctl.lab.proxy import AptProxy
from labctl.lab.record import Record, take_lock
from labctl.lab.spec import PROXY_PORT, LabSpec

_SANDBOX = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc")


def main(home: Path, trees: dict[str, str], *, stays: bool) -> None:
    """Run the lab in ``home`` until it shall end; say "ready" on standard output when orders may be given.

    ``trees`` are the Debian trees by suite. A lab that ``stays`` outlives the process that started it.
    """
    spec = LabSpec.parse((home / "spec.json").read_text())
    lock = take_lock(home)
    if lock is None:
        raise LabctlError(f"the lab {spec.name!r} is up already", hint="labctl lab down")
    with lock:
        record = Record(
            daemon=Process.see(os.getpid()),
            groups=Groups.below_mine(f"labctl-{spec.uplink_interface}"),
            uplink=spec.uplink_interface,
            trees=trees,
        )
        record.write(home)
        stop = _stop_signals()
        try:
            _live(spec, record, stop, stays=stays)
        finally:
            Record.read(home).sweep(home)


def _live(spec: LabSpec, record: Record, stop: int, *, stays: bool) -> None:
    home = spec.home
    argv = [*_SANDBOX, sys.executable, "-P", "-m", "labctl.lab.sandbox", str(home)]
    sandbox = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert sandbox.stdout is not None
    if sandbox.stdout.readline() != b"ready\n":
        raise LabctlError(
            f"the sandbox ended with status {sandbox.wait()}", hint=f"read {home}/log/daemon.log"
        )
    first = _only_child(sandbox.pid)
    inside = Process.see(first)
    record.with_sandbox(inside).write(home)
    lay_uplink(spec, first)
    _serve_packages(spec, record)
    os.write(1, b"ready\n")
    # Whoever waits for "ready" reads to the end of that pipe; the log takes its place.
    os.dup2(2, 1)
    gone = os.pidfd_open(sandbox.pid)
    select.select([stop, gone] if stays else [stop, gone, 0], [], [])
    inside.end(signal.SIGKILL, within=10)
    sandbox.wait(10)


def _only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(lambda: bool(children.read_text()), within=5)
    return int(children.read_text().split()[0])


def _serve_packages(spec: LabSpec, record: Record) -> None:
    archives = {uri for tree in record.trees.values() for uri in archives_of(Path(tree))}
    address = (str(spec.uplink), PROXY_PORT)
    cache = spec.cache_dir / "packages"
    proxy = AptProxy(address, spec.network, allowed(archives), cache, machine_proxy())
    threading.Thread(target=proxy.serve_forever, daemon=True).start()


def _stop_signals() -> int:
    """Return a descriptor that becomes readable when this process shall end in an orderly way."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writable)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return readable


if __name__ == "__main__":
    try:
        main(
            Path(sys.argv[1]),
            dict(word.split("=", 1) for word in sys.argv[3:]),
            stays=sys.argv[2] == "stays",
        )
    except LabctlError as failure:
        sys.stderr.write(f"{failure}\n")
        os.write(1, f"{failure}\n".encode())
        sys.exit(2)
