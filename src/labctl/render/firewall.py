"""The firewall of a host: what the inventory declares is open, everything else from outside is dropped.

A port is declared by the SSH settings or by ``open_ports``, never by a service alone: that a program listens
to everybody does not mean that everybody should reach it, so it is said twice (`labctl validate` insists).
What hosts that work together speak among themselves (Ray, rpc-server) is open to exactly those hosts, by
their private interface, and follows from who works with whom; no setting opens it to more.
Two rules keep a mistake from locking anybody out: every port on which the host's sshd really listens stays
open (behind a port forward it is not the port in the inventory), and sshd is accepted before connection
tracking, so that the session which loads the rules survives them. The rules live in one table of labctl's
own; tables of the user, of Docker and of libvirt are never touched. The table holds an empty chain named
after the digest of its rules, so that a look at the kernel tells whether it runs *these* rules, not merely
whether a file lies on disk.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from labctl import render
from labctl.inventory import Host, Rack
from labctl.inventory.clusters import Opening
from labctl.render.units import Unit

TABLE = "labctl"
DIRECTORY = "/etc/labctl"
RULES = f"{DIRECTORY}/firewall.nft"
DROP_INS = f"{DIRECTORY}/firewall.d"
# Not called labctl-*: that name could be a service's.
UNIT = "nftables-labctl.service"
CHECK_RULES = ("nft", "-c", "-f")
_MARKER = "rules_"


def declared_ports(host: Host, more: Mapping[int, str]) -> list[tuple[int, str]]:
    """Return the TCP ports to open besides SSH, each with who listens there, in order of their numbers."""
    return [
        (port, ", ".join(_listening(host, port, more))[:100]) for port in sorted({*host.open_ports, *more})
    ]


def _listening(host: Host, port: int, more: Mapping[int, str]) -> list[str]:
    own = [more[port]] if port in more else []
    return [service.name for service in host.services if service.port == port] + own


def own_ports(rack: Rack, host: Host) -> dict[int, str]:
    """Return the ports that labctl's own servers on a host are reached by from others."""
    controller = None if rack.controller is None else rack.controller.host
    gateway, web = rack.gateway, rack.web
    found = {}
    if gateway is not None and gateway.host == host.name and not _is_loopback(gateway.listen):
        found[gateway.port] = "labctl gateway"
    if web is not None and controller == host.name and not _is_loopback(web.listen):
        found[web.port] = "labctl web"
    return found


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def rules(
    host: Host,
    ssh_ports: Iterable[int],
    openings: Sequence[Opening] = (),
    more: Mapping[int, str] = MappingProxyType({}),
) -> str:
    """Return the file for ``nft -f``; it replaces labctl's table in one transaction.

    Args:
        host: whose ports are opened.
        ssh_ports: the port of the inventory and those on which sshd listens; at least one.
        openings: what single other hosts may reach, see ``labctl.inventory.clusters.openings``.
        more: further ports that are open to everybody, with who listens there; see ``own_ports``.

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
            open_ports=declared_ports(host, more),
            openings=[_private(opening) for opening in openings],
            mdns=host.address.endswith(".local"),
        )

    return fill(_MARKER + hashlib.sha256(fill("").encode()).hexdigest()[:16])


def _private(opening: Opening) -> dict[str, str]:
    """Return the words of the rule for an opening; an IPv6 source makes it one for IPv6."""
    spans = (f"{low}-{high}" if low < high else f"{low}" for low, high in opening.ports)
    return {
        # A device name may hold anything but space, "/" and ":", and nft knows no escapes in a string.
        "interface": opening.interface.replace('"', ""),
        "family": "ip6" if any(":" in source for source in opening.sources) else "ip",
        "sources": ", ".join(opening.sources),
        "ports": ", ".join(spans),
        "why": opening.why,
    }


def marker(content: str) -> str:
    """Return the name of the chain by which the kernel shows that it runs these rules."""
    return next(word for word in content.split() if word.startswith(_MARKER))


def unit() -> Unit:
    """Return the unit that loads the rules before the network comes up."""
    return Unit(UNIT, render.text("firewall.service.j2", rules=RULES, table=TABLE))
