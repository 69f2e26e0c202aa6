"""The firewall of a host: what the inventory declares is open, everything else from outside is dropped.

A port is declared by the SSH settings or by ``open_ports``, never by a service alone: that a program listens
to everybody does not mean that everybody should reach it, so it is said twice (`labctl validate` insists).
Two rules keep a mistake from locking anybody out: every port on which the host's sshd really listens stays
open (behind a port forward it is not the port in the inventory), and sshd is accepted before connection
tracking, so that the session which loads the rules survives them. The rules live in one table of labctl's
own; tables of the user, of Docker and of libvirt are never touched. The table holds an empty chain named
after the digest of its rules, so that a look at the kernel tells whether it runs *these* rules, not merely
whether a file lies on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from labctl import render
from labctl.inventory import Host
from labctl.render.units import Unit

TABLE = "labctl"
DIRECTORY = "/etc/labctl"
RULES = f"{DIRECTORY}/firewall.nft"
DROP_INS = f"{DIRECTORY}/firewall.d"
# Not called labctl-*: that name could be a service's.
UNIT = "nftables-labctl.service"
CHECK_RULES = ("nft", "-c", "-f")
_MARKER = "rules_"


def declared_ports(host: Host) -> list[tuple[int, str]]:
    """Return the TCP ports to open besides SSH, each with who listens there, in order of their numbers."""
    return [
        (port, ", ".join(service.name for service in host.services if service.port == port)[:100])
        for port in sorted(set(host.open_ports))
    ]


def rules(host: Host, ssh_ports: Iterable[int]) -> str:
    """Return the file for ``nft -f``; it replaces labctl's table in one transaction.

    Args:
        host: whose ports are opened.
        ssh_ports: the port of the inventory and those on which sshd listens; at least one.

    Raises:
        ValueError: ``ssh_ports`` is empty, which would lock everybody out.
    """
    ports = sorted(set(ssh_ports))
    if not ports:
        raise ValueError("a firewall without a port for SSH would lock everybody out")

    def fill(marker: str) -> str:
        return render.text(
            "firewall.nft.j2",
            unit=UNIT,
            table=TABLE,
            drop_ins=f"{DROP_INS}/*.nft",
            marker=marker,
            ssh_ports=ports,
            open_ports=declared_ports(host),
            mdns=host.address.endswith(".local"),
        )

    return fill(_MARKER + hashlib.sha256(fill("").encode()).hexdigest()[:16])


def marker(content: str) -> str:
    """Return the name of the chain by which the kernel shows that it runs these rules."""
    return next(word for word in content.split() if word.startswith(_MARKER))


def unit() -> Unit:
    """Return the unit that loads the rules before the network comes up."""
    return Unit(UNIT, render.text("firewall.service.j2", rules=RULES, table=TABLE))
