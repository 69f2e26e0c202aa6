"""Start a rack's daemon, and wait for what it starts.

Before anything is made: the machine must be able, leftovers of a killed lab of the same name are swept, and
the network must be free. Trees and host keys are made next, since both outlive the rack. Where systemd
manages the machine, the daemon runs in a scope of its own with a delegated control group, as systemd
demands of those who make groups themselves.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from labctl.domain.problem import LabctlError
from labctl.lab.accel import try_kvm
from labctl.lab.bases import base
from labctl.lab.commands import PLAIN_ENV, find
from labctl.lab.furnish import make_host_keys
from labctl.lab.guest import guest
from labctl.lab.preflight import require_able, require_free
from labctl.lab.processes import wait_until
from labctl.lab.record import sweep_leftovers
from labctl.lab.sleeper import lacks as lacks_sleep
from labctl.lab.spec import SSH_PORT, LabHost, LabSpec
from labctl.lab.supplies import note, packages_for

_SSH_S = 60.0
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
_INSTANCES = 4096


def launch(spec: LabSpec, progress: Callable[[str], None], *, stays: bool) -> subprocess.Popen[bytes]:
    """Start the daemon of a rack and return it when the rack's hosts may be started.

    Raises:
        LabctlError: the machine can't carry the rack, or its daemon failed.
    """
    require_able(machines=any(host.machine == "qemu" for host in spec.hosts))
    left = sweep_leftovers(spec.home)
    if left:
        raise LabctlError(f"an earlier lab left {', '.join(left)}, which would not go")
    require_free(spec.network)
    _make_room(progress)
    trees = {
        suite: base(suite, spec.cache_dir, progress, spec.mirror)
        for suite in sorted({host.suite for host in spec.hosts})
    }
    if machines := {host.suite for host in spec.hosts if host.machine == "qemu"}:
        guests = [guest(suite, spec.cache_dir, progress, spec.mirror) for suite in sorted(machines)]
        by = (
            "by the processor itself"
            if try_kvm(guests[0], spec.cache_dir)
            else "slowly: KVM runs no guest here"
        )
        progress(f"virtual machines run {by}")
    packages = packages_for(spec, progress)
    if reasons := lacks_sleep(spec):
        progress(f"no host in a container can sleep, since {'; '.join(reasons)}")
    progress(f"starting {len(spec.hosts)} hosts on {spec.network}")
    (spec.home / "log").mkdir(parents=True, exist_ok=True)
    note(spec, packages)
    spec.home.chmod(0o700)
    for host in spec.hosts:
        make_host_keys(spec, host.name)
    (spec.home / "spec.json").write_text(spec.dump())
    return _spawn(spec, trees, stays=stays)


def boots_at_once() -> int:
    """Return how many hosts boot side by side: a boot is mostly work for a processor."""
    return 2 * (os.cpu_count() or 1)


def await_ssh(host: LabHost) -> None:
    """Wait until the host's sshd greets.

    Raises:
        LabctlError: it did not within a minute.
    """

    def greets() -> bool:
        try:
            with socket.create_connection((host.address, SSH_PORT), 2) as link:
                link.settimeout(2)
                return link.recv(4) == b"SSH-"
        except OSError:
            return False

    if not wait_until(greets, within=_SSH_S):
        raise LabctlError(f"it runs, but its ssh does not answer at {host.address}", host=host.name)


def _make_room(progress: Callable[[str], None]) -> None:
    """Raise the number of inotify instances that root may have: each host takes about eight, 128 are usual.

    Where it stays too low, systemd dies inside the hosts without a word. The higher limit stays until the
    machine boots: taking it back could starve another lab, or whoever else relied on it meanwhile.
    """
    now = int(_INOTIFY.read_text())
    if now >= _INSTANCES:
        return
    try:
        _INOTIFY.write_text(str(_INSTANCES))
    except OSError as error:
        raise LabctlError(
            f"only {now} inotify instances are allowed, and that can't be changed here: {error.strerror}",
            hint=f"outside of this container: sysctl fs.inotify.max_user_instances={_INSTANCES}",
        ) from None
    progress(f"raised fs.inotify.max_user_instances from {now} to {_INSTANCES}, until the next boot")


def _spawn(spec: LabSpec, trees: dict[str, Path], *, stays: bool) -> subprocess.Popen[bytes]:
    argv = [
        *(*PLAIN_ENV, *_scope(spec), sys.executable, "-P", "-m", "labctl.lab.daemon", str(spec.home)),
        *("stays" if stays else "follows", *(f"{suite}={tree}" for suite, tree in trees.items())),
    ]
    with (spec.home / "log" / "daemon.log").open("ab") as log:
        daemon = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if stays else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    assert daemon.stdout is not None
    with daemon.stdout:
        said = daemon.stdout.readline().decode().strip()
    if said != "ready":
        daemon.wait()
        raise LabctlError(said or "the lab's daemon ended at once", hint=f"read {spec.home}/log/daemon.log")
    return daemon


def _scope(spec: LabSpec) -> tuple[str, ...]:
    if not Path("/run/systemd/system").is_dir() or find("systemd-run") is None:
        return ()
    unit = f"--unit=labctl-{spec.uplink_interface}-{os.getpid()}"
    return ("systemd-run", "--scope", "--quiet", "--collect", "--property=Delegate=yes", unit)
