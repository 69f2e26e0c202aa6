"""Can this machine carry a virtual rack? Every reason why not, at once, each with the command that helps.

Only what is certain to be missing is named; what can't be known beforehand (a kernel that refuses at the
moment of use) is reported by the part that meets it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, ip_interface, ip_network
from pathlib import Path

from labctl.domain.problem import LabctlError, Problem
from labctl.lab.commands import attempt, find, run

TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "tc": "iproute2",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "useradd": "passwd",
    "dpkg-query": "dpkg",
}
# For hosts that are virtual machines.
MACHINE_TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mke2fs": "e2fsprogs",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
}
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_CAPABILITIES = {"CAP_SYS_ADMIN": 21, "CAP_NET_ADMIN": 12, "CAP_MKNOD": 27, "CAP_SYS_CHROOT": 18}


def require_able(*, machines: bool = False) -> None:
    """Check that this machine can carry a rack; with ``machines``, one with virtual machines in it.

    Raises:
        LabctlError: it can't; one problem for each reason.
    """
    problems = tuple(_lacks(TOOLS | MACHINE_TOOLS if machines else TOOLS))
    if problems:
        raise LabctlError(problems)


def lacks_for_machines() -> tuple[str, ...]:
    """Return the packages that this machine lacks for hosts that are virtual machines."""
    return tuple(sorted({package for tool, package in MACHINE_TOOLS.items() if find(tool) is None}))


def require_free(network: IPv4Network) -> None:
    """Check that a rack's network touches nothing that this machine already reaches.

    Raises:
        LabctlError: an address or a route of the machine lies in it, or it in a route.
    """
    taken = next(_taken(network), None)
    if taken:
        raise LabctlError(
            f"the lab's network {network} overlaps {taken}, which this machine already has",
            hint="end the lab that uses it (labctl lab ls, labctl lab down), or choose other addresses",
        )


def is_free(network: IPv4Network) -> bool:
    """Return whether a rack could have this network."""
    return next(_taken(network), None) is None


def _lacks(tools: Mapping[str, str]) -> Iterator[Problem]:
    if os.geteuid() != 0:
        yield Problem(
            "the virtual rack needs root: it makes namespaces, mounts and interfaces", hint="use sudo"
        )
    missing = sorted({package for tool, package in tools.items() if find(tool) is None})
    if not missing and not _KEYRING.exists():
        missing = ["debian-archive-keyring"]
    if missing:
        yield Problem(
            f"this machine lacks {', '.join(missing)}",
            hint=f"apt-get install --no-install-recommends {' '.join(missing)}",
        )
    if os.geteuid() == 0:
        held = next(
            line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")
        )
        absent = [name for name, bit in _CAPABILITIES.items() if not int(held.split()[1], 16) >> bit & 1]
        if absent:
            yield Problem(
                f"root lacks {', '.join(absent)} here, as in an ordinary container",
                hint="use a real or virtual machine, or a privileged container",
            )
    if not _has_overlay():
        yield Problem("the kernel lacks overlayfs", hint="modprobe overlay")
    if "cgroup2" not in {line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()}:
        yield Problem("no cgroup v2 hierarchy is mounted", hint="mount -t cgroup2 cgroup2 /sys/fs/cgroup")


def _has_overlay() -> bool:
    def known() -> bool:
        return "\toverlay" in Path("/proc/filesystems").read_text()

    return known() or (attempt("modprobe", "-q", "overlay").returncode == 0 and known())


def _taken(network: IPv4Network) -> Iterator[str]:
    for link in json.loads(run("ip", "-j", "-4", "address")):
        for entry in link["addr_info"]:
            own = ip_interface(f"{entry['local']}/{entry['prefixlen']}")
            if own.network.overlaps(network):
                yield f"the address {own} of {link['ifname']}"
    for route in json.loads(run("ip", "-j", "-4", "route", "show", "table", "all")):
        target = route["dst"]
        if target == "default" or route.get("type") in ("local", "broadcast"):
            continue
        if ip_network(target, strict=False).overlaps(network):
            yield f"the route {target}" + (f" of {route['dev']}" if "dev" in route else "")
