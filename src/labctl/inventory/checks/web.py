"""The web page: has it a controller to ask, a port of its own, and a key where others can reach it?"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from labctl.inventory.checks.finding import Finding, Where, twice
from labctl.inventory.hosts import Host
from labctl.inventory.rack import Rack
from labctl.inventory.web import USER, Web

_AT: Where = ("web",)
_FIRST_FREE = 1024
"""The first port on which a process without rights may listen; the page's unit gives it none."""


def web(rack: Rack) -> Iterator[Finding]:
    """Yield what keeps the web page from running, or lets in whom nobody meant."""
    wanted = rack.web
    if wanted is None:
        return
    if not ipaddress.ip_address(wanted.listen).is_loopback and not wanted.keys:
        yield Finding(
            (*_AT, "listen"),
            f"listens on {wanted.listen} without a key: anyone who reaches the host could look",
            'add keys=[WebKey(name="...", secret=Secret(file="keys/web"))], or listen on "127.0.0.1"',
        )
    if wanted.port < _FIRST_FREE:
        yield Finding(
            (*_AT, "port"),
            f"port {wanted.port} is for root alone, and the web page runs as {USER} without any rights",
            f"take one from {_FIRST_FREE} on, and put a proxy on {wanted.port} if you want that",
        )
    yield from twice(
        ((*_AT, "keys", place, "name"), one.name, "another key") for place, one in enumerate(wanted.keys)
    )
    yield from twice(
        ((*_AT, "keys", place), one.secret or one.sha256, f"key {one.name}")
        for place, one in enumerate(wanted.keys)
    )
    if rack.controller is None:
        yield Finding(
            _AT,
            "needs a controller, whose host it runs on and which it asks",
            "add controller=Controller(host=...) to the rack",
        )
        return
    for place, host in enumerate(rack.hosts):
        if host.name == rack.controller.host:
            yield from _taken(rack, wanted, host, ("hosts", place, "services"))


def _taken(rack: Rack, wanted: Web, host: Host, services: Where) -> Iterator[Finding]:
    """Yield who has its port on its host already, and who has its name."""
    taken = [(rack.ssh_for(host).port, "sshd")]
    taken += [(one.port, f"service {one.name}") for one in host.services if one.port is not None]
    if rack.gateway is not None and rack.gateway.host == host.name:
        taken.append((rack.gateway.port, "the gateway"))
    for port, who in taken:
        if port == wanted.port:
            yield Finding((*_AT, "port"), f"port {port} is taken already by {who}", "choose another port")
            break
    for place, one in enumerate(host.services):
        if one.name == "web":
            reason = "is the name of the rack's own web page there: labctl-web.service"
            yield Finding((*services, place, "name"), reason, "choose another name")
