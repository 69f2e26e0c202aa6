"""Send a magic packet on somebody's behalf, into a network that this host is in.

The controller cannot wake a host in another network segment: broadcasts stop at routers. A host in that
segment can. Whoever may ask for this can send magic packets and nothing else: the payload is built here, out
of a MAC address, and it goes to everybody in a network of this host or to one address in it, never through a
router. One JSON line on standard input says which::

    {"mac": "52:54:00:12:34:56", "broadcast": null, "port": 9, "interface": null, "secureon": null}

``broadcast`` may also be a single address in one of the networks. What is not written exactly so is refused.
The answer is ``{"sent": 4}``, or ``{"failed": "..."}`` with exit status 1.
"""

from __future__ import annotations

import ipaddress
import json
import os
import select
from collections.abc import Sequence
from typing import Any

from . import magic

MOST_BYTES = 1024
PATIENCE_S = 10.0
_KEYS = frozenset({"mac", "broadcast", "port", "interface", "secureon"})


class BadRequest(ValueError):
    """What was asked for is no request to send a magic packet from here."""


class Request:
    """One magic packet to be sent: its MAC and password, and the networks and targets it goes to."""

    def __init__(self, document: Any, networks: Sequence[magic.Network]) -> None:
        """Read a request.

        Raises:
            BadRequest: it is none, or leads out of this host's own networks.
        """
        if not isinstance(document, dict) or "mac" not in document or not _KEYS.issuperset(document):
            raise BadRequest(f"must be an object of {', '.join(sorted(_KEYS))}")
        self.mac = _card(document["mac"])
        self.secureon = _six("secureon", document.get("secureon"))
        port = document.get("port")
        if port is not None and (type(port) is not int or not 1 <= port <= 65535):
            raise BadRequest("port: must be a UDP port")
        self.ports = magic.PORTS if port in (None, magic.PORTS[0]) else (port,)
        self.ways = _ways(networks, document.get("interface"), document.get("broadcast"), self.ports)


def _six(field: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not magic.SIX.fullmatch(value):
        raise BadRequest(f"{field}: must be six bytes such as 52:54:00:12:34:56")
    return value


def _card(value: Any) -> str:
    mac = _six("mac", value)
    if mac is None or int(mac[:2], 16) & 1 or not mac.strip("0:"):
        raise BadRequest("mac: must be the MAC address of one network card, such as 52:54:00:12:34:56")
    return mac


def _ways(
    networks: Sequence[magic.Network], interface: Any, broadcast: Any, ports: Sequence[int]
) -> list[tuple[magic.Network, list[magic.Target]]]:
    """Return the networks to send into, each with its targets."""
    if interface is not None:
        if not isinstance(interface, str):
            raise BadRequest("interface: must be a name")
        networks = [network for network in networks if network.interface == interface]
    if not networks:
        where = "this host" if interface is None else "that interface"
        raise BadRequest(f"{where} has no network in which something can be broadcast")
    if broadcast is None or broadcast == magic.EVERYWHERE:
        return [(network, magic.everybody(network, ports)) for network in networks]
    try:
        address = ipaddress.IPv4Address(broadcast) if isinstance(broadcast, str) else None
    except ValueError:
        address = None
    if address is None:
        raise BadRequest("broadcast: must be an IPv4 address")
    inside = [network for network in networks if address in network.whole]
    if not inside:
        raise BadRequest("broadcast: is in none of this host's own networks")
    return [(network, [(str(address), port) for port in ports]) for network in inside]


def answered(stdin: int) -> dict[str, Any]:
    """Do what one line of a file descriptor asks for, and return the answer."""
    try:
        request = Request(json.loads(_line(stdin)), magic.networks())
    except BadRequest as error:
        return {"failed": f"the request is refused: {error}"}
    except (ValueError, RecursionError):
        return {"failed": "the request is refused: it is no line of JSON"}
    except OSError as error:
        return {"failed": f"the networks of this host cannot be read: {error.strerror}"}
    sent, reasons = 0, []
    payload = magic.packet(request.mac, request.secureon)
    for network, targets in request.ways:
        try:
            sent += magic.send(payload, targets, out_of=network)
        except OSError as error:
            reasons.append(f"{network.interface}: {error.strerror}")
    return {"sent": sent} if sent else {"failed": "; ".join(reasons)}


def _line(stdin: int) -> bytes:
    """Return the first line, without waiting for the end of the input."""
    data = b""
    while b"\n" not in data:
        if not select.select([stdin], [], [], PATIENCE_S)[0]:
            raise BadRequest("it did not come")
        piece = os.read(stdin, MOST_BYTES + 1 - len(data))
        data += piece
        if not piece:
            break
        if len(data) > MOST_BYTES:
            raise BadRequest(f"it is longer than {MOST_BYTES} bytes")
    return data.partition(b"\n")[0]
