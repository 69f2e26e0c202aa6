"""What is scraped, and under which address it is reached from where Prometheus runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from labctl.inventory import Host, Rack
from labctl.inventory.endpoints import reached
from labctl.inventory.sleeping import policy_of

LABCTL, GATEWAY, NODE = "labctl", "labctl-gateway", "labctl-node"


@dataclass(frozen=True, slots=True)
class Scraper:
    """Where Prometheus runs: a host of the rack, None: elsewhere; and what it scrapes besides.

    ``node_exporter`` is the TCP port of node_exporter on every host; None: there is none.
    """

    host: Host | None
    node_exporter: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """An address to scrape, with labels for all that is found there."""

    address: str
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of targets. ``keyed``: it asks for a key; ``tls``: it speaks TLS.

    ``known_as`` is a name that its certificate bears; empty: its address is one.
    ``unreached`` says why there is nothing to scrape although there should be; empty: there is.
    """

    name: str
    targets: tuple[Target, ...] = ()
    keyed: bool = False
    tls: bool = False
    unreached: str = ""
    known_as: str = ""


def jobs(rack: Rack, scraper: Scraper) -> Iterator[Job]:
    """Yield what can be scraped of a rack."""
    if rack.web is not None and rack.controller is not None:
        page = rack.web
        # On loopback the page shows itself, its numbers among them, to everybody.
        keyed = bool(page.keys) and not ip_address(page.listen).is_loopback
        job = Job(LABCTL, keyed=keyed, tls=page.certificate is not None)
        yield _single(rack, scraper, job, (rack.controller.host, page.listen, page.port))
    if rack.gateway is not None:
        one = rack.gateway
        job = Job(GATEWAY, keyed=bool(one.keys), tls=one.certificate is not None)
        yield _single(rack, scraper, job, (one.host, one.listen, one.port))
    if scraper.node_exporter is not None:
        yield Job(NODE, tuple(_nodes(rack, scraper.node_exporter)))


def _single(rack: Rack, scraper: Scraper, job: Job, at: tuple[str, str, int]) -> Job:
    name, listen, port = at
    address = reached(rack.host(name), listen, scraper.host)
    if address is None:
        where = "elsewhere" if scraper.host is None else scraper.host.name
        return Job(job.name, unreached=f"it listens on {listen} of {name}, which {where} does not reach")
    return Job(job.name, (Target(at_port(address, port), (("rack", rack.name),)),), job.keyed, job.tls)


def _nodes(rack: Rack, port: int) -> Iterator[Target]:
    policy = policy_of(rack)
    for host in rack.hosts:
        wanted = policy.hosts[host.name]
        # Without a controller nobody puts a host to sleep.
        sleeps = rack.controller is not None and (wanted.sleeps or wanted.wakeable)
        labels = (("rack", rack.name), ("host", host.name), ("sleeps", "yes" if sleeps else "no"))
        yield Target(at_port(host.address, port), labels)


def at_port(address: str, port: int) -> str:
    """Return an address with a port; an IPv6 address is put in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
