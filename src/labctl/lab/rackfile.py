"""Between a rack file and a virtual rack: boot what a file describes, or describe what shall be booted.

A host of a rack file becomes a lab host with the same name, address and, if it wakes by Wake-on-LAN, the
same MAC and a sleep to be woken from; its graphics cards become fake ones, with the PCI address and UUID that
the file gives them. A card that the lab has no imitation of is left out, and ``not_imitated`` names it. The
lab needs IPv4 addresses of one network, the ordinary SSH port and one login for all hosts; what else it can't
imitate is refused with the place, never approximated. A file that the lab writes has the shapes of the
example rack, as many as asked for; a file that is there already is never overwritten.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from labctl.domain.problem import LabctlError, Problem
from labctl.inventory import Gpu, Host, LoadedRack, WakeOnLan, profiles
from labctl.lab.commands import run
from labctl.lab.fake import boards
from labctl.lab.preflight import is_free
from labctl.lab.spec import MAX_HOSTS, SSH_PORT, SUITES, LabHost, LabSpec, mac_for

MIXED = "mixed"
_WIDEST = 16
_NETWORKS = tuple(IPv4Network("10.66.0.0/16").subnets(new_prefix=24))
_HEAD = '''\
"""A virtual rack of {number} hosts, written by `labctl lab up`. Change it: it is never overwritten.

This is an ordinary rack file; `labctl init` gives you a commented one for your own machines.
"""

from labctl.inventory import Gpu, Host, IdlePolicy, Rack, Ssh, WakeOnLan

rack = Rack(
    name="lab",
    ssh=Ssh(user="admin", key="keys/operator"),
    hosts=[
'''
_TAIL = """\
    ],
)

# For plain pyinfra: one group with all hosts, and one group for each role.
globals().update(rack.groups())
"""
_SHAPES = (
    (
        "gpu-box",
        'roles=["gpu"]',
        'gpus=[Gpu(model="RTX 3090", slot=f"slot{n}", cap_w=200, cap_reason="circuit") for n in range(8)]',
        "base_w=250",
    ),
    (
        "strix",
        'roles=["gpu"]',
        'gpus=[Gpu(model="Radeon 8060S", slot="igpu")]',
        "unified_memory_gib=128",
        "base_w=140",
    ),
    ("mini", "base_w=35", 'idle=IdlePolicy(suspend=True, after="30m")'),
    ("nas", 'roles=["storage", "always-on"]', "base_w=40"),
    ("hub", 'roles=["always-on"]', "base_w=10"),
)
_MORE = (
    'roles=["gpu"]',
    'gpus=[Gpu(model="RTX 3090", slot=f"slot{n}", cap_w=250, cap_reason="circuit") for n in range(2)]',
    "base_w=120",
)


@dataclass(frozen=True, slots=True)
class Homes:
    """Where labs keep their files."""

    state: Path
    cache: Path


def write_rack_file(path: Path, number: int) -> bool:
    """Write a rack file of ``number`` hosts to ``path``; return False and leave it alone if there is one.

    Raises:
        LabctlError: a lab can't have so many hosts.
    """
    if not 1 <= number <= MAX_HOSTS:
        raise LabctlError(f"a lab holds 1 to {MAX_HOSTS} hosts, not {number}")
    if path.exists():
        return False
    network = next(filter(is_free, _NETWORKS), None)
    if network is None:
        raise LabctlError(
            f"this machine already uses all of {_NETWORKS[0].supernet(new_prefix=16)}",
            hint="write a RACKFILE",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    hosts = "".join(_host_text(index, str(network[11 + index])) for index in range(number))
    path.write_text(_HEAD.format(number=number) + hosts + _TAIL)
    return True


def _host_text(index: int, address: str) -> str:
    name, *shape = _SHAPES[index] if index < len(_SHAPES) else (f"gpu-{index - len(_SHAPES) + 2}", *_MORE)
    fields = [f'name="{name}"', f'address="{address}"', *shape, f'wake=WakeOnLan(mac="{mac_for(address)}")']
    lines = "".join(f"            {field},\n" for field in fields)
    return f"        Host(\n{lines}        ),\n"


def spec_of(
    loaded: LoadedRack,
    name: str,
    suite: str,
    homes: Homes,
    mirror: str | None = None,
    machines: Collection[str] = (),
) -> LabSpec:
    """Return the lab that boots exactly the hosts of a rack file; makes the operator's key if there is none.

    Args:
        loaded: the rack file.
        name: what the lab is called.
        suite: the Debian release of all hosts, or "mixed" for both in turn.
        homes: where labs keep their state, their Debian trees and packages.
        mirror: URL of the Debian archive to build from; by default the one that the machine uses.
        machines: the hosts that shall be virtual machines; they have no graphics cards.

    Raises:
        LabctlError: the file says something that the lab can't imitate; all such things at once.
    """
    problems = [problem for host in loaded.rack.hosts for problem in _unfit(loaded, host)]
    known = {host.name for host in loaded.rack.hosts}
    problems += [
        Problem(f"no host {stray!r} is there to be a virtual machine", file=str(loaded.path))
        for stray in sorted(set(machines) - known)
    ]
    if problems:
        raise LabctlError(problems)
    suites = SUITES if suite == MIXED else (suite,)
    hosts = tuple(
        _lab_host(host, suites[index % len(suites)], is_machine=host.name in machines)
        for index, host in enumerate(loaded.rack.hosts)
    )
    ssh = loaded.rack.ssh_for(loaded.rack.hosts[0])
    return LabSpec(
        name=name,
        hosts=hosts,
        network=_network(host.address for host in hosts),
        state_dir=homes.state,
        cache_dir=homes.cache,
        mirror=mirror,
        operator_pubkey=_operator_key(loaded.folder / ssh.key),
        operator_key=loaded.folder / ssh.key,
        login_user=ssh.user,
    )


def _lab_host(host: Host, suite: str, *, is_machine: bool) -> LabHost:
    cards = () if is_machine else _cards(host)
    sleeps, machine = isinstance(host.wake, WakeOnLan), "qemu" if is_machine else "nspawn"
    return LabHost(host.name, host.address, _mac(host), suite, cards, host.vendor_image, sleeps, machine)


def _unfit(loaded: LoadedRack, host: Host) -> Iterator[Problem]:
    file, ssh, first = str(loaded.path), loaded.rack.ssh_for(host), loaded.rack.ssh_for(loaded.rack.hosts[0])
    try:
        IPv4Address(host.address)
    except ValueError:
        reason = f"{host.address!r} is a name; a virtual host needs an IPv4 address"
        yield Problem(reason, file=file, host=host.name, field="address")
    if ssh.port != SSH_PORT:
        reason = f"a virtual host listens on port {SSH_PORT}, not {ssh.port}"
        yield Problem(reason, file=file, host=host.name, field="ssh.port")
    if (ssh.user, ssh.key) != (first.user, first.key):
        reason = "all hosts of a virtual rack have the same user and key"
        yield Problem(reason, file=file, host=host.name, field="ssh")


def not_imitated(loaded: LoadedRack) -> tuple[str, ...]:
    """Return the models of cards in a rack file that no virtual host will have."""
    models = {gpu.model for host in loaded.rack.hosts for gpu in host.gpus if _board(gpu) is None}
    return tuple(sorted(models))


def _cards(host: Host) -> tuple[str, ...]:
    found = ((gpu, _board(gpu)) for gpu in host.gpus)
    return tuple(
        " ".join(filter(None, (board.model, gpu.pci and f"@{gpu.pci}", gpu.uuid and f"={gpu.uuid}")))
        for gpu, board in found
        if board is not None
    )


def _board(gpu: Gpu) -> boards.Board | None:
    profile = profiles.find(gpu.model)
    return boards.find(gpu.model) or (boards.find(profile.name) if profile else None)


def _mac(host: Host) -> str:
    return host.wake.mac if isinstance(host.wake, WakeOnLan) else mac_for(host.address)


def _network(addresses: Iterable[str]) -> IPv4Network:
    """Return the smallest network, from /24 up to /16, that holds all addresses."""
    wanted = [IPv4Address(address) for address in addresses]
    network = IPv4Network((wanted[0], 24), strict=False)
    while not all(address in network for address in wanted):
        if network.prefixlen == _WIDEST:
            raise LabctlError(
                "the hosts' addresses lie too far apart for one virtual network", hint="use one /16"
            )
        network = network.supernet()
    return network


def _operator_key(key: Path) -> str:
    """Return the public half of the operator's key, made now if there is no key."""
    if not key.exists():
        key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "labctl operator", "-f", str(key))
        # The lab needs root, but a rack below somebody's home is used by them: the key is theirs.
        owner = key.parent.parent.stat()
        for path in (key.parent, key, key.with_name(f"{key.name}.pub")):
            os.chown(path, owner.st_uid, owner.st_gid)
    return run("ssh-keygen", "-y", "-P", "", "-f", str(key)).strip()
