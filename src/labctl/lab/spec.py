"""What a virtual rack is: hosts, network, login and the two directories that it may use.

A spec is checked as a whole when it is made: whoever holds one may rely on unique names, addresses and
MACs, on every address lying in the network, and on two more addresses being free (gateway and uplink). All
faults are reported at once. It travels to the daemon as JSON.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from labctl.domain.problem import LabctlError, Problem

SUITES = ("bookworm", "trixie")
MACHINES = ("nspawn", "qemu")
MAX_HOSTS = 30
SSH_PORT = 22
PROXY_PORT = 3142
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")


@dataclass(frozen=True, slots=True)
class LabHost:
    """One host of the rack; ``suite`` is the Debian release that it runs.

    ``gpus`` are the models of its graphics cards, each with an ``@`` address and ``=`` identity if these
    matter: ``"RTX 3090"``, ``"RTX 3090 @0000:3b:00.0 =GPU-..."``. With ``vendor_image`` NVIDIA's driver is
    there from the start, as on machines that come with it. A host that ``sleeps`` can suspend and be woken by
    a magic packet. ``machine`` says what it runs on: ``nspawn``, a container that only stands still in its
    sleep, or ``qemu``, a virtual machine that truly suspends.
    """

    name: str
    address: str
    mac: str
    suite: str = "trixie"
    gpus: tuple[str, ...] = ()
    vendor_image: bool = False
    sleeps: bool = False
    machine: str = "nspawn"


@dataclass(frozen=True, slots=True)
class LabSpec:
    """A whole rack. State lies in ``state_dir/name``, Debian trees and packages in ``cache_dir``."""

    name: str
    hosts: tuple[LabHost, ...]
    network: IPv4Network
    state_dir: Path
    cache_dir: Path
    operator_pubkey: str
    operator_key: Path | None = None
    login_user: str = "admin"
    disk_mib: int = 2048
    mirror: str | None = None

    def __post_init__(self) -> None:
        problems = tuple(_problems(self))
        if problems:
            raise LabctlError(problems)

    @property
    def home(self) -> Path:
        """Return the directory that holds everything about this rack."""
        return self.state_dir / self.name

    @property
    def gateway(self) -> IPv4Address:
        """Return the bridge's address: the lowest that no host uses. Nothing is forwarded beyond it."""
        return next(_free(self))

    @property
    def uplink(self) -> IPv4Address:
        """Return the machine's own address in the rack's network: the highest that no host uses."""
        taken = {IPv4Address(host.address) for host in self.hosts}
        candidate = self.network.broadcast_address - 1
        while candidate in taken:
            candidate -= 1
        return candidate

    @property
    def uplink_interface(self) -> str:
        """Return the name of the machine's interface into the rack, unique for each network."""
        return f"lab{int(self.network.network_address):08x}"

    def host(self, name: str) -> LabHost:
        """Return the host called ``name``.

        Raises:
            LabctlError: there is none; the hint lists those there are.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.hosts)
        raise LabctlError(f"the lab {self.name!r} has no host {name!r}", hint=f"it has: {known}")

    def dump(self) -> str:
        """Return the spec as JSON text."""
        plain = asdict(self) | {
            "network": str(self.network),
            "state_dir": str(self.state_dir),
            "cache_dir": str(self.cache_dir),
            "operator_key": str(self.operator_key) if self.operator_key else None,
        }
        return json.dumps(plain, indent=1)

    @classmethod
    def parse(cls, text: str) -> LabSpec:
        """Return the spec that ``dump`` wrote."""
        plain: dict[str, Any] = json.loads(text)
        plain["hosts"] = tuple(LabHost(**host | {"gpus": tuple(host["gpus"])}) for host in plain["hosts"])
        plain["network"] = IPv4Network(plain["network"])
        plain["state_dir"] = Path(plain["state_dir"])
        plain["cache_dir"] = Path(plain["cache_dir"])
        plain["operator_key"] = Path(plain["operator_key"]) if plain.get("operator_key") else None
        return cls(**plain)


def mac_for(address: str) -> str:
    """Return a locally administered MAC that follows from ``address``: the same address, the same MAC."""
    return "52:54:00:" + ":".join(f"{int(octet):02x}" for octet in address.split(".")[1:])


def require_name(name: str) -> None:
    """Check the name of a lab before anything is looked up or written by it, since it becomes a directory.

    Raises:
        LabctlError: it can't name a lab.
    """
    if not _LABEL.fullmatch(name):
        raise LabctlError([_wrong_name(name)])


def _wrong_name(name: str) -> Problem:
    return Problem(f"{name!r} can't name a lab", hint="use lower-case letters, digits and hyphens")


def _free(spec: LabSpec) -> Iterator[IPv4Address]:
    taken = {IPv4Address(host.address) for host in spec.hosts}
    return (address for address in spec.network.hosts() if address not in taken)


def _problems(spec: LabSpec) -> Iterator[Problem]:
    if not _LABEL.fullmatch(spec.name):
        yield _wrong_name(spec.name)
    if not _USER.fullmatch(spec.login_user):
        yield Problem(f"{spec.login_user!r} can't be a login name on the hosts")
    if not 1 <= len(spec.hosts) <= MAX_HOSTS:
        yield Problem(f"a lab holds 1 to {MAX_HOSTS} hosts, not {len(spec.hosts)}")
    if spec.network.num_addresses < len(spec.hosts) + 4:
        yield Problem(
            f"the network {spec.network} is too small for {len(spec.hosts)} hosts and the lab itself"
        )
    for path in (spec.state_dir, spec.cache_dir):
        if path.is_relative_to("/run") or path.is_relative_to("/var/run") or not path.is_absolute():
            yield Problem(f"the lab can't keep its files in {path}", hint="use an absolute path outside /run")
    yield from (problem for host in spec.hosts for problem in _host_problems(spec, host))
    for field in ("name", "address", "mac"):
        for value, times in Counter(getattr(host, field) for host in spec.hosts).items():
            if times > 1:
                yield Problem(f"{times} hosts have the same {field} {value}", field=field)


def _host_problems(spec: LabSpec, host: LabHost) -> Iterator[Problem]:
    if not _LABEL.fullmatch(host.name):
        yield Problem(f"{host.name!r} can't be a host name", host=host.name, field="name")
    if host.suite not in SUITES:
        yield Problem(
            f"no Debian suite {host.suite!r} here",
            hint=f"use {' or '.join(SUITES)}",
            host=host.name,
            field="suite",
        )
    if host.machine not in MACHINES:
        hint = f"use {' or '.join(MACHINES)}"
        yield Problem(f"no machine {host.machine!r} here", hint=hint, host=host.name, field="machine")
    if not _MAC.fullmatch(host.mac) or int(host.mac[:2], 16) & 1:
        yield Problem(f"{host.mac!r} is no MAC of one machine", host=host.name, field="mac")
    try:
        address = IPv4Address(host.address)
    except ValueError:
        yield Problem(f"{host.address!r} is no IPv4 address", host=host.name, field="address")
        return
    outside = address not in spec.network
    if outside or address in (spec.network.network_address, spec.network.broadcast_address):
        yield Problem(f"{address} is no host address of {spec.network}", host=host.name, field="address")
