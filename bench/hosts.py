"""The hosts to measure on: one virtual rack, alike for every tool.

Between two first runs a host is thrown away and booted fresh. Ansible needs python3-apt there, which a
Debian server usually has but the virtual rack's hosts don't; it is put in by dpkg after every boot, for every
tool. Nothing is timed before the hosts have come to rest, and every run finds a host to which nobody is
logged in: a log-in starts a systemd for the user, which stays for a while and would favour whoever is next.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path

from bench.measure import cpu_s

from labctl.lab import Lab, LabHost, LabSpec
from labctl.lab.launch import boots_at_once
from labctl.lab.record import Record
from labctl.lab.spec import mac_for
from labctl.wiring import cache_home

SUITE = "trixie"
TOUCHED = ("/etc/labctl-bench", "/opt/labctl-bench", "/var/lib/labctl-bench", "/etc/systemd/system")
_ASK = (
    "getent passwd benchsvc; getent group bench benchsvc; id benchsvc;"
    " systemctl is-active bench-a bench-b; systemctl is-enabled bench-a bench-b;"
    " systemctl show -p NeedDaemonReload bench-a bench-b"
)
_FETCH = "apt-get install -y --no-install-recommends --download-only -o Acquire::Retries=3 python3-apt >&2"
_REST_S = 20.0
_QUIET = 0.04  # of one processor, all hosts together


def describe(count: int, network: IPv4Network, user: str, work: Path) -> LabSpec:
    """Return a rack of ``count`` hosts, with a new key for the operator in ``work``."""
    key = work / "operator"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", str(key)], check=True)
    addresses = [str(network[11 + index]) for index in range(count)]
    hosts = tuple(
        LabHost(f"n{index + 1:02d}", address, mac_for(address), SUITE)
        for index, address in enumerate(addresses)
    )
    return LabSpec(
        name=f"bench-{network.network_address.packed[1]}-{network.network_address.packed[2]}",
        hosts=hosts,
        network=network,
        state_dir=work / "lab",
        cache_dir=cache_home() / "lab",
        operator_pubkey=key.with_suffix(".pub").read_text(),
        operator_key=key,
        login_user=user,
    )


class Hosts:
    """The first ``n`` hosts of a rack, as the benchmark uses them."""

    def __init__(self, lab: Lab, work: Path) -> None:
        self.lab = lab
        self._debs = work / "debs"
        self._pool = ThreadPoolExecutor(boots_at_once())

    def names(self, count: int) -> list[str]:
        """Return the names of the first ``count`` hosts."""
        return [host.name for host in self.lab.spec.hosts[:count]]

    def groups(self, count: int) -> list[Path]:
        """Return the control groups of the first ``count`` hosts."""
        unified = Record.read(self.lab.spec.home).groups.unified
        return [unified / name for name in self.names(count)]

    def fetch(self) -> None:
        """Get the packages that every fresh host is given, once."""
        first = self.names(1)[0]
        self.lab.run(first, ["sh", "-c", _FETCH], timeout=300, check=True)
        self._debs.mkdir()
        for deb in (self.lab.root(first) / "var/cache/apt/archives").glob("*.deb"):
            shutil.copy(deb, self._debs)

    def fresh(self, count: int) -> None:
        """Throw the first ``count`` hosts away and boot them anew."""
        list(self._pool.map(self._renew, self.names(count)))

    def _renew(self, name: str) -> None:
        self.lab.reset(name)
        self.lab.run(name, ["systemctl", "is-system-running", "--wait"], timeout=120)
        there = self.lab.root(name) / "root/debs"
        shutil.copytree(self._debs, there)
        self.lab.run(name, ["sh", "-c", "dpkg -i /root/debs/*.deb"], timeout=120, check=True)
        shutil.rmtree(there)

    def ready(self, count: int) -> None:
        """Make sure that nobody is logged in; wait until the hosts do next to nothing, at most 20 seconds."""
        list(self._pool.map(self._log_out, self.names(count)))
        deadline = time.monotonic() + _REST_S
        groups = self.groups(count)
        while time.monotonic() < deadline:
            before = sum(map(cpu_s, groups))
            time.sleep(0.5)
            if sum(map(cpu_s, groups)) - before < _QUIET * 0.5:
                return

    def _log_out(self, name: str) -> None:
        self.lab.run(name, ["systemctl", "stop", "user@*.service"], timeout=60, check=True)

    def state(self, count: int) -> dict[str, str]:
        """Return a digest of each host's end state: files, users, units, packages."""
        return dict(zip(self.names(count), self._pool.map(self._state, self.names(count)), strict=True))

    def _state(self, name: str) -> str:
        said = self.lab.run(name, ["sh", "-c", _ASK], timeout=60).stdout
        whole = (self.lab.digest(name, TOUCHED), said, repr(sorted(self.lab.packages(name).items())))
        return hashlib.sha256("\0".join(whole).encode()).hexdigest()[:16]
